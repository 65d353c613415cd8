/* SPDX-License-Identifier: MIT */
#ifndef GC_RUN_JOIN_H
#define GC_RUN_JOIN_H

#include "run/plan.h"

/* Values of which nothing but the shape changes are seen where they lie, without
   a copy; their gradients have storage of their own.

   Then lets the steps that make the inputs of a channels-last Concat write into its
   output, so that nothing is left to copy; only where no gradient flows through
   the inputs.  An output that is a row of neighbours within a longer one, as in
   DenseNet, becomes a part of that.  After gc_plan_fuse. */
void gc_plan_join(gc_plan *plan);

#endif
