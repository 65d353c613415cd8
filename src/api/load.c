/* SPDX-License-Identifier: MIT */
/* gc_net_load_*: arguments are checked, bytes are read, the importer works. */
#include <string.h>

#include "base/abi.h"
#include "base/ctx.h"
#include "base/file.h"
#include "base/source.h"
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
    if (o->weights > GRADCAM_WEIGHTS_ON_DEMAND) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_load_options.weights is %lu; there are 0 and 1",
                       (unsigned long)o->weights);
    }
    o->max_bytes = o->max_bytes ? o->max_bytes : GC_DEFAULT_MAX_BYTES;
    return GRADCAM_OK;
}

/* The source, which is the network's from here on, where it reads from it later. */
static gc_status import(gc_ctx *ctx, gc_source *source, const gc_model *model, const gc_load_options *o, gc_net **out,
                        gc_error *err)
{
    gc_net *net = NULL;
    gc_status status = gc_onnx_import(ctx, model, o, &net, err);
    if (status == GRADCAM_OK && o->weights == GRADCAM_WEIGHTS_ON_DEMAND) {
        net->source = source;
    } else {
        gc_source_close(source);
    }
    if (status == GRADCAM_OK) {
        *out = net;
    }
    return status;
}

gc_status gc_net_load_memory(gc_ctx *ctx, const void *data, size_t size, const gc_load_options *options, gc_net **out,
                             gc_error *err)
{
    gc_load_options o;
    gc_source *source = NULL;
    GC_TRY(read_options(ctx, options, out, &o, err));
    if (!data && size > 0) {
        return gc_fail(err, GRADCAM_E_INVALID, "data is NULL but size is not 0");
    }
    if (o.weights == GRADCAM_WEIGHTS_ON_DEMAND && size > 0) {
        GC_TRY(gc_source_memory(ctx, data, size, &source, err));
    }
    gc_model model = {data, size, NULL, source, NULL};
    return import(ctx, source, &model, &o, out, err);
}

/* All of it in memory, for models that have no outline. */
static gc_status load_whole(gc_ctx *ctx, gc_source *source, gc_model *model, const gc_load_options *o, gc_net **out,
                            gc_error *err)
{
    size_t size = (size_t)gc_source_size(source);
    void *data = gc_mem_alloc_raw(ctx, size + 1, 1);
    gc_status status = data == NULL ? GC_NOMEM(err) : gc_source_read(source, 0, data, size, err);
    if (status != GRADCAM_OK) {
        gc_source_close(source);
    } else {
        model->data = data;
        model->size = size;
        status = import(ctx, source, model, o, out, err);
    }
    gc_mem_free(ctx, data);
    return status;
}

static gc_status load_source(gc_ctx *ctx, gc_source *source, const char *path, const gc_load_options *o, gc_net **out,
                             gc_error *err)
{
    gc_outline outline;
    bool whole = false;
    gc_status status = gc_outline_read(ctx, source, &outline, &whole, err);
    if (status != GRADCAM_OK) {
        gc_source_close(source);
        return status;
    }
    gc_model model = {outline.data, outline.used, &outline, source, path};
    if (whole) {
        model.outline = NULL;
        return load_whole(ctx, source, &model, o, out, err);
    }
    status = import(ctx, source, &model, o, out, err);
    gc_outline_free(&outline);
    return status;
}

/* A pipe and the like, and where the system cannot do otherwise. */
static gc_status load_stream(gc_ctx *ctx, const char *path, const gc_load_options *o, gc_net **out, gc_error *err)
{
    gc_model model = {NULL, 0, NULL, NULL, path};
    void *data = NULL;
    GC_TRY(gc_file_read(ctx, path, o->max_bytes, &data, &model.size, err));
    model.data = data;
    gc_status status = import(ctx, NULL, &model, o, out, err);
    gc_mem_free(ctx, data);
    return status;
}

gc_status gc_net_load_file(gc_ctx *ctx, const char *path, const gc_load_options *options, gc_net **out, gc_error *err)
{
    gc_load_options o;
    gc_source *source = NULL;
    GC_TRY(read_options(ctx, options, out, &o, err));
    if (!path) {
        return gc_fail(err, GRADCAM_E_INVALID, "path must not be NULL");
    }
    GC_TRY(gc_source_file(ctx, path, &source, err));
    if (source == NULL) {
        return load_stream(ctx, path, &o, out, err);
    }
    if (gc_source_size(source) > o.max_bytes || gc_source_size(source) > SIZE_MAX - 1) {
        gc_source_close(source);
        return gc_fail(err, GRADCAM_E_LIMIT,
                       "'%.300s' is larger than max_bytes = %llu; raise gc_load_options.max_bytes", path,
                       (unsigned long long)o.max_bytes);
    }
    return load_source(ctx, source, path, &o, out, err);
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
    gc_source *source = NULL;
    size_t size = 0;
    GC_TRY(read_options(ctx, options, out, &o, err));
    if (!reader) {
        return gc_fail(err, GRADCAM_E_INVALID, "reader must not be NULL");
    }
    GC_TRY(GC_ABI_IMPORT(reader, &r, err));
    if (!r.read_at || !r.size) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_reader: read_at and size must not be NULL");
    }
    GC_TRY(reader_size(&r, o.max_bytes, &size, err));
    GC_TRY(gc_source_reader(ctx, &r, size, &source, err));
    return load_source(ctx, source, NULL, &o, out, err);
}
