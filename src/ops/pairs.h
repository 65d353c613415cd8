/* SPDX-License-Identifier: MIT */
/* Gather and scatter operators differ only in how a position among the indices
 * maps to a place in the data: a walk visits all pairs (place in the small
 * tensor, place in the data) in a fixed order, and a pair function says what to
 * do there.  in[0] is the data, in[1] the indices; all tensors row-major. */
#ifndef GC_OPS_PAIRS_H
#define GC_OPS_PAIRS_H

#include "ops/op.h"

/* n neighbours from element `small` and `big` on. */
typedef void (*gc_pair_fn)(void *user, int64_t small, int64_t big, int64_t n);
typedef void (*gc_pair_walk)(const gc_op_call *c, gc_pair_fn fn, void *user);

/* Gather; GatherElements and ScatterElements; GatherND and ScatterND.  The
   indices were checked by gc_pairs_check. */
void gc_pairs_gather(const gc_op_call *c, gc_pair_fn fn, void *user);
void gc_pairs_elements(const gc_op_call *c, gc_pair_fn fn, void *user);
void gc_pairs_nd(const gc_op_call *c, gc_pair_fn fn, void *user);

/* Every index lies in the dimension it is for. */
gc_status gc_pairs_check(gc_op_call *c, gc_pair_walk walk);

/* For shape rules: data and integer indices are there. */
gc_status gc_pairs_need(gc_op_call *c);
/* The same, and indices fit for gc_pairs_elements. */
gc_status gc_pairs_need_elements(gc_op_call *c);
/* The shape of the small side of gc_pairs_nd with `b` batch dimensions:
   indices.shape[:-1] + data.shape[b + k:]; room for 2 * GRADCAM_MAX_DIMS. */
gc_status gc_pairs_nd_shape(gc_op_call *c, int64_t b, int64_t *shape, int32_t *count);

/* A pair function that copies the data to the small tensor, and what it needs. */
typedef struct gc_pair_copy {
    char *small, *big;
    size_t size; /* bytes of one element */
} gc_pair_copy;
void gc_pair_take(void *user, int64_t small, int64_t big, int64_t n);

#endif
