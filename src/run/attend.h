/* SPDX-License-Identifier: MIT */
#ifndef GC_RUN_ATTEND_H
#define GC_RUN_ATTEND_H

#include "run/plan.h"

/* Products and a Softmax that are attention, softmax(scale Q K^T + mask) V, become one
   step where nobody observes or differentiates what lies between.  It reads Q, K and V
   where they lie before transposing and splitting, and writes Y transposed if that is
   asked for next.  To be called before gc_plan_prune, which takes away the steps that
   nobody needs then. */
gc_status gc_plan_attend(gc_plan *plan, gc_error *err);

#endif
