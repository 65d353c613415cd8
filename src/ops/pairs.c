/* SPDX-License-Identifier: MIT */
#include "ops/pairs.h"

#include <string.h>

static int64_t int_at(const gc_tensor *t, int64_t i)
{
    return t->dtype == GRADCAM_I64 ? ((const int64_t *)t->data)[i] : ((const int32_t *)t->data)[i];
}

/* For checked indices. */
static int64_t wrap(int64_t v, int64_t dim)
{
    return v < 0 ? v + dim : v;
}

static int64_t product(const int64_t *shape, int32_t from, int32_t to)
{
    int64_t n = 1;
    for (int32_t i = from; i < to; i++) {
        n = (int64_t)((uint64_t)n * (uint64_t)shape[i]); /* may wrap only when another dimension is 0 */
    }
    return n;
}

/* The axis was checked by infer. */
static int32_t axis_of(const gc_op_call *c)
{
    int64_t axis = gc_attr_int(&c->attrs, "axis", 0);
    return (int32_t)(axis < 0 ? axis + c->in[0]->ndim : axis);
}

static int32_t batch_dims_of(const gc_op_call *c)
{
    return strcmp(c->op_name, "GatherND") == 0 ? (int32_t)gc_attr_int(&c->attrs, "batch_dims", 0) : 0;
}

/* ---- the three walks ---- */

void gc_pairs_gather(const gc_op_call *c, gc_pair_fn fn, void *user)
{
    const gc_tensor *x = c->in[0];
    int32_t axis = axis_of(c);
    int64_t outer = product(x->shape, 0, axis), inner = product(x->shape, axis + 1, x->ndim);
    int64_t dim = x->shape[axis], n = gc_numel(c->in[1]);
    for (int64_t o = 0; inner > 0 && o < outer; o++) {
        for (int64_t i = 0; i < n; i++) {
            fn(user, (o * n + i) * inner, (o * dim + wrap(int_at(c->in[1], i), dim)) * inner, inner);
        }
    }
}

void gc_pairs_elements(const gc_op_call *c, gc_pair_fn fn, void *user)
{
    const gc_tensor *x = c->in[0], *idx = c->in[1];
    int64_t strides[GRADCAM_MAX_DIMS], pos[GRADCAM_MAX_DIMS] = {0};
    int32_t axis = axis_of(c);
    int64_t n = gc_numel(idx), base = 0;
    gc_row_strides(x->ndim, x->shape, strides);
    for (int64_t i = 0; i < n; i++) {
        fn(user, i, base + wrap(int_at(idx, i), x->shape[axis]) * strides[axis], 1);
        int32_t k = idx->ndim - 1;
        for (; k >= 0 && ++pos[k] == idx->shape[k]; k--) {
            base -= k != axis ? (idx->shape[k] - 1) * strides[k] : 0;
            pos[k] = 0;
        }
        base += k >= 0 && k != axis ? strides[k] : 0;
    }
}

void gc_pairs_nd(const gc_op_call *c, gc_pair_fn fn, void *user)
{
    const gc_tensor *x = c->in[0], *idx = c->in[1];
    int64_t strides[GRADCAM_MAX_DIMS];
    int32_t b = batch_dims_of(c), k = (int32_t)idx->shape[idx->ndim - 1];
    int64_t inner = product(x->shape, b + k, x->ndim), batch = product(x->shape, b, x->ndim);
    int64_t rows = product(idx->shape, 0, idx->ndim - 1), per_batch = product(idx->shape, b, idx->ndim - 1);
    gc_row_strides(x->ndim, x->shape, strides);
    for (int64_t r = 0; inner > 0 && r < rows; r++) {
        int64_t at = b > 0 ? r / per_batch * batch : 0;
        for (int32_t j = 0; j < k; j++) {
            at += wrap(int_at(idx, r * k + j), x->shape[b + j]) * strides[b + j];
        }
        fn(user, r * inner, at, inner);
    }
}

/* ---- checks ---- */

static gc_status check_one(gc_op_call *c, int64_t v, int64_t dim)
{
    if (v < -dim || v >= dim) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "index %lld is outside a dimension of length %lld", (long long)v,
                          (long long)dim);
    }
    return GRADCAM_OK;
}

gc_status gc_pairs_check(gc_op_call *c, gc_pair_walk walk)
{
    const gc_tensor *x = c->in[0], *idx = c->in[1];
    bool nd = walk == gc_pairs_nd;
    int32_t first = nd ? batch_dims_of(c) : axis_of(c);
    int64_t n = gc_numel(idx), k = nd ? idx->shape[idx->ndim - 1] : 1;
    for (int64_t i = 0; i < n; i++) {
        GC_TRY(check_one(c, int_at(idx, i), x->shape[first + i % k]));
    }
    return GRADCAM_OK;
}

gc_status gc_pairs_need(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    if (c->in[1]->dtype != GRADCAM_I64 && c->in[1]->dtype != GRADCAM_I32) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "indices must be int64 or int32");
    }
    return GRADCAM_OK;
}

/* Indices reach into data only along the axis; elsewhere they must fit. */
gc_status gc_pairs_need_elements(gc_op_call *c)
{
    int32_t axis = 0;
    GC_TRY(gc_pairs_need(c));
    const gc_tensor *x = c->in[0], *idx = c->in[1];
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", 0), x->ndim, &axis));
    if (x->ndim != idx->ndim) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "data has rank %d, indices %d", (int)x->ndim, (int)idx->ndim);
    }
    for (int32_t i = 0; i < x->ndim; i++) {
        if (i != axis && idx->shape[i] > x->shape[i]) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "indices are longer than data in dimension %d", (int)i);
        }
    }
    return GRADCAM_OK;
}

gc_status gc_pairs_nd_shape(gc_op_call *c, int64_t b, int64_t *shape, int32_t *count)
{
    const gc_tensor *x = c->in[0], *idx = c->in[1];
    int32_t n = 0;
    if (x->ndim < 1 || idx->ndim < 1 || b < 0 || b >= idx->ndim || b >= x->ndim) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "data, indices and batch_dims do not fit");
    }
    int64_t k = idx->shape[idx->ndim - 1];
    if (k < 1 || k > x->ndim - b || idx->ndim - 1 + x->ndim - b - k > GRADCAM_MAX_DIMS) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "index tuples of length %lld do not fit the data", (long long)k);
    }
    for (int32_t i = 0; i < idx->ndim - 1; i++) {
        if (i < b && idx->shape[i] != x->shape[i]) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "batch dimension %d differs", (int)i);
        }
        shape[n++] = idx->shape[i];
    }
    for (int32_t i = (int32_t)(b + k); i < x->ndim; i++) {
        shape[n++] = x->shape[i];
    }
    *count = n;
    return GRADCAM_OK;
}

void gc_pair_take(void *user, int64_t small, int64_t big, int64_t n)
{
    const gc_pair_copy *m = user;
    memcpy(m->small + (size_t)small * m->size, m->big + (size_t)big * m->size, (size_t)n * m->size);
}
