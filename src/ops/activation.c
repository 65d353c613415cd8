/* SPDX-License-Identifier: MIT */
/* Activations: ReLU and its kin, Clip, PRelu. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "kern/kern.h"
#include "ops/unary.h"

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x)); /* exp overflows to inf, which gives 0 */
}

static float softplus(float x)
{
    return (x > 0.0f ? x : 0.0f) + log1pf(expf(-fabsf(x)));
}

static float swish_slope(float x, float alpha)
{
    float q = sigmoid(alpha * x);
    return q + alpha * x * q * (1.0f - q);
}

/* NaN passes: the comparison is the one that NaN fails. */
UNARY(relu, U_RELU, out[0], "", 0.0f, "", 0.0f, x < 0.0f ? 0.0f : x, v <= 0.0f ? 0.0f : g)
UNARY(leaky, U_COPY, in[0], "alpha", 0.01f, "", 0.0f, x < 0.0f ? r.a * x : x, v <= 0.0f ? r.a * g : g)
UNARY(elu, U_COPY, in[0], "alpha", 1.0f, "", 0.0f, x < 0.0f ? r.a * expm1f(x) : x, v <= 0.0f ? g * r.a * expf(v) : g)
UNARY(selu, U_COPY, in[0], "alpha", 1.67326319217681884765625f, "gamma", 1.05070102214813232421875f,
      r.b *(x < 0.0f ? r.a * expm1f(x) : x), g *r.b *(v <= 0.0f ? r.a * expf(v) : 1.0f))
UNARY(celu, U_COPY, in[0], "alpha", 1.0f, "", 0.0f, x < 0.0f ? r.a * expm1f(x / r.a) : x,
      v <= 0.0f ? g * expf(v / r.a) : g)
UNARY(hsigmoid, U_COPY, in[0], "alpha", 0.2f, "beta", 0.5f, fmaxf(0.0f, fminf(1.0f, r.a *x + r.b)),
      r.a *v + r.b > 0.0f && r.a * v + r.b < 1.0f ? g * r.a : 0.0f)
KERNEL(hswish, GC_MAP_HARD_SWISH)
KERNEL(mish, GC_MAP_MISH)
MAPPED(sigm, GC_MAP_SIGMOID, g *v *(1.0f - v))
MAPPED(tanhy, GC_MAP_TANH, g *(1.0f - v * v))
SIMPLE(splus, in[0], softplus(x), g *sigmoid(v))
SIMPLE(ssign, in[0], x / (1.0f + fabsf(x)), g / ((1.0f + fabsf(v)) * (1.0f + fabsf(v))))
UNARY(thresh, U_COPY, in[0], "alpha", 1.0f, "", 0.0f, x > r.a ? x : 0.0f, v > r.a ? g : 0.0f)
UNARY(shrink, U_COPY, in[0], "lambd", 0.5f, "bias", 0.0f, x<-r.a ? x + r.b : x> r.a ? x - r.b : 0.0f,
      v<-r.a || v> r.a ? g : 0.0f)
UNARY(swishes, U_COPY, in[0], "alpha", 1.0f, "", 0.0f, x *sigmoid(r.a *x), g *swish_slope(v, r.a))
KERNEL(silu, GC_MAP_SILU)

static bool is_silu(const gc_op_call *c)
{
    return gc_attr_float(&c->attrs, "alpha", 1.0f) == 1.0f;
}

static gc_status swish_forward(gc_op_call *c)
{
    return is_silu(c) ? silu_forward(c) : swishes_forward(c);
}

static gc_status swish_backward(gc_op_call *c)
{
    return is_silu(c) ? silu_backward(c) : swishes_backward(c);
}

static int32_t gelu_kind(const gc_op_call *c)
{
    return strcmp(gc_attr_string(&c->attrs, "approximate", "none"), "tanh") == 0 ? GC_MAP_GELU_TANH : GC_MAP_GELU;
}

static gc_status gelu_forward(gc_op_call *c)
{
    return gc_unary_map(c, gelu_kind(c));
}

static gc_status gelu_backward(gc_op_call *c)
{
    return gc_unary_slope(c, gelu_kind(c));
}

/* ---- Clip ---- */

/* min first, then max, so that max wins when min > max; NaN stays. */
FORWARD_LOOP(clip, (x < r.a ? r.a : x) > r.b ? r.b : (x < r.a ? r.a : x))
BACKWARD_LOOP(clip, ((v >= r.a) & (v <= r.b)) ? g : 0.0f)
BACKWARD_LOOP(relu6, ((v > 0.0f) & (v < 6.0f)) ? g : 0.0f)

static unary_run clip_run(const gc_op_call *c)
{
    unary_run r = gc_unary_attrs(c, c->opset < 11 ? "min" : "", -HUGE_VALF, c->opset < 11 ? "max" : "", HUGE_VALF);
    r.op = U_CLIP;
    r.low = INT64_MIN;
    r.high = INT64_MAX;
    if (c->n_in > 1 && c->in[1] != NULL) {
        r.a = (float)gc_load_real(c->in[1]->data, c->in[1]->dtype);
        r.low = c->in[1]->dtype == GRADCAM_F32 ? r.low : gc_load_int(c->in[1]->data, c->in[1]->dtype);
    }
    if (c->n_in > 2 && c->in[2] != NULL) {
        r.b = (float)gc_load_real(c->in[2]->data, c->in[2]->dtype);
        r.high = c->in[2]->dtype == GRADCAM_F32 ? r.high : gc_load_int(c->in[2]->data, c->in[2]->dtype);
    }
    r.strict = r.a == 0.0f && r.b == 6.0f;
    return r;
}

/* The derivative of ReLU6 is zero where the output is at a bound; that of other
   bounds is one where the input is, and then the output does not tell. */
static bool by_output(const gc_op_call *c)
{
    for (int32_t i = 1; i < c->n_in && i < 3; i++) {
        if (c->in[i] != NULL && !gc_is_constant(c->in[i])) {
            return false;
        }
    }
    return clip_run(c).strict != 0;
}

static gc_status clip_infer(gc_op_call *c)
{
    for (int32_t i = 1; i < c->n_in; i++) {
        if (c->in[i] != NULL && gc_shape_numel(c->in[i]->ndim, c->in[i]->shape) != 1) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "the bounds must be scalars");
        }
        if (c->in[i] != NULL && c->in[0] != NULL && c->in[i]->dtype != c->in[0]->dtype) {
            return gc_op_fail(c, GRADCAM_E_DTYPE, "the bounds must have the type of the input");
        }
    }
    bool strict = by_output(c);
    c->keep_in = strict ? 0 : 1;
    c->keep_out = strict ? 1 : 0;
    return gc_unary_infer_number(c);
}

static gc_status clip_forward(gc_op_call *c)
{
    unary_run r = clip_run(c);
    return gc_unary_forward(c, clip_f, &r);
}

static gc_status clip_backward(gc_op_call *c)
{
    unary_run r = clip_run(c);
    for (int32_t i = 1; i < c->n_in; i++) {
        gc_op_no_gradient(c, i); /* bounds are settings, not data */
    }
    return gc_unary_backward(c, r.strict ? relu6_b : clip_b, &r, c->keep_out != 0 ? c->out[0] : c->in[0]);
}

/* ---- PRelu ---- */

static void prelu_f(void *user, int64_t n, char *const *p, const int64_t *s)
{
    (void)user;
    for (int64_t i = 0; i < n; i++) {
        float x = F(1, i);
        F(0, i) = x < 0.0f ? x * F(2, i) : x;
    }
}

static void prelu_b(void *user, int64_t n, char *const *p, const int64_t *s)
{
    (void)user;
    for (int64_t i = 0; i < n; i++) {
        F(1, i) = F(2, i) <= 0.0f ? F(0, i) * F(3, i) : F(0, i);
    }
}

static void prelu_slope_set(void *user, int64_t n, char *const *p, const int64_t *s)
{
    (void)user;
    for (int64_t i = 0; i < n; i++) {
        F(1, i) = F(2, i) <= 0.0f ? F(0, i) * F(2, i) : 0.0f;
    }
}

static void prelu_slope_acc(void *user, int64_t n, char *const *p, const int64_t *s)
{
    (void)user;
    for (int64_t i = 0; i < n; i++) {
        if (F(2, i) <= 0.0f) {
            *(double *)(void *)(p[1] + i * s[1]) += (double)F(0, i) * (double)F(2, i);
        }
    }
}

/* Before opset 7 a slope of rank 1 belongs to the channels. */
static int32_t prelu_lead(const gc_op_call *c)
{
    int32_t lead = c->in[0]->ndim - c->in[1]->ndim;
    return c->opset < 7 && c->in[1]->ndim == 1 && lead >= 1 ? 1 : lead;
}

static gc_status prelu_infer(gc_op_call *c)
{
    int64_t bytes = 0;
    GC_TRY(gc_unary_infer_float(c));
    GC_TRY(gc_op_need(c, 1));
    int32_t lead = prelu_lead(c);
    for (int32_t d = 0; d < c->in[1]->ndim; d++) {
        if (lead < 0 || (c->in[1]->shape[d] != 1 && c->in[1]->shape[d] != c->in[0]->shape[d + lead])) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "the slope does not broadcast to the input");
        }
    }
    if (c->in[1]->dtype != GRADCAM_F32 || !gc_mul_ok(gc_shape_numel(c->in[1]->ndim, c->in[1]->shape), 8, &bytes)) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "the slope must be floating point");
    }
    c->work_bytes = (size_t)bytes;
    return GRADCAM_OK;
}

static gc_status prelu_forward(gc_op_call *c)
{
    gc_walk_operand ops[3];
    const gc_tensor *y = c->out[0];
    if (y != NULL) {
        gc_walk_bind(&ops[0], y, y->ndim, 0);
        gc_walk_bind(&ops[1], c->in[0], y->ndim, 0);
        gc_walk_bind(&ops[2], c->in[1], y->ndim, prelu_lead(c));
        return gc_walk_on(c->ctx, y->ndim, y->shape, 3, ops, prelu_f, NULL);
    }
    return GRADCAM_OK;
}

static gc_status prelu_backward(gc_op_call *c)
{
    int32_t lead = prelu_lead(c);
    gc_walk_grad x = {prelu_b, prelu_b, NULL, c->work, 2, {c->in[0], c->in[1]}, {0, lead}, c->ctx, false};
    gc_walk_grad slope = {prelu_slope_set, prelu_slope_acc, NULL, c->work, 1, {c->in[0]}, {0}, c->ctx, false};
    if (c->grad_in[0] != NULL) {
        GC_TRY(gc_walk_gradient(&x, c->grad_out[0], c->grad_in[0], 0));
    }
    if (c->grad_in[1] != NULL) {
        GC_TRY(gc_walk_gradient(&slope, c->grad_out[0], c->grad_in[1], lead));
    }
    return GRADCAM_OK;
}

#define A_FLAGS (GC_OP_SAME | GC_OP_ACTIVATION | GC_OP_FINISHES)

const gc_op gc_ops_activation[] = {
    FROM_Y("Relu", relu, gc_unary_infer_number, A_FLAGS),
    FROM_X("LeakyRelu", leaky, gc_unary_infer_float, A_FLAGS),
    {"PRelu", prelu_infer, prelu_forward, prelu_backward, GC_OP_SAME | GC_OP_ACTIVATION, 3, 0, 2, 2, 1},
    FROM_X("Elu", elu, gc_unary_infer_float, A_FLAGS),
    FROM_X("Selu", selu, gc_unary_infer_float, A_FLAGS),
    FROM_X("Celu", celu, gc_unary_infer_float, A_FLAGS),
    FROM_Y("Sigmoid", sigm, gc_unary_infer_float, A_FLAGS),
    FROM_Y("Tanh", tanhy, gc_unary_infer_float, A_FLAGS),
    FROM_X("HardSigmoid", hsigmoid, gc_unary_infer_float, A_FLAGS),
    FROM_X("HardSwish", hswish, gc_unary_infer_float, A_FLAGS),
    {"Clip", clip_infer, clip_forward, clip_backward, A_FLAGS, 6, 0, 1, 3, 1},
    FROM_X("Softplus", splus, gc_unary_infer_float, A_FLAGS),
    FROM_X("Softsign", ssign, gc_unary_infer_float, A_FLAGS),
    FROM_X("ThresholdedRelu", thresh, gc_unary_infer_float, A_FLAGS),
    FROM_X("Gelu", gelu, gc_unary_infer_float, A_FLAGS),
    FROM_X("Swish", swish, gc_unary_infer_float, A_FLAGS),
    FROM_X("Mish", mish, gc_unary_infer_float, A_FLAGS),
    FROM_X("Shrink", shrink, gc_unary_infer_float, GC_OP_SAME | GC_OP_FINISHES),
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
