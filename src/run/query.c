/* SPDX-License-Identifier: MIT */
/* Questions about a prepared run, and its progress. */
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

/* All turns of a loop together. */
static int64_t loop_flops(const gc_run *run, int32_t node)
{
    int64_t sum = 0;
    for (int32_t i = 0; i < run->plan->n_steps; i++) {
        const gc_step *s = &run->plan->steps[i];
        if (s->node != node || s->op == NULL || s->call.custom != NULL) {
            continue;
        }
        gc_flops_query q;
        memset(&q, 0, sizeof q);
        q.op = s->op->name;
        q.attrs = s->call.attrs;
        q.n_in = s->call.n_in;
        q.out = s->out[0] < 0 ? NULL : &run->plan->slots[s->out[0]].value;
        for (int32_t k = 0; k < s->call.n_in && k < GC_FLOPS_INPUTS; k++) {
            q.in[k] = s->in[k] < 0 ? NULL : &run->plan->slots[s->in[k]].value;
        }
        int64_t flops = q.out == NULL ? 0 : gc_op_flops(&q);
        sum = flops > INT64_MAX - sum ? INT64_MAX : sum + flops;
    }
    return sum;
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
    if (n->body != NULL) {
        return loop_flops(run, node);
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

gc_status gc_run_set_progress(gc_run *run, gc_progress_fn fn, void *user, gc_error *err)
{
    if (run == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_run_set_progress: run is NULL");
    }
    run->progress = fn;
    run->progress_user = user;
    return GRADCAM_OK;
}

gc_status gc_run_report_progress(gc_run *run, uint32_t phase, int64_t done, int64_t total, gc_error *err)
{
    if (run->progress == NULL) {
        return GRADCAM_OK;
    }
    gc_progress p;
    memset(&p, 0, sizeof p);
    p.struct_size = (uint32_t)sizeof p;
    p.phase = phase;
    p.done = (uint32_t)done;
    p.total = (uint32_t)total;
    p.run = run;
    int32_t code = run->progress(run->progress_user, &p);
    if (code == 0) {
        return GRADCAM_OK;
    }
    const char *what = phase == GRADCAM_HOOK_FORWARD ? "forward pass at step" : "backward pass at step";
    what = phase == GRADCAM_PROGRESS_VARIANTS ? "perturbation at variant" : what;
    gc_fail(err, GRADCAM_E_CANCELLED, "the progress callback stopped the %s %lld of %lld with %d", what,
            (long long)done, (long long)total, (int)code);
    if (err != NULL) {
        err->user_code = code;
    }
    return GRADCAM_E_CANCELLED;
}
