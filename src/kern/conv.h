/* SPDX-License-Identifier: MIT */
/* Convolution of channels-last images with packed weights.
 *
 * A gather is one dense or depthwise pass:
 *   out[image][out_first + o * out_step] =
 *       sum over taps j of weights[tap_first + j * tap_step] .
 *                          in[image][o * stride + j * dilation - pad]
 * per spatial dimension.  The forward convolution is one gather; its gradient
 * with strides s is one gather with stride 1 for each residue of the output
 * place modulo s. */
#ifndef GC_KERN_CONV_H
#define GC_KERN_CONV_H

#include <stdbool.h>

#include "base/ctx.h"
#include "kern/half.h"

typedef struct gc_conv_dim {
    int64_t in, places, stride, dilation, taps, pad; /* pad < 0: skips pixels */
    int64_t tap_first, tap_step;
    int64_t out, out_first, out_step;
} gc_conv_dim;

typedef struct gc_gather {
    const gc_kern *kern;
    gc_conv_dim dim[3];
    int64_t images, groups;
    int64_t in_c, out_c;         /* per group; depthwise: 1 and 1 */
    int64_t in_pixel, out_pixel; /* floats from pixel to pixel */
    int64_t weights_step;        /* depthwise: floats from tap to tap of the packed weights; 0: groups */
    const gc_half *half;         /* products in bfloat16 where that is faster, or NULL */
    int32_t in_half, out_half,
        residual_half; /* GC_CONV_HALF, and GC_CONV_DEPTHWISE in and out at once: elements are bfloat16 */
} gc_gather;

/* Where the weights lie: element (column, channel, tap) of group g is
   w[g * group + column * column_step + channel * channel_step + tap], the tap
   numbered as in the whole kernel of kernel[] sizes. */
typedef struct gc_conv_weights {
    const float *data;
    int64_t group, column_step, channel_step;
    int64_t kernel[3];
} gc_conv_weights;

typedef enum gc_conv_method {
    GC_CONV_DIRECT,
    GC_CONV_WINO4,
    GC_CONV_WINO2,
    GC_CONV_DEPTHWISE,
    GC_CONV_HALF
} gc_conv_method;

/* The cheapest method that fits; exact: no Winograd. */
gc_conv_method gc_conv_choose(const gc_gather *g, int32_t exact);
/* Floats of packed weights (a multiple of 16), or of scratch for `workers`
   threads; -1: too many. */
int64_t gc_conv_packed(const gc_gather *g, gc_conv_method method);
int64_t gc_conv_scratch(const gc_gather *g, gc_conv_method method, int32_t workers);
gc_status gc_conv_pack(const gc_ctx *ctx, const gc_gather *g, gc_conv_method method, const gc_conv_weights *w,
                       float *packed);
/* epi: bias rounded up as gc_conv_bias_floats says; residual and its step are
   laid out like the output.  The result does not depend on `workers`. */
gc_status gc_conv_run(const gc_ctx *ctx, const gc_gather *g, gc_conv_method method, const float *in,
                      const float *packed, const gc_epilogue *epi, float *out, float *scratch, int32_t workers);
/* Columns from `first` on, a multiple of gc_conv_unit, of dense packed weights without groups. */
int64_t gc_conv_unit(const gc_gather *g, gc_conv_method method);
const float *gc_conv_columns(const gc_gather *g, gc_conv_method method, const float *packed, int64_t first);
/* A bias is read in whole panels. */
int64_t gc_conv_bias_floats(const gc_gather *g);
/* The tap of the whole kernel that is tap `t` of the gather. */
int64_t gc_conv_whole_tap(const gc_gather *g, const gc_conv_weights *w, int64_t t);

/* Parts, one a file. */
int64_t gc_direct_scratch(const gc_gather *g);
gc_status gc_direct_run(const gc_ctx *ctx, const gc_gather *g, const float *in, const float *packed,
                        const gc_epilogue *epi, float *out, float *scratch);
int64_t gc_wino_scratch(const gc_gather *g, int32_t m, int32_t workers);
gc_status gc_wino_pack(const gc_ctx *ctx, const gc_gather *g, int32_t m, const gc_conv_weights *w, float *packed);
gc_status gc_wino_run(const gc_ctx *ctx, const gc_gather *g, int32_t m, const float *in, const float *packed,
                      const gc_epilogue *epi, float *out, float *scratch, int32_t workers);
/* Products in bfloat16 are possible. */
bool gc_half_fits(const gc_gather *g);
int64_t gc_half_packed(const gc_gather *g);
int64_t gc_half_scratch(const gc_gather *g);
int64_t gc_half_column_floats(const gc_gather *g);
gc_status gc_half_pack(const gc_ctx *ctx, const gc_gather *g, const gc_conv_weights *w, float *packed);
gc_status gc_half_run(const gc_ctx *ctx, const gc_gather *g, const void *in, const float *packed,
                      const gc_epilogue *epi, void *out, float *scratch);
/* Depthwise, all images bfloat16. */
bool gc_half_depthwise_fits(const gc_gather *g);
gc_status gc_half_depthwise_run(const gc_ctx *ctx, const gc_gather *g, const void *in, const float *weights,
                                const gc_epilogue *epi, void *out);
gc_status gc_depthwise_run(const gc_ctx *ctx, const gc_gather *g, const float *in, const float *weights,
                           const gc_epilogue *epi, float *out);

#endif
