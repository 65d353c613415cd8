/* SPDX-License-Identifier: MIT */
/* Operators of one value at a time: functions, type changes, tests of a value. */
#include "ops/unary.h"

#include <math.h>
#include <string.h>

#include "kern/kern.h"

static void int_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    const unary_run *r = user;
    for (int64_t i = 0; i < n; i++) {
        int64_t x = gc_load_int(p[1] + i * s[1], r->from);
        int64_t minus = (int64_t)(0u - (uint64_t)x); /* INT64_MIN stays */
        switch (r->op) {
        case U_RELU: x = x > 0 ? x : 0; break;
        case U_ABS: x = x < 0 ? minus : x; break;
        case U_NEG: x = minus; break;
        case U_SIGN: x = (x > 0) - (x < 0); break;
        case U_CLIP:
            x = x < r->low ? r->low : x;
            x = x > r->high ? r->high : x;
            break;
        default: break;
        }
        gc_store_int(p[0] + i * s[0], r->to, x);
    }
}

/* ---- frames: infer, forward, backward ---- */

gc_status gc_unary_infer_any(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    return gc_op_set_output(c, 0, c->in[0]->dtype, c->in[0]->ndim, c->in[0]->shape);
}

gc_status gc_unary_infer_float(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    if (c->in[0]->dtype != GRADCAM_F32) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "the input must be floating point");
    }
    return gc_unary_infer_any(c);
}

gc_status gc_unary_infer_number(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    if (c->in[0]->dtype == GRADCAM_BOOL) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "the input must be a number");
    }
    return gc_unary_infer_any(c);
}

typedef struct map_job {
    const gc_kern *kern;
    int32_t kind;
    int32_t reserved0;
} map_job;

enum { MAP_BUFFER = 256 };

gc_status gc_unary_forward(gc_op_call *c, gc_walk_fn fn, unary_run *r)
{
    const gc_tensor *ts[2] = {c->out[0], c->in[0]};
    if (ts[0] == NULL) {
        return GRADCAM_OK;
    }
    r->from = c->in[0]->dtype;
    r->to = c->out[0]->dtype;
    return gc_walk_tensors_on(c->ctx, 2, ts, r->from == GRADCAM_F32 ? fn : int_run, r);
}

/* out, x: whole runs by the kernel, others through a buffer. */
static void map_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    const map_job *j = user;
    float buffer[MAP_BUFFER];
    if (s[0] == 4 && s[1] == 4) {
        j->kern->map(j->kind, 1, n, (const float *)(const void *)p[1], (float *)(void *)p[0], 0);
        return;
    }
    for (int64_t first = 0; first < n; first += MAP_BUFFER) {
        int64_t count = n - first < MAP_BUFFER ? n - first : MAP_BUFFER;
        for (int64_t i = 0; i < count; i++) {
            buffer[i] = F(1, first + i);
        }
        j->kern->map(j->kind, 1, count, buffer, buffer, 0);
        for (int64_t i = 0; i < count; i++) {
            F(0, first + i) = buffer[i];
        }
    }
}

gc_status gc_unary_map(gc_op_call *c, int32_t kind)
{
    const gc_tensor *ts[2] = {c->out[0], c->in[0]};
    map_job j = {gc_kern_of(c->ctx), kind, 0};
    return ts[0] == NULL ? GRADCAM_OK : gc_walk_tensors_on(c->ctx, 2, ts, map_run, &j);
}

/* A derivative in blocks that stay in the cache while the rule is applied and the
   sum is made. */
typedef struct finish {
    gc_walk_fn fn;
    void *user;
    gc_rule rule;
    bool add;
} finish;

enum { BLOCK = 1024 };

static void store(int64_t n, const float *dx, char *to, int64_t stride)
{
    if (stride == (int64_t)sizeof *dx) {
        memcpy(to, dx, (size_t)n * sizeof *dx);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        *(float *)(void *)(to + i * stride) = dx[i];
    }
}

static void finish_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    const finish *f = user;
    float dx[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t m = n - i < BLOCK ? n - i : BLOCK;
        char *q[3] = {(char *)dx, p[1] + i * s[1], p[2] + i * s[2]};
        const int64_t t[3] = {(int64_t)sizeof *dx, s[1], s[2]};
        f->fn(f->user, m, q, t);
        if (f->rule != GRADCAM_RULE_PLAIN) {
            gc_op_rule(f->rule, m, q[1], s[1], dx);
        }
        if (f->add) {
            gc_walk_add(m, dx, p[0] + i * s[0], s[0]);
        } else {
            store(m, dx, p[0] + i * s[0], s[0]);
        }
    }
}

gc_status gc_unary_backward(gc_op_call *c, gc_walk_fn fn, void *user, const gc_tensor *v)
{
    if (c->grad_in[0] == NULL) {
        return GRADCAM_OK;
    }
    if (c->grad_out[0] == NULL || c->in[0]->dtype != GRADCAM_F32) {
        gc_op_no_gradient(c, 0);
        return GRADCAM_OK;
    }
    const gc_tensor *ts[3] = {c->grad_in[0], c->grad_out[0], v};
    finish f = {fn, user, c->rule, (c->adds & 1u) != 0};
    bool bare = f.rule == GRADCAM_RULE_PLAIN && !f.add;
    return gc_walk_tensors_on(c->ctx, 3, ts, bare ? fn : finish_run, bare ? user : &f);
}

/* grad_in, grad_out, x: whole runs by the kernel, others through buffers. */
static void slope_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    const map_job *j = user;
    float x[MAP_BUFFER], g[MAP_BUFFER];
    if (s[0] == 4 && s[1] == 4 && s[2] == 4) {
        j->kern->slope(j->kind, n, (const float *)(const void *)p[2], (const float *)(const void *)p[1],
                       (float *)(void *)p[0]);
        return;
    }
    for (int64_t first = 0; first < n; first += MAP_BUFFER) {
        int64_t count = n - first < MAP_BUFFER ? n - first : MAP_BUFFER;
        for (int64_t i = 0; i < count; i++) {
            g[i] = F(1, first + i);
            x[i] = F(2, first + i);
        }
        j->kern->slope(j->kind, count, x, g, g);
        for (int64_t i = 0; i < count; i++) {
            F(0, first + i) = g[i];
        }
    }
}

gc_status gc_unary_slope(gc_op_call *c, int32_t kind)
{
    map_job j = {gc_kern_of(c->ctx), kind, 0};
    return gc_unary_backward(c, slope_run, &j, c->in[0]);
}

unary_run gc_unary_attrs(const gc_op_call *c, const char *name_a, float a, const char *name_b, float b)
{
    unary_run r;
    memset(&r, 0, sizeof r);
    r.a = gc_attr_float(&c->attrs, name_a, a);
    r.b = gc_attr_float(&c->attrs, name_b, b);
    return r;
}
/* ---- functions ---- */

#define STEP(name, code, f)                                                                                            \
    FORWARD_LOOP(name, f)                                                                                              \
    static gc_status name##_forward(gc_op_call *c)                                                                     \
    {                                                                                                                  \
        unary_run r;                                                                                                   \
        memset(&r, 0, sizeof r);                                                                                       \
        r.op = (code);                                                                                                 \
        return gc_unary_forward(c, name##_f, &r);                                                                      \
    }

MAPPED(exponential, GC_MAP_EXP, g *v)
SIMPLE(logarithm, in[0], logf(x), g / v)
SIMPLE(root, out[0], sqrtf(x), g * 0.5f / v)
UNARY(absolute, U_ABS, in[0], "", 0.0f, "", 0.0f, fabsf(x), v > 0.0f ? g : v < 0.0f ? -g : 0.0f * v)
UNARY(negate, U_NEG, grad_out[0], "", 0.0f, "", 0.0f, -x, -g)
KERNEL(erfun, GC_MAP_ERF)
SIMPLE(recip, out[0], 1.0f / x, -g *v *v)
SIMPLE(sine, in[0], sinf(x), g *cosf(v))
SIMPLE(cosine, in[0], cosf(x), -g *sinf(v))
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

/* Inputs after the first are settings, or lend their type. */
static gc_status copy_backward(gc_op_call *c)
{
    const gc_tensor *g = c->grad_out[0];
    bool flows = g != NULL && g->dtype == GRADCAM_F32 && c->in[0]->dtype == GRADCAM_F32;
    for (int32_t i = 0; i < c->n_in; i++) {
        if (c->grad_in[i] != NULL && i == 0 && flows) {
            gc_tensor_convert(g, c->grad_in[i]);
        } else if (c->grad_in[i] != NULL) {
            gc_walk_zero(c->grad_in[i]);
        }
    }
    return GRADCAM_OK;
}

static gc_status dropout_infer(gc_op_call *c)
{
    GC_TRY(gc_unary_infer_any(c));
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
    static const gc_dtype types[] = {0,           GRADCAM_F32, GRADCAM_U8,   0,           0,           0, GRADCAM_I32,
                                     GRADCAM_I64, 0,           GRADCAM_BOOL, GRADCAM_F32, GRADCAM_F32, 0, 0,
                                     0,           0,           GRADCAM_F32};
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

#define TEST(name, expr)                                                                                               \
    static void name##_f(void *user, int64_t n, char *const *p, const int64_t *s)                                      \
    {                                                                                                                  \
        const unary_run r = *(const unary_run *)user;                                                                  \
        (void)r;                                                                                                       \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const double x = gc_load_real(p[1] + i * s[1], r.from);                                                    \
            *(uint8_t *)(void *)(p[0] + i * s[0]) = (expr) ? 1 : 0;                                                    \
        }                                                                                                              \
    }                                                                                                                  \
    static gc_status name##_forward(gc_op_call *c)                                                                     \
    {                                                                                                                  \
        unary_run r;                                                                                                   \
        const gc_tensor *ts[2] = {c->out[0], c->in[0]};                                                                \
        memset(&r, 0, sizeof r);                                                                                       \
        r.from = c->in[0]->dtype;                                                                                      \
        r.low = gc_attr_int(&c->attrs, "detect_negative", 1);                                                          \
        r.high = gc_attr_int(&c->attrs, "detect_positive", 1);                                                         \
        if (ts[0] != NULL) {                                                                                           \
            gc_walk_tensors(2, ts, name##_f, &r);                                                                      \
        }                                                                                                              \
        return GRADCAM_OK;                                                                                             \
    }
TEST(is_nan, x != x)
TEST(is_inf, (x == HUGE_VAL && r.high != 0) || (x == -HUGE_VAL && r.low != 0))
TEST(not, x == 0.0)

#define NO_GRAD(op, id, kind)                                                                                          \
    {                                                                                                                  \
        op, kind, id##_forward, NULL, GC_OP_SAME | GC_OP_STOPS, 0, 0, 1, 1, 1                                          \
    }

const gc_op gc_ops_unary[] = {
    FROM_Y("Exp", exponential, gc_unary_infer_float, GC_OP_SAME),
    FROM_X("Log", logarithm, gc_unary_infer_float, GC_OP_SAME),
    FROM_Y("Sqrt", root, gc_unary_infer_float, GC_OP_SAME),
    FROM_X("Abs", absolute, gc_unary_infer_number, GC_OP_SAME),
    {"Neg", gc_unary_infer_number, negate_forward, negate_backward, GC_OP_SAME, 0, 0, 1, 1, 1},
    FROM_X("Erf", erfun, gc_unary_infer_float, GC_OP_SAME),
    FROM_Y("Reciprocal", recip, gc_unary_infer_float, GC_OP_SAME),
    FROM_X("Sin", sine, gc_unary_infer_float, GC_OP_SAME),
    FROM_X("Cos", cosine, gc_unary_infer_float, GC_OP_SAME),
    FROM_Y("Tan", tangent, gc_unary_infer_float, GC_OP_SAME),
    FROM_X("Asin", arcsin, gc_unary_infer_float, GC_OP_SAME),
    FROM_X("Acos", arccos, gc_unary_infer_float, GC_OP_SAME),
    FROM_X("Atan", arctan, gc_unary_infer_float, GC_OP_SAME),
    FROM_X("Sinh", hsine, gc_unary_infer_float, GC_OP_SAME),
    FROM_X("Cosh", hcosine, gc_unary_infer_float, GC_OP_SAME),
    FROM_X("Asinh", arsinh, gc_unary_infer_float, GC_OP_SAME),
    FROM_X("Acosh", arcosh, gc_unary_infer_float, GC_OP_SAME),
    FROM_X("Atanh", artanh, gc_unary_infer_float, GC_OP_SAME),
    NO_GRAD("Floor", floors, gc_unary_infer_float),
    NO_GRAD("Ceil", ceils, gc_unary_infer_float),
    NO_GRAD("Round", rounds, gc_unary_infer_float),
    NO_GRAD("Sign", signs, gc_unary_infer_number),
    NO_GRAD("IsNaN", is_nan, infer_test),
    NO_GRAD("IsInf", is_inf, infer_test),
    NO_GRAD("Not", not, infer_test),
    {"Identity", gc_unary_infer_any, copy_forward, copy_backward, GC_OP_SAME, 0, 0, 1, 1, 1},
    {"Dropout", dropout_infer, dropout_forward, copy_backward, GC_OP_SAME, 0, 0, 1, 3, 2},
    {"Cast", cast_infer, cast_forward, copy_backward, GC_OP_SAME, 0, 0, 1, 1, 1},
    {"CastLike", cast_like_infer, cast_forward, copy_backward, GC_OP_SAME, 0, 0, 2, 2, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
