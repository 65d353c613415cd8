/* SPDX-License-Identifier: MIT */
/* Blocks of B are packed into panels, A is read where it lies (or copied when
   its rows are not contiguous), tiles do the rest. */
#include "kern/gemm.h"

#include <stdbool.h>
#include <string.h>

#include "base/size.h"
#include "base/status.h"
#include "kern/blas.h"
#include "kern/kern.h"

enum { KC = 1024, NC = 1024, MC = 512, SMALL_M = 3, TILES_ITEM = 16, MOST_NR = 32 };
/* Columns of one task where there are few rows. */
enum { COLUMNS = 64, MOST_COLUMNS = 1024, CHUNKS = 16 };

typedef struct gemm_job {
    const gc_kern *kern;
    int64_t m, nc, kc;
    const float *a;
    int64_t a_row, a_col;
    const float *b;
    int64_t b_row, b_col;
    float *c;
    int64_t ldc;
    float *pack_a, *pack_b;
    int64_t tiles, spans; /* of rows */
    int32_t add;          /* 0: overwrite C */
    int32_t columns;      /* of a task, where there are few rows */
} gemm_job;

static int64_t ceil_div(int64_t x, int64_t y)
{
    return x / y + (x % y != 0);
}

/* One panel of B: [kc][width]. */
static void pack_b_task(void *task, uint32_t index)
{
    const gemm_job *j = task;
    int64_t nr = j->kern->nr, first = (int64_t)index * nr, columns = min64(nr, j->nc - first);
    int64_t width = ceil_div(columns, j->kern->vl) * j->kern->vl;
    float *to = j->pack_b + first * j->kc;
    const float *from = j->b + first * j->b_col;
    for (int64_t p = 0; p < j->kc && j->b_col == 1; p++) {
        memcpy(to + p * width, from + p * j->b_row, (size_t)columns * sizeof(float));
    }
    for (int64_t k = 0; k < columns && j->b_col != 1; k++) {
        for (int64_t p = 0; p < j->kc; p++) {
            to[p * width + k] = from[k * j->b_col + p * j->b_row];
        }
    }
    for (int64_t p = 0; p < j->kc && columns < width; p++) {
        memset(to + p * width + columns, 0, (size_t)(width - columns) * sizeof(float));
    }
}

enum { PACK_ROWS = 16 };

/* Sixteen rows of A: [row][kc]. */
static void pack_a_task(void *task, uint32_t index)
{
    const gemm_job *j = task;
    int64_t first = (int64_t)index * PACK_ROWS, rows = min64(PACK_ROWS, j->m - first);
    for (int64_t p = 0; p < j->kc; p++) {
        for (int64_t i = 0; i < rows; i++) {
            j->pack_a[(first + i) * j->kc + p] = j->a[(first + i) * j->a_row + p * j->a_col];
        }
    }
}

/* A span of rows with one panel. */
static void tiles_task(void *task, uint32_t index)
{
    const gemm_job *j = task;
    int64_t nr = j->kern->nr, span = index % j->spans, column = index / j->spans * nr;
    bool packed = j->a_col != 1;
    const float *a = packed ? j->pack_a : j->a;
    gc_tile t;
    memset(&t, 0, sizeof t);
    t.a_step = packed ? j->kc : j->a_row;
    t.n_segments = 1;
    t.length = j->kc;
    t.b = j->pack_b + column * j->kc;
    t.c_step = t.epi.residual_step = j->ldc;
    t.cols = (int32_t)min64(nr, j->nc - column);
    for (int64_t i = span * TILES_ITEM; i < min64(j->tiles, (span + 1) * TILES_ITEM); i++) {
        int64_t first = j->m * i / j->tiles;
        t.rows = (int32_t)(j->m * (i + 1) / j->tiles - first);
        t.a = a + first * t.a_step;
        t.c = j->c + first * j->ldc + column;
        t.epi.residual = j->add ? t.c : NULL;
        j->kern->tile(&t);
    }
}

/* ---- few rows: packing B would cost as much as the product ---- */

static void store(const float *from, int64_t n, int32_t add, float *to)
{
    for (int64_t i = 0; i < n; i++) {
        to[i] = add ? to[i] + from[i] : from[i];
    }
}

/* Rows of B that are added up come from memory: the longer their pieces, the faster. */
static int32_t columns_of_task(const gemm_job *j)
{
    int64_t wide = j->nc / CHUNKS / COLUMNS * COLUMNS;
    return j->b_row == 1 || wide < COLUMNS ? COLUMNS : (int32_t)min64(wide, MOST_COLUMNS);
}

/* One chunk of columns of every row. */
static void few_rows_task(void *task, uint32_t index)
{
    const gemm_job *j = task;
    int64_t first = (int64_t)index * j->columns, cols = min64(j->columns, j->nc - first);
    for (int64_t i = 0; i < j->m; i++) {
        const float *a = j->a + i * j->a_row, *b = j->b + first * j->b_col;
        float sum[MOST_COLUMNS];
        memset(sum, 0, (size_t)cols * sizeof *sum);
        if (j->b_row == 1 && j->a_col == 1) {
            j->kern->dots(a, b, j->b_col, cols, j->kc, sum);
        } else if (j->b_col == 1) {
            j->kern->axpys(a, j->a_col, b, j->b_row, j->kc, cols, sum);
        } else {
            for (int64_t k = 0; k < cols; k++) {
                for (int64_t p = 0; p < j->kc; p++) {
                    sum[k] += a[p * j->a_col] * b[k * j->b_col + p * j->b_row];
                }
            }
        }
        store(sum, cols, j->add, j->c + i * j->ldc + first);
    }
}

size_t gc_gemm_work(int64_t m, int64_t n, int64_t k)
{
    if (m <= SMALL_M || n <= 0 || k <= 0) {
        return 0;
    }
    int64_t depth = min64(k, KC), columns = ceil_div(min64(n, NC), MOST_NR) * MOST_NR;
    return (size_t)(depth * (columns + ceil_div(min64(m, MC), PACK_ROWS) * PACK_ROWS));
}

/* One KC x NC block of B against all of A. */
static gc_status multiply_block(const gc_ctx *ctx, gemm_job *j)
{
    int64_t panels = ceil_div(j->nc, j->kern->nr), m = j->m;
    const float *a = j->a;
    float *c = j->c;
    GC_TRY(gc_parallel(ctx, pack_b_task, j, (uint32_t)panels));
    int64_t most = j->a_col == 1 ? m : MC;
    for (int64_t row = 0; row < m; row += most) {
        j->m = min64(most, m - row);
        j->a = a + row * j->a_row;
        j->c = c + row * j->ldc;
        j->tiles = ceil_div(j->m, gc_kern_tile_rows(j->kern, j->a_col == 1 ? j->a_row : j->kc));
        j->spans = ceil_div(j->tiles, TILES_ITEM);
        if (j->a_col != 1) {
            GC_TRY(gc_parallel(ctx, pack_a_task, j, (uint32_t)ceil_div(j->m, PACK_ROWS)));
        }
        GC_TRY(gc_parallel(ctx, tiles_task, j, (uint32_t)(panels * j->spans)));
    }
    j->m = m;
    return GRADCAM_OK;
}

gc_status gc_gemm(const gc_ctx *ctx, int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_col,
                  const float *b, int64_t b_row, int64_t b_col, float beta_acc, float *c, int64_t ldc, float *work)
{
    gemm_job job = {gc_kern_of(ctx),  m, n, k, a, a_row, a_col, b, b_row, b_col, c, ldc, NULL, NULL, 0, 0,
                    beta_acc != 0.0f, 0};
    if (m <= 0 || n <= 0) {
        return GRADCAM_OK;
    }
    if (k <= 0) {
        for (int64_t i = 0; i < m && !job.add; i++) {
            memset(c + i * ldc, 0, (size_t)n * sizeof(float));
        }
        return GRADCAM_OK;
    }
    gc_blas_product product = {m, n, k, a_row, a_col, b_row, b_col, ldc};
    if (gc_blas_takes(ctx, &product)) {
        gc_blas_multiply(&product, a, b, job.add, c);
        return GRADCAM_OK;
    }
    if (m <= SMALL_M) {
        job.columns = columns_of_task(&job);
        return gc_parallel(ctx, few_rows_task, &job, (uint32_t)ceil_div(n, job.columns));
    }
    job.pack_b = work;
    job.pack_a = work + min64(k, KC) * ceil_div(min64(n, NC), MOST_NR) * MOST_NR;
    for (int64_t col = 0; col < n; col += NC) {
        for (int64_t p = 0; p < k; p += KC) {
            job.nc = min64(NC, n - col);
            job.kc = min64(KC, k - p);
            job.a = a + p * a_col;
            job.b = b + p * b_row + col * b_col;
            job.c = c + col;
            job.add = beta_acc != 0.0f || p > 0;
            GC_TRY(multiply_block(ctx, &job));
        }
    }
    return GRADCAM_OK;
}
