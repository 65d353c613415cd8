/* SPDX-License-Identifier: MIT */
/* The mean over all pixels of each image and channel, channels-last. */
#ifndef GC_OPS_SPATIAL_MEAN_H
#define GC_OPS_SPATIAL_MEAN_H

#include "kern/kern.h"
#include "ops/op.h"

/* True when the input has rank 3 or more and may be averaged in at most 2^31
   pixels an image; then *work_bytes is what the forward pass needs. */
bool gc_spatial_mean_fits(const gc_tensor *x, size_t *work_bytes);
/* out[0] = mean of in[0], whatever the output's rank. */
gc_status gc_spatial_mean_forward(gc_op_call *c);
/* The parts of it, for who has the pixels in the cache.  Sums go over blocks of so
   many pixels each, the last one of an image may be shorter, */
int64_t gc_spatial_mean_block(const gc_tensor *x);
void gc_spatial_mean_sum(const gc_kern *kern, int64_t pixels, int64_t channels, const float *x, float *sum);
/* and y of an image comes from those of its blocks, [blocks][channels]. */
void gc_spatial_mean_join(int64_t blocks, int64_t pixels, int64_t channels, const float *sums, float *y);
/* grad_in[0] = grad_out[0] / pixels at every pixel. */
gc_status gc_spatial_mean_backward(gc_op_call *c);

#endif
