/* SPDX-License-Identifier: MIT */
/* gc_net_load_*: arguments are checked, bytes are read, the importer works. */
#include <string.h>

#include "base/ctx.h"
#include "base/file.h"
#include "base/status.h"
#include "onnx/onnx.h"

#define DEFAULT_MAX_BYTES ((uint64_t)4 << 30)

/* The size rule of the header; bytes beyond `known` must be zero. */
static gc_status check_struct(const void *p, uint32_t struct_size, size_t known, const char *what, gc_error *err)
{
    const unsigned char *bytes = p;
    size_t k;
    if (struct_size != 0 && struct_size < known) {
        return gc_fail(err, GRADCAM_E_ABI, "%s.struct_size is %lu; set it to 0 or to sizeof the struct", what,
                       (unsigned long)struct_size);
    }
    for (k = known; k < struct_size; ++k) {
        if (bytes[k] != 0) {
            return gc_fail(err, GRADCAM_E_ABI, "%s uses fields that this version of the library does not know", what);
        }
    }
    return GRADCAM_OK;
}

static gc_status check_common(gc_ctx *ctx, const gc_load_options *options, gc_net *const *out, gc_error *err)
{
    if (!ctx || !out) {
        return gc_fail(err, GRADCAM_E_INVALID, "ctx and out must not be NULL");
    }
    if (!options) {
        return GRADCAM_OK;
    }
    GC_TRY(check_struct(options, options->struct_size, sizeof *options, "gc_load_options", err));
    if (options->external) {
        return gc_fail(err, GRADCAM_E_UNSUPPORTED,
                       "gc_load_options.external must be NULL: external data is not supported yet");
    }
    return GRADCAM_OK;
}

static uint64_t max_bytes_of(const gc_load_options *options)
{
    return options && options->max_bytes ? options->max_bytes : DEFAULT_MAX_BYTES;
}

gc_status gc_net_load_memory(gc_ctx *ctx, const void *data, size_t size, const gc_load_options *options,
                             gc_net **out, gc_error *err)
{
    GC_TRY(check_common(ctx, options, out, err));
    if (!data && size > 0) {
        return gc_fail(err, GRADCAM_E_INVALID, "data is NULL but size is not 0");
    }
    return gc_onnx_import(ctx, data, size, options, out, err);
}

gc_status gc_net_load_file(gc_ctx *ctx, const char *path, const gc_load_options *options, gc_net **out,
                           gc_error *err)
{
    void *data = NULL;
    size_t size = 0;
    gc_status status;
    GC_TRY(check_common(ctx, options, out, err));
    if (!path) {
        return gc_fail(err, GRADCAM_E_INVALID, "path must not be NULL");
    }
    GC_TRY(gc_file_read(ctx, path, max_bytes_of(options), &data, &size, err));
    status = gc_onnx_import(ctx, data, size, options, out, err);
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
    unsigned char *data;
    size_t size = 0;
    gc_status status;
    GC_TRY(check_common(ctx, options, out, err));
    if (!reader || !reader->read_at || !reader->size) {
        return gc_fail(err, GRADCAM_E_INVALID, "reader, reader->read_at and reader->size must not be NULL");
    }
    GC_TRY(check_struct(reader, reader->struct_size, sizeof *reader, "gc_reader", err));
    GC_TRY(reader_size(reader, max_bytes_of(options), &size, err));
    data = gc_mem_alloc(ctx, size + 1, 1);
    if (!data) {
        return GC_NOMEM(err);
    }
    status = read_bytes(reader, data, size, err);
    if (status == GRADCAM_OK) {
        status = gc_onnx_import(ctx, data, size, options, out, err);
    }
    gc_mem_free(ctx, data);
    return status;
}
