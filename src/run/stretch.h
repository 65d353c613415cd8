/* SPDX-License-Identifier: MIT */
/* A network planned for more samples than its file speaks of.
 *
 * Exporters fold the number of samples into shapes: Reshape to [1, 512], a class
 * token of shape [1, 1, 768] that is concatenated.  The plan for one sample, `ref`,
 * says which axis of a value the samples lie on: it is the one that grows when the
 * inputs are repeated.  Then the constants that fix it are replaced.
 *
 * In row-major order a value is [outer, samples, inner], and Reshape keeps that
 * order; within an axis there may be other numbers before the samples, their
 * count is gc_slot.major, such as 197 after [197, samples, 768] became
 * [197 * samples, 768].  Where an axis of 1 or several axes could hold the samples it is a
 * guess, so whoever uses such a plan has to check what it computes. */
#ifndef GC_RUN_STRETCH_H
#define GC_RUN_STRETCH_H

#include "run/plan.h"

/* The axis on which `many` has `repeat` times as many elements as `one`, all others
   being equal; -1 when none has, -2 when they differ in another way. */
int32_t gc_stretch_axis(const gc_tensor *one, const gc_tensor *many, int64_t repeat);

/* Before and after the shape rule of a step; nothing to do unless plan->cut repeats. */
gc_status gc_stretch_inputs(gc_plan *plan, gc_step *s, gc_error *err);
void gc_stretch_outputs(gc_plan *plan, const gc_step *s);

#endif
