/* SPDX-License-Identifier: MIT */
/* Float matrix product, blocked for the caches. */
#ifndef GC_KERN_GEMM_H
#define GC_KERN_GEMM_H

#include <stddef.h>
#include <stdint.h>

#include "base/ctx.h"

/* Number of floats of scratch that gc_gemm wants; at most about 6 MB. */
size_t gc_gemm_work(int64_t m, int64_t n, int64_t k);

/* C[m][n] = beta_acc * C + A[m][k] * B[k][n] with beta_acc 0 (C is only
   written) or 1.  A and B have any element strides, C is row-major.  Rows are
   shared out over the executor; the result does not depend on the number of
   workers.  Fails only when the executor does. */
gc_status gc_gemm(const gc_ctx *ctx, int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_col,
                  const float *b, int64_t b_row, int64_t b_col, float beta_acc, float *c, int64_t ldc, float *work);

#endif
