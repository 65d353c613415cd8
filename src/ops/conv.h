/* SPDX-License-Identifier: MIT */
/* Convolution as a linear map between a big image (the input of Conv, the
 * output of ConvTranspose) and a small one, with weights
 * [small_c][big_c / groups][taps]: `gather` goes from big to small, `scatter`
 * is its transpose.  Conv is gather forward and scatter backward,
 * ConvTranspose the other way round. */
#ifndef GC_OPS_CONV_H
#define GC_OPS_CONV_H

#include "kern/conv.h"
#include "ops/op.h"
#include "ops/window.h"

typedef struct gc_conv {
    gc_window w;
    int64_t groups, big_c, small_c;
    int64_t big_g, small_g; /* channels per group */
    const gc_kern *kern;
    int32_t exact;
    int32_t workers;
} gc_conv;

/* What one direction takes: floats of packed weights with the bias in front,
   floats of scratch, and a number that tells differently packed blocks apart. */
typedef struct gc_conv_need {
    int64_t packed, scratch;
    uint64_t variant;
} gc_conv_need;
gc_status gc_conv_sizes(gc_op_call *c, const gc_conv *v, bool scatter, gc_conv_need *need);
/* Fills a block of that size from in[1] and in[2]. */
gc_status gc_conv_pack_weights(gc_op_call *c, const gc_conv *v, bool scatter, bool with_bias, float *block);
/* to = map(from) (+ bias, + what the plan fused); every element is written. */
gc_status gc_conv_apply(gc_op_call *c, const gc_conv *v, bool scatter, bool forward, const float *from,
                        const float *block, float *to, float *scratch);

#endif
