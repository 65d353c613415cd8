/* SPDX-License-Identifier: MIT */
#ifndef GC_RUN_MEAN_H
#define GC_RUN_MEAN_H

#include "run/run.h"

/* Means over places of a value's gradient.  From the value on, as long as what reads it
   is linear place by place, backward passes carry a row for each sample, the sum over
   places, and no map (ops/place_sum.h).  Where something else reads a value, its whole
   gradient is computed and summed up. */

/* In a word of watches: the mean, whether channels are last, a hook that may change the
   gradient, places to skip. */
enum {
    GC_WATCH_MEAN = 8,
    GC_WATCH_MEAN_LAST = 16,
    GC_WATCH_WRITTEN = 32,
    GC_WATCH_SKIP_SHIFT = 8,
    GC_WATCH_SKIP_MOST = (1 << 24) - 1
};

/* Notes what the host asked for; a value that has no channels and places has no mean. */
void gc_plan_want_mean(gc_slot *slot, uint32_t watch);
/* Which slots have sums, and of which the whole gradient is needed for them; after it
   gc_plan_mark_active. */
void gc_plan_sums(gc_plan *plan);
/* Memory for the sums of a slot. */
void gc_plan_sums_blocks(gc_plan *plan, gc_slot *slot);

/* In a backward pass: the slot's sums from its gradient, which is complete or was put
   there as the seed, unless they are there already. */
gc_status gc_exec_own_sums(gc_run *run, gc_slot *slot, gc_error *err);
/* When the gradients behind the step are complete: sums of its inputs. */
gc_status gc_exec_sums(gc_run *run, gc_step *step, gc_error *err);
/* At its end: the means that the host asked for. */
gc_status gc_exec_means(gc_run *run, gc_error *err);

#endif
