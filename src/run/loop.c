/* SPDX-License-Identifier: MIT */
/* Loop and Scan: the nodes of the body are planned once for each turn.
 *
 * A turn is a scope of its own: the body's formals are the slots of what goes
 * in, and its results go into the next turn, or onto a stack.  What is left are
 * steps like any others, so that folding, fusion, gradients and rules need to
 * know nothing of loops.  How many turns there are must be known by then. */
#include "run/loop.h"

#include <stdio.h>
#include <string.h>

#include "run/prune.h"

typedef struct loop {
    gc_plan *p;
    const gc_node *n;
    gc_op_call *c; /* for messages */
    const gc_net *body;
    gc_scope scope;    /* of a turn */
    int32_t *formals;  /* slots that go in, per input of the body */
    int32_t *results;  /* slots that come out, per output of the body */
    int32_t *outputs;  /* slots of the node's outputs */
    int32_t *seen_as;  /* see gc_scope */
    char *prefix;      /* likewise */
    gc_items *stacks;  /* per stacked result */
    int32_t index;     /* of the node */
    int32_t n_formals; /* the other inputs of the body are captured */
    int32_t n_states;
    int32_t first_state, first_result; /* among formals and results */
    int32_t n_stacks;
    int32_t fault; /* of a turn */
    int64_t turns;
} loop;

static gc_status loop_init(loop *l, gc_plan *p, const gc_node *n, int32_t index, gc_op_call *c)
{
    size_t out = (size_t)n->body->n_outputs + (size_t)n->n_out + 1;
    memset(l, 0, sizeof *l);
    l->p = p;
    l->n = n;
    l->c = c;
    l->index = index;
    l->body = n->body;
    l->n_formals = n->body->n_inputs - n->n_captured;
    l->scope.slot_of = gc_mem_alloc(p->ctx, (size_t)l->body->n_values + 1, sizeof(int32_t));
    l->formals = gc_mem_alloc(p->ctx, (size_t)l->body->n_inputs + 1, sizeof(int32_t));
    l->results = gc_mem_alloc(p->ctx, out, sizeof(int32_t));
    l->outputs = gc_mem_alloc(p->ctx, out, sizeof(int32_t));
    l->stacks = gc_mem_alloc(p->ctx, out, sizeof *l->stacks);
    if (!l->scope.slot_of || !l->formals || !l->results || !l->outputs || !l->stacks) {
        return GC_NOMEM(c->err);
    }
    for (int32_t i = 0; i < n->n_captured; i++) {
        l->formals[l->n_formals + i] = gc_plan_slot(p, n->in[n->n_in - n->n_captured + i]);
    }
    l->scope.net = l->body;
    l->scope.prefix = "";
    l->scope.depth = p->scope.depth + 1;
    l->scope.loop = p->scope.depth > 0 ? p->scope.loop : index;
    l->scope.n_formals = l->n_formals;
    return GRADCAM_OK;
}

static void loop_free(loop *l)
{
    gc_ctx *ctx = l->p->ctx;
    for (int32_t i = 0; l->stacks != NULL && i < l->n_stacks; i++) {
        gc_items_free(l->p, &l->stacks[i]);
    }
    gc_mem_free(ctx, l->scope.slot_of);
    gc_mem_free(ctx, l->formals);
    gc_mem_free(ctx, l->results);
    gc_mem_free(ctx, l->outputs);
    gc_mem_free(ctx, l->stacks);
    gc_mem_free(ctx, l->seen_as);
    gc_mem_free(ctx, l->prefix);
}

/* Input i of the node, -1 where it is absent. */
static int32_t input(const loop *l, int32_t i)
{
    return i < l->n->n_in - l->n->n_captured ? gc_plan_slot(l->p, l->n->in[i]) : -1;
}

/* ---- names in bodies ---- */

/* Finds the values of this turn that the host looks at. */
static gc_status see(loop *l)
{
    gc_plan *p = l->p;
    int32_t n_inner = p->n_values - p->net->n_values;
    size_t size = strlen(p->scope.prefix) + strlen(l->n->name) + 32;
    if (n_inner == 0) {
        return GRADCAM_OK;
    }
    l->seen_as = l->seen_as != NULL ? l->seen_as : gc_mem_alloc(p->ctx, (size_t)l->body->n_values + 1, sizeof(int32_t));
    l->prefix = l->prefix != NULL ? l->prefix : gc_mem_alloc(p->ctx, size, 1);
    if (l->seen_as == NULL || l->prefix == NULL) {
        return GC_NOMEM(l->c->err);
    }
    (void)snprintf(l->prefix, size, "%s%s/%lld/", p->scope.prefix, l->n->name, (long long)l->turns);
    memset(l->seen_as, 0xff, ((size_t)l->body->n_values + 1) * sizeof(int32_t));
    for (int32_t k = 0; k < n_inner; k++) {
        size_t length = strlen(l->prefix);
        bool here = strncmp(p->inner[k], l->prefix, length) == 0;
        int32_t value = here ? gc_net_find_value(l->body, p->inner[k] + length) : -1;
        if (value >= 0) {
            l->seen_as[value] = p->net->n_values + k;
        }
    }
    l->scope.prefix = l->prefix;
    l->scope.seen_as = l->seen_as;
    return GRADCAM_OK;
}

/* Where the host looks, the number of a value in a body leads to its slot. */
static void show(loop *l)
{
    for (int32_t v = 0; l->seen_as != NULL && v < l->body->n_values; v++) {
        int32_t slot = l->scope.slot_of[v];
        if (l->seen_as[v] >= 0 && slot >= 0) {
            gc_plan_assign(l->p, v, slot);
            l->p->slot_of[l->seen_as[v]] = slot;
        }
    }
}

/* ---- a turn ---- */

/* A turn costs its nodes, and something where there are only names. */
static gc_status spend(loop *l)
{
    int64_t cost = l->body->n_nodes + l->body->n_values / 8;
    cost = cost > 0 ? cost : 1;
    if (cost > gc_plan_left(l->p)) {
        return gc_op_fail(l->c, GRADCAM_E_LIMIT,
                          "after %lld turns its body would add more nodes than an eighth of max_nodes = %llu; raise "
                          "gc_load_options.max_nodes if the model is trusted",
                          (long long)l->turns, (unsigned long long)l->p->net->max_nodes);
    }
    l->p->n_planned += (uint64_t)cost;
    return GRADCAM_OK;
}

static gc_status plan_body(loop *l)
{
    gc_plan *p = l->p;
    memset(l->scope.slot_of, 0xff, ((size_t)l->body->n_values + 1) * sizeof(int32_t));
    for (int32_t i = 0; i < l->body->n_inputs; i++) {
        gc_plan_assign(p, i, l->formals[i]);
    }
    for (int32_t i = 0; i < l->body->n_nodes; i++) {
        GC_TRY(gc_plan_add_node(p, i, l->c->err));
    }
    GC_TRY(gc_plan_reserve(p, (size_t)l->body->n_outputs, 0, l->c->err)); /* results that are weights */
    for (int32_t i = 0; i < l->body->n_outputs; i++) {
        l->results[i] = gc_plan_slot(p, l->body->outputs[i]);
        l->fault = l->fault == 0 ? p->slots[l->results[i]].fault : l->fault;
    }
    show(l);
    return GRADCAM_OK;
}

static gc_status turn(loop *l)
{
    gc_scope around = l->p->scope;
    GC_TRY(spend(l));
    l->scope.later_turn = around.later_turn || l->turns > 0;
    l->p->scope = l->scope;
    gc_status status = plan_body(l);
    l->p->scope = around;
    l->turns++;
    return status;
}

/* What this turn made goes into the next one, and onto the stacks. */
static gc_status pass_on(loop *l)
{
    const int32_t *result = l->results + l->first_result;
    for (int32_t i = 0; i < l->n_states; i++) {
        l->formals[l->first_state + i] = result[i];
    }
    for (int32_t i = 0; i < l->n_stacks; i++) {
        GC_TRY(gc_items_add(l->p, &l->stacks[i], result[l->n_states + i], l->c->err));
    }
    return GRADCAM_OK;
}

/* ---- what comes out ---- */

/* A stack of no turns has no elements; a turn whose results nobody wants tells
   of which type and shape they would be. */
static gc_status empty_stack(const loop *l, int32_t like, int64_t at, int32_t *out)
{
    gc_plan *p = l->p;
    int32_t axis = 0;
    GC_TRY(gc_plan_reserve(p, 1, 0, l->c->err));
    const gc_tensor *one = &p->slots[like].value;
    if (!gc_plan_has_value(p, like) || one->ndim == GRADCAM_MAX_DIMS) {
        return gc_op_fail(l->c, GRADCAM_E_UNSUPPORTED, "no turns, and the shape of a result is not known");
    }
    GC_TRY(gc_op_axis(l->c, at, one->ndim + 1, &axis));
    *out = gc_plan_add_slot(p, -1);
    gc_slot *s = &p->slots[*out];
    s->value.dtype = one->dtype;
    s->value.ndim = one->ndim + 1;
    memcpy(s->value.shape, one->shape, (size_t)axis * sizeof(int64_t));
    memcpy(s->value.shape + axis + 1, one->shape + axis, (size_t)(one->ndim - axis) * sizeof(int64_t));
    gc_row_strides(s->value.ndim, s->value.shape, s->value.strides);
    s->owned = gc_mem_alloc(p->ctx, 1, sizeof(int64_t));
    s->value.data = s->owned;
    s->constant = 1;
    return s->owned == NULL ? GC_NOMEM(l->c->err) : GRADCAM_OK;
}

static void reverse(gc_items *items)
{
    for (int32_t i = 0, k = items->n - 1; i < k; i++, k--) {
        int32_t slot = items->slots[i];
        items->slots[i] = items->slots[k];
        items->slots[k] = slot;
    }
}

/* The list `name` of the attributes at place k, 0 where it is absent or short. */
static int64_t listed(const loop *l, const char *name, int32_t k)
{
    const gc_attr_value *a = gc_attr_find(&l->c->attrs, name, GRADCAM_ATTR_INTS);
    return a != NULL && (size_t)k < a->count ? a->ints[k] : 0;
}

/* The stacks become tensors.  Where there was no turn, one is planned for their shapes. */
static gc_status stack_up(loop *l, bool scans)
{
    bool empty = l->turns == 0;
    if (empty && l->n_stacks > 0) {
        GC_TRY(turn(l));
        l->fault = 0;
    }
    for (int32_t i = 0; i < l->n_stacks; i++) {
        int64_t axis = scans ? listed(l, "scan_output_axes", i) : 0;
        int32_t *out = &l->outputs[l->n_states + i];
        if (scans && listed(l, "scan_output_directions", i) != 0) {
            reverse(&l->stacks[i]);
        }
        GC_TRY(empty ? empty_stack(l, l->results[l->first_result + l->n_states + i], axis, out)
                     : gc_plan_stack(l->p, l->n, l->index, &l->stacks[i], axis, out, l->c));
        gc_items_free(l->p, &l->stacks[i]);
    }
    return GRADCAM_OK;
}

static void take_states(loop *l)
{
    for (int32_t i = 0; i < l->n_states; i++) {
        l->outputs[i] = l->formals[l->first_state + i];
    }
}

/* A turn that cannot be computed spoils all that comes out. */
static gc_status spoil(loop *l)
{
    GC_TRY(gc_plan_reserve(l->p, (size_t)l->n->n_out, 0, l->c->err));
    for (int32_t i = 0; i < l->n->n_out; i++) {
        l->outputs[i] = gc_plan_add_slot(l->p, -1);
        l->p->slots[l->outputs[i]].fault = l->fault;
    }
    return GRADCAM_OK;
}

static void give_out(const loop *l)
{
    for (int32_t i = 0; i < l->n->n_out; i++) {
        gc_plan_assign(l->p, l->n->out[i], l->outputs[i]);
    }
}

/* ---- Loop: trip count, condition, states -> states, stacked ---- */

static gc_status start_states(loop *l, int32_t first_input)
{
    for (int32_t i = 0; i < l->n_states; i++) {
        int32_t slot = input(l, first_input + i);
        if (slot < 0) {
            return gc_op_fail(l->c, GRADCAM_E_FORMAT, "input %d, a state, is missing", (int)(first_input + i));
        }
        l->formals[l->first_state + i] = slot;
    }
    return GRADCAM_OK;
}

static gc_status known(const loop *l, int32_t slot, const char *what, int64_t *number)
{
    if (slot >= 0 && !gc_plan_number(l->p, slot, number)) {
        return gc_op_fail(l->c, GRADCAM_E_UNSUPPORTED, "%s before turn %lld is data-dependent", what,
                          (long long)l->turns);
    }
    return GRADCAM_OK;
}

/* Formals are scalars, but some exporters declare lists of one. */
static int32_t declared_rank(const loop *l, int32_t formal)
{
    return l->body->values[formal].ndim == 1 ? 1 : 0;
}

static gc_status loop_turns(loop *l)
{
    int64_t most = INT64_MAX, go = 1;
    GC_TRY(known(l, input(l, 0), "the trip count", &most));
    GC_TRY(known(l, input(l, 1), "the condition", &go));
    GC_TRY(gc_plan_scalar(l->p, GRADCAM_BOOL, declared_rank(l, 1), 1, &l->formals[1], l->c->err));
    do {
        GC_TRY(gc_plan_scalar(l->p, GRADCAM_I64, declared_rank(l, 0), l->turns, &l->formals[0], l->c->err));
        if (l->turns >= most || go == 0) {
            break;
        }
        GC_TRY(see(l));
        GC_TRY(turn(l));
        if (l->fault != 0) {
            return GRADCAM_OK;
        }
        GC_TRY(pass_on(l));
        if (l->turns < most) {
            GC_TRY(known(l, l->results[0], "the condition", &go));
        }
    } while (true);
    return GRADCAM_OK;
}

static gc_status run_loop(loop *l)
{
    l->first_state = 2;
    l->first_result = 1;
    l->n_states = l->n_formals - 2;
    l->n_stacks = l->body->n_outputs - 1 - l->n_states;
    GC_TRY(start_states(l, 2));
    GC_TRY(loop_turns(l));
    if (l->fault != 0) {
        return spoil(l);
    }
    take_states(l);
    return stack_up(l, false);
}

gc_status gc_plan_loop(gc_plan *p, const gc_node *n, int32_t index, gc_op_call *c)
{
    loop l;
    if (n->body == NULL) {
        return n->op->infer(c);
    }
    gc_status status = loop_init(&l, p, n, index, c);
    status = status == GRADCAM_OK ? run_loop(&l) : status;
    if (status == GRADCAM_OK) {
        give_out(&l);
    }
    loop_free(&l);
    return status;
}

/* ---- Scan: states, slices of tensors -> states, stacked ---- */

/* The tensors that are cut into slices, and the slices. */
typedef struct slices {
    gc_items *of; /* per tensor: a slot for each turn */
    int32_t n;
    int32_t length; /* turns */
} slices;

/* Cuts tensor i into its slices. */
static gc_status cut(loop *l, slices *s, int32_t i, int32_t slot, int64_t axis, bool backwards)
{
    GC_TRY(gc_plan_cut(l->p, l->n, l->index, slot, axis, &s->of[i], l->c));
    if (i > 0 && s->of[i].n != s->length) {
        return gc_op_fail(l->c, GRADCAM_E_SHAPE, "scan input %d has %d slices, the first %d", (int)i, (int)s->of[i].n,
                          (int)s->length);
    }
    s->length = s->of[i].n;
    if (backwards) {
        reverse(&s->of[i]);
    }
    return GRADCAM_OK;
}

static gc_status scan_turns(loop *l, const slices *s)
{
    for (int32_t t = 0; t < s->length && l->fault == 0; t++) {
        for (int32_t i = 0; i < s->n; i++) {
            l->formals[l->n_states + i] = s->of[i].slots[t];
        }
        GC_TRY(see(l));
        GC_TRY(turn(l));
        if (l->fault == 0) {
            GC_TRY(pass_on(l));
        }
    }
    return GRADCAM_OK;
}

/* A slice of a tensor that has none, for the turn that tells the shapes. */
static gc_status dummy_slice(loop *l, int32_t i, int32_t slot, int64_t at)
{
    gc_plan *p = l->p;
    int32_t axis = 0, made;
    GC_TRY(gc_plan_reserve(p, 1, 0, l->c->err));
    made = gc_plan_add_slot(p, -1);
    const gc_tensor *x = &p->slots[slot].value;
    gc_tensor *one = &p->slots[made].value;
    GC_TRY(gc_op_axis(l->c, at, x->ndim, &axis));
    one->dtype = x->dtype;
    one->ndim = x->ndim - 1;
    memcpy(one->shape, x->shape, (size_t)axis * sizeof *one->shape);
    memcpy(one->shape + axis, x->shape + axis + 1, (size_t)(one->ndim - axis) * sizeof *one->shape);
    gc_row_strides(one->ndim, one->shape, one->strides);
    p->slots[made].unused = 1; /* nothing is stored */
    l->formals[l->n_states + i] = made;
    return GRADCAM_OK;
}

static gc_status scan_sequence(loop *l, slices *s)
{
    GC_TRY(start_states(l, 0));
    for (int32_t i = 0; i < s->n; i++) {
        int32_t slot = input(l, l->n_states + i);
        int64_t axis = listed(l, "scan_input_axes", i);
        if (slot < 0 || !gc_plan_has_value(l->p, slot)) {
            return gc_op_fail(l->c, GRADCAM_E_FORMAT, "scan input %d must be a tensor", (int)i);
        }
        GC_TRY(cut(l, s, i, slot, axis, listed(l, "scan_input_directions", i) != 0));
        if (s->length == 0) {
            GC_TRY(dummy_slice(l, i, slot, axis));
        }
    }
    GC_TRY(scan_turns(l, s));
    if (l->fault != 0) {
        return spoil(l);
    }
    take_states(l);
    return stack_up(l, true);
}

/* ---- Scan of opset 8: one scan for each item of a batch ---- */

/* Lists of slots, one slot for each item. */
typedef struct batch {
    gc_items *states; /* n_states */
    gc_items *inputs; /* tensors to cut into slices */
    gc_items *out;    /* n_states + n_stacks */
    gc_items *all;    /* these lists in a row */
    int32_t n_all, size;
} batch;

static gc_status batch_init(loop *l, const slices *s, batch *b)
{
    b->n_all = 2 * l->n_states + s->n + l->n_stacks;
    b->all = gc_mem_alloc(l->p->ctx, (size_t)b->n_all + 1, sizeof *b->all);
    b->states = b->all;
    b->inputs = b->states + l->n_states;
    b->out = b->inputs + s->n;
    return b->all == NULL ? GC_NOMEM(l->c->err) : GRADCAM_OK;
}

static gc_status cut_batch(loop *l, batch *b)
{
    for (int32_t i = 0; i < l->n_formals; i++) {
        int32_t slot = input(l, 1 + i);
        if (slot < 0 || !gc_plan_has_value(l->p, slot)) {
            return gc_op_fail(l->c, GRADCAM_E_FORMAT, "input %d must be a tensor", (int)i + 1);
        }
        GC_TRY(gc_plan_cut(l->p, l->n, l->index, slot, 0, &b->all[i], l->c));
        if (b->all[i].n == 0 || b->all[i].n != b->all[0].n) {
            return gc_op_fail(l->c, GRADCAM_E_SHAPE, "input %d is a batch of %d, the first of %d", (int)i + 1,
                              (int)b->all[i].n, (int)b->all[0].n);
        }
    }
    b->size = b->all[0].n;
    return GRADCAM_OK;
}

/* All sequences must be as long as the tensors. */
static gc_status check_lengths(const loop *l, int32_t length)
{
    int32_t slot = input(l, 0);
    const gc_slot *s = slot < 0 ? NULL : &l->p->slots[slot];
    bool whole = s == NULL || (s->constant && s->value.dtype == GRADCAM_I64);
    for (int64_t k = 0; s != NULL && whole && k < gc_numel(&s->value); k++) {
        whole = ((const int64_t *)s->value.data)[k] == length;
    }
    return whole ? GRADCAM_OK
                 : gc_op_fail(l->c, GRADCAM_E_UNSUPPORTED, "sequence_lens must be constant and the whole length");
}

static gc_status scan_item(loop *l, slices *s, batch *b, int32_t item)
{
    for (int32_t i = 0; i < l->n_states; i++) {
        l->formals[i] = b->states[i].slots[item];
    }
    for (int32_t i = 0; i < s->n; i++) {
        GC_TRY(cut(l, s, i, b->inputs[i].slots[item], 0, listed(l, "directions", i) != 0));
    }
    GC_TRY(check_lengths(l, s->length));
    if (s->length == 0) {
        return gc_op_fail(l->c, GRADCAM_E_UNSUPPORTED, "sequences of length 0");
    }
    GC_TRY(scan_turns(l, s));
    for (int32_t i = 0; i < s->n; i++) {
        gc_items_free(l->p, &s->of[i]);
    }
    if (l->fault != 0) {
        return GRADCAM_OK;
    }
    take_states(l);
    GC_TRY(stack_up(l, false));
    for (int32_t i = 0; i < l->n_states + l->n_stacks; i++) {
        GC_TRY(gc_items_add(l->p, &b->out[i], l->outputs[i], l->c->err));
    }
    return GRADCAM_OK;
}

static gc_status scan_items(loop *l, slices *s, batch *b)
{
    GC_TRY(batch_init(l, s, b));
    GC_TRY(cut_batch(l, b));
    for (int32_t item = 0; item < b->size && l->fault == 0; item++) {
        GC_TRY(scan_item(l, s, b, item));
    }
    if (l->fault != 0) {
        return spoil(l);
    }
    for (int32_t i = 0; i < l->n_states + l->n_stacks; i++) {
        GC_TRY(gc_plan_stack(l->p, l->n, l->index, &b->out[i], 0, &l->outputs[i], l->c));
    }
    return GRADCAM_OK;
}

static gc_status scan_batch(loop *l, slices *s)
{
    batch b;
    memset(&b, 0, sizeof b);
    gc_status status = scan_items(l, s, &b);
    for (int32_t i = 0; b.all != NULL && i < b.n_all; i++) {
        gc_items_free(l->p, &b.all[i]);
    }
    gc_mem_free(l->p->ctx, b.all);
    return status;
}

static gc_status run_scan(loop *l, slices *s)
{
    s->n = (int32_t)gc_attr_int(&l->c->attrs, "num_scan_inputs", 0);
    l->n_states = l->n_formals - s->n;
    l->n_stacks = l->body->n_outputs - l->n_states;
    s->of = gc_mem_alloc(l->p->ctx, (size_t)s->n + 1, sizeof *s->of);
    if (s->of == NULL) {
        return GC_NOMEM(l->c->err);
    }
    return l->body->opset < 9 ? scan_batch(l, s) : scan_sequence(l, s);
}

gc_status gc_plan_scan(gc_plan *p, const gc_node *n, int32_t index, gc_op_call *c)
{
    loop l;
    slices s = {NULL, 0, 0};
    if (n->body == NULL) {
        return n->op->infer(c);
    }
    gc_status status = loop_init(&l, p, n, index, c);
    status = status == GRADCAM_OK ? run_scan(&l, &s) : status;
    if (status == GRADCAM_OK) {
        give_out(&l);
    }
    for (int32_t i = 0; s.of != NULL && i < s.n; i++) {
        gc_items_free(p, &s.of[i]);
    }
    gc_mem_free(p->ctx, s.of);
    loop_free(&l);
    return status;
}
