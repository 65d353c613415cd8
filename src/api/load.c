/* SPDX-License-Identifier: MIT */
/* gc_net_load_*: arguments are checked, bytes are read, the importer works. */
#include <string.h>

#include "base/abi.h"
#include "base/ctx.h"
#include "base/file.h"
#include "base/status.h"
#include "graph/net.h"
#include "onnx/onnx.h"

/* The host's options with defaults filled in. */
static gc_status read_options(gc_ctx *ctx, const gc_load_options *options, gc_net *const *out, gc_load_options *o,
                              gc_error *err)
{
    memset(o, 0, sizeof *o);
    if (!ctx || !out) {
        return gc_fail(err, GRADCAM_E_INVALID, "ctx and out must not be NULL");
    }
    if (options) {
        GC_TRY(GC_ABI_IMPORT(options, o, err));
    }
    o->max_bytes = o->max_bytes ? o->max_bytes : GC_DEFAULT_MAX_BYTES;
    return GRADCAM_OK;
}

gc_status gc_net_load_memory(gc_ctx *ctx, const void *data, size_t size, const gc_load_options *options, gc_net **out,
                             gc_error *err)
{
    gc_load_options o;
    GC_TRY(read_options(ctx, options, out, &o, err));
    if (!data && size > 0) {
        return gc_fail(err, GRADCAM_E_INVALID, "data is NULL but size is not 0");
    }
    return gc_onnx_import(ctx, data, size, NULL, &o, out, err);
}

gc_status gc_net_load_file(gc_ctx *ctx, const char *path, const gc_load_options *options, gc_net **out, gc_error *err)
{
    gc_load_options o;
    void *data = NULL;
    size_t size = 0;
    gc_status status;
    GC_TRY(read_options(ctx, options, out, &o, err));
    if (!path) {
        return gc_fail(err, GRADCAM_E_INVALID, "path must not be NULL");
    }
    GC_TRY(gc_file_read(ctx, path, o.max_bytes, &data, &size, err));
    status = gc_onnx_import(ctx, data, size, path, &o, out, err);
    gc_mem_free(ctx, data);
    return status;
}

static gc_status read_bytes(const gc_reader *reader, unsigned char *data, size_t size, gc_error *err)
{
    size_t done = 0;
    while (done < size) {
        int64_t got = reader->read_at(reader->user, done, data + done, size - done);
        if (got <= 0 || (uint64_t)got > size - done) {
            gc_status status = gc_fail(err, GRADCAM_E_IO, "the reader returned %lld at byte %llu of %llu",
                                       (long long)got, (unsigned long long)done, (unsigned long long)size);
            if (err) {
                err->user_code = got < 0 && got >= INT32_MIN ? (int32_t)got : 0;
            }
            return status;
        }
        done += (size_t)got;
    }
    return GRADCAM_OK;
}

static gc_status reader_size(const gc_reader *reader, uint64_t max_bytes, size_t *size, gc_error *err)
{
    int64_t n = reader->size(reader->user);
    if (n < 0) {
        return gc_fail(err, GRADCAM_E_IO, "the reader could not say its size (%lld)", (long long)n);
    }
    if ((uint64_t)n > max_bytes || (uint64_t)n > SIZE_MAX - 1) {
        return gc_fail(err, GRADCAM_E_LIMIT,
                       "the model has %lld bytes, more than max_bytes = %llu; raise gc_load_options.max_bytes",
                       (long long)n, (unsigned long long)max_bytes);
    }
    *size = (size_t)n;
    return GRADCAM_OK;
}

gc_status gc_net_load_reader(gc_ctx *ctx, const gc_reader *reader, const gc_load_options *options, gc_net **out,
                             gc_error *err)
{
    gc_load_options o;
    gc_reader r;
    unsigned char *data;
    size_t size = 0;
    gc_status status;
    GC_TRY(read_options(ctx, options, out, &o, err));
    if (!reader) {
        return gc_fail(err, GRADCAM_E_INVALID, "reader must not be NULL");
    }
    GC_TRY(GC_ABI_IMPORT(reader, &r, err));
    if (!r.read_at || !r.size) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_reader: read_at and size must not be NULL");
    }
    GC_TRY(reader_size(&r, o.max_bytes, &size, err));
    data = gc_mem_alloc_raw(ctx, size + 1, 1);
    if (!data) {
        return GC_NOMEM(err);
    }
    status = read_bytes(&r, data, size, err);
    if (status == GRADCAM_OK) {
        status = gc_onnx_import(ctx, data, size, NULL, &o, out, err);
    }
    gc_mem_free(ctx, data);
    return status;
}
