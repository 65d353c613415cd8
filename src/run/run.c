/* SPDX-License-Identifier: MIT */
/* The public face of a run. */
#include "run/run.h"

#include <string.h>

#include "kern/half.h"
#include "run/mean.h"
#include "run/prune.h"
#include "run/restart.h"
#include "run/weights.h"

static bool shape_fits(const gc_value *v, const gc_tensor *t)
{
    if (v->ndim < 0) {
        return true;
    }
    bool fits = v->ndim == t->ndim;
    for (int32_t i = 0; fits && i < v->ndim; i++) {
        fits = v->shape[i] < 0 || v->shape[i] == t->shape[i];
    }
    return fits;
}

gc_status gc_run_create(gc_net *net, gc_run **out, gc_error *err)
{
    if (net == NULL || out == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_run_create: an argument is NULL");
    }
    gc_run *run = gc_mem_alloc(net->ctx, 1, sizeof *run);
    if (run == NULL) {
        return GC_NOMEM(err);
    }
    run->ctx = net->ctx;
    run->net = gc_net_ref(net);
    run->inputs = gc_mem_alloc(net->ctx, (size_t)net->n_inputs + 1, sizeof(gc_tensor *));
    run->watch = gc_mem_alloc(net->ctx, (size_t)net->n_values + 1, sizeof *run->watch);
    run->rule_nodes = gc_mem_alloc(net->ctx, (size_t)net->n_nodes + 1, sizeof *run->rule_nodes);
    if (run->inputs == NULL || run->watch == NULL || run->rule_nodes == NULL) {
        gc_run_destroy(run);
        return GC_NOMEM(err);
    }
    *out = run;
    return GRADCAM_OK;
}

void gc_run_destroy(gc_run *run)
{
    if (run == NULL) {
        return;
    }
    for (int32_t i = 0; run->inputs != NULL && i < run->net->n_inputs; i++) {
        gc_tensor_unref(run->inputs[i]);
    }
    gc_restart_free(run);
    gc_plan_free(run->plan);
    gc_run_free_scratch(run);
    gc_mem_free(run->ctx, run->inputs);
    gc_run_free_names(run);
    gc_mem_free(run->ctx, run->hooks);
    gc_mem_free(run->ctx, run->rule_nodes);
    gc_net *net = run->net;
    gc_mem_free(run->ctx, run);
    gc_net_unref(net);
}

gc_net *gc_run_net(gc_run *run)
{
    return run == NULL ? NULL : run->net;
}

gc_ctx *gc_run_ctx(gc_run *run)
{
    return run == NULL ? NULL : run->ctx;
}

/* The plan stays until the next prepare, so that a hook may ask for more while
   a pass is running over it. */
static void forget_plan(gc_run *run)
{
    run->stale = 1;
}

static gc_status find_input(const gc_run *run, const char *name, int32_t *out, gc_error *err)
{
    const gc_net *net = run->net;
    if (name == NULL && net->n_inputs == 1) {
        *out = 0;
        return GRADCAM_OK;
    }
    for (int32_t i = 0; name != NULL && i < net->n_inputs; i++) {
        if (strcmp(net->values[net->inputs[i]].name, name) == 0) {
            *out = i;
            return GRADCAM_OK;
        }
    }
    const char *first = net->n_inputs > 0 ? net->values[net->inputs[0]].name : "";
    if (name == NULL) {
        return gc_fail(err, GRADCAM_E_NOT_FOUND, "the network has %d inputs; name one, the first is \"%s\"",
                       (int)net->n_inputs, first);
    }
    return gc_fail(err, GRADCAM_E_NOT_FOUND, "the network has no input \"%s\"; it has %d, the first is \"%s\"", name,
                   (int)net->n_inputs, first);
}

gc_status gc_run_set_input(gc_run *run, const char *name, gc_tensor *t, gc_error *err)
{
    int32_t k = 0;
    if (run == NULL || t == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_run_set_input: an argument is NULL");
    }
    GC_TRY(find_input(run, name, &k, err));
    const gc_value *v = &run->net->values[run->net->inputs[k]];
    if (!shape_fits(v, t)) {
        char wants[GC_SHAPE_TEXT], got[GC_SHAPE_TEXT];
        return gc_fail(err, GRADCAM_E_SHAPE, "input \"%s\" takes the shape %s, but the tensor has %s", v->name,
                       gc_shape_text(v->ndim, v->shape, wants), gc_shape_text(t->ndim, t->shape, got));
    }
    if (run->inputs[k] == NULL || !gc_same_shape(run->inputs[k], t) || run->inputs[k]->dtype != t->dtype) {
        forget_plan(run);
    }
    gc_tensor_ref(t);
    gc_tensor_unref(run->inputs[k]);
    run->inputs[k] = t;
    return GRADCAM_OK;
}

static void ask_for(gc_run *run, int32_t value, uint32_t what)
{
    if ((run->watch[value] | what) != run->watch[value]) {
        run->watch[value] |= what;
        forget_plan(run);
    }
}

gc_status gc_run_watch(gc_run *run, const char *name, uint32_t what, gc_error *err)
{
    int32_t id = -1;
    if (run == NULL || what == 0 || what > (GRADCAM_WATCH_VALUE | GRADCAM_WATCH_GRAD)) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_run_watch: run is NULL or what is unknown");
    }
    GC_TRY(gc_run_enter_value(run, name, &id, err));
    ask_for(run, id, what);
    return GRADCAM_OK;
}

gc_status gc_run_watch_mean(gc_run *run, const char *name, int32_t axis, int64_t skip, gc_error *err)
{
    const uint32_t others = GRADCAM_WATCH_VALUE | GRADCAM_WATCH_GRAD | GC_WATCH_PASSING | GC_WATCH_WRITTEN;
    int32_t id = -1;
    if (run == NULL || (axis != 1 && axis != -1) || skip < 0 || skip > GC_WATCH_SKIP_MOST) {
        return gc_fail(err, GRADCAM_E_INVALID,
                       "gc_run_watch_mean: run is NULL, the axis neither 1 nor -1, or skip below 0 or too large");
    }
    GC_TRY(gc_run_enter_value(run, name, &id, err));
    uint32_t mean = GC_WATCH_MEAN | (axis < 0 ? GC_WATCH_MEAN_LAST : 0u) | (uint32_t)skip << GC_WATCH_SKIP_SHIFT;
    uint32_t watch = (run->watch[id] & others) | GRADCAM_WATCH_VALUE | mean;
    if (run->watch[id] != watch) {
        run->watch[id] = watch;
        forget_plan(run);
    }
    return GRADCAM_OK;
}

gc_status gc_run_prepare(gc_run *run, gc_error *err)
{
    if (run == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_run_prepare: run is NULL");
    }
    if (run->plan != NULL && !run->stale && !gc_plan_is_stale(run->plan, run->inputs)) {
        return GRADCAM_OK;
    }
    gc_restart_free(run);
    gc_plan_free(run->plan);
    run->plan = NULL;
    run->forwarded = 0;
    gc_wish wish = {run->watch, run->inputs, (const char *const *)run->inner, run->n_inner, run->exact,
                    run->half,  NULL};
    GC_TRY(gc_plan_build(run->net, &wish, &run->plan, err));
    run->stale = 0;
    return GRADCAM_OK;
}

gc_status gc_run_set_exact(gc_run *run, int32_t exact, gc_error *err)
{
    if (run == NULL || exact < 0 || exact > 1) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_run_set_exact: run is NULL, or exact is %d instead of 0 or 1",
                       (int)exact);
    }
    if (run->exact != exact) {
        run->exact = exact;
        forget_plan(run);
    }
    return GRADCAM_OK;
}

gc_status gc_run_set_precision(gc_run *run, gc_dtype precision, gc_error *err)
{
    if (run == NULL || (precision != GRADCAM_F32 && precision != GRADCAM_BF16)) {
        return gc_fail(err, GRADCAM_E_INVALID,
                       "gc_run_set_precision: run is NULL, or precision is neither GRADCAM_F32 nor GRADCAM_BF16");
    }
    const gc_half *half = precision == GRADCAM_BF16 ? gc_half_of(gc_kern_of(run->ctx)) : NULL;
    if (precision == GRADCAM_BF16 && half == NULL) {
        return gc_fail(
            err, GRADCAM_E_UNSUPPORTED,
            "no bfloat16 with the kernels \"%s\" here: it takes AMX or AVX512-BF16, or the kernels \"plain\"",
            gc_kern_of(run->ctx)->name);
    }
    if (run->half != half) {
        run->half = half;
        forget_plan(run);
    }
    return GRADCAM_OK;
}

gc_dtype gc_run_precision(const gc_run *run, const char **kernels)
{
    const gc_half *half = run == NULL ? NULL : run->half;
    if (kernels != NULL) {
        *kernels = half != NULL ? half->name : run != NULL ? gc_kern_of(run->ctx)->name : NULL;
    }
    return half != NULL ? GRADCAM_BF16 : GRADCAM_F32;
}

gc_status gc_run_forward(gc_run *run, gc_error *err)
{
    GC_TRY(gc_run_prepare(run, err));
    run->forwarded = 0;
    GC_TRY(gc_exec_forward(run, err));
    run->forwarded = 1;
    return GRADCAM_OK;
}

/* Names in loops may be newer than the plan. */
static int32_t slot_of(const gc_plan *p, int32_t value)
{
    return value < p->n_values ? p->slot_of[value] : -1;
}

static gc_status kept_slot(gc_run *run, const char *name, int32_t *out, gc_error *err)
{
    int32_t id = -1;
    if (run == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "run is NULL");
    }
    if (name == NULL && run->net->n_outputs == 1) {
        name = run->net->values[run->net->outputs[0]].name;
    }
    GC_TRY(gc_run_find_value(run, name, &id, err));
    if (run->plan == NULL || !run->forwarded) {
        return gc_fail(err, GRADCAM_E_STATE, "no forward pass yet; call gc_run_forward");
    }
    int32_t slot = slot_of(run->plan, id);
    if (slot >= 0) {
        GC_TRY(gc_plan_raise_slot(run->plan, slot, err));
    } else if (id >= run->net->n_values) {
        return gc_fail(err, GRADCAM_E_NOT_FOUND, "no turn of a loop made value \"%s\"", name);
    }
    if (slot < 0 || !(run->plan->slots[slot].kept || run->plan->slots[slot].constant)) {
        return gc_fail(err, GRADCAM_E_STATE, "value \"%s\" was not kept; call gc_run_watch before gc_run_forward",
                       name);
    }
    *out = slot;
    return GRADCAM_OK;
}

gc_status gc_run_backward(gc_run *run, const char *name, const gc_tensor *seed, gc_error *err)
{
    int32_t slot = -1;
    GC_TRY(kept_slot(run, name, &slot, err));
    gc_slot *s = &run->plan->slots[slot];
    const char *called = name == NULL ? "the output" : name;
    if (seed == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_run_backward: the seed is NULL");
    }
    if (!gc_same_shape(seed, &s->value)) {
        char wants[GC_SHAPE_TEXT], got[GC_SHAPE_TEXT];
        return gc_fail(err, GRADCAM_E_SHAPE, "the seed must have the shape of \"%s\", %s, but has %s", called,
                       gc_shape_text(s->value.ndim, s->value.shape, wants),
                       gc_shape_text(seed->ndim, seed->shape, got));
    }
    if (s->value.dtype != GRADCAM_F32) {
        return gc_fail(err, GRADCAM_E_NO_GRADIENT, "\"%s\" holds no floating numbers", called);
    }
    bool reaches = s->active || s->sums.used;
    if (reaches) {
        gc_tensor_convert(seed, &s->grad);
    }
    gc_status status = gc_exec_backward(run, reaches ? slot : -1, err);
    for (int32_t i = 0; i < run->plan->n_slots && status != GRADCAM_OK; i++) {
        run->plan->slots[i].has_grad = 0; /* half a gradient is none */
        run->plan->slots[i].sums.has = 0;
    }
    return status;
}

gc_status gc_run_value(gc_run *run, const char *name, gc_tensor **out, gc_error *err)
{
    int32_t slot = -1;
    GC_TRY(kept_slot(run, name, &slot, err));
    GC_TRY(gc_plan_hold(run->plan, slot, err));
    *out = &run->plan->slots[slot].value;
    return GRADCAM_OK;
}

gc_status gc_run_gradient(gc_run *run, const char *name, gc_tensor **out, gc_error *err)
{
    int32_t slot = -1;
    GC_TRY(kept_slot(run, name, &slot, err));
    gc_slot *s = &run->plan->slots[slot];
    if (!s->want_grad && !s->constant && (s->has_grad || !s->passing)) {
        return gc_fail(err, GRADCAM_E_STATE,
                       "the gradient of \"%s\" was not asked for; call gc_run_watch with "
                       "GRADCAM_WATCH_GRAD before gc_run_forward",
                       name == NULL ? "the output" : name);
    }
    if (!s->has_grad) {
        return gc_fail(err, GRADCAM_E_NO_GRADIENT,
                       "no gradient reached \"%s\": it is zero, or gc_run_backward was not "
                       "called",
                       name == NULL ? "the output" : name);
    }
    *out = &s->grad;
    return GRADCAM_OK;
}

gc_status gc_run_gradient_mean(gc_run *run, const char *name, gc_tensor **out, gc_error *err)
{
    int32_t slot = -1, id = -1;
    GC_TRY(kept_slot(run, name, &slot, err));
    GC_TRY(gc_run_find_value(run, name == NULL ? gc_net_output_name(run->net, 0) : name, &id, err));
    gc_slot *s = &run->plan->slots[slot];
    const char *called = name == NULL ? "the output" : name;
    if ((run->watch[id] & GC_WATCH_MEAN) == 0) {
        return gc_fail(err, GRADCAM_E_STATE,
                       "the mean gradient of \"%s\" was not asked for; call gc_run_watch_mean before gc_run_forward",
                       called);
    }
    if (!s->sums.wanted && !s->constant) {
        return gc_fail(err, GRADCAM_E_SHAPE, "\"%s\" has no channels, or no places beyond those to be skipped", called);
    }
    if (!s->sums.has) {
        return gc_fail(err, GRADCAM_E_NO_GRADIENT,
                       "no gradient reached \"%s\": it is zero, or gc_run_backward was not called", called);
    }
    *out = &s->sums.tensor;
    return GRADCAM_OK;
}

gc_status gc_run_describe(gc_run *run, const char *name, gc_tensor_desc *desc, gc_error *err)
{
    int32_t id = -1;
    if (run == NULL || desc == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_run_describe: an argument is NULL");
    }
    GC_TRY(gc_run_find_value(run, name, &id, err));
    int32_t slot = run->plan == NULL ? -1 : slot_of(run->plan, id);
    if (slot < 0) {
        return gc_fail(err, GRADCAM_E_STATE, "\"%s\" has no shape yet; call gc_run_prepare", name);
    }
    GC_TRY(gc_plan_raise_slot(run->plan, slot, err));
    gc_tensor_describe(&run->plan->slots[slot].value, desc);
    desc->data = NULL;
    desc->dtype = desc->dtype == GRADCAM_BF16 ? GRADCAM_F32 : desc->dtype; /* as if it had been watched */
    return GRADCAM_OK;
}

size_t gc_run_arena_bytes(const gc_run *run)
{
    return run == NULL || run->plan == NULL ? 0 : run->plan->arena_bytes + gc_restart_bytes(run);
}

gc_status gc_run_set_rule(gc_run *run, gc_rule rule, gc_error *err)
{
    if (run == NULL || rule < GRADCAM_RULE_PLAIN || rule > GRADCAM_RULE_DECONVNET) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_run_set_rule: unknown rule %d", (int)rule);
    }
    run->rule = rule;
    return GRADCAM_OK;
}

int32_t gc_run_rule_node_count(const gc_run *run)
{
    return run == NULL ? 0 : run->n_rule_nodes;
}

int32_t gc_run_rule_node(const gc_run *run, int32_t k)
{
    return run == NULL || k < 0 || k >= run->n_rule_nodes ? -1 : run->rule_nodes[k];
}

static bool grow_hooks(gc_run *run)
{
    if (run->n_hooks < run->cap_hooks) {
        return true;
    }
    int32_t capacity = run->cap_hooks * 2 + 8;
    gc_hook *hooks = gc_mem_alloc(run->ctx, (size_t)capacity, sizeof *hooks);
    if (hooks == NULL) {
        return false;
    }
    if (run->n_hooks > 0) {
        memcpy(hooks, run->hooks, (size_t)run->n_hooks * sizeof *hooks);
    }
    gc_mem_free(run->ctx, run->hooks);
    run->hooks = hooks;
    run->cap_hooks = capacity;
    return true;
}

gc_status gc_run_add_hook(gc_run *run, const char *name, uint32_t flags, gc_hook_fn fn, void *user, int32_t *hook,
                          gc_error *err)
{
    int32_t id = -1;
    if (run == NULL || fn == NULL || (flags & (GRADCAM_HOOK_FORWARD | GRADCAM_HOOK_BACKWARD)) == 0) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_run_add_hook: run or fn is NULL, or no phase is given");
    }
    GC_TRY(gc_run_enter_value(run, name, &id, err));
    if (run->hooks_made == INT32_MAX || !grow_hooks(run)) {
        return GC_NOMEM(err);
    }
    uint32_t gradient = (flags & GRADCAM_HOOK_PASSING) != 0 ? GC_WATCH_PASSING : GRADCAM_WATCH_GRAD;
    ask_for(run, id, GRADCAM_WATCH_VALUE | ((flags & GRADCAM_HOOK_BACKWARD) != 0 ? gradient : 0u));
    bool writes = (flags & GRADCAM_HOOK_BACKWARD) != 0 && (flags & GRADCAM_HOOK_WRITE) != 0;
    ask_for(run, id, writes ? GC_WATCH_WRITTEN : 0u);
    run->hooks[run->n_hooks++] = (gc_hook){fn, user, id, flags, run->hooks_made, 0};
    if (hook != NULL) {
        *hook = run->hooks_made;
    }
    run->hooks_made++;
    return GRADCAM_OK;
}

gc_status gc_run_remove_hook(gc_run *run, int32_t hook)
{
    int32_t at = run == NULL ? 0 : run->n_hooks;
    while (at > 0 && (run->hooks[at - 1].fn == NULL || run->hooks[at - 1].number != hook)) {
        at--;
    }
    if (at == 0) {
        return GRADCAM_E_NOT_FOUND;
    }
    run->hooks[at - 1].fn = NULL;
    while (run->n_hooks > 0 && run->hooks[run->n_hooks - 1].fn == NULL) { /* others may be in use by a pass */
        run->n_hooks--;
    }
    return GRADCAM_OK;
}
