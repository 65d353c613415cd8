/* SPDX-License-Identifier: MIT */
/* A node that cannot be planned (a shape that hangs on data, say) spoils what
   depends on it and nothing else: the error is raised for the values that are
   asked for.  Branches that are not taken may so be invalid. */
#ifndef GC_RUN_PRUNE_H
#define GC_RUN_PRUNE_H

#include "run/plan.h"

/* Keeps the error; the number to put into gc_slot.fault. */
int32_t gc_plan_fault(gc_plan *plan, const gc_error *why);
/* The slot holds a tensor: it can be computed, and is no sequence. */
bool gc_plan_has_value(const gc_plan *plan, int32_t slot);
/* The error of a watched value or of an output; outputs are let pass in a frozen
   plan, the last try, when something else is watched. */
gc_status gc_plan_raise(const gc_plan *plan, gc_error *err);
gc_status gc_plan_raise_slot(const gc_plan *plan, int32_t slot, gc_error *err);
/* Drops the steps s with step_needed[s] == 0. */
void gc_plan_compact(gc_plan *plan, const unsigned char *step_needed);
/* Drops the steps that no kept value depends on. */
gc_status gc_plan_prune(gc_plan *plan, gc_error *err);

#endif
