/* SPDX-License-Identifier: MIT */
#ifndef GC_RUN_CUT_H
#define GC_RUN_CUT_H

#include "run/plan.h"

/* For building a plan with plan->cut: drops every step that does not lie between
   the two values.  The slot of cut->from and those that the steps left read but
   do not make are `imported`: kept, and written by whoever runs the plan. */
gc_status gc_plan_part(gc_plan *plan, gc_error *err);

#endif
