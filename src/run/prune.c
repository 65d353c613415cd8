/* SPDX-License-Identifier: MIT */
/* Faults that wait until somebody needs the value, and steps that nobody needs. */
#include "run/prune.h"

#include <string.h>

#include "base/abi.h"

int32_t gc_plan_fault(gc_plan *p, const gc_error *why)
{
    if (p->n_faults < GC_MAX_FAULTS) {
        p->faults[p->n_faults++] = *why;
    }
    return p->n_faults; /* past the limit all share the last */
}

bool gc_plan_has_value(const gc_plan *p, int32_t slot)
{
    return p->slots[slot].fault == 0 && !p->slots[slot].sequence;
}

gc_status gc_plan_raise_slot(const gc_plan *p, int32_t slot, gc_error *err)
{
    const gc_slot *s = &p->slots[slot];
    if (s->sequence) {
        return gc_fail(err, GRADCAM_E_UNSUPPORTED, "value \"%s\" is a sequence of tensors; look at one of them",
                       s->net_value >= 0 && s->net_value < p->net->n_values ? p->net->values[s->net_value].name : "");
    }
    if (s->fault == 0) {
        return GRADCAM_OK;
    }
    const gc_error *why = &p->faults[s->fault - 1];
    if (err != NULL) {
        gc_abi_export(why, sizeof *why, err, sizeof *why);
    }
    return why->status;
}

gc_status gc_plan_raise(const gc_plan *p, gc_error *err)
{
    bool any_watched = false;
    for (int32_t i = 0; i < p->n_values; i++) {
        if (p->slot_of[i] >= 0 && p->watch[i] != 0) {
            any_watched = true;
            GC_TRY(gc_plan_raise_slot(p, p->slot_of[i], err));
        }
    }
    for (int32_t i = 0; i < p->net->n_outputs && !(p->frozen && any_watched); i++) {
        GC_TRY(gc_plan_raise_slot(p, p->slot_of[p->net->outputs[i]], err));
    }
    return GRADCAM_OK;
}

/* A step is needed when an output of it is; then so are its inputs. */
static bool mark(const gc_plan *p, const gc_step *s, unsigned char *needed)
{
    bool any = false;
    for (int32_t i = 0; i < s->call.n_out; i++) {
        any = any || (s->out[i] >= 0 && needed[s->out[i]]);
    }
    for (int32_t i = 0; i < s->call.n_in && any; i++) {
        if (s->in[i] >= 0 && !p->slots[s->in[i]].constant) {
            int32_t base = p->slots[s->in[i]].base;
            needed[base >= 0 ? base : s->in[i]] = 1;
        }
    }
    return any;
}

void gc_plan_compact(gc_plan *p, const unsigned char *step_needed)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < p->n_steps; i++) {
        gc_step *s = &p->steps[i];
        for (int32_t k = 0; k < s->call.n_out; k++) {
            if (s->out[k] >= 0) {
                p->slots[s->out[k]].producer = step_needed[i] ? kept : -1;
                p->slots[s->out[k]].unused = !step_needed[i];
            }
        }
        if (!step_needed[i]) {
            gc_plan_free_step(p->ctx, s);
        } else if (kept++ != i) {
            p->steps[kept - 1] = *s;
        }
    }
    memset(&p->steps[kept], 0, (size_t)(p->n_steps - kept) * sizeof *p->steps);
    p->n_steps = kept;
}

gc_status gc_plan_prune(gc_plan *p, gc_error *err)
{
    unsigned char *needed = gc_mem_alloc(p->ctx, (size_t)p->n_slots + (size_t)p->n_steps + 1, 1);
    if (needed == NULL) {
        return GC_NOMEM(err);
    }
    unsigned char *step_needed = needed + p->n_slots;
    for (int32_t i = 0; i < p->n_slots; i++) {
        needed[i] = p->slots[i].kept != 0;
    }
    for (int32_t i = p->n_steps - 1; i >= 0; i--) {
        step_needed[i] = mark(p, &p->steps[i], needed);
    }
    gc_plan_compact(p, step_needed);
    gc_mem_free(p->ctx, needed);
    return GRADCAM_OK;
}
