/* SPDX-License-Identifier: MIT */
#include "run/pass.h"

#include <string.h>

/* The only input to which a gradient goes, or -1. */
static int32_t active_input(const gc_plan *p, const gc_step *s)
{
    int32_t found = -1;
    for (int32_t k = 0; k < s->call.n_in; k++) {
        if (s->in[k] >= 0 && p->slots[s->in[k]].active) {
            if (found >= 0) {
                return -1;
            }
            found = k;
        }
    }
    return found;
}

static bool alike(const gc_tensor *a, const gc_tensor *b)
{
    size_t bytes = (size_t)a->ndim * sizeof *a->shape;
    return a->ndim == b->ndim && memcmp(a->shape, b->shape, bytes) == 0 && memcmp(a->strides, b->strides, bytes) == 0;
}

/* The elements of both gradients have the same order in memory. */
static bool keeps_order(const gc_step *s, int32_t k, const gc_tensor *in, const gc_tensor *out)
{
    if (s->call.view == GC_VIEW_FLAT) {
        return k == 0 && gc_is_row(in) && gc_is_row(out);
    }
    if (s->call.view == GC_VIEW_STRIDED) {
        return k == 0 && memcmp(out->strides, s->call.view_strides, sizeof out->strides) == 0;
    }
    return strcmp(s->op->name, "Add") == 0 && alike(in, out);
}

/* Nobody else adds to it, and nobody looks at it. */
static bool is_inner(const gc_slot *s)
{
    return s->active && !s->kept && !s->want_grad && !s->sums.used && s->other < 0 && s->readers == 1;
}

void gc_plan_pass(gc_plan *p)
{
    for (int32_t i = 0; i < p->n_slots; i++) {
        p->slots[i].grad_root = -1;
    }
    for (int32_t i = p->n_steps - 1; i >= 0; i--) {
        gc_step *s = &p->steps[i];
        int32_t k = s->op != NULL && s->call.custom == NULL && s->backward ? active_input(p, s) : -1;
        int32_t to = s->call.n_out == 1 ? s->out[0] : -1;
        if (k < 0 || to < 0 || !p->slots[to].active || p->slots[to].kept || p->slots[to].sums.used ||
            !is_inner(&p->slots[s->in[k]]) || !keeps_order(s, k, &p->slots[s->in[k]].value, &p->slots[to].value)) {
            continue;
        }
        p->slots[s->in[k]].grad_root = p->slots[to].grad_root >= 0 ? p->slots[to].grad_root : to;
        s->passes = 1;
    }
}
