/* SPDX-License-Identifier: MIT */
/* How rows pass through steps that work place by place, such as the products,
   normalisations and activations of a transformer. */
#ifndef GC_RUN_ROUTE_H
#define GC_RUN_ROUTE_H

#include "run/plan.h"

/* The part first .. end - 1 along one axis of a value; axis -1: the whole. */
typedef struct gc_rows {
    int32_t axis;
    int32_t reserved0;
    int64_t first, end;
} gc_rows;

enum { GC_ROUTE_INPUTS = 8 };

/* What step s (op NULL: a copy) has to read of each of its inputs to make these rows of
   out[0], its only output.  False: all of everything, as far as is known. */
bool gc_route(const gc_plan *plan, const gc_step *s, const gc_rows *rows, gc_rows in[GC_ROUTE_INPUTS]);
/* The step takes these rows of its first input and nothing else: a Gather with one
   index, or a Slice. */
bool gc_route_picks(const gc_plan *plan, const gc_step *s, gc_rows *rows);
/* The step only moves elements. */
bool gc_route_moves(const gc_step *s);
/* ... and leaves them in their order. */
bool gc_route_reshapes(const gc_step *s);

#endif
