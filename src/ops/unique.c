/* SPDX-License-Identifier: MIT */
/* Unique of a constant (the number of results is part of the plan). */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "ops/op.h"
#include "tensor/walk.h"

/* The items: elements, or slices along an axis: [outer][count][inner]. */
typedef struct items {
    const gc_tensor *x;
    int64_t outer, count, inner;
} items;

static gc_status setup(gc_op_call *c, items *s, int32_t *axis)
{
    GC_TRY(gc_op_need(c, 0));
    const gc_attr_value *a = gc_attr_find(&c->attrs, "axis", GRADCAM_ATTR_INT);
    s->x = c->in[0];
    if (s->x->data == NULL) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "the input is not constant: data-dependent shape");
    }
    *axis = -1;
    s->outer = s->inner = 1;
    s->count = gc_numel(s->x);
    if (a != NULL) {
        GC_TRY(gc_op_axis(c, a->i, s->x->ndim, axis));
        s->outer = gc_shape_numel(*axis, s->x->shape);
        s->count = s->x->shape[*axis];
        s->inner = gc_shape_numel(s->x->ndim - *axis - 1, s->x->shape + *axis + 1);
    }
    return GRADCAM_OK;
}

/* NaN is the largest number and equal to itself. */
static int compare_elements(const gc_tensor *x, int64_t i, int64_t k)
{
    size_t size = gc_dtype_size(x->dtype);
    const char *a = (const char *)x->data + (size_t)i * size, *b = (const char *)x->data + (size_t)k * size;
    if (x->dtype != GRADCAM_F32) {
        int64_t va = gc_load_int(a, x->dtype), vb = gc_load_int(b, x->dtype);
        return (va > vb) - (va < vb);
    }
    double va = gc_load_real(a, x->dtype), vb = gc_load_real(b, x->dtype);
    return isnan(va) || isnan(vb) ? (isnan(va) != 0) - (isnan(vb) != 0) : (va > vb) - (va < vb);
}

static int compare(const items *s, int64_t i, int64_t k)
{
    for (int64_t o = 0; o < s->outer; o++) {
        for (int64_t e = 0; e < s->inner; e++) {
            int order = compare_elements(s->x, (o * s->count + i) * s->inner + e, (o * s->count + k) * s->inner + e);
            if (order != 0) {
                return order;
            }
        }
    }
    return 0;
}

/* Merge sort of the item numbers: stable, so that equal items stay in order.
   Returns the array that holds the result. */
static int64_t *sort(const items *s, int64_t *from, int64_t *to)
{
    int64_t n = s->count;
    for (int64_t i = 0; i < n; i++) {
        from[i] = i;
    }
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t start = 0; start < n; start += 2 * width) {
            int64_t mid = start + width < n ? start + width : n, end = start + 2 * width < n ? start + 2 * width : n;
            int64_t a = start, b = mid;
            for (int64_t i = start; i < end; i++) {
                bool left = a < mid && (b >= end || compare(s, from[a], from[b]) <= 0);
                to[i] = left ? from[a++] : from[b++];
            }
        }
        int64_t *swap = from;
        from = to;
        to = swap;
    }
    return from;
}

static gc_status unique_infer(gc_op_call *c)
{
    items s;
    int32_t axis = -1;
    int64_t shape[GRADCAM_MAX_DIMS], bytes = 0, kept = 0;
    GC_TRY(setup(c, &s, &axis));
    if (!gc_mul_ok(s.count, 4 * (int64_t)sizeof(int64_t), &bytes) || (uint64_t)bytes > SIZE_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    int64_t *scratch = gc_mem_alloc(c->ctx, (size_t)s.count + 1, 2 * sizeof *scratch);
    if (scratch == NULL) {
        return gc_op_fail(c, GRADCAM_E_NOMEM, "out of memory");
    }
    const int64_t *order = sort(&s, scratch, scratch + s.count);
    for (int64_t i = 0; i < s.count; i++) {
        kept += i == 0 || compare(&s, order[i - 1], order[i]) != 0;
    }
    gc_mem_free(c->ctx, scratch);
    c->work_bytes = (size_t)bytes;
    memcpy(shape, s.x->shape, sizeof shape);
    if (axis >= 0) {
        shape[axis] = kept;
    }
    GC_TRY(gc_op_set_output(c, 0, s.x->dtype, axis < 0 ? 1 : s.x->ndim, axis < 0 ? &kept : shape));
    GC_TRY(gc_op_set_output(c, 1, GRADCAM_I64, 1, &kept));
    GC_TRY(gc_op_set_output(c, 2, GRADCAM_I64, 1, &s.count));
    return gc_op_set_output(c, 3, GRADCAM_I64, 1, &kept);
}

static int64_t *numbers(const gc_op_call *c, int32_t i)
{
    return i < c->n_out && c->out[i] != NULL ? c->out[i]->data : NULL;
}

static void put_item(const gc_op_call *c, const items *s, int64_t item, int64_t rank, int64_t kept)
{
    gc_tensor *y = c->out[0];
    size_t row = (size_t)s->inner * gc_dtype_size(s->x->dtype);
    for (int64_t o = 0; y != NULL && o < s->outer; o++) {
        memcpy((char *)y->data + (size_t)(o * kept + rank) * row,
               (const char *)s->x->data + (size_t)(o * s->count + item) * row, row);
    }
}

/* Groups of equal items, ranked by value or by first occurrence. */
static gc_status unique_forward(gc_op_call *c)
{
    items s;
    int32_t axis = -1;
    GC_TRY(setup(c, &s, &axis));
    int64_t n = s.count, kept = 0, next = 0, *scratch = c->work;
    int64_t *order = sort(&s, scratch, scratch + n), *group = scratch + 2 * n, *rank = scratch + 3 * n;
    int64_t *first = numbers(c, 1), *inverse = numbers(c, 2), *count = numbers(c, 3);
    bool sorted = gc_attr_int(&c->attrs, "sorted", 1) != 0;
    for (int64_t i = 0; i < n; i++) { /* stable: the first of a group is its first occurrence */
        kept += i == 0 || compare(&s, order[i - 1], order[i]) != 0;
        group[order[i]] = kept - 1;
    }
    for (int64_t g = 0; g < kept; g++) {
        rank[g] = sorted ? g : -1;
    }
    for (int64_t i = 0; !sorted && i < n; i++) {
        rank[group[i]] = rank[group[i]] < 0 ? next++ : rank[group[i]];
    }
    for (int64_t k = 0; count != NULL && k < kept; k++) {
        count[k] = 0;
    }
    for (int64_t i = n - 1; i >= 0; i--) { /* backwards: the first occurrence is written last */
        int64_t r = rank[group[i]];
        put_item(c, &s, i, r, kept);
        if (first != NULL) {
            first[r] = i;
        }
        if (inverse != NULL) {
            inverse[i] = r;
        }
        if (count != NULL) {
            count[r]++;
        }
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_unique[] = {
    {"Unique", unique_infer, unique_forward, NULL, GC_OP_STOPS, 0, 0, 1, 1, 4},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
