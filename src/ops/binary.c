/* SPDX-License-Identifier: MIT */
/* Arithmetic of two or more operands with broadcasting. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "tensor/walk.h"
#include "ops/op.h"

enum { B_ADD, B_SUB, B_MUL, B_DIV, B_POW, B_MAX, B_MIN, B_SUM, B_MEAN, B_MOD, B_FMOD };

typedef struct binary_run {
    int32_t op;
    int32_t failed; /* an integer was divided by zero */
    gc_dtype type_a;
    gc_dtype type_b;
    float scale;
} binary_run;

#define F(k, i) (*(float *)(void *)(p[k] + (i)*s[k]))
#define D(k, i) (*(double *)(void *)(p[k] + (i)*s[k]))

/* out, a, b: the three layouts that matter get loops that vectorise. */
#define BINARY_LOOP(name, expr)                                                                                        \
    static void name(void *user, int64_t n, char *const *p, const int64_t *s)                                          \
    {                                                                                                                  \
        const float *x = (const float *)(const void *)p[1];                                                            \
        const float *z = (const float *)(const void *)p[2];                                                            \
        float *y = (float *)(void *)p[0];                                                                              \
        (void)user;                                                                                                    \
        if (s[0] == 4 && s[1] == 4 && s[2] == 4) {                                                                     \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                const float a = x[i], b = z[i];                                                                        \
                y[i] = (expr);                                                                                         \
            }                                                                                                          \
        } else if (s[0] == 4 && s[1] == 4 && s[2] == 0) {                                                              \
            const float b = *z;                                                                                        \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                const float a = x[i];                                                                                  \
                y[i] = (expr);                                                                                         \
            }                                                                                                          \
        } else if (s[0] == 4 && s[1] == 0 && s[2] == 4) {                                                              \
            const float a = *x;                                                                                        \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                const float b = z[i];                                                                                  \
                y[i] = (expr);                                                                                         \
            }                                                                                                          \
        } else {                                                                                                       \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                const float a = F(1, i), b = F(2, i);                                                                  \
                F(0, i) = (expr);                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }

/* numpy's remainder: the sign follows the divisor. */
static float floor_mod(float a, float b)
{
    float r = fmodf(a, b);
    return r != 0.0f && (r < 0.0f) != (b < 0.0f) ? r + b : r;
}

BINARY_LOOP(add_run, a + b)
BINARY_LOOP(sub_run, a - b)
BINARY_LOOP(mul_run, a *b)
BINARY_LOOP(div_run, a / b)
/* NaN wins, as in numpy and PyTorch. */
BINARY_LOOP(max_run, a > b || a != a ? a : b)
BINARY_LOOP(min_run, a < b || a != a ? a : b)
BINARY_LOOP(mod_run, floor_mod(a, b))
BINARY_LOOP(fmod_run, fmodf(a, b))

static void pow_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    const binary_run *r = user;
    double e = gc_load_real(p[2], r->type_b);
    if (s[2] == 0 && e == 2.0) { /* squares are most of what networks raise */
        for (int64_t i = 0; i < n; i++) {
            F(0, i) = F(1, i) * F(1, i);
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        F(0, i) = (float)pow((double)F(1, i), gc_load_real(p[2] + i * s[2], r->type_b));
    }
}

/* ---- integers ---- */

static int64_t wrap_add(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

static int64_t int_quotient(binary_run *r, int64_t a, int64_t b)
{
    if (b == 0) {
        r->failed = 1;
        return 0;
    }
    return b == -1 ? (int64_t)(0u - (uint64_t)a) : a / b; /* INT64_MIN / -1 would trap */
}

static int64_t int_remainder(binary_run *r, int64_t a, int64_t b)
{
    if (b == 0) {
        r->failed = 1;
        return 0;
    }
    int64_t m = b == -1 ? 0 : a % b;
    return r->op == B_MOD && m != 0 && (m < 0) != (b < 0) ? m + b : m;
}

static int64_t real_to_int(double v)
{
    if (!(v > -9223372036854775808.0)) {
        return v == v ? INT64_MIN : 0;
    }
    return v >= 9223372036854775808.0 ? INT64_MAX : (int64_t)v;
}

static int64_t int_pow(int64_t a, int64_t e)
{
    uint64_t base = (uint64_t)a;
    uint64_t y = 1;
    if (e < 0) {
        return a == 1 ? 1 : a == -1 ? (e % 2 != 0 ? -1 : 1) : 0;
    }
    for (; e > 0; e >>= 1) {
        y *= (e & 1) != 0 ? base : 1u;
        base *= base;
    }
    return (int64_t)y;
}

static int64_t int_apply(binary_run *r, int64_t a, int64_t b)
{
    switch (r->op) {
    case B_ADD:
    case B_SUM:
    case B_MEAN: return wrap_add(a, b);
    case B_SUB: return (int64_t)((uint64_t)a - (uint64_t)b);
    case B_MUL: return (int64_t)((uint64_t)a * (uint64_t)b);
    case B_DIV: return int_quotient(r, a, b);
    case B_POW: return int_pow(a, b);
    case B_MAX: return a > b ? a : b;
    case B_MIN: return a < b ? a : b;
    default: return int_remainder(r, a, b);
    }
}

static void int_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    binary_run *r = user;
    for (int64_t i = 0; i < n; i++) {
        int64_t a = gc_load_int(p[1] + i * s[1], r->type_a);
        int64_t y;
        if (r->op == B_POW && r->type_b == GRADCAM_F32) {
            y = real_to_int(pow((double)a, (double)F(2, i)));
        } else {
            y = int_apply(r, a, gc_load_int(p[2] + i * s[2], r->type_b));
        }
        gc_store_int(p[0] + i * s[0], r->type_a, y);
    }
}

/* ---- shapes ---- */

/* Where dimension 0 of input i falls: opset 6 gives an axis for the second. */
static int32_t lead_of(const gc_op_call *c, int32_t i, int32_t ndim)
{
    int32_t lead = ndim - c->in[i]->ndim;
    if (i == 1 && c->opset < 7 && gc_attr_int(&c->attrs, "broadcast", 0) != 0) {
        int64_t axis = gc_attr_int(&c->attrs, "axis", lead);
        axis = axis < 0 ? axis + ndim : axis;
        return axis >= 0 && axis <= lead ? (int32_t)axis : lead;
    }
    return lead;
}

static gc_status legacy_shape(gc_op_call *c)
{
    const gc_tensor *a = c->in[0];
    const gc_tensor *b = c->in[1];
    int32_t lead = lead_of(c, 1, a->ndim);
    if (lead < 0) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the second input has more dimensions than the first");
    }
    for (int32_t d = 0; d < b->ndim; d++) {
        if (b->shape[d] != a->shape[d + lead] && b->shape[d] != 1) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "the second input does not fit into the first at axis %d", (int)lead);
        }
    }
    return GRADCAM_OK;
}

static gc_status out_shape(gc_op_call *c, int32_t *ndim, int64_t *shape)
{
    GC_TRY(gc_op_need(c, 0));
    *ndim = c->in[0]->ndim;
    memcpy(shape, c->in[0]->shape, sizeof c->in[0]->shape);
    if (c->n_in == 2 && c->opset < 7 && gc_attr_int(&c->attrs, "broadcast", 0) != 0) {
        GC_TRY(gc_op_need(c, 1));
        return legacy_shape(c);
    }
    for (int32_t i = 1; i < c->n_in; i++) {
        int64_t old[GRADCAM_MAX_DIMS];
        int32_t old_ndim = *ndim;
        GC_TRY(gc_op_need(c, i));
        memcpy(old, shape, sizeof old);
        GC_TRY(gc_op_broadcast(c, old_ndim, old, c->in[i]->ndim, c->in[i]->shape, ndim, shape));
    }
    return GRADCAM_OK;
}

static gc_status check_types(gc_op_call *c, bool mixed)
{
    for (int32_t i = 0; i < c->n_in; i++) {
        gc_dtype t = c->in[i]->dtype;
        if (t == GRADCAM_BOOL || (t != c->in[0]->dtype && !mixed)) {
            return gc_op_fail(c, GRADCAM_E_DTYPE, "input %d has a type that does not fit", (int)i);
        }
    }
    return GRADCAM_OK;
}

/* Room for the sums of the largest input that repeats and, for Max and Min,
   for the number of ties of each element of the output. */
static gc_status infer_binary(gc_op_call *c, bool mixed, bool ties)
{
    int32_t ndim = 0;
    int64_t shape[GRADCAM_MAX_DIMS] = {0};
    GC_TRY(out_shape(c, &ndim, shape));
    GC_TRY(check_types(c, mixed));
    GC_TRY(gc_op_set_output(c, 0, c->in[0]->dtype, ndim, shape));
    int64_t total = gc_shape_numel(ndim, shape);
    int64_t most = 0;
    for (int32_t i = 0; i < c->n_in; i++) {
        int64_t count = gc_shape_numel(c->in[i]->ndim, c->in[i]->shape);
        most = count != total && count > most ? count : most;
    }
    int64_t bytes = 0;
    int64_t extra = 0;
    if (total < 0 || !gc_mul_ok(most, 8, &bytes) || !gc_mul_ok(ties ? total : 0, 4, &extra) ||
        !gc_add_ok(bytes, extra, &bytes)) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "the tensors are too large");
    }
    c->work_bytes = (size_t)bytes;
    return GRADCAM_OK;
}

static gc_status infer_same(gc_op_call *c)
{
    return infer_binary(c, false, false);
}

static gc_status infer_pow(gc_op_call *c)
{
    return infer_binary(c, true, false);
}

static gc_status infer_extremum(gc_op_call *c)
{
    return infer_binary(c, false, true);
}

/* ---- forward ---- */

static gc_status apply(gc_op_call *c, const gc_tensor *a, int32_t lead_a, int32_t i, gc_walk_fn fn, binary_run *r)
{
    const gc_tensor *y = c->out[0];
    gc_walk_operand ops[3];
    r->type_a = a->dtype;
    r->type_b = c->in[i]->dtype;
    gc_walk_bind(&ops[0], y, y->ndim, 0);
    gc_walk_bind(&ops[1], a, y->ndim, lead_a);
    gc_walk_bind(&ops[2], c->in[i], y->ndim, lead_of(c, i, y->ndim));
    return gc_walk_on(c->ctx, y->ndim, y->shape, 3, ops, y->dtype == GRADCAM_F32 ? fn : int_run, r);
}

static gc_status forward_op(gc_op_call *c, int32_t op, gc_walk_fn fn)
{
    binary_run r = {0};
    r.op = op;
    if (c->out[0] == NULL) {
        return GRADCAM_OK;
    }
    GC_TRY(apply(c, c->in[0], lead_of(c, 0, c->out[0]->ndim), 1, fn, &r));
    for (int32_t i = 2; i < c->n_in; i++) {
        GC_TRY(apply(c, c->out[0], 0, i, fn, &r));
    }
    return r.failed ? gc_op_fail(c, GRADCAM_E_INVALID, "an integer is divided by zero") : GRADCAM_OK;
}

static void scale_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    const binary_run *r = user;
    for (int64_t i = 0; i < n; i++) {
        F(0, i) *= r->scale;
    }
}

/* One input only: a copy. */
static gc_status forward_many(gc_op_call *c, int32_t op, gc_walk_fn fn)
{
    if (c->n_in == 1) {
        if (c->out[0] != NULL) {
            gc_tensor_convert(c->in[0], c->out[0]);
        }
        return GRADCAM_OK;
    }
    return forward_op(c, op, fn);
}

#define FORWARD(name, kind, how, fn)                                                                                   \
    static gc_status name(gc_op_call *c)                                                                               \
    {                                                                                                                  \
        return how(c, kind, fn);                                                                                       \
    }
FORWARD(add_forward, B_ADD, forward_op, add_run)
FORWARD(sub_forward, B_SUB, forward_op, sub_run)
FORWARD(mul_forward, B_MUL, forward_op, mul_run)
FORWARD(div_forward, B_DIV, forward_op, div_run)
FORWARD(pow_forward, B_POW, forward_op, pow_run)
FORWARD(max_forward, B_MAX, forward_many, max_run)
FORWARD(min_forward, B_MIN, forward_many, min_run)
FORWARD(sum_forward, B_SUM, forward_many, add_run)

static gc_status mean_forward(gc_op_call *c)
{
    const gc_tensor *ts[1];
    binary_run r = {0};
    GC_TRY(forward_many(c, B_MEAN, add_run));
    ts[0] = c->out[0];
    if (ts[0] != NULL && ts[0]->dtype == GRADCAM_F32) {
        r.scale = 1.0f / (float)c->n_in;
        gc_walk_tensors(1, ts, scale_run, &r);
    }
    return GRADCAM_OK;
}

static gc_status mod_forward(gc_op_call *c)
{
    bool truncates = gc_attr_int(&c->attrs, "fmod", 0) != 0;
    return truncates ? forward_op(c, B_FMOD, fmod_run) : forward_op(c, B_MOD, mod_run);
}

/* ---- backward ---- */

/* Every stride is that of neighbours, so that a loop over constants vectorises. */
static const int64_t neighbours[GC_WALK_MAX] = {4, 4, 4, 4, 4, 4}, sums_of_neighbours[GC_WALK_MAX] = {4, 8, 4, 4, 4, 4};

static bool strides_are(const int64_t *s, const int64_t *these, int32_t n)
{
    return memcmp(s, these, (size_t)n * sizeof *s) == 0;
}

/* Loops of a gradient: operands g, target, then `reads` tensors a, b and so on. */
#define GRAD_LOOP(name, reads, load, term)                                                                             \
    static inline void name##_each(const binary_run *r, int64_t n, char *const *p, const int64_t *s)                   \
    {                                                                                                                  \
        (void)r;                                                                                                       \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const float g = F(0, i);                                                                                   \
            load;                                                                                                      \
            F(1, i) = (term);                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    static void name##_set(void *user, int64_t n, char *const *p, const int64_t *s)                                    \
    {                                                                                                                  \
        if (strides_are(s, neighbours, 2 + (reads))) {                                                                 \
            name##_each(user, n, p, neighbours);                                                                       \
        } else {                                                                                                       \
            name##_each(user, n, p, s);                                                                                \
        }                                                                                                              \
    }                                                                                                                  \
    static inline void name##_sums(const binary_run *r, int64_t n, char *const *p, const int64_t *s)                   \
    {                                                                                                                  \
        (void)r;                                                                                                       \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const float g = F(0, i);                                                                                   \
            load;                                                                                                      \
            D(1, i) += (double)(term);                                                                                 \
        }                                                                                                              \
    }                                                                                                                  \
    static void name##_acc(void *user, int64_t n, char *const *p, const int64_t *s)                                    \
    {                                                                                                                  \
        const binary_run *r = user;                                                                                    \
        double sum = 0.0;                                                                                              \
        (void)r;                                                                                                       \
        if (strides_are(s, sums_of_neighbours, 2 + (reads))) {                                                         \
            name##_sums(r, n, p, sums_of_neighbours);                                                                  \
            return;                                                                                                    \
        }                                                                                                              \
        if (s[1] != 0) {                                                                                               \
            name##_sums(r, n, p, s);                                                                                   \
            return;                                                                                                    \
        }                                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const float g = F(0, i);                                                                                   \
            load;                                                                                                      \
            sum += (double)(term);                                                                                     \
        }                                                                                                              \
        D(1, 0) += sum;                                                                                                \
    }

#define LOAD_ONE const float a = F(2, i)
#define LOAD_TWO const float a = F(2, i), b = F(3, i)

/* The power rule without 0 * inf: a constant has derivative zero. */
static float pow_base(float g, float a, double e)
{
    return e == 0.0 ? 0.0f : (float)((double)g * e * pow((double)a, e - 1.0));
}

static float pow_exponent(float g, float a, float b)
{
    if (a == 0.0f && b >= 0.0f) {
        return 0.0f;
    }
    return (float)((double)g * pow((double)a, (double)b) * log((double)a));
}

GRAD_LOOP(scaled, 0, (void)0, g * r->scale)
GRAD_LOOP(times, 1, LOAD_ONE, g *a)
GRAD_LOOP(over, 1, LOAD_ONE, g / a)
GRAD_LOOP(divisor, 2, LOAD_TWO, -g *(a / b) / b)
GRAD_LOOP(base, 2, const float a = F(2, i), pow_base(g, a, gc_load_real(p[3] + i * s[3], r->type_b)))
GRAD_LOOP(exponent, 2, LOAD_TWO, pow_exponent(g, a, b))
GRAD_LOOP(mod_b, 2, LOAD_TWO, -g *(r->op == B_FMOD ? truncf(a / b) : floorf(a / b)))
GRAD_LOOP(tied, 3, const float a = F(2, i), a == F(3, i) ? g / F(4, i) : 0.0f)

static bool adds_to(const gc_op_call *c, int32_t i)
{
    return i < 32 && (c->adds >> i & 1u) != 0;
}

/* Gradient of input i by a pair of loops over in[x] and in[z] (-1: not read). */
static gc_status gradient(gc_op_call *c, int32_t i, gc_walk_fn set, gc_walk_fn acc, binary_run *r, int32_t x, int32_t z)
{
    const gc_tensor *g = c->grad_out[0];
    gc_walk_grad w = {0};
    if (c->grad_in[i] == NULL) {
        return GRADCAM_OK;
    }
    if (g == NULL || g->dtype != GRADCAM_F32 || c->in[i]->dtype != GRADCAM_F32) {
        gc_op_no_gradient(c, i);
        return GRADCAM_OK;
    }
    w.set = set;
    w.acc = acc;
    w.user = r;
    w.work = c->work;
    w.ctx = c->ctx;
    w.add = adds_to(c, i);
    int32_t reads[2] = {x, z};
    for (int32_t k = 0; k < 2 && reads[k] >= 0; k++) {
        w.ts[w.n] = c->in[reads[k]];
        w.leads[w.n++] = lead_of(c, reads[k], g->ndim);
    }
    return gc_walk_gradient(&w, g, c->grad_in[i], lead_of(c, i, g->ndim));
}

static gc_status linear(gc_op_call *c, int32_t i, float scale)
{
    binary_run r = {0};
    r.scale = scale;
    return gradient(c, i, scaled_set, scaled_acc, &r, -1, -1);
}

static gc_status sum_backward(gc_op_call *c)
{
    for (int32_t i = 0; i < c->n_in; i++) {
        GC_TRY(linear(c, i, 1.0f));
    }
    return GRADCAM_OK;
}

static gc_status mean_backward(gc_op_call *c)
{
    for (int32_t i = 0; i < c->n_in; i++) {
        GC_TRY(linear(c, i, 1.0f / (float)c->n_in));
    }
    return GRADCAM_OK;
}

static gc_status sub_backward(gc_op_call *c)
{
    GC_TRY(linear(c, 0, 1.0f));
    GC_TRY(linear(c, 1, -1.0f));
    return GRADCAM_OK;
}

static gc_status mul_backward(gc_op_call *c)
{
    GC_TRY(gradient(c, 0, times_set, times_acc, NULL, 1, -1));
    GC_TRY(gradient(c, 1, times_set, times_acc, NULL, 0, -1));
    return GRADCAM_OK;
}

static gc_status div_backward(gc_op_call *c)
{
    GC_TRY(gradient(c, 0, over_set, over_acc, NULL, 1, -1));
    GC_TRY(gradient(c, 1, divisor_set, divisor_acc, NULL, 0, 1));
    return GRADCAM_OK;
}

static gc_status pow_backward(gc_op_call *c)
{
    binary_run r = {0};
    r.type_b = c->in[1]->dtype;
    GC_TRY(gradient(c, 0, base_set, base_acc, &r, 0, 1));
    GC_TRY(gradient(c, 1, exponent_set, exponent_acc, &r, 0, 1));
    return GRADCAM_OK;
}

static gc_status mod_backward(gc_op_call *c)
{
    binary_run r = {0};
    r.op = gc_attr_int(&c->attrs, "fmod", 0) != 0 ? B_FMOD : B_MOD;
    GC_TRY(linear(c, 0, 1.0f));
    GC_TRY(gradient(c, 1, mod_b_set, mod_b_acc, &r, 0, 1));
    return GRADCAM_OK;
}

static void tie_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    (void)user;
    for (int64_t i = 0; i < n; i++) {
        F(0, i) += F(1, i) == F(2, i) ? 1.0f : 0.0f;
    }
}

/* Counts for every element of the output how many inputs attain it. */
static gc_tensor count_ties(gc_op_call *c)
{
    gc_tensor ties = *c->out[0];
    int64_t bytes = 4 * gc_numel(&ties);
    ties.data = (char *)c->work + (c->work_bytes - (size_t)bytes);
    gc_row_strides(ties.ndim, ties.shape, ties.strides);
    gc_walk_zero(&ties);
    for (int32_t k = 0; k < c->n_in; k++) {
        const gc_tensor *ts[3] = {&ties, c->in[k], c->out[0]};
        gc_walk_tensors(3, ts, tie_run, NULL);
    }
    return ties;
}

static gc_status extremum_backward(gc_op_call *c)
{
    const gc_tensor *g = c->grad_out[0];
    bool real = g != NULL && c->out[0] != NULL && c->out[0]->dtype == GRADCAM_F32;
    gc_tensor ties;
    memset(&ties, 0, sizeof ties);
    if (real) {
        ties = count_ties(c);
    }
    for (int32_t i = 0; i < c->n_in; i++) {
        gc_walk_grad w = {tied_set, tied_acc, NULL,         c->work, 3, {c->in[i], c->out[0], &ties, NULL},
                          {0},      c->ctx,   adds_to(c, i)};
        if (!real) {
            gc_op_no_gradient(c, i);
        } else if (c->grad_in[i] != NULL) {
            w.leads[0] = g->ndim - c->in[i]->ndim;
            GC_TRY(gc_walk_gradient(&w, g, c->grad_in[i], w.leads[0]));
        }
    }
    return GRADCAM_OK;
}

#define ALL_INPUTS UINT32_C(0xFFFFFFFF)
#define B_FLAGS (GC_OP_SAME | GC_OP_FINISHES)

const gc_op gc_ops_binary[] = {
    {"Add", infer_same, add_forward, sum_backward, B_FLAGS, 0, 0, 2, 2, 1},
    {"Sub", infer_same, sub_forward, sub_backward, B_FLAGS, 0, 0, 2, 2, 1},
    {"Mul", infer_same, mul_forward, mul_backward, B_FLAGS, 3, 0, 2, 2, 1},
    {"Div", infer_same, div_forward, div_backward, B_FLAGS, 3, 0, 2, 2, 1},
    {"Pow", infer_pow, pow_forward, pow_backward, B_FLAGS, 3, 0, 2, 2, 1},
    {"Mod", infer_same, mod_forward, mod_backward, B_FLAGS, 3, 0, 2, 2, 1},
    {"Max", infer_extremum, max_forward, extremum_backward, B_FLAGS, ALL_INPUTS, 1, 1, -1, 1},
    {"Min", infer_extremum, min_forward, extremum_backward, B_FLAGS, ALL_INPUTS, 1, 1, -1, 1},
    {"Sum", infer_same, sum_forward, sum_backward, B_FLAGS, 0, 0, 1, -1, 1},
    {"Mean", infer_same, mean_forward, mean_backward, B_FLAGS, 0, 0, 1, -1, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
