/* SPDX-License-Identifier: MIT */
/* Sums of a gradient over the places of a map, from step to step.
 *
 * Where y is linear in x place by place, as behind a pooling or a 1x1 convolution,
 * the sums over places of dL/dx follow from those of dL/dy: a row for each sample in the
 * place of a map. */
#ifndef GC_OPS_PLACE_SUM_H
#define GC_OPS_PLACE_SUM_H

#include "ops/op.h"

/* How the elements of a tensor, counted row-major, are samples, channels and places:
   (n channels + c) places + p, or (n places + p) channels + c where channels are
   `last`.  Sums leave out the first `skip` places. */
typedef struct gc_places {
    int64_t samples, channels, places, skip;
    int32_t last;
    int32_t reserved0;
} gc_places;

/* Sums of in[k]'s gradient from those of out[0]'s. */
typedef enum gc_sums_way {
    GC_SUMS_NONE,    /* no way */
    GC_SUMS_SAME,    /* the same numbers */
    GC_SUMS_PRODUCT, /* s_in[c] = sum_j W[j][c] s_out[j]; W is what gc_sums_pack makes, or in[1] itself */
    GC_SUMS_COUNT    /* Relu whose output has the same gradient at all places: s_in = s_out / places times
                        the number of places where the output is positive */
} gc_sums_way;

bool gc_same_places(const gc_places *a, const gc_places *b);
/* The way of in[k], whose elements are those of `in`; fills *out unless there is none.  GC_SUMS_COUNT
   needs what the operator cannot know: that nothing but such a mean reads its output. */
gc_sums_way gc_sums_way_of(gc_op_call *c, int32_t k, const gc_places *in, gc_places *out);
/* Floats of W where it is not in[1] as it lies, else 0; -1: too many. */
int64_t gc_sums_packed(const gc_op_call *c, const gc_places *in, const gc_places *out);
gc_status gc_sums_pack(gc_op_call *c, const gc_places *in, const gc_places *out, float *packed);

/* Sums are [samples][channels].  The first two add to `sums`. */
gc_status gc_sums_product(const gc_ctx *ctx, const gc_places *in, const gc_places *out, const float *weights,
                          const float *out_sums, float *sums);
void gc_sums_count(const gc_places *p, gc_rule rule, const gc_tensor *y, const float *out_sums, float *sums);
/* sums = those of a whole gradient. */
gc_status gc_sums_of(const gc_ctx *ctx, const gc_places *p, const gc_tensor *gradient, float *sums);

#endif
