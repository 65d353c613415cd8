/* SPDX-License-Identifier: MIT */
/* Gather, GatherElements, GatherND. */
#include <string.h>

#include "ops/op.h"
#include "ops/pairs.h"

static gc_status run(gc_op_call *c, gc_pair_walk walk)
{
    gc_tensor *y = c->out[0];
    if (y == NULL || gc_numel(y) == 0) {
        return GRADCAM_OK;
    }
    GC_TRY(gc_pairs_check(c, walk));
    gc_pair_copy m = {y->data, c->in[0]->data, gc_dtype_size(y->dtype)};
    walk(c, gc_pair_take, &m);
    return GRADCAM_OK;
}

typedef struct sum {
    const float *small; /* grad_output */
    float *big;         /* grad_input */
} sum;

static void pair_add(void *user, int64_t small, int64_t big, int64_t n)
{
    const sum *m = user;
    for (int64_t i = 0; i < n; i++) {
        m->big[big + i] += m->small[small + i];
    }
}

/* An element that was gathered several times gets the sum. */
static gc_status grad(gc_op_call *c, gc_pair_walk walk)
{
    gc_tensor *gx = c->grad_in[0], *gy = c->grad_out[0];
    if (gx == NULL || gc_numel(gx) == 0) {
        return GRADCAM_OK;
    }
    if ((c->adds & 1u) == 0) {
        memset(gx->data, 0, (size_t)gc_numel(gx) * sizeof(float));
    }
    if (gy == NULL || gc_numel(gy) == 0) {
        return GRADCAM_OK;
    }
    GC_TRY(gc_pairs_check(c, walk));
    sum m = {gy->data, gx->data};
    walk(c, pair_add, &m);
    return GRADCAM_OK;
}

static gc_status gather_forward(gc_op_call *c)
{
    return run(c, gc_pairs_gather);
}
static gc_status gather_backward(gc_op_call *c)
{
    return grad(c, gc_pairs_gather);
}
static gc_status elements_forward(gc_op_call *c)
{
    return run(c, gc_pairs_elements);
}
static gc_status elements_backward(gc_op_call *c)
{
    return grad(c, gc_pairs_elements);
}
static gc_status nd_forward(gc_op_call *c)
{
    return run(c, gc_pairs_nd);
}
static gc_status nd_backward(gc_op_call *c)
{
    return grad(c, gc_pairs_nd);
}

static gc_status gather_infer(gc_op_call *c)
{
    int64_t shape[GRADCAM_MAX_DIMS];
    int32_t axis = 0, n = 0;
    GC_TRY(gc_pairs_need(c));
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

static gc_status elements_infer(gc_op_call *c)
{
    GC_TRY(gc_pairs_need_elements(c));
    return gc_op_set_output(c, 0, c->in[0]->dtype, c->in[1]->ndim, c->in[1]->shape);
}

static gc_status nd_infer(gc_op_call *c)
{
    int64_t shape[2 * GRADCAM_MAX_DIMS];
    int32_t n = 0;
    GC_TRY(gc_pairs_need(c));
    GC_TRY(gc_pairs_nd_shape(c, gc_attr_int(&c->attrs, "batch_dims", 0), shape, &n));
    return gc_op_set_output(c, 0, c->in[0]->dtype, n, shape);
}

const gc_op gc_ops_gather[] = {
    {"Gather", gather_infer, gather_forward, gather_backward, GC_OP_FINISHES, 2, 0, 2, 2, 1},
    {"GatherElements", elements_infer, elements_forward, elements_backward, GC_OP_FINISHES, 2, 0, 2, 2, 1},
    {"GatherND", nd_infer, nd_forward, nd_backward, GC_OP_FINISHES, 2, 0, 2, 2, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
