/* SPDX-License-Identifier: MIT */
/* The plan of one run for given input shapes.
 *
 * A slot is storage for a value in one layout (and for its gradient); a step
 * runs a node, or copies a slot into another layout.  Times: step s runs
 * forward at time s and backward at 2S-1-s; what must outlive both passes
 * lives to 2S.  All memory comes from one arena by these lifetimes.
 */
#ifndef GC_RUN_PLAN_H
#define GC_RUN_PLAN_H

#include "graph/net.h"

typedef struct gc_block {
    size_t bytes, offset;
    int32_t first, last; /* times, inclusive; bytes == 0: unused */
} gc_block;

typedef struct gc_slot {
    gc_tensor value;
    gc_tensor grad;
    void *owned; /* folded constant data */
    /* Weights with a BatchNormalization in them: those of the slot `unscaled`, each
       output channel times its number here (owned); else NULL. */
    double *scale;
    int32_t unscaled;
    int32_t reserved0;
    gc_block memory, grad_memory;
    int32_t net_value; /* or -1 for a reordered copy */
    int32_t other;     /* the slot with the other layout, or -1 */
    int32_t producer;  /* step, or -1 */
    int32_t constant;
    int32_t kept;      /* outputs, watched and hooked values */
    int32_t want_grad; /* watched gradient */
    int32_t active;    /* a gradient flows through it */
    int32_t has_grad;  /* during and after a backward pass */
    int32_t fault;     /* 1 + index into gc_plan.faults: cannot be computed */
    int32_t unused;    /* nobody needs it, so nobody computes it */
    int32_t hidden;    /* never stored: an earlier step goes on to its successor */
    int32_t readers;   /* operands of steps, see run/fuse.c */
    /* See run/join.c: stored in another slot's block, `offset` channels in. */
    int32_t root; /* or -1 */
    int32_t writer, last_reader, narrow;
    int64_t offset;
} gc_slot;

typedef struct gc_step {
    gc_op_call call;
    const gc_op *op; /* NULL: copy in[0] to out[0] */
    int32_t *in;     /* slots, -1 absent */
    int32_t *out;
    gc_tensor *temp; /* per input: where a further gradient goes before it is added */
    gc_block *temp_memory;
    gc_block aux_memory, work_memory, back_work_memory;
    void *own_pack, *own_back_pack; /* packed operands that are not shared */
    int32_t node;                   /* or -1 */
    int32_t backward;               /* takes part in backward passes */
    int32_t fused;                  /* another step writes its output */
    int32_t result;                 /* slot that forward writes as out[0] */
    int32_t residual, bias;         /* slots it adds on the way, or -1 */
    int32_t runs_at;                /* the step with which it runs: itself, but see run/strips.h */
    int32_t before;                 /* the step before it in a chain of strips, or -1 */
} gc_step;

#define GC_MAX_FAULTS 8

typedef struct gc_plan {
    gc_ctx *ctx;
    const gc_net *net;
    const uint32_t *watch; /* per net value, during building */
    int32_t *readers;      /* per net value: nodes that read it, and outputs */
    gc_slot *slots;
    gc_step *steps;
    int32_t *slot_of; /* per net value, -1 none */
    unsigned char *arena;
    size_t arena_bytes;
    uint64_t folded_bytes; /* of constants that were computed */
    int32_t n_slots, n_steps;
    int32_t frozen;             /* small and integer inputs are constants of this plan */
    int32_t exact;              /* operators round as plain sums do */
    const struct gc_half *half; /* products in bfloat16, or NULL */
    int32_t n_faults;
    gc_error faults[GC_MAX_FAULTS];
} gc_plan;

/* A float input of more elements is data in any case. */
#define GC_FROZEN_MOST 16

/* What a run asks of a plan, per net value. */
typedef struct gc_wish {
    const uint32_t *watch;    /* GRADCAM_WATCH_* bits */
    gc_tensor *const *inputs; /* bound tensors, by position of the input */
    int32_t exact;
    const struct gc_half *half;
} gc_wish;

gc_status gc_plan_build(const gc_net *net, const gc_wish *wish, gc_plan **out, gc_error *err);
/* A frozen input holds other numbers than when the plan was made. */
bool gc_plan_is_stale(const gc_plan *plan, gc_tensor *const *inputs);
void gc_plan_free(gc_plan *plan);
void gc_plan_free_step(gc_ctx *ctx, gc_step *step);
/* For building: a new slot; the slot of a value, made for a weight at first use. */
int32_t gc_plan_add_slot(gc_plan *plan, int32_t net_value);
int32_t gc_plan_slot(gc_plan *plan, int32_t value);
/* Lifetimes and the arena; called by gc_plan_build. */
gc_status gc_plan_memory(gc_plan *plan, gc_error *err);

#endif
