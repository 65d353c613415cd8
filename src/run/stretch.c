/* SPDX-License-Identifier: MIT */
#include "run/stretch.h"

#include <string.h>

#include "base/size.h"
#include "run/weights.h"

int32_t gc_stretch_axis(const gc_tensor *one, const gc_tensor *many, int64_t repeat)
{
    int32_t axis = -1;
    for (int32_t i = 0; i < one->ndim; i++) {
        if (one->ndim != many->ndim ||
            (one->shape[i] != many->shape[i] &&
             (axis >= 0 || many->shape[i] % repeat != 0 || many->shape[i] / repeat != one->shape[i]))) {
            return -2;
        }
        axis = one->shape[i] != many->shape[i] ? i : axis;
    }
    return one->ndim == many->ndim ? axis : -2;
}

/* What a value is in the plan for one sample, or NULL. */
static const gc_slot *reference(const gc_plan *p, int32_t value)
{
    const gc_plan *ref = p->cut->ref;
    int32_t slot = value < 0 ? -1 : ref->slot_of[value];
    return slot < 0 || ref->slots[slot].fault != 0 ? NULL : &ref->slots[slot];
}

/* The axis of input i that holds the samples; below 0: none, or nobody knows. */
static int32_t samples_axis(const gc_plan *p, const gc_step *s, int32_t i, const gc_slot **one)
{
    *one = i >= s->call.n_in || s->in[i] < 0 ? NULL : reference(p, p->slots[s->in[i]].net_value);
    return *one == NULL ? -2 : gc_stretch_axis(&(*one)->value, &p->slots[s->in[i]].value, p->cut->repeat);
}

/* Elements of the axes before `axis`. */
static int64_t elements_before(const gc_tensor *t, int32_t axis)
{
    int64_t n = 1;
    for (int32_t i = 0; i < axis; i++) {
        n *= t->shape[i];
    }
    return n;
}

/* Input i of the step becomes a new constant of this type and shape. */
static gc_status replace(gc_plan *p, gc_step *s, int32_t i, gc_dtype dtype, int32_t ndim, const int64_t *shape,
                         gc_error *err)
{
    int64_t n = gc_shape_numel(ndim, shape);
    uint64_t left = p->net->max_bytes - p->folded_bytes;
    if (n < 0 || (uint64_t)n > left / gc_dtype_size(dtype)) {
        return gc_op_fail(&s->call, GRADCAM_E_LIMIT,
                          "for more samples its constants would have more than "
                          "gc_load_options.max_bytes");
    }
    p->folded_bytes += (uint64_t)n * gc_dtype_size(dtype);
    int32_t id = gc_plan_add_slot(p, -1);
    gc_slot *slot = &p->slots[id];
    slot->value.dtype = dtype;
    slot->value.ndim = ndim;
    memcpy(slot->value.shape, shape, (size_t)ndim * sizeof *shape);
    gc_row_strides(ndim, shape, slot->value.strides);
    slot->owned = gc_mem_alloc(p->ctx, (size_t)n + 1, gc_dtype_size(dtype));
    slot->value.data = slot->owned;
    slot->constant = 1;
    s->in[i] = id;
    s->call.in[i] = &slot->value;
    return slot->owned == NULL ? GC_NOMEM(err) : GRADCAM_OK;
}

/* A list of sizes, the same as in the plan for one sample. */
static bool is_fixed(const gc_plan *p, const gc_step *s, int32_t i)
{
    const gc_slot *one, *now = i >= s->call.n_in || s->in[i] < 0 ? NULL : &p->slots[s->in[i]];
    if (now == NULL || !now->constant || now->value.dtype != GRADCAM_I64 || now->value.ndim != 1) {
        return false;
    }
    one = reference(p, now->net_value);
    return one != NULL && one->constant && one->value.data != NULL && now->value.data != NULL &&
           gc_same_shape(&one->value, &now->value) &&
           memcmp(one->value.data, now->value.data, (size_t)gc_numel(&now->value) * sizeof(int64_t)) == 0;
}

/* Where samples that have `before` elements in front of them may lie in a value
   that is y for one sample: an axis of as many as there are samples if there is one, else the
   last but one that fits, since the last is rarely anything but features; -1: nowhere. */
static int32_t place(const gc_tensor *y, int64_t before, int64_t samples, int64_t *major)
{
    int32_t found = -1;
    for (int32_t i = 0; i < y->ndim; i++) {
        int64_t first = elements_before(y, i);
        bool fits = first > 0 && before % first == 0 && y->shape[i] > 0 && y->shape[i] % (before / first) == 0;
        if (fits && (found < 0 || i < y->ndim - 1)) {
            found = i;
            *major = before / first;
        }
        if (fits && before == first && y->shape[i] == samples) {
            found = i;
            *major = 1;
            break;
        }
    }
    return found;
}

static gc_status stretch_reshape(gc_plan *p, gc_step *s, gc_error *err)
{
    const gc_slot *x, *y = reference(p, s->out[0] < 0 ? -1 : p->slots[s->out[0]].net_value);
    int32_t axis = samples_axis(p, s, 0, &x);
    GC_TRY(gc_plan_hold(p, s->call.n_in > 1 ? s->in[1] : -1, err));
    if (axis < 0 || y == NULL || !is_fixed(p, s, 1)) {
        return GRADCAM_OK;
    }
    gc_slot *out = &p->slots[s->out[0]];
    int64_t before = elements_before(&x->value, axis) * p->slots[s->in[0]].major;
    int32_t to = place(&y->value, before, p->cut->samples, &out->major);
    if (to < 0) {
        return GRADCAM_OK;
    }
    int64_t n = y->value.ndim;
    GC_TRY(replace(p, s, 1, GRADCAM_I64, 1, &n, err));
    int64_t *shape = p->slots[s->in[1]].owned;
    memcpy(shape, y->value.shape, (size_t)n * sizeof *shape);
    shape[to] *= p->cut->repeat;
    return GRADCAM_OK;
}

/* Resize to a fixed size, which names the samples, too. */
static gc_status stretch_sizes(gc_plan *p, gc_step *s, gc_error *err)
{
    const gc_slot *x;
    int32_t axis = samples_axis(p, s, 0, &x);
    GC_TRY(gc_plan_hold(p, s->call.n_in > 3 ? s->in[3] : -1, err));
    if (axis < 0 || !is_fixed(p, s, 3) || s->call.in[3]->shape[0] != x->value.ndim) {
        return GRADCAM_OK;
    }
    const int64_t *old = s->call.in[3]->data;
    int64_t n = x->value.ndim;
    GC_TRY(replace(p, s, 3, GRADCAM_I64, 1, &n, err));
    int64_t *sizes = p->slots[s->in[3]].owned;
    memcpy(sizes, old, (size_t)n * sizeof *sizes);
    return gc_mul_ok(sizes[axis], p->cut->repeat, &sizes[axis])
               ? GRADCAM_OK
               : gc_op_fail(&s->call, GRADCAM_E_LIMIT, "its sizes are too large for more samples");
}

static gc_status repeat_constant(gc_plan *p, gc_step *s, int32_t i, int32_t axis, gc_error *err)
{
    GC_TRY(gc_plan_hold(p, s->in[i], err));
    gc_tensor old = p->slots[s->in[i]].value;
    int64_t shape[GRADCAM_MAX_DIMS];
    memcpy(shape, old.shape, sizeof shape);
    shape[axis] *= p->cut->repeat;
    GC_TRY(replace(p, s, i, old.dtype, old.ndim, shape, err));
    for (int64_t k = 0; k < p->cut->repeat; k++) {
        gc_tensor part = p->slots[s->in[i]].value;
        part.shape[axis] = old.shape[axis];
        part.data = (char *)part.data + (size_t)(k * old.shape[axis] * part.strides[axis]) * gc_dtype_size(old.dtype);
        gc_tensor_convert(&old, &part);
    }
    return GRADCAM_OK;
}

/* Room in the plan is for two new constants a node. */
enum { MOST_REPEATED = 2 };

/* Constants that are joined to what has samples. */
static gc_status stretch_concat(gc_plan *p, gc_step *s, gc_error *err)
{
    int32_t axis = -1, repeated = 0;
    const gc_slot *one;
    for (int32_t i = 0; i < s->call.n_in && axis < 0; i++) {
        axis = samples_axis(p, s, i, &one);
    }
    for (int32_t i = 0; i < s->call.n_in && axis >= 0 && repeated < MOST_REPEATED; i++) {
        const gc_slot *slot = s->in[i] < 0 ? NULL : &p->slots[s->in[i]];
        if (slot != NULL && slot->constant && slot->value.ndim > axis && slot->value.shape[axis] == p->cut->samples) {
            GC_TRY(repeat_constant(p, s, i, axis, err));
            repeated++;
        }
    }
    return GRADCAM_OK;
}

gc_status gc_stretch_inputs(gc_plan *p, gc_step *s, gc_error *err)
{
    if (p->cut == NULL || p->cut->repeat <= 1 || s->call.custom != NULL || p->scope.depth > 0) {
        return GRADCAM_OK;
    }
    if (strcmp(s->op->name, "Reshape") == 0) {
        return stretch_reshape(p, s, err);
    }
    if (strcmp(s->op->name, "Resize") == 0) {
        return stretch_sizes(p, s, err);
    }
    return strcmp(s->op->name, "Concat") == 0 ? stretch_concat(p, s, err) : GRADCAM_OK;
}

void gc_stretch_outputs(gc_plan *p, const gc_step *s)
{
    if (p->cut == NULL || p->cut->repeat <= 1 || strcmp(s->op->name, "Reshape") == 0) {
        return;
    }
    int64_t major = 1;
    for (int32_t i = 0; i < s->call.n_in && major == 1; i++) {
        major = s->in[i] < 0 ? 1 : p->slots[s->in[i]].major;
    }
    for (int32_t i = 0; i < s->call.n_out; i++) {
        gc_slot *out = s->out[i] < 0 ? NULL : &p->slots[s->out[i]];
        if (out != NULL) {
            out->major = major;
        }
    }
}
