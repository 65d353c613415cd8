/* SPDX-License-Identifier: MIT */
/* CumSum and CumProd along one axis.  Row-major tensors. */
#include <string.h>

#include "ops/op.h"
#include "tensor/walk.h"

/* The lines along the axis: n elements `step` apart, backwards when reversed. */
typedef struct lines {
    int64_t outer, n, inner;
    int64_t step;
    bool exclusive, reverse;
} lines;

static gc_status setup(gc_op_call *c, lines *l)
{
    int64_t value = 0;
    int32_t count = 0, axis = 0;
    memset(l, 0, sizeof *l);
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_const_ints(c, 1, &value, 1, &count));
    if (count != 1) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "the axis must be one number");
    }
    const gc_tensor *x = c->in[0];
    GC_TRY(gc_op_axis(c, value, x->ndim, &axis));
    l->exclusive = gc_attr_int(&c->attrs, "exclusive", 0) != 0;
    l->reverse = gc_attr_int(&c->attrs, "reverse", 0) != 0;
    l->outer = gc_shape_numel(axis, x->shape);
    l->n = x->shape[axis];
    l->inner = gc_shape_numel(x->ndim - axis - 1, x->shape + axis + 1);
    return GRADCAM_OK;
}

static gc_status infer(gc_op_call *c)
{
    lines l;
    GC_TRY(setup(c, &l));
    if (c->in[0]->dtype == GRADCAM_BOOL) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "the input must be a number");
    }
    return gc_op_set_output(c, 0, c->in[0]->dtype, c->in[0]->ndim, c->in[0]->shape);
}

static void turn(lines *l, bool reverse)
{
    l->step = reverse ? -l->inner : l->inner;
    l->reverse = reverse;
}

static int64_t line_count(const lines *l)
{
    return l->n > 0 ? l->outer * l->inner : 0;
}

/* First element of line k. */
static int64_t line_at(const lines *l, int64_t k)
{
    return k / l->inner * l->n * l->inner + k % l->inner + (l->reverse ? (l->n - 1) * l->inner : 0);
}

static void real_line(const lines *l, bool product, const float *x, float *y)
{
    double acc = product ? 1.0 : 0.0;
    for (int64_t i = 0; i < l->n; i++) {
        double before = acc, v = (double)x[i * l->step];
        acc = product ? acc * v : acc + v;
        y[i * l->step] = (float)(l->exclusive ? before : acc);
    }
}

/* Integers wrap. */
static void int_line(const lines *l, bool product, gc_dtype type, const char *x, char *y)
{
    uint64_t acc = product ? 1 : 0;
    int64_t step = l->step * (int64_t)gc_dtype_size(type);
    for (int64_t i = 0; i < l->n; i++) {
        uint64_t before = acc, v = (uint64_t)gc_load_int(x + i * step, type);
        acc = product ? acc * v : acc + v;
        gc_store_int(y + i * step, type, (int64_t)(l->exclusive ? before : acc));
    }
}

static void all_lines(const lines *l, bool product, const gc_tensor *x, gc_tensor *y)
{
    int64_t size = (int64_t)gc_dtype_size(x->dtype);
    for (int64_t k = 0; k < line_count(l); k++) {
        int64_t at = line_at(l, k);
        if (x->dtype == GRADCAM_F32) {
            real_line(l, product, (const float *)x->data + at, (float *)y->data + at);
        } else {
            int_line(l, product, x->dtype, (const char *)x->data + at * size, (char *)y->data + at * size);
        }
    }
}

static gc_status forward(gc_op_call *c, bool product)
{
    lines l;
    GC_TRY(setup(c, &l));
    turn(&l, l.reverse);
    if (c->out[0] != NULL) {
        all_lines(&l, product, c->in[0], c->out[0]);
    }
    return GRADCAM_OK;
}

static gc_status cumsum_forward(gc_op_call *c)
{
    return forward(c, false);
}

static gc_status cumprod_forward(gc_op_call *c)
{
    return forward(c, true);
}

/* False when there is nothing to compute; the axis is a setting, not data. */
static bool begin_gradient(gc_op_call *c)
{
    bool flows = c->grad_out[0] != NULL && c->in[0]->dtype == GRADCAM_F32;
    if (c->grad_in[1] != NULL) {
        gc_walk_zero(c->grad_in[1]);
    }
    if (c->grad_in[0] != NULL && !flows) {
        gc_walk_zero(c->grad_in[0]);
    }
    return c->grad_in[0] != NULL && flows;
}

/* The gradient is the same sum from the other end. */
static gc_status cumsum_backward(gc_op_call *c)
{
    lines l;
    if (!begin_gradient(c)) {
        return GRADCAM_OK;
    }
    GC_TRY(setup(c, &l));
    turn(&l, !l.reverse);
    all_lines(&l, false, c->grad_out[0], c->grad_in[0]);
    return GRADCAM_OK;
}

/* dx_i = sum over the products that hold x_i of g times the other factors:
   (sum g y) / x_i before the first zero; at the first zero the products are made
   without it; behind it all are zero. */
static void cumprod_gradient(const lines *l, const float *x, const float *g, float *d)
{
    int64_t zero = 0, late = l->exclusive ? 1 : 0;
    double product = 1.0, sum = 0.0;
    while (zero < l->n && x[zero * l->step] != 0.0f) {
        product *= (double)x[zero * l->step];
        zero++;
    }
    double rest = product, before = product, at_zero = 0.0;
    for (int64_t i = zero; i < l->n; i++) {
        d[i * l->step] = 0.0f;
        rest *= i > zero ? (double)x[i * l->step] : 1.0;
        at_zero += i + late < l->n ? (double)g[(i + late) * l->step] * rest : 0.0;
    }
    if (zero < l->n) {
        d[zero * l->step] = (float)at_zero;
    }
    for (int64_t i = zero - 1; i >= 0; i--) { /* before: product of 0..i */
        double v = (double)x[i * l->step];
        sum += i + late < l->n ? (double)g[(i + late) * l->step] * before : 0.0;
        d[i * l->step] = (float)(sum / v);
        before /= v;
    }
}

static gc_status cumprod_backward(gc_op_call *c)
{
    lines l;
    if (!begin_gradient(c)) {
        return GRADCAM_OK;
    }
    GC_TRY(setup(c, &l));
    turn(&l, l.reverse);
    for (int64_t k = 0; k < line_count(&l); k++) {
        int64_t at = line_at(&l, k);
        cumprod_gradient(&l, (const float *)c->in[0]->data + at, (const float *)c->grad_out[0]->data + at,
                         (float *)c->grad_in[0]->data + at);
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_cumulative[] = {
    {"CumSum", infer, cumsum_forward, cumsum_backward, 0, 0, 0, 2, 2, 1},
    {"CumProd", infer, cumprod_forward, cumprod_backward, 0, 1, 0, 2, 2, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
