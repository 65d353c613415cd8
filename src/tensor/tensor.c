/* SPDX-License-Identifier: MIT */
#include "tensor/tensor.h"

#include <stdio.h>
#include <string.h>

#include "base/abi.h"
#include "base/ctx.h"
#include "base/size.h"
#include "base/status.h"

size_t gc_dtype_size(gc_dtype dtype)
{
    static const unsigned char sizes[] = {0, 4, 8, 2, 2, 8, 4, 1, 1};
    return dtype >= GRADCAM_F32 && dtype <= GRADCAM_BOOL ? sizes[dtype] : 0;
}

int64_t gc_shape_numel(int32_t ndim, const int64_t *shape)
{
    /* A factor 0 must not hide an overflow of the others: strides use them. */
    int64_t product = 1;
    bool empty = false;
    for (int32_t i = 0; i < ndim; i++) {
        if (shape[i] == 0) {
            empty = true;
        } else if (!gc_mul_ok(product, shape[i], &product) || product > INT64_MAX / 64) {
            return -1;
        }
    }
    return empty ? 0 : product;
}

bool gc_is_constant(const gc_tensor *t)
{
    return t->data != NULL || t->absent;
}

int64_t gc_numel(const gc_tensor *t)
{
    return gc_shape_numel(t->ndim, t->shape);
}

void gc_row_strides(int32_t ndim, const int64_t *shape, int64_t *strides)
{
    int64_t step = 1;
    for (int32_t i = ndim - 1; i >= 0; i--) {
        strides[i] = step;
        step *= shape[i] > 0 ? shape[i] : 1;
    }
}

void gc_cl_strides(int32_t ndim, const int64_t *shape, int64_t *strides)
{
    strides[1] = 1;
    int64_t step = shape[1] > 0 ? shape[1] : 1;
    for (int32_t i = ndim - 1; i >= 2; i--) {
        strides[i] = step;
        step *= shape[i] > 0 ? shape[i] : 1;
    }
    strides[0] = step;
}

/* Strides of dimensions with one element do not matter. */
static bool same_order(const gc_tensor *t, const int64_t *strides)
{
    for (int32_t i = 0; i < t->ndim; i++) {
        if (t->shape[i] > 1 && t->strides[i] != strides[i]) {
            return false;
        }
    }
    return true;
}

bool gc_is_row(const gc_tensor *t)
{
    int64_t strides[GRADCAM_MAX_DIMS];
    gc_row_strides(t->ndim, t->shape, strides);
    return same_order(t, strides);
}

bool gc_is_cl(const gc_tensor *t)
{
    int64_t strides[GRADCAM_MAX_DIMS];
    if (t->ndim < 2) {
        return false;
    }
    gc_cl_strides(t->ndim, t->shape, strides);
    return same_order(t, strides);
}

int64_t gc_cl_pixel(const gc_tensor *t)
{
    int64_t step = t->strides[t->ndim - 1], channels = t->shape[1];
    return step > channels ? step : channels; /* one pixel may have any stride */
}

gc_tensor gc_tensor_alias(const gc_tensor *t)
{
    gc_tensor alias;
    memset(&alias, 0, sizeof alias);
    alias.ctx = t->ctx;
    alias.data = t->data;
    alias.ndim = t->ndim;
    alias.dtype = t->dtype;
    memcpy(alias.shape, t->shape, sizeof alias.shape);
    memcpy(alias.strides, t->strides, sizeof alias.strides);
    return alias;
}

bool gc_same_shape(const gc_tensor *a, const gc_tensor *b)
{
    return a->ndim == b->ndim && memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof a->shape[0]) == 0;
}

const char *gc_shape_text(int32_t ndim, const int64_t *shape, char text[GC_SHAPE_TEXT])
{
    size_t used = 1;
    memcpy(text, "[", 2);
    for (int32_t i = 0; i < ndim && used + 32 < GC_SHAPE_TEXT; i++) {
        const char *comma = i > 0 ? ", " : "";
        int n = shape[i] < 0 ? snprintf(text + used, GC_SHAPE_TEXT - used, "%s?", comma)
                             : snprintf(text + used, GC_SHAPE_TEXT - used, "%s%lld", comma, (long long)shape[i]);
        used += n < 0 ? 0 : (size_t)n;
    }
    snprintf(text + used, GC_SHAPE_TEXT - used, "]");
    return text;
}

static gc_status check_desc(const gc_tensor_desc *d, gc_error *err)
{
    if (gc_dtype_size(d->dtype) == 0) {
        return gc_fail(err, GRADCAM_E_DTYPE, "tensor: unknown element type %d", (int)d->dtype);
    }
    if (d->ndim < 0 || d->ndim > GRADCAM_MAX_DIMS) {
        return gc_fail(err, GRADCAM_E_SHAPE, "tensor: %d dimensions, at most %d", (int)d->ndim, GRADCAM_MAX_DIMS);
    }
    if (gc_shape_numel(d->ndim, d->shape) < 0) {
        return gc_fail(err, GRADCAM_E_SHAPE, "tensor: a dimension is negative or the size overflows");
    }
    return GRADCAM_OK;
}

static void set_strides(gc_tensor *t, const gc_tensor_desc *d)
{
    bool given = false;
    for (int32_t i = 0; i < d->ndim; i++) {
        given = given || d->strides[i] != 0;
    }
    if (given && d->data != NULL) {
        memcpy(t->strides, d->strides, sizeof t->strides);
    } else {
        gc_row_strides(t->ndim, t->shape, t->strides);
    }
}

gc_status gc_tensor_new(gc_ctx *ctx, const gc_tensor_desc *desc, gc_tensor_data data, gc_tensor **out, gc_error *err)
{
    GC_TRY(check_desc(desc, err));
    gc_tensor *t = gc_mem_alloc(ctx, 1, sizeof *t);
    if (t == NULL) {
        return GC_NOMEM(err);
    }
    t->dtype = desc->dtype;
    t->ndim = desc->ndim;
    memcpy(t->shape, desc->shape, sizeof t->shape);
    set_strides(t, desc);
    t->data = desc->data;
    if (t->data == NULL && data != GC_DATA_ABSENT) {
        size_t count = (size_t)gc_numel(t) + 1, size = gc_dtype_size(t->dtype);
        t->data = data == GC_DATA_RAW ? gc_mem_alloc_raw(ctx, count, size) : gc_mem_alloc(ctx, count, size);
        t->owned = 1;
    }
    if (t->data == NULL && data != GC_DATA_ABSENT) {
        gc_mem_free(ctx, t);
        return GC_NOMEM(err);
    }
    t->release = t->owned ? NULL : desc->release;
    t->user = desc->user;
    t->refs = 1;
    t->ctx = gc_ctx_ref(ctx);
    *out = t;
    return GRADCAM_OK;
}

gc_status gc_tensor_create(gc_ctx *ctx, const gc_tensor_desc *given, gc_tensor **out, gc_error *err)
{
    gc_tensor_desc desc;
    if (ctx == NULL || given == NULL || out == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_tensor_create: an argument is NULL");
    }
    GC_TRY(GC_ABI_IMPORT(given, &desc, err));
    return gc_tensor_new(ctx, &desc, GC_DATA_GIVEN, out, err);
}

gc_status gc_tensor_describe(const gc_tensor *t, gc_tensor_desc *desc)
{
    if (t == NULL || desc == NULL) {
        return GRADCAM_E_INVALID;
    }
    memset(desc, 0, sizeof *desc); /* as long as the struct is in its first version, see the header */
    desc->struct_size = (uint32_t)sizeof *desc;
    desc->dtype = t->dtype;
    desc->ndim = t->ndim;
    memcpy(desc->shape, t->shape, (size_t)t->ndim * sizeof t->shape[0]);
    memcpy(desc->strides, t->strides, (size_t)t->ndim * sizeof t->strides[0]);
    desc->data = t->data;
    return GRADCAM_OK;
}

gc_tensor *gc_tensor_ref(gc_tensor *t)
{
    /* Tensors inside a run are borrowed: they have no references to count. */
    if (t != NULL && gc_atomic_add(&t->refs, 0) > 0) {
        gc_atomic_add(&t->refs, 1);
    }
    return t;
}

void gc_tensor_unref(gc_tensor *t)
{
    if (t == NULL || gc_atomic_add(&t->refs, 0) == 0 || gc_atomic_add(&t->refs, -1) > 0) {
        return;
    }
    gc_ctx *ctx = t->ctx;
    if (t->owned) {
        gc_mem_free(ctx, t->data);
    } else if (t->release != NULL) {
        t->release(t->user, t->data);
    }
    gc_mem_free(ctx, t);
    gc_ctx_unref(ctx);
}
