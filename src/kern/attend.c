/* SPDX-License-Identifier: MIT */
/* Per head of K and V: keys transposed and scaled, in panels as the tiles read
   them, and values in panels.  Then each task takes some rows of one head through
   all keys, a block at a time: scores = Q K^T, weights = exp(scores - the largest so
   far), Y += weights V.  Where the largest grows, what is there is scaled down; the
   sum of the weights divides at the end. */
#include "kern/attend.h"

#include <math.h>
#include <string.h>

#include "base/size.h"
#include "base/status.h"
#include "kern/half_attend.h"
#include "kern/kern.h"

/* Scores of one tile and one block: 17 KB of the stack, rows not 4 KB apart. */
enum { KEYS = 256, SCORE_STEP = KEYS + 16, MOST_ROWS = 14, TILES_TASK = 4 };

typedef struct attend_job {
    const gc_attend *a;
    const gc_kern *kern;
    float *keys, *values; /* [batch][head of K][...] */
    int64_t total;        /* keys of both parts */
    int64_t k_floats, v_floats;
    int64_t blocks;       /* of keys */
    int64_t tiles, tasks; /* of a head */
} attend_job;

static int64_t round_up(int64_t x, int64_t unit)
{
    return (x + unit - 1) / unit * unit;
}

static int64_t offset_of(const gc_attend_layout *at, int64_t b, int64_t h)
{
    return b * at->batch + h * at->head;
}

/* Key (value) number i of head h, counted through both parts. */
static const float *key_row(const gc_attend *a, int64_t b, int64_t h, int64_t i)
{
    const gc_attend_part *p = &a->part[i < a->part[0].count ? 0 : 1];
    return (const float *)p->k + offset_of(&p->k_at, b, h) + (i - (p == a->part ? 0 : a->part[0].count)) * p->k_at.row;
}

static const float *value_row(const gc_attend *a, int64_t b, int64_t h, int64_t i)
{
    const gc_attend_part *p = &a->part[i < a->part[0].count ? 0 : 1];
    return (const float *)p->v + offset_of(&p->v_at, b, h) + (i - (p == a->part ? 0 : a->part[0].count)) * p->v_at.row;
}

/* Keys first .. first + n - 1 as one panel [size][width], width = n rounded up. */
static void pack_keys(const attend_job *j, int64_t b, int64_t h, int64_t first, int64_t n, float *to)
{
    const gc_attend *a = j->a;
    int64_t width = round_up(n, j->kern->vl);
    for (int64_t i = 0; i < width; i++) {
        const float *from = i < n ? key_row(a, b, h, first + i) : NULL;
        for (int64_t d = 0; d < a->size; d++) {
            to[d * width + i] = from != NULL ? a->scale * from[d] : 0.0f;
        }
    }
}

/* Their values in all panels [total][width]. */
static void pack_values(const attend_job *j, int64_t b, int64_t h, int64_t first, int64_t n, float *values)
{
    const gc_attend *a = j->a;
    for (int64_t i = first; i < first + n; i++) {
        const float *from = value_row(a, b, h, i);
        for (int64_t c = 0; c < a->v_size; c += j->kern->nr) {
            int64_t cols = min64(j->kern->nr, a->v_size - c), width = round_up(cols, j->kern->vl);
            float *to = values + c * j->total + i * width;
            memcpy(to, from + c, (size_t)cols * sizeof *to);
            memset(to + cols, 0, (size_t)(width - cols) * sizeof *to);
        }
    }
}

static void pack_task(void *task, uint32_t index)
{
    const attend_job *j = task;
    int64_t head = index / j->blocks, first = index % j->blocks * KEYS, last = min64(j->total, first + KEYS);
    int64_t b = head / j->a->kv_heads, h = head % j->a->kv_heads;
    for (int64_t i = first; i < last; i += j->kern->nr) {
        pack_keys(j, b, h, i, min64(j->kern->nr, last - i), j->keys + head * j->k_floats + i * j->a->size);
    }
    pack_values(j, b, h, first, last - first, j->values + head * j->v_floats);
}

/* The rows that a task is at, with what it knows of each so far. */
typedef struct row_block {
    int64_t b, h, first;
    int32_t rows;
    int32_t reserved0;
    const float *keys, *values; /* of its head */
    float top[MOST_ROWS], sum[MOST_ROWS];
    float s[MOST_ROWS * SCORE_STEP];
} row_block;

static float *out_row(const attend_job *j, const row_block *r, int64_t i)
{
    return (float *)j->a->y + offset_of(&j->a->y_at, r->b, r->h) + (r->first + i) * j->a->y_at.row;
}

static void score(const attend_job *j, row_block *r, int64_t key, int64_t n)
{
    const gc_attend *a = j->a;
    int64_t width = round_up(n, j->kern->vl);
    gc_tile t;
    memset(&t, 0, sizeof t);
    t.a = (const float *)a->q + offset_of(&a->q_at, r->b, r->h) + r->first * a->q_at.row;
    t.a_step = a->q_at.row;
    t.n_segments = 1;
    t.length = a->size;
    t.rows = r->rows;
    t.c_step = SCORE_STEP;
    for (int64_t i = 0; i < width; i += j->kern->nr) {
        t.b = r->keys + (key + i) * a->size;
        t.cols = (int32_t)min64(j->kern->nr, width - i);
        t.c = r->s + i;
        j->kern->tile(&t);
    }
    for (int32_t i = 0; i < r->rows; i++) {
        for (int64_t k = n; k < width; k++) {
            r->s[i * SCORE_STEP + k] = -HUGE_VALF;
        }
        if (a->mask != NULL) {
            a->mask(a->user, r->b, r->h, r->first + i, key, n, r->s + i * SCORE_STEP);
        }
    }
}

/* Scores become weights; what earlier blocks have made is scaled to the new top. */
static void weigh(const attend_job *j, row_block *r, int64_t key, int64_t n)
{
    int64_t width = round_up(n, j->kern->vl);
    for (int32_t i = 0; i < r->rows; i++) {
        float before = r->top[i], part = j->kern->soften(width, r->s + i * SCORE_STEP, &r->top[i]);
        float factor = r->top[i] == before ? 1.0f : expf(before - r->top[i]);
        r->sum[i] = key > 0 ? r->sum[i] * factor + part : part;
        float *y = out_row(j, r, i);
        for (int64_t d = 0; d < j->a->v_size && key > 0 && factor != 1.0f; d++) {
            y[d] *= factor;
        }
    }
}

static void gather_values(const attend_job *j, row_block *r, int64_t key, int64_t n)
{
    const gc_attend *a = j->a;
    gc_tile t;
    memset(&t, 0, sizeof t);
    t.a = r->s;
    t.a_step = SCORE_STEP;
    t.n_segments = 1;
    t.length = n;
    t.rows = r->rows;
    t.c_step = t.epi.residual_step = a->y_at.row;
    for (int64_t c = 0; c < a->v_size; c += j->kern->nr) {
        t.cols = (int32_t)min64(j->kern->nr, a->v_size - c);
        t.b = r->values + c * j->total + key * round_up(t.cols, j->kern->vl);
        t.c = out_row(j, r, 0) + c;
        t.epi.residual = key > 0 ? t.c : NULL;
        j->kern->tile(&t);
    }
}

static void rows_task(void *task, uint32_t index)
{
    const attend_job *j = task;
    const gc_attend *a = j->a;
    int64_t head = index / j->tasks, at = index % j->tasks * TILES_TASK, last = min64(j->tiles, at + TILES_TASK);
    row_block r;
    r.b = head / a->heads;
    r.h = head % a->heads;
    int64_t packed = r.b * a->kv_heads + r.h / (a->heads / a->kv_heads);
    r.keys = j->keys + packed * j->k_floats;
    r.values = j->values + packed * j->v_floats;
    for (; at < last; at++) {
        r.first = a->rows * at / j->tiles;
        r.rows = (int32_t)(a->rows * (at + 1) / j->tiles - r.first);
        for (int32_t i = 0; i < r.rows; i++) {
            r.top[i] = -HUGE_VALF;
        }
        for (int64_t key = 0; key < j->total; key += KEYS) {
            int64_t n = min64(KEYS, j->total - key);
            score(j, &r, key, n);
            weigh(j, &r, key, n);
            gather_values(j, &r, key, n);
        }
        for (int32_t i = 0; i < r.rows; i++) {
            float *y = out_row(j, &r, i), factor = r.sum[i] == 0.0f && a->zero_empty ? 0.0f : 1.0f / r.sum[i];
            for (int64_t d = 0; d < a->v_size; d++) {
                y[d] *= factor;
            }
        }
    }
}

int64_t gc_attend_work(const gc_ctx *ctx, const gc_attend *a)
{
    if (gc_attend_in_half(a)) {
        return gc_half_attend_work(a);
    }
    int64_t vl = gc_kern_of(ctx)->vl, keys = a->part[0].count + a->part[1].count, heads, k, v;
    bool fits = gc_mul_ok(a->batches, a->kv_heads, &heads) && gc_mul_ok(round_up(keys, vl), a->size, &k) &&
                gc_mul_ok(keys, round_up(a->v_size, vl), &v) && gc_add_ok(k, v, &k) && gc_mul_ok(k, heads, &k);
    int64_t blocks = (keys + KEYS - 1) / KEYS, tasks;
    fits = fits && gc_mul_ok(heads, blocks, &tasks) && tasks <= UINT32_MAX;
    fits = fits && gc_mul_ok(a->batches, a->heads, &tasks) && gc_mul_ok(tasks, a->rows, &tasks) && tasks <= UINT32_MAX;
    return fits ? k : -1;
}

gc_status gc_attend_run(const gc_ctx *ctx, const gc_attend *a, float *work)
{
    attend_job j;
    if (gc_attend_in_half(a)) {
        return gc_half_attend_run(ctx, a, work);
    }
    memset(&j, 0, sizeof j);
    j.a = a;
    j.kern = gc_kern_of(ctx);
    j.total = a->part[0].count + a->part[1].count;
    j.k_floats = round_up(j.total, j.kern->vl) * a->size;
    j.v_floats = j.total * round_up(a->v_size, j.kern->vl);
    j.blocks = (j.total + KEYS - 1) / KEYS;
    int64_t rows = min64(MOST_ROWS, gc_kern_tile_rows(j.kern, a->q_at.row));
    j.tiles = (a->rows + rows - 1) / rows;
    j.tasks = (j.tiles + TILES_TASK - 1) / TILES_TASK;
    j.keys = work;
    j.values = work + j.k_floats * a->batches * a->kv_heads;
    GC_TRY(gc_parallel(ctx, pack_task, &j, (uint32_t)(a->batches * a->kv_heads * j.blocks)));
    return gc_parallel(ctx, rows_task, &j, (uint32_t)(a->batches * a->heads * j.tasks));
}
