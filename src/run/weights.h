/* SPDX-License-Identifier: MIT */
/* Constants of a plan that are not in memory: weights that the model keeps, and
   those with a BatchNormalization in them, which are made when they are packed. */
#ifndef GC_RUN_WEIGHTS_H
#define GC_RUN_WEIGHTS_H

#include "run/plan.h"

/* Writes the numbers of the slot, whose data are NULL. */
gc_status gc_plan_fetch(const gc_plan *p, int32_t slot, void *dst, gc_error *err);
/* The slot's data, if it is a constant, are there as long as the plan. */
gc_status gc_plan_hold(gc_plan *p, int32_t slot, gc_error *err);

#endif
