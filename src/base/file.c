/* SPDX-License-Identifier: MIT */
#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/ctx.h"
#include "base/status.h"

typedef struct buffer {
    unsigned char *data;
    size_t used, size;
} buffer;

/* The length where the file can tell, else a first guess. */
static size_t guess_size(FILE *file, uint64_t max_bytes)
{
    long length = -1;
    if (fseek(file, 0, SEEK_END) == 0) {
        length = ftell(file);
        (void)fseek(file, 0, SEEK_SET);
    }
    if (length < 0 || (uint64_t)length > max_bytes) {
        return 65536;
    }
    return (size_t)length + 1; /* one more, to see the end */
}

static gc_status grow(gc_ctx *ctx, buffer *b, gc_error *err)
{
    unsigned char *data;
    if (b->size > SIZE_MAX / 2) {
        return GC_NOMEM(err);
    }
    data = gc_mem_alloc_raw(ctx, b->size * 2, 1);
    if (!data) {
        return GC_NOMEM(err);
    }
    memcpy(data, b->data, b->used);
    gc_mem_free(ctx, b->data);
    b->data = data;
    b->size *= 2;
    return GRADCAM_OK;
}

static gc_status read_all(gc_ctx *ctx, FILE *file, const char *path, uint64_t max_bytes, buffer *b, gc_error *err)
{
    b->size = guess_size(file, max_bytes);
    b->data = gc_mem_alloc_raw(ctx, b->size, 1);
    if (!b->data) {
        return GC_NOMEM(err);
    }
    for (;;) {
        size_t got = fread(b->data + b->used, 1, b->size - b->used, file);
        b->used += got;
        if (b->used > max_bytes) {
            return gc_fail(err, GRADCAM_E_LIMIT,
                           "'%.300s' is larger than max_bytes = %llu; raise gc_load_options.max_bytes", path,
                           (unsigned long long)max_bytes);
        }
        if (ferror(file)) {
            return gc_fail(err, GRADCAM_E_IO, "cannot read '%.300s': %.80s", path, strerror(errno));
        }
        if (got == 0 || feof(file)) {
            return GRADCAM_OK;
        }
        if (b->used == b->size) {
            GC_TRY(grow(ctx, b, err));
        }
    }
}

gc_status gc_file_read(gc_ctx *ctx, const char *path, uint64_t max_bytes, void **data, size_t *size, gc_error *err)
{
    buffer b = {NULL, 0, 0};
    gc_status status;
    FILE *file = fopen(path, "rb");
    if (!file) {
        return gc_fail(err, GRADCAM_E_IO, "cannot open '%.300s': %.80s", path, strerror(errno));
    }
    status = read_all(ctx, file, path, max_bytes, &b, err);
    (void)fclose(file);
    if (status != GRADCAM_OK) {
        gc_mem_free(ctx, b.data);
        return status;
    }
    *data = b.data;
    *size = b.used;
    return GRADCAM_OK;
}
