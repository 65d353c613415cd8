/* SPDX-License-Identifier: MIT */
#include "run/fuse.h"

#include <math.h>
#include <string.h>

static bool is_op(const gc_step *s, const char *name)
{
    return s->op != NULL && s->call.custom == NULL && strcmp(s->op->name, name) == 0;
}

/* Nobody but one step reads the slot. */
static bool private_slot(const gc_slot *slot)
{
    return slot->readers == 1 && !slot->kept && slot->other < 0 && !slot->constant && slot->fault == 0;
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

/* Relu, and Clip with known bounds where it has no backward pass: its gradient
   hangs on its input, ReLU's on its output. */
static bool read_clip(const gc_plan *p, const gc_step *s, gc_fusion *f)
{
    f->lo = 0.0f;
    f->hi = INFINITY;
    if (is_op(s, "Relu")) {
        f->clip = 1;
    } else if (is_op(s, "Clip") && !s->backward) {
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

/* The only step that reads a slot. */
static int32_t reader_of(const gc_plan *p, int32_t slot, int32_t after)
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
    if (!is_op(add, "Add") || add->call.n_in != 2 || add->in[0] == add->in[1]) {
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

static int32_t only_reader(const gc_plan *p, int32_t index)
{
    const gc_step *s = &p->steps[index];
    return private_slot(&p->slots[s->result]) ? reader_of(p, s->result, index) : -1;
}

void gc_plan_fuse(gc_plan *p)
{
    for (int32_t i = 0; i < p->n_steps; i++) {
        for (int32_t k = 0; k < p->steps[i].call.n_in; k++) {
            if (p->steps[i].in[k] >= 0) {
                p->slots[p->steps[i].in[k]].readers++;
            }
        }
    }
    for (int32_t i = 0; i < p->n_steps; i++) {
        gc_step *s = &p->steps[i];
        s->result = s->call.n_out > 0 ? s->out[0] : -1;
        s->residual = -1;
        if (!s->call.fuses || s->result < 0) {
            continue;
        }
        int32_t next = only_reader(p, i);
        if (next >= 0 && fuse_add(p, i, next)) {
            next = only_reader(p, i);
        }
        if (next >= 0) {
            fuse_clip(p, i, next);
        }
    }
}
