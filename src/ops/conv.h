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
    const gc_half *half;                      /* products in bfloat16, or NULL */
    int64_t from_pixel, to_pixel;             /* forward of Conv: floats from pixel to pixel; 0: no gaps */
    int32_t in_half, out_half, residual_half; /* forward: elements are bfloat16 */
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
/* The gather of a Conv, and what comes behind its sums: with block NULL no bias. */
bool gc_conv_gather(const gc_conv *v, gc_gather *g);
gc_epilogue gc_conv_epilogue(const gc_op_call *c, bool forward, const float *block);
/* Floats of the bias in front of the packed weights. */
int64_t gc_conv_bias_block(const gc_conv *v, bool scatter);
/* to = map(from) (+ bias, + what the plan fused); every element is written. */
gc_status gc_conv_apply(gc_op_call *c, const gc_conv *v, bool scatter, bool forward, const float *from,
                        const float *block, float *to, float *scratch);

/* The forward pass of a Conv as one gather of kern/conv.h, for who runs it in
   parts.  packed, in and out are NULL or without meaning before the memory of a
   plan is there. */
typedef struct gc_conv_pass {
    gc_gather gather;
    gc_conv_method method;
    gc_epilogue epi;
    const float *in, *packed;
    float *out;
} gc_conv_pass;
/* False for ConvTranspose and for weights that are no constants. */
bool gc_conv_pass_of(gc_op_call *c, gc_conv_pass *pass);

/* ---- conv_columns.c: to the big image where few channels come out ---- */

bool gc_conv_by_columns(const gc_conv *v, bool scatter);
gc_status gc_conv_columns_sizes(const gc_conv *v, gc_conv_need *need);
void gc_conv_columns_pack(const gc_conv *v, const float *weights, float *packed);
/* Every element of `big` is written; bias may be NULL. */
gc_status gc_conv_columns_run(const gc_ctx *ctx, const gc_conv *v, const float *small, const float *packed,
                              const float *bias, float *big, float *scratch);

/* ---- conv_sparse.c ---- */

/* A 1x1 convolution at stride 1 without groups. */
bool gc_conv_may_be_sparse(const gc_conv *v);
/* Such a one, of whose gradient a 64th at most is not zero. */
gc_status gc_conv_is_sparse(const gc_op_call *c, const gc_conv *v, bool *sparse);
/* Writes grad_in[0] of such a one from the unpacked weights. */
gc_status gc_conv_sparse_backward(const gc_op_call *c, const gc_conv *v);

/* `elements` further on, which are bfloat16 or float32. */
static inline void *gc_conv_at(const void *p, int64_t elements, int32_t half)
{
    return (char *)(uintptr_t)p + elements * (half ? 2 : (int64_t)sizeof(float));
}

/* ---- conv_weights.c: for weights and a bias that are no constants ---- */

/* Floats of scratch that gc_conv_weight_gradient needs. */
gc_status gc_conv_weight_scratch(gc_op_call *c, const gc_conv *v, int64_t *floats);
/* Writes grad_in[1] from the big image and the gradient of the small one, or
   from the gradient of the big image and the small one. */
gc_status gc_conv_weight_gradient(gc_op_call *c, const gc_conv *v, const float *big, const float *small);
/* Writes grad_in[2]. */
void gc_conv_bias_gradient(const gc_op_call *c);

#endif
