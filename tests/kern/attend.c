/* SPDX-License-Identifier: MIT */
/* Attention by blocks against its definition, for one and several workers. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "kern/attend.h"
#include "kern/half.h"

enum { MOST_KEYS = 600 };

/* A rounding to bfloat16, relative. */
static const double HALF = 1.0 / 256;

/* A layout of `rows` of `size` floats with heads within rows or apart, and gaps. */
static gc_attend_layout layout(int64_t batches, int64_t heads, int64_t rows, int64_t size, int64_t *floats)
{
    gc_attend_layout at;
    bool within = check_chance(2);
    int64_t gap = check_chance(3) ? check_between(1, 5) : 0;
    at.head = within ? size + gap : rows * (size + gap);
    at.row = within ? heads * at.head : size + gap;
    at.batch = heads * rows * (size + gap);
    *floats = batches * at.batch;
    return at;
}

/* A mask that is the same for whoever asks: some keys hidden, rows that see none. */
static void mask(const void *user, int64_t batch, int64_t head, int64_t row, int64_t first, int64_t n, float *s)
{
    const uint32_t seed = *(const uint32_t *)user;
    for (int64_t i = 0; i < n; i++) {
        uint32_t r = ((uint32_t)(((batch * 31 + head) * 97 + row) * 1009 + first + i) + seed) * 2654435761u >> 8;
        bool hidden = row % 5 == 4 || r % 3 == 0 || (row % 5 == 3 && first + i < 256);
        s[i] = hidden ? -HUGE_VALF : s[i] + (float)(r % 256) / 64.0f;
    }
}

static const float *row_of(const float *x, const gc_attend_layout *at, int64_t b, int64_t h, int64_t i)
{
    return x + b * at->batch + h * at->head + i * at->row;
}

static const gc_attend_part *part_of(const gc_attend *a, int64_t *key)
{
    int64_t before = a->part[0].count;
    const gc_attend_part *p = &a->part[*key < before ? 0 : 1];
    *key -= *key < before ? 0 : before;
    return p;
}

/* Scores of one row as the definition has them, and the largest error of one. */
static double scores(const gc_attend *a, int64_t b, int64_t h, int64_t i, int64_t keys, double *s)
{
    const double u = ldexp(1.0, -24);
    const float *q = row_of(a->q, &a->q_at, b, h, i);
    double error = 0.0;
    for (int64_t j = 0; j < keys; j++) {
        int64_t key = j;
        const gc_attend_part *p = part_of(a, &key);
        const float *k = row_of(p->k, &p->k_at, b, h / (a->heads / a->kv_heads), key);
        double size = 4.0; /* of the mask */
        float bias = 0.0f;
        s[j] = 0.0;
        for (int64_t d = 0; d < a->size; d++) {
            s[j] += (double)a->scale * (double)q[d] * (double)k[d];
            size += fabs((double)a->scale * (double)q[d] * (double)k[d]);
        }
        if (a->mask != NULL) {
            a->mask(a->user, b, h, i, j, 1, &bias);
        }
        s[j] += (double)bias;
        double roundings = a->half == NULL ? 0.0 : HALF * ((!a->q_half || a->scale != 0.5f) + !a->k_half) + HALF * HALF;
        error = fmax(error, ((double)(a->size + 4) * u + roundings) * size);
    }
    return error;
}

/* Weights are off by the error of their scores and of exp, each twice as they are
   divided by their sum; sums by their roundings; in bfloat16 weights, values and results by theirs. */
static double bound_of(const gc_attend *a, double error, int64_t keys, double size)
{
    double sums = 1.6e-6 + (double)(2 * keys + 20) * ldexp(1.0, -24), roundings = a->half == NULL ? 0.0 : 4.0 * HALF;
    return size * (exp(2.0 * error) * (1.0 + sums) * (1.0 + roundings) - 1.0) + ldexp(1.0, -119);
}

static bool good_row(const gc_attend *a, int64_t b, int64_t h, int64_t i, int64_t keys)
{
    double s[MOST_KEYS], top = -INFINITY, total = 0.0, error = scores(a, b, h, i, keys, s);
    for (int64_t j = 0; j < keys; j++) {
        top = fmax(top, s[j]);
    }
    for (int64_t j = 0; j < keys && top > -INFINITY; j++) {
        total += s[j] = exp(s[j] - top);
    }
    const float *y = row_of(a->y, &a->y_at, b, h, i);
    for (int64_t d = 0; d < a->v_size; d++) {
        double want = 0.0, size = 0.0;
        for (int64_t j = 0; j < keys && total > 0.0; j++) {
            int64_t key = j;
            const gc_attend_part *p = part_of(a, &key);
            double term = s[j] / total * (double)row_of(p->v, &p->v_at, b, h / (a->heads / a->kv_heads), key)[d];
            want += term;
            size += fabs(term);
        }
        double bound = bound_of(a, error, keys, size);
        bool empty = total == 0.0 && !a->zero_empty;
        if (empty ? y[d] == y[d] : !(fabs((double)y[d] - want) <= bound)) {
            return false;
        }
    }
    return true;
}

/* floats: of Q, K and V of the second part. */
static void draw(gc_attend *a, bool big, int64_t *floats)
{
    int64_t keys = check_between(1, big ? MOST_KEYS : 60), past = check_chance(3) ? check_between(0, keys) : 0;
    memset(a, 0, sizeof *a);
    a->batches = check_between(1, 2);
    a->kv_heads = check_between(1, 2);
    a->heads = a->kv_heads * check_between(1, 2);
    a->rows = check_between(1, 70);
    a->size = check_between(1, 40);
    a->v_size = check_between(1, 70);
    a->scale = check_chance(3) ? 0.3f : 0.5f;
    a->zero_empty = check_chance(2);
    a->q_at = layout(a->batches, a->heads, a->rows, a->size, &floats[0]);
    a->q = check_random_buffer(floats[0]);
    for (int i = 0; i < 2; i++) {
        gc_attend_part *p = &a->part[i];
        p->count = i == 0 ? past : keys - past;
        p->k_at = layout(a->batches, a->kv_heads, p->count, a->size, &floats[1]);
        p->k = check_random_buffer(floats[1]);
        p->v_at = layout(a->batches, a->kv_heads, p->count, a->v_size, &floats[2]);
        p->v = check_random_buffer(floats[2]);
    }
}

/* Sometimes x, which is rounded then, and a copy that is bfloat16. */
static const void *maybe_half(const void *x, int64_t n, int32_t *is_half)
{
    float *numbers = (float *)(uintptr_t)x;
    *is_half = n > 0 && check_chance(2);
    if (!*is_half) {
        return x;
    }
    gc_bf16 *y = (gc_bf16 *)(void *)check_buffer((n + 1) / 2, 1) + n % 2;
    for (int64_t i = 0; i < n; i++) {
        y[i] = check_narrow(numbers[i]);
        numbers[i] = check_widen(y[i]);
    }
    return y;
}

/* `job` computes what `a` describes in floats. */
static void check_job(const gc_ctx *few, const gc_ctx *many, gc_attend *a, gc_attend *job, int64_t floats)
{
    int64_t keys = a->part[0].count + a->part[1].count, wrong = 0, bytes = job->y_half ? 2 : 4;
    float *y = check_marked_buffer(floats), *other = check_marked_buffer(floats), *wide = check_marked_buffer(floats);
    float *work = check_buffer(gc_attend_work(few, job), 1);
    job->y = other;
    check_that(gc_attend_run(many, job, work) == GRADCAM_OK, "fails");
    job->y = y;
    check_that(gc_attend_run(few, job, work) == GRADCAM_OK, "fails");
    check_that(memcmp(y, other, (size_t)(floats * bytes)) == 0, "hangs on the number of workers");
    for (int64_t i = 0; i < floats; i++) {
        wide[i] = job->y_half ? check_widen(((const gc_bf16 *)(const void *)y)[i]) : y[i];
    }
    a->y = wide;
    for (int64_t i = 0; i < a->batches * a->heads * a->rows; i++) {
        wrong += !good_row(a, i / a->rows / a->heads, i / a->rows % a->heads, i % a->rows, keys);
    }
    check_that(wrong == 0, "wrong rows");
    check_intact();
}

static void one(const gc_ctx *few, const gc_ctx *many, bool big, const gc_half *half)
{
    gc_attend a, job;
    uint32_t seed = check_random();
    int64_t floats, n[3];
    check_case("attention");
    draw(&a, big, n);
    a.mask = check_chance(2) ? mask : NULL;
    a.user = &seed;
    a.half = half;
    a.y_at = layout(a.batches, a.heads, a.rows, a.v_size, &floats);
    job = a;
    if (half != NULL && gc_attend_in_half(&a)) {
        job.q = maybe_half(a.q, n[0], &job.q_half);
        job.part[1].k = maybe_half(a.part[1].k, n[1], &job.k_half);
        job.part[1].v = maybe_half(a.part[1].v, n[2], &job.v_half);
        job.y_half = check_chance(2);
        a.q_half = job.q_half;
        a.k_half = job.k_half;
    } else {
        a.half = job.half = NULL;
    }
    check_job(few, many, &a, &job, floats);
}

void check_attend(const gc_ctx *few, const gc_ctx *many, const gc_half *half)
{
    for (int i = 0; i < check_rounds(80); i++) {
        one(few, many, i % 4 == 0, half);
    }
}
