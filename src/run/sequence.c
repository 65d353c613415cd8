/* SPDX-License-Identifier: MIT */
/* Sequences are lists of slots: putting a tensor in or taking it out moves a
 * number, and only SplitToSequence and ConcatFromSequence leave steps behind. */
#include <stdlib.h>
#include <string.h>

#include "ops/pieces.h"
#include "run/loop.h"

/* Items of all sequences together, for each node that a model may have. */
enum { ITEMS_PER_NODE = 64 };

gc_status gc_items_add(gc_plan *p, gc_items *items, int32_t slot, gc_error *err)
{
    if (++p->n_items / ITEMS_PER_NODE > p->net->max_nodes) {
        return gc_fail(err, GRADCAM_E_LIMIT,
                       "sequences would have more than %d items for each of gc_load_options.max_nodes = %llu nodes",
                       ITEMS_PER_NODE, (unsigned long long)p->net->max_nodes);
    }
    if (items->n == items->capacity) {
        int32_t capacity = items->capacity * 2 + 8;
        int32_t *bigger = capacity > INT32_MAX / 4 ? NULL : gc_mem_alloc(p->ctx, (size_t)capacity, sizeof *bigger);
        if (bigger == NULL) {
            return GC_NOMEM(err);
        }
        if (items->n > 0) {
            memcpy(bigger, items->slots, (size_t)items->n * sizeof *bigger);
        }
        gc_mem_free(p->ctx, items->slots);
        items->slots = bigger;
        items->capacity = capacity;
    }
    items->slots[items->n++] = slot;
    return GRADCAM_OK;
}

void gc_items_free(gc_plan *p, gc_items *items)
{
    gc_mem_free(p->ctx, items->slots);
    memset(items, 0, sizeof *items);
}

/* ---- constants ---- */

gc_status gc_plan_scalar(gc_plan *p, gc_dtype dtype, int32_t ndim, int64_t number, int32_t *slot, gc_error *err)
{
    GC_TRY(gc_plan_reserve(p, 1, 0, err));
    *slot = gc_plan_add_slot(p, -1);
    gc_slot *s = &p->slots[*slot];
    s->value.dtype = dtype;
    s->value.ndim = ndim;
    s->value.shape[0] = s->value.strides[0] = 1;
    s->owned = gc_mem_alloc(p->ctx, 1, sizeof(int64_t));
    s->value.data = s->owned;
    s->constant = 1;
    if (s->owned == NULL) {
        return GC_NOMEM(err);
    }
    if (dtype == GRADCAM_BOOL) {
        *(unsigned char *)s->owned = number != 0;
    } else {
        *(int64_t *)s->owned = number;
    }
    return GRADCAM_OK;
}

bool gc_plan_number(const gc_plan *p, int32_t slot, int64_t *number)
{
    const gc_slot *s = slot < 0 ? NULL : &p->slots[slot];
    if (s == NULL || s->sequence || !s->constant || s->value.dtype < GRADCAM_I64 || gc_numel(&s->value) != 1) {
        return false;
    }
    switch (s->value.dtype) {
    case GRADCAM_I64: *number = *(const int64_t *)s->value.data; return true;
    case GRADCAM_I32: *number = *(const int32_t *)s->value.data; return true;
    default: *number = *(const unsigned char *)s->value.data; return true;
    }
}

int64_t gc_plan_left(const gc_plan *p)
{
    uint64_t most = p->net->max_nodes / GC_TURNS_SHARE;
    most = most < INT32_MAX ? most : INT32_MAX;
    return p->n_planned < most ? (int64_t)(most - p->n_planned) : 0;
}

/* ---- pieces ---- */

/* A step of another operator that stands for a part of the node: attributes
   `axis` and `flag`, or the node's own where flag is NULL. */
static gc_status add_part(gc_plan *p, const gc_node *n, int32_t index, const char *op, const gc_items *in,
                          const gc_items *out, const char *flag, int64_t axis, int64_t value, gc_error *err)
{
    gc_step s;
    gc_status status = gc_plan_begin_step(p, n, index, in->n, out->n, &s, err);
    s.op = gc_op_find(op);
    if (status == GRADCAM_OK && flag != NULL) {
        gc_attr_value *a = gc_mem_alloc(p->ctx, 2, sizeof *a);
        s.own_attrs = a;
        status = a == NULL ? GC_NOMEM(err) : status;
        if (a != NULL) {
            a[0].kind = a[1].kind = GRADCAM_ATTR_INT;
            a[0].name = "axis";
            a[0].i = axis;
            a[1].name = flag;
            a[1].i = value;
            s.call.attrs.items = a;
            s.call.attrs.count = 2;
        }
    }
    if (status != GRADCAM_OK) {
        gc_plan_free_step(p->ctx, &s);
        return status;
    }
    for (int32_t i = 0; i < in->n; i++) {
        s.in[i] = in->slots[i];
        s.call.in[i] = s.in[i] < 0 ? NULL : &p->slots[s.in[i]].value;
    }
    for (int32_t i = 0; i < out->n; i++) {
        s.out[i] = out->slots[i];
        s.call.out[i] = &p->slots[s.out[i]].value;
    }
    return gc_plan_end_step(p, &s, err);
}

/* SplitToSequence of in[0], and in[1] if there; the pieces are appended to *out. */
static gc_status split(gc_plan *p, const gc_node *n, int32_t index, const gc_items *in, const char *flag, int64_t axis,
                       gc_items *out, gc_op_call *c)
{
    const gc_tensor *operands[2] = {&p->slots[in->slots[0]].value, NULL};
    gc_op_call ask = *c;
    gc_attr_value attrs[1];
    int32_t count = 0, first = out->n;
    memset(attrs, 0, sizeof attrs);
    attrs[0].kind = GRADCAM_ATTR_INT;
    attrs[0].name = "axis";
    attrs[0].i = axis;
    if (flag != NULL) {
        ask.attrs.items = attrs;
        ask.attrs.count = 1;
    }
    ask.in = operands;
    ask.n_in = in->n;
    if (in->n > 1) {
        operands[1] = &p->slots[in->slots[1]].value;
    }
    GC_TRY(gc_pieces_count(&ask, gc_plan_left(p), &count));
    if (count == 0) {
        return GRADCAM_OK;
    }
    p->n_planned += (uint64_t)count;
    GC_TRY(gc_plan_reserve(p, 2 * (size_t)in->n + (size_t)count, (size_t)in->n + 1, c->err));
    for (int32_t i = 0; i < count; i++) {
        GC_TRY(gc_items_add(p, out, gc_plan_add_slot(p, -1), c->err));
    }
    gc_items pieces = {out->slots + first, count, count};
    return add_part(p, n, index, "SplitToSequence", in, &pieces, flag, axis, 0, c->err);
}

gc_status gc_plan_cut(gc_plan *p, const gc_node *n, int32_t index, int32_t slot, int64_t axis, gc_items *out,
                      gc_op_call *c)
{
    gc_items in = {&slot, 1, 1};
    return split(p, n, index, &in, "keepdims", axis, out, c);
}

static gc_status concat(gc_plan *p, const gc_node *n, int32_t index, const gc_items *items, const char *flag,
                        int64_t axis, int32_t *slot, gc_op_call *c)
{
    if (items->n == 0) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "the sequence is empty");
    }
    GC_TRY(gc_plan_reserve(p, (size_t)items->n + 1, (size_t)items->n + 1, c->err));
    *slot = gc_plan_add_slot(p, -1);
    gc_items out = {slot, 1, 1};
    return add_part(p, n, index, "ConcatFromSequence", items, &out, flag, axis, 1, c->err);
}

gc_status gc_plan_stack(gc_plan *p, const gc_node *n, int32_t index, const gc_items *items, int64_t axis, int32_t *slot,
                        gc_op_call *c)
{
    return concat(p, n, index, items, "new_axis", axis, slot, c);
}

/* ---- the operators ---- */

/* One node: its inputs as slots, and what comes out. */
typedef struct sequence_call {
    gc_plan *p;
    const gc_node *n;
    int32_t index;
    gc_op_call *c;
    gc_items list; /* a new sequence */
    int32_t slot;  /* or a slot */
} sequence_call;

static int32_t input(const sequence_call *q, int32_t i)
{
    return i < q->n->n_in ? gc_plan_slot(q->p, q->n->in[i]) : -1;
}

/* Input i as a list. */
static gc_status list_of(const sequence_call *q, int32_t i, gc_items *out)
{
    int32_t slot = input(q, i);
    if (slot < 0 || !q->p->slots[slot].sequence) {
        return gc_op_fail(q->c, GRADCAM_E_DTYPE, "input %d must be a sequence", (int)i);
    }
    out->slots = q->p->slots[slot].items;
    out->n = out->capacity = q->p->slots[slot].n_items;
    return GRADCAM_OK;
}

static gc_status tensor_of(const sequence_call *q, int32_t i, int32_t *out)
{
    *out = input(q, i);
    if (*out < 0 || q->p->slots[*out].sequence) {
        return gc_op_fail(q->c, GRADCAM_E_DTYPE, "input %d must be a tensor", (int)i);
    }
    return GRADCAM_OK;
}

/* The constant position in input i, from 0 to `last`; negative ones count from `n`. */
static gc_status position_of(const sequence_call *q, int32_t i, int32_t n, int32_t last, int32_t *out)
{
    int64_t at = last;
    int32_t slot = input(q, i);
    if (slot >= 0 && !gc_plan_number(q->p, slot, &at)) {
        return gc_op_fail(q->c, GRADCAM_E_UNSUPPORTED, "the position is data-dependent or no number");
    }
    if (at < -(int64_t)n || at > last) {
        return gc_op_fail(q->c, GRADCAM_E_INVALID, "position %lld is outside a sequence of %d", (long long)at, (int)n);
    }
    *out = (int32_t)(at < 0 ? at + n : at);
    return GRADCAM_OK;
}

static gc_status add_all(sequence_call *q, const gc_items *from, int32_t first, int32_t end)
{
    for (int32_t i = first; i < end; i++) {
        GC_TRY(gc_items_add(q->p, &q->list, from->slots[i], q->c->err));
    }
    return GRADCAM_OK;
}

static gc_status sequence_empty(sequence_call *q)
{
    (void)q;
    return GRADCAM_OK;
}

static gc_status sequence_construct(sequence_call *q)
{
    for (int32_t i = 0; i < q->n->n_in; i++) {
        int32_t slot = -1;
        GC_TRY(tensor_of(q, i, &slot));
        GC_TRY(gc_items_add(q->p, &q->list, slot, q->c->err));
    }
    return GRADCAM_OK;
}

static gc_status sequence_insert(sequence_call *q)
{
    gc_items from = {NULL, 0, 0};
    int32_t slot = -1, at = 0;
    GC_TRY(list_of(q, 0, &from));
    GC_TRY(tensor_of(q, 1, &slot));
    GC_TRY(position_of(q, 2, from.n, from.n, &at));
    GC_TRY(add_all(q, &from, 0, at));
    GC_TRY(gc_items_add(q->p, &q->list, slot, q->c->err));
    return add_all(q, &from, at, from.n);
}

static gc_status sequence_erase(sequence_call *q)
{
    gc_items from = {NULL, 0, 0};
    int32_t at = 0;
    GC_TRY(list_of(q, 0, &from));
    GC_TRY(position_of(q, 1, from.n, from.n - 1, &at));
    GC_TRY(add_all(q, &from, 0, at));
    return add_all(q, &from, at + 1, from.n);
}

static gc_status sequence_at(sequence_call *q)
{
    gc_items from = {NULL, 0, 0};
    int32_t at = 0;
    GC_TRY(list_of(q, 0, &from));
    GC_TRY(position_of(q, 1, from.n, from.n - 1, &at));
    q->slot = from.slots[at];
    return GRADCAM_OK;
}

static gc_status sequence_length(sequence_call *q)
{
    gc_items from = {NULL, 0, 0};
    GC_TRY(list_of(q, 0, &from));
    return gc_plan_scalar(q->p, GRADCAM_I64, 0, from.n, &q->slot, q->c->err);
}

static gc_status sequence_concat(sequence_call *q)
{
    gc_items from = {NULL, 0, 0};
    GC_TRY(list_of(q, 0, &from));
    return concat(q->p, q->n, q->index, &from, NULL, 0, &q->slot, q->c);
}

static gc_status sequence_split(sequence_call *q)
{
    int32_t slots[2] = {-1, -1};
    gc_items in = {slots, input(q, 1) >= 0 ? 2 : 1, 2};
    for (int32_t i = 0; i < in.n; i++) {
        GC_TRY(tensor_of(q, i, &slots[i]));
    }
    return split(q->p, q->n, q->index, &in, NULL, 0, &q->list, q->c);
}

static gc_status sequence_copy(sequence_call *q)
{
    q->slot = input(q, 0);
    return GRADCAM_OK;
}

static gc_status settle(sequence_call *q)
{
    gc_plan *p = q->p;
    if (q->slot < 0) {
        GC_TRY(gc_plan_reserve(p, 1, 0, q->c->err));
        q->slot = gc_plan_add_slot(p, -1);
        p->slots[q->slot].sequence = 1;
        p->slots[q->slot].items = q->list.slots;
        p->slots[q->slot].n_items = q->list.n;
        memset(&q->list, 0, sizeof q->list);
    }
    gc_plan_assign(p, q->n->out[0], q->slot);
    return GRADCAM_OK;
}

static const struct {
    const char *op;
    gc_status (*plan)(sequence_call *q);
} operators[] = {
    {"ConcatFromSequence", sequence_concat},   {"Identity", sequence_copy},         {"SequenceAt", sequence_at},
    {"SequenceConstruct", sequence_construct}, {"SequenceEmpty", sequence_empty},   {"SequenceErase", sequence_erase},
    {"SequenceInsert", sequence_insert},       {"SequenceLength", sequence_length}, {"SplitToSequence", sequence_split},
};

gc_status gc_plan_unroll(gc_plan *p, const gc_node *n, int32_t index, gc_op_call *c)
{
    sequence_call q = {p, n, index, c, {NULL, 0, 0}, -1};
    gc_status status = GRADCAM_OK;
    if (strcmp(n->op->name, "Loop") == 0) {
        return gc_plan_loop(p, n, index, c);
    }
    if (strcmp(n->op->name, "Scan") == 0) {
        return gc_plan_scan(p, n, index, c);
    }
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (strcmp(n->op->name, operators[i].op) == 0) {
            status = operators[i].plan(&q);
        }
    }
    status = status == GRADCAM_OK ? settle(&q) : status;
    gc_items_free(p, &q.list);
    return status;
}
