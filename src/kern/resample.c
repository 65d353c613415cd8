/* SPDX-License-Identifier: MIT */
#include "kern/resample.h"

#include <string.h>

/* Floats of one task, and of the piece of a row that stays in the cache while
   its taps are added. */
enum { TASK_FLOATS = 16384, PIECE = 1024 };

typedef struct resample_job {
    const gc_resample *m;
    const float *x;
    float *y;
    int64_t inner, lines, lines_per_task;
} resample_job;

void gc_resample_transpose(const gc_resample *from, gc_resample *to)
{
    int64_t taps = from->start[from->rows];
    to->rows = from->cols;
    to->cols = from->rows;
    memset(to->start, 0, (size_t)(to->rows + 1) * sizeof *to->start);
    for (int64_t k = 0; k < taps; k++) {
        to->start[from->index[k] + 1]++;
    }
    for (int64_t r = 0; r < to->rows; r++) {
        to->start[r + 1] += to->start[r];
    }
    for (int64_t r = 0; r < from->rows; r++) {
        for (int64_t k = from->start[r]; k < from->start[r + 1]; k++) {
            int64_t at = to->start[from->index[k]]++; /* now the place of the next tap */
            to->index[at] = (int32_t)r;
            to->weight[at] = from->weight[k];
        }
    }
    memmove(to->start + 1, to->start, (size_t)to->rows * sizeof *to->start);
    to->start[0] = 0;
}

static void set_two(float *restrict y, const float *restrict a, float wa, const float *restrict b, float wb, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] = wa * a[i] + wb * b[i];
    }
}

static void add_one(float *restrict y, const float *restrict a, float w, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] += w * a[i];
    }
}

static void set_one(float *restrict y, const float *restrict a, float w, int64_t n)
{
    if (w == 1.0f) {
        memcpy(y, a, (size_t)n * sizeof *y);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        y[i] = w * a[i];
    }
}

/* One row of the matrix over `inner` neighbours. */
static void line(const gc_resample *m, int64_t r, int64_t inner, const float *x, float *y)
{
    const int32_t *index = m->index + m->start[r];
    const float *w = m->weight + m->start[r];
    int64_t taps = m->start[r + 1] - m->start[r];
    if (taps == 0) {
        memset(y, 0, (size_t)inner * sizeof *y);
        return;
    }
    for (int64_t from = 0; from < inner; from += PIECE) {
        int64_t n = inner - from < PIECE ? inner - from : PIECE, k = 2;
        if (taps == 1) {
            set_one(y + from, x + index[0] * inner + from, w[0], n);
        } else {
            set_two(y + from, x + index[0] * inner + from, w[0], x + index[1] * inner + from, w[1], n);
        }
        for (; k < taps; k++) {
            add_one(y + from, x + index[k] * inner + from, w[k], n);
        }
    }
}

/* The same when the axis itself lies innermost. */
static float element(const gc_resample *m, int64_t r, const float *x)
{
    int64_t k = m->start[r], end = m->start[r + 1];
    const int32_t *at = m->index + k;
    const float *w = m->weight + k;
    switch (end - k) {
    case 0: return 0.0f;
    case 1: return w[0] * x[at[0]];
    case 2: return w[0] * x[at[0]] + w[1] * x[at[1]];
    case 4: return (w[0] * x[at[0]] + w[1] * x[at[1]]) + (w[2] * x[at[2]] + w[3] * x[at[3]]);
    default: break;
    }
    float sum = 0.0f;
    for (; k < end; k++) {
        sum += m->weight[k] * x[m->index[k]];
    }
    return sum;
}

static void resample_task(void *task, uint32_t index)
{
    const resample_job *j = task;
    const gc_resample *m = j->m;
    int64_t first = (int64_t)index * j->lines_per_task, last = first + j->lines_per_task;
    last = last < j->lines ? last : j->lines;
    int64_t r = first % m->rows;
    const float *x = j->x + first / m->rows * m->cols * j->inner;
    for (int64_t i = first; i < last; i++) {
        if (j->inner == 1) {
            j->y[i] = element(m, r, x);
        } else {
            line(m, r, j->inner, x, j->y + i * j->inner);
        }
        if (++r == m->rows) {
            r = 0;
            x += m->cols * j->inner;
        }
    }
}

gc_status gc_resample_apply(const gc_ctx *ctx, const gc_resample *m, int64_t outer, int64_t inner, const float *x,
                            float *y)
{
    resample_job j = {m, x, y, inner, outer * m->rows, 1};
    if (j.lines == 0 || inner == 0) {
        return GRADCAM_OK;
    }
    j.lines_per_task = inner < TASK_FLOATS ? TASK_FLOATS / inner : 1;
    if (j.lines / j.lines_per_task >= INT32_MAX) {
        j.lines_per_task = j.lines / INT32_MAX + 1;
    }
    return gc_parallel(ctx, resample_task, &j, (uint32_t)((j.lines + j.lines_per_task - 1) / j.lines_per_task));
}
