/* SPDX-License-Identifier: MIT */
/* Operators of one value at a time: activations, functions, type changes. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "tensor/walk.h"
#include "ops/op.h"

enum { U_COPY, U_RELU, U_ABS, U_NEG, U_SIGN, U_CLIP };

typedef struct unary_run {
    float a;
    float b;
    int64_t low;
    int64_t high;
    int32_t op;
    int32_t strict; /* Clip as ReLU6: no gradient at the bounds */
    gc_dtype from;
    gc_dtype to;
} unary_run;

#define F(k, i) (*(float *)(void *)(p[k] + (i) * s[k]))

/* out, x.  Without strides the compiler can vectorise. */
#define FORWARD_LOOP(name, expr)                                                     \
    static void name##_f(void *user, int64_t n, char *const *p, const int64_t *s)    \
    {                                                                                \
        const unary_run r = *(const unary_run *)user;                                \
        (void)r;                                                                     \
        if (s[0] == 4 && s[1] == 4) {                                                \
            float *y = (float *)(void *)p[0];                                        \
            const float *in = (const float *)(const void *)p[1];                     \
            for (int64_t i = 0; i < n; i++) {                                        \
                const float x = in[i];                                               \
                y[i] = (expr);                                                       \
            }                                                                        \
            return;                                                                  \
        }                                                                            \
        for (int64_t i = 0; i < n; i++) {                                            \
            const float x = F(1, i);                                                 \
            F(0, i) = (expr);                                                        \
        }                                                                            \
    }

/* grad_in, grad_out g, and v: x or y as the row of the operator says. */
#define BACKWARD_LOOP(name, expr)                                                    \
    static void name##_b(void *user, int64_t n, char *const *p, const int64_t *s)    \
    {                                                                                \
        const unary_run r = *(const unary_run *)user;                                \
        (void)r;                                                                     \
        if (s[0] == 4 && s[1] == 4 && s[2] == 4) {                                   \
            float *d = (float *)(void *)p[0];                                        \
            const float *go = (const float *)(const void *)p[1];                     \
            const float *in = (const float *)(const void *)p[2];                     \
            for (int64_t i = 0; i < n; i++) {                                        \
                const float g = go[i], v = in[i];                                    \
                (void)v;                                                             \
                d[i] = (expr);                                                       \
            }                                                                        \
            return;                                                                  \
        }                                                                            \
        for (int64_t i = 0; i < n; i++) {                                            \
            const float g = F(1, i), v = F(2, i);                                    \
            (void)v;                                                                 \
            F(0, i) = (expr);                                                        \
        }                                                                            \
    }

static void int_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    const unary_run *r = user;
    for (int64_t i = 0; i < n; i++) {
        int64_t x = gc_load_int(p[1] + i * s[1], r->from);
        int64_t minus = (int64_t)(0u - (uint64_t)x); /* INT64_MIN stays */
        switch (r->op) {
        case U_RELU:
            x = x > 0 ? x : 0;
            break;
        case U_ABS:
            x = x < 0 ? minus : x;
            break;
        case U_NEG:
            x = minus;
            break;
        case U_SIGN:
            x = (x > 0) - (x < 0);
            break;
        case U_CLIP:
            x = x < r->low ? r->low : x;
            x = x > r->high ? r->high : x;
            break;
        default:
            break;
        }
        gc_store_int(p[0] + i * s[0], r->to, x);
    }
}

/* ---- frames: infer, forward, backward ---- */

static gc_status infer_any(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    return gc_op_set_output(c, 0, c->in[0]->dtype, c->in[0]->ndim, c->in[0]->shape);
}

static gc_status infer_float(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    if (c->in[0]->dtype != GRADCAM_F32) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "the input must be floating point");
    }
    return infer_any(c);
}

static gc_status infer_number(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    if (c->in[0]->dtype == GRADCAM_BOOL) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "the input must be a number");
    }
    return infer_any(c);
}

static gc_status forward_map(gc_op_call *c, gc_walk_fn fn, unary_run *r)
{
    const gc_tensor *ts[2] = {c->out[0], c->in[0]};
    if (ts[0] == NULL) {
        return GRADCAM_OK;
    }
    r->from = c->in[0]->dtype;
    r->to = c->out[0]->dtype;
    gc_walk_tensors(2, ts, r->from == GRADCAM_F32 ? fn : int_run, r);
    return GRADCAM_OK;
}

static gc_status backward_map(gc_op_call *c, gc_walk_fn fn, unary_run *r, const gc_tensor *v)
{
    if (c->grad_in[0] == NULL) {
        return GRADCAM_OK;
    }
    if (c->grad_out[0] == NULL || c->in[0]->dtype != GRADCAM_F32) {
        gc_walk_zero(c->grad_in[0]);
        return GRADCAM_OK;
    }
    const gc_tensor *ts[3] = {c->grad_in[0], c->grad_out[0], v};
    gc_walk_tensors(3, ts, fn, r);
    return GRADCAM_OK;
}

static unary_run read_attrs(const gc_op_call *c, const char *name_a, float a, const char *name_b, float b)
{
    unary_run r;
    memset(&r, 0, sizeof r);
    r.a = gc_attr_float(&c->attrs, name_a, a);
    r.b = gc_attr_float(&c->attrs, name_b, b);
    return r;
}

/* An operator: forward from x, derivative from v, which is in[0] or out[0]. */
#define UNARY(name, code, value, na, da, nb, db, f, d)      \
    FORWARD_LOOP(name, f)                                   \
    BACKWARD_LOOP(name, d)                                  \
    static gc_status name##_forward(gc_op_call *c)          \
    {                                                       \
        unary_run r = read_attrs(c, na, da, nb, db);        \
        r.op = (code);                                      \
        return forward_map(c, name##_f, &r);                \
    }                                                       \
    static gc_status name##_backward(gc_op_call *c)         \
    {                                                       \
        unary_run r = read_attrs(c, na, da, nb, db);        \
        return backward_map(c, name##_b, &r, c->value);     \
    }
#define SIMPLE(name, value, f, d) UNARY(name, U_COPY, value, "alpha", 0.0f, "beta", 0.0f, f, d)
#define STEP(name, code, f)                        \
    FORWARD_LOOP(name, f)                          \
    static gc_status name##_forward(gc_op_call *c) \
    {                                              \
        unary_run r;                               \
        memset(&r, 0, sizeof r);                   \
        r.op = (code);                             \
        return forward_map(c, name##_f, &r);       \
    }

/* ---- activations ---- */

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x)); /* exp overflows to inf, which gives 0 */
}

static float softplus(float x)
{
    return (x > 0.0f ? x : 0.0f) + log1pf(expf(-fabsf(x)));
}

static float mish_slope(float x)
{
    float t = tanhf(softplus(x));
    return t + x * sigmoid(x) * (1.0f - t * t);
}

static float swish_slope(float x, float alpha)
{
    float q = sigmoid(alpha * x);
    return q + alpha * x * q * (1.0f - q);
}

/* NaN passes: the comparison is the one that NaN fails. */
UNARY(relu, U_RELU, out[0], "", 0.0f, "", 0.0f, x < 0.0f ? 0.0f : x, v <= 0.0f ? 0.0f : g)
UNARY(leaky, U_COPY, in[0], "alpha", 0.01f, "", 0.0f, x < 0.0f ? r.a *x : x, v <= 0.0f ? r.a *g : g)
UNARY(elu, U_COPY, in[0], "alpha", 1.0f, "", 0.0f, x < 0.0f ? r.a *expm1f(x) : x, v <= 0.0f ? g *r.a *expf(v) : g)
UNARY(selu, U_COPY, in[0], "alpha", 1.67326319217681884765625f, "gamma", 1.05070102214813232421875f,
      r.b *(x < 0.0f ? r.a *expm1f(x) : x), g *r.b *(v <= 0.0f ? r.a *expf(v) : 1.0f))
UNARY(celu, U_COPY, in[0], "alpha", 1.0f, "", 0.0f, x < 0.0f ? r.a *expm1f(x / r.a) : x,
      v <= 0.0f ? g *expf(v / r.a) : g)
UNARY(hsigmoid, U_COPY, in[0], "alpha", 0.2f, "beta", 0.5f, fmaxf(0.0f, fminf(1.0f, r.a *x + r.b)),
      r.a *v + r.b > 0.0f && r.a * v + r.b < 1.0f ? g *r.a : 0.0f)
SIMPLE(hswish, in[0], x *fmaxf(0.0f, fminf(1.0f, x / 6.0f + 0.5f)),
       v <= -3.0f ? 0.0f : v < 3.0f ? g *(v / 3.0f + 0.5f) : g)
SIMPLE(sigm, out[0], sigmoid(x), g *v *(1.0f - v))
SIMPLE(tanhy, out[0], tanhf(x), g *(1.0f - v * v))
SIMPLE(splus, in[0], softplus(x), g *sigmoid(v))
SIMPLE(ssign, in[0], x / (1.0f + fabsf(x)), g / ((1.0f + fabsf(v)) * (1.0f + fabsf(v))))
UNARY(thresh, U_COPY, in[0], "alpha", 1.0f, "", 0.0f, x > r.a ? x : 0.0f, v > r.a ? g : 0.0f)
UNARY(shrink, U_COPY, in[0], "lambd", 0.5f, "bias", 0.0f, x < -r.a ? x + r.b : x > r.a ? x - r.b : 0.0f,
      v < -r.a || v > r.a ? g : 0.0f)
UNARY(swish, U_COPY, in[0], "alpha", 1.0f, "", 0.0f, x *sigmoid(r.a *x), g *swish_slope(v, r.a))
SIMPLE(mish, in[0], x *tanhf(softplus(x)), g *mish_slope(v))

static float gelu_value(float x, bool approximate)
{
    float u = 0.7978845608f * (x + 0.044715f * x * x * x);
    return approximate ? 0.5f * x * (1.0f + tanhf(u)) : 0.5f * x * erfcf(-x * 0.7071067812f);
}

static float gelu_slope(float x, bool approximate)
{
    float t = tanhf(0.7978845608f * (x + 0.044715f * x * x * x));
    float du = 0.7978845608f * (1.0f + 0.134145f * x * x);
    if (approximate) {
        return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * du;
    }
    return 0.5f * erfcf(-x * 0.7071067812f) + x * 0.3989422804f * expf(-0.5f * x * x);
}

FORWARD_LOOP(gelu, gelu_value(x, r.strict != 0))
BACKWARD_LOOP(gelu, g *gelu_slope(v, r.strict != 0))

static unary_run gelu_run(const gc_op_call *c)
{
    unary_run r;
    memset(&r, 0, sizeof r);
    r.strict = strcmp(gc_attr_string(&c->attrs, "approximate", "none"), "tanh") == 0;
    return r;
}

static gc_status gelu_forward(gc_op_call *c)
{
    unary_run r = gelu_run(c);
    return forward_map(c, gelu_f, &r);
}

static gc_status gelu_backward(gc_op_call *c)
{
    unary_run r = gelu_run(c);
    return backward_map(c, gelu_b, &r, c->in[0]);
}

/* ---- Clip ---- */

/* min first, then max, so that max wins when min > max; NaN stays. */
FORWARD_LOOP(clip, (x < r.a ? r.a : x) > r.b ? r.b : (x < r.a ? r.a : x))
BACKWARD_LOOP(clip, r.strict ? (v > r.a && v < r.b ? g : 0.0f) : (v >= r.a && v <= r.b ? g : 0.0f))

static unary_run clip_run(const gc_op_call *c)
{
    unary_run r = read_attrs(c, c->opset < 11 ? "min" : "", -HUGE_VALF, c->opset < 11 ? "max" : "", HUGE_VALF);
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
    return infer_number(c);
}

static gc_status clip_forward(gc_op_call *c)
{
    unary_run r = clip_run(c);
    return forward_map(c, clip_f, &r);
}

static gc_status clip_backward(gc_op_call *c)
{
    unary_run r = clip_run(c);
    for (int32_t i = 1; i < c->n_in; i++) {
        if (c->grad_in[i] != NULL) {
            gc_walk_zero(c->grad_in[i]); /* bounds are settings, not data */
        }
    }
    return backward_map(c, clip_b, &r, c->in[0]);
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
    GC_TRY(infer_float(c));
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
        gc_walk(y->ndim, y->shape, 3, ops, prelu_f, NULL);
    }
    return GRADCAM_OK;
}

static gc_status prelu_backward(gc_op_call *c)
{
    int32_t lead = prelu_lead(c);
    gc_walk_grad x = {prelu_b, prelu_b, NULL, c->work, 2, {c->in[0], c->in[1]}, {0, lead}};
    gc_walk_grad slope = {prelu_slope_set, prelu_slope_acc, NULL, c->work, 1, {c->in[0]}, {0}};
    if (c->grad_in[0] != NULL) {
        gc_walk_gradient(&x, c->grad_out[0], c->grad_in[0], 0);
    }
    if (c->grad_in[1] != NULL) {
        gc_walk_gradient(&slope, c->grad_out[0], c->grad_in[1], lead);
    }
    return GRADCAM_OK;
}

/* ---- functions ---- */

SIMPLE(exponential, out[0], expf(x), g *v)
SIMPLE(logarithm, in[0], logf(x), g / v)
SIMPLE(root, out[0], sqrtf(x), g *0.5f / v)
UNARY(absolute, U_ABS, in[0], "", 0.0f, "", 0.0f, fabsf(x), v > 0.0f ? g : v < 0.0f ? -g : 0.0f *v)
UNARY(negate, U_NEG, grad_out[0], "", 0.0f, "", 0.0f, -x, -g)
SIMPLE(erfun, in[0], erff(x), g * 1.1283791671f * expf(-v * v))
SIMPLE(recip, out[0], 1.0f / x, -g * v * v)
SIMPLE(sine, in[0], sinf(x), g *cosf(v))
SIMPLE(cosine, in[0], cosf(x), -g * sinf(v))
SIMPLE(tangent, out[0], tanf(x), g *(1.0f + v * v))
SIMPLE(arcsin, in[0], asinf(x), g / sqrtf(1.0f - v * v))
SIMPLE(arccos, in[0], acosf(x), -g / sqrtf(1.0f - v * v))
SIMPLE(arctan, in[0], atanf(x), g / (1.0f + v * v))
SIMPLE(hsine, in[0], sinhf(x), g *coshf(v))
SIMPLE(hcosine, in[0], coshf(x), g *sinhf(v))
SIMPLE(arsinh, in[0], asinhf(x), g / sqrtf(v * v + 1.0f))
SIMPLE(arcosh, in[0], acoshf(x), g / sqrtf(v * v - 1.0f))
SIMPLE(artanh, in[0], atanhf(x), g / (1.0f - v * v))
STEP(floors, U_COPY, floorf(x))
STEP(ceils, U_COPY, ceilf(x))
STEP(rounds, U_COPY, rintf(x))
STEP(signs, U_SIGN, x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x)

/* ---- copies and type changes ---- */

static gc_status copy_forward(gc_op_call *c)
{
    if (c->out[0] != NULL) {
        gc_tensor_convert(c->in[0], c->out[0]);
    }
    return GRADCAM_OK;
}

static gc_status copy_backward(gc_op_call *c)
{
    if (c->grad_in[0] == NULL) {
        return GRADCAM_OK;
    }
    if (c->grad_out[0] == NULL || c->in[0]->dtype != GRADCAM_F32 || c->grad_out[0]->dtype != GRADCAM_F32) {
        gc_walk_zero(c->grad_in[0]);
    } else {
        gc_tensor_convert(c->grad_out[0], c->grad_in[0]);
    }
    for (int32_t i = 1; i < c->n_in; i++) {
        if (c->grad_in[i] != NULL) {
            gc_walk_zero(c->grad_in[i]);
        }
    }
    return GRADCAM_OK;
}

static gc_status dropout_infer(gc_op_call *c)
{
    GC_TRY(infer_any(c));
    const gc_tensor *ratio = c->n_in > 1 ? c->in[1] : NULL;
    const gc_tensor *training = c->n_in > 2 ? c->in[2] : NULL;
    if (training != NULL && (training->data == NULL || gc_load_real(training->data, training->dtype) != 0.0)) {
        if (ratio == NULL || ratio->data == NULL || gc_load_real(ratio->data, ratio->dtype) != 0.0) {
            return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "dropout in training mode; export the model for inference");
        }
    }
    gc_dtype mask = c->opset < 10 ? c->in[0]->dtype : GRADCAM_BOOL;
    return c->n_out > 1 ? gc_op_set_output(c, 1, mask, c->in[0]->ndim, c->in[0]->shape) : GRADCAM_OK;
}

static void ones_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    gc_dtype type = *(const gc_dtype *)user;
    for (int64_t i = 0; i < n; i++) {
        if (type == GRADCAM_F32) {
            F(0, i) = 1.0f;
        } else {
            gc_store_int(p[0] + i * s[0], type, 1);
        }
    }
}

static gc_status dropout_forward(gc_op_call *c)
{
    if (c->n_out > 1 && c->out[1] != NULL) {
        const gc_tensor *ts[1] = {c->out[1]};
        gc_walk_tensors(1, ts, ones_run, &c->out[1]->dtype);
    }
    return copy_forward(c);
}

static gc_status cast_infer(gc_op_call *c)
{
    static const gc_dtype types[] = {0, GRADCAM_F32, GRADCAM_U8, 0, 0, 0, GRADCAM_I32, GRADCAM_I64, 0, GRADCAM_BOOL,
                                     GRADCAM_F32, GRADCAM_F32, 0, 0, 0, 0, GRADCAM_F32};
    int64_t to = gc_attr_int(&c->attrs, "to", 0);
    GC_TRY(gc_op_need(c, 0));
    gc_dtype type = to > 0 && to < (int64_t)(sizeof types / sizeof types[0]) ? types[to] : 0;
    /* int8 has no type here; models that cast to it are quantised */
    if (type == 0) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "cast to ONNX type %d", (int)to);
    }
    return gc_op_set_output(c, 0, type, c->in[0]->ndim, c->in[0]->shape);
}

static gc_status cast_like_infer(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    return gc_op_set_output(c, 0, c->in[1]->dtype, c->in[0]->ndim, c->in[0]->shape);
}

/* Truncates and clamps: C leaves conversions out of range undefined. */
static int64_t clamped(float v, gc_dtype to)
{
    if (v != v) {
        return 0;
    }
    if (to == GRADCAM_I64) {
        return v >= 9223372036854775808.0f ? INT64_MAX : v <= -9223372036854775808.0f ? INT64_MIN : (int64_t)v;
    }
    double low = to == GRADCAM_I32 ? -2147483648.0 : 0.0;
    double high = to == GRADCAM_I32 ? 2147483647.0 : 255.0;
    double x = (double)v;
    return (int64_t)(x < low ? low : x > high ? high : x);
}

static void cast_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    const unary_run *r = user;
    for (int64_t i = 0; i < n; i++) {
        const char *x = p[1] + i * s[1];
        char *y = p[0] + i * s[0];
        if (r->to == GRADCAM_F32) {
            F(0, i) = (float)gc_load_real(x, r->from);
        } else if (r->to == GRADCAM_BOOL) {
            *(uint8_t *)y = gc_load_real(x, r->from) != 0.0;
        } else {
            gc_store_int(y, r->to, r->from == GRADCAM_F32 ? clamped(F(1, i), r->to) : gc_load_int(x, r->from));
        }
    }
}

static gc_status cast_forward(gc_op_call *c)
{
    unary_run r;
    const gc_tensor *ts[2] = {c->out[0], c->in[0]};
    memset(&r, 0, sizeof r);
    if (ts[0] == NULL || ts[0]->dtype == ts[1]->dtype) {
        return copy_forward(c);
    }
    r.from = ts[1]->dtype;
    r.to = ts[0]->dtype;
    gc_walk_tensors(2, ts, cast_run, &r);
    return GRADCAM_OK;
}

/* ---- tests of a value ---- */

static gc_status infer_test(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    return gc_op_set_output(c, 0, GRADCAM_BOOL, c->in[0]->ndim, c->in[0]->shape);
}

#define TEST(name, expr)                                                                 \
    static void name##_f(void *user, int64_t n, char *const *p, const int64_t *s)        \
    {                                                                                    \
        const unary_run r = *(const unary_run *)user;                                    \
        (void)r;                                                                         \
        for (int64_t i = 0; i < n; i++) {                                                \
            const double x = gc_load_real(p[1] + i * s[1], r.from);                      \
            *(uint8_t *)(void *)(p[0] + i * s[0]) = (expr) ? 1 : 0;                      \
        }                                                                                \
    }                                                                                    \
    static gc_status name##_forward(gc_op_call *c)                                       \
    {                                                                                    \
        unary_run r;                                                                     \
        const gc_tensor *ts[2] = {c->out[0], c->in[0]};                                  \
        memset(&r, 0, sizeof r);                                                         \
        r.from = c->in[0]->dtype;                                                        \
        r.low = gc_attr_int(&c->attrs, "detect_negative", 1);                            \
        r.high = gc_attr_int(&c->attrs, "detect_positive", 1);                           \
        if (ts[0] != NULL) {                                                             \
            gc_walk_tensors(2, ts, name##_f, &r);                                        \
        }                                                                                \
        return GRADCAM_OK;                                                               \
    }
TEST(is_nan, x != x)
TEST(is_inf, (x == HUGE_VAL && r.high != 0) || (x == -HUGE_VAL && r.low != 0))
TEST(not, x == 0.0)

#define A_FLAGS (GC_OP_SAME | GC_OP_ACTIVATION)
#define FROM_X(op, id, kind, flags) {op, kind, id##_forward, id##_backward, flags, 1, 0, 1, 1, 1}
#define FROM_Y(op, id, kind, flags) {op, kind, id##_forward, id##_backward, flags, 0, 1, 1, 1, 1}
#define NO_GRAD(op, id, kind) {op, kind, id##_forward, NULL, GC_OP_SAME | GC_OP_STOPS, 0, 0, 1, 1, 1}

const gc_op gc_ops_unary[] = {
    FROM_Y("Relu", relu, infer_number, A_FLAGS),
    FROM_X("LeakyRelu", leaky, infer_float, A_FLAGS),
    {"PRelu", prelu_infer, prelu_forward, prelu_backward, A_FLAGS, 3, 0, 2, 2, 1},
    FROM_X("Elu", elu, infer_float, A_FLAGS),
    FROM_X("Selu", selu, infer_float, A_FLAGS),
    FROM_X("Celu", celu, infer_float, A_FLAGS),
    FROM_Y("Sigmoid", sigm, infer_float, A_FLAGS),
    FROM_Y("Tanh", tanhy, infer_float, A_FLAGS),
    FROM_X("HardSigmoid", hsigmoid, infer_float, A_FLAGS),
    FROM_X("HardSwish", hswish, infer_float, A_FLAGS),
    {"Clip", clip_infer, clip_forward, clip_backward, A_FLAGS, 7, 0, 1, 3, 1},
    FROM_X("Softplus", splus, infer_float, A_FLAGS),
    FROM_X("Softsign", ssign, infer_float, A_FLAGS),
    FROM_X("ThresholdedRelu", thresh, infer_float, A_FLAGS),
    FROM_X("Gelu", gelu, infer_float, A_FLAGS),
    FROM_X("Swish", swish, infer_float, A_FLAGS),
    FROM_X("Mish", mish, infer_float, A_FLAGS),
    FROM_X("Shrink", shrink, infer_float, GC_OP_SAME),
    FROM_Y("Exp", exponential, infer_float, GC_OP_SAME),
    FROM_X("Log", logarithm, infer_float, GC_OP_SAME),
    FROM_Y("Sqrt", root, infer_float, GC_OP_SAME),
    FROM_X("Abs", absolute, infer_number, GC_OP_SAME),
    {"Neg", infer_number, negate_forward, negate_backward, GC_OP_SAME, 0, 0, 1, 1, 1},
    FROM_X("Erf", erfun, infer_float, GC_OP_SAME),
    FROM_Y("Reciprocal", recip, infer_float, GC_OP_SAME),
    FROM_X("Sin", sine, infer_float, GC_OP_SAME),
    FROM_X("Cos", cosine, infer_float, GC_OP_SAME),
    FROM_Y("Tan", tangent, infer_float, GC_OP_SAME),
    FROM_X("Asin", arcsin, infer_float, GC_OP_SAME),
    FROM_X("Acos", arccos, infer_float, GC_OP_SAME),
    FROM_X("Atan", arctan, infer_float, GC_OP_SAME),
    FROM_X("Sinh", hsine, infer_float, GC_OP_SAME),
    FROM_X("Cosh", hcosine, infer_float, GC_OP_SAME),
    FROM_X("Asinh", arsinh, infer_float, GC_OP_SAME),
    FROM_X("Acosh", arcosh, infer_float, GC_OP_SAME),
    FROM_X("Atanh", artanh, infer_float, GC_OP_SAME),
    NO_GRAD("Floor", floors, infer_float),
    NO_GRAD("Ceil", ceils, infer_float),
    NO_GRAD("Round", rounds, infer_float),
    NO_GRAD("Sign", signs, infer_number),
    NO_GRAD("IsNaN", is_nan, infer_test),
    NO_GRAD("IsInf", is_inf, infer_test),
    NO_GRAD("Not", not, infer_test),
    {"Identity", infer_any, copy_forward, copy_backward, GC_OP_SAME, 0, 0, 1, 1, 1},
    {"Dropout", dropout_infer, dropout_forward, copy_backward, GC_OP_SAME, 0, 0, 1, 3, 2},
    {"Cast", cast_infer, cast_forward, copy_backward, GC_OP_SAME, 0, 0, 1, 1, 1},
    {"CastLike", cast_like_infer, cast_forward, copy_backward, GC_OP_SAME, 0, 0, 2, 2, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
