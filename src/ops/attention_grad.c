/* SPDX-License-Identifier: MIT */
/* Gradient of Attention.  For every head, with dP = dY V^T,
     dS' = P (dP - rowsum(dP P)),  dbias = dS',  dS = dS' (1 - (S'/cap)^2),
     dQ = scale dS K,  dK = scale dS^T Q,  dV = P^T dY;
   key heads collect from all their query heads.  The gradient of
   qk_matmul_output joins at the stage that it shows. */
#include <string.h>

#include "kern/copy.h"
#include "kern/gemm.h"
#include "ops/attention.h"
#include "tensor/walk.h"

enum { ROWS = 8 };

typedef struct back_job {
    const attention *a;
    const float *p;      /* weights, [q_len][total] */
    const float *capped; /* or NULL */
    const float *shown;  /* gradient of qk_matmul_output, or NULL */
    float *ds;           /* in: dY V^T; out: gradient of the biased scores */
} back_job;

static void add_shown(const back_job *j, int64_t at, float *ds, int64_t mode)
{
    for (int64_t k = 0; j->shown != NULL && j->a->mode == mode && k < j->a->total; k++) {
        ds[k] += j->shown[at + k];
    }
}

static int64_t end_of(const attention *a, uint32_t chunk)
{
    int64_t last = (int64_t)chunk * ROWS + ROWS;
    return last < a->q_len ? last : a->q_len;
}

/* Through the softmax. */
static void soften_task(void *task, uint32_t chunk)
{
    const back_job *j = task;
    int64_t n = j->a->total, last = end_of(j->a, chunk);
    for (int64_t i = (int64_t)chunk * ROWS; i < last; i++) {
        float *ds = j->ds + i * n;
        const float *p = j->p + i * n;
        double dot = 0.0;
        add_shown(j, i * n, ds, AT_WEIGHTS);
        for (int64_t k = 0; k < n; k++) {
            dot += p[k] == 0.0f ? 0.0 : (double)ds[k] * (double)p[k];
        }
        for (int64_t k = 0; k < n; k++) {
            ds[k] = p[k] == 0.0f ? 0.0f : p[k] * (float)((double)ds[k] - dot);
        }
        add_shown(j, i * n, ds, AT_BIASED);
    }
}

/* Through the cap and the scale. */
static void scale_task(void *task, uint32_t chunk)
{
    const back_job *j = task;
    int64_t n = j->a->total, last = end_of(j->a, chunk);
    for (int64_t i = (int64_t)chunk * ROWS; i < last; i++) {
        float *ds = j->ds + i * n;
        add_shown(j, i * n, ds, AT_CAPPED);
        for (int64_t k = 0; j->capped != NULL && k < n; k++) {
            float t = j->capped[i * n + k] / j->a->cap;
            ds[k] *= 1.0f - t * t;
        }
        add_shown(j, i * n, ds, AT_RAW);
        for (int64_t k = 0; k < n; k++) {
            ds[k] *= j->a->scale;
        }
    }
}

static void mask_gradient(const gc_op_call *c, const attention *a, int64_t b, int64_t h, const float *ds)
{
    int64_t shape[2] = {a->q_len, a->mask_len}, from[2] = {a->total, 1};
    float *to = (float *)c->grad_in[AT_MASK]->data + b * a->mask_step[0] + h * a->mask_step[1];
    gc_add_nd(2, shape, to, a->mask_step + 2, ds, from);
}

static const float *read_at(const gc_tensor *t, const at_layout *lay, int64_t b, int64_t h)
{
    return (const float *)t->data + b * lay->batch + h * lay->head;
}

static float *grad_at(const gc_op_call *c, int32_t i, const at_layout *lay, int64_t b, int64_t h)
{
    bool wanted = i < c->n_in && c->grad_in[i] != NULL;
    return wanted ? (float *)c->grad_in[i]->data + b * lay->batch + h * lay->head : NULL;
}

/* ds = dY V^T, and dV += P^T dY. */
static gc_status values(gc_op_call *c, const attention *a, const at_part *p, int64_t b, int64_t h, back_job *j,
                        float *scratch)
{
    int64_t kv = h / (a->heads / a->kv_heads);
    const float *dy = read_at(c->grad_out[AT_Y], &a->y, b, h), *v = read_at(c->in[p->v_in], &p->v, b, kv);
    float *dv = grad_at(c, p->v_in, &p->v, b, kv);
    if (dv != NULL) {
        GC_TRY(gc_gemm(c->ctx, p->count, a->v_size, a->q_len, j->p + p->first, 1, a->total, dy, a->y.row, 1, 1, dv,
                       p->v.row, scratch));
    }
    return gc_gemm(c->ctx, a->q_len, p->count, a->v_size, dy, a->y.row, 1, v, 1, p->v.row, 0, j->ds + p->first,
                   a->total, scratch);
}

/* dQ += dS K, dK += dS^T Q. */
static gc_status keys(gc_op_call *c, const attention *a, const at_part *p, int64_t b, int64_t h, back_job *j,
                      float *scratch)
{
    int64_t kv = h / (a->heads / a->kv_heads);
    float *dq = grad_at(c, AT_Q, &a->q, b, h), *dk = grad_at(c, p->k_in, &p->k, b, kv);
    if (dq != NULL) {
        GC_TRY(gc_gemm(c->ctx, a->q_len, a->size, p->count, j->ds + p->first, a->total, 1,
                       read_at(c->in[p->k_in], &p->k, b, kv), p->k.row, 1, 1, dq, a->q.row, scratch));
    }
    if (dk != NULL) {
        GC_TRY(gc_gemm(c->ctx, p->count, a->size, a->q_len, j->ds + p->first, 1, a->total,
                       read_at(c->in[AT_Q], &a->q, b, h), a->q.row, 1, 1, dk, p->k.row, scratch));
    }
    return GRADCAM_OK;
}

static gc_status backward_head(gc_op_call *c, const attention *a, int64_t b, int64_t h, back_job *j)
{
    at_part parts[2];
    int32_t n = gc_attention_parts(a, parts);
    uint32_t tasks = (uint32_t)((a->q_len + ROWS - 1) / ROWS);
    float *scratch = j->ds + a->q_len * a->total;
    for (int32_t i = 0; i < n && c->grad_out[AT_Y] != NULL; i++) {
        GC_TRY(values(c, a, &parts[i], b, h, j, scratch));
    }
    if (c->grad_out[AT_Y] == NULL) {
        memset(j->ds, 0, (size_t)(a->q_len * a->total) * sizeof *j->ds);
    }
    GC_TRY(gc_parallel(c->ctx, soften_task, j, tasks));
    if (c->n_in > AT_MASK && c->grad_in[AT_MASK] != NULL && c->grad_in[AT_MASK]->dtype == GRADCAM_F32) {
        mask_gradient(c, a, b, h, j->ds);
    }
    GC_TRY(gc_parallel(c->ctx, scale_task, j, tasks));
    for (int32_t i = 0; i < n; i++) {
        GC_TRY(keys(c, a, &parts[i], b, h, j, scratch));
    }
    return GRADCAM_OK;
}

/* The gradient of present_key (or present_value) goes to the past and to K (V). */
static void present_gradient(const gc_op_call *c, const attention *a, int32_t out)
{
    at_part parts[2];
    bool key = out == AT_PRESENT_K;
    int64_t size = key ? a->size : a->v_size;
    const float *from = out < c->n_out && c->grad_out[out] != NULL ? c->grad_out[out]->data : NULL;
    for (int32_t i = gc_attention_parts(a, parts) - 1; from != NULL && i >= 0; i--) {
        const at_layout *lay = key ? &parts[i].k : &parts[i].v;
        float *to = grad_at(c, key ? parts[i].k_in : parts[i].v_in, lay, 0, 0);
        int64_t shape[4] = {a->batches, a->kv_heads, parts[i].count, size};
        int64_t to_steps[4] = {lay->batch, lay->head, lay->row, 1};
        int64_t steps[4] = {a->kv_heads * a->total * size, a->total * size, size, 1};
        if (to != NULL) {
            gc_add_nd(4, shape, to, to_steps, from + parts[i].first * size, steps);
        }
    }
}

gc_status gc_attention_backward(gc_op_call *c)
{
    attention a;
    GC_TRY(gc_attention_setup(c, &a));
    int64_t each = a.q_len * a.total;
    const gc_tensor *shown = c->n_out > AT_SCORES ? c->grad_out[AT_SCORES] : NULL;
    for (int32_t i = 0; i < c->n_in; i++) {
        if (c->grad_in[i] != NULL) {
            gc_walk_zero(c->grad_in[i]);
        }
    }
    for (int64_t k = 0; each > 0 && k < a.batches * a.heads; k++) {
        back_job j = {&a, (const float *)c->aux + k * each, NULL, NULL, c->work};
        j.capped = a.cap > 0.0f ? j.p + a.scores : NULL;
        j.shown = shown != NULL ? (const float *)shown->data + k * each : NULL;
        GC_TRY(backward_head(c, &a, k / a.heads, k % a.heads, &j));
    }
    present_gradient(c, &a, AT_PRESENT_K);
    present_gradient(c, &a, AT_PRESENT_V);
    return GRADCAM_OK;
}
