/* SPDX-License-Identifier: MIT */
/* Operators that move elements without changing them. */
#include <string.h>

#include "base/size.h"
#include "kern/copy.h"
#include "ops/op.h"

/* One block copy between the input and the output of a node. */
typedef struct block {
    int32_t ndim;
    int64_t shape[GC_COPY_DIMS];
    int64_t x[GC_COPY_DIMS]; /* strides in the input */
    int64_t y[GC_COPY_DIMS]; /* strides in the output */
    int64_t x_at, y_at;      /* first elements */
} block;

static const uint64_t zero_bits = 0;

static void *at(const gc_tensor *t, int64_t offset)
{
    return (char *)t->data + offset * (int64_t)gc_dtype_size(t->dtype);
}

static void zero_all(gc_tensor *t)
{
    if (gc_numel(t) > 0) {
        gc_fill_nd(t->ndim, t->shape, t->data, t->strides, &zero_bits, gc_dtype_size(t->dtype));
    }
}

static void block_forward(const block *b, const gc_tensor *x, gc_tensor *y)
{
    if (gc_numel(x) > 0 && gc_numel(y) > 0) {
        gc_copy_nd(b->ndim, b->shape, at(y, b->y_at), b->y, at(x, b->x_at), b->x, gc_dtype_size(y->dtype));
    }
}

/* Sums: a place of the input may be used several times or never. */
static void block_backward(const block *b, gc_tensor *gx, const gc_tensor *gy)
{
    if (gc_numel(gx) > 0 && gc_numel(gy) > 0) {
        gc_add_nd(b->ndim, b->shape, at(gx, b->x_at), b->x, at(gy, b->y_at), b->y);
    }
}

typedef gc_status (*block_fn)(gc_op_call *c, const gc_tensor *x, const gc_tensor *y, block *b);

static gc_status run_block(gc_op_call *c, block_fn make)
{
    block b = {0};
    if (c->out[0] == NULL || gc_numel(c->out[0]) == 0) {
        return GRADCAM_OK;
    }
    GC_TRY(make(c, c->in[0], c->out[0], &b));
    block_forward(&b, c->in[0], c->out[0]);
    return GRADCAM_OK;
}

static gc_status grad_block(gc_op_call *c, block_fn make)
{
    block b = {0};
    gc_tensor *gx = c->grad_in[0], *gy = c->grad_out[0];
    if (gx == NULL) {
        return GRADCAM_OK;
    }
    if ((c->adds & 1u) == 0) {
        zero_all(gx);
    }
    if (gy == NULL || gc_numel(gy) == 0) {
        return GRADCAM_OK;
    }
    GC_TRY(make(c, gx, gy, &b));
    block_backward(&b, gx, gy);
    return GRADCAM_OK;
}

/* The same where every place of the input is used once. */
static gc_status grad_all(gc_op_call *c, block_fn make)
{
    block b = {0};
    gc_tensor *gx = c->grad_in[0], *gy = c->grad_out[0];
    if (gx == NULL || gy == NULL || (c->adds & 1u) != 0 || gc_numel(gy) == 0) {
        return grad_block(c, make);
    }
    GC_TRY(make(c, gx, gy, &b));
    gc_copy_nd(b.ndim, b.shape, at(gx, b.x_at), b.x, at(gy, b.y_at), b.y, sizeof(float));
    return GRADCAM_OK;
}

/* ---- Transpose ---- */

static gc_status perm_of(gc_op_call *c, int32_t ndim, int64_t *perm)
{
    int64_t list[2 * GRADCAM_MAX_DIMS];
    int32_t n = -1;
    uint32_t seen = 0;
    GC_TRY(gc_op_ints(c, "perm", -1, list, 2 * GRADCAM_MAX_DIMS, &n));
    if (n >= 0 && n != ndim) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "perm has %d entries, the input rank %d", (int)n, (int)ndim);
    }
    for (int32_t i = 0; i < ndim; i++) {
        perm[i] = n < 0 ? ndim - 1 - i : list[i];
        if (perm[i] < 0 || perm[i] >= ndim || (seen >> perm[i] & 1U) != 0) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "perm is not a permutation");
        }
        seen |= 1U << perm[i];
    }
    return GRADCAM_OK;
}

/* The elements may stay where they lie if that is an order which others know, as
   between channels-last [N, C, H, W] and row-major [N, H, W, C]. */
static void keep_order(gc_op_call *c, const int64_t *perm)
{
    gc_tensor moved;
    const gc_tensor *x = c->in[0];
    memset(&moved, 0, sizeof moved);
    moved.ndim = x->ndim;
    for (int32_t i = 0; i < x->ndim; i++) {
        moved.shape[i] = x->shape[perm[i]];
        moved.strides[i] = x->strides[perm[i]];
    }
    if (gc_is_row(&moved)) {
        c->view = GC_VIEW_STRIDED;
        gc_row_strides(moved.ndim, moved.shape, c->view_strides);
    } else if (x->ndim >= 3 && gc_is_cl(&moved)) {
        c->view = GC_VIEW_STRIDED;
        gc_cl_strides(moved.ndim, moved.shape, c->view_strides);
    }
}

static gc_status transpose_infer(gc_op_call *c)
{
    int64_t perm[GRADCAM_MAX_DIMS], shape[GRADCAM_MAX_DIMS];
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *x = c->in[0];
    GC_TRY(perm_of(c, x->ndim, perm));
    for (int32_t i = 0; i < x->ndim; i++) {
        shape[i] = x->shape[perm[i]];
    }
    GC_TRY(gc_op_set_output(c, 0, x->dtype, x->ndim, shape));
    keep_order(c, perm);
    return GRADCAM_OK;
}

static gc_status transpose_block(gc_op_call *c, const gc_tensor *x, const gc_tensor *y, block *b)
{
    int64_t perm[GRADCAM_MAX_DIMS];
    GC_TRY(perm_of(c, x->ndim, perm));
    b->ndim = x->ndim;
    for (int32_t i = 0; i < x->ndim; i++) {
        b->shape[i] = y->shape[i];
        b->y[i] = y->strides[i];
        b->x[i] = x->strides[perm[i]];
    }
    return GRADCAM_OK;
}

static gc_status transpose_forward(gc_op_call *c)
{
    return run_block(c, transpose_block);
}
static gc_status transpose_backward(gc_op_call *c)
{
    return grad_all(c, transpose_block);
}

/* ---- Concat and Split ---- */

static gc_status concat_infer(gc_op_call *c)
{
    int64_t shape[GRADCAM_MAX_DIMS];
    int32_t axis = 0;
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *x = c->in[0];
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", 1), x->ndim, &axis));
    memcpy(shape, x->shape, sizeof shape);
    for (int32_t i = 1; i < c->n_in; i++) {
        GC_TRY(gc_op_need(c, i));
        const gc_tensor *t = c->in[i];
        if (t->dtype != x->dtype || t->ndim != x->ndim) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "input %d has another type or rank", (int)i);
        }
        for (int32_t d = 0; d < x->ndim; d++) {
            if (d != axis && t->shape[d] != shape[d]) {
                return gc_op_fail(c, GRADCAM_E_SHAPE, "input %d differs in dimension %d", (int)i, (int)d);
            }
        }
        if (!gc_add_ok(shape[axis], t->shape[axis], &shape[axis])) {
            return gc_op_fail(c, GRADCAM_E_LIMIT, "the result is too large");
        }
    }
    c->half_able = GC_HALF_SAME;
    return gc_op_set_output(c, 0, x->dtype, x->ndim, shape);
}

/* Elements of a task. */
enum { CONCAT_SLICE = 1 << 14 };

static void part_copy(const gc_tensor *part, const gc_tensor *whole, int32_t axis, int64_t from, bool to_whole)
{
    size_t size = gc_dtype_size(whole->dtype);
    if (gc_numel(part) == 0) {
        return;
    }
    void *w = at(whole, from * whole->strides[axis]);
    if (w == part->data) {
        return; /* who made the part wrote it here */
    }
    if (to_whole) {
        gc_copy_nd(part->ndim, part->shape, w, whole->strides, part->data, part->strides, size);
    } else {
        gc_copy_nd(part->ndim, part->shape, part->data, part->strides, w, whole->strides, size);
    }
}

/* Slices of the dimension `cut`, which lies outermost in memory, of each part. */
typedef struct concat_job {
    gc_op_call *c;
    const gc_tensor *whole;
    int32_t axis, cut;
    int64_t slices;
    bool to_whole;
} concat_job;

static void concat_task(void *task, uint32_t index)
{
    const concat_job *j = task;
    gc_tensor whole = gc_tensor_alias(j->whole);
    int64_t from = 0;
    for (int32_t i = 0; i < j->c->n_in; i++) {
        const gc_tensor *t = j->to_whole ? j->c->in[i] : j->c->grad_in[i];
        int64_t length = j->c->in[i]->shape[j->axis];
        if (t != NULL) {
            gc_tensor part = gc_tensor_alias(t);
            int64_t n = part.shape[j->cut], first = n * index / j->slices;
            part.shape[j->cut] = n * (index + 1) / j->slices - first;
            part.data = at(&part, first * part.strides[j->cut]);
            whole.data = at(j->whole, first * whole.strides[j->cut]);
            part_copy(&part, &whole, j->axis, from, j->to_whole);
        }
        from += length;
    }
}

static gc_status concat_run(gc_op_call *c, const gc_tensor *whole, bool to_whole)
{
    concat_job j = {c, whole, 0, 0, 1, to_whole};
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", 1), c->in[0]->ndim, &j.axis));
    for (int32_t d = 1; d < whole->ndim; d++) {
        bool outer = whole->strides[d] > whole->strides[j.cut] || whole->shape[j.cut] == 1;
        j.cut = outer && whole->shape[d] > 1 ? d : j.cut;
    }
    if (whole->ndim > 0) {
        j.slices = max64(1, min64(whole->shape[j.cut], gc_numel(whole) / CONCAT_SLICE));
    }
    return gc_parallel(c->ctx, concat_task, &j, (uint32_t)min64(j.slices, UINT32_MAX));
}

static gc_status concat_forward(gc_op_call *c)
{
    return c->out[0] != NULL ? concat_run(c, c->out[0], true) : GRADCAM_OK;
}

static gc_status concat_backward(gc_op_call *c)
{
    return c->grad_out[0] != NULL ? concat_run(c, c->grad_out[0], false) : GRADCAM_OK;
}

/* Length of part i; -1 when the list does not have it. */
static int64_t split_part(const gc_op_call *c, int64_t dim, int32_t i)
{
    const gc_attr_value *a = gc_attr_find(&c->attrs, "split", GRADCAM_ATTR_INTS);
    if (a != NULL) {
        return (size_t)i < a->count ? a->ints[i] : -1;
    }
    const gc_tensor *t = c->n_in > 1 ? c->in[1] : NULL;
    if (t != NULL) {
        if (t->data == NULL || i >= gc_numel(t)) {
            return -1;
        }
        return t->dtype == GRADCAM_I64 ? ((const int64_t *)t->data)[i] : ((const int32_t *)t->data)[i];
    }
    int64_t n = c->n_out, each = dim / n + (dim % n != 0);
    int64_t left = dim - each * i; /* the last parts may be smaller */
    return left < 0 ? 0 : left < each ? left : each;
}

static gc_status split_infer(gc_op_call *c)
{
    int64_t shape[GRADCAM_MAX_DIMS], sum = 0;
    int32_t axis = 0;
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *x = c->in[0], *t = c->n_in > 1 ? c->in[1] : NULL;
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", 0), x->ndim, &axis));
    if (t != NULL && t->dtype != GRADCAM_I64 && t->dtype != GRADCAM_I32) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "split must hold integers");
    }
    if (t != NULL && t->data == NULL && gc_numel(t) > 0) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "split is not constant: data-dependent shape");
    }
    bool equal = t == NULL && gc_attr_find(&c->attrs, "split", GRADCAM_ATTR_INTS) == NULL;
    if (equal && c->opset < 18 && c->n_out > 0 && x->shape[axis] % c->n_out != 0) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "%lld does not split into %d equal parts (smaller last parts: opset 18)",
                          (long long)x->shape[axis], (int)c->n_out);
    }
    memcpy(shape, x->shape, sizeof shape);
    for (int32_t i = 0; i < c->n_out; i++) {
        shape[axis] = split_part(c, x->shape[axis], i);
        if (shape[axis] < 0 || !gc_add_ok(sum, shape[axis], &sum)) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "part %d has no valid length", (int)i);
        }
        GC_TRY(gc_op_set_output(c, i, x->dtype, x->ndim, shape));
    }
    if (sum != x->shape[axis]) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the parts sum to %lld, not %lld", (long long)sum,
                          (long long)x->shape[axis]);
    }
    return GRADCAM_OK;
}

static gc_status split_forward(gc_op_call *c)
{
    int32_t axis = 0;
    int64_t from = 0;
    const gc_tensor *x = c->in[0];
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", 0), x->ndim, &axis));
    for (int32_t i = 0; i < c->n_out; i++) {
        if (c->out[i] != NULL) {
            part_copy(c->out[i], x, axis, from, false);
        }
        from += split_part(c, x->shape[axis], i);
    }
    return GRADCAM_OK;
}

static gc_status split_backward(gc_op_call *c)
{
    int32_t axis = 0;
    int64_t from = 0;
    gc_tensor *gx = c->grad_in[0];
    if (gx == NULL) {
        return GRADCAM_OK;
    }
    zero_all(gx);
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", 0), gx->ndim, &axis));
    for (int32_t i = 0; i < c->n_out; i++) {
        if (c->grad_out[i] != NULL) {
            part_copy(c->grad_out[i], gx, axis, from, true);
        }
        from += split_part(c, gx->shape[axis], i);
    }
    return GRADCAM_OK;
}

/* ---- Slice ---- */

/* start, length and step of one axis, by numpy's rule of clamping. */
static void slice_axis(int64_t dim, int64_t start, int64_t end, int64_t step, int64_t *from, int64_t *length)
{
    int64_t low = step > 0 ? 0 : -1, high = step > 0 ? dim : dim - 1;
    start += start < 0 ? dim : 0; /* opposite signs: no overflow */
    end += end < 0 ? dim : 0;
    start = start < low ? low : start > high ? high : start;
    end = end < low ? low : end > high ? high : end;
    int64_t span = step > 0 ? end - start : start - end;
    uint64_t by = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    *from = start;
    *length = span <= 0 ? 0 : (int64_t)(((uint64_t)span - 1) / by) + 1;
}

static gc_status slice_make(gc_op_call *c, const gc_tensor *x, int64_t *from, int64_t *length, int64_t *step)
{
    int64_t starts[2 * GRADCAM_MAX_DIMS], ends[2 * GRADCAM_MAX_DIMS], axes[2 * GRADCAM_MAX_DIMS],
        steps[2 * GRADCAM_MAX_DIMS];
    int32_t n = 0, n_ends = 0, n_axes = 0, n_steps = 0;
    uint32_t seen = 0;
    GC_TRY(gc_op_ints(c, "starts", 1, starts, 2 * GRADCAM_MAX_DIMS, &n));
    GC_TRY(gc_op_ints(c, "ends", 2, ends, 2 * GRADCAM_MAX_DIMS, &n_ends));
    GC_TRY(gc_op_ints(c, "axes", 3, axes, 2 * GRADCAM_MAX_DIMS, &n_axes));
    GC_TRY(gc_op_ints(c, "steps", 4, steps, 2 * GRADCAM_MAX_DIMS, &n_steps));
    if (n < 0 || n > x->ndim || n_ends != n || (n_axes >= 0 && n_axes != n) || (n_steps >= 0 && n_steps != n)) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "starts, ends, axes and steps do not fit");
    }
    for (int32_t i = 0; i < x->ndim; i++) {
        from[i] = 0;
        length[i] = x->shape[i];
        step[i] = 1;
    }
    for (int32_t i = 0; i < n; i++) {
        int32_t axis = 0;
        GC_TRY(gc_op_axis(c, n_axes >= 0 ? axes[i] : i, x->ndim, &axis));
        step[axis] = n_steps >= 0 ? steps[i] : 1;
        if (step[axis] == 0 || (seen >> axis & 1U) != 0) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "a step is 0 or an axis is named twice");
        }
        seen |= 1U << axis;
        slice_axis(x->shape[axis], starts[i], ends[i], step[axis], &from[axis], &length[axis]);
    }
    return GRADCAM_OK;
}

static gc_status slice_infer(gc_op_call *c)
{
    int64_t from[GRADCAM_MAX_DIMS], length[GRADCAM_MAX_DIMS], step[GRADCAM_MAX_DIMS];
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(slice_make(c, c->in[0], from, length, step));
    c->half_able = GC_HALF_SAME;
    return gc_op_set_output(c, 0, c->in[0]->dtype, c->in[0]->ndim, length);
}

static gc_status slice_block(gc_op_call *c, const gc_tensor *x, const gc_tensor *y, block *b)
{
    int64_t from[GRADCAM_MAX_DIMS], length[GRADCAM_MAX_DIMS], step[GRADCAM_MAX_DIMS];
    GC_TRY(slice_make(c, x, from, length, step));
    b->ndim = x->ndim;
    for (int32_t i = 0; i < x->ndim; i++) {
        b->shape[i] = length[i];
        b->x_at += from[i] * x->strides[i];
        b->x[i] = length[i] > 1 ? step[i] * x->strides[i] : 0; /* a huge step has length 1 */
        b->y[i] = y->strides[i];
    }
    return GRADCAM_OK;
}

static gc_status slice_forward(gc_op_call *c)
{
    return run_block(c, slice_block);
}
static gc_status slice_backward(gc_op_call *c)
{
    return grad_block(c, slice_block);
}

/* ---- Expand and Tile ---- */

static gc_status expand_infer(gc_op_call *c)
{
    int64_t want[2 * GRADCAM_MAX_DIMS], shape[GRADCAM_MAX_DIMS];
    int32_t n = 0, rank = 0;
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    GC_TRY(gc_op_ints(c, "", 1, want, 2 * GRADCAM_MAX_DIMS, &n));
    for (int32_t i = 0; i < n; i++) {
        if (want[i] < 0 || n > GRADCAM_MAX_DIMS) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "the shape is not possible");
        }
    }
    GC_TRY(gc_op_broadcast(c, c->in[0]->ndim, c->in[0]->shape, n, want, &rank, shape));
    return gc_op_set_output(c, 0, c->in[0]->dtype, rank, shape);
}

static gc_status expand_block(gc_op_call *c, const gc_tensor *x, const gc_tensor *y, block *b)
{
    int32_t lead = y->ndim - x->ndim;
    (void)c;
    b->ndim = y->ndim;
    for (int32_t i = 0; i < y->ndim; i++) {
        b->shape[i] = y->shape[i];
        b->y[i] = y->strides[i];
        b->x[i] = i < lead || x->shape[i - lead] == 1 ? 0 : x->strides[i - lead];
    }
    return GRADCAM_OK;
}

static gc_status expand_forward(gc_op_call *c)
{
    return run_block(c, expand_block);
}
static gc_status expand_backward(gc_op_call *c)
{
    return grad_block(c, expand_block);
}

static gc_status tile_infer(gc_op_call *c)
{
    int64_t repeats[2 * GRADCAM_MAX_DIMS], shape[GRADCAM_MAX_DIMS];
    int32_t n = 0;
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    GC_TRY(gc_op_ints(c, "", 1, repeats, 2 * GRADCAM_MAX_DIMS, &n));
    if (n != c->in[0]->ndim) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "%d repeats for rank %d", (int)n, (int)c->in[0]->ndim);
    }
    for (int32_t i = 0; i < n; i++) {
        if (!gc_mul_ok(c->in[0]->shape[i], repeats[i], &shape[i])) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "repeats[%d] is not possible", (int)i);
        }
    }
    return gc_op_set_output(c, 0, c->in[0]->dtype, n, shape);
}

/* Every dimension becomes two: which copy, and where in it. */
static gc_status tile_block(gc_op_call *c, const gc_tensor *x, const gc_tensor *y, block *b)
{
    (void)c;
    b->ndim = 2 * x->ndim;
    for (int32_t i = 0; i < x->ndim; i++) {
        b->shape[2 * i] = y->shape[i] / x->shape[i];
        b->shape[2 * i + 1] = x->shape[i];
        b->y[2 * i] = y->strides[i] * x->shape[i];
        b->y[2 * i + 1] = y->strides[i];
        b->x[2 * i + 1] = x->strides[i];
    }
    return GRADCAM_OK;
}

static gc_status tile_forward(gc_op_call *c)
{
    return run_block(c, tile_block);
}
static gc_status tile_backward(gc_op_call *c)
{
    return grad_block(c, tile_block);
}

const gc_op gc_ops_move[] = {
    {"Transpose", transpose_infer, transpose_forward, transpose_backward, GC_OP_SAME | GC_OP_FINISHES, 0, 0, 1, 1, 1},
    {"Concat", concat_infer, concat_forward, concat_backward, GC_OP_SAME, 0, 0, 1, -1, 1},
    {"Split", split_infer, split_forward, split_backward, GC_OP_SAME, 0, 0, 1, 2, -1},
    {"Slice", slice_infer, slice_forward, slice_backward, GC_OP_SAME | GC_OP_FINISHES, 0, 0, 1, 5, 1},
    {"Expand", expand_infer, expand_forward, expand_backward, GC_OP_FINISHES, 0, 0, 2, 2, 1},
    {"Tile", tile_infer, tile_forward, tile_backward, GC_OP_FINISHES, 0, 0, 2, 2, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
