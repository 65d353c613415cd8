/* SPDX-License-Identifier: MIT */
#ifndef GC_RUN_STRIPS_H
#define GC_RUN_STRIPS_H

#include "run/plan.h"

/* Depth-first strips: a wide 1x1 convolution, the depthwise one behind it and
   the 1x1 one that makes it narrow again, or two of them, or a product of each
   channel with a number (squeeze-and-excitation) and the 1x1 convolution behind it,
   run a few lines at a time, so that the wide maps between them never leave the cache.  The last step
   of a chain runs them all: the others are `fused`, their results hidden.
   Results are those of the steps one by one, to the bit. */

/* Finds the chains between values that nobody observes and that no gradient
   flows through.  After gc_plan_fuse. */
void gc_plan_strips(gc_plan *plan);
/* Makes the step's work_bytes large enough if it ends a chain. */
gc_status gc_strips_size(gc_plan *plan, gc_step *step, gc_error *err);
/* Runs the chain that `last` ends. */
gc_status gc_strips_run(gc_plan *plan, gc_step *last);

#endif
