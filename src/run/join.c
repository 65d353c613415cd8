/* SPDX-License-Identifier: MIT */
#include "run/join.h"

#include <string.h>

/* Concat along the channels of values that lie channels-last. */
static bool is_join(const gc_plan *p, const gc_step *s)
{
    if (s->op == NULL || s->call.custom != NULL || s->fused || strcmp(s->op->name, "Concat") != 0 || s->out[0] < 0) {
        return false;
    }
    const gc_tensor *whole = &p->slots[s->out[0]].value;
    int64_t axis = gc_attr_int(&s->call.attrs, "axis", 1);
    return (axis == 1 || axis == 1 - whole->ndim) && whole->ndim >= 3 && whole->dtype == GRADCAM_F32 &&
           gc_is_cl(whole) && !gc_is_row(whole);
}

/* Who writes and reads each slot, and whether all can do so with gaps between
   the pixels. */
static void survey(gc_plan *p)
{
    for (int32_t i = 0; i < p->n_slots; i++) {
        p->slots[i].root = -1;
        p->slots[i].writer = -1;
        p->slots[i].last_reader = -1;
        p->slots[i].narrow = 0;
    }
    for (int32_t i = 0; i < p->n_steps; i++) {
        const gc_step *s = &p->steps[i];
        if (s->op != NULL && s->result >= 0 && !s->fused) {
            p->slots[s->result].writer = i;
        }
        for (int32_t k = 0; k < s->call.n_in; k++) {
            if (s->in[k] >= 0) {
                int32_t base = p->slots[s->in[k]].base;
                gc_slot *slot = &p->slots[base >= 0 ? base : s->in[k]];
                slot->last_reader = s->runs_at > slot->last_reader ? s->runs_at : slot->last_reader;
                slot->narrow = slot->narrow || !(is_join(p, s) || (s->call.wide && k == 0));
            }
        }
    }
}

/* The step would copy elements in the order in which they lie. */
static bool is_view(const gc_plan *p, const gc_step *s)
{
    if (s->op == NULL || s->call.custom != NULL || s->fused || s->call.view == 0 || s->in[0] < 0 || s->out[0] < 0) {
        return false;
    }
    const gc_slot *in = &p->slots[s->in[0]], *out = &p->slots[s->out[0]];
    bool possible = !in->constant && !in->hidden && !in->unused && in->fault == 0 && !out->kept && !out->constant &&
                    !out->hidden && !out->unused && out->fault == 0 && in->value.dtype == out->value.dtype;
    return possible && (s->call.view == GC_VIEW_FLAT
                            ? gc_is_row(&in->value) && gc_is_row(&out->value)
                            : memcmp(out->value.strides, s->call.view_strides, sizeof s->call.view_strides) == 0);
}

static void see_through(gc_plan *p)
{
    for (int32_t i = 0; i < p->n_steps; i++) {
        gc_step *s = &p->steps[i];
        if (is_view(p, s)) {
            const gc_slot *in = &p->slots[s->in[0]];
            gc_slot *out = &p->slots[s->out[0]];
            out->root = in->root >= 0 ? in->root : s->in[0];
            out->offset = in->offset;
            out->writer = -1;
            s->fused = 1;
        }
    }
}

/* Its storage may be somewhere else, with gaps. */
static bool movable(const gc_slot *slot)
{
    return !slot->narrow && !slot->kept && !slot->active && !slot->constant && !slot->hidden && !slot->unused &&
           slot->fault == 0 && slot->other < 0 && slot->root < 0;
}

/* Somebody who sees the root, which is complete at its writer, may change it; the
   slot must not be read after that. */
static bool outlives(const gc_slot *slot, const gc_slot *root, int32_t complete)
{
    return root->kept && slot->last_reader > complete;
}

/* The part may be written where it belongs in the whole, which the step `index`
   completes. */
static bool fits(const gc_plan *p, const gc_slot *part, const gc_slot *whole, int32_t index)
{
    const gc_step *writer = part->writer < 0 ? NULL : &p->steps[part->writer];
    return movable(part) && writer != NULL && writer->call.wide && writer->residual < 0 && gc_is_cl(&part->value) &&
           !outlives(part, whole, index);
}

static void place(gc_slot *part, const gc_tensor *home, int32_t root, int64_t offset)
{
    part->root = root;
    part->offset = offset;
    memcpy(part->value.strides, home->strides, sizeof home->strides);
}

/* All inputs are neighbours within one root already: so is the output. */
static bool inherit(gc_plan *p, const gc_step *s)
{
    gc_slot *out = &p->slots[s->out[0]];
    const gc_slot *first = s->in[0] < 0 ? NULL : &p->slots[s->in[0]];
    if (first == NULL || first->root < 0 || !movable(out) ||
        outlives(out, &p->slots[first->root], p->slots[first->root].writer)) {
        return false;
    }
    int64_t at = first->offset;
    for (int32_t i = 0; i < s->call.n_in; i++) {
        const gc_slot *part = s->in[i] < 0 ? NULL : &p->slots[s->in[i]];
        if (part == NULL || part->root != first->root || part->offset != at) {
            return false;
        }
        at += part->value.shape[1];
    }
    place(out, &p->slots[first->root].value, first->root, first->offset);
    return true;
}

/* Views with strides of their own lie where their base has got to. */
static void follow_bases(gc_plan *p)
{
    for (int32_t i = 0; i < p->n_slots; i++) {
        gc_slot *s = &p->slots[i];
        if (s->base >= 0) {
            const gc_slot *base = &p->slots[s->base];
            s->root = base->root >= 0 ? base->root : s->base;
            s->offset = base->offset + s->base_at;
        }
    }
}

/* The longest of nested outputs come last, so they are looked at first. */
void gc_plan_join(gc_plan *p)
{
    survey(p);
    see_through(p);
    for (int32_t index = p->n_steps - 1; index >= 0; index--) {
        gc_step *s = &p->steps[index];
        if (!is_join(p, s) || inherit(p, s) || p->slots[s->out[0]].root >= 0) {
            continue;
        }
        const gc_slot *whole = &p->slots[s->out[0]];
        int64_t at = 0;
        for (int32_t i = 0; i < s->call.n_in; i++) {
            gc_slot *part = s->in[i] < 0 ? NULL : &p->slots[s->in[i]];
            if (part != NULL && fits(p, part, whole, index)) {
                place(part, &whole->value, s->out[0], at);
            }
            at += part != NULL ? part->value.shape[1] : 0;
        }
    }
    follow_bases(p);
}
