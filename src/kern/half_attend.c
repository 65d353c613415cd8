/* SPDX-License-Identifier: MIT */
/* Attention as kern/attend.c does it, with products in bfloat16: Q (times the scale), K, V
   and the weights are rounded, scores, their largest and sums are float32. */
#include "kern/half_attend.h"

#include <math.h>
#include <string.h>

#include "base/size.h"
#include "base/status.h"
#include "kern/half.h"

/* 40 KB of the stack: scores and weights of one part and one block, its sums. */
enum { KEYS = 256, SCORE_STEP = KEYS + 16, WEIGHT_STEP = KEYS + 32, MOST_SIZE = 128, TILES_TASK = 4 };

typedef struct attend_job {
    const gc_attend *a;
    const gc_kern *kern;
    gc_bf16 *keys, *values; /* [batch][head of K][panel] */
    int64_t total, padded;  /* keys, and those that fill the last panel */
    int64_t k_head, v_head; /* elements of a head */
    int64_t blocks;         /* of keys */
    int64_t tiles, tasks;   /* of a head */
} attend_job;

static int64_t round_up(int64_t x, int64_t unit)
{
    return (x + unit - 1) / unit * unit;
}

bool gc_attend_in_half(const gc_attend *a)
{
    return a->half != NULL && a->part[0].count == 0 && a->size % 2 == 0 && a->size <= MOST_SIZE &&
           a->v_size <= MOST_SIZE;
}

/* Elements of K for a panel of 32 keys. */
static int64_t key_panel(const gc_attend *a)
{
    return gc_half_steps(a->size) * gc_half_depth(a->size) * GC_HALF_COLS;
}

static int64_t key_elements(const gc_attend *a)
{
    return (a->part[1].count + GC_HALF_COLS - 1) / GC_HALF_COLS * key_panel(a);
}

static int64_t value_elements(const gc_attend *a)
{
    return round_up(a->part[1].count, GC_HALF_DEPTH) * round_up(a->v_size, GC_HALF_COLS);
}

int64_t gc_half_attend_work(const gc_attend *a)
{
    int64_t heads, tasks, n = 0;
    bool fits = a->part[1].count < INT64_C(1) << 40 && gc_mul_ok(a->batches, a->kv_heads, &heads) &&
                gc_mul_ok(key_elements(a) + value_elements(a), heads, &n) && gc_add_ok(n, 1, &n);
    fits = fits && gc_mul_ok(heads, (a->part[1].count + KEYS - 1) / KEYS, &tasks) && tasks <= UINT32_MAX;
    fits = fits && gc_mul_ok(a->batches, a->heads, &tasks) && gc_mul_ok(tasks, a->rows, &tasks) && tasks <= UINT32_MAX;
    return fits ? n / 2 + GC_HALF_DEPTH : -1;
}

/* n elements of a row in bfloat16: where they lie, or rounded into `buffer`. */
static const gc_bf16 *row_at(const gc_attend *a, const void *base, const gc_attend_layout *at, int64_t b, int64_t h,
                             int64_t i, int64_t n, int32_t is_half, gc_bf16 *buffer)
{
    int64_t from = b * at->batch + h * at->head + i * at->row;
    if (is_half) {
        return (const gc_bf16 *)base + from;
    }
    a->half->narrow(n, (const float *)base + from, buffer);
    return buffer;
}

/* ---- K and V as the tiles read them ---- */

/* In the place of keys that are not there. */
static const gc_bf16 nothing[MOST_SIZE];

/* Two neighbours of each of 16 rows, one row behind the other. */
static void put_column(const gc_bf16 *const *rows, int64_t k, gc_bf16 *to)
{
    for (int64_t i = 0; i < GC_HALF_BLOCK; i++) {
        memcpy(to + 2 * i, rows[i] + k, 2 * sizeof *to);
    }
}

/* Keys first .. first + 15 as one block of columns. */
static void pack_keys(const attend_job *j, int64_t b, int64_t h, int64_t first, gc_bf16 *to)
{
    const gc_attend *a = j->a;
    const gc_attend_part *p = &a->part[1];
    const gc_bf16 *rows[GC_HALF_BLOCK];
    gc_bf16 buffer[GC_HALF_BLOCK][MOST_SIZE];
    int64_t steps = gc_half_steps(a->size), depth = gc_half_depth(a->size);
    for (int64_t i = 0; i < GC_HALF_BLOCK; i++) {
        bool there = first + i < j->total;
        rows[i] = there ? row_at(a, p->k, &p->k_at, b, h, first + i, a->size, a->k_half, buffer[i]) : nothing;
    }
    for (int64_t s = 0; s < steps; s++) {
        int64_t begin = gc_half_begin(a->size, s);
        for (int64_t k = begin; k < begin + depth; k += 2, to += 2 * GC_HALF_BLOCK) {
            if (k >= s * depth) {
                put_column(rows, k, to);
            } else { /* the last step overlaps the one before */
                memset(to, 0, 2 * GC_HALF_BLOCK * sizeof *to);
            }
        }
    }
}

/* Values of two keys, one behind the other for each column. */
static void put_pair(const gc_bf16 *restrict even, const gc_bf16 *restrict odd, int64_t n, gc_bf16 *restrict to)
{
    for (int64_t c = 0; c < n; c++) {
        to[2 * c] = even[c];
        to[2 * c + 1] = odd[c];
    }
    memset(to + 2 * n, 0, (size_t)(2 * (GC_HALF_BLOCK - n)) * sizeof *to);
}

/* Keys first .. first + n - 1, n a multiple of 32, are a segment of every panel. */
static void pack_values(const attend_job *j, int64_t b, int64_t h, int64_t first, int64_t n, gc_bf16 *values)
{
    const gc_attend *a = j->a;
    const gc_attend_part *p = &a->part[1];
    gc_bf16 buffer[2][MOST_SIZE];
    for (int64_t i = first; i < first + n; i += 2) {
        const gc_bf16 *row[2];
        for (int64_t k = 0; k < 2; k++) {
            bool there = i + k < j->total;
            row[k] = there ? row_at(a, p->v, &p->v_at, b, h, i + k, a->v_size, a->v_half, buffer[k]) : nothing;
        }
        for (int64_t c = 0; c < round_up(a->v_size, GC_HALF_COLS); c += GC_HALF_BLOCK) {
            int64_t left = a->v_size - c, cols = left < 0 ? 0 : min64(GC_HALF_BLOCK, left);
            gc_bf16 *panel = values + c / GC_HALF_COLS * GC_HALF_COLS * j->padded + first * GC_HALF_COLS;
            int64_t block = c % GC_HALF_COLS * n; /* the second block lies behind the first */
            put_pair(row[0] + (cols > 0 ? c : 0), row[1] + (cols > 0 ? c : 0), cols,
                     panel + block + (i - first) * GC_HALF_BLOCK);
        }
    }
}

static void pack_task(void *task, uint32_t index)
{
    const attend_job *j = task;
    int64_t head = index / j->blocks, first = index % j->blocks * KEYS, last = min64(j->padded, first + KEYS);
    int64_t b = head / j->a->kv_heads, h = head % j->a->kv_heads;
    for (int64_t i = first; i < last; i += GC_HALF_BLOCK) {
        pack_keys(j, b, h, i, j->keys + head * j->k_head + i / GC_HALF_BLOCK * (key_panel(j->a) / 2));
    }
    pack_values(j, b, h, first, last - first, j->values + head * j->v_head);
}

/* ---- rows ---- */

typedef struct row_block {
    int64_t b, h, first;
    int32_t rows;
    int32_t reserved0;
    const gc_bf16 *keys, *values; /* of its head */
    gc_half_state state;
    float top[GC_HALF_ROWS], sum[GC_HALF_ROWS];
    float s[GC_HALF_ROWS * SCORE_STEP];
    float y[GC_HALF_ROWS * MOST_SIZE];
    gc_bf16 weights[GC_HALF_ROWS * WEIGHT_STEP];
    gc_bf16 q[GC_HALF_ROWS * MOST_SIZE];
} row_block;

/* Q times the scale: a power of two costs no precision. */
static void read_queries(const attend_job *j, row_block *r)
{
    const gc_attend *a = j->a;
    for (int64_t i = 0; i < r->rows; i++) {
        int64_t from = r->b * a->q_at.batch + r->h * a->q_at.head + (r->first + i) * a->q_at.row;
        float x[MOST_SIZE];
        if (a->q_half) {
            a->half->widen(a->size, (const gc_bf16 *)a->q + from, x);
        } else {
            memcpy(x, (const float *)a->q + from, (size_t)a->size * sizeof *x);
        }
        for (int64_t d = 0; d < a->size; d++) {
            x[d] *= a->scale;
        }
        a->half->narrow(a->size, x, r->q + i * MOST_SIZE);
        r->top[i] = -HUGE_VALF;
    }
}

/* A tile for the rows of a block that begin at `a`. */
static gc_half_tile row_tile(const attend_job *j, const row_block *r, const gc_bf16 *a, int64_t a_step, int64_t length)
{
    gc_half_tile t;
    memset(&t, 0, sizeof t);
    t.a[0] = a;
    t.a_step = a_step;
    t.rows[0] = r->rows;
    t.keep[0] = (UINT32_C(1) << r->rows) - 1u;
    t.n_segments = 1;
    t.length = length;
    t.kern = j->kern;
    return t;
}

static void score(const attend_job *j, row_block *r, int64_t key, int64_t n)
{
    const gc_attend *a = j->a;
    gc_half_tile t = row_tile(j, r, r->q, MOST_SIZE, a->size);
    t.c_step = SCORE_STEP;
    t.cols = GC_HALF_COLS;
    for (int64_t i = 0; i < n; i += GC_HALF_COLS) {
        t.b = r->keys + (key + i) / GC_HALF_COLS * key_panel(a);
        t.c = r->s + i;
        a->half->tile(&t, &r->state);
    }
    for (int32_t i = 0; i < r->rows; i++) {
        for (int64_t k = j->total - key; k < n; k++) {
            r->s[i * SCORE_STEP + k] = -HUGE_VALF;
        }
        if (a->mask != NULL) {
            a->mask(a->user, r->b, r->h, r->first + i, key, min64(n, j->total - key), r->s + i * SCORE_STEP);
        }
    }
}

/* Scores become weights; what earlier blocks have made is scaled to the new top. */
static void weigh(const attend_job *j, row_block *r, int64_t key, int64_t n)
{
    for (int32_t i = 0; i < r->rows; i++) {
        float before = r->top[i], part = j->kern->soften(n, r->s + i * SCORE_STEP, &r->top[i]);
        float factor = r->top[i] == before ? 1.0f : expf(before - r->top[i]);
        r->sum[i] = key > 0 ? r->sum[i] * factor + part : part;
        for (int64_t d = 0; d < j->a->v_size && key > 0 && factor != 1.0f; d++) {
            r->y[i * MOST_SIZE + d] *= factor;
        }
        j->a->half->narrow(n, r->s + i * SCORE_STEP, r->weights + i * WEIGHT_STEP);
    }
}

static void gather_values(const attend_job *j, row_block *r, int64_t key, int64_t n)
{
    const gc_attend *a = j->a;
    gc_half_tile t = row_tile(j, r, r->weights, WEIGHT_STEP, n);
    t.c_step = MOST_SIZE;
    for (int64_t c = 0; c < a->v_size; c += GC_HALF_COLS) {
        t.cols = (int32_t)min64(GC_HALF_COLS, a->v_size - c);
        t.b = r->values + c * j->padded + key * GC_HALF_COLS;
        t.c = r->y + c;
        t.residual = key > 0 ? t.c : NULL;
        a->half->tile(&t, &r->state);
    }
}

static void write_rows(const attend_job *j, row_block *r)
{
    const gc_attend *a = j->a;
    for (int32_t i = 0; i < r->rows; i++) {
        int64_t to = r->b * a->y_at.batch + r->h * a->y_at.head + (r->first + i) * a->y_at.row;
        float *y = r->y + i * MOST_SIZE, factor = r->sum[i] == 0.0f && a->zero_empty ? 0.0f : 1.0f / r->sum[i];
        for (int64_t d = 0; d < a->v_size; d++) {
            y[d] *= factor;
        }
        if (a->y_half) {
            a->half->narrow(a->v_size, y, (gc_bf16 *)a->y + to);
        } else {
            memcpy((float *)a->y + to, y, (size_t)a->v_size * sizeof *y);
        }
    }
}

static void rows_task(void *task, uint32_t index)
{
    const attend_job *j = task;
    const gc_attend *a = j->a;
    int64_t head = index / j->tasks, at = index % j->tasks * TILES_TASK, last = min64(j->tiles, at + TILES_TASK);
    row_block r;
    memset(&r.state, 0, sizeof r.state);
    r.b = head / a->heads;
    r.h = head % a->heads;
    int64_t packed = r.b * a->kv_heads + r.h / (a->heads / a->kv_heads);
    r.keys = j->keys + packed * j->k_head;
    r.values = j->values + packed * j->v_head;
    for (; at < last; at++) {
        r.first = at * GC_HALF_ROWS;
        r.rows = (int32_t)min64(GC_HALF_ROWS, a->rows - r.first);
        read_queries(j, &r);
        for (int64_t key = 0; key < j->padded; key += KEYS) {
            int64_t n = min64(KEYS, j->padded - key);
            score(j, &r, key, n);
            weigh(j, &r, key, n);
            gather_values(j, &r, key, n);
        }
        write_rows(j, &r);
    }
    a->half->end(&r.state);
}

gc_status gc_half_attend_run(const gc_ctx *ctx, const gc_attend *a, float *work)
{
    attend_job j;
    memset(&j, 0, sizeof j);
    j.a = a;
    j.kern = gc_kern_of(ctx);
    j.total = a->part[1].count;
    j.padded = round_up(j.total, GC_HALF_DEPTH);
    j.k_head = key_elements(a);
    j.v_head = value_elements(a);
    j.blocks = (j.total + KEYS - 1) / KEYS;
    j.tiles = (a->rows + GC_HALF_ROWS - 1) / GC_HALF_ROWS;
    j.tasks = (j.tiles + TILES_TASK - 1) / TILES_TASK;
    j.keys = (gc_bf16 *)(void *)work;
    j.values = j.keys + j.k_head * a->batches * a->kv_heads;
    GC_TRY(gc_parallel(ctx, pack_task, &j, (uint32_t)(a->batches * a->kv_heads * j.blocks)));
    return gc_parallel(ctx, rows_task, &j, (uint32_t)(a->batches * a->heads * j.tasks));
}
