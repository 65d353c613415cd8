/* SPDX-License-Identifier: MIT */
/* A run that is restarted in the middle: the part of its network between a value
   and an output, planned for many variants of the value at once. */
#ifndef GC_RUN_RESTART_H
#define GC_RUN_RESTART_H

#include "run/run.h"

typedef struct gc_restart {
    gc_plan *plan;   /* with a cut; for `batch` variants */
    uint32_t *watch; /* per net value: the two ends */
    gc_tensor base;  /* the value as the run has it, laid out like a variant */
    int64_t asked;   /* batch and count that the plan was made for */
    int64_t count;
    int64_t batch;
    int64_t samples;                /* leading dimension of the run's inputs */
    int32_t from, output;           /* net values */
    int32_t from_axis, output_axis; /* along which variants follow each other, or -1 */
    int32_t checked;                /* variants are known not to mix */
} gc_restart;

/* Makes run->restart, unless what is there was made for the same, and prepares the
   run.  batch 0: chosen.  Values that are needed are watched. */
gc_status gc_restart_prepare(gc_run *run, int32_t from, int32_t output, int64_t batch, int64_t count, gc_error *err);
void gc_restart_free(gc_run *run);
size_t gc_restart_bytes(const gc_run *run);
/* After a forward pass: takes over what the part reads from the run. */
gc_status gc_restart_begin(gc_run *run, gc_error *err);
/* Variant b of the value or of the output: its shape in the run, the memory of the plan. */
gc_tensor gc_restart_part(const gc_restart *r, int32_t value, int64_t b);

#endif
