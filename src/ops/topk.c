/* SPDX-License-Identifier: MIT */
/* TopK. */
#include <math.h>
#include <string.h>

#include "ops/op.h"
#include "tensor/walk.h"

typedef struct lane {
    const gc_tensor *x;
    int64_t base, stride;
    bool largest;
} lane;

static double real_at(const gc_tensor *t, int64_t i)
{
    return gc_load_real((const char *)t->data + (size_t)i * gc_dtype_size(t->dtype), t->dtype);
}

/* Strictly before in the result; NaN counts as the largest, ties: lower index. */
static bool before(const lane *l, int64_t a, int64_t b)
{
    int64_t ia = l->base + a * l->stride, ib = l->base + b * l->stride;
    int order = 0;
    if (l->x->dtype == GRADCAM_I64) {
        int64_t va = ((const int64_t *)l->x->data)[ia], vb = ((const int64_t *)l->x->data)[ib];
        order = (va > vb) - (va < vb);
    } else {
        double va = real_at(l->x, ia), vb = real_at(l->x, ib);
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
    int64_t outer = gc_shape_numel(axis, x->shape), dim = x->shape[axis];
    int64_t inner = gc_shape_numel(x->ndim - axis - 1, x->shape + axis + 1);
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
    if (gc_numel(gx) > 0) {
        memset(gx->data, 0, (size_t)gc_numel(gx) * sizeof(float));
    }
    int64_t n = gy != NULL ? gc_numel(gy) : 0;
    for (int64_t i = 0; i < n; i++) {
        ((float *)gx->data)[((const int64_t *)c->aux)[i]] = ((const float *)gy->data)[i];
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_topk[] = {
    {"TopK", top_k_infer, top_k_forward, top_k_backward, 0, 0, 0, 1, 2, 2},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
