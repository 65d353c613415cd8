/* SPDX-License-Identifier: MIT */
/* Normalisation of rows that lie in one piece.

   With centre m and factor f of a row, xhat = f (x - m) and y = xhat s + b.
     layer, group  m = mean,  f = (var + eps)^-1/2
     mvn           m = mean,  f = 1 / (var^1/2 + 1e-9)
     rms           m = 0,     f = (mean x^2 + eps)^-1/2
     l2, l1        m = 0,     f = 1 / norm, 0 for a row of zeros
   All have the gradient, with g = dy s,
     dx = f (g - a - h b),  a = mean(g) where the row is centred, else 0,
     b = mean(g xhat) (sum for l1 and l2),  h = xhat (sign x for l1).
   LayerNormalization also hands m and f out: dm adds dm/n, df adds
   -f^2 xhat df/n. */
#ifndef GC_OPS_ROWNORM_H
#define GC_OPS_ROWNORM_H

#include "kern/half.h"
#include "ops/op.h"

enum { ROW_LAYER, ROW_RMS, ROW_MVN, ROW_L1, ROW_L2 };

typedef struct gc_row_job {
    int32_t kind;
    float epsilon;
    int64_t rows, n;
    /* Element k of row r has scale number r % groups * per_row + k / span. */
    int64_t groups, per_row, span;
    int64_t chunk; /* rows of one task */
    const gc_kern *kern;
    const float *x, *dy, *scale, *bias, *d_mean, *d_factor;
    float *y;
    const gc_half *half; /* with y_half: the result is bfloat16; there are scale and bias, and span is 1 */
    gc_bf16 *y_half;
    float *stats; /* centre and factor of each row */
} gc_row_job;

/* Input i is there and floating point. */
gc_status gc_rows_need_float(gc_op_call *c, int32_t i);
/* Rows of n elements with one scale for all; E_SHAPE when it cannot be. */
gc_status gc_rows_set(gc_op_call *c, gc_row_job *j, int64_t rows, int64_t n);
/* Needs x, y and stats (written); scale and bias may be NULL. */
gc_status gc_rows_forward(gc_op_call *c, gc_row_job *j);
/* Needs x, dy (NULL: zero), y for the gradient, and stats; scale, d_mean and
   d_factor may be NULL. */
gc_status gc_rows_backward(gc_op_call *c, gc_row_job *j);
/* sums[i] += dy, or dy xhat, over all elements whose scale or bias is number i. */
void gc_rows_scale_sums(const gc_row_job *j, bool with_x, double *sums);

#endif
