/* SPDX-License-Identifier: MIT */
/* Loop, Scan and sequences, which exist in plans only. */
#ifndef GC_RUN_LOOP_H
#define GC_RUN_LOOP_H

#include "run/plan.h"

/* A list of slots that grows. */
typedef struct gc_items {
    int32_t *slots;
    int32_t n, capacity;
} gc_items;

/* Plans what a node with GC_OP_PLANNED, or an Identity of a sequence, is made of.
   `c`: for messages about the node, which is number `index` of the scope. */
gc_status gc_plan_unroll(gc_plan *p, const gc_node *n, int32_t index, gc_op_call *c);
gc_status gc_plan_loop(gc_plan *p, const gc_node *n, int32_t index, gc_op_call *c);
gc_status gc_plan_scan(gc_plan *p, const gc_node *n, int32_t index, gc_op_call *c);

/* ---- run/sequence.c ---- */

gc_status gc_items_add(gc_plan *p, gc_items *items, int32_t slot, gc_error *err);
void gc_items_free(gc_plan *p, gc_items *items);
/* Turns and pieces may have so much of max_nodes: a file of a few bytes can ask for all
   of it, and the work of planning grows faster than its nodes. */
enum { GC_TURNS_SHARE = 8 };
/* Nodes that turns and pieces may still have. */
int64_t gc_plan_left(const gc_plan *p);
/* A constant of one number, of rank 0 or 1. */
gc_status gc_plan_scalar(gc_plan *p, gc_dtype dtype, int32_t ndim, int64_t number, int32_t *slot, gc_error *err);
/* The constant integer or bool in a slot; false: it is none. */
bool gc_plan_number(const gc_plan *p, int32_t slot, int64_t *number);
/* The slot cut along `axis` into pieces that lose it; appended to *out. */
gc_status gc_plan_cut(gc_plan *p, const gc_node *n, int32_t index, int32_t slot, int64_t axis, gc_items *out,
                      gc_op_call *c);
/* The slots side by side along a new axis. */
gc_status gc_plan_stack(gc_plan *p, const gc_node *n, int32_t index, const gc_items *items, int64_t axis, int32_t *slot,
                        gc_op_call *c);

#endif
