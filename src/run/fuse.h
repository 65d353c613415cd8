/* SPDX-License-Identifier: MIT */
#ifndef GC_RUN_FUSE_H
#define GC_RUN_FUSE_H

#include "run/plan.h"

/* Lets steps write what the Add and the clipping activation after them would
   make of their result; never across a value that somebody observes.  The
   steps that are taken over keep their backward pass. */
void gc_plan_fuse(gc_plan *plan);

#endif
