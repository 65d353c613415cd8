/* SPDX-License-Identifier: MIT */
/* Large products by the CBLAS that a build may have and a context may ask for. */
#ifndef GC_KERN_BLAS_H
#define GC_KERN_BLAS_H

#include <stdbool.h>

#include "base/ctx.h"

/* How a host asks for it, in gc_ctx_options.kernels. */
#define GC_BLAS_NAME "cblas"

/* A product of gc_gemm. */
typedef struct gc_blas_product {
    int64_t m, n, k;
    int64_t a_row, a_col, b_row, b_col, ldc;
} gc_blas_product;

/* This build has one. */
bool gc_blas_built(void);
/* The context asks, and the product is large and lies as BLAS wants it. */
bool gc_blas_takes(const gc_ctx *ctx, const gc_blas_product *p);
/* C = A B, or C += A B.  Runs on the calling thread and those of the BLAS. */
void gc_blas_multiply(const gc_blas_product *p, const float *a, const float *b, bool add, float *c);

#endif
