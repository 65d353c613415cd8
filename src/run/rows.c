/* SPDX-License-Identifier: MIT */
#include "run/rows.h"

#include <string.h>

#include "run/prune.h"
#include "run/route.h"

/* What is known of a step. */
enum {
    AS_IT_IS,
    FEWER, /* makes rows of its output */
    PICKED /* took rows of a value, which now has no others */
};

/* What all the readers of a slot want of it. */
typedef struct need {
    int32_t asked, whole;
    gc_rows rows;
    int32_t now; /* the slot with nothing but those rows, -1: there is none */
    int32_t fewer;
} need;

/* Rows that are copied out of a value which stays whole. */
typedef struct cutting {
    int32_t slot, producer, now, reader;
    gc_rows rows;
} cutting;

typedef struct rows_job {
    gc_plan *p;
    need *needs;         /* per slot */
    unsigned char *kind; /* per step */
    cutting *cuts;
    int32_t n_cuts;
    int32_t n_slots; /* when it began */
    gc_step *old;    /* the steps while they are replaced */
    int32_t n_old;
} rows_job;

/* ---- who needs what ---- */

static void ask(rows_job *j, int32_t slot, const gc_rows *rows)
{
    need *n = slot < 0 ? NULL : &j->needs[slot];
    if (n == NULL) {
        return;
    }
    bool same = !n->asked || (n->rows.axis == rows->axis && n->rows.first == rows->first && n->rows.end == rows->end);
    n->whole = n->whole || rows->axis < 0 || !same;
    n->asked = 1;
    n->rows = *rows;
}

/* At least half of it is not needed. */
static bool pays(const gc_plan *p, const gc_step *s, const gc_rows *rows)
{
    return 2 * (rows->end - rows->first) <= p->slots[s->in[0]].value.shape[rows->axis];
}

static void ask_inputs(rows_job *j, int32_t index)
{
    const gc_step *s = &j->p->steps[index];
    const gc_rows whole = {-1, 0, 0, 0};
    gc_rows in[GC_ROUTE_INPUTS], picked;
    const need *n = s->call.n_out < 1 || s->out[0] < 0 ? NULL : &j->needs[s->out[0]];
    bool fewer = n != NULL && n->asked && !n->whole && gc_route(j->p, s, &n->rows, in);
    bool picks = !fewer && gc_route_picks(j->p, s, &picked) && pays(j->p, s, &picked);
    j->kind[index] = fewer ? FEWER : picks ? PICKED : AS_IT_IS;
    for (int32_t k = 0; k < s->call.n_in; k++) {
        ask(j, s->in[k], fewer ? &in[k] : picks && k == 0 ? &picked : &whole);
    }
}

static bool reads_fewer(const rows_job *j, const gc_step *s, const gc_rows *in)
{
    for (int32_t k = 0; k < s->call.n_in; k++) {
        if (in[k].axis >= 0 && j->needs[s->in[k]].fewer) {
            return true;
        }
    }
    return false;
}

/* Room for it: one for each input of each step. */
static void add_cutting(rows_job *j, int32_t slot, int32_t reader, const gc_rows *rows)
{
    cutting c = {slot, j->p->slots[slot].producer, -1, reader, *rows};
    for (int32_t i = 0; i < j->n_cuts; i++) {
        if (j->cuts[i].slot == slot && memcmp(&j->cuts[i].rows, rows, sizeof *rows) == 0) {
            return;
        }
    }
    j->cuts[j->n_cuts++] = c;
}

/* In their order, so that it is known what the inputs have become.  What only moves
   elements of a whole value stays, and rows are cut out behind it. */
static bool settle(rows_job *j, int32_t index)
{
    const gc_step *s = &j->p->steps[index];
    gc_rows in[GC_ROUTE_INPUTS];
    if (j->kind[index] == PICKED && !j->needs[s->in[0]].fewer) {
        j->kind[index] = AS_IT_IS;
    }
    if (j->kind[index] != FEWER) {
        return false;
    }
    gc_route(j->p, s, &j->needs[s->out[0]].rows, in);
    if (gc_route_moves(s) && !reads_fewer(j, s, in)) {
        j->kind[index] = AS_IT_IS;
        return false;
    }
    j->needs[s->out[0]].fewer = 1;
    for (int32_t k = 0; k < s->call.n_in; k++) {
        if (in[k].axis >= 0 && !j->needs[s->in[k]].fewer) {
            add_cutting(j, s->in[k], index, &in[k]);
        }
    }
    return !gc_route_moves(s);
}

/* ---- new steps for old ones ---- */

/* Attributes with their numbers. */
typedef struct own_attributes {
    gc_attr_value a[3];
    int64_t ints[GRADCAM_MAX_DIMS];
} own_attributes;

static void set_ints(gc_attr_value *a, const char *name, const int64_t *ints, size_t count)
{
    memset(a, 0, sizeof *a);
    a->name = name;
    a->kind = GRADCAM_ATTR_INTS;
    a->ints = ints;
    a->count = count;
}

/* The step `s` begins as one for the node of `old`. */
static gc_status begin(gc_plan *p, const gc_step *old, int32_t n_in, int32_t n_out, gc_step *s, gc_error *err)
{
    gc_status status = gc_plan_begin_step(p, &p->net->nodes[old->node], old->node, n_in, n_out, s, err);
    if (status != GRADCAM_OK) {
        gc_plan_free_step(p->ctx, s);
        return status;
    }
    s->call.node_name = old->call.node_name;
    s->pack_net = NULL;
    s->later_turn = old->later_turn;
    s->call.some_rows = 1;
    return GRADCAM_OK;
}

/* It is of another operator, with attributes of its own; takes *s if that fails. */
static own_attributes *become(gc_plan *p, gc_step *s, const char *op)
{
    own_attributes *own = gc_mem_alloc(p->ctx, 1, sizeof *own);
    if (own == NULL) {
        gc_plan_free_step(p->ctx, s);
        return NULL;
    }
    s->own_attrs = own->a;
    s->op = gc_op_find(op);
    s->call.op_name = s->op->name;
    return own;
}

static void connect(const gc_plan *p, gc_step *s, int32_t in, int32_t out)
{
    s->in[0] = in;
    s->out[0] = out;
    s->call.in[0] = &p->slots[in].value;
    s->call.out[0] = &p->slots[out].value;
}

static gc_status end(gc_plan *p, gc_step *s, gc_error *err)
{
    int32_t out = s->out[0];
    GC_TRY(gc_plan_end_step(p, s, err));
    return gc_plan_raise_slot(p, out, err);
}

static gc_status cut(rows_job *j, cutting *c, gc_error *err)
{
    gc_plan *p = j->p;
    gc_step s;
    gc_status status = begin(p, &j->old[c->reader], 1, 1, &s, err);
    own_attributes *own = status == GRADCAM_OK ? become(p, &s, "Slice") : NULL;
    if (own == NULL) {
        return GC_NOMEM(err);
    }
    own->ints[0] = c->rows.first;
    own->ints[1] = c->rows.end;
    own->ints[2] = c->rows.axis;
    set_ints(&own->a[0], "starts", own->ints, 1);
    set_ints(&own->a[1], "ends", own->ints + 1, 1);
    set_ints(&own->a[2], "axes", own->ints + 2, 1);
    s.call.attrs = (gc_attr_list){own->a, 3};
    c->now = gc_plan_add_slot(p, -1);
    connect(p, &s, c->slot, c->now);
    return end(p, &s, err);
}

/* The cuttings of what this old step made; -1: of what no step makes. */
static gc_status cut_behind(rows_job *j, int32_t producer, gc_error *err)
{
    for (int32_t i = 0; i < j->n_cuts; i++) {
        if (j->cuts[i].producer == producer) {
            GC_TRY(cut(j, &j->cuts[i], err));
        }
    }
    return GRADCAM_OK;
}

static int32_t now(const rows_job *j, int32_t slot, const gc_rows *rows)
{
    if (slot < 0 || rows->axis < 0) {
        return slot;
    }
    for (int32_t i = 0; i < j->n_cuts; i++) {
        if (j->cuts[i].slot == slot && memcmp(&j->cuts[i].rows, rows, sizeof *rows) == 0) {
            return j->cuts[i].now;
        }
    }
    return j->needs[slot].now;
}

/* `out` gets the elements of `in` in another shape. */
static gc_status reshape(rows_job *j, const gc_step *old, int32_t in, int32_t out, const int64_t *shape, int32_t ndim,
                         gc_error *err)
{
    gc_step s;
    gc_status status = begin(j->p, old, 1, 1, &s, err);
    own_attributes *own = status == GRADCAM_OK ? become(j->p, &s, "Reshape") : NULL;
    if (own == NULL) {
        return GC_NOMEM(err);
    }
    memcpy(own->ints, shape, (size_t)ndim * sizeof *shape);
    set_ints(&own->a[0], "shape", own->ints, (size_t)ndim);
    s.call.attrs = (gc_attr_list){own->a, 1};
    connect(j->p, &s, in, out);
    return end(j->p, &s, err);
}

/* The same operator on fewer rows. */
static gc_status again(rows_job *j, gc_step *old, const gc_rows *in, int32_t out, gc_error *err)
{
    gc_plan *p = j->p;
    gc_step s;
    GC_TRY(begin(p, old, old->call.n_in, 1, &s, err));
    s.op = old->op;
    s.call.op_name = old->call.op_name;
    s.call.attrs = old->call.attrs;
    s.call.opset = old->call.opset;
    s.pack_net = old->pack_net;
    s.pack_node = old->pack_node;
    s.own_attrs = old->own_attrs;
    old->own_attrs = NULL;
    for (int32_t k = 0; k < s.call.n_in; k++) {
        s.in[k] = now(j, old->in[k], &in[k]);
        s.call.in[k] = s.in[k] < 0 ? NULL : &p->slots[s.in[k]].value;
    }
    s.out[0] = out;
    s.call.out[0] = &p->slots[out].value;
    return end(p, &s, err);
}

static gc_status make_fewer(rows_job *j, gc_step *old, gc_error *err)
{
    gc_plan *p = j->p;
    need *n = &j->needs[old->out[0]];
    gc_rows in[GC_ROUTE_INPUTS];
    gc_route(p, old, &n->rows, in);
    p->slots[old->out[0]].producer = -1;
    p->slots[old->out[0]].unused = 1;
    if (old->op == NULL) { /* whoever reads it gets a copy of its own where it needs one */
        n->now = now(j, old->in[0], &in[0]);
        return GRADCAM_OK;
    }
    n->now = gc_plan_add_slot(p, -1);
    if (!gc_route_reshapes(old)) {
        return again(j, old, in, n->now, err);
    }
    gc_tensor y = p->slots[old->out[0]].value;
    y.shape[n->rows.axis] = n->rows.end - n->rows.first;
    return reshape(j, old, now(j, old->in[0], &in[0]), n->now, y.shape, y.ndim, err);
}

static void keep(gc_plan *p, const gc_step *old)
{
    gc_step *s = &p->steps[p->n_steps];
    *s = *old;
    for (int32_t k = 0; k < s->call.n_in; k++) {
        s->call.in[k] = s->in[k] < 0 ? NULL : &p->slots[s->in[k]].value;
    }
    for (int32_t k = 0; k < s->call.n_out; k++) {
        s->call.out[k] = s->out[k] < 0 ? NULL : &p->slots[s->out[k]].value;
        if (s->out[k] >= 0) {
            p->slots[s->out[k]].producer = p->n_steps;
        }
    }
    p->n_steps++;
}

/* Step number `index` of the old ones, of which it takes what belongs to it. */
static gc_status renew(rows_job *j, int32_t index, gc_error *err)
{
    gc_step *old = &j->old[index];
    gc_status status = GRADCAM_OK;
    if (j->kind[index] == AS_IT_IS) {
        keep(j->p, old);
        memset(old, 0, sizeof *old);
    } else if (j->kind[index] == FEWER) {
        status = make_fewer(j, old, err);
    } else {
        gc_tensor y = j->p->slots[old->out[0]].value;
        status = reshape(j, old, j->needs[old->in[0]].now, old->out[0], y.shape, y.ndim, err);
    }
    return status == GRADCAM_OK ? cut_behind(j, index, err) : status;
}

/* Slots and steps that renewing takes at most: a step may need a copy of each input,
   and so may a cutting. */
static gc_status make_room(rows_job *j, gc_error *err)
{
    gc_plan *p = j->p;
    size_t more = 4 * (size_t)j->n_cuts;
    for (int32_t i = 0; i < p->n_steps; i++) {
        more += j->kind[i] == AS_IT_IS ? 0 : 2 * (size_t)p->steps[i].call.n_in + 2;
    }
    GC_TRY(gc_plan_reserve(p, more, 0, err));
    j->old = p->steps;
    j->n_old = p->n_steps;
    p->steps = NULL;
    p->n_steps = p->cap_steps = 0;
    return gc_plan_reserve(p, 0, (size_t)j->n_old + more, err);
}

static gc_status renew_all(rows_job *j, gc_error *err)
{
    gc_status status = make_room(j, err);
    status = status == GRADCAM_OK ? cut_behind(j, -1, err) : status;
    for (int32_t i = 0; i < j->n_old && status == GRADCAM_OK; i++) {
        status = renew(j, i, err);
    }
    for (int32_t i = 0; i < j->n_old; i++) {
        gc_plan_free_step(j->p->ctx, &j->old[i]);
    }
    gc_mem_free(j->p->ctx, j->old);
    return status;
}

static gc_status work(rows_job *j, gc_error *err)
{
    gc_plan *p = j->p;
    bool any = false;
    for (int32_t i = 0; i < j->n_slots; i++) {
        j->needs[i].now = -1;
        j->needs[i].whole = p->slots[i].kept || p->slots[i].sequence || gc_numel(&p->slots[i].value) == 0;
    }
    for (int32_t i = p->n_steps - 1; i >= 0; i--) {
        ask_inputs(j, i);
    }
    for (int32_t i = 0; i < p->n_steps; i++) {
        any = settle(j, i) || any;
    }
    return any ? renew_all(j, err) : GRADCAM_OK;
}

gc_status gc_plan_rows(gc_plan *p, gc_error *err)
{
    rows_job j;
    size_t inputs = 1;
    for (int32_t i = 0; i < p->n_steps; i++) {
        inputs += (size_t)p->steps[i].call.n_in;
    }
    memset(&j, 0, sizeof j);
    j.p = p;
    j.n_slots = p->n_slots;
    j.needs = gc_mem_alloc(p->ctx, (size_t)p->n_slots + 1, sizeof *j.needs);
    j.kind = gc_mem_alloc(p->ctx, (size_t)p->n_steps + 1, 1);
    j.cuts = gc_mem_alloc(p->ctx, inputs, sizeof *j.cuts);
    gc_status status = j.needs == NULL || j.kind == NULL || j.cuts == NULL ? GC_NOMEM(err) : work(&j, err);
    gc_mem_free(p->ctx, j.needs);
    gc_mem_free(p->ctx, j.kind);
    gc_mem_free(p->ctx, j.cuts);
    return status;
}
