/* SPDX-License-Identifier: MIT */
/* Gradients of which most rows are zero: a class token alone has one in the last block
   of a transformer. */
#ifndef GC_OPS_LIVE_H
#define GC_OPS_LIVE_H

#include <stdint.h>

/* The first of the rows [rows][n] that is not zero, and how many there are up to the
   last such row; 0 of them: all is zero. */
int64_t gc_live_rows(const float *x, int64_t rows, int64_t n, int64_t *count);

#endif
