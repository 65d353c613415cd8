/* SPDX-License-Identifier: MIT */
/* Slots of a plan: which value has which, and room for more. */
#include <string.h>

#include "run/plan.h"

/* The number under which slots know a value of the scope. */
static int32_t known_as(const gc_plan *p, int32_t value)
{
    if (p->scope.depth == 0 || value < 0) {
        return value;
    }
    return p->scope.seen_as != NULL ? p->scope.seen_as[value] : -1;
}

bool gc_step_is(const gc_step *s, const char *op)
{
    return s->op != NULL && s->call.custom == NULL && strcmp(s->op->name, op) == 0;
}

int32_t gc_plan_add_slot(gc_plan *p, int32_t value)
{
    gc_slot *s = &p->slots[p->n_slots];
    s->net_value = known_as(p, value);
    s->other = -1;
    s->base = -1;
    s->producer = -1;
    s->major = 1;
    s->value.ctx = p->ctx;
    if (value >= 0) {
        p->scope.slot_of[value] = p->n_slots;
    }
    return p->n_slots++;
}

void gc_plan_assign(gc_plan *p, int32_t value, int32_t slot)
{
    if (value >= 0) {
        p->scope.slot_of[value] = slot;
        p->slots[slot].net_value = p->slots[slot].net_value < 0 ? known_as(p, value) : p->slots[slot].net_value;
    }
}

int32_t gc_plan_slot(gc_plan *p, int32_t value)
{
    if (value < 0 || p->scope.slot_of[value] >= 0) {
        return value < 0 ? -1 : p->scope.slot_of[value];
    }
    int32_t id = gc_plan_add_slot(p, value);
    gc_tensor *weight = p->scope.net->values[value].weight;
    p->slots[id].value = *weight;
    p->slots[id].value.refs = 0;
    p->slots[id].constant = 1;
    p->slots[id].lasting = 1;
    p->slots[id].weight_net = p->scope.net;
    p->slots[id].weight = value;
    return id;
}

/* Moves an array to one for at least `wanted` elements. */
static bool grow(gc_ctx *ctx, void **array, int32_t count, int32_t *capacity, size_t wanted, size_t size)
{
    if (wanted <= (size_t)*capacity) {
        return true;
    }
    size_t more = wanted + wanted / 2;
    void *bigger = more > INT32_MAX / 4 ? NULL : gc_mem_alloc(ctx, more, size);
    if (bigger == NULL) {
        return false;
    }
    if (count > 0) {
        memcpy(bigger, *array, (size_t)count * size);
    }
    gc_mem_free(ctx, *array);
    *array = bigger;
    *capacity = (int32_t)more;
    return true;
}

/* Steps point into the slots. */
static void repoint(gc_plan *p)
{
    for (int32_t i = 0; i < p->n_steps; i++) {
        gc_step *s = &p->steps[i];
        for (int32_t k = 0; k < s->call.n_in; k++) {
            s->call.in[k] = s->in[k] < 0 ? NULL : &p->slots[s->in[k]].value;
        }
        for (int32_t k = 0; k < s->call.n_out; k++) {
            s->call.out[k] = s->out[k] < 0 ? NULL : &p->slots[s->out[k]].value;
        }
    }
}

gc_status gc_plan_reserve(gc_plan *p, size_t slots, size_t steps, gc_error *err)
{
    const gc_slot *old = p->slots;
    bool ok = grow(p->ctx, (void **)&p->slots, p->n_slots, &p->cap_slots, (size_t)p->n_slots + slots, sizeof *p->slots);
    if (ok && p->slots != old) {
        repoint(p);
    }
    ok = ok &&
         grow(p->ctx, (void **)&p->steps, p->n_steps, &p->cap_steps, (size_t)p->n_steps + steps, sizeof *p->steps);
    return ok ? GRADCAM_OK : GC_NOMEM(err);
}
