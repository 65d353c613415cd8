/* SPDX-License-Identifier: MIT */
#include "run/narrow.h"

#include "ops/op.h"

static bool may_be_half(const gc_slot *s)
{
    return s->value.dtype == GRADCAM_F32 && !s->constant && !s->kept && !s->active && !s->unused && s->fault == 0 &&
           (s->producer >= 0 || s->base >= 0) && !s->sequence;
}

/* The slot stays float32; true when that is news. */
static bool drop(gc_plan *p, int32_t slot)
{
    bool news = slot >= 0 && p->slots[slot].half;
    if (news) {
        p->slots[slot].half = 0;
    }
    return news;
}

/* What a step may have in bfloat16: where gradients flow, nothing. */
static uint32_t allowed(const gc_step *s)
{
    return s->op != NULL && !s->backward ? s->call.half_able : 0;
}

static bool all_half(const gc_plan *p, const gc_step *s)
{
    bool all = p->slots[s->result].half != 0;
    for (int32_t k = 0; k < s->call.n_in; k++) {
        const gc_slot *in = s->in[k] < 0 ? NULL : &p->slots[s->in[k]];
        all = all && (in == NULL || in->constant || in->half);
    }
    return all;
}

/* Drops what the step cannot read or write. */
static bool restrict_step(gc_plan *p, int32_t i)
{
    const gc_step *s = &p->steps[i];
    uint32_t able = allowed(s);
    bool news = false, same = (able & GC_HALF_SAME) != 0 && s->result >= 0 && !all_half(p, s);
    for (int32_t k = 0; k < s->call.n_in; k++) {
        bool reads = (able & GC_HALF_SAME) != 0 || (k < GC_HALF_INPUTS && (able >> k & 1u) != 0);
        news = (!reads || same ? drop(p, s->in[k]) : false) || news;
    }
    for (int32_t k = 0; k < s->call.n_out; k++) {
        int32_t slot = k == 0 ? s->result : s->out[k];
        bool writes = k == 0 && (able & (GC_HALF_OUT | GC_HALF_SAME)) != 0;
        news = (!writes || same ? drop(p, slot) : false) || news;
    }
    return ((able & GC_HALF_RESIDUAL) == 0 ? drop(p, s->residual) : false) || news;
}

/* Parts and views have the type of what they lie in. */
static bool restrict_parts(gc_plan *p)
{
    bool news = false;
    for (int32_t i = 0; i < p->n_slots; i++) {
        int32_t root = p->slots[i].root;
        if (root >= 0 && p->slots[i].half != p->slots[root].half) {
            news = drop(p, i) || news;
            news = drop(p, root) || news;
        }
    }
    return news;
}

void gc_plan_narrow(gc_plan *p)
{
    for (int32_t i = 0; i < p->n_slots && p->half != NULL; i++) {
        p->slots[i].half = may_be_half(&p->slots[i]);
    }
    for (bool news = p->half != NULL; news;) {
        news = restrict_parts(p);
        for (int32_t i = 0; i < p->n_steps; i++) {
            /* Those that an earlier step has taken over do not run. */
            if (!p->steps[i].fused || p->steps[i].runs_at != i) {
                news = restrict_step(p, i) || news;
            }
        }
    }
    for (int32_t i = 0; i < p->n_slots; i++) {
        if (p->slots[i].half) {
            p->slots[i].value.dtype = GRADCAM_BF16;
        }
    }
}
