/* SPDX-License-Identifier: MIT */
/* One execution of a network: bound inputs, wishes, hooks, and the plan. */
#ifndef GC_RUN_RUN_H
#define GC_RUN_RUN_H

#include "run/plan.h"

typedef struct gc_hook {
    gc_hook_fn fn; /* NULL: removed */
    void *user;
    int32_t value;
    uint32_t flags;
    int32_t number; /* never that of another one */
    int32_t reserved0;
} gc_hook;

typedef struct gc_scratch {
    gc_tensor tensor; /* refs 0: embedded */
    size_t bytes;
} gc_scratch;

struct gc_run {
    gc_ctx *ctx;
    gc_net *net;
    gc_plan *plan;      /* NULL before the first prepare */
    gc_tensor **inputs; /* bound, by position */
    uint32_t *watch;    /* per value, also of `inner`: what hosts and hooks asked for */
    char **inner;       /* names of values in turns of loops; their numbers follow the network's */
    int32_t n_inner, cap_inner;
    gc_hook *hooks;
    int32_t *rule_nodes; /* nodes touched by a rule in the last backward pass */
    int32_t n_hooks, cap_hooks, hooks_made;
    int32_t n_rule_nodes;
    gc_rule rule;
    int32_t forwarded;
    int32_t stale;              /* the plan no longer fits; replaced by the next prepare */
    int32_t exact;              /* asked for with gc_run_set_exact */
    const struct gc_half *half; /* asked for with gc_run_set_precision, or NULL */
    gc_progress_fn progress;
    void *progress_user;
    gc_scratch scratch[GRADCAM_SCRATCH_COUNT]; /* see gc_run_scratch */
    struct gc_restart *restart;                /* of run/restart.h, or NULL */
};

void gc_run_free_scratch(gc_run *run);

/* ---- run/names.c ---- */

/* The number of a value, or of a node's first output. */
gc_status gc_run_find_value(const gc_run *run, const char *name, int32_t *out, gc_error *err);
/* The same where the name may be new: that of a value in a turn of a loop gets a number. */
gc_status gc_run_enter_value(gc_run *run, const char *name, int32_t *out, gc_error *err);
const char *gc_run_value_name(const gc_run *run, int32_t value);
void gc_run_free_names(gc_run *run);

/* Tells the host how many steps of a pass (or variants) are done; it may stop the pass. */
gc_status gc_run_report_progress(gc_run *run, uint32_t phase, int64_t done, int64_t total, gc_error *err);

gc_status gc_exec_forward(gc_run *run, gc_error *err);
/* The steps of a plan with a cut; its imported slots are filled.  No hooks; the
   progress is that of `done` of `total` variants. */
gc_status gc_exec_part(gc_run *run, gc_plan *part, int64_t done, int64_t total, gc_error *err);
/* Gradients start at `slot`, whose grad tensor holds the seed already. */
gc_status gc_exec_backward(gc_run *run, int32_t slot, gc_error *err);
/* The run's rule, not plain, was applied at the step's node. */
void gc_exec_note_rule(gc_run *run, const gc_step *step);

#endif
