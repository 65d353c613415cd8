/* SPDX-License-Identifier: MIT */
/* The forward and the backward pass over a plan.  Nothing here allocates. */
#include <string.h>

#include "kern/copy.h"
#include "run/mean.h"
#include "run/strips.h"
#include "tensor/walk.h"

static gc_status call_hooks(gc_run *run, const gc_slot *slot, uint32_t phase, gc_error *err)
{
    for (int32_t i = 0; i < run->n_hooks && slot->net_value >= 0; i++) {
        gc_hook hook = run->hooks[i];
        /* a hook that was added in this pass may be newer than the plan */
        int32_t place = hook.value < run->plan->n_values ? run->plan->slot_of[hook.value] : -1;
        if (hook.fn == NULL || place < 0 || &run->plan->slots[place] != slot || (hook.flags & phase) == 0) {
            continue;
        }
        gc_hook_event event;
        memset(&event, 0, sizeof event);
        event.struct_size = (uint32_t)sizeof event;
        event.phase = phase;
        event.run = run;
        event.name = gc_run_value_name(run, hook.value);
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

/* ---- copies between layouts and types ---- */

enum { LINES = 28 }; /* of a task */

typedef struct convert_job {
    const gc_tensor *from;
    gc_tensor *to;
} convert_job;

/* Some lines, dimension 2, of each plane. */
static void convert_task(void *task, uint32_t index)
{
    const convert_job *j = task;
    gc_tensor from = gc_tensor_alias(j->from), to = gc_tensor_alias(j->to);
    int64_t size = (int64_t)gc_dtype_size(to.dtype), first = (int64_t)index * LINES;
    from.shape[2] = to.shape[2] = first + LINES < to.shape[2] ? LINES : to.shape[2] - first;
    from.data = (char *)from.data + first * from.strides[2] * (int64_t)gc_dtype_size(from.dtype);
    to.data = (char *)to.data + first * to.strides[2] * size;
    if (from.dtype == to.dtype && size != 2) {
        gc_copy_nd(to.ndim, to.shape, to.data, to.strides, from.data, from.strides, (size_t)size);
    } else {
        gc_tensor_convert(&from, &to);
    }
}

static gc_status convert(const gc_ctx *ctx, const gc_tensor *from, gc_tensor *to, gc_error *err)
{
    convert_job j = {from, to};
    if (to->ndim < 3) {
        gc_tensor_convert(from, to);
        return GRADCAM_OK;
    }
    int64_t tasks = (to->shape[2] + LINES - 1) / LINES;
    gc_status s = tasks > UINT32_MAX ? GRADCAM_E_LIMIT : gc_parallel(ctx, convert_task, &j, (uint32_t)tasks);
    return s == GRADCAM_OK ? s : gc_fail(err, s, "the executor failed in a copy");
}

static gc_status compute(gc_plan *p, gc_step *s, gc_error *err)
{
    if (s->fused) {
        return GRADCAM_OK;
    }
    if (s->op == NULL) {
        return convert(p->ctx, &p->slots[s->in[0]].value, &p->slots[s->out[0]].value, err);
    }
    s->call.err = err;
    s->call.work = s->work_memory.bytes > 0 ? p->arena + s->work_memory.offset : NULL;
    return s->before >= 0 ? gc_strips_run(p, s) : s->op->forward(&s->call);
}

static gc_status step_forward(gc_run *run, gc_step *s, gc_error *err)
{
    GC_TRY(compute(run->plan, s, err));
    return call_output_hooks(run, s, err);
}

gc_status gc_exec_part(gc_run *run, gc_plan *part, int64_t done, int64_t total, gc_error *err)
{
    for (int32_t i = 0; i < part->n_steps; i++) {
        GC_TRY(gc_run_report_progress(run, GRADCAM_PROGRESS_VARIANTS, done, total, err));
        GC_TRY(compute(part, &part->steps[i], err));
    }
    return GRADCAM_OK;
}

gc_status gc_exec_forward(gc_run *run, gc_error *err)
{
    gc_plan *p = run->plan;
    for (int32_t i = 0; i < run->net->n_inputs; i++) {
        gc_slot *slot = &p->slots[p->slot_of[run->net->inputs[i]]];
        if (!slot->constant) {
            GC_TRY(convert(run->ctx, run->inputs[i], &p->slots[slot->goes_to].value, err));
        }
        GC_TRY(call_hooks(run, slot, GRADCAM_HOOK_FORWARD, err));
    }
    for (int32_t i = 0; i < p->n_steps; i++) {
        GC_TRY(gc_run_report_progress(run, GRADCAM_HOOK_FORWARD, i, p->n_steps, err));
        GC_TRY(step_forward(run, &p->steps[i], err));
    }
    return gc_run_report_progress(run, GRADCAM_HOOK_FORWARD, p->n_steps, p->n_steps, err);
}

/* Parts of gradients without gaps, or activations, a slice a task. */
enum { SLICE = 1 << 14 };

typedef struct part_job {
    float *to;
    const float *from;
    int64_t n;
    gc_rule rule;
} part_job;

static int64_t slice_of(const part_job *j, uint32_t index, int64_t *first)
{
    *first = (int64_t)index * SLICE;
    return j->n - *first < SLICE ? j->n - *first : SLICE;
}

static void add_slice(void *task, uint32_t index)
{
    const part_job *j = task;
    int64_t first, n = slice_of(j, index, &first);
    gc_walk_add(n, j->from + first, j->to + first, (int64_t)sizeof *j->to);
}

static void rule_slice(void *task, uint32_t index)
{
    const part_job *j = task;
    int64_t first, n = slice_of(j, index, &first);
    gc_op_rule(j->rule, n, j->from + first, (int64_t)sizeof *j->from, j->to + first);
}

static gc_status in_slices(gc_run *run, gc_task_fn fn, gc_tensor *to, const gc_tensor *from, gc_error *err)
{
    /* Both have the same gap-free strides: they are views of one slot's shape. */
    part_job j = {to->data, from->data, gc_numel(to), run->rule};
    int64_t count = (j.n + SLICE - 1) / SLICE;
    gc_status s = count > UINT32_MAX ? GRADCAM_E_LIMIT : gc_parallel(run->ctx, fn, &j, (uint32_t)count);
    return s == GRADCAM_OK ? s : gc_fail(err, s, "the executor failed in a backward pass");
}

/* Where input i's gradient is to be written: nowhere, the slot, or a temporary
   when the slot holds a part already that the operator cannot add to. */
static void aim_gradients(gc_plan *p, gc_step *s)
{
    s->call.adds = 0;
    for (int32_t i = 0; i < s->call.n_in; i++) {
        gc_slot *slot = s->in[i] < 0 ? NULL : &p->slots[s->in[i]];
        s->call.grad_in[i] = NULL;
        if (slot != NULL && slot->active) {
            bool add = slot->has_grad && i < 32 && s->op != NULL && (s->op->flags & GC_OP_FINISHES) != 0;
            s->call.grad_in[i] = slot->has_grad && !add ? &s->temp[i] : &slot->grad;
            s->call.adds |= add ? UINT32_C(1) << i : 0u;
            slot->has_grad = 1;
        }
    }
}

static gc_status gather_gradients(gc_run *run, gc_step *s, gc_error *err)
{
    gc_plan *p = run->plan;
    for (int32_t i = 0; i < s->call.n_in; i++) {
        if (s->call.grad_in[i] == &s->temp[i]) {
            GC_TRY(in_slices(run, add_slice, &p->slots[s->in[i]].grad, &s->temp[i], err));
        }
    }
    return GRADCAM_OK;
}

void gc_exec_note_rule(gc_run *run, const gc_step *s)
{
    if (run->n_rule_nodes == 0 || run->rule_nodes[run->n_rule_nodes - 1] != s->node) {
        run->rule_nodes[run->n_rule_nodes++] = s->node; /* the steps of a loop follow each other */
    }
}

static gc_status step_gradient(gc_run *run, gc_step *s, gc_error *err)
{
    gc_plan *p = run->plan;
    if (s->op == NULL) {
        return convert(p->ctx, &p->slots[s->out[0]].grad, s->call.grad_in[0], err);
    }
    if (s->op->backward == NULL) {
        return gc_fail(err, GRADCAM_E_NO_GRADIENT, "%s (node \"%s\") has no gradient", s->call.op_name,
                       s->call.node_name);
    }
    s->call.err = err;
    s->call.work = s->back_work_memory.bytes > 0 ? p->arena + s->back_work_memory.offset : NULL;
    bool ruled = run->rule != GRADCAM_RULE_PLAIN && (s->op->flags & GC_OP_ACTIVATION) != 0;
    s->call.rule = ruled ? run->rule : GRADCAM_RULE_PLAIN;
    GC_TRY(s->op->backward(&s->call));
    if (ruled && s->call.grad_in[0] != NULL) {
        if ((s->op->flags & GC_OP_FINISHES) == 0) {
            GC_TRY(in_slices(run, rule_slice, s->call.grad_in[0], s->call.grad_out[0], err));
        }
        gc_exec_note_rule(run, s);
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
        if (has && slot->sums.wanted) {
            GC_TRY(gc_exec_own_sums(run, slot, err));
        }
        any = any || has;
    }
    if (s->sums != 0) {
        GC_TRY(gc_exec_sums(run, s, err));
    }
    if (!s->backward || !any) {
        return GRADCAM_OK;
    }
    aim_gradients(p, s);
    if (s->passes) {
        return GRADCAM_OK;
    }
    GC_TRY(step_gradient(run, s, err));
    return gather_gradients(run, s, err);
}

gc_status gc_exec_backward(gc_run *run, int32_t seed, gc_error *err)
{
    gc_plan *p = run->plan;
    run->n_rule_nodes = 0;
    for (int32_t i = 0; i < p->n_slots; i++) {
        p->slots[i].has_grad = i == seed;
        p->slots[i].sums.has = 0;
    }
    for (int32_t i = p->n_steps - 1; i >= 0; i--) {
        GC_TRY(gc_run_report_progress(run, GRADCAM_HOOK_BACKWARD, p->n_steps - 1 - i, p->n_steps, err));
        GC_TRY(step_backward(run, &p->steps[i], err));
    }
    GC_TRY(gc_run_report_progress(run, GRADCAM_HOOK_BACKWARD, p->n_steps, p->n_steps, err));
    for (int32_t i = 0; i < run->net->n_inputs; i++) {
        gc_slot *slot = &p->slots[p->slot_of[run->net->inputs[i]]];
        if (slot->has_grad) {
            GC_TRY(call_hooks(run, slot, GRADCAM_HOOK_BACKWARD, err));
        }
    }
    return gc_exec_means(run, err);
}
