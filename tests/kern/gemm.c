/* SPDX-License-Identifier: MIT */
/* The matrix product: few rows, more rows and depth than a block, any strides. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "kern/gemm.h"

typedef struct product {
    int64_t m, n, k, a_row, a_col, b_row, b_col, ldc;
    const float *a, *b;
    float beta;
} product;

/* A matrix by rows, by columns, or with gaps both ways. */
static void strides(int64_t rows, int64_t cols, int64_t *row, int64_t *col)
{
    bool by_columns = check_chance(2);
    int64_t gap = check_chance(4) ? check_between(2, 3) : 1;
    *col = by_columns ? rows * gap + check_between(0, 3) : gap;
    *row = by_columns ? gap : cols * gap + check_between(0, 3);
}

static bool good_row(const product *p, int64_t i, const float *c, const float *before)
{
    for (int64_t j = 0; j < p->n; j++) {
        double sum = p->beta != 0.0f ? (double)before[i * p->ldc + j] : 0.0, size = fabs(sum);
        for (int64_t l = 0; l < p->k; l++) {
            double term = (double)p->a[i * p->a_row + l * p->a_col] * (double)p->b[l * p->b_row + j * p->b_col];
            sum += term;
            size += fabs(term);
        }
        /* Each block of depth is added to what was there. */
        if (!check_near(c[i * p->ldc + j], sum, (double)(p->k + 3 + p->k / 256), size)) {
            return false;
        }
    }
    for (int64_t j = p->n; j < p->ldc && i + 1 < p->m; j++) {
        if (!check_is_marked(c[i * p->ldc + j])) {
            return false;
        }
    }
    return true;
}

static void one(const gc_ctx *ctx, int64_t m, int64_t n, int64_t k)
{
    product p = {m, n, k, 0, 0, 0, 0, n + check_between(0, 5), NULL, NULL, check_chance(2) ? 0.0f : 1.0f};
    int64_t wrong = 0, floats = (m - 1) * p.ldc + n;
    strides(m, k, &p.a_row, &p.a_col);
    strides(k, n, &p.b_row, &p.b_col);
    check_case("gemm %dx%dx%d, strides %d %d and %d %d, %s", (int)m, (int)n, (int)k, (int)p.a_row, (int)p.a_col,
               (int)p.b_row, (int)p.b_col, p.beta == 0.0f ? "new" : "added");
    int64_t a_floats = k > 0 ? (m - 1) * p.a_row + (k - 1) * p.a_col + 1 : 0;
    float *a = check_random_buffer(a_floats);
    if (k > 0 && check_chance(6)) { /* stays in its row */
        a[check_between(0, m - 1) * p.a_row + check_between(0, k - 1) * p.a_col] = NAN;
    }
    p.a = a;
    p.b = check_random_buffer(k > 0 ? (k - 1) * p.b_row + (n - 1) * p.b_col + 1 : 0);
    float *c = check_marked_buffer(floats), *before = check_buffer(floats, 1);
    for (int64_t i = 0; i < floats; i++) {
        bool inside = i % p.ldc < n;
        c[i] = !inside ? c[i] : p.beta == 0.0f ? NAN : check_value();
    }
    memcpy(before, c, (size_t)floats * sizeof *c);
    float *work = check_buffer((int64_t)gc_gemm_work(m, n, k), 1);
    check_that(gc_gemm(ctx, m, n, k, p.a, p.a_row, p.a_col, p.b, p.b_row, p.b_col, p.beta, c, p.ldc, work) ==
                   GRADCAM_OK,
               "fails");
    for (int64_t i = 0; i < m; i++) {
        wrong += !good_row(&p, i, c, before);
    }
    check_that(wrong == 0, "wrong rows");
    check_intact();
}

void check_gemm(const gc_ctx *ctx)
{
    /* Around the sizes of blocks, panels and tiles. */
    static const int64_t sizes[][3] = {{1, 1, 1},     {2, 1030, 3},  {3, 65, 1030},   {4, 1, 1},       {5, 1025, 2},
                                       {513, 3, 9},   {1025, 33, 3}, {17, 17, 1025},  {6, 2049, 1},    {30, 31, 2050},
                                       {15, 1056, 7}, {7, 5, 0},     {2, 5, 0},       {560, 40, 1030}, {3, 1, 4000},
                                       {14, 32, 64},  {64, 64, 64},  {100, 100, 100}, {8, 1024, 1024}, {4, 4, 1024},
                                       {1, 17000, 5}, {3, 3100, 9}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        one(ctx, sizes[i][0], sizes[i][1], sizes[i][2]);
    }
    for (int i = 0; i < check_rounds(300); i++) {
        one(ctx, check_between(1, check_chance(2) ? 9 : 60), check_between(1, 100),
            check_between(1, check_chance(6) ? 300 : 40));
    }
}
