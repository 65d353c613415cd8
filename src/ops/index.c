/* SPDX-License-Identifier: MIT */
/* OneHot, NonZero, EyeLike. */
#include <string.h>

#include "ops/op.h"
#include "tensor/walk.h"

static double number_at(const gc_tensor *t, int64_t i)
{
    return gc_load_real((const char *)t->data + (size_t)i * gc_dtype_size(t->dtype), t->dtype);
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

/* Whether element i of the output is the on value; an index out of range is
   off everywhere. */
static bool one_hot_on(const gc_tensor *idx, int64_t i, int64_t depth, int64_t inner)
{
    double v = number_at(idx, i / (inner * depth) * inner + i % inner);
    return (v < 0.0 ? v + (double)depth : v) == (double)(i / inner % depth);
}

static gc_status one_hot_forward(gc_op_call *c)
{
    gc_tensor *y = c->out[0];
    int32_t axis = 0;
    if (y == NULL || gc_numel(y) == 0) {
        return GRADCAM_OK;
    }
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", -1), y->ndim, &axis));
    int64_t inner = gc_shape_numel(y->ndim - axis - 1, y->shape + axis + 1), n = gc_numel(y);
    size_t size = gc_dtype_size(y->dtype);
    const char *values = c->in[2]->data;
    for (int64_t i = 0; i < n; i++) {
        bool on = one_hot_on(c->in[0], i, y->shape[axis], inner);
        memcpy((char *)y->data + (size_t)i * size, values + (on ? size : 0), size);
    }
    return GRADCAM_OK;
}

static void zero_floats(gc_tensor *t)
{
    if (t != NULL && gc_numel(t) > 0) {
        memset(t->data, 0, (size_t)gc_numel(t) * sizeof(float));
    }
}

/* Only the two values have a gradient. */
static gc_status one_hot_backward(gc_op_call *c)
{
    const gc_tensor *gy = c->grad_out[0];
    double sum[2] = {0.0, 0.0};
    int32_t axis = 0;
    zero_floats(c->grad_in[0]);
    zero_floats(c->grad_in[1]);
    if (c->grad_in[2] == NULL) {
        return GRADCAM_OK;
    }
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", -1), gy->ndim, &axis));
    int64_t inner = gc_shape_numel(gy->ndim - axis - 1, gy->shape + axis + 1), n = gc_numel(gy);
    for (int64_t i = 0; i < n; i++) {
        sum[one_hot_on(c->in[0], i, gy->shape[axis], inner)] += (double)((const float *)gy->data)[i];
    }
    ((float *)c->grad_in[2]->data)[0] = (float)sum[0];
    ((float *)c->grad_in[2]->data)[1] = (float)sum[1];
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
    case 1:
    case 10:
    case 11:
    case 16: dtype = GRADCAM_F32; break;
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
    if (y == NULL || gc_numel(y) == 0) {
        return GRADCAM_OK;
    }
    memset(y->data, 0, (size_t)gc_numel(y) * gc_dtype_size(y->dtype));
    int64_t k = gc_attr_int(&c->attrs, "k", 0), cols = y->shape[1];
    for (int64_t r = 0; k > -y->shape[0] && k < cols && r < y->shape[0]; r++) {
        int64_t i = r * cols + r + k;
        if (r + k < 0 || r + k >= cols) {
            continue;
        }
        void *to = (char *)y->data + (size_t)i * gc_dtype_size(y->dtype);
        if (y->dtype == GRADCAM_F32) {
            *(float *)to = 1.0f;
        } else {
            gc_store_int(to, y->dtype, 1);
        }
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_index[] = {
    {"OneHot", one_hot_infer, one_hot_forward, one_hot_backward, 0, 1, 0, 3, 3, 1},
    {"NonZero", non_zero_infer, non_zero_forward, NULL, GC_OP_STOPS, 0, 0, 1, 1, 1},
    {"EyeLike", eye_infer, eye_forward, NULL, GC_OP_STOPS, 0, 0, 1, 1, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
