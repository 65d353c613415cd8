/* SPDX-License-Identifier: MIT */
/* The part of a network between a value and an output. */
#include "run/cut.h"

#include "run/prune.h"

/* A byte for each slot and step. */
typedef struct marks {
    unsigned char *reached; /* slots that hang on the cut's value */
    unsigned char *needed;  /* slots that the output hangs on */
    unsigned char *steps;
} marks;

static const char *name_of(const gc_plan *p, int32_t value)
{
    return p->net->values[value].name;
}

static gc_status check_ends(const gc_plan *p, int32_t from, int32_t output, gc_error *err)
{
    if (p->slots[from].constant) {
        return gc_fail(err, GRADCAM_E_INVALID, "\"%s\" is a constant of this network; it cannot be perturbed",
                       name_of(p, p->cut->from));
    }
    GC_TRY(gc_plan_raise_slot(p, from, err));
    return gc_plan_raise_slot(p, output, err);
}

static void mark_reached(const gc_plan *p, const marks *m)
{
    for (int32_t i = 0; i < p->n_steps; i++) {
        const gc_step *s = &p->steps[i];
        bool any = false;
        for (int32_t k = 0; k < s->call.n_in; k++) {
            any = any || (s->in[k] >= 0 && m->reached[s->in[k]]);
        }
        for (int32_t k = 0; k < s->call.n_out && any; k++) {
            if (s->out[k] >= 0) {
                m->reached[s->out[k]] = 1;
            }
        }
    }
}

/* Besides the steps that are reached, those stay that make what has no name to be
   imported by: copies into another layout, values in loops. */
static bool stays(const gc_plan *p, const marks *m, const gc_step *s, int32_t from)
{
    for (int32_t k = 0; k < s->call.n_out; k++) {
        int32_t slot = s->out[k];
        if (slot >= 0 && slot != from && m->needed[slot] && (m->reached[slot] || p->slots[slot].net_value < 0)) {
            return true;
        }
    }
    return false;
}

static void mark_needed(const gc_plan *p, const marks *m, int32_t from)
{
    for (int32_t i = p->n_steps - 1; i >= 0; i--) {
        const gc_step *s = &p->steps[i];
        m->steps[i] = stays(p, m, s, from);
        for (int32_t k = 0; k < s->call.n_in && m->steps[i]; k++) {
            if (s->in[k] >= 0 && !p->slots[s->in[k]].constant) {
                m->needed[s->in[k]] = 1;
            }
        }
    }
}

static void mark_imports(gc_plan *p, const marks *m, int32_t from)
{
    for (int32_t i = 0; i < p->n_slots; i++) {
        gc_slot *s = &p->slots[i];
        s->imported = i == from || (m->needed[i] && !m->reached[i] && s->net_value >= 0);
        if (s->imported) {
            s->kept = 1;
            s->unused = 0;
        } else if (s->producer < 0 && !s->constant) {
            s->unused = 1; /* an input of the other part */
        }
    }
}

gc_status gc_plan_part(gc_plan *p, gc_error *err)
{
    GC_TRY(gc_plan_reserve(p, 2, 0, err)); /* the ends may be weights */
    int32_t from = gc_plan_slot(p, p->cut->from), output = gc_plan_slot(p, p->cut->output);
    GC_TRY(check_ends(p, from, output, err));
    size_t slots = (size_t)p->n_slots;
    marks m;
    m.reached = gc_mem_alloc(p->ctx, 2 * slots + (size_t)p->n_steps + 1, 1);
    if (m.reached == NULL) {
        return GC_NOMEM(err);
    }
    m.needed = m.reached + slots;
    m.steps = m.needed + slots;
    m.reached[from] = 1;
    m.needed[from] = 1;
    mark_reached(p, &m);
    bool connected = m.reached[output] != 0;
    if (connected) {
        m.needed[output] = 1;
        mark_needed(p, &m, from);
        gc_plan_compact(p, m.steps);
        mark_imports(p, &m, from);
    }
    gc_mem_free(p->ctx, m.reached);
    return connected ? GRADCAM_OK
                     : gc_fail(err, GRADCAM_E_INVALID, "\"%s\" does not depend on \"%s\"", name_of(p, p->cut->output),
                               name_of(p, p->cut->from));
}
