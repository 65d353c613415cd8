/* SPDX-License-Identifier: MIT */
/* From a network and input shapes to steps and slots: shape rules, folding of
   constants, choice of layouts. */
#include "run/plan.h"

#include <string.h>

#include "base/abi.h"
#include "run/attend.h"
#include "run/cut.h"
#include "run/fold.h"
#include "run/loop.h"
#include "run/mean.h"
#include "run/pack.h"
#include "run/prune.h"
#include "run/rows.h"
#include "run/stretch.h"
#include "run/weights.h"

static gc_status alloc_step(gc_plan *p, gc_step *s, int32_t n_in, int32_t n_out, gc_error *err)
{
    size_t in = (size_t)n_in + 1, out = (size_t)n_out + 1;
    s->in = gc_mem_alloc(p->ctx, in, sizeof *s->in);
    s->out = gc_mem_alloc(p->ctx, out, sizeof *s->out);
    s->temp = gc_mem_alloc(p->ctx, in, sizeof *s->temp);
    s->temp_memory = gc_mem_alloc(p->ctx, in, sizeof *s->temp_memory);
    s->call.in = gc_mem_alloc(p->ctx, in, sizeof(gc_tensor *));
    s->call.grad_in = gc_mem_alloc(p->ctx, in, sizeof(gc_tensor *));
    s->call.out = gc_mem_alloc(p->ctx, out, sizeof(gc_tensor *));
    s->call.grad_out = gc_mem_alloc(p->ctx, out, sizeof(gc_tensor *));
    if (!s->in || !s->out || !s->temp || !s->temp_memory || !s->call.in || !s->call.grad_in || !s->call.out ||
        !s->call.grad_out) {
        return GC_NOMEM(err);
    }
    s->call.ctx = p->ctx;
    s->call.n_in = n_in;
    s->call.n_out = n_out;
    return GRADCAM_OK;
}

void gc_plan_free_step(gc_ctx *ctx, gc_step *s)
{
    gc_mem_free(ctx, s->own_attrs);
    gc_mem_free(ctx, s->chain);
    gc_mem_free(ctx, s->own_pack);
    gc_mem_free(ctx, s->own_back_pack);
    gc_mem_free(ctx, s->own_sums_pack);
    gc_mem_free(ctx, s->in);
    gc_mem_free(ctx, s->out);
    gc_mem_free(ctx, s->temp);
    gc_mem_free(ctx, s->temp_memory);
    gc_mem_free(ctx, (void *)(uintptr_t)s->call.in);
    gc_mem_free(ctx, s->call.grad_in);
    gc_mem_free(ctx, s->call.out);
    gc_mem_free(ctx, s->call.grad_out);
}

void gc_plan_free(gc_plan *p)
{
    if (p == NULL) {
        return;
    }
    for (int32_t i = 0; p->steps != NULL && i < p->n_steps; i++) {
        gc_plan_free_step(p->ctx, &p->steps[i]);
    }
    for (int32_t i = 0; p->slots != NULL && i < p->n_slots; i++) {
        gc_mem_free(p->ctx, p->slots[i].owned);
        gc_mem_free(p->ctx, p->slots[i].scale);
        gc_mem_free(p->ctx, p->slots[i].items);
    }
    gc_mem_free(p->ctx, p->steps);
    gc_mem_free(p->ctx, p->slots);
    gc_mem_free(p->ctx, p->slot_of);
    gc_mem_free(p->ctx, p->readers);
    gc_mem_free(p->ctx, p->arena);
    gc_mem_free(p->ctx, p);
}

static void set_layout(gc_tensor *t, bool channels_last)
{
    if (channels_last && t->ndim >= 3) {
        gc_cl_strides(t->ndim, t->shape, t->strides);
    } else {
        gc_row_strides(t->ndim, t->shape, t->strides);
    }
}

/* A slot with the same elements in the asked layout; makes the copying step. */
static gc_status in_layout(gc_plan *p, int32_t slot, bool channels_last, int32_t *out, gc_error *err)
{
    gc_slot *s = &p->slots[slot];
    bool fits = channels_last && s->value.ndim >= 3 ? gc_is_cl(&s->value) : gc_is_row(&s->value);
    if (fits || s->other >= 0) {
        *out = fits ? slot : s->other;
        return GRADCAM_OK;
    }
    gc_step *step = &p->steps[p->n_steps++];
    GC_TRY(alloc_step(p, step, 1, 1, err));
    int32_t copy = gc_plan_add_slot(p, -1);
    gc_slot *c = &p->slots[copy];
    c->value = s->value;
    c->value.data = NULL;
    c->producer = p->n_steps - 1;
    set_layout(&c->value, channels_last);
    step->node = -1;
    step->in[0] = slot;
    step->out[0] = copy;
    s->other = copy;
    *out = copy;
    return GRADCAM_OK;
}

static void name_call(const gc_plan *p, gc_op_call *c, const gc_node *n, gc_error *err)
{
    c->node_name = n->name;
    c->op_name = n->op_name;
    c->attrs.items = n->attrs;
    c->attrs.count = n->n_attrs;
    c->opset = p->scope.net->opset;
    c->custom = n->custom;
    c->err = err;
}

/* Packed operands of a body's node are the same at every turn only if its weight is. */
static bool packs_last(const gc_plan *p, const gc_node *n)
{
    const gc_scope *scope = &p->scope;
    int32_t weight = n->n_in > 1 ? n->in[1] : -1;
    if (scope->depth == 0 || weight < 0) {
        return scope->depth == 0;
    }
    bool captured = weight >= scope->n_formals && weight < scope->net->n_inputs;
    return scope->net->values[weight].weight != NULL || (captured && scope->depth == 1);
}

gc_status gc_plan_begin_step(gc_plan *p, const gc_node *n, int32_t index, int32_t n_in, int32_t n_out, gc_step *s,
                             gc_error *err)
{
    memset(s, 0, sizeof *s);
    s->node = p->scope.depth > 0 ? p->scope.loop : index;
    s->pack_net = packs_last(p, n) ? p->scope.net : NULL;
    s->pack_node = index;
    s->later_turn = p->scope.later_turn;
    s->op = n->op;
    name_call(p, &s->call, n, err);
    s->call.exact = p->exact;
    s->call.half = p->half;
    return alloc_step(p, s, n_in, n_out, err);
}

/* The step of a node; input slots are those of the values as they are. */
static gc_status begin_node(gc_plan *p, const gc_node *n, int32_t index, gc_step *s, gc_error *err)
{
    GC_TRY(gc_plan_begin_step(p, n, index, n->n_in, n->n_out, s, err));
    for (int32_t i = 0; i < n->n_in; i++) {
        s->in[i] = gc_plan_slot(p, n->in[i]);
        s->call.in[i] = s->in[i] < 0 ? NULL : &p->slots[s->in[i]].value;
    }
    for (int32_t i = 0; i < n->n_out; i++) {
        s->out[i] = n->out[i] < 0 ? -1 : gc_plan_add_slot(p, n->out[i]);
        s->call.out[i] = s->out[i] < 0 ? NULL : &p->slots[s->out[i]].value;
    }
    return GRADCAM_OK;
}

/* in[0] and out[0] lie channels-last. */
static bool takes_cl(const gc_step *s)
{
    return (s->op->flags & GC_OP_CL) != 0 || s->call.channels_last;
}

static bool foldable(const gc_plan *p, const gc_step *s)
{
    if ((s->op->flags & GC_OP_SHAPE_ONLY) != 0) {
        return true;
    }
    /* Somebody asks for the gradient of a value that no input reaches, such as
       a position embedding: it is then computed like any other. */
    for (int32_t i = 0; i < s->call.n_out; i++) {
        int32_t value = s->out[i] < 0 ? -1 : p->slots[s->out[i]].net_value;
        const uint32_t wanted = GRADCAM_WATCH_GRAD | GC_WATCH_PASSING | GC_WATCH_MEAN;
        if (value >= 0 && (p->watch[value] & wanted) != 0) {
            return false;
        }
    }
    for (int32_t i = 0; i < s->call.n_in; i++) {
        if (s->in[i] >= 0 && !p->slots[s->in[i]].constant) {
            return false;
        }
    }
    return !takes_cl(s) || s->call.in[0] == NULL || s->call.in[0]->ndim < 3;
}

/* A few numbers in a file may ask for a constant of any size. */
static gc_status count_folded(gc_plan *p, gc_step *s)
{
    for (int32_t i = 0; i < s->call.n_out; i++) {
        const gc_tensor *t = s->out[i] < 0 ? NULL : &p->slots[s->out[i]].value;
        uint64_t left = p->net->max_bytes - p->folded_bytes;
        if (t != NULL && (uint64_t)gc_numel(t) > left / gc_dtype_size(t->dtype)) {
            return gc_op_fail(&s->call, GRADCAM_E_LIMIT,
                              "constants that a run computes would have more than gc_load_options.max_bytes");
        }
        p->folded_bytes += t == NULL ? 0 : (uint64_t)gc_numel(t) * gc_dtype_size(t->dtype);
    }
    return GRADCAM_OK;
}

/* What infer reads besides shapes. */
static gc_status hold_inputs(gc_plan *p, const gc_step *s, gc_error *err)
{
    bool packs = s->call.custom == NULL && (s->op->flags & GC_OP_PACKS) != 0;
    for (int32_t i = 0; i < s->call.n_in; i++) {
        if (!packs || i != 1) {
            GC_TRY(gc_plan_hold(p, s->in[i], err));
        }
    }
    return GRADCAM_OK;
}

/* The outputs hang on nothing but constants of the network. */
static bool lasts(const gc_plan *p, const gc_step *s)
{
    bool lasting = p->scope.depth == 0 && (s->op->flags & GC_OP_SHAPE_ONLY) == 0;
    for (int32_t i = 0; i < s->call.n_in && lasting; i++) {
        lasting = s->in[i] < 0 || p->slots[s->in[i]].lasting;
    }
    return lasting;
}

/* Runs the node now; its outputs become constants. */
static gc_status fold(gc_plan *p, gc_step *s, gc_error *err)
{
    bool lasting = lasts(p, s);
    GC_TRY(count_folded(p, s));
    GC_TRY(gc_plan_hold(p, s->call.n_in > 1 ? s->in[1] : -1, err));
    for (int32_t i = 0; i < s->call.n_out; i++) {
        if (s->out[i] < 0) {
            continue;
        }
        gc_slot *slot = &p->slots[s->out[i]];
        gc_row_strides(slot->value.ndim, slot->value.shape, slot->value.strides);
        slot->owned = gc_mem_alloc(p->ctx, (size_t)gc_numel(&slot->value) + 1, gc_dtype_size(slot->value.dtype));
        slot->value.data = slot->owned;
        slot->constant = 1;
        slot->lasting = lasting;
        if (slot->owned == NULL) {
            return GC_NOMEM(err);
        }
    }
    s->call.aux = gc_mem_alloc(p->ctx, s->call.aux_bytes + 1, 1);
    s->call.work = gc_mem_alloc(p->ctx, s->call.work_bytes + 1, 1);
    gc_status status = s->call.aux == NULL || s->call.work == NULL ? GC_NOMEM(err) : s->op->forward(&s->call);
    gc_mem_free(p->ctx, s->call.aux);
    gc_mem_free(p->ctx, s->call.work);
    return status;
}

static bool same_layout_cl(const gc_plan *p, const gc_step *s, const gc_tensor *out)
{
    for (int32_t i = 0; i < s->call.n_in; i++) {
        if (s->in[i] >= 0) {
            const gc_tensor *t = &p->slots[s->in[i]].value;
            if (t->ndim == out->ndim && t->ndim >= 3 && !gc_is_row(t)) {
                return true;
            }
        }
    }
    return false;
}

static void set_output_layouts(gc_plan *p, gc_step *s, int32_t step)
{
    for (int32_t i = 0; i < s->call.n_out; i++) {
        if (s->out[i] < 0) {
            continue;
        }
        gc_slot *slot = &p->slots[s->out[i]];
        bool cl = takes_cl(s) ? i == 0 : (s->op->flags & GC_OP_SAME) != 0 && same_layout_cl(p, s, &slot->value);
        set_layout(&slot->value, cl);
        if (i == 0 && s->call.view == GC_VIEW_STRIDED) {
            memcpy(slot->value.strides, s->call.view_strides, sizeof slot->value.strides);
        }
        slot->producer = step;
    }
}

/* Brings the inputs into the layout that the operator asks for.  Copies are
   steps before this one, so the step moves to the end of the list. */
static gc_status set_input_layouts(gc_plan *p, gc_step *s, gc_error *err)
{
    for (int32_t i = 0; i < s->call.n_in; i++) {
        if (s->in[i] < 0 || (s->op->flags & GC_OP_SAME) != 0) {
            continue;
        }
        bool cl = takes_cl(s) && i == 0;
        GC_TRY(in_layout(p, s->in[i], cl, &s->in[i], err));
    }
    return GRADCAM_OK;
}

/* An If whose condition is constant: its outputs are the branch's values. */
static bool take_branch(gc_plan *p, const gc_node *n)
{
    int32_t cond = (n->op->flags & GC_OP_SELECT) != 0 ? gc_plan_slot(p, n->in[0]) : -1;
    if (cond < 0 || !p->slots[cond].constant || p->slots[cond].value.dtype != GRADCAM_BOOL ||
        n->n_in != 1 + 2 * n->n_out || gc_numel(&p->slots[cond].value) != 1) {
        return false;
    }
    int32_t first = *(const unsigned char *)p->slots[cond].value.data ? 1 : 1 + n->n_out;
    for (int32_t i = 0; i < n->n_out; i++) {
        if (n->out[i] >= 0) {
            p->scope.slot_of[n->out[i]] = gc_plan_slot(p, n->in[first + i]);
        }
    }
    return true;
}

static int32_t inherited_fault(const gc_plan *p, const gc_step *s)
{
    for (int32_t i = 0; i < s->call.n_in; i++) {
        if (s->in[i] >= 0 && p->slots[s->in[i]].fault != 0) {
            return p->slots[s->in[i]].fault;
        }
    }
    return 0;
}

static void spoil(gc_plan *p, const gc_step *s, int32_t fault)
{
    for (int32_t i = 0; i < s->call.n_out; i++) {
        if (s->out[i] >= 0) {
            p->slots[s->out[i]].fault = fault;
        }
    }
}

static gc_status only_tensors(const gc_plan *p, gc_step *s)
{
    for (int32_t i = 0; i < s->call.n_in; i++) {
        if (s->in[i] >= 0 && p->slots[s->in[i]].sequence) {
            return gc_op_fail(&s->call, GRADCAM_E_UNSUPPORTED, "input %d is a sequence of tensors", (int)i);
        }
    }
    return GRADCAM_OK;
}

/* Shape rule, then constants are computed and the others become a step. */
static gc_status plan_step(gc_plan *p, gc_step *s, bool *folded, gc_error *err)
{
    GC_TRY(only_tensors(p, s));
    GC_TRY(hold_inputs(p, s, err));
    GC_TRY(s->op->infer(&s->call));
    gc_stretch_outputs(p, s);
    *folded = foldable(p, s);
    return *folded ? fold(p, s, err) : set_input_layouts(p, s, err);
}

gc_status gc_plan_end_step(gc_plan *p, gc_step *s, gc_error *err)
{
    gc_error why;
    bool folded = false;
    int32_t fault = inherited_fault(p, s);
    gc_status status = GRADCAM_OK;
    memset(&why, 0, sizeof why);
    if (fault == 0) {
        s->call.err = &why;
        status = plan_step(p, s, &folded, &why);
    }
    if (status == GRADCAM_E_NOMEM) {
        gc_plan_free_step(p->ctx, s);
        return GC_NOMEM(err);
    }
    if (status != GRADCAM_OK) {
        why.node = s->node;
        why.status = status;
        fault = gc_plan_fault(p, &why);
    }
    if (fault != 0 || folded) {
        spoil(p, s, fault);
        gc_plan_free_step(p->ctx, s);
        return GRADCAM_OK;
    }
    set_output_layouts(p, s, p->n_steps);
    p->steps[p->n_steps++] = *s;
    return GRADCAM_OK;
}

/* Loops and sequences: what they are made of is planned in their place. */
static bool is_planned(gc_plan *p, const gc_node *n)
{
    if ((n->op->flags & GC_OP_PLANNED) != 0) {
        return true;
    }
    int32_t slot = n->custom == NULL && strcmp(n->op->name, "Identity") == 0 ? gc_plan_slot(p, n->in[0]) : -1;
    return slot >= 0 && p->slots[slot].sequence;
}

static gc_status add_planned(gc_plan *p, const gc_node *n, int32_t index, gc_error *err)
{
    gc_error why;
    gc_op_call c;
    int32_t fault = 0;
    memset(&why, 0, sizeof why);
    memset(&c, 0, sizeof c);
    name_call(p, &c, n, &why);
    for (int32_t i = 0; i < n->n_in && fault == 0; i++) {
        int32_t slot = gc_plan_slot(p, n->in[i]);
        fault = slot >= 0 ? p->slots[slot].fault : 0;
    }
    gc_status status = fault == 0 ? gc_plan_unroll(p, n, index, &c) : GRADCAM_OK;
    if (status == GRADCAM_E_NOMEM) {
        return GC_NOMEM(err);
    }
    if (status != GRADCAM_OK) {
        why.node = p->scope.depth > 0 ? p->scope.loop : index;
        why.status = status;
        fault = gc_plan_fault(p, &why);
    }
    GC_TRY(gc_plan_reserve(p, (size_t)n->n_out, 0, err));
    for (int32_t i = 0; i < n->n_out && fault != 0; i++) {
        if (n->out[i] >= 0) {
            p->slots[gc_plan_add_slot(p, n->out[i])].fault = fault;
        }
    }
    return GRADCAM_OK;
}

gc_status gc_plan_add_node(gc_plan *p, int32_t index, gc_error *err)
{
    const gc_node *n = &p->scope.net->nodes[index];
    size_t operands = (size_t)n->n_in + (size_t)n->n_out;
    gc_step s;
    bool folded = false;
    /* inputs of weights and in another layout; a normalisation that is folded makes two,
       as does gc_stretch_inputs */
    GC_TRY(gc_plan_reserve(p, 2 * operands + 2, operands + 1, err));
    if (p->scope.depth == 0) {
        GC_TRY(gc_fold_batch_norm(p, n, &folded, err));
    }
    if (folded || take_branch(p, n)) {
        return GRADCAM_OK;
    }
    if (is_planned(p, n)) {
        return add_planned(p, n, index, err);
    }
    gc_status status = begin_node(p, n, index, &s, err);
    status = status == GRADCAM_OK ? gc_stretch_inputs(p, &s, err) : status;
    if (status != GRADCAM_OK) {
        gc_plan_free_step(p->ctx, &s);
        return status;
    }
    return gc_plan_end_step(p, &s, err);
}

static gc_status alloc_plan(gc_plan *p, gc_error *err)
{
    const gc_net *net = p->net;
    size_t values = (size_t)p->n_values + 1;
    GC_TRY(gc_plan_reserve(p, 2 * values, (size_t)net->n_nodes + 1, err));
    p->slot_of = gc_mem_alloc(p->ctx, values, sizeof *p->slot_of);
    p->readers = gc_mem_alloc(p->ctx, values, sizeof *p->readers);
    if (p->slot_of == NULL || p->readers == NULL) {
        return GC_NOMEM(err);
    }
    memset(p->slot_of, 0xff, values * sizeof *p->slot_of);
    p->scope.net = net;
    p->scope.slot_of = p->slot_of;
    p->scope.prefix = "";
    return GRADCAM_OK;
}

static void count_readers(gc_plan *p)
{
    for (int32_t i = 0; i < p->net->n_nodes; i++) {
        for (int32_t k = 0; k < p->net->nodes[i].n_in; k++) {
            if (p->net->nodes[i].in[k] >= 0) {
                p->readers[p->net->nodes[i].in[k]]++;
            }
        }
    }
    for (int32_t i = 0; i < p->net->n_outputs; i++) {
        p->readers[p->net->outputs[i]]++;
    }
}

static void mark_kept(gc_plan *p, const gc_wish *wish)
{
    for (int32_t i = 0; i < p->n_values; i++) {
        int32_t slot = p->slot_of[i];
        if (slot >= 0 && wish->watch[i] != 0 && gc_plan_has_value(p, slot)) {
            uint32_t what = p->slots[slot].constant ? 0 : wish->watch[i];
            p->slots[slot].kept = 1;
            p->slots[slot].want_grad = p->slots[slot].want_grad || (what & GRADCAM_WATCH_GRAD) != 0;
            p->slots[slot].passing = p->slots[slot].passing || (what & GC_WATCH_PASSING) != 0;
            gc_plan_want_mean(&p->slots[slot], wish->watch[i]);
        }
    }
    for (int32_t i = 0; i < p->net->n_outputs && wish->cut == NULL; i++) {
        int32_t slot = gc_plan_slot(p, p->net->outputs[i]);
        p->slots[slot].kept = gc_plan_has_value(p, slot);
    }
}

static gc_status build(gc_plan *p, const gc_wish *wish, gc_error *err)
{
    GC_TRY(alloc_plan(p, err));
    count_readers(p);
    for (int32_t i = 0; i < p->net->n_inputs; i++) {
        GC_TRY(gc_plan_add_input(p, i, wish->inputs[i], err));
    }
    for (int32_t i = 0; i < p->net->n_nodes; i++) {
        GC_TRY(gc_plan_add_node(p, i, err));
    }
    GC_TRY(gc_plan_reserve(p, (size_t)p->net->n_outputs, 0, err));
    mark_kept(p, wish);
    GC_TRY(wish->cut != NULL ? gc_plan_part(p, err) : gc_plan_raise(p, err));
    GC_TRY(gc_plan_prune(p, err));
    GC_TRY(gc_plan_rows(p, err));
    gc_plan_sums(p);
    gc_plan_mark_active(p);
    GC_TRY(gc_plan_attend(p, err));
    GC_TRY(gc_plan_prune(p, err));
    GC_TRY(gc_plan_memory(p, err));
    return gc_plan_pack(p, err);
}

static gc_status try_build(const gc_net *net, const gc_wish *wish, bool frozen, gc_plan **out, gc_error *err)
{
    gc_plan *p = gc_mem_alloc(net->ctx, 1, sizeof *p);
    if (p == NULL) {
        return GC_NOMEM(err);
    }
    p->ctx = net->ctx;
    p->net = net;
    p->watch = wish->watch;
    p->inner = wish->inner;
    p->n_values = net->n_values + wish->n_inner;
    p->cut = wish->cut;
    p->frozen = frozen;
    p->exact = wish->exact;
    p->half = wish->half;
    gc_status status = build(p, wish, err);
    p->watch = NULL;
    p->inner = NULL;
    p->cut = NULL;
    if (status != GRADCAM_OK) {
        gc_plan_free(p);
        return status;
    }
    *out = p;
    return GRADCAM_OK;
}

/* A shape may hang on the numbers in an input.  Then the small and the integer
   inputs are taken as constants, and other numbers make a new plan; outputs
   that still cannot be computed are an error only when nothing is watched.  A
   limit stays a limit: constants are not a way around it.  Inputs that are repeated
   have no numbers to be taken. */
gc_status gc_plan_build(const gc_net *net, const gc_wish *wish, gc_plan **out, gc_error *err)
{
    gc_error why;
    memset(&why, 0, sizeof why);
    gc_status status = try_build(net, wish, false, out, &why);
    bool final = wish->cut != NULL && wish->cut->repeat > 1;
    if (status == GRADCAM_E_NOMEM || status == GRADCAM_E_LIMIT || (final && status != GRADCAM_OK)) {
        if (err != NULL) {
            gc_abi_export(&why, sizeof why, err, sizeof why);
        }
        return status;
    }
    return status == GRADCAM_OK ? status : try_build(net, wish, true, out, err);
}
