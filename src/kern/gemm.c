/* SPDX-License-Identifier: MIT */
#include "kern/gemm.h"

#include <string.h>

#include "base/compiler.h"

/* A tile of C is MR x NR: 12 AVX registers of sums.  A block of A (MC x KC)
   stays in L2, a panel of B (KC x NR) in L1. */
enum { MR = 6, NR = 16, MC = 96, KC = 256, NC = 2048, MAX_SLICES = 16, SMALL_M = 3 };

typedef void (*tile_fn)(int64_t kc, const float *a, const float *b, float *tile);

typedef struct gemm_job {
    int64_t m, nc, kc;
    const float *a;
    int64_t a_row, a_col;
    const float *b;
    int64_t b_row, b_col;
    float *c;
    int64_t ldc;
    float *pack_a, *pack_b;
    int64_t slices;
    int32_t add; /* 0: overwrite C */
    int32_t reserved0;
    tile_fn tile;
} gemm_job;

static int64_t min64(int64_t x, int64_t y)
{
    return x < y ? x : y;
}

static int64_t ceil_div(int64_t x, int64_t y)
{
    return x / y + (x % y != 0);
}

/* tile[MR][NR] = sum over p of a[p][MR] b[p][NR]. */
static void tile_plain(int64_t kc, const float *a, const float *b, float *tile)
{
    float sum[MR][NR] = {{0}};
    for (int64_t p = 0; p < kc; p++, a += MR, b += NR) {
        for (int i = 0; i < MR; i++) {
            for (int j = 0; j < NR; j++) {
                sum[i][j] += a[i] * b[j];
            }
        }
    }
    memcpy(tile, sum, sizeof sum);
}

#ifdef GC_HAVE_AVX2
#define ROW(i)                \
    s##i##0 += a[i] * b0;     \
    s##i##1 += a[i] * b1

/* The same with every sum in a register of its own. */
GC_TARGET_AVX2 static void tile_avx2(int64_t kc, const float *a, const float *b, float *tile)
{
    gc_v8 s00 = {0}, s01 = {0}, s10 = {0}, s11 = {0}, s20 = {0}, s21 = {0};
    gc_v8 s30 = {0}, s31 = {0}, s40 = {0}, s41 = {0}, s50 = {0}, s51 = {0};
    for (int64_t p = 0; p < kc; p++, a += MR, b += NR) {
        gc_v8 b0, b1;
        memcpy(&b0, b, sizeof b0);
        memcpy(&b1, b + 8, sizeof b1);
        ROW(0);
        ROW(1);
        ROW(2);
        ROW(3);
        ROW(4);
        ROW(5);
    }
    gc_v8 all[12] = {s00, s01, s10, s11, s20, s21, s30, s31, s40, s41, s50, s51};
    memcpy(tile, all, sizeof all);
}
#undef ROW
#endif

static tile_fn pick_tile(void)
{
#ifdef GC_HAVE_AVX2
    if (GC_CPU_HAS_AVX2()) {
        return tile_avx2;
    }
#endif
    return tile_plain;
}

/* dst[panel][p][width] = src(panel * width + i, p), padded with zeros: `count`
   lines at `line` elements from each other, `kc` steps of `step`. */
static void pack_panel(const float *src, int64_t line, int64_t step, int64_t count, int64_t kc, int64_t width,
                       float *dst)
{
    if (line == 1) {
        for (int64_t p = 0; p < kc; p++) {
            memcpy(dst + p * width, src + p * step, (size_t)count * sizeof(float));
        }
    } else {
        for (int64_t i = 0; i < count; i++) {
            for (int64_t p = 0; p < kc; p++) {
                dst[p * width + i] = src[i * line + p * step];
            }
        }
    }
    for (int64_t p = 0; p < kc && count < width; p++) {
        memset(dst + p * width + count, 0, (size_t)(width - count) * sizeof(float));
    }
}

static void pack_b_task(void *task, uint32_t index)
{
    const gemm_job *j = task;
    int64_t first = (int64_t)index * NR;
    pack_panel(j->b + first * j->b_col, j->b_col, j->b_row, min64(NR, j->nc - first), j->kc, NR,
               j->pack_b + first * j->kc);
}

static void store_tile(const float *tile, int64_t rows, int64_t cols, int32_t add, float *c, int64_t ldc)
{
    for (int64_t i = 0; i < rows; i++) {
        float *row = c + i * ldc;
        const float *from = tile + i * NR;
        if (!add) {
            memcpy(row, from, (size_t)cols * sizeof(float));
            continue;
        }
        for (int64_t k = 0; k < cols; k++) {
            row[k] += from[k];
        }
    }
}

/* Rows first .. first + rows of C from a packed block of A. */
static void multiply_block(const gemm_job *j, const float *pack_a, int64_t first, int64_t rows)
{
    float tile[MR * NR];
    for (int64_t col = 0; col < j->nc; col += NR) {
        const float *b = j->pack_b + col * j->kc;
        for (int64_t row = 0; row < rows; row += MR) {
            j->tile(j->kc, pack_a + row * j->kc, b, tile);
            store_tile(tile, min64(MR, rows - row), min64(NR, j->nc - col), j->add,
                       j->c + (first + row) * j->ldc + col, j->ldc);
        }
    }
}

/* Row blocks index, index + slices, ...; each task has a slice of pack_a. */
static void rows_task(void *task, uint32_t index)
{
    const gemm_job *j = task;
    float *pack_a = j->pack_a + (int64_t)index * MC * KC;
    for (int64_t first = (int64_t)index * MC; first < j->m; first += j->slices * MC) {
        int64_t rows = min64(MC, j->m - first);
        for (int64_t row = 0; row < rows; row += MR) {
            pack_panel(j->a + (first + row) * j->a_row, j->a_row, j->a_col, min64(MR, rows - row), j->kc, MR,
                       pack_a + row * j->kc);
        }
        multiply_block(j, pack_a, first, rows);
    }
}

/* ---- few rows: packing B would cost as much as the product ---- */

static float dot(const float *x, int64_t x_step, const float *y, int64_t n)
{
    float sum[16] = {0}, total = 0;
    int64_t p = 0;
    for (; p + 16 <= n; p += 16) {
        for (int i = 0; i < 16; i++) {
            sum[i] += x[(p + i) * x_step] * y[p + i];
        }
    }
    for (; p < n; p++) {
        total += x[p * x_step] * y[p];
    }
    for (int i = 0; i < 16; i++) {
        total += sum[i];
    }
    return total;
}

enum { SMALL_COLUMNS = 64 };

/* One chunk of columns of every row. */
static void small_task(void *task, uint32_t index)
{
    const gemm_job *j = task;
    int64_t first = (int64_t)index * SMALL_COLUMNS, cols = min64(SMALL_COLUMNS, j->nc - first);
    for (int64_t i = 0; i < j->m; i++) {
        const float *a = j->a + i * j->a_row;
        float sum[SMALL_COLUMNS] = {0};
        for (int64_t col = 0; j->b_row == 1 && col < cols; col++) {
            sum[col] = dot(a, j->a_col, j->b + (first + col) * j->b_col, j->kc);
        }
        for (int64_t p = 0; j->b_row != 1 && p < j->kc; p++) {
            const float *b = j->b + p * j->b_row + first * j->b_col;
            float factor = a[p * j->a_col];
            for (int64_t col = 0; col < cols; col++) {
                sum[col] += factor * b[col * j->b_col];
            }
        }
        store_tile(sum, 1, cols, j->add, j->c + i * j->ldc + first, j->ldc);
    }
}

size_t gc_gemm_work(int64_t m, int64_t n, int64_t k)
{
    if (m <= SMALL_M || n <= 0 || k <= 0) {
        return 0;
    }
    int64_t columns = ceil_div(min64(n, NC), NR) * NR;
    int64_t slices = min64(ceil_div(m, MC), MAX_SLICES);
    return (size_t)(columns * KC + slices * MC * KC);
}

/* One KC x NC block of B against all of A. */
static gc_status multiply_panel(const gc_ctx *ctx, gemm_job *job)
{
    gc_status status = gc_parallel(ctx, pack_b_task, job, (uint32_t)ceil_div(job->nc, NR));
    if (status != GRADCAM_OK) {
        return status;
    }
    return gc_parallel(ctx, rows_task, job, (uint32_t)job->slices);
}

gc_status gc_gemm(const gc_ctx *ctx, int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_col,
                  const float *b, int64_t b_row, int64_t b_col, float beta_acc, float *c, int64_t ldc, float *work)
{
    gemm_job job = {m, n, k, a, a_row, a_col, b, b_row, b_col, c, ldc, NULL, NULL, 0, beta_acc != 0.0f, 0, NULL};
    if (m <= 0 || n <= 0) {
        return GRADCAM_OK;
    }
    if (k <= 0) {
        for (int64_t i = 0; i < m && !job.add; i++) {
            memset(c + i * ldc, 0, (size_t)n * sizeof(float));
        }
        return GRADCAM_OK;
    }
    if (m <= SMALL_M) {
        return gc_parallel(ctx, small_task, &job, (uint32_t)ceil_div(n, SMALL_COLUMNS));
    }
    job.tile = pick_tile();
    job.pack_b = work;
    job.pack_a = work + ceil_div(min64(n, NC), NR) * NR * KC;
    job.slices = min64(ceil_div(m, MC), MAX_SLICES);
    for (int64_t col = 0; col < n; col += NC) {
        for (int64_t p = 0; p < k; p += KC) {
            job.nc = min64(NC, n - col);
            job.kc = min64(KC, k - p);
            job.a = a + p * a_col;
            job.b = b + p * b_row + col * b_col;
            job.c = c + col;
            job.add = beta_acc != 0.0f || p > 0;
            gc_status status = multiply_panel(ctx, &job);
            if (status != GRADCAM_OK) {
                return status;
            }
        }
    }
    return GRADCAM_OK;
}
