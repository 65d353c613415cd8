/* SPDX-License-Identifier: MIT */
/* The forward and the backward pass over a plan.  Nothing here allocates. */
#include <string.h>

#include "run/run.h"

static gc_status call_hooks(gc_run *run, const gc_slot *slot, uint32_t phase, gc_error *err)
{
    for (int32_t i = 0; i < run->n_hooks && slot->net_value >= 0; i++) {
        gc_hook hook = run->hooks[i];
        if (hook.fn == NULL || &run->plan->slots[run->plan->slot_of[hook.value]] != slot || (hook.flags & phase) == 0) {
            continue;
        }
        gc_hook_event event;
        memset(&event, 0, sizeof event);
        event.struct_size = (uint32_t)sizeof event;
        event.phase = phase;
        event.run = run;
        event.name = run->net->values[hook.value].name;
        event.tensor = (gc_tensor *)(uintptr_t)(phase == GRADCAM_HOOK_FORWARD ? &slot->value : &slot->grad);
        int32_t code = hook.fn(hook.user, &event);
        if (code != 0) {
            gc_fail(err, GRADCAM_E_CALLBACK, "a hook on \"%s\" returned %d", event.name, (int)code);
            if (err != NULL) {
                err->user_code = code;
            }
            return GRADCAM_E_CALLBACK;
        }
    }
    return GRADCAM_OK;
}

static gc_status call_output_hooks(gc_run *run, const gc_step *s, gc_error *err)
{
    const gc_plan *p = run->plan;
    for (int32_t i = 0; i < s->call.n_out; i++) {
        if (s->out[i] >= 0 && p->slots[s->out[i]].kept) {
            GC_TRY(call_hooks(run, &p->slots[s->out[i]], GRADCAM_HOOK_FORWARD, err));
        }
    }
    return GRADCAM_OK;
}

static gc_status step_forward(gc_run *run, gc_step *s, gc_error *err)
{
    gc_plan *p = run->plan;
    if (s->fused) {
        return call_output_hooks(run, s, err);
    }
    if (s->op == NULL) {
        gc_tensor_convert(&p->slots[s->in[0]].value, &p->slots[s->out[0]].value);
        return GRADCAM_OK;
    }
    s->call.err = err;
    s->call.work = s->work_memory.bytes > 0 ? p->arena + s->work_memory.offset : NULL;
    GC_TRY(s->op->forward(&s->call));
    return call_output_hooks(run, s, err);
}

gc_status gc_exec_forward(gc_run *run, gc_error *err)
{
    gc_plan *p = run->plan;
    for (int32_t i = 0; i < run->net->n_inputs; i++) {
        gc_slot *slot = &p->slots[p->slot_of[run->net->inputs[i]]];
        if (!slot->constant) {
            gc_tensor_convert(run->inputs[i], &slot->value);
        }
        GC_TRY(call_hooks(run, slot, GRADCAM_HOOK_FORWARD, err));
    }
    for (int32_t i = 0; i < p->n_steps; i++) {
        GC_TRY(gc_run_report_progress(run, GRADCAM_HOOK_FORWARD, i, err));
        GC_TRY(step_forward(run, &p->steps[i], err));
    }
    return gc_run_report_progress(run, GRADCAM_HOOK_FORWARD, p->n_steps, err);
}

static void add_into(gc_tensor *sum, const gc_tensor *part)
{
    /* Both have the same gap-free strides: they are views of one slot's shape. */
    int64_t n = gc_numel(sum);
    float *restrict to = sum->data;
    const float *restrict from = part->data;
    for (int64_t i = 0; i < n; i++) {
        to[i] += from[i];
    }
}

/* Springenberg 2015: keep where grad_output > 0; Zeiler 2014: rectify grad_output. */
static void apply_rule(gc_rule rule, const gc_tensor *grad_output, gc_tensor *grad_input)
{
    int64_t n = gc_numel(grad_output);
    const float *dy = grad_output->data;
    float *dx = grad_input->data;
    for (int64_t i = 0; i < n; i++) {
        float positive = rule == GRADCAM_RULE_GUIDED ? dx[i] : dy[i];
        dx[i] = dy[i] > 0.0f ? positive : 0.0f;
    }
}

/* Where input i's gradient is to be written: nowhere, the slot, or a temporary
   when the slot holds a part already. */
static void aim_gradients(gc_plan *p, gc_step *s)
{
    for (int32_t i = 0; i < s->call.n_in; i++) {
        gc_slot *slot = s->in[i] < 0 ? NULL : &p->slots[s->in[i]];
        s->call.grad_in[i] = NULL;
        if (slot != NULL && slot->active) {
            s->call.grad_in[i] = slot->has_grad ? &s->temp[i] : &slot->grad;
            slot->has_grad = 1;
        }
    }
}

static void gather_gradients(gc_plan *p, gc_step *s)
{
    for (int32_t i = 0; i < s->call.n_in; i++) {
        if (s->call.grad_in[i] == &s->temp[i]) {
            add_into(&p->slots[s->in[i]].grad, &s->temp[i]);
        }
    }
}

static gc_status step_gradient(gc_run *run, gc_step *s, gc_error *err)
{
    gc_plan *p = run->plan;
    if (s->op == NULL) {
        gc_tensor_convert(&p->slots[s->out[0]].grad, s->call.grad_in[0]);
        return GRADCAM_OK;
    }
    if (s->op->backward == NULL) {
        return gc_fail(err, GRADCAM_E_NO_GRADIENT, "%s (node \"%s\") has no gradient", s->call.op_name,
                       s->call.node_name);
    }
    s->call.err = err;
    s->call.work = s->back_work_memory.bytes > 0 ? p->arena + s->back_work_memory.offset : NULL;
    GC_TRY(s->op->backward(&s->call));
    if (run->rule != GRADCAM_RULE_PLAIN && (s->op->flags & GC_OP_ACTIVATION) != 0 && s->call.grad_in[0] != NULL) {
        apply_rule(run->rule, s->call.grad_out[0], s->call.grad_in[0]);
        run->rule_nodes[run->n_rule_nodes++] = s->node;
    }
    return GRADCAM_OK;
}

static gc_status step_backward(gc_run *run, gc_step *s, gc_error *err)
{
    gc_plan *p = run->plan;
    bool any = false;
    for (int32_t i = 0; i < s->call.n_out; i++) {
        gc_slot *slot = s->out[i] < 0 ? NULL : &p->slots[s->out[i]];
        bool has = slot != NULL && slot->has_grad;
        s->call.grad_out[i] = has ? &slot->grad : NULL;
        if (has) {
            GC_TRY(call_hooks(run, slot, GRADCAM_HOOK_BACKWARD, err));
        }
        any = any || has;
    }
    if (!s->backward || !any) {
        return GRADCAM_OK;
    }
    aim_gradients(p, s);
    GC_TRY(step_gradient(run, s, err));
    gather_gradients(p, s);
    return GRADCAM_OK;
}

gc_status gc_exec_backward(gc_run *run, int32_t seed, gc_error *err)
{
    gc_plan *p = run->plan;
    run->n_rule_nodes = 0;
    for (int32_t i = 0; i < p->n_slots; i++) {
        p->slots[i].has_grad = i == seed;
    }
    for (int32_t i = p->n_steps - 1; i >= 0; i--) {
        GC_TRY(gc_run_report_progress(run, GRADCAM_HOOK_BACKWARD, p->n_steps - 1 - i, err));
        GC_TRY(step_backward(run, &p->steps[i], err));
    }
    GC_TRY(gc_run_report_progress(run, GRADCAM_HOOK_BACKWARD, p->n_steps, err));
    for (int32_t i = 0; i < run->net->n_inputs; i++) {
        gc_slot *slot = &p->slots[p->slot_of[run->net->inputs[i]]];
        if (slot->has_grad) {
            GC_TRY(call_hooks(run, slot, GRADCAM_HOOK_BACKWARD, err));
        }
    }
    return GRADCAM_OK;
}
