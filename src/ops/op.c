/* SPDX-License-Identifier: MIT */
/* The registry, and helpers that every operator uses. */
#include "ops/op.h"
#include "tensor/walk.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const gc_op *const families[] = {
    gc_ops_layernorm,  gc_ops_rownorm,     gc_ops_einsum,  gc_ops_attention,
    gc_ops_rotary,     gc_ops_loss,        gc_ops_swiglu,  gc_ops_cumulative,
    gc_ops_det,        gc_ops_conv,        gc_ops_pool,    gc_ops_norm,
    gc_ops_linear,     gc_ops_activation,  gc_ops_unary,   gc_ops_binary,
    gc_ops_logic,      gc_ops_softmax,     gc_ops_reduce,  gc_ops_shape,
    gc_ops_move,       gc_ops_const,       gc_ops_rnn,     gc_ops_select,
    gc_ops_gridsample, gc_ops_lppool,      gc_ops_unpool,  gc_ops_col2im,
    gc_ops_roi,        gc_ops_causal_conv, gc_ops_deform,  gc_ops_tensor_scatter,
    gc_ops_sequence,   gc_ops_bitwise,     gc_ops_unique,  gc_ops_signal,
    gc_ops_index,      gc_ops_gather,      gc_ops_scatter, gc_ops_topk,
    gc_ops_resize,     gc_ops_depth_space, gc_ops_pad,     gc_ops_linear_attention,
    gc_ops_pieces,
};

const gc_op *gc_op_at(int32_t k)
{
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        for (const gc_op *op = families[f]; op->name != NULL; op++) {
            if (k-- == 0) {
                return op;
            }
        }
    }
    return NULL;
}

const gc_op *gc_op_find(const char *name)
{
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        for (const gc_op *op = families[f]; op->name != NULL; op++) {
            if (strcmp(op->name, name) == 0) {
                return op;
            }
        }
    }
    return NULL;
}

const gc_attr_value *gc_attr_find(const gc_attr_list *list, const char *name, gc_attr_kind kind)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->items[i].kind == kind && strcmp(list->items[i].name, name) == 0) {
            return &list->items[i];
        }
    }
    return NULL;
}

int64_t gc_attr_int(const gc_attr_list *list, const char *name, int64_t fallback)
{
    const gc_attr_value *a = gc_attr_find(list, name, GRADCAM_ATTR_INT);
    return a != NULL ? a->i : fallback;
}

float gc_attr_float(const gc_attr_list *list, const char *name, float fallback)
{
    const gc_attr_value *a = gc_attr_find(list, name, GRADCAM_ATTR_FLOAT);
    return a != NULL ? a->f : fallback;
}

const char *gc_attr_string(const gc_attr_list *list, const char *name, const char *fallback)
{
    const gc_attr_value *a = gc_attr_find(list, name, GRADCAM_ATTR_STRING);
    return a != NULL ? a->string : fallback;
}

gc_status gc_op_fail(gc_op_call *c, gc_status status, const char *format, ...)
{
    char text[360];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return gc_fail(c->err, status, "%s (node \"%.80s\"): %s", c->op_name, c->node_name, text);
}

gc_status gc_op_set_output(gc_op_call *c, int32_t i, gc_dtype dtype, int32_t ndim, const int64_t *shape)
{
    if (i >= c->n_out || c->out[i] == NULL) {
        return GRADCAM_OK;
    }
    if (ndim < 0 || ndim > GRADCAM_MAX_DIMS) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "output %d would have %d dimensions, at most %d", (int)i, (int)ndim,
                          GRADCAM_MAX_DIMS);
    }
    if (gc_shape_numel(ndim, shape) < 0) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "output %d: a dimension is negative or the size overflows", (int)i);
    }
    c->out[i]->dtype = dtype;
    c->out[i]->ndim = ndim;
    if (ndim > 0) {
        memcpy(c->out[i]->shape, shape, (size_t)ndim * sizeof *shape);
    }
    return GRADCAM_OK;
}

gc_status gc_op_need(gc_op_call *c, int32_t i)
{
    if (i >= c->n_in || c->in[i] == NULL) {
        return gc_op_fail(c, GRADCAM_E_FORMAT, "input %d is missing", (int)i);
    }
    return GRADCAM_OK;
}

void gc_op_no_gradient(gc_op_call *c, int32_t i)
{
    bool keeps = i < 32 && (c->adds >> i & 1u) != 0;
    if (c->grad_in[i] != NULL && !keeps) {
        gc_walk_zero(c->grad_in[i]);
    }
}

/* Springenberg 2015: keep where grad_output > 0; Zeiler 2014: rectify grad_output. */
void gc_op_rule(gc_rule rule, int64_t n, const void *grad_output, int64_t stride, float *restrict dx)
{
    const bool guided = rule == GRADCAM_RULE_GUIDED, neighbours = stride == (int64_t)sizeof *dx;
    const float *restrict dy = grad_output;
    for (int64_t i = 0; i < n && neighbours && guided; i++) {
        float x = dx[i];
        dx[i] = dy[i] > 0.0f ? x : 0.0f;
    }
    for (int64_t i = 0; i < n && neighbours && !guided; i++) {
        dx[i] = dy[i] > 0.0f ? dy[i] : 0.0f;
    }
    for (int64_t i = 0; i < n && !neighbours; i++) {
        float y = *(const float *)(const void *)((const char *)grad_output + i * stride);
        dx[i] = y > 0.0f ? (guided ? dx[i] : y) : 0.0f;
    }
}

static int64_t int_at(const gc_tensor *t, int64_t k)
{
    switch (t->dtype) {
    case GRADCAM_I64: return ((const int64_t *)t->data)[k];
    case GRADCAM_I32: return ((const int32_t *)t->data)[k];
    default: return ((const uint8_t *)t->data)[k];
    }
}

gc_status gc_op_const_ints(gc_op_call *c, int32_t i, int64_t *dst, int32_t capacity, int32_t *count)
{
    GC_TRY(gc_op_need(c, i));
    const gc_tensor *t = c->in[i];
    if (t->data == NULL) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "input %d decides a shape but is data-dependent", (int)i);
    }
    if (t->dtype < GRADCAM_I64) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "input %d must hold integers", (int)i);
    }
    int64_t n = gc_numel(t);
    if (n > capacity) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "input %d holds %lld numbers, at most %d", (int)i, (long long)n,
                          (int)capacity);
    }
    for (int64_t k = 0; k < n; k++) {
        dst[k] = int_at(t, k);
    }
    *count = (int32_t)n;
    return GRADCAM_OK;
}

gc_status gc_op_ints(gc_op_call *c, const char *name, int32_t i, int64_t *dst, int32_t capacity, int32_t *count)
{
    const gc_attr_value *a = gc_attr_find(&c->attrs, name, GRADCAM_ATTR_INTS);
    *count = -1;
    if (a == NULL) {
        return i >= 0 && i < c->n_in && c->in[i] != NULL ? gc_op_const_ints(c, i, dst, capacity, count) : GRADCAM_OK;
    }
    if (a->count > (size_t)capacity) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "'%s' is too long", name);
    }
    for (size_t k = 0; k < a->count; k++) {
        dst[k] = a->ints[k];
    }
    *count = (int32_t)a->count;
    return GRADCAM_OK;
}

gc_status gc_op_axis(gc_op_call *c, int64_t axis, int32_t ndim, int32_t *out)
{
    if (axis < -(int64_t)ndim || axis >= ndim) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "axis %lld is outside a rank of %d", (long long)axis, (int)ndim);
    }
    *out = (int32_t)(axis < 0 ? axis + ndim : axis);
    return GRADCAM_OK;
}

gc_status gc_op_broadcast(gc_op_call *c, int32_t na, const int64_t *a, int32_t nb, const int64_t *b, int32_t *n,
                          int64_t *shape)
{
    int32_t ndim = na > nb ? na : nb;
    int64_t joint[GRADCAM_MAX_DIMS];
    for (int32_t i = 1; i <= ndim; i++) {
        int64_t x = i <= na ? a[na - i] : 1, y = i <= nb ? b[nb - i] : 1;
        if (x != y && x != 1 && y != 1) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "shapes do not broadcast: %lld against %lld", (long long)x,
                              (long long)y);
        }
        joint[ndim - i] = x == 1 ? y : x;
    }
    *n = ndim;
    if (ndim > 0) {
        memcpy(shape, joint, (size_t)ndim * sizeof *shape);
    }
    return GRADCAM_OK;
}

bool gc_op_is_half(const gc_op_call *c, const gc_tensor *t)
{
    return c->half != NULL && t != NULL && t->dtype == GRADCAM_BF16;
}
