/* SPDX-License-Identifier: MIT */
/* Questions about a prepared run. */
#include <string.h>

#include "ops/flops.h"
#include "run/run.h"

/* The tensor of a value as the plan has it: shapes count, data may be NULL. */
static const gc_tensor *tensor_of(const gc_run *run, int32_t value)
{
    int32_t slot = value < 0 ? -1 : run->plan->slot_of[value];
    return slot >= 0 ? &run->plan->slots[slot].value : value >= 0 ? run->net->values[value].weight : NULL;
}

/* Where a node's result lies.  A convolution that took in the normalisation
   after it has no value of its own any more, but its step is there. */
static int32_t output_slot(const gc_run *run, int32_t node)
{
    const gc_node *n = &run->net->nodes[node];
    int32_t slot = n->n_out < 1 || n->out[0] < 0 ? -1 : run->plan->slot_of[n->out[0]];
    for (int32_t i = 0; i < run->plan->n_steps && slot < 0; i++) {
        const gc_step *s = &run->plan->steps[i];
        slot = s->node == node && s->call.n_out > 0 ? s->out[0] : -1;
    }
    return slot;
}

int64_t gc_run_node_flops(const gc_run *run, int32_t node)
{
    if (run == NULL || run->plan == NULL || node < 0 || node >= run->net->n_nodes) {
        return -1;
    }
    const gc_node *n = &run->net->nodes[node];
    int32_t slot = output_slot(run, node);
    if (slot < 0 || run->plan->slots[slot].constant || run->plan->slots[slot].unused || n->custom != NULL) {
        return 0; /* computed while preparing, not at all, or nobody knows */
    }
    if (run->plan->slots[slot].fault != 0) {
        return -1;
    }
    gc_flops_query q;
    memset(&q, 0, sizeof q);
    q.op = n->op_name;
    q.attrs.items = n->attrs;
    q.attrs.count = n->n_attrs;
    q.n_in = n->n_in;
    q.out = &run->plan->slots[slot].value;
    for (int32_t i = 0; i < n->n_in && i < GC_FLOPS_INPUTS; i++) {
        q.in[i] = tensor_of(run, n->in[i]);
    }
    return gc_op_flops(&q);
}
