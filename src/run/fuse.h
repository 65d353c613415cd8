/* SPDX-License-Identifier: MIT */
#ifndef GC_RUN_FUSE_H
#define GC_RUN_FUSE_H

#include "run/plan.h"

/* Lets steps write what the Add and the clipping activation after them would
   make of their result; never across a value that somebody observes.  The
   steps that are taken over keep their backward pass. */
void gc_plan_fuse(gc_plan *plan);

/* Nobody but one step reads the slot, and nobody observes it. */
bool gc_plan_private(const gc_slot *slot);
/* The first step behind `after` that reads a slot, or -1. */
int32_t gc_plan_reader(const gc_plan *plan, int32_t slot, int32_t after);

#endif
