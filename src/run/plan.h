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
#include "ops/place_sum.h"

typedef struct gc_block {
    size_t bytes, offset;
    int32_t first, last; /* times, inclusive; bytes == 0: unused */
} gc_block;

/* Sums over places of a slot's gradient, see run/mean.h. */
typedef struct gc_slot_sums {
    gc_places places;
    gc_tensor tensor; /* [samples, channels]; after a backward pass those of a watched slot are means */
    gc_block memory;
    int32_t wanted;  /* the host asked for the mean */
    int32_t used;    /* a sum of it is needed */
    int32_t whole;   /* comes from the whole gradient, which flows here */
    int32_t counts;  /* its numbers are looked at in the backward pass */
    int32_t written; /* a hook may change the whole gradient */
    int32_t has;     /* during and after a backward pass */
} gc_slot_sums;

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
    int32_t kept;             /* outputs, watched and hooked values */
    int32_t want_grad;        /* watched gradient */
    int32_t passing;          /* hooks see its gradient, which nobody asks for after the pass */
    int32_t goes_to;          /* of an input: the slot that is written in its place, or its own number */
    int32_t active;           /* a gradient flows through it */
    int32_t has_grad;         /* during and after a backward pass */
    int32_t fault;            /* 1 + index into gc_plan.faults: cannot be computed */
    int32_t unused;           /* nobody needs it, so nobody computes it */
    int32_t hidden;           /* never stored: an earlier step goes on to its successor */
    int32_t readers;          /* operands of steps, see run/fuse.c */
    int32_t half;             /* stored as bfloat16, see run/narrow.c */
    const gc_net *weight_net; /* of a weight: its network, or the body of a loop, and its number there */
    int32_t weight;
    int32_t lasting;  /* a constant of the network: the same in every plan */
    int32_t sequence; /* not a tensor but the list `items` of slots */
    int32_t n_items;
    int32_t *items;
    /* See run/join.c: stored in another slot's block, `offset` channels in. */
    int32_t root;      /* or -1 */
    int32_t grad_root; /* see run/pass.h: whose gradient this one's is, or -1 */
    int32_t writer, last_reader, narrow;
    int64_t offset;
    int32_t imported; /* see run/cut.c: written from outside */
    int64_t major;    /* see run/stretch.c */
    /* See run/attend.c: a view with any strides of the slot `base`, from its element
       base_at on. */
    int32_t base; /* or -1 */
    int64_t base_at;
    gc_slot_sums sums;
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
    gc_attr_value *own_attrs;       /* of a step that stands for a part of its node, or NULL */
    const gc_net *pack_net;         /* whose packed operands are shared, as those of its node pack_node; */
    int32_t pack_node;              /* NULL: not shared */
    int32_t later_turn;             /* in a loop: not of the first turn */
    int32_t node;                   /* or -1; in a loop: the loop */
    int32_t backward;               /* takes part in backward passes */
    int32_t fused;                  /* another step writes its output */
    int32_t result;                 /* slot that forward writes as out[0] */
    int32_t out_window;             /* view of out[0] that it writes, or 0 */
    int32_t residual, bias;         /* slots it adds on the way, or -1 */
    int32_t runs_at;                /* the step with which it runs: itself, but see run/strips.h */
    int32_t passes;                 /* see run/pass.h: nothing to do for its gradient */
    int32_t before;                 /* the step before it in a chain of strips, or -1 */
    int32_t by_columns;             /* that chain is one of run/columns.h */
    int64_t strip;                  /* lines at a time of a chain of strips that it ends */
    uint32_t sums;                  /* bit i: sums of in[i]'s gradient come of those of out[0]'s */
    gc_sums_way sums_way;           /* how */
    void *own_sums_pack;            /* see run/pack.c */
    const void *sums_packed;
    void *chain; /* what run/strips.c or run/columns.c knows of it */
} gc_step;

#define GC_MAX_FAULTS 8

/* Whose nodes are being planned: the network's, or those of the body of a loop.
   Values in a body have numbers of their own there; those that the host looks at
   have one after the network's values, too. */
typedef struct gc_scope {
    const gc_net *net;
    int32_t *slot_of;       /* per value, -1 none */
    const int32_t *seen_as; /* in a body, per value: that number, or -1; NULL: nobody looks */
    const char *prefix;     /* of names in it */
    int32_t depth;          /* 0: the network */
    int32_t loop;           /* in a body: the node of the network */
    int32_t n_formals;      /* in a body: the inputs that change from turn to turn */
    int32_t later_turn;     /* not the first, or inside one that is not */
} gc_scope;

/* A plan of a part of the network: what `output` needs and the value `from`
   reaches.  What else this part reads is imported.  See run/cut.h. */
typedef struct gc_cut {
    int32_t from, output;      /* net values */
    int64_t repeat;            /* the inputs are given as so many times the samples */
    int64_t samples;           /* before that */
    const struct gc_plan *ref; /* the plan with repeat 1, when repeat > 1 */
} gc_cut;

typedef struct gc_plan {
    gc_ctx *ctx;
    const gc_net *net;
    gc_scope scope;        /* while planning */
    const uint32_t *watch; /* per net value, during building */
    const gc_cut *cut;     /* or NULL; during building */
    int32_t *readers;      /* per net value: nodes that read it, and outputs */
    gc_slot *slots;
    gc_step *steps;
    int32_t *slot_of;         /* per net value, -1 none */
    const char *const *inner; /* names of values in bodies that the host looks at, during building */
    int32_t n_values;         /* of the network and of these names */
    int32_t cap_slots, cap_steps;
    uint64_t n_planned; /* nodes of bodies, as often as they are planned, and pieces */
    uint64_t n_items;   /* of sequences */
    unsigned char *arena;
    size_t arena_bytes;
    /* Windows of all chains of strips and of columns: task i of each has its own at
       i * window_bytes, which so stays in the cache of the thread that runs it. */
    gc_block windows;
    size_t window_bytes;
    uint64_t folded_bytes; /* of constants that were computed */
    int32_t n_slots, n_steps;
    int32_t frozen;             /* small and integer inputs are constants of this plan */
    int32_t exact;              /* operators round as plain sums do */
    const struct gc_half *half; /* products in bfloat16, or NULL */
    int32_t n_faults;
    gc_error faults[GC_MAX_FAULTS];
} gc_plan;

/* Besides GRADCAM_WATCH_*: see gc_slot.passing. */
enum { GC_WATCH_PASSING = 4 }; /* and those of run/mean.h */

/* A float input of more elements is data in any case. */
#define GC_FROZEN_MOST 16

/* What a run asks of a plan, per net value. */
typedef struct gc_wish {
    const uint32_t *watch;    /* GRADCAM_WATCH_* and GC_WATCH_* bits */
    gc_tensor *const *inputs; /* bound tensors, by position of the input */
    const char *const *inner; /* n_inner names of values in bodies; `watch` goes on with them */
    int32_t n_inner;
    int32_t exact;
    const struct gc_half *half;
    const gc_cut *cut; /* NULL: the whole network */
} gc_wish;

gc_status gc_plan_build(const gc_net *net, const gc_wish *wish, gc_plan **out, gc_error *err);
/* A frozen input holds other numbers than when the plan was made. */
bool gc_plan_is_stale(const gc_plan *plan, gc_tensor *const *inputs);
void gc_plan_free(gc_plan *plan);
void gc_plan_free_step(gc_ctx *ctx, gc_step *step);

/* ---- for building: run/slots.c; values are those of the scope ---- */

/* Whether it runs the library's own operator of that name. */
bool gc_step_is(const gc_step *step, const char *op);
/* A new slot, for a value or -1; there must be room. */
int32_t gc_plan_add_slot(gc_plan *plan, int32_t value);
/* The slot of a value, made for a weight at first use; -1 for -1. */
int32_t gc_plan_slot(gc_plan *plan, int32_t value);
/* Room for that many more slots and steps; the slots may move. */
gc_status gc_plan_reserve(gc_plan *plan, size_t slots, size_t steps, gc_error *err);
/* The slot becomes the value's. */
void gc_plan_assign(gc_plan *plan, int32_t value, int32_t slot);

/* ---- for building: run/plan.c ---- */

/* Input k, of the type and shape of a tensor that is bound to it: run/inputs.c. */
gc_status gc_plan_add_input(gc_plan *plan, int32_t k, const gc_tensor *bound, gc_error *err);
/* Plans one node of the scope. */
gc_status gc_plan_add_node(gc_plan *plan, int32_t index, gc_error *err);
/* An empty step for the node `n`, which is number `index` of the scope. */
gc_status gc_plan_begin_step(gc_plan *plan, const gc_node *n, int32_t index, int32_t n_in, int32_t n_out, gc_step *s,
                             gc_error *err);
/* Computes a step whose inputs are constant, else appends it.  An error of the operator
   becomes a fault of its outputs.  Takes what belongs to *s. */
gc_status gc_plan_end_step(gc_plan *plan, gc_step *s, gc_error *err);
/* Which slots a gradient flows through, and which steps run backward. */
void gc_plan_mark_active(gc_plan *plan);
/* Windows of so many bytes a task for the chain that a step ends, in the block of all. */
gc_status gc_plan_windows(gc_plan *plan, gc_step *step, int64_t bytes, gc_error *err);
/* Lifetimes and the arena; called by gc_plan_build. */
gc_status gc_plan_memory(gc_plan *plan, gc_error *err);

#endif
