/* SPDX-License-Identifier: MIT */
/* Operators whose result is known when the model is loaded. */
#include <math.h>
#include <string.h>

#include "ops/op.h"

static const int64_t range_limit = INT64_C(1) << 31;

/* The attribute of a Constant that holds its value. */
static const gc_attr_value *constant_value(const gc_op_call *c)
{
    static const struct {
        const char *name;
        gc_attr_kind kind;
    } forms[] = {
        {"value", GRADCAM_ATTR_TENSOR},  {"value_float", GRADCAM_ATTR_FLOAT}, {"value_floats", GRADCAM_ATTR_FLOATS},
        {"value_int", GRADCAM_ATTR_INT}, {"value_ints", GRADCAM_ATTR_INTS},
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        const gc_attr_value *a = gc_attr_find(&c->attrs, forms[i].name, forms[i].kind);
        if (a != NULL && (a->kind != GRADCAM_ATTR_TENSOR || a->tensor != NULL)) {
            return a;
        }
    }
    return NULL;
}

static gc_status constant_infer(gc_op_call *c)
{
    const gc_attr_value *a = constant_value(c);
    if (a == NULL) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED,
                          "the value must be a dense tensor or numbers (no strings, not sparse)");
    }
    if (a->kind == GRADCAM_ATTR_TENSOR) {
        return gc_op_set_output(c, 0, a->tensor->dtype, a->tensor->ndim, a->tensor->shape);
    }
    bool is_int = a->kind == GRADCAM_ATTR_INT || a->kind == GRADCAM_ATTR_INTS;
    bool is_list = a->kind == GRADCAM_ATTR_INTS || a->kind == GRADCAM_ATTR_FLOATS;
    int64_t length = (int64_t)a->count;
    return gc_op_set_output(c, 0, is_int ? GRADCAM_I64 : GRADCAM_F32, is_list ? 1 : 0, &length);
}

static gc_status constant_forward(gc_op_call *c)
{
    const gc_attr_value *a = constant_value(c);
    gc_tensor *y = c->out[0];
    if (y == NULL || a == NULL || gc_numel(y) == 0) {
        return GRADCAM_OK;
    }
    switch (a->kind) {
    case GRADCAM_ATTR_TENSOR: gc_tensor_convert(a->tensor, y); break;
    case GRADCAM_ATTR_FLOAT: *(float *)y->data = a->f; break;
    case GRADCAM_ATTR_INT: *(int64_t *)y->data = a->i; break;
    case GRADCAM_ATTR_FLOATS: memcpy(y->data, a->floats, a->count * sizeof(float)); break;
    default: memcpy(y->data, a->ints, a->count * sizeof(int64_t)); break;
    }
    return GRADCAM_OK;
}

static gc_status fill_infer(gc_op_call *c)
{
    int64_t shape[GRADCAM_MAX_DIMS];
    int32_t n = 0;
    GC_TRY(gc_op_need(c, 0));
    if (c->in[0]->ndim > 1) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the shape must be a list");
    }
    GC_TRY(gc_op_const_ints(c, 0, shape, GRADCAM_MAX_DIMS, &n));
    if (n > GRADCAM_MAX_DIMS) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "rank %d is more than %d", (int)n, GRADCAM_MAX_DIMS);
    }
    for (int32_t i = 0; i < n; i++) {
        if (shape[i] < 0) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "dimension %d is negative", (int)i);
        }
    }
    const gc_attr_value *a = gc_attr_find(&c->attrs, "value", GRADCAM_ATTR_TENSOR);
    if (a != NULL && (a->tensor == NULL || a->tensor->data == NULL || gc_numel(a->tensor) != 1)) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "value must have one element");
    }
    return gc_op_set_output(c, 0, a != NULL ? a->tensor->dtype : GRADCAM_F32, n, shape);
}

static gc_status fill_forward(gc_op_call *c)
{
    const gc_attr_value *a = gc_attr_find(&c->attrs, "value", GRADCAM_ATTR_TENSOR);
    gc_tensor *y = c->out[0];
    int64_t n = y != NULL ? gc_numel(y) : 0;
    if (n == 0) {
        return GRADCAM_OK;
    }
    size_t size = gc_dtype_size(y->dtype);
    const float zero = 0.0F;
    const void *value = a != NULL ? a->tensor->data : &zero;
    char *dst = y->data;
    for (int64_t i = 0; i < n; i++) {
        memcpy(dst + (size_t)i * size, value, size);
    }
    return GRADCAM_OK;
}

static gc_status range_read(gc_op_call *c, double *f, int64_t *v)
{
    for (int32_t i = 0; i < 3; i++) {
        GC_TRY(gc_op_need(c, i));
        const gc_tensor *t = c->in[i];
        if (t->data == NULL) {
            return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "input %d is not constant: data-dependent shape", (int)i);
        }
        if (t->dtype != c->in[0]->dtype || gc_numel(t) != 1) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "the inputs must be three scalars of one type");
        }
        switch (t->dtype) {
        case GRADCAM_F32: f[i] = (double)*(const float *)t->data; break;
        case GRADCAM_I64: v[i] = *(const int64_t *)t->data; break;
        case GRADCAM_I32: v[i] = *(const int32_t *)t->data; break;
        default: return gc_op_fail(c, GRADCAM_E_DTYPE, "the type must be float, int64 or int32");
        }
    }
    return GRADCAM_OK;
}

/* Unsigned arithmetic: the distance of two int64 need not fit an int64. */
static uint64_t int_length(const int64_t *v)
{
    uint64_t a = (uint64_t)v[0], b = (uint64_t)v[1], d = (uint64_t)v[2];
    if (v[2] > 0) {
        return v[1] > v[0] ? (b - a - 1) / d + 1 : 0;
    }
    return v[1] < v[0] ? (a - b - 1) / (0 - d) + 1 : 0;
}

static gc_status range_infer(gc_op_call *c)
{
    double f[3] = {0};
    int64_t v[3] = {0}, length = 0;
    GC_TRY(range_read(c, f, v));
    if (c->in[0]->dtype == GRADCAM_F32) {
        double n = f[2] != 0.0 ? ceil((f[1] - f[0]) / f[2]) : -1.0;
        if (f[2] == 0.0 || !(n <= (double)range_limit)) {
            return gc_op_fail(c, GRADCAM_E_LIMIT, "the range is endless or too long");
        }
        length = n > 0.0 ? (int64_t)n : 0;
    } else {
        if (v[2] == 0 || int_length(v) > (uint64_t)range_limit) {
            return gc_op_fail(c, GRADCAM_E_LIMIT, "the range is endless or too long");
        }
        length = (int64_t)int_length(v);
    }
    return gc_op_set_output(c, 0, c->in[0]->dtype, 1, &length);
}

static gc_status range_forward(gc_op_call *c)
{
    double f[3] = {0};
    int64_t v[3] = {0};
    gc_tensor *y = c->out[0];
    GC_TRY(range_read(c, f, v));
    int64_t n = y != NULL ? gc_numel(y) : 0;
    for (int64_t i = 0; i < n; i++) {
        if (y->dtype == GRADCAM_F32) {
            ((float *)y->data)[i] = (float)(f[0] + (double)i * f[2]);
            continue;
        }
        /* inside [start, limit), so no overflow in the end */
        int64_t value = (int64_t)((uint64_t)v[0] + (uint64_t)i * (uint64_t)v[2]);
        if (y->dtype == GRADCAM_I64) {
            ((int64_t *)y->data)[i] = value;
        } else {
            ((int32_t *)y->data)[i] = (int32_t)value;
        }
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_const[] = {
    {"Constant", constant_infer, constant_forward, NULL, GC_OP_STOPS, 0, 0, 0, 0, 1},
    {"ConstantOfShape", fill_infer, fill_forward, NULL, GC_OP_STOPS, 0, 0, 1, 1, 1},
    {"Range", range_infer, range_forward, NULL, GC_OP_STOPS, 0, 0, 3, 3, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
