/* SPDX-License-Identifier: MIT */
#ifndef GC_RUN_PASS_H
#define GC_RUN_PASS_H

#include "run/plan.h"

/* Steps whose gradient is that of their output as it lies (a reshape, a sum with
   something that gets no gradient) pass it on: both gradients share one place.
   After the strides of all slots are settled. */
void gc_plan_pass(gc_plan *plan);

#endif
