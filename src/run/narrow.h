/* SPDX-License-Identifier: MIT */
#ifndef GC_RUN_NARROW_H
#define GC_RUN_NARROW_H

#include "run/plan.h"

/* In a run with bfloat16 products: values that lie between steps which write and
   read bfloat16, and which nobody observes and no gradient flows through, are
   stored as such.  After gc_plan_join and gc_plan_strips. */
void gc_plan_narrow(gc_plan *plan);

#endif
