/* SPDX-License-Identifier: MIT */
/* Attention (opset 23): for every head
     S = scale Q K^T,  S' = cap tanh(S / cap),  P = softmax(S' + bias),  Y = P V
   where bias is the mask, -inf where a key must not be seen.  A query that sees
   no key gets zeros. */
#include "ops/attention.h"

#include <math.h>
#include <string.h>

#include "base/size.h"
#include "kern/copy.h"
#include "kern/gemm.h"
#include "tensor/walk.h"

enum { ROWS = 8, FEW_ROWS = 3 };

bool gc_attention_has(const gc_tensor *const *list, int32_t n, int32_t i)
{
    return i < n && list[i] != NULL;
}

static bool has_in(const gc_op_call *c, int32_t i)
{
    return gc_attention_has(c->in, c->n_in, i);
}

static bool has_out(const gc_op_call *c, int32_t i)
{
    return i < c->n_out && c->out[i] != NULL;
}

/* ---- sizes ---- */

static gc_status fits(gc_op_call *c, bool ok, const char *what)
{
    return ok ? GRADCAM_OK : gc_op_fail(c, GRADCAM_E_SHAPE, "%s", what);
}

static gc_status check_ranks(gc_op_call *c)
{
    for (int32_t i = 0; i < c->n_in && i < AT_INPUTS; i++) {
        if (i <= AT_V) {
            GC_TRY(gc_op_need(c, i));
        }
        bool any = i == AT_MASK || i == AT_VALID;
        if (has_in(c, i) && !any && c->in[i]->dtype != GRADCAM_F32 && !gc_op_is_half(c, c->in[i])) {
            return gc_op_fail(c, GRADCAM_E_DTYPE, "input %d is not float", (int)i);
        }
    }
    int32_t rank = c->in[AT_Q]->ndim;
    return fits(c, (rank == 3 || rank == 4) && c->in[AT_K]->ndim == rank && c->in[AT_V]->ndim == rank,
                "Q, K and V must all have rank 3 or all rank 4");
}

/* Where both are there: rows without gaps, the rest with any. */
static at_layout layout_of(const gc_tensor *t, int64_t size)
{
    at_layout flat = {t->strides[0], size, t->strides[1]}, parted = {t->strides[0], t->strides[1], t->strides[2]};
    return t->ndim == 3 ? flat : parted;
}

/* [batch, heads, length, size] or [batch, length, heads * size]. */
static gc_status read_layout(gc_op_call *c, const gc_tensor *t, int64_t *heads, int64_t *length, int64_t *size,
                             at_layout *lay)
{
    if (t->ndim == 4) {
        *heads = t->shape[1];
        *length = t->shape[2];
        *size = t->shape[3];
    } else {
        GC_TRY(fits(c, *heads > 0 && t->shape[2] % *heads == 0, "q_num_heads or kv_num_heads does not divide"));
        *length = t->shape[1];
        *size = t->shape[2] / *heads;
    }
    *lay = layout_of(t, *size);
    return GRADCAM_OK;
}

static gc_status read_past(gc_op_call *c, attention *a)
{
    bool key = has_in(c, AT_PAST_K);
    GC_TRY(fits(c, key == has_in(c, AT_PAST_V), "past_key and past_value go together"));
    if (!key) {
        return GRADCAM_OK;
    }
    const gc_tensor *k = c->in[AT_PAST_K], *v = c->in[AT_PAST_V];
    a->past = k->ndim == 4 ? k->shape[2] : 0;
    for (int32_t i = 0; i < 2; i++) {
        const gc_tensor *t = i == 0 ? k : v;
        GC_TRY(fits(c,
                    t->ndim == 4 && t->shape[0] == a->batches && t->shape[1] == a->kv_heads && t->shape[2] == a->past &&
                        t->shape[3] == (i == 0 ? a->size : a->v_size),
                    "past_key or past_value does not fit K and V"));
    }
    a->past_k = (at_layout){a->kv_heads * a->past * a->size, a->past * a->size, a->size};
    a->past_v = (at_layout){a->kv_heads * a->past * a->v_size, a->past * a->v_size, a->v_size};
    return GRADCAM_OK;
}

static gc_status read_mask(gc_op_call *c, attention *a)
{
    const gc_tensor *t = has_in(c, AT_MASK) ? c->in[AT_MASK] : NULL;
    int64_t want[4] = {a->batches, a->heads, a->q_len, a->total}, own[GRADCAM_MAX_DIMS];
    a->mask_len = a->total;
    if (t == NULL) {
        return GRADCAM_OK;
    }
    if (t->dtype != GRADCAM_BOOL && t->dtype != GRADCAM_F32) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "the mask must be bool or float");
    }
    GC_TRY(fits(c, t->ndim >= 1 && t->ndim <= 4, "the mask must have 1 to 4 dimensions"));
    gc_row_strides(t->ndim, t->shape, own);
    for (int32_t d = 4 - t->ndim; d < 4; d++) {
        int64_t size = t->shape[d - 4 + t->ndim];
        /* Since 24 a mask that is too short is filled up, even one of length 1. */
        bool partial = d == 3 && size < a->total && (size != 1 || c->opset >= 24);
        GC_TRY(fits(c, size == want[d] || size == 1 || partial, "the mask does not broadcast to the scores"));
        a->mask_step[d] = size == 1 && !partial ? 0 : own[d - 4 + t->ndim];
        a->mask_len = partial ? size : a->mask_len;
    }
    return GRADCAM_OK;
}

static gc_status read_attributes(gc_op_call *c, attention *a)
{
    a->scale = gc_attr_float(&c->attrs, "scale", (float)(1.0 / sqrt((double)a->size)));
    a->cap = gc_attr_float(&c->attrs, "softcap", 0.0f);
    a->causal = gc_attr_int(&c->attrs, "is_causal", 0) != 0;
    a->mode = gc_attr_int(&c->attrs, "qk_matmul_output_mode", AT_RAW);
    a->left = c->opset < 25 ? -1 : gc_attr_int(&c->attrs, "left_window_size", -1);
    a->right = c->opset < 25 ? -1 : gc_attr_int(&c->attrs, "right_window_size", -1);
    if (a->mode < AT_RAW || a->mode > AT_WEIGHTS || a->left < -1 || a->right < -1 || !(a->cap >= 0.0f)) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "softcap, window or qk_matmul_output_mode is out of range");
    }
    if (has_in(c, AT_VALID)) {
        const gc_tensor *t = c->in[AT_VALID];
        GC_TRY(fits(c, !has_in(c, AT_PAST_K), "nonpad_kv_seqlen excludes past_key"));
        GC_TRY(fits(c, t->dtype >= GRADCAM_I64 && t->ndim == 1 && t->shape[0] == a->batches,
                    "nonpad_kv_seqlen must hold one integer for each sample"));
    }
    return GRADCAM_OK;
}

gc_status gc_attention_setup(gc_op_call *c, attention *a)
{
    int64_t length, size, heads;
    memset(a, 0, sizeof *a);
    GC_TRY(check_ranks(c));
    const gc_tensor *q = c->in[AT_Q], *k = c->in[AT_K], *v = c->in[AT_V];
    a->batches = q->shape[0];
    a->heads = gc_attr_int(&c->attrs, "q_num_heads", 0);
    a->kv_heads = heads = gc_attr_int(&c->attrs, "kv_num_heads", 0);
    GC_TRY(read_layout(c, q, &a->heads, &a->q_len, &a->size, &a->q));
    GC_TRY(read_layout(c, k, &a->kv_heads, &a->kv_len, &size, &a->k));
    GC_TRY(read_layout(c, v, &heads, &length, &a->v_size, &a->v));
    GC_TRY(fits(c,
                k->shape[0] == a->batches && v->shape[0] == a->batches && heads == a->kv_heads && length == a->kv_len &&
                    size == a->size && size > 0,
                "the shapes of Q, K and V do not fit"));
    GC_TRY(fits(c, a->kv_heads > 0 && a->heads % a->kv_heads == 0, "the heads of K do not divide those of Q"));
    GC_TRY(read_past(c, a));
    a->total = a->past + a->kv_len;
    if (c->out[AT_Y] != NULL) {
        a->y = layout_of(c->out[AT_Y], a->v_size);
    }
    GC_TRY(read_mask(c, a));
    GC_TRY(read_attributes(c, a));
    a->empty_zero = gc_attr_int(&c->attrs, GC_ATTENTION_SOFTMAX, 0) == 0;
    int64_t shape[4] = {a->batches, a->heads, a->q_len, a->total};
    a->scores = gc_shape_numel(4, shape);
    return fits(c, a->scores >= 0 && a->scores < INT64_C(1) << 40, "the scores are too large");
}

int32_t gc_attention_parts(const attention *a, at_part parts[2])
{
    int32_t n = 0;
    if (a->past > 0) {
        parts[n++] = (at_part){0, a->past, a->past_k, a->past_v, AT_PAST_K, AT_PAST_V};
    }
    if (a->kv_len > 0) {
        parts[n++] = (at_part){a->past, a->kv_len, a->k, a->v, AT_K, AT_V};
    }
    return n;
}

/* ---- shapes ---- */

static size_t gemm_work(const attention *a)
{
    at_part parts[2];
    size_t most = 0;
    for (int32_t i = gc_attention_parts(a, parts) - 1; i >= 0; i--) {
        int64_t n = parts[i].count, m = a->q_len;
        size_t need[] = {gc_gemm_work(m, n, a->size), gc_gemm_work(m, a->v_size, n), gc_gemm_work(m, n, a->v_size),
                         gc_gemm_work(m, a->size, n), gc_gemm_work(n, a->size, m),   gc_gemm_work(n, a->v_size, m)};
        for (size_t k = 0; k < sizeof need / sizeof *need; k++) {
            most = need[k] > most ? need[k] : most;
        }
    }
    return most;
}

static void describe(const gc_op_call *c, const attention *a, gc_attend *job)
{
    memset(job, 0, sizeof *job);
    job->batches = a->batches;
    job->heads = a->heads;
    job->kv_heads = a->kv_heads;
    job->rows = a->q_len;
    job->size = a->size;
    job->v_size = a->v_size;
    job->scale = a->scale;
    job->zero_empty = a->empty_zero;
    job->q_at = a->q;
    job->y_at = a->y;
    job->part[0].count = a->past;
    job->part[1].count = a->kv_len;
    job->half = c->half;
}

/* By blocks, whose scores nobody sees; few rows are not worth packing K for. */
static bool in_blocks(const gc_op_call *c, const attention *a)
{
    gc_attend job;
    describe(c, a, &job);
    return a->cap == 0.0f && !c->exact && !(c->n_out > AT_SCORES && c->out[AT_SCORES] != NULL) &&
           c->out[AT_Y] != NULL && (a->q_len > FEW_ROWS || c->some_rows) && a->scores > 0 && a->v_size > 0 &&
           gc_attend_work(c->ctx, &job) >= 0;
}

static gc_status attention_infer(gc_op_call *c)
{
    attention a;
    GC_TRY(gc_attention_setup(c, &a));
    int64_t flat[3] = {a.batches, a.q_len, a.heads * a.v_size}, y[4] = {a.batches, a.heads, a.q_len, a.v_size};
    int64_t k[4] = {a.batches, a.kv_heads, a.total, a.size}, v[4] = {a.batches, a.kv_heads, a.total, a.v_size};
    int64_t s[4] = {a.batches, a.heads, a.q_len, a.total};
    int32_t rank = c->in[AT_Q]->ndim;
    GC_TRY(gc_op_set_output(c, AT_Y, GRADCAM_F32, rank, rank == 3 ? flat : y));
    GC_TRY(gc_op_set_output(c, AT_PRESENT_K, GRADCAM_F32, 4, k));
    GC_TRY(gc_op_set_output(c, AT_PRESENT_V, GRADCAM_F32, 4, v));
    GC_TRY(gc_op_set_output(c, AT_SCORES, GRADCAM_F32, 4, s));
    c->aux_bytes = (size_t)a.scores * sizeof(float) * (a.cap > 0.0f ? 2 : 1);
    /* One head's gradient of the scores, then the scratch of a product. */
    c->work_bytes = (size_t)(a.q_len * a.total + 16) * sizeof(float) + gemm_work(&a) * sizeof(float);
    if (in_blocks(c, &a)) {
        gc_attend job;
        int64_t bytes;
        describe(c, &a, &job);
        if (!gc_mul_ok(gc_attend_work(c->ctx, &job), (int64_t)sizeof(float), &bytes)) {
            return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
        }
        c->work_bytes = (size_t)bytes > c->work_bytes ? (size_t)bytes : c->work_bytes;
        c->lean = 1;
        c->half_able = gc_attend_in_half(&job) ? 1u << AT_Q | 1u << AT_K | 1u << AT_V | GC_HALF_OUT : 0;
        c->lean_bytes = (size_t)bytes;
    }
    return GRADCAM_OK;
}

/* ---- forward ---- */

typedef struct row_job {
    const gc_op_call *c;
    const attention *a;
    int64_t b, h;
    int64_t valid;  /* keys of this sample that are not padding */
    int64_t offset; /* keys before the first query */
    float *s;       /* [q_len][total] */
    float *capped;  /* or NULL */
    float *shown;   /* qk_matmul_output, or NULL */
} row_job;

/* The scores of query i with keys first .. first + n - 1 get the mask; -infinity where
   a key must not be seen, whatever its score. */
static void mask_row(const row_job *r, int64_t i, int64_t first, int64_t n, float *s)
{
    const attention *a = r->a;
    int64_t at = i + r->offset, low = a->left >= 0 ? at - a->left : 0;
    int64_t high = r->valid < a->mask_len ? r->valid : a->mask_len;
    high = a->causal && high > at + 1 ? at + 1 : high;
    high = a->right >= 0 && high > at + a->right + 1 ? at + a->right + 1 : high;
    const gc_tensor *mask = has_in(r->c, AT_MASK) ? r->c->in[AT_MASK] : NULL;
    int64_t base = r->b * a->mask_step[0] + r->h * a->mask_step[1] + i * a->mask_step[2], step = a->mask_step[3];
    for (int64_t j = 0; j < n; j++) {
        bool seen = first + j >= low && first + j < high;
        float bias = seen ? 0.0f : -HUGE_VALF;
        if (mask != NULL && seen && mask->dtype == GRADCAM_F32) {
            bias = ((const float *)mask->data)[base + (first + j) * step];
        } else if (mask != NULL && seen) {
            bias = ((const uint8_t *)mask->data)[base + (first + j) * step] != 0 ? 0.0f : -HUGE_VALF;
        }
        s[j] = bias == -HUGE_VALF ? bias : s[j] + bias;
    }
}

static void cap_row(const row_job *r, int64_t i, float *s)
{
    float cap = r->a->cap;
    for (int64_t j = 0; j < r->a->total; j++) {
        s[j] = cap * tanhf(s[j] / cap);
    }
    memcpy(r->capped + i * r->a->total, s, (size_t)r->a->total * sizeof *s);
}

/* A query that sees no key gets zeros. */
static void soften_row(const row_job *r, float *s)
{
    int64_t n = r->a->total;
    float top = -HUGE_VALF;
    double sum = 0.0;
    for (int64_t j = 0; j < n; j++) {
        top = s[j] > top || s[j] != s[j] ? s[j] : top;
    }
    for (int64_t j = 0; j < n; j++) {
        s[j] = s[j] == -HUGE_VALF ? 0.0f : expf(s[j] - top);
        sum += (double)s[j];
    }
    float scale = sum == 0.0 && r->a->empty_zero ? 0.0f : (float)(1.0 / sum);
    for (int64_t j = 0; j < n; j++) {
        s[j] *= scale;
    }
}

static void show(const row_job *r, int64_t i, const float *s, int64_t mode)
{
    if (r->shown != NULL && r->a->mode == mode) {
        memcpy(r->shown + i * r->a->total, s, (size_t)r->a->total * sizeof *s);
    }
}

static void row_task(void *task, uint32_t chunk)
{
    const row_job *r = task;
    const attention *a = r->a;
    int64_t last = (int64_t)chunk * ROWS + ROWS;
    last = last < a->q_len ? last : a->q_len;
    for (int64_t i = (int64_t)chunk * ROWS; i < last; i++) {
        float *s = r->s + i * a->total;
        for (int64_t j = 0; j < a->total; j++) {
            s[j] *= a->scale;
        }
        show(r, i, s, AT_RAW);
        if (a->cap > 0.0f) {
            cap_row(r, i, s);
        }
        show(r, i, s, AT_CAPPED);
        mask_row(r, i, 0, a->total, s);
        show(r, i, s, AT_BIASED);
        soften_row(r, s);
        show(r, i, s, AT_WEIGHTS);
    }
}

static int64_t offset_of(const at_layout *lay, int64_t b, int64_t h)
{
    return b * lay->batch + h * lay->head;
}

static gc_status forward_head(gc_op_call *c, const attention *a, row_job *r)
{
    at_part parts[2];
    int32_t n = gc_attention_parts(a, parts);
    int64_t kv = r->h / (a->heads / a->kv_heads);
    float *scratch = (float *)c->work + a->q_len * a->total;
    const float *q = (const float *)c->in[AT_Q]->data + offset_of(&a->q, r->b, r->h);
    for (int32_t i = 0; i < n; i++) {
        const at_part *p = &parts[i];
        const float *k = (const float *)c->in[p->k_in]->data + offset_of(&p->k, r->b, kv);
        GC_TRY(gc_gemm(c->ctx, a->q_len, p->count, a->size, q, a->q.row, 1, k, 1, p->k.row, 0, r->s + p->first,
                       a->total, scratch));
    }
    GC_TRY(gc_parallel(c->ctx, row_task, r, (uint32_t)((a->q_len + ROWS - 1) / ROWS)));
    float *y = c->out[AT_Y] == NULL ? NULL : (float *)c->out[AT_Y]->data + offset_of(&a->y, r->b, r->h);
    for (int32_t i = 0; i < n && y != NULL; i++) {
        const at_part *p = &parts[i];
        const float *v = (const float *)c->in[p->v_in]->data + offset_of(&p->v, r->b, kv);
        GC_TRY(gc_gemm(c->ctx, a->q_len, a->v_size, p->count, r->s + p->first, a->total, 1, v, p->v.row, 1,
                       i > 0 ? 1.0f : 0.0f, y, a->y.row, scratch));
    }
    return GRADCAM_OK;
}

/* present = past, then the keys (or values) of this call. */
static void write_present(const gc_op_call *c, const attention *a, int32_t out)
{
    at_part parts[2];
    bool key = out == AT_PRESENT_K;
    int64_t size = key ? a->size : a->v_size;
    for (int32_t i = gc_attention_parts(a, parts) - 1; has_out(c, out) && i >= 0; i--) {
        const at_layout *lay = key ? &parts[i].k : &parts[i].v;
        int64_t shape[4] = {a->batches, a->kv_heads, parts[i].count, size};
        int64_t from[4] = {lay->batch, lay->head, lay->row, 1};
        int64_t to[4] = {a->kv_heads * a->total * size, a->total * size, size, 1};
        gc_copy_nd(4, shape, (float *)c->out[out]->data + parts[i].first * size, to,
                   c->in[key ? parts[i].k_in : parts[i].v_in]->data, from, sizeof(float));
    }
}

static int64_t valid_keys(const gc_op_call *c, int64_t b, int64_t total)
{
    const gc_tensor *t = c->in[AT_VALID];
    int64_t n = gc_load_int((const char *)t->data + (size_t)b * gc_dtype_size(t->dtype), t->dtype);
    return n < 0 ? 0 : n > total ? total : n;
}

static row_job rows_of(const gc_op_call *c, const attention *a, int64_t b, int64_t h)
{
    row_job r = {c, a, b, h, a->total, a->past, NULL, NULL, NULL};
    if (has_in(c, AT_VALID)) {
        r.valid = valid_keys(c, b, a->total);
        r.offset = r.valid - a->q_len;
    }
    return r;
}

/* Every head's scores are kept, for backward or for who asks. */
static gc_status forward_heads(gc_op_call *c, const attention *a)
{
    int64_t each = a->q_len * a->total;
    for (int64_t k = 0; each > 0 && k < a->batches * a->heads; k++) {
        row_job r = rows_of(c, a, k / a->heads, k % a->heads);
        r.s = (float *)c->aux + k * each;
        r.capped = a->cap > 0.0f ? r.s + a->scores : NULL;
        r.shown = has_out(c, AT_SCORES) ? (float *)c->out[AT_SCORES]->data + k * each : NULL;
        GC_TRY(forward_head(c, a, &r));
    }
    return GRADCAM_OK;
}

typedef struct mask_user {
    const gc_op_call *c;
    const attention *a;
} mask_user;

static void mask_block(const void *user, int64_t b, int64_t h, int64_t row, int64_t first, int64_t n, float *s)
{
    const mask_user *u = user;
    row_job r = rows_of(u->c, u->a, b, h);
    mask_row(&r, row, first, n, s);
}

static gc_status forward_blocks(gc_op_call *c, const attention *a)
{
    gc_attend job;
    const mask_user user = {c, a};
    bool masked = has_in(c, AT_MASK) || has_in(c, AT_VALID) || a->causal || a->left >= 0 || a->right >= 0;
    describe(c, a, &job);
    job.q = c->in[AT_Q]->data;
    job.y = c->out[AT_Y]->data;
    job.q_half = gc_op_is_half(c, c->in[AT_Q]);
    job.k_half = gc_op_is_half(c, c->in[AT_K]);
    job.v_half = gc_op_is_half(c, c->in[AT_V]);
    job.y_half = gc_op_is_half(c, c->out[AT_Y]);
    for (int32_t i = 0; i < 2; i++) {
        gc_attend_part *p = &job.part[i];
        if (p->count > 0) {
            p->k = c->in[i == 0 ? AT_PAST_K : AT_K]->data;
            p->v = c->in[i == 0 ? AT_PAST_V : AT_V]->data;
            p->k_at = i == 0 ? a->past_k : a->k;
            p->v_at = i == 0 ? a->past_v : a->v;
        }
    }
    job.mask = masked ? mask_block : NULL;
    job.user = &user;
    return gc_attend_run(c->ctx, &job, c->work);
}

static gc_status attention_forward(gc_op_call *c)
{
    attention a;
    GC_TRY(gc_attention_setup(c, &a));
    if (a.scores == 0 && c->out[AT_Y] != NULL) {
        memset(c->out[AT_Y]->data, 0, (size_t)gc_numel(c->out[AT_Y]) * sizeof(float));
    }
    GC_TRY(in_blocks(c, &a) && !c->differentiated ? forward_blocks(c, &a) : forward_heads(c, &a));
    write_present(c, &a, AT_PRESENT_K);
    write_present(c, &a, AT_PRESENT_V);
    return GRADCAM_OK;
}

const gc_op gc_ops_attention[] = {
    {"Attention", attention_infer, attention_forward, gc_attention_backward, 0,
     1u << AT_Q | 1u << AT_K | 1u << AT_V | 1u << AT_PAST_K | 1u << AT_PAST_V, 0, 3, AT_INPUTS, AT_OUTPUTS},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
