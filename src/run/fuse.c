/* SPDX-License-Identifier: MIT */
#include "run/fuse.h"

#include <math.h>
#include <string.h>

#include "kern/kern.h"

bool gc_plan_private(const gc_slot *slot)
{
    return slot->readers == 1 && !slot->kept && !slot->sums.counts && slot->other < 0 && !slot->constant &&
           slot->fault == 0;
}

static bool same_layout(const gc_tensor *a, const gc_tensor *b)
{
    return a->dtype == b->dtype && a->ndim == b->ndim &&
           memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape) == 0 &&
           memcmp(a->strides, b->strides, (size_t)a->ndim * sizeof *a->strides) == 0;
}

/* Clip's bound number k as a constant, or the default when it is absent. */
static bool bound(const gc_plan *p, const gc_step *s, int32_t k, float absent, float *out)
{
    int32_t slot = k < s->call.n_in ? s->in[k] : -1;
    *out = absent;
    if (slot < 0) {
        return true;
    }
    const gc_tensor *t = &p->slots[slot].value;
    if (!p->slots[slot].constant || t->dtype != GRADCAM_F32 || gc_numel(t) != 1) {
        return false;
    }
    *out = *(const float *)t->data;
    return true;
}

/* Relu, and Clip with known bounds where it has no backward pass or one that reads
   its output, as ReLU's. */
static bool read_clip(const gc_plan *p, const gc_step *s, gc_fusion *f)
{
    f->lo = 0.0f;
    f->hi = INFINITY;
    if (gc_step_is(s, "Relu")) {
        f->clip = 1;
    } else if (gc_step_is(s, "Clip") && (!s->backward || s->call.keep_out != 0)) {
        f->clip = 1;
        if (s->call.opset < 11) {
            f->lo = gc_attr_float(&s->call.attrs, "min", -INFINITY);
            f->hi = gc_attr_float(&s->call.attrs, "max", INFINITY);
        } else if (!bound(p, s, 1, -INFINITY, &f->lo) || !bound(p, s, 2, INFINITY, &f->hi)) {
            f->clip = 0;
        }
    }
    return f->clip != 0;
}

int32_t gc_plan_reader(const gc_plan *p, int32_t slot, int32_t after)
{
    for (int32_t i = after + 1; i < p->n_steps; i++) {
        for (int32_t k = 0; k < p->steps[i].call.n_in; k++) {
            if (p->steps[i].in[k] == slot) {
                return i;
            }
        }
    }
    return -1;
}

/* `step` has written what `next` would have: its result goes where that of
   `next` goes. */
static void take_over(gc_plan *p, gc_step *step, gc_step *next)
{
    p->slots[step->result].hidden = 1;
    next->fused = 1;
    step->result = next->out[0];
}

/* Add of the result and something else of the same shape that is there when
   `step` runs. */
static bool fuse_add(gc_plan *p, int32_t index, int32_t next)
{
    gc_step *s = &p->steps[index], *add = &p->steps[next];
    if (!gc_step_is(add, "Add") || add->call.n_in != 2 || add->in[0] == add->in[1]) {
        return false;
    }
    int32_t other = add->in[add->in[0] == s->result ? 1 : 0];
    const gc_slot *slot = other < 0 ? NULL : &p->slots[other];
    if (slot == NULL || slot->constant || slot->producer >= index ||
        !same_layout(&slot->value, &p->slots[s->result].value) ||
        !same_layout(&slot->value, &p->slots[add->out[0]].value)) {
        return false;
    }
    s->residual = other;
    take_over(p, s, add);
    return true;
}

/* Activations that forward alone may put in the place of a clip.  Their gradients
   hang on their inputs, so none of them may have a backward pass. */
static int32_t map_of(const gc_step *s)
{
    static const struct {
        const char *name;
        int32_t map;
    } known[] = {
        {"Sigmoid", GC_MAP_SIGMOID}, {"HardSwish", GC_MAP_HARD_SWISH}, {"Tanh", GC_MAP_TANH}, {"Mish", GC_MAP_MISH}};
    for (size_t i = 0; i < sizeof known / sizeof *known && !s->backward; i++) {
        if (gc_step_is(s, known[i].name)) {
            return 1 + known[i].map;
        }
    }
    if (gc_step_is(s, "Gelu") && !s->backward) {
        bool exact = strcmp(gc_attr_string(&s->call.attrs, "approximate", "none"), "none") == 0;
        return 1 + (exact ? GC_MAP_GELU : GC_MAP_GELU_TANH);
    }
    bool silu = gc_step_is(s, "Swish") && gc_attr_float(&s->call.attrs, "alpha", 1.0f) == 1.0f;
    return silu && !s->backward ? 1 + GC_MAP_SILU : 0;
}

static bool fuse_map(gc_plan *p, int32_t index, int32_t next)
{
    gc_step *s = &p->steps[index], *map = &p->steps[next];
    int32_t kind = map_of(map);
    if (kind == 0 || !same_layout(&p->slots[map->out[0]].value, &p->slots[s->result].value)) {
        return false;
    }
    s->call.fusion.map = kind;
    take_over(p, s, map);
    return true;
}

/* x Sigmoid(x), which exporters write as two nodes: x is read by both. */
static bool fuse_silu(gc_plan *p, int32_t index)
{
    gc_step *s = &p->steps[index];
    const gc_slot *x = &p->slots[s->result];
    if (x->readers != 2 || x->kept || x->other >= 0 || x->constant) {
        return false;
    }
    int32_t first = gc_plan_reader(p, s->result, index), last = first < 0 ? -1 : gc_plan_reader(p, s->result, first);
    gc_step *gate = first < 0 ? NULL : &p->steps[first], *mul = last < 0 ? NULL : &p->steps[last];
    if (gate == NULL || mul == NULL || !gc_step_is(gate, "Sigmoid") || !gc_step_is(mul, "Mul") || gate->backward ||
        mul->backward || mul->call.n_in != 2 || !gc_plan_private(&p->slots[gate->out[0]])) {
        return false;
    }
    int32_t other = mul->in[0] == s->result ? mul->in[1] : mul->in[0];
    if (other != gate->out[0] || !same_layout(&p->slots[mul->out[0]].value, &x->value)) {
        return false;
    }
    s->call.fusion.map = 1 + GC_MAP_SILU;
    p->slots[gate->out[0]].hidden = 1;
    gate->fused = 1;
    take_over(p, s, mul);
    return true;
}

/* The same where gradients flow: the gate's step makes the product and its gradient,
   the product's has nothing left to do. */
static void join_gate(gc_plan *p, int32_t index)
{
    gc_step *gate = &p->steps[index];
    if (!gc_step_is(gate, "Sigmoid") || !gate->backward || !gc_plan_private(&p->slots[gate->out[0]])) {
        return;
    }
    int32_t at = gc_plan_reader(p, gate->out[0], index), hidden = gate->out[0];
    gc_step *mul = &p->steps[at];
    if (!gc_step_is(mul, "Mul") || mul->call.n_in != 2 || mul->in[mul->in[0] == hidden ? 1 : 0] != gate->in[0] ||
        !same_layout(&p->slots[mul->out[0]].value, &p->slots[gate->in[0]].value)) {
        return;
    }
    gate->op = &gc_op_gate;
    gate->out[0] = mul->out[0];
    p->slots[gate->out[0]].producer = index;
    mul->out[0] = hidden;
    mul->fused = 1;
    mul->backward = 0;
    p->slots[hidden].hidden = 1;
    p->slots[hidden].active = 0;
}

/* Add of a constant that holds one number for each column. */
static bool fuse_bias(gc_plan *p, int32_t index, int32_t next)
{
    gc_step *s = &p->steps[index], *add = &p->steps[next];
    const gc_tensor *result = &p->slots[s->result].value;
    if (!gc_step_is(add, "Add") || add->call.n_in != 2 || add->in[0] == add->in[1]) {
        return false;
    }
    int32_t other = add->in[add->in[0] == s->result ? 1 : 0];
    const gc_slot *slot = other < 0 ? NULL : &p->slots[other];
    int64_t columns = result->shape[result->ndim - 1];
    if (slot == NULL || !slot->constant || slot->value.ndim < 1 || slot->value.ndim > result->ndim ||
        slot->value.shape[slot->value.ndim - 1] != columns || gc_numel(&slot->value) != columns ||
        !same_layout(&p->slots[add->out[0]].value, result)) {
        return false;
    }
    s->bias = other;
    take_over(p, s, add);
    return true;
}

static bool fuse_clip(gc_plan *p, int32_t index, int32_t next)
{
    gc_step *s = &p->steps[index], *clip = &p->steps[next];
    gc_fusion f;
    memset(&f, 0, sizeof f);
    if (!read_clip(p, clip, &f) || clip->in[0] != s->result ||
        !same_layout(&p->slots[clip->out[0]].value, &p->slots[s->result].value)) {
        return false;
    }
    s->call.fusion.clip = 1;
    s->call.fusion.lo = f.lo;
    s->call.fusion.hi = f.hi;
    take_over(p, s, clip);
    return true;
}

/* The same elements in the same order under another shape. */
static bool is_flat_view(const gc_plan *p, const gc_step *s, int32_t from)
{
    return s->op != NULL && s->call.custom == NULL && s->call.view != 0 && s->in[0] == from && s->out[0] >= 0 &&
           p->slots[s->out[0]].fault == 0 && gc_is_row(&p->slots[from].value) && gc_is_row(&p->slots[s->out[0]].value);
}

/* The only step that does something with the result, or -1. */
static int32_t only_reader(gc_plan *p, int32_t index)
{
    gc_step *s = &p->steps[index];
    while (gc_plan_private(&p->slots[s->result])) {
        int32_t next = gc_plan_reader(p, s->result, index);
        if (next < 0 || (s->call.fuses & GC_FUSE_FLAT) == 0 || !is_flat_view(p, &p->steps[next], s->result)) {
            return next;
        }
        take_over(p, s, &p->steps[next]);
    }
    return -1;
}

/* What reads an input only to bring it into another layout does so from the host's
   tensor. */
static void feed(gc_plan *p, int32_t input)
{
    gc_slot *s = &p->slots[input];
    s->goes_to = input;
    int32_t index = s->readers == 1 && s->producer < 0 ? gc_plan_reader(p, input, -1) : -1;
    gc_step *copy = index < 0 ? NULL : &p->steps[index];
    if (copy == NULL || copy->op != NULL || copy->backward || s->kept || s->active || s->constant || s->fault != 0 ||
        s->unused || p->cut != NULL) {
        return;
    }
    s->goes_to = copy->out[0];
    s->hidden = 1;
    copy->fused = 1;
    p->slots[copy->out[0]].producer = -1;
}

void gc_plan_fuse(gc_plan *p)
{
    for (int32_t i = 0; i < p->n_steps; i++) {
        for (int32_t k = 0; k < p->steps[i].call.n_in; k++) {
            int32_t slot = p->steps[i].in[k];
            if (slot >= 0) {
                p->slots[p->slots[slot].base >= 0 ? p->slots[slot].base : slot].readers++;
            }
        }
    }
    for (int32_t i = 0; i < p->net->n_inputs; i++) {
        feed(p, p->slot_of[p->net->inputs[i]]);
    }
    for (int32_t i = 0; i < p->n_steps; i++) {
        gc_step *s = &p->steps[i];
        join_gate(p, i);
        s->result = s->out_window > 0 ? s->out_window : s->call.n_out > 0 ? s->out[0] : -1;
        s->residual = -1;
        s->bias = -1;
        if (s->call.fuses == 0 || s->result < 0) {
            continue;
        }
        int32_t next = only_reader(p, i);
        if (next >= 0 && (s->call.fuses & GC_FUSE_BIAS) != 0 && fuse_bias(p, i, next)) {
            next = only_reader(p, i);
        }
        if (next >= 0 && (s->call.fuses & GC_FUSE_ADD) != 0 && fuse_add(p, i, next)) {
            next = only_reader(p, i);
        }
        bool clipped = next >= 0 && (s->call.fuses & GC_FUSE_CLIP) != 0 && fuse_clip(p, i, next);
        if (!clipped && (s->call.fuses & GC_FUSE_MAP) != 0 && !(next >= 0 && fuse_map(p, i, next))) {
            fuse_silu(p, i);
        }
    }
}
