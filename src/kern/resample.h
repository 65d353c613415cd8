/* SPDX-License-Identifier: MIT */
/* A sparse matrix along one axis of a block: interpolation and its transpose. */
#ifndef GC_KERN_RESAMPLE_H
#define GC_KERN_RESAMPLE_H

#include <stdint.h>

#include "base/ctx.h"

/* Row r has the taps start[r] .. start[r + 1] - 1: column and weight. */
typedef struct gc_resample {
    int64_t rows, cols;
    int64_t *start; /* rows + 1 */
    int32_t *index;
    float *weight;
} gc_resample;

/* to = from^T.  `to` has room for from->cols + 1 starts and as many taps. */
void gc_resample_transpose(const gc_resample *from, gc_resample *to);

/* y[outer][rows][inner] = matrix * x[outer][cols][inner].  Every element of y is
   summed by one task in the order of the taps, so the number of workers does
   not show.  Fails only when the executor does. */
gc_status gc_resample_apply(const gc_ctx *ctx, const gc_resample *m, int64_t outer, int64_t inner, const float *x,
                            float *y);

#endif
