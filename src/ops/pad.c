/* SPDX-License-Identifier: MIT */
/* Pad and CenterCropPad.  Along each axis the output falls into runs that read
 * the input forwards, backwards, at one place or not at all; every combination
 * of runs is one block copy.  Any strides. */
#include <string.h>

#include "base/size.h"
#include "kern/copy.h"
#include "ops/op.h"

typedef enum pad_mode { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE, PAD_WRAP } pad_mode;

/* A pad beyond this is an error of the model. */
static const int64_t pad_limit = INT64_C(1) << 40;

typedef struct pad {
    int32_t ndim;
    pad_mode mode;
    int64_t before[GRADCAM_MAX_DIMS], after[GRADCAM_MAX_DIMS];
    int64_t in[GRADCAM_MAX_DIMS], out[GRADCAM_MAX_DIMS];
} pad;

/* ---- attributes and shapes ---- */

static gc_status pad_set(gc_op_call *c, pad *p, int64_t axis, int64_t before, int64_t after, uint32_t *seen)
{
    int32_t d = 0;
    GC_TRY(gc_op_axis(c, axis, p->ndim, &d));
    if ((*seen >> d & 1U) != 0) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "axis %d is named twice", (int)d);
    }
    if (before < -pad_limit || before > pad_limit || after < -pad_limit || after > pad_limit) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "dimension %d cannot be padded so far", (int)d);
    }
    *seen |= 1U << d;
    p->before[d] = before;
    p->after[d] = after;
    return GRADCAM_OK;
}

static gc_status pad_lists(gc_op_call *c, pad *p)
{
    int64_t pads[2 * GRADCAM_MAX_DIMS], axes[GRADCAM_MAX_DIMS];
    int32_t n = 0, n_axes = -1;
    uint32_t seen = 0;
    GC_TRY(gc_op_ints(c, "pads", 1, pads, 2 * GRADCAM_MAX_DIMS, &n));
    GC_TRY(gc_op_ints(c, "axes", 3, axes, GRADCAM_MAX_DIMS, &n_axes));
    int32_t count = n_axes >= 0 ? n_axes : p->ndim;
    if (n != 2 * count) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "pads must have two entries for every axis");
    }
    for (int32_t i = 0; i < count; i++) {
        GC_TRY(pad_set(c, p, n_axes >= 0 ? axes[i] : i, pads[i], pads[i + count], &seen));
    }
    return GRADCAM_OK;
}

/* What is left of an odd difference goes to, or comes from, the end. */
static gc_status centre_lists(gc_op_call *c, pad *p)
{
    int64_t shape[GRADCAM_MAX_DIMS], axes[GRADCAM_MAX_DIMS];
    int32_t n = 0, n_axes = -1;
    uint32_t seen = 0;
    GC_TRY(gc_op_const_ints(c, 1, shape, GRADCAM_MAX_DIMS, &n));
    GC_TRY(gc_op_ints(c, "axes", -1, axes, GRADCAM_MAX_DIMS, &n_axes));
    if (n != (n_axes >= 0 ? n_axes : p->ndim)) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "the shape must have one entry for every axis");
    }
    for (int32_t i = 0; i < n; i++) {
        int32_t d = 0;
        GC_TRY(gc_op_axis(c, n_axes >= 0 ? axes[i] : i, p->ndim, &d));
        if (shape[i] < 0 || shape[i] > pad_limit || p->in[d] > pad_limit) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "size %lld is not possible", (long long)shape[i]);
        }
        int64_t more = shape[i] - p->in[d];
        GC_TRY(pad_set(c, p, d, more / 2, more - more / 2, &seen));
    }
    return GRADCAM_OK;
}

static gc_status pad_make(gc_op_call *c, pad *p)
{
    static const char *const modes[] = {"constant", "reflect", "edge", "wrap"};
    const char *mode = gc_attr_string(&c->attrs, "mode", "constant");
    int32_t m = 0;
    memset(p, 0, sizeof *p);
    p->ndim = c->in[0]->ndim;
    memcpy(p->in, c->in[0]->shape, sizeof p->in);
    if (strcmp(c->op_name, "Pad") != 0) {
        GC_TRY(centre_lists(c, p));
    } else {
        for (; m < 4 && strcmp(mode, modes[m]) != 0; m++) {
        }
        if (m == 4) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "unknown mode '%.40s'", mode);
        }
        GC_TRY(pad_lists(c, p));
    }
    p->mode = (pad_mode)m;
    for (int32_t i = 0; i < p->ndim; i++) {
        if (!gc_add_ok(p->in[i], p->before[i] + p->after[i], &p->out[i]) || p->out[i] < 0 ||
            (m != PAD_CONSTANT && p->in[i] == 0 && p->out[i] > 0)) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "dimension %d cannot be padded so", (int)i);
        }
    }
    return GRADCAM_OK;
}

static gc_status pad_infer(gc_op_call *c)
{
    pad p;
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *x = c->in[0], *v = c->n_in > 2 ? c->in[2] : NULL;
    if (v != NULL && (v->dtype != x->dtype || gc_numel(v) != 1)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the constant must be one number of the input's type");
    }
    GC_TRY(pad_make(c, &p));
    return gc_op_set_output(c, 0, x->dtype, p.ndim, p.out);
}

/* ---- runs ---- */

static int64_t modulo(int64_t v, int64_t n)
{
    return v % n < 0 ? v % n + n : v % n;
}

/* Where output i of an axis comes from; -1: from nowhere. */
static int64_t source(const pad *p, int32_t d, int64_t i)
{
    int64_t n = p->in[d];
    i -= p->before[d];
    if (i >= 0 && i < n) {
        return i;
    }
    switch (p->mode) {
    case PAD_EDGE: return i < 0 ? 0 : n - 1;
    case PAD_WRAP: return modulo(i, n);
    case PAD_REFLECT:
        if (n == 1) {
            return 0;
        }
        i = modulo(i, 2 * (n - 1));
        return i < n ? i : 2 * (n - 1) - i;
    default: return -1;
    }
}

typedef struct run {
    int64_t from, step, length;
} run;

static run run_at(const pad *p, int32_t d, int64_t i)
{
    run r = {source(p, d, i), 0, 1};
    int64_t next = i + 1 < p->out[d] ? source(p, d, i + 1) : -2;
    if (r.from >= 0 ? next < 0 || next - r.from > 1 || r.from - next > 1 : next != r.from) {
        return r;
    }
    r.step = next - r.from;
    for (r.length = 2; i + r.length < p->out[d]; r.length++) {
        if (source(p, d, i + r.length) != r.from + r.length * r.step) {
            break;
        }
    }
    return r;
}

/* A block of the output: where it begins, and what it reads. */
typedef struct block {
    int64_t shape[GRADCAM_MAX_DIMS];
    int64_t x_strides[GRADCAM_MAX_DIMS];
    int64_t x_at, y_at;
    bool inside; /* it reads the input */
} block;

typedef struct visitor {
    const pad *p;
    const gc_tensor *x; /* in[0] or its gradient */
    const gc_tensor *y; /* out[0] or its gradient */
    void (*fn)(const struct visitor *v, const block *b);
    void *value; /* the constant, or where its gradient is summed */
} visitor;

static void visit(visitor *v, block *b, int32_t d)
{
    const pad *p = v->p;
    int64_t x_at = b->x_at, y_at = b->y_at;
    if (d == p->ndim) {
        v->fn(v, b);
        return;
    }
    for (int64_t i = 0; i < p->out[d]; i += b->shape[d]) {
        run r = run_at(p, d, i);
        b->shape[d] = r.length;
        b->y_at = y_at + i * v->y->strides[d];
        if (r.from < 0) { /* whatever the axes behind say */
            memcpy(b->shape + d + 1, p->out + d + 1, (size_t)(p->ndim - d - 1) * sizeof *b->shape);
            b->inside = false;
            v->fn(v, b);
            b->inside = true;
            continue;
        }
        b->x_at = x_at + r.from * v->x->strides[d];
        b->x_strides[d] = r.step * v->x->strides[d];
        visit(v, b, d + 1);
    }
    b->x_at = x_at;
    b->y_at = y_at;
}

static void visit_all(visitor *v)
{
    block b;
    memset(&b, 0, sizeof b);
    b.inside = true;
    visit(v, &b, 0);
}

static void *at(const gc_tensor *t, int64_t offset)
{
    return (char *)t->data + offset * (int64_t)gc_dtype_size(t->dtype);
}

static void copy_block(const visitor *v, const block *b)
{
    size_t size = gc_dtype_size(v->y->dtype);
    if (b->inside) {
        gc_copy_nd(v->p->ndim, b->shape, at(v->y, b->y_at), v->y->strides, at(v->x, b->x_at), b->x_strides, size);
    } else {
        gc_fill_nd(v->p->ndim, b->shape, at(v->y, b->y_at), v->y->strides, v->value, size);
    }
}

static void add_block(const visitor *v, const block *b)
{
    if (b->inside) {
        gc_add_nd(v->p->ndim, b->shape, at(v->x, b->x_at), b->x_strides, at(v->y, b->y_at), v->y->strides);
    }
}

static void sum_block(const visitor *v, const block *b)
{
    static const int64_t none[GRADCAM_MAX_DIMS] = {0};
    if (!b->inside) {
        gc_add_nd(v->p->ndim, b->shape, v->value, none, at(v->y, b->y_at), v->y->strides);
    }
}

/* ---- forward and backward ---- */

static gc_status pad_forward(gc_op_call *c)
{
    pad p;
    gc_tensor *y = c->out[0];
    uint64_t bits = 0;
    float f = gc_attr_float(&c->attrs, "value", 0.0F);
    if (y == NULL || gc_numel(y) == 0) {
        return GRADCAM_OK;
    }
    GC_TRY(pad_make(c, &p));
    visitor v = {&p, c->in[0], y, copy_block, &bits};
    if (c->n_in > 2 && c->in[2] != NULL) {
        v.value = c->in[2]->data;
    } else if (y->dtype == GRADCAM_F32) {
        v.value = &f;
    }
    visit_all(&v);
    return GRADCAM_OK;
}

static gc_status pad_backward(gc_op_call *c)
{
    pad p;
    static const float zero = 0.0F;
    gc_tensor *gx = c->grad_in[0], *gv = c->n_in > 2 ? c->grad_in[2] : NULL, *gy = c->grad_out[0];
    GC_TRY(pad_make(c, &p));
    if (gx != NULL && gc_numel(gx) > 0) {
        visitor v = {&p, gx, gy, add_block, NULL};
        gc_fill_nd(gx->ndim, gx->shape, gx->data, gx->strides, &zero, sizeof zero);
        if (gc_numel(gy) > 0) {
            visit_all(&v);
        }
    }
    if (gv != NULL) {
        visitor v = {&p, c->in[0], gy, sum_block, gv->data};
        *(float *)gv->data = 0.0F;
        if (gc_numel(gy) > 0) {
            visit_all(&v);
        }
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_pad[] = {
    {"Pad", pad_infer, pad_forward, pad_backward, GC_OP_SAME, 0, 0, 1, 4, 1},
    {"CenterCropPad", pad_infer, pad_forward, pad_backward, GC_OP_SAME, 0, 0, 2, 2, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
