/* SPDX-License-Identifier: MIT */
#include "run/route.h"

#include <string.h>

#include "ops/attention.h"
#include "tensor/walk.h"

static const gc_tensor *input(const gc_plan *p, const gc_step *s, int32_t k)
{
    return k >= s->call.n_in || s->in[k] < 0 ? NULL : &p->slots[s->in[k]].value;
}

static const gc_tensor *output(const gc_plan *p, const gc_step *s)
{
    return &p->slots[s->out[0]].value;
}

static void along(gc_rows *to, int32_t axis, int64_t first, int64_t end)
{
    *to = (gc_rows){axis, 0, first, end};
}

/* ---- attributes and constants ---- */

enum { MOST_INTS = 2 * GRADCAM_MAX_DIMS };

/* The attribute `name`, else the constant input k; the count, or -1 without either. */
static int32_t ints_of(const gc_plan *p, const gc_step *s, const char *name, int32_t k, int64_t *list)
{
    const gc_attr_value *a = gc_attr_find(&s->call.attrs, name, GRADCAM_ATTR_INTS);
    const gc_tensor *t = a == NULL ? input(p, s, k) : NULL;
    int64_t n = a != NULL ? (int64_t)a->count : t != NULL ? gc_numel(t) : -1;
    if (n > MOST_INTS || (t != NULL && (!p->slots[s->in[k]].constant || t->data == NULL))) {
        return -1;
    }
    for (int64_t i = 0; i < n; i++) {
        list[i] = a != NULL ? a->ints[i]
                            : gc_load_int((const char *)t->data + (size_t)i * gc_dtype_size(t->dtype), t->dtype);
    }
    return (int32_t)n;
}

/* The attribute "axis", 0 .. ndim - 1. */
static bool axis_of(const gc_step *s, int64_t absent, int32_t ndim, int32_t *axis)
{
    int64_t a = gc_attr_int(&s->call.attrs, "axis", absent);
    *axis = (int32_t)(a < 0 ? a + ndim : a);
    return a >= -(int64_t)ndim && a < ndim;
}

/* ---- the ways ---- */

/* Input k, which repeats to the shape of the output. */
static bool repeats(const gc_plan *p, const gc_step *s, int32_t k, const gc_rows *r, gc_rows *in)
{
    const gc_tensor *t = input(p, s, k), *y = output(p, s);
    int32_t axis = t == NULL ? -1 : r->axis - (y->ndim - t->ndim);
    if (axis < 0 || t->shape[axis] == 1) {
        return true;
    }
    along(&in[k], axis, r->first, r->end);
    return t->shape[axis] == y->shape[r->axis];
}

static bool by_element(const gc_plan *p, const gc_step *s, const gc_rows *r, gc_rows *in)
{
    bool ok = true;
    for (int32_t k = 0; k < s->call.n_in; k++) {
        ok = ok && repeats(p, s, k, r, in);
    }
    return ok;
}

/* Scale and bias are of the axes that are normalised. */
static bool by_norm(const gc_plan *p, const gc_step *s, const gc_rows *r, gc_rows *in)
{
    int32_t axis;
    return axis_of(s, -1, output(p, s)->ndim, &axis) && r->axis < axis && by_element(p, s, r, in);
}

/* Until 13 all axes from "axis" on were one. */
static bool by_softmax(const gc_plan *p, const gc_step *s, const gc_rows *r, gc_rows *in)
{
    int32_t axis;
    bool old = s->call.opset < 13;
    return axis_of(s, old ? 1 : -1, output(p, s)->ndim, &axis) && (old ? r->axis < axis : r->axis != axis) &&
           by_element(p, s, r, in);
}

/* Rows of A make rows of A B; other batches of either, those of the product. */
static bool by_matmul(const gc_plan *p, const gc_step *s, const gc_rows *r, gc_rows *in)
{
    const gc_tensor *a = input(p, s, 0), *b = input(p, s, 1), *y = output(p, s);
    if (a->ndim < 2 || b->ndim < 2 || r->axis >= y->ndim - 1) {
        return false;
    }
    if (r->axis == y->ndim - 2) {
        along(&in[0], a->ndim - 2, r->first, r->end);
        return true;
    }
    return repeats(p, s, 0, r, in) && repeats(p, s, 1, r, in);
}

static bool by_gemm(const gc_plan *p, const gc_step *s, const gc_rows *r, gc_rows *in)
{
    along(&in[0], 0, r->first, r->end);
    return r->axis == 0 && gc_attr_int(&s->call.attrs, "transA", 0) == 0 && repeats(p, s, 2, r, in);
}

/* Queries are independent of each other where no mask tells them apart. */
static bool by_attention(const gc_plan *p, const gc_step *s, const gc_rows *r, gc_rows *in)
{
    const gc_attr_list *a = &s->call.attrs;
    bool open = gc_attr_int(a, "is_causal", 0) == 0 && gc_attr_int(a, "left_window_size", -1) < 0 &&
                gc_attr_int(a, "right_window_size", -1) < 0;
    int32_t axis = output(p, s)->ndim - 2;
    along(&in[AT_Q], axis, r->first, r->end);
    return open && s->call.n_in == AT_V + 1 && r->axis == axis;
}

static bool by_transpose(const gc_plan *p, const gc_step *s, const gc_rows *r, gc_rows *in)
{
    int64_t perm[MOST_INTS];
    int32_t ndim = output(p, s)->ndim, n = ints_of(p, s, "perm", s->call.n_in, perm);
    along(&in[0], n == ndim ? (int32_t)perm[r->axis] : ndim - 1 - r->axis, r->first, r->end);
    return n == ndim || n < 0;
}

/* Other axes than that along which entries are taken. */
static bool by_gather(const gc_plan *p, const gc_step *s, const gc_rows *r, gc_rows *in)
{
    int32_t axis, more = input(p, s, 1)->ndim - 1;
    if (!axis_of(s, 0, input(p, s, 0)->ndim, &axis)) {
        return false;
    }
    along(&in[0], r->axis < axis ? r->axis : r->axis - more, r->first, r->end);
    return r->axis < axis || r->axis > axis + more;
}

static int64_t elements_from(const gc_tensor *t, int32_t axis)
{
    int64_t n = 1;
    for (int32_t k = axis; k < t->ndim; k++) {
        n *= t->shape[k];
    }
    return n;
}

/* In row-major order the rows are elements first .. end - 1 of every `period`; they
   are rows of that axis of the input that has the same period, if they divide so. */
static bool by_order(const gc_plan *p, const gc_step *s, const gc_rows *r, gc_rows *in)
{
    const gc_tensor *x = input(p, s, 0), *y = output(p, s);
    int64_t each = elements_from(y, r->axis + 1), period = elements_from(y, r->axis);
    for (int32_t k = 0; k < x->ndim && period > 0; k++) {
        int64_t size = elements_from(x, k + 1);
        if (size * x->shape[k] == period && r->first * each % size == 0 && r->end * each % size == 0) {
            along(&in[0], k, r->first * each / size, r->end * each / size);
            return true;
        }
    }
    return false;
}

typedef bool (*way_fn)(const gc_plan *p, const gc_step *s, const gc_rows *r, gc_rows *in);

static const struct {
    const char *name;
    way_fn way;
} ways[] = {
    {"MatMul", by_matmul},         {"Gemm", by_gemm},           {"LayerNormalization", by_norm},
    {"RMSNormalization", by_norm}, {"Softmax", by_softmax},     {"Attention", by_attention},
    {"Transpose", by_transpose},   {"Gather", by_gather},       {"Add", by_element},
    {"Sub", by_element},           {"Mul", by_element},         {"Div", by_element},
    {"Pow", by_element},           {"Min", by_element},         {"Max", by_element},
    {"Where", by_element},         {"Neg", by_element},         {"Sqrt", by_element},
    {"Reciprocal", by_element},    {"Exp", by_element},         {"Erf", by_element},
    {"Tanh", by_element},          {"Sigmoid", by_element},     {"Softplus", by_element},
    {"Relu", by_element},          {"LeakyRelu", by_element},   {"Elu", by_element},
    {"Gelu", by_element},          {"Swish", by_element},       {"Mish", by_element},
    {"HardSwish", by_element},     {"HardSigmoid", by_element}, {"Clip", by_element},
    {"Identity", by_element},
};

static way_fn way_of(const gc_step *s)
{
    if (s->op == NULL) {
        return by_element;
    }
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        if (gc_step_is(s, ways[i].name)) {
            return ways[i].way;
        }
    }
    return gc_route_reshapes(s) ? by_order : NULL;
}

bool gc_route_reshapes(const gc_step *s)
{
    static const char *const names[] = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"};
    bool any = false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        any = any || gc_step_is(s, names[i]);
    }
    return any;
}

bool gc_route_moves(const gc_step *s)
{
    return s->op == NULL || gc_route_reshapes(s) || gc_step_is(s, "Transpose") || gc_step_is(s, "Gather") ||
           gc_step_is(s, "Identity");
}

static bool alone(const gc_step *s)
{
    for (int32_t k = 1; k < s->call.n_out; k++) {
        if (s->out[k] >= 0) {
            return false;
        }
    }
    return s->call.n_out > 0 && s->out[0] >= 0 && s->call.custom == NULL && s->call.n_in > 0 && s->in[0] >= 0;
}

bool gc_route(const gc_plan *p, const gc_step *s, const gc_rows *rows, gc_rows in[GC_ROUTE_INPUTS])
{
    way_fn way = alone(s) && s->call.n_in <= GC_ROUTE_INPUTS ? way_of(s) : NULL;
    for (int32_t k = 0; k < GC_ROUTE_INPUTS; k++) {
        along(&in[k], -1, 0, 0);
    }
    return way != NULL && way(p, s, rows, in);
}

/* ---- where rows are picked ---- */

static bool picks_entry(const gc_plan *p, const gc_step *s, gc_rows *r)
{
    int64_t index[MOST_INTS], size;
    int32_t axis;
    const gc_tensor *x = input(p, s, 0);
    if (!axis_of(s, 0, x->ndim, &axis) || ints_of(p, s, "", 1, index) != 1) {
        return false;
    }
    size = x->shape[axis];
    index[0] += index[0] < 0 ? size : 0;
    along(r, axis, index[0], index[0] + 1);
    return index[0] >= 0 && index[0] < size;
}

/* Along one axis; the shape rule has seen that all lists fit. */
static bool picks_slice(const gc_plan *p, const gc_step *s, gc_rows *r)
{
    int64_t starts[MOST_INTS], axes[MOST_INTS], steps[MOST_INTS];
    int32_t n = ints_of(p, s, "starts", 1, starts), n_axes = ints_of(p, s, "axes", 3, axes);
    int32_t n_steps = ints_of(p, s, "steps", 4, steps), found = 0;
    const gc_tensor *x = input(p, s, 0), *y = output(p, s);
    for (int32_t i = 0; i < n; i++) {
        int64_t named = n_axes == n ? axes[i] : i, axis = named < 0 ? named + x->ndim : named;
        int64_t size = x->shape[axis], first = starts[i] < 0 ? starts[i] + size : starts[i];
        if (n_steps == n && steps[i] != 1) {
            return false;
        }
        if (y->shape[axis] != size) {
            first = first < 0 ? 0 : first;
            along(r, (int32_t)axis, first, first + y->shape[axis]);
            found++;
        }
    }
    return found == 1 && r->end > r->first;
}

bool gc_route_picks(const gc_plan *p, const gc_step *s, gc_rows *r)
{
    return alone(s) &&
           (gc_step_is(s, "Gather") ? picks_entry(p, s, r) : gc_step_is(s, "Slice") && picks_slice(p, s, r));
}
