/* SPDX-License-Identifier: MIT */
/* ConcatFromSequence and SplitToSequence: a tensor and its pieces along an axis.
 * Sequences exist in plans only (run/sequence.c), which give a call one input,
 * or one output, for each piece.  Row-major: whole [outer, sum of lengths, inner],
 * piece [outer, length, inner] or, where the axis is new or dropped, [outer, inner]. */
#include "ops/pieces.h"

#include <string.h>

#include "base/size.h"

/* Copies the pieces out of the whole, or into it, where a NULL piece leaves zeros. */
static void copy_pieces(const gc_tensor *whole, int32_t axis, gc_tensor *const *pieces, const gc_tensor *const *shapes,
                        int32_t n, bool out)
{
    size_t size = gc_dtype_size(whole->dtype), at = 0;
    size_t row = (size_t)gc_shape_numel(whole->ndim - axis, whole->shape + axis) * size;
    int64_t outer = gc_numel(whole) > 0 ? gc_shape_numel(axis, whole->shape) : 0;
    for (int32_t i = 0; i < n; i++) {
        size_t bytes = (size_t)gc_shape_numel(shapes[i]->ndim - axis, shapes[i]->shape + axis) * size;
        char *piece = pieces[i] != NULL ? pieces[i]->data : NULL;
        for (int64_t o = 0; o < outer && bytes > 0; o++) {
            char *place = (char *)whole->data + (size_t)o * row + at;
            if (piece == NULL && !out) {
                memset(place, 0, bytes);
            } else if (piece != NULL) {
                memcpy(out ? piece + (size_t)o * bytes : place, out ? place : piece + (size_t)o * bytes, bytes);
            }
        }
        at += bytes;
    }
}

/* ---- ConcatFromSequence ---- */

static gc_status concat_axis(gc_op_call *c, bool *stacks, int32_t *axis)
{
    const gc_attr_value *a = gc_attr_find(&c->attrs, "axis", GRADCAM_ATTR_INT);
    if (a == NULL) {
        return gc_op_fail(c, GRADCAM_E_FORMAT, "the attribute 'axis' is missing");
    }
    *stacks = gc_attr_int(&c->attrs, "new_axis", 0) != 0;
    return gc_op_axis(c, a->i, c->in[0]->ndim + *stacks, axis);
}

/* The axis apart, all pieces must be alike. */
static gc_status add_length(gc_op_call *c, int32_t i, int32_t axis, bool stacks, int64_t *sum)
{
    const gc_tensor *a = c->in[0], *b = c->in[i];
    bool alike = a->dtype == b->dtype && a->ndim == b->ndim;
    for (int32_t k = 0; alike && k < a->ndim; k++) {
        alike = a->shape[k] == b->shape[k] || (k == axis && !stacks);
    }
    if (!alike || !gc_add_ok(*sum, stacks ? 1 : b->shape[axis], sum)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "item %d of the sequence has another type or shape than the first",
                          (int)i);
    }
    return GRADCAM_OK;
}

static gc_status concat_infer(gc_op_call *c)
{
    int32_t axis = 0;
    bool stacks = false;
    int64_t sum = 0, shape[GRADCAM_MAX_DIMS + 1];
    if (c->n_in < 1) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "the sequence is empty");
    }
    GC_TRY(concat_axis(c, &stacks, &axis));
    for (int32_t i = 0; i < c->n_in; i++) {
        GC_TRY(add_length(c, i, axis, stacks, &sum));
    }
    const gc_tensor *first = c->in[0];
    int32_t from = stacks ? axis : axis + 1, ndim = first->ndim + stacks;
    memcpy(shape, first->shape, (size_t)axis * sizeof *shape);
    shape[axis] = sum;
    memcpy(shape + axis + 1, first->shape + from, (size_t)(first->ndim - from) * sizeof *shape);
    return gc_op_set_output(c, 0, first->dtype, ndim, shape);
}

static gc_status concat_forward(gc_op_call *c)
{
    int32_t axis = 0;
    bool stacks = false;
    GC_TRY(concat_axis(c, &stacks, &axis));
    copy_pieces(c->out[0], axis, (gc_tensor *const *)(uintptr_t)c->in, c->in, c->n_in, false);
    return GRADCAM_OK;
}

static gc_status concat_backward(gc_op_call *c)
{
    int32_t axis = 0;
    bool stacks = false;
    GC_TRY(concat_axis(c, &stacks, &axis));
    copy_pieces(c->grad_out[0], axis, c->grad_in, c->in, c->n_in, true);
    return GRADCAM_OK;
}

/* ---- SplitToSequence ---- */

typedef struct split {
    int32_t axis;
    int64_t dim, each;     /* each: the length of all pieces but the last, if they are not listed */
    const gc_tensor *list; /* of lengths, or NULL */
    bool drops;            /* pieces lose the axis */
} split;

static int64_t number_at(const gc_tensor *t, int64_t k)
{
    return t->dtype == GRADCAM_I64 ? ((const int64_t *)t->data)[k] : ((const int32_t *)t->data)[k];
}

static gc_status split_setup(gc_op_call *c, split *s)
{
    const gc_tensor *lengths = c->n_in > 1 ? c->in[1] : NULL;
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", 0), c->in[0]->ndim, &s->axis));
    s->dim = c->in[0]->shape[s->axis];
    s->each = 1;
    s->list = NULL;
    s->drops = lengths == NULL && gc_attr_int(&c->attrs, "keepdims", 1) == 0;
    if (lengths == NULL) {
        return GRADCAM_OK;
    }
    if (lengths->data == NULL) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "the lengths of the pieces are data-dependent");
    }
    if ((lengths->dtype != GRADCAM_I64 && lengths->dtype != GRADCAM_I32) || lengths->ndim > 1) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "the lengths of the pieces must be a number or a list of int32 or int64");
    }
    if (lengths->ndim == 1) {
        s->list = lengths;
    } else if ((s->each = number_at(lengths, 0)) < 1) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "pieces of length %lld", (long long)s->each);
    }
    return GRADCAM_OK;
}

/* The lengths of a list are not negative and fill the axis. */
static gc_status check_list(gc_op_call *c, const split *s)
{
    int64_t left = s->dim;
    for (int64_t k = 0; s->list != NULL && k < gc_numel(s->list); k++) {
        int64_t length = number_at(s->list, k);
        if (length < 0 || length > left) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "the pieces do not fill %lld places", (long long)s->dim);
        }
        left -= length;
    }
    if (s->list != NULL && left != 0) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the pieces do not fill %lld places", (long long)s->dim);
    }
    return GRADCAM_OK;
}

gc_status gc_pieces_count(gc_op_call *c, int64_t most, int32_t *count)
{
    split s;
    GC_TRY(split_setup(c, &s));
    int64_t n = s.list != NULL ? gc_numel(s.list) : s.dim / s.each + (s.dim % s.each != 0);
    if (n > most || n > INT32_MAX / 4) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "%lld pieces; an eighth of gc_load_options.max_nodes allows %lld more",
                          (long long)n, (long long)most);
    }
    *count = (int32_t)n;
    return GRADCAM_OK;
}

static gc_status split_infer(gc_op_call *c)
{
    split s;
    int64_t shape[GRADCAM_MAX_DIMS + 1];
    GC_TRY(split_setup(c, &s));
    GC_TRY(check_list(c, &s));
    const gc_tensor *x = c->in[0];
    memcpy(shape, x->shape, sizeof x->shape);
    if (s.drops) {
        memcpy(shape + s.axis, x->shape + s.axis + 1, (size_t)(x->ndim - s.axis - 1) * sizeof *shape);
    }
    for (int32_t i = 0; i < c->n_out; i++) {
        if (!s.drops) {
            int64_t left = s.dim - i * s.each;
            shape[s.axis] = s.list != NULL ? number_at(s.list, i) : left < s.each ? left : s.each;
        }
        GC_TRY(gc_op_set_output(c, i, x->dtype, x->ndim - s.drops, shape));
    }
    return GRADCAM_OK;
}

static gc_status split_forward(gc_op_call *c)
{
    split s;
    GC_TRY(split_setup(c, &s));
    copy_pieces(c->in[0], s.axis, c->out, (const gc_tensor *const *)c->out, c->n_out, true);
    return GRADCAM_OK;
}

static gc_status split_backward(gc_op_call *c)
{
    split s;
    GC_TRY(split_setup(c, &s));
    if (c->grad_in[0] != NULL) {
        copy_pieces(c->grad_in[0], s.axis, c->grad_out, (const gc_tensor *const *)c->out, c->n_out, false);
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_pieces[] = {
    {"ConcatFromSequence", concat_infer, concat_forward, concat_backward, GC_OP_PLANNED, 0, 0, 1, 1, 1},
    {"SplitToSequence", split_infer, split_forward, split_backward, GC_OP_PLANNED, 0, 0, 1, 2, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
