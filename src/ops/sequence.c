/* SPDX-License-Identifier: MIT */
/* ReverseSequence and Compress: slices of a tensor in another order, or some of
 * them.  Row-major tensors. */
#include <string.h>

#include "ops/op.h"

/* ---- ReverseSequence: its own inverse ---- */

static gc_status reverse_infer(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    const gc_tensor *x = c->in[0], *lens = c->in[1];
    int64_t batch = gc_attr_int(&c->attrs, "batch_axis", 1), time = gc_attr_int(&c->attrs, "time_axis", 0);
    if (x->ndim < 2 || batch < 0 || batch > 1 || time != 1 - batch) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "batch_axis and time_axis must be 0 and 1, or 1 and 0");
    }
    if (lens->dtype != GRADCAM_I64 || lens->ndim != 1 || lens->shape[0] != x->shape[batch]) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "sequence_lens must be int64 and one for each sequence");
    }
    return gc_op_set_output(c, 0, x->dtype, x->ndim, x->shape);
}

static gc_status reverse(gc_op_call *c, const gc_tensor *from, gc_tensor *to)
{
    int64_t batch_axis = gc_attr_int(&c->attrs, "batch_axis", 1);
    int64_t batches = from->shape[batch_axis], times = from->shape[1 - batch_axis];
    int64_t inner = gc_shape_numel(from->ndim - 2, from->shape + 2);
    int64_t batch_step = batch_axis == 0 ? times : 1, time_step = batch_axis == 0 ? 1 : batches;
    size_t row = (size_t)inner * gc_dtype_size(from->dtype);
    if (gc_numel(from) == 0) {
        return GRADCAM_OK;
    }
    for (int64_t b = 0; b < batches; b++) {
        int64_t length = ((const int64_t *)c->in[1]->data)[b];
        if (length < 0 || length > times) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "sequence %lld has length %lld of %lld", (long long)b,
                              (long long)length, (long long)times);
        }
        for (int64_t t = 0; t < times; t++) {
            int64_t source = t < length ? length - 1 - t : t;
            memcpy((char *)to->data + (size_t)(b * batch_step + t * time_step) * row,
                   (const char *)from->data + (size_t)(b * batch_step + source * time_step) * row, row);
        }
    }
    return GRADCAM_OK;
}

static gc_status reverse_forward(gc_op_call *c)
{
    return c->out[0] != NULL ? reverse(c, c->in[0], c->out[0]) : GRADCAM_OK;
}

static gc_status reverse_backward(gc_op_call *c)
{
    return c->grad_in[0] != NULL ? reverse(c, c->grad_out[0], c->grad_in[0]) : GRADCAM_OK;
}

/* ---- Compress ---- */

typedef struct compress {
    int64_t outer, dim, inner; /* of the input */
    int64_t wanted, kept;      /* entries of the condition, those that are true */
    const uint8_t *condition;
} compress;

static gc_status compress_setup(gc_op_call *c, compress *p, int32_t *axis)
{
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    const gc_tensor *x = c->in[0], *condition = c->in[1];
    const gc_attr_value *a = gc_attr_find(&c->attrs, "axis", GRADCAM_ATTR_INT);
    if (condition->data == NULL) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "the condition is not constant: data-dependent shape");
    }
    *axis = -1;
    p->outer = p->inner = 1;
    p->dim = gc_numel(x);
    if (a != NULL) {
        GC_TRY(gc_op_axis(c, a->i, x->ndim, axis));
        p->outer = gc_shape_numel(*axis, x->shape);
        p->dim = x->shape[*axis];
        p->inner = gc_shape_numel(x->ndim - *axis - 1, x->shape + *axis + 1);
    }
    p->condition = condition->data;
    p->wanted = gc_numel(condition);
    if (condition->dtype != GRADCAM_BOOL || condition->ndim != 1 || p->wanted > p->dim) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the condition must be a bool list of at most %lld entries",
                          (long long)p->dim);
    }
    p->kept = 0;
    for (int64_t i = 0; i < p->wanted; i++) {
        p->kept += p->condition[i] != 0;
    }
    return GRADCAM_OK;
}

static gc_status compress_infer(gc_op_call *c)
{
    compress p;
    int32_t axis = -1;
    int64_t shape[GRADCAM_MAX_DIMS];
    GC_TRY(compress_setup(c, &p, &axis));
    if (axis < 0) {
        return gc_op_set_output(c, 0, c->in[0]->dtype, 1, &p.kept);
    }
    memcpy(shape, c->in[0]->shape, sizeof shape);
    shape[axis] = p.kept;
    return gc_op_set_output(c, 0, c->in[0]->dtype, c->in[0]->ndim, shape);
}

/* few = the kept slices of many, or these slices of many = few. */
static void compress_move(const compress *p, char *many, char *few, size_t size, bool back)
{
    size_t row = (size_t)p->inner * size;
    for (int64_t o = 0; o < p->outer; o++) {
        for (int64_t i = 0; i < p->wanted; i++) {
            char *slice = many + (size_t)(o * p->dim + i) * row;
            if (p->condition[i] == 0) {
                continue;
            }
            memcpy(back ? slice : few, back ? few : slice, row);
            few += row;
        }
    }
}

static gc_status compress_forward(gc_op_call *c)
{
    compress p;
    int32_t axis = -1;
    gc_tensor *y = c->out[0], x = *c->in[0];
    GC_TRY(compress_setup(c, &p, &axis));
    if (y != NULL && gc_numel(y) > 0) {
        compress_move(&p, x.data, y->data, gc_dtype_size(y->dtype), false);
    }
    return GRADCAM_OK;
}

static gc_status compress_backward(gc_op_call *c)
{
    compress p;
    int32_t axis = -1;
    gc_tensor *gx = c->grad_in[0], *gy = c->grad_out[0];
    GC_TRY(compress_setup(c, &p, &axis));
    if (gx == NULL || gc_numel(gx) == 0) {
        return GRADCAM_OK;
    }
    memset(gx->data, 0, (size_t)gc_numel(gx) * sizeof(float));
    if (gc_numel(gy) > 0) {
        compress_move(&p, gx->data, gy->data, sizeof(float), true);
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_sequence[] = {
    {"ReverseSequence", reverse_infer, reverse_forward, reverse_backward, 0, 2, 0, 2, 2, 1},
    {"Compress", compress_infer, compress_forward, compress_backward, 0, 0, 0, 2, 2, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
