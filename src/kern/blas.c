/* SPDX-License-Identifier: MIT */
#include "kern/blas.h"

#ifdef GC_WITH_CBLAS

#include <cblas.h>
#include <limits.h>

/* Multiply-adds below which a call costs more than it saves, and rows that are
   better multiplied as they lie. */
enum { LEAST_WORK = 1 << 18, FEW_ROWS = 3 };

bool gc_blas_built(void)
{
    return true;
}

static bool fits(int64_t x)
{
    return x > 0 && x <= INT_MAX;
}

/* Rows or columns without gaps, `lead` apart. */
static bool is_matrix(int64_t row, int64_t col, int64_t rows, int64_t cols, int64_t *lead)
{
    *lead = col == 1 ? row : col;
    return fits(*lead) && (col == 1 ? row >= cols : row == 1 && col >= rows);
}

bool gc_blas_takes(const gc_ctx *ctx, const gc_blas_product *p)
{
    int64_t lead;
    return ctx->blas && p->m > FEW_ROWS && fits(p->m) && fits(p->n) && fits(p->k) && fits(p->ldc) &&
           (double)p->m * (double)p->n * (double)p->k >= LEAST_WORK &&
           is_matrix(p->a_row, p->a_col, p->m, p->k, &lead) && is_matrix(p->b_row, p->b_col, p->k, p->n, &lead);
}

void gc_blas_multiply(const gc_blas_product *p, const float *a, const float *b, bool add, float *c)
{
    int64_t lda, ldb;
    (void)is_matrix(p->a_row, p->a_col, p->m, p->k, &lda);
    (void)is_matrix(p->b_row, p->b_col, p->k, p->n, &ldb);
    cblas_sgemm(CblasRowMajor, p->a_col == 1 ? CblasNoTrans : CblasTrans, p->b_col == 1 ? CblasNoTrans : CblasTrans,
                (int)p->m, (int)p->n, (int)p->k, 1.0f, a, (int)lda, b, (int)ldb, add ? 1.0f : 0.0f, c, (int)p->ldc);
}

#else

bool gc_blas_built(void)
{
    return false;
}

bool gc_blas_takes(const gc_ctx *ctx, const gc_blas_product *p)
{
    (void)ctx;
    (void)p;
    return false;
}

void gc_blas_multiply(const gc_blas_product *p, const float *a, const float *b, bool add, float *c)
{
    (void)p;
    (void)a;
    (void)b;
    (void)add;
    (void)c;
}

#endif
