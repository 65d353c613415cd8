/* SPDX-License-Identifier: MIT */
/* A model without the numbers of its large weights: what has to be in memory to
   read the graph.  The numbers stay in the source until a tensor is filled. */
#ifndef GC_ONNX_OUTLINE_H
#define GC_ONNX_OUTLINE_H

#include "base/source.h"

/* raw_data of an initializer from this size on is left out. */
#define GC_OUTLINE_LEAST ((uint64_t)65536)

/* A field that is empty in the outline and has `bytes` bytes at `from` in the source. */
typedef struct gc_cut {
    size_t at; /* where the content would begin in the outline */
    uint64_t from, bytes;
} gc_cut;

/* From `at` on the outline holds what the source holds from `from` on. */
typedef struct gc_anchor {
    size_t at;
    uint64_t from;
} gc_anchor;

typedef struct gc_outline {
    gc_ctx *ctx;
    unsigned char *data;
    size_t used, size;
    gc_cut *cuts;
    size_t n_cuts, cap_cuts;
    gc_anchor *anchors;
    size_t n_anchors, cap_anchors;
} gc_outline;

/* Reads the outline of a ModelProto.  *whole: the source is small, or not as a
   model should be, and is to be read as it is; the outline is then of no use. */
gc_status gc_outline_read(gc_ctx *ctx, const gc_source *source, gc_outline *out, bool *whole, gc_error *err);
void gc_outline_free(gc_outline *o);
/* What was cut out at that place of the data, or NULL. */
const gc_cut *gc_outline_cut(const gc_outline *o, const unsigned char *place);
/* Where in the source the byte `at` of the outline lies. */
uint64_t gc_outline_place(const gc_outline *o, uint64_t at);

#endif
