/* SPDX-License-Identifier: MIT */
/* Products of labelled arrays, summed over labels: what Einsum and its gradient
   are made of. */
#ifndef GC_OPS_CONTRACT_H
#define GC_OPS_CONTRACT_H

#include <stdbool.h>

#include "base/ctx.h"

enum {
    GC_TERM_DIMS = 16, /* of a product on the way; no more than GC_COPY_DIMS */
    GC_TERMS = 16,
    GC_LABELS = 64
};

/* An array seen through labels, each at most once; steps in elements. */
typedef struct gc_term {
    const float *data;
    int32_t n;
    int32_t label[GC_TERM_DIMS];
    int64_t step[GC_TERM_DIMS];
} gc_term;

typedef struct gc_contraction {
    const gc_ctx *ctx;
    int64_t size[GC_LABELS]; /* of every label */
    float *work;             /* NULL: a rehearsal that only counts */
    int64_t used;            /* floats of work taken so far */
} gc_contraction;

/* dst, seen as `out`, becomes the product of the n terms summed over the labels
   that `out` does not have; labels that only `out` has repeat the result.  The
   terms are contracted from left to right.  out->data is not read.  E_LIMIT when
   a product on the way has too many dimensions or elements. */
gc_status gc_contract(gc_contraction *c, int32_t n, const gc_term *terms, const gc_term *out, float *dst);

#endif
