/* SPDX-License-Identifier: MIT */
/* Gather, scatter and friends.  The five gather/scatter operators differ only
 * in how a position among the indices maps to a place in the data: a "walk"
 * visits all pairs (place in the small tensor, place in the data), and the
 * forward and backward functions say what to do at each. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "ops/op.h"

enum { RED_NONE, RED_ADD, RED_MUL, RED_MAX, RED_MIN };

typedef struct pair_move {
    char *small; /* updates or gathered values */
    char *big;   /* data, out of a scatter, gradient of the data */
    size_t size; /* bytes of one element */
    gc_dtype dtype;
    int32_t reduction;
} pair_move;

typedef void (*pair_fn)(const pair_move *m, int64_t small, int64_t big, int64_t n);
typedef void (*walk_fn)(const gc_op_call *c, const pair_move *m, pair_fn fn);

static int64_t int_at(const gc_tensor *t, int64_t i)
{
    return t->dtype == GRADCAM_I64 ? ((const int64_t *)t->data)[i] : ((const int32_t *)t->data)[i];
}

/* For checked indices. */
static int64_t wrap(int64_t v, int64_t dim)
{
    return v < 0 ? v + dim : v;
}

static gc_status check_one(gc_op_call *c, int64_t v, int64_t dim)
{
    if (v < -dim || v >= dim) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "index %lld is outside a dimension of length %lld", (long long)v,
                          (long long)dim);
    }
    return GRADCAM_OK;
}

static gc_status check_axis_indices(gc_op_call *c, int64_t dim)
{
    int64_t n = gc_numel(c->in[1]);
    for (int64_t i = 0; i < n; i++) {
        GC_TRY(check_one(c, int_at(c->in[1], i), dim));
    }
    return GRADCAM_OK;
}

static gc_status need_indices(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    if (c->in[1]->dtype != GRADCAM_I64 && c->in[1]->dtype != GRADCAM_I32) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "indices must be int64 or int32");
    }
    return GRADCAM_OK;
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

/* ---- the three walks ---- */

static void walk_gather(const gc_op_call *c, const pair_move *m, pair_fn fn)
{
    const gc_tensor *x = c->in[0];
    int32_t axis = axis_of(c);
    int64_t outer = product(x->shape, 0, axis), inner = product(x->shape, axis + 1, x->ndim);
    int64_t dim = x->shape[axis], n = gc_numel(c->in[1]);
    for (int64_t o = 0; inner > 0 && o < outer; o++) {
        for (int64_t i = 0; i < n; i++) {
            fn(m, (o * n + i) * inner, (o * dim + wrap(int_at(c->in[1], i), dim)) * inner, inner);
        }
    }
}

static void walk_elements(const gc_op_call *c, const pair_move *m, pair_fn fn)
{
    const gc_tensor *x = c->in[0], *idx = c->in[1];
    int64_t strides[GRADCAM_MAX_DIMS], pos[GRADCAM_MAX_DIMS] = {0};
    int32_t axis = axis_of(c);
    int64_t n = gc_numel(idx), base = 0;
    gc_row_strides(x->ndim, x->shape, strides);
    for (int64_t i = 0; i < n; i++) {
        fn(m, i, base + wrap(int_at(idx, i), x->shape[axis]) * strides[axis], 1);
        int32_t k = idx->ndim - 1;
        for (; k >= 0 && ++pos[k] == idx->shape[k]; k--) {
            base -= k != axis ? (idx->shape[k] - 1) * strides[k] : 0;
            pos[k] = 0;
        }
        base += k >= 0 && k != axis ? strides[k] : 0;
    }
}

static int32_t batch_dims_of(const gc_op_call *c)
{
    return strcmp(c->op_name, "GatherND") == 0 ? (int32_t)gc_attr_int(&c->attrs, "batch_dims", 0) : 0;
}

static void walk_nd(const gc_op_call *c, const pair_move *m, pair_fn fn)
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
        fn(m, r * inner, at, inner);
    }
}

static gc_status check_for(gc_op_call *c, walk_fn walk)
{
    const gc_tensor *x = c->in[0], *idx = c->in[1];
    if (walk != walk_nd) {
        return check_axis_indices(c, x->shape[axis_of(c)]);
    }
    int32_t b = batch_dims_of(c);
    int64_t n = gc_numel(idx), k = idx->shape[idx->ndim - 1];
    for (int64_t i = 0; i < n; i++) {
        GC_TRY(check_one(c, int_at(idx, i), x->shape[b + i % k]));
    }
    return GRADCAM_OK;
}

/* ---- what to do at a pair ---- */

static void pair_take(const pair_move *m, int64_t small, int64_t big, int64_t n)
{
    memcpy(m->small + (size_t)small * m->size, m->big + (size_t)big * m->size, (size_t)n * m->size);
}

static void pair_put(const pair_move *m, int64_t small, int64_t big, int64_t n)
{
    memcpy(m->big + (size_t)big * m->size, m->small + (size_t)small * m->size, (size_t)n * m->size);
}

static void pair_zero(const pair_move *m, int64_t small, int64_t big, int64_t n)
{
    (void)small;
    memset(m->big + (size_t)big * m->size, 0, (size_t)n * m->size);
}

static float reduce_float(float a, float b, int32_t r)
{
    switch (r) {
    case RED_ADD: return a + b;
    case RED_MUL: return a * b;
    case RED_MAX: return a > b ? a : b;
    default: return a < b ? a : b;
    }
}

/* Wraps around, as the reference does. */
static int64_t reduce_int(int64_t a, int64_t b, int32_t r)
{
    switch (r) {
    case RED_ADD: return (int64_t)((uint64_t)a + (uint64_t)b);
    case RED_MUL: return (int64_t)((uint64_t)a * (uint64_t)b);
    case RED_MAX: return a > b ? a : b;
    default: return a < b ? a : b;
    }
}

static void pair_reduce(const pair_move *m, int64_t small, int64_t big, int64_t n)
{
    int32_t r = m->reduction;
    for (int64_t i = 0; i < n; i++) {
        void *d = m->big + (size_t)(big + i) * m->size;
        const void *s = m->small + (size_t)(small + i) * m->size;
        switch (m->dtype) {
        case GRADCAM_F32: *(float *)d = reduce_float(*(float *)d, *(const float *)s, r); break;
        case GRADCAM_I64: *(int64_t *)d = reduce_int(*(int64_t *)d, *(const int64_t *)s, r); break;
        case GRADCAM_I32: *(int32_t *)d = (int32_t)reduce_int(*(int32_t *)d, *(const int32_t *)s, r); break;
        case GRADCAM_U8: *(uint8_t *)d = (uint8_t)reduce_int(*(uint8_t *)d, *(const uint8_t *)s, r); break;
        default: *(uint8_t *)d = reduce_int(*(uint8_t *)d, *(const uint8_t *)s, r) != 0; break;
        }
    }
}

/* ---- gather ---- */

static void zero_all(gc_tensor *t)
{
    int64_t n = gc_numel(t);
    if (n > 0) {
        memset(t->data, 0, (size_t)n * gc_dtype_size(t->dtype));
    }
}

static gc_status run_gather(gc_op_call *c, walk_fn walk)
{
    gc_tensor *y = c->out[0];
    if (y == NULL || gc_numel(y) == 0) {
        return GRADCAM_OK;
    }
    GC_TRY(check_for(c, walk));
    pair_move m = {y->data, c->in[0]->data, gc_dtype_size(y->dtype), y->dtype, RED_NONE};
    walk(c, &m, pair_take);
    return GRADCAM_OK;
}

static gc_status grad_gather(gc_op_call *c, walk_fn walk)
{
    gc_tensor *gx = c->grad_in[0], *gy = c->grad_out[0];
    if (gx == NULL) {
        return GRADCAM_OK;
    }
    zero_all(gx);
    if (gy == NULL || gc_numel(gy) == 0) {
        return GRADCAM_OK;
    }
    GC_TRY(check_for(c, walk));
    pair_move m = {gy->data, gx->data, sizeof(float), GRADCAM_F32, RED_ADD};
    walk(c, &m, pair_reduce);
    return GRADCAM_OK;
}

static gc_status gather_forward(gc_op_call *c) { return run_gather(c, walk_gather); }
static gc_status gather_backward(gc_op_call *c) { return grad_gather(c, walk_gather); }
static gc_status gather_elements_forward(gc_op_call *c) { return run_gather(c, walk_elements); }
static gc_status gather_elements_backward(gc_op_call *c) { return grad_gather(c, walk_elements); }
static gc_status gather_nd_forward(gc_op_call *c) { return run_gather(c, walk_nd); }
static gc_status gather_nd_backward(gc_op_call *c) { return grad_gather(c, walk_nd); }

static gc_status gather_infer(gc_op_call *c)
{
    int64_t shape[GRADCAM_MAX_DIMS];
    int32_t axis = 0, n = 0;
    GC_TRY(need_indices(c));
    const gc_tensor *x = c->in[0], *idx = c->in[1];
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", 0), x->ndim, &axis));
    if (x->ndim - 1 + idx->ndim > GRADCAM_MAX_DIMS) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "the result has too many dimensions");
    }
    for (int32_t i = 0; i < x->ndim; i++) {
        for (int32_t k = 0; i == axis && k < idx->ndim; k++) {
            shape[n++] = idx->shape[k];
        }
        if (i != axis) {
            shape[n++] = x->shape[i];
        }
    }
    return gc_op_set_output(c, 0, x->dtype, n, shape);
}

/* Indices reach into data only along the axis; elsewhere they must fit. */
static gc_status check_elements(gc_op_call *c)
{
    int32_t axis = 0;
    GC_TRY(need_indices(c));
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

static gc_status gather_elements_infer(gc_op_call *c)
{
    GC_TRY(check_elements(c));
    return gc_op_set_output(c, 0, c->in[0]->dtype, c->in[1]->ndim, c->in[1]->shape);
}

/* The shape of the small side: idx.shape[:-1] + data.shape[b + k:]. */
static gc_status nd_shape(gc_op_call *c, int64_t b, int64_t *shape, int32_t *count)
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

static gc_status gather_nd_infer(gc_op_call *c)
{
    int64_t shape[2 * GRADCAM_MAX_DIMS];
    int32_t n = 0;
    GC_TRY(need_indices(c));
    GC_TRY(nd_shape(c, gc_attr_int(&c->attrs, "batch_dims", 0), shape, &n));
    return gc_op_set_output(c, 0, c->in[0]->dtype, n, shape);
}

/* ---- scatter ---- */

static int32_t reduction_of(const gc_op_call *c)
{
    static const char *const names[] = {"none", "add", "mul", "max", "min"};
    const char *r = gc_attr_string(&c->attrs, "reduction", "none");
    for (int32_t i = 0; i < 5; i++) {
        if (strcmp(r, names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

static gc_status scatter_finish(gc_op_call *c, int32_t n, const int64_t *shape)
{
    GC_TRY(gc_op_need(c, 2));
    const gc_tensor *x = c->in[0], *u = c->in[2];
    bool fits = u->ndim == n;
    for (int32_t i = 0; fits && i < n; i++) {
        fits = u->shape[i] == shape[i];
    }
    if (!fits || u->dtype != x->dtype) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "updates do not fit data and indices");
    }
    if (reduction_of(c) < 0) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "unknown reduction");
    }
    return gc_op_set_output(c, 0, x->dtype, x->ndim, x->shape);
}

static gc_status scatter_elements_infer(gc_op_call *c)
{
    GC_TRY(check_elements(c));
    return scatter_finish(c, c->in[1]->ndim, c->in[1]->shape);
}

static gc_status scatter_nd_infer(gc_op_call *c)
{
    int64_t shape[2 * GRADCAM_MAX_DIMS];
    int32_t n = 0;
    GC_TRY(need_indices(c));
    GC_TRY(nd_shape(c, 0, shape, &n));
    return scatter_finish(c, n, shape);
}

static gc_status run_scatter(gc_op_call *c, walk_fn walk)
{
    gc_tensor *y = c->out[0];
    if (y == NULL) {
        return GRADCAM_OK;
    }
    if (gc_numel(c->in[2]) > 0) {
        GC_TRY(check_for(c, walk));
    }
    size_t size = gc_dtype_size(y->dtype);
    if (gc_numel(y) > 0) {
        memcpy(y->data, c->in[0]->data, (size_t)gc_numel(y) * size);
    }
    pair_move m = {c->in[2]->data, y->data, size, y->dtype, reduction_of(c)};
    if (gc_numel(c->in[2]) > 0) {
        walk(c, &m, m.reduction == RED_NONE ? pair_put : pair_reduce);
    }
    return GRADCAM_OK;
}

static gc_status grad_scatter(gc_op_call *c, walk_fn walk)
{
    gc_tensor *gx = c->grad_in[0], *gu = c->n_in > 2 ? c->grad_in[2] : NULL, *gy = c->grad_out[0];
    int32_t reduction = reduction_of(c);
    if (reduction > RED_ADD) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "no gradient for this reduction");
    }
    if (gy == NULL) {
        return GRADCAM_OK;
    }
    bool any = gc_numel(c->in[2]) > 0;
    if (any) {
        GC_TRY(check_for(c, walk));
    }
    if (gx != NULL && gc_numel(gx) > 0) {
        memcpy(gx->data, gy->data, (size_t)gc_numel(gx) * sizeof(float));
        pair_move m = {NULL, gx->data, sizeof(float), GRADCAM_F32, RED_NONE};
        if (any && reduction == RED_NONE) {
            walk(c, &m, pair_zero);
        }
    }
    if (gu != NULL && any) {
        pair_move m = {gu->data, gy->data, sizeof(float), GRADCAM_F32, RED_NONE};
        walk(c, &m, pair_take);
    }
    return GRADCAM_OK;
}

static gc_status scatter_elements_forward(gc_op_call *c) { return run_scatter(c, walk_elements); }
static gc_status scatter_elements_backward(gc_op_call *c) { return grad_scatter(c, walk_elements); }
static gc_status scatter_nd_forward(gc_op_call *c) { return run_scatter(c, walk_nd); }
static gc_status scatter_nd_backward(gc_op_call *c) { return grad_scatter(c, walk_nd); }

/* ---- OneHot, NonZero, EyeLike ---- */

static double number_at(const gc_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case GRADCAM_F32: return (double)((const float *)t->data)[i];
    case GRADCAM_I64: return (double)((const int64_t *)t->data)[i];
    case GRADCAM_I32: return (double)((const int32_t *)t->data)[i];
    default: return (double)((const uint8_t *)t->data)[i];
    }
}

static gc_status one_hot_infer(gc_op_call *c)
{
    int64_t shape[GRADCAM_MAX_DIMS];
    int32_t axis = 0;
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    GC_TRY(gc_op_need(c, 2));
    const gc_tensor *idx = c->in[0];
    if (c->in[1]->data == NULL) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "depth is not constant: data-dependent shape");
    }
    if (gc_numel(c->in[1]) != 1 || gc_numel(c->in[2]) != 2 || idx->ndim >= GRADCAM_MAX_DIMS) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "depth must be one number, values two");
    }
    double depth = number_at(c->in[1], 0);
    if (!(depth >= 0.0 && depth <= 2147483647.0)) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "depth %g is not possible", depth);
    }
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", -1), idx->ndim + 1, &axis));
    for (int32_t i = 0; i <= idx->ndim; i++) {
        shape[i] = i == axis ? (int64_t)depth : idx->shape[i < axis ? i : i - 1];
    }
    return gc_op_set_output(c, 0, c->in[2]->dtype, idx->ndim + 1, shape);
}

static gc_status one_hot_forward(gc_op_call *c)
{
    gc_tensor *y = c->out[0];
    int32_t axis = 0;
    if (y == NULL || gc_numel(y) == 0) {
        return GRADCAM_OK;
    }
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", -1), y->ndim, &axis));
    int64_t inner = product(y->shape, axis + 1, y->ndim), depth = y->shape[axis], n = gc_numel(y);
    size_t size = gc_dtype_size(y->dtype);
    const char *values = c->in[2]->data;
    for (int64_t i = 0; i < n; i++) {
        int64_t lane = i / (inner * depth) * inner + i % inner, at = i / inner % depth;
        double v = number_at(c->in[0], lane);
        bool on = (v < 0.0 ? v + (double)depth : v) == (double)at; /* out of range: off everywhere */
        memcpy((char *)y->data + (size_t)i * size, values + (on ? size : 0), size);
    }
    return GRADCAM_OK;
}

static gc_status non_zero_infer(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *x = c->in[0];
    if (x->data == NULL) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "the input is not constant: data-dependent shape");
    }
    int64_t n = gc_numel(x), shape[2] = {x->ndim, 0};
    for (int64_t i = 0; i < n; i++) {
        shape[1] += number_at(x, i) != 0.0;
    }
    return gc_op_set_output(c, 0, GRADCAM_I64, 2, shape);
}

static gc_status non_zero_forward(gc_op_call *c)
{
    const gc_tensor *x = c->in[0];
    gc_tensor *y = c->out[0];
    int64_t n = gc_numel(x), at = 0;
    for (int64_t i = 0; y != NULL && i < n && at < y->shape[1]; i++) {
        if (number_at(x, i) == 0.0) {
            continue;
        }
        int64_t rest = i;
        for (int32_t d = x->ndim - 1; d >= 0; d--) {
            ((int64_t *)y->data)[d * y->shape[1] + at] = rest % x->shape[d];
            rest /= x->shape[d];
        }
        at++;
    }
    return GRADCAM_OK;
}

static gc_status eye_infer(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    gc_dtype dtype = c->in[0]->dtype;
    switch (gc_attr_int(&c->attrs, "dtype", 0)) { /* numbers of TensorProto.DataType */
    case 0: break;
    case 1: case 10: case 11: case 16: dtype = GRADCAM_F32; break;
    case 2: dtype = GRADCAM_U8; break;
    case 6: dtype = GRADCAM_I32; break;
    case 7: dtype = GRADCAM_I64; break;
    case 9: dtype = GRADCAM_BOOL; break;
    default: return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "this dtype is not supported");
    }
    if (c->in[0]->ndim != 2) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the input must have rank 2");
    }
    return gc_op_set_output(c, 0, dtype, 2, c->in[0]->shape);
}

static gc_status eye_forward(gc_op_call *c)
{
    gc_tensor *y = c->out[0];
    if (y == NULL) {
        return GRADCAM_OK;
    }
    zero_all(y);
    int64_t k = gc_attr_int(&c->attrs, "k", 0), cols = y->shape[1];
    for (int64_t r = 0; k > -y->shape[0] && k < cols && r < y->shape[0]; r++) {
        int64_t i = r * cols + r + k;
        if (r + k < 0 || r + k >= cols) {
            continue;
        }
        switch (y->dtype) {
        case GRADCAM_F32: ((float *)y->data)[i] = 1.0F; break;
        case GRADCAM_I64: ((int64_t *)y->data)[i] = 1; break;
        case GRADCAM_I32: ((int32_t *)y->data)[i] = 1; break;
        default: ((uint8_t *)y->data)[i] = 1; break;
        }
    }
    return GRADCAM_OK;
}

/* ---- TopK ---- */

typedef struct lane {
    const gc_tensor *x;
    int64_t base, stride;
    bool largest;
} lane;

/* Strictly before in the result; NaN counts as the largest, ties: lower index. */
static bool before(const lane *l, int64_t a, int64_t b)
{
    int64_t ia = l->base + a * l->stride, ib = l->base + b * l->stride;
    int order = 0;
    if (l->x->dtype == GRADCAM_I64) {
        int64_t va = int_at(l->x, ia), vb = int_at(l->x, ib);
        order = (va > vb) - (va < vb);
    } else {
        double va = number_at(l->x, ia), vb = number_at(l->x, ib);
        order = isnan(va) || isnan(vb) ? (isnan(va) != 0) - (isnan(vb) != 0) : (va > vb) - (va < vb);
    }
    return order != 0 ? (order > 0) == l->largest : a < b;
}

static void sift(const lane *l, int64_t *heap, int64_t at, int64_t n)
{
    for (int64_t child = 2 * at + 1; child < n; child = 2 * at + 1) {
        if (child + 1 < n && before(l, heap[child], heap[child + 1])) {
            child++;
        }
        if (!before(l, heap[at], heap[child])) {
            return;
        }
        int64_t t = heap[at];
        heap[at] = heap[child];
        heap[child] = t;
        at = child;
    }
}

/* The k first of n, sorted: a heap of k whose root is the worst of them. */
static void select_k(const lane *l, int64_t *heap, int64_t k, int64_t n)
{
    for (int64_t i = 0; i < k; i++) {
        heap[i] = i;
    }
    for (int64_t i = k / 2; i-- > 0;) {
        sift(l, heap, i, k);
    }
    for (int64_t i = k; i < n; i++) {
        if (before(l, i, heap[0])) {
            heap[0] = i;
            sift(l, heap, 0, k);
        }
    }
    for (int64_t m = k - 1; m > 0; m--) {
        int64_t t = heap[0];
        heap[0] = heap[m];
        heap[m] = t;
        sift(l, heap, 0, m);
    }
}

static gc_status top_k_infer(gc_op_call *c)
{
    int64_t shape[GRADCAM_MAX_DIMS], k = gc_attr_int(&c->attrs, "k", -1);
    int32_t axis = 0, n = 1;
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *x = c->in[0];
    if (c->n_in > 1 && c->in[1] != NULL) {
        GC_TRY(gc_op_const_ints(c, 1, &k, 1, &n));
    }
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", -1), x->ndim, &axis));
    if (n != 1 || k < 0 || k > x->shape[axis]) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "k = %lld does not fit dimension %d", (long long)k, (int)axis);
    }
    for (int32_t i = 0; i < x->ndim; i++) {
        shape[i] = i == axis ? k : x->shape[i];
    }
    GC_TRY(gc_op_set_output(c, 0, x->dtype, x->ndim, shape));
    GC_TRY(gc_op_set_output(c, 1, GRADCAM_I64, x->ndim, shape));
    int64_t total = gc_shape_numel(x->ndim, shape);
    if (total < 0) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "the result is too large");
    }
    c->aux_bytes = (size_t)total * sizeof(int64_t);
    c->work_bytes = total > 0 ? (size_t)k * sizeof(int64_t) : 0;
    return GRADCAM_OK;
}

/* aux keeps, for every output, the offset of the input it came from. */
static gc_status top_k_forward(gc_op_call *c)
{
    const gc_tensor *x = c->in[0];
    int32_t axis = 0;
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", -1), x->ndim, &axis));
    int64_t outer = product(x->shape, 0, axis), inner = product(x->shape, axis + 1, x->ndim), dim = x->shape[axis];
    if (c->aux_bytes == 0) {
        return GRADCAM_OK;
    }
    int64_t k = (int64_t)(c->aux_bytes / sizeof(int64_t)) / (outer * inner), *heap = c->work;
    size_t size = gc_dtype_size(x->dtype);
    for (int64_t i = 0; i < outer * inner; i++) {
        lane l = {x, i / inner * dim * inner + i % inner, inner, gc_attr_int(&c->attrs, "largest", 1) != 0};
        select_k(&l, heap, k, dim);
        for (int64_t j = 0; j < k; j++) {
            int64_t to = (i / inner * k + j) * inner + i % inner, from = l.base + heap[j] * inner;
            ((int64_t *)c->aux)[to] = from;
            if (c->out[0] != NULL) {
                memcpy((char *)c->out[0]->data + (size_t)to * size, (char *)x->data + (size_t)from * size, size);
            }
            if (c->n_out > 1 && c->out[1] != NULL) {
                ((int64_t *)c->out[1]->data)[to] = heap[j];
            }
        }
    }
    return GRADCAM_OK;
}

static gc_status top_k_backward(gc_op_call *c)
{
    gc_tensor *gx = c->grad_in[0], *gy = c->grad_out[0];
    if (gx == NULL) {
        return GRADCAM_OK;
    }
    zero_all(gx);
    int64_t n = gy != NULL ? gc_numel(gy) : 0;
    for (int64_t i = 0; i < n; i++) {
        ((float *)gx->data)[((const int64_t *)c->aux)[i]] = ((const float *)gy->data)[i];
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_index[] = {
    {"Gather", gather_infer, gather_forward, gather_backward, 0, 2, 0, 2, 2, 1},
    {"GatherElements", gather_elements_infer, gather_elements_forward, gather_elements_backward, 0, 2, 0, 2, 2, 1},
    {"GatherND", gather_nd_infer, gather_nd_forward, gather_nd_backward, 0, 2, 0, 2, 2, 1},
    {"Scatter", scatter_elements_infer, scatter_elements_forward, scatter_elements_backward, 0, 2, 0, 3, 3, 1},
    {"ScatterElements", scatter_elements_infer, scatter_elements_forward, scatter_elements_backward, 0, 2, 0, 3, 3, 1},
    {"ScatterND", scatter_nd_infer, scatter_nd_forward, scatter_nd_backward, 0, 2, 0, 3, 3, 1},
    {"OneHot", one_hot_infer, one_hot_forward, NULL, GC_OP_STOPS, 0, 0, 3, 3, 1},
    {"NonZero", non_zero_infer, non_zero_forward, NULL, GC_OP_STOPS, 0, 0, 1, 1, 1},
    {"TopK", top_k_infer, top_k_forward, top_k_backward, 0, 0, 0, 1, 2, 2},
    {"EyeLike", eye_infer, eye_forward, NULL, GC_OP_STOPS, 0, 0, 1, 1, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
