/* SPDX-License-Identifier: MIT */
#include "run/attend.h"

#include <string.h>

#include "ops/attention.h"
#include "run/route.h"
#include "tensor/walk.h"

/* A value seen as [batch, head, row, column] within the storage of a slot. */
typedef struct window {
    int32_t slot;
    float scale; /* the value is what lies there times this */
    int64_t at;
    int64_t shape[4], stride[4];
} window;

static const gc_step *producer_of(const gc_plan *p, int32_t slot)
{
    return slot < 0 || p->slots[slot].producer < 0 ? NULL : &p->steps[p->slots[slot].producer];
}

/* ---- back to where a value comes from ---- */

/* The dimension of t along which elements lie `stride` apart, or -1. */
static int32_t dim_of(const gc_tensor *t, int64_t stride)
{
    int32_t best = -1;
    for (int32_t k = 0; k < t->ndim; k++) {
        bool fits = t->shape[k] > 1 && t->strides[k] <= stride && stride % t->strides[k] == 0;
        if (fits && (best < 0 || t->strides[k] > t->strides[best])) {
            best = k;
        }
    }
    return best;
}

/* at as indices into t, which has no gaps. */
static void indices_of(const gc_tensor *t, int64_t at, int64_t *index)
{
    for (int32_t k = 0; k < t->ndim; k++) {
        int64_t above = gc_numel(t); /* elements until index k begins again */
        for (int32_t i = 0; i < t->ndim; i++) {
            bool larger = t->shape[i] > 1 && t->strides[i] > t->strides[k];
            above = larger && t->strides[i] < above ? t->strides[i] : above;
        }
        index[k] = t->shape[k] > 1 ? at % above / t->strides[k] : 0;
    }
}

/* The window on `out` seen in `in`: dimension k of out is map[k] of in, whose first
   element of the part is at `first`. */
static bool remap(window *w, const gc_tensor *out, const gc_tensor *in, const int32_t *map, int64_t first)
{
    int64_t reach[GRADCAM_MAX_DIMS], at = first;
    indices_of(out, w->at, reach);
    for (int32_t k = 0; k < out->ndim; k++) {
        at += reach[k] * in->strides[map[k]];
    }
    for (int32_t i = 0; i < 4; i++) {
        int32_t k = w->shape[i] > 1 ? dim_of(out, w->stride[i]) : -1;
        if (w->shape[i] > 1 && k < 0) {
            return false;
        }
        if (k >= 0) {
            int64_t steps = w->stride[i] / out->strides[k];
            reach[k] += (w->shape[i] - 1) * steps;
            w->stride[i] = steps * in->strides[map[k]];
        }
    }
    for (int32_t k = 0; k < out->ndim; k++) {
        if (reach[k] >= out->shape[k] && out->shape[k] > 1) {
            return false;
        }
    }
    w->at = at;
    return true;
}

/* A constant with one element. */
static bool number(const gc_plan *p, int32_t slot, double *out)
{
    const gc_slot *s = slot < 0 ? NULL : &p->slots[slot];
    if (s == NULL || !s->constant || s->fault != 0 || s->value.data == NULL || gc_numel(&s->value) != 1) {
        return false;
    }
    *out = gc_load_real(s->value.data, s->value.dtype);
    return true;
}

/* Product with or quotient by a number: the operand that is not the number. */
static bool is_scaling(const gc_plan *p, const gc_step *s, int32_t *operand, float *scale)
{
    double by;
    bool mul = gc_step_is(s, "Mul");
    if ((!mul && !gc_step_is(s, "Div")) || s->call.n_in != 2) {
        return false;
    }
    int32_t k = number(p, s->in[1], &by) ? 0 : mul && number(p, s->in[0], &by) ? 1 : -1;
    if (k < 0 || s->in[k] < 0 || p->slots[s->in[k]].value.ndim != p->slots[s->out[0]].value.ndim) {
        return false;
    }
    *operand = k;
    *scale = (float)(mul ? by : 1.0 / by);
    return true;
}

static void same_dims(int32_t *map, int32_t from, int32_t shift)
{
    for (int32_t k = from; k < GRADCAM_MAX_DIMS; k++) {
        map[k] = k + shift;
    }
}

static bool transposed(const gc_step *s, int32_t ndim, int32_t *map)
{
    const gc_attr_value *perm = gc_attr_find(&s->call.attrs, "perm", GRADCAM_ATTR_INTS);
    for (int32_t k = 0; k < ndim; k++) {
        int64_t to = perm == NULL ? ndim - 1 - k : (int64_t)k < (int64_t)perm->count ? perm->ints[k] : -1;
        if (to < 0 || to >= ndim) {
            return false;
        }
        map[k] = (int32_t)to;
    }
    return true;
}

static bool axis_of(const gc_step *s, int32_t ndim, int32_t *axis)
{
    int64_t a = gc_attr_int(&s->call.attrs, "axis", 0);
    *axis = (int32_t)(a < 0 ? a + ndim : a);
    return a >= -(int64_t)ndim && a < ndim;
}

/* One entry along an axis. */
static bool picked(const gc_plan *p, const gc_step *s, const gc_tensor *in, int32_t *map, int64_t *first)
{
    int32_t axis;
    double index;
    if (!axis_of(s, in->ndim, &axis) || !number(p, s->in[1], &index)) {
        return false;
    }
    index = index < 0.0 ? index + (double)in->shape[axis] : index;
    if (!(index >= 0.0 && index < (double)in->shape[axis])) {
        return false;
    }
    if (p->slots[s->in[1]].value.ndim == 0) {
        same_dims(map, axis, 1);
    }
    *first = (int64_t)index * in->strides[axis];
    return true;
}

/* Some rows, such as those that run/rows.c leaves. */
static bool sliced(const gc_plan *p, const gc_step *s, const gc_tensor *in, int64_t *first)
{
    gc_rows rows;
    bool ok = gc_route_picks(p, s, &rows);
    *first = ok ? rows.first * in->strides[rows.axis] : 0;
    return ok;
}

static bool part_of(const gc_plan *p, const gc_step *s, int32_t slot, const gc_tensor *in, int64_t *first)
{
    int32_t axis;
    if (!axis_of(s, in->ndim, &axis)) {
        return false;
    }
    for (int32_t k = 0; k < s->call.n_out && s->out[k] != slot; k++) {
        if (s->out[k] < 0) {
            return false;
        }
        *first += p->slots[s->out[k]].value.shape[axis] * in->strides[axis];
    }
    return true;
}

/* The window seen in the input of the step that makes its slot. */
static bool step_back(const gc_plan *p, window *w, bool scalable)
{
    const gc_slot *slot = &p->slots[w->slot];
    const gc_step *s = producer_of(p, w->slot);
    int32_t operand = 0, map[GRADCAM_MAX_DIMS];
    int64_t first = 0;
    float scale = 1.0f;
    if (s == NULL || slot->kept || slot->active || s->call.custom != NULL || s->call.n_in < 1 || s->in[0] < 0) {
        return false;
    }
    const gc_tensor *in = &p->slots[s->in[0]].value;
    bool ok = s->op == NULL || gc_step_is(s, "Identity"), flat = false;
    same_dims(map, 0, 0);
    if (!ok && gc_step_is(s, "Transpose")) {
        ok = transposed(s, in->ndim, map);
    } else if (!ok && gc_step_is(s, "Gather")) {
        ok = picked(p, s, in, map, &first);
    } else if (!ok && gc_step_is(s, "Slice")) {
        ok = sliced(p, s, in, &first);
    } else if (!ok && gc_step_is(s, "Split")) {
        ok = part_of(p, s, w->slot, in, &first);
    } else if (!ok && scalable && is_scaling(p, s, &operand, &scale)) {
        ok = true;
    } else if (!ok && s->call.view == GC_VIEW_FLAT) {
        ok = flat = gc_is_row(in) && gc_is_row(&slot->value);
    }
    const gc_slot *from = &p->slots[s->in[operand]];
    if (!ok || from->constant || from->fault != 0 || from->value.dtype != GRADCAM_F32 ||
        (!flat && !remap(w, &slot->value, &from->value, map, first))) {
        return false;
    }
    w->slot = s->in[operand];
    w->scale *= scale;
    return true;
}

/* A matrix of each head: `swapped` takes the last two dimensions the other way. */
static bool window_on(const gc_plan *p, int32_t slot, bool swapped, window *w)
{
    const gc_slot *s = slot < 0 ? NULL : &p->slots[slot];
    memset(w, 0, sizeof *w);
    if (s == NULL || s->constant || s->fault != 0 || s->value.dtype != GRADCAM_F32 || s->value.ndim < 3 ||
        s->value.ndim > 4) {
        return false;
    }
    w->slot = slot;
    w->scale = 1.0f;
    w->shape[1] = 1; /* of rank 3: one head */
    for (int32_t k = 0; k < s->value.ndim; k++) {
        int32_t last = s->value.ndim - 1 - k, to = k == 0 ? (swapped ? 2 : 3) : k == 1 ? (swapped ? 3 : 2) : last;
        w->shape[to] = s->value.shape[last];
        w->stride[to] = s->value.strides[last];
    }
    return true;
}

/* As far back as leads to rows without gaps. */
static bool origin(const gc_plan *p, int32_t slot, bool swapped, bool scalable, window *out)
{
    window w;
    bool found = false;
    for (bool ok = window_on(p, slot, swapped, &w); ok; ok = step_back(p, &w, scalable)) {
        if (w.shape[3] == 1 || w.stride[3] == 1) {
            *out = w;
            found = true;
        }
    }
    return found;
}

/* ---- the pattern ---- */

typedef struct pattern {
    int32_t last; /* the step that makes Y */
    int32_t mask; /* slot, or -1 */
    float scale;
    window q, k, v, y;
} pattern;

/* The only step that reads a slot, which nobody observes, or -1. */
static int32_t sole_reader(const gc_plan *p, int32_t slot)
{
    int32_t reader = -1, count = 0;
    for (int32_t i = 0; i < p->n_steps; i++) {
        for (int32_t k = 0; k < p->steps[i].call.n_in; k++) {
            if (p->steps[i].in[k] == slot) {
                reader = i;
                count++;
            }
        }
    }
    const gc_slot *s = &p->slots[slot];
    return count == 1 && !s->kept && !s->constant && s->fault == 0 ? reader : -1;
}

/* Repeats to the scores, of which it is no more than their rows where those have
   only one batch dimension. */
static bool fits_mask(const gc_plan *p, int32_t slot, const gc_tensor *scores)
{
    const gc_slot *s = slot < 0 ? NULL : &p->slots[slot];
    if (s == NULL || s->fault != 0 || s->value.dtype != GRADCAM_F32 || s->value.ndim < 1 || s->active ||
        s->value.ndim > (scores->ndim == 4 ? 4 : 2) || !gc_is_row(&s->value)) {
        return false;
    }
    for (int32_t k = 1; k <= s->value.ndim; k++) {
        int64_t size = s->value.shape[s->value.ndim - k];
        if (size != 1 && size != scores->shape[scores->ndim - k]) {
            return false;
        }
    }
    return true;
}

static bool over_last(const gc_step *s, int32_t ndim)
{
    int64_t axis = gc_attr_int(&s->call.attrs, "axis", s->call.opset < 13 ? 1 : -1);
    return axis == -1 || axis == ndim - 1;
}

/* From the scores that the Softmax reads up to the product Q K^T. */
static const gc_step *scores_of(const gc_plan *p, int32_t slot, pattern *t)
{
    const gc_tensor *scores = &p->slots[slot].value;
    t->mask = -1;
    t->scale = 1.0f;
    for (;;) {
        const gc_step *s = sole_reader(p, slot) < 0 ? NULL : producer_of(p, slot);
        int32_t operand = 0;
        float scale;
        if (s == NULL || s->backward || gc_step_is(s, "MatMul")) {
            return s == NULL || s->backward ? NULL : s;
        }
        if (is_scaling(p, s, &operand, &scale)) {
            t->scale *= scale;
        } else if (gc_step_is(s, "Add") && s->call.n_in == 2 && t->mask < 0 && t->scale == 1.0f) {
            const gc_step *left = producer_of(p, s->in[0]);
            operand = left != NULL && (gc_step_is(left, "MatMul") || gc_step_is(left, "Mul") || gc_step_is(left, "Div"))
                          ? 0
                          : 1;
            t->mask = s->in[1 - operand];
            if (!fits_mask(p, t->mask, scores)) {
                return NULL;
            }
        } else {
            return NULL;
        }
        slot = s->in[operand];
        if (slot < 0 || !gc_same_shape(&p->slots[slot].value, scores)) {
            return NULL;
        }
    }
}

/* One matrix for each head on all sides, none of which repeats. */
static bool shapes_fit(const pattern *t)
{
    const int64_t *q = t->q.shape, *k = t->k.shape, *v = t->v.shape;
    bool heads = q[0] == k[0] && q[1] == k[1] && q[0] == v[0] && q[1] == v[1];
    return heads && q[3] == k[3] && k[2] == v[2] && q[3] > 0 && v[3] > 0;
}

static bool recognise(const gc_plan *p, int32_t index, pattern *t)
{
    const gc_step *soft = &p->steps[index];
    if (!gc_step_is(soft, "Softmax") || soft->backward || soft->in[0] < 0 || soft->out[0] < 0 ||
        !over_last(soft, p->slots[soft->in[0]].value.ndim)) {
        return false;
    }
    t->last = sole_reader(p, soft->out[0]);
    const gc_step *last = t->last < 0 ? NULL : &p->steps[t->last];
    if (last == NULL || !gc_step_is(last, "MatMul") || last->backward || last->in[0] != soft->out[0] ||
        last->out[0] < 0) {
        return false;
    }
    const gc_step *scores = scores_of(p, soft->in[0], t);
    int32_t ndim = p->slots[soft->in[0]].value.ndim;
    return scores != NULL && p->slots[scores->in[0]].value.ndim == ndim && p->slots[scores->in[1]].value.ndim == ndim &&
           p->slots[last->in[1]].value.ndim == ndim && origin(p, scores->in[0], false, true, &t->q) &&
           origin(p, scores->in[1], true, true, &t->k) && origin(p, last->in[1], false, false, &t->v) && shapes_fit(t);
}

/* ---- the step ---- */

/* Where Y goes: the slot of the product, or that of the Transpose that alone reads it. */
static bool aim(const gc_plan *p, const pattern *t, window *y, int32_t *transpose)
{
    int32_t out = p->steps[t->last].out[0], next = sole_reader(p, out), map[GRADCAM_MAX_DIMS];
    window there;
    *transpose = -1;
    if (!window_on(p, out, false, y)) {
        return false;
    }
    const gc_step *s = next < 0 ? NULL : &p->steps[next];
    if (s == NULL || !gc_step_is(s, "Transpose") || s->backward || s->out[0] < 0 || p->slots[s->out[0]].fault != 0 ||
        !transposed(s, p->slots[out].value.ndim, map)) {
        return y->shape[3] == 1 || y->stride[3] == 1;
    }
    const gc_tensor *moved = &p->slots[s->out[0]].value;
    int32_t skip = 4 - moved->ndim; /* of rank 3: no heads */
    there = *y;
    there.slot = s->out[0];
    for (int32_t k = 0; k < moved->ndim; k++) {
        int32_t to = map[k] == 0 ? 0 : map[k] + skip;
        there.stride[to] = moved->strides[k];
    }
    if (there.shape[3] == 1 || there.stride[3] == 1) {
        *y = there;
        *transpose = next;
    }
    return y->shape[3] == 1 || y->stride[3] == 1;
}

static int32_t add_window(gc_plan *p, const window *w)
{
    int32_t id = gc_plan_add_slot(p, -1);
    gc_slot *s = &p->slots[id];
    s->base = w->slot;
    s->base_at = w->at;
    s->value.dtype = GRADCAM_F32;
    s->value.ndim = 4;
    memcpy(s->value.shape, w->shape, sizeof w->shape);
    memcpy(s->value.strides, w->stride, sizeof w->stride);
    return id;
}

static gc_status set_attributes(const gc_plan *p, const pattern *t, gc_step *s, gc_error *err)
{
    gc_attr_value *a = gc_mem_alloc(p->ctx, 2, sizeof *a);
    if (a == NULL) {
        return GC_NOMEM(err);
    }
    s->own_attrs = a;
    a[0].name = "scale";
    a[0].kind = GRADCAM_ATTR_FLOAT;
    a[0].f = t->scale * t->q.scale * t->k.scale;
    a[1].name = GC_ATTENTION_SOFTMAX;
    a[1].kind = GRADCAM_ATTR_INT;
    a[1].i = 1;
    s->call.attrs = (gc_attr_list){a, 2};
    s->call.opset = 23;
    return GRADCAM_OK;
}

/* Takes over from the step `t->last`, and from the Transpose if there is one. */
static gc_status make_step(gc_plan *p, const pattern *t, const window *y, int32_t transpose, gc_step *s, gc_error *err)
{
    gc_step *old = &p->steps[t->last];
    const window *in[3] = {&t->q, &t->k, &t->v};
    GC_TRY(set_attributes(p, t, s, err));
    s->op = gc_op_find("Attention");
    s->call.op_name = s->op->name;
    s->call.node_name = old->call.node_name;
    s->pack_net = NULL;
    s->later_turn = old->later_turn;
    s->call.some_rows = old->call.some_rows;
    for (int32_t i = 0; i < 3; i++) {
        s->in[i] = add_window(p, in[i]);
        s->call.in[i] = &p->slots[s->in[i]].value;
    }
    if (t->mask >= 0) {
        s->in[AT_MASK] = t->mask;
        s->call.in[AT_MASK] = &p->slots[t->mask].value;
    }
    s->out[0] = y->slot;
    s->out_window = add_window(p, y);
    s->call.out[0] = &p->slots[s->out_window].value;
    GC_TRY(s->op->infer(&s->call));
    gc_plan_free_step(p->ctx, old);
    *old = *s;
    p->slots[y->slot].producer = t->last;
    if (transpose >= 0) {
        p->steps[transpose].out[0] = -1;
        p->steps[transpose].call.out[0] = NULL;
    }
    return GRADCAM_OK;
}

gc_status gc_plan_attend(gc_plan *p, gc_error *err)
{
    for (int32_t i = 0; i < p->n_steps && !p->exact; i++) {
        pattern t;
        window y;
        int32_t transpose;
        gc_step s;
        if (!recognise(p, i, &t) || !aim(p, &t, &y, &transpose)) {
            continue;
        }
        int32_t node = p->steps[t.last].node;
        GC_TRY(gc_plan_reserve(p, 4, 0, err));
        gc_status status = gc_plan_begin_step(p, &p->net->nodes[node], node, t.mask >= 0 ? AT_MASK + 1 : AT_MASK, 1, &s,
                                              err);
        status = status == GRADCAM_OK ? make_step(p, &t, &y, transpose, &s, err) : status;
        if (status != GRADCAM_OK) {
            gc_plan_free_step(p->ctx, &s);
            return status;
        }
    }
    return GRADCAM_OK;
}
