/* SPDX-License-Identifier: MIT */
/* Products of a few rows with a bfloat16 matrix that is read once, as it lies. */
#include <string.h>

#include "base/status.h"
#include "kern/half.h"

/* Columns of a task: whole columns lie together, or pieces of rows do. */
enum { DOT_COLUMNS = 64, ROW_COLUMNS = 2048 };

typedef struct few_rows {
    const gc_half *half;
    int64_t m, n, k;
    const float *a;
    const gc_bf16 *b;
    int64_t b_row, b_col, chunk;
    int32_t add;
    int32_t reserved0;
    float *c;
} few_rows;

static void columns_task(void *task, uint32_t index)
{
    const few_rows *j = task;
    int64_t first = (int64_t)index * j->chunk, cols = j->n - first < j->chunk ? j->n - first : j->chunk;
    const gc_bf16 *b = j->b + first * j->b_col;
    for (int64_t i = 0; i < j->m; i++) {
        float sum[ROW_COLUMNS] = {0.0f}, *c = j->c + i * j->n + first;
        if (j->b_row == 1) {
            j->half->dots(j->a + i * j->k, b, j->b_col, cols, j->k, sum);
        } else {
            j->half->axpys(j->a + i * j->k, 1, b, j->b_row, j->k, cols, sum);
        }
        for (int64_t p = 0; p < cols; p++) {
            c[p] = j->add ? c[p] + sum[p] : sum[p];
        }
    }
}

gc_status gc_half_few_rows(const gc_ctx *ctx, const gc_half *half, const gc_half_rows *r, const float *a,
                           const gc_bf16 *b, bool add, float *c)
{
    few_rows j = {half, r->m, r->n, r->k, a, b, r->b_row, r->b_col, DOT_COLUMNS, add, 0, c};
    if (r->b_row != 1) {
        j.chunk = ROW_COLUMNS;
    }
    return gc_parallel(ctx, columns_task, &j, (uint32_t)((r->n + j.chunk - 1) / j.chunk));
}

typedef struct narrow_job {
    const gc_half *half;
    const float *from;
    gc_bf16 *to;
    int64_t n;
} narrow_job;

enum { SLICE = 1 << 16 };

static void narrow_task(void *task, uint32_t index)
{
    const narrow_job *j = task;
    int64_t first = (int64_t)index * SLICE;
    j->half->narrow(j->n - first < SLICE ? j->n - first : SLICE, j->from + first, j->to + first);
}

gc_status gc_half_narrow(const gc_ctx *ctx, const gc_half *half, int64_t n, const float *from, gc_bf16 *to)
{
    narrow_job j = {half, from, to, n};
    return gc_parallel(ctx, narrow_task, &j, (uint32_t)((n + SLICE - 1) / SLICE));
}
