/* SPDX-License-Identifier: MIT */
/* LinearAttention: a state S [key, value] for each head that each token decays
 * and writes to, and that queries read.  For the key k, value v, D = exp(decay) S:
 *   u = v (linear, gated) or beta (v - D^T k) (delta, gated_delta)
 *   S' = D + k u^T, output = scale q^T S'
 * Columns of the state (one value dimension) do not depend on each other.
 * Several query heads may read one state.  Row-major; one task for each batch. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "ops/op.h"

enum { QUERY, KEY, VALUE, PAST, DECAY, BETA, N_IN };

typedef struct attn {
    int64_t batches, times, q_heads, heads, dk, dv; /* heads: of keys and values */
    int64_t n_decay, n_beta;                        /* in the last dimension; 0: absent */
    bool delta;
    float scale;
    const float *in[N_IN];
    float *grad[N_IN];
    float *y, *present;
    const float *dy, *dpresent;
    float *states; /* [batch, head, time, dk, dv], after each token */
    double *ds;    /* [batch, dk] */
} attn;

static const gc_tensor *input(const gc_op_call *c, int32_t i)
{
    return i < c->n_in ? c->in[i] : NULL;
}

/* Present, float and [batch, time, n]; n to *last. */
static gc_status packed(gc_op_call *c, const attn *a, int32_t i, int64_t *last)
{
    const gc_tensor *t = input(c, i);
    if (t == NULL || t->dtype != GRADCAM_F32 || t->ndim != 3 || t->shape[0] != a->batches || t->shape[1] != a->times) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "input %d must be float [batch, time, n] for this update_rule", (int)i);
    }
    *last = t->shape[2];
    return GRADCAM_OK;
}

static gc_status read_rule(gc_op_call *c, attn *a, bool *gated)
{
    const char *rule = gc_attr_string(&c->attrs, "update_rule", "gated_delta");
    *gated = strncmp(rule, "gated", 5) == 0;
    a->delta = strcmp(rule, "delta") == 0 || strcmp(rule, "gated_delta") == 0;
    if (!a->delta && strcmp(rule, "gated") != 0 && strcmp(rule, "linear") != 0) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "unknown update_rule '%.40s'", rule);
    }
    return GRADCAM_OK;
}

static gc_status read_heads(gc_op_call *c, attn *a)
{
    int64_t q = 0, k = 0, v = 0;
    GC_TRY(packed(c, a, QUERY, &q));
    GC_TRY(packed(c, a, KEY, &k));
    GC_TRY(packed(c, a, VALUE, &v));
    a->q_heads = gc_attr_int(&c->attrs, "q_num_heads", 0);
    a->heads = gc_attr_int(&c->attrs, "kv_num_heads", 0);
    if (a->heads < 1 || a->q_heads < 1 || a->q_heads % a->heads != 0 || q % a->q_heads != 0 || k % a->heads != 0 ||
        v % a->heads != 0 || q / a->q_heads != k / a->heads || q < 1) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "q_num_heads and kv_num_heads do not divide the inputs alike");
    }
    a->dk = k / a->heads;
    a->dv = v / a->heads;
    float scale = gc_attr_float(&c->attrs, "scale", 0.0f);
    a->scale = scale != 0.0f ? scale : (float)(1.0 / sqrt((double)a->dk));
    return GRADCAM_OK;
}

static gc_status read_gates(gc_op_call *c, attn *a, bool gated)
{
    const gc_tensor *past = input(c, PAST);
    if (gated) {
        GC_TRY(packed(c, a, DECAY, &a->n_decay));
    }
    if (a->delta) {
        GC_TRY(packed(c, a, BETA, &a->n_beta));
    }
    if ((gated && a->n_decay != a->heads && a->n_decay != a->heads * a->dk) ||
        (a->delta && a->n_beta != a->heads && a->n_beta != 1)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "decay and beta must have one value for each head");
    }
    if (past != NULL && (past->dtype != GRADCAM_F32 || past->ndim != 4 || past->shape[0] != a->batches ||
                         past->shape[1] != a->heads || past->shape[2] != a->dk || past->shape[3] != a->dv)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the past state must be float [batch, heads, key, value]");
    }
    return GRADCAM_OK;
}

static gc_status setup(gc_op_call *c, attn *a)
{
    bool gated = false;
    memset(a, 0, sizeof *a);
    GC_TRY(gc_op_need(c, QUERY));
    const gc_tensor *q = c->in[QUERY];
    if (q->ndim != 3) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the query must be float [batch, time, n]");
    }
    a->batches = q->shape[0];
    a->times = q->shape[1];
    GC_TRY(read_rule(c, a, &gated));
    GC_TRY(read_heads(c, a));
    GC_TRY(read_gates(c, a, gated));
    if (a->batches > INT32_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too many batches");
    }
    for (int32_t i = 0; i < N_IN; i++) {
        a->in[i] = input(c, i) != NULL ? c->in[i]->data : NULL;
    }
    return GRADCAM_OK;
}

static gc_status infer(gc_op_call *c)
{
    attn a;
    int64_t states = (int64_t)sizeof(float), ds = (int64_t)sizeof(double);
    GC_TRY(setup(c, &a));
    int64_t state[4] = {a.batches, a.heads, a.dk, a.dv}, out[3] = {a.batches, a.times, 0};
    bool fits = gc_mul_ok(a.q_heads, a.dv, &out[2]) && gc_mul_ok(ds, a.batches, &ds) && gc_mul_ok(ds, a.dk, &ds) &&
                gc_mul_ok(states, a.times, &states);
    for (int i = 0; fits && i < 4; i++) {
        fits = gc_mul_ok(states, state[i], &states);
    }
    if (!fits || (uint64_t)states > SIZE_MAX || (uint64_t)ds > SIZE_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    c->aux_bytes = (size_t)states;
    c->work_bytes = (size_t)ds;
    GC_TRY(gc_op_set_output(c, 0, GRADCAM_F32, 3, out));
    return gc_op_set_output(c, 1, GRADCAM_F32, 4, state);
}

/* One column of the state of one head at one token. */
typedef struct place {
    int64_t q, k, v, past, decay, beta; /* where its inputs begin */
    int64_t decay_step;                 /* 0: one decay for all of the key */
    const float *before;                /* the state before, NULL: zero */
    float *after;
} place;

static place find(const attn *a, int64_t b, int64_t h, int64_t t, int64_t v)
{
    place p;
    int64_t row = b * a->times + t, size = a->dk * a->dv, head = b * a->heads + h;
    int64_t per_head = a->n_decay / a->heads;
    p.q = (row * a->q_heads + h * (a->q_heads / a->heads)) * a->dk;
    p.k = (row * a->heads + h) * a->dk;
    p.v = (row * a->heads + h) * a->dv + v;
    p.past = head * size + v;
    p.decay = row * a->n_decay + h * per_head;
    p.decay_step = per_head == a->dk && per_head > 1 ? 1 : 0;
    p.beta = row * a->n_beta + (a->n_beta > 1 ? h : 0);
    p.after = a->states + (head * a->times + t) * size + v;
    p.before = t > 0 ? p.after - size : a->in[PAST] != NULL ? a->in[PAST] + p.past : NULL;
    return p;
}

static double decay(const attn *a, const place *p, int64_t k)
{
    return a->n_decay > 0 ? exp((double)a->in[DECAY][p->decay + k * p->decay_step]) : 1.0;
}

static double decayed(const attn *a, const place *p, int64_t k)
{
    return p->before != NULL ? decay(a, p, k) * (double)p->before[k * a->dv] : 0.0;
}

/* What the token finds under its key: v - D^T k; just v without the delta rule. */
static double surprise(const attn *a, const place *p)
{
    double s = (double)a->in[VALUE][p->v];
    for (int64_t k = 0; a->delta && k < a->dk; k++) {
        s -= decayed(a, p, k) * (double)a->in[KEY][p->k + k];
    }
    return s;
}

static double beta(const attn *a, const place *p)
{
    return a->delta ? (double)a->in[BETA][p->beta] : 1.0;
}

static void write_state(const attn *a, const place *p)
{
    double u = beta(a, p) * surprise(a, p);
    for (int64_t k = 0; k < a->dk; k++) {
        p->after[k * a->dv] = (float)(decayed(a, p, k) + (double)a->in[KEY][p->k + k] * u);
    }
}

/* Where query head g of the group writes. */
static int64_t output_at(const attn *a, const place *p, int64_t g, int64_t v)
{
    return (p->q / a->dk + g) * a->dv + v;
}

static void read_state(const attn *a, const place *p, int64_t v)
{
    for (int64_t g = 0; g < a->q_heads / a->heads; g++) {
        double sum = 0.0;
        for (int64_t k = 0; k < a->dk; k++) {
            sum += (double)a->in[QUERY][p->q + g * a->dk + k] * (double)p->after[k * a->dv];
        }
        a->y[output_at(a, p, g, v)] = (float)((double)a->scale * sum);
    }
}

static void forward_task(void *task, uint32_t b)
{
    const attn *a = task;
    for (int64_t i = 0; i < a->heads * a->dv; i++) {
        int64_t h = i / a->dv, v = i % a->dv;
        for (int64_t t = 0; t < a->times; t++) {
            place p = find(a, b, h, t, v);
            write_state(a, &p);
            if (a->y != NULL) {
                read_state(a, &p, v);
            }
        }
        place last = find(a, b, h, a->times, v);
        for (int64_t k = 0; a->present != NULL && k < a->dk; k++) {
            a->present[last.past + k * a->dv] = last.before != NULL ? last.before[k * a->dv] : 0.0f;
        }
    }
}

static gc_status forward(gc_op_call *c)
{
    attn a;
    GC_TRY(setup(c, &a));
    a.y = c->out[0] != NULL ? c->out[0]->data : NULL;
    a.present = c->n_out > 1 && c->out[1] != NULL ? c->out[1]->data : NULL;
    a.states = c->aux;
    return gc_parallel(c->ctx, forward_task, &a, (uint32_t)a.batches);
}

static void add(const attn *a, int32_t which, int64_t at, double g)
{
    if (a->grad[which] != NULL) {
        a->grad[which][at] += (float)g;
    }
}

/* ds: of the column after the token, then of that before it. */
static void token_gradient(const attn *a, const place *p, int64_t v, double *ds)
{
    double s = surprise(a, p), rate = beta(a, p), du = 0.0;
    for (int64_t g = 0; a->dy != NULL && g < a->q_heads / a->heads; g++) {
        double dy = (double)a->scale * (double)a->dy[output_at(a, p, g, v)];
        for (int64_t k = 0; k < a->dk; k++) {
            ds[k] += dy * (double)a->in[QUERY][p->q + g * a->dk + k];
            add(a, QUERY, p->q + g * a->dk + k, dy * (double)p->after[k * a->dv]);
        }
    }
    for (int64_t k = 0; k < a->dk; k++) {
        du += ds[k] * (double)a->in[KEY][p->k + k];
    }
    add(a, VALUE, p->v, rate * du);
    add(a, BETA, p->beta, s * du);
    for (int64_t k = 0; k < a->dk; k++) {
        double d = decayed(a, p, k), missed = a->delta ? rate * du : 0.0;
        add(a, KEY, p->k + k, ds[k] * rate * s - missed * d);
        ds[k] -= missed * (double)a->in[KEY][p->k + k];
        add(a, DECAY, p->decay + k * p->decay_step, ds[k] * d);
        ds[k] *= decay(a, p, k);
    }
}

static void backward_task(void *task, uint32_t b)
{
    const attn *a = task;
    double *ds = a->ds + (int64_t)b * a->dk;
    for (int64_t i = 0; i < a->heads * a->dv; i++) {
        int64_t h = i / a->dv, v = i % a->dv;
        place p = find(a, b, h, 0, v);
        for (int64_t k = 0; k < a->dk; k++) {
            ds[k] = a->dpresent != NULL ? (double)a->dpresent[p.past + k * a->dv] : 0.0;
        }
        for (int64_t t = a->times - 1; t >= 0; t--) {
            p = find(a, b, h, t, v);
            token_gradient(a, &p, v, ds);
        }
        for (int64_t k = 0; k < a->dk; k++) {
            add(a, PAST, p.past + k * a->dv, ds[k]);
        }
    }
}

static gc_status backward(gc_op_call *c)
{
    attn a;
    GC_TRY(setup(c, &a));
    a.dy = c->grad_out[0] != NULL ? c->grad_out[0]->data : NULL;
    a.dpresent = c->n_out > 1 && c->grad_out[1] != NULL ? c->grad_out[1]->data : NULL;
    a.states = c->aux;
    a.ds = c->work;
    for (int32_t i = 0; i < c->n_in && i < N_IN; i++) {
        if (c->grad_in[i] != NULL && gc_numel(c->grad_in[i]) > 0) {
            memset(c->grad_in[i]->data, 0, (size_t)gc_numel(c->grad_in[i]) * sizeof(float));
            bool read = (i != DECAY || a.n_decay > 0) && (i != BETA || a.delta);
            a.grad[i] = read ? c->grad_in[i]->data : NULL;
        }
    }
    return gc_parallel(c->ctx, backward_task, &a, (uint32_t)a.batches);
}

const gc_op gc_ops_linear_attention[] = {
    {"LinearAttention", infer, forward, backward, 0, 63, 0, 3, 6, 2},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
