/* SPDX-License-Identifier: MIT */
/* Operators that change the shape only, and those that report it. */
#include <string.h>

#include "base/size.h"
#include "ops/op.h"

static void copy_all(const gc_tensor *src, gc_tensor *dst)
{
    int64_t n = gc_numel(dst);
    if (n > 0) {
        memcpy(dst->data, src->data, (size_t)n * gc_dtype_size(dst->dtype));
    }
}

static gc_status reshape_forward(gc_op_call *c)
{
    if (c->out[0] != NULL) {
        copy_all(c->in[0], c->out[0]);
    }
    return GRADCAM_OK;
}

static gc_status reshape_backward(gc_op_call *c)
{
    if (c->grad_in[0] != NULL && c->grad_out[0] != NULL) {
        copy_all(c->grad_out[0], c->grad_in[0]);
    }
    return GRADCAM_OK;
}

/* A short list of integers: the attribute if there is one, else input i. */
static gc_status int_list(gc_op_call *c, const char *name, int32_t i, int64_t *dst, int32_t *count)
{
    const gc_attr_value *a = gc_attr_find(&c->attrs, name, GRADCAM_ATTR_INTS);
    if (a == NULL) {
        GC_TRY(gc_op_need(c, i));
        if (c->in[i]->ndim > 1) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "'%s' must be a list", name);
        }
        GC_TRY(gc_op_const_ints(c, i, dst, GRADCAM_MAX_DIMS, count));
        if (*count > GRADCAM_MAX_DIMS) {
            return gc_op_fail(c, GRADCAM_E_LIMIT, "'%s' has more than %d entries", name, GRADCAM_MAX_DIMS);
        }
        return GRADCAM_OK;
    }
    if (a->count > GRADCAM_MAX_DIMS) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "'%s' has more than %d entries", name, GRADCAM_MAX_DIMS);
    }
    for (size_t k = 0; k < a->count; k++) {
        dst[k] = a->ints[k];
    }
    *count = (int32_t)a->count;
    return GRADCAM_OK;
}

/* Replaces 0 by the input's dimension and -1 by what is left over. */
static gc_status reshape_resolve(gc_op_call *c, int32_t n, int64_t *shape)
{
    const gc_tensor *x = c->in[0];
    int64_t allowzero = gc_attr_int(&c->attrs, "allowzero", 0);
    int64_t known = 1;
    int32_t open = -1;
    for (int32_t i = 0; i < n; i++) {
        if (shape[i] == 0 && allowzero == 0) {
            if (i >= x->ndim) {
                return gc_op_fail(c, GRADCAM_E_SHAPE, "shape[%d] is 0 but the input has rank %d", (int)i, (int)x->ndim);
            }
            shape[i] = x->shape[i];
        }
        if (shape[i] == -1 && open < 0) {
            open = i;
        } else if (shape[i] < 0 || !gc_mul_ok(known, shape[i], &known)) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "shape[%d] = %lld is not possible", (int)i, (long long)shape[i]);
        }
    }
    int64_t total = gc_numel(x);
    if (open >= 0) {
        if (known == 0 ? total != 0 : total % known != 0) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "%lld elements do not divide into the shape", (long long)total);
        }
        shape[open] = known == 0 ? 0 : total / known;
    } else if (known != total) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "%lld elements cannot become %lld", (long long)total, (long long)known);
    }
    return GRADCAM_OK;
}

/* The pixels of [N, C, H, W] that lies channels-last become those of [N, C, H * W]: the
   result lies channels-last, too. */
static void keep_channels_last(gc_op_call *c, int32_t n, const int64_t *shape)
{
    const gc_tensor *x = c->in[0];
    if (n >= 3 && x->ndim >= 3 && shape[0] == x->shape[0] && shape[1] == x->shape[1] && gc_is_cl(x) && !gc_is_row(x)) {
        c->channels_last = 1;
        c->view = GC_VIEW_STRIDED;
        gc_cl_strides(n, shape, c->view_strides);
    }
}

static gc_status reshape_infer(gc_op_call *c)
{
    int64_t shape[GRADCAM_MAX_DIMS];
    int32_t n = 0;
    c->view = GC_VIEW_FLAT;
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(int_list(c, "shape", 1, shape, &n));
    GC_TRY(reshape_resolve(c, n, shape));
    GC_TRY(gc_op_set_output(c, 0, c->in[0]->dtype, n, shape));
    keep_channels_last(c, n, shape);
    return GRADCAM_OK;
}

static gc_status flatten_infer(gc_op_call *c)
{
    c->view = GC_VIEW_FLAT;
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *x = c->in[0];
    int64_t axis = gc_attr_int(&c->attrs, "axis", 1);
    if (axis < -(int64_t)x->ndim || axis > x->ndim) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "axis %lld is outside rank %d", (long long)axis, (int)x->ndim);
    }
    if (axis < 0) {
        axis += x->ndim;
    }
    int64_t shape[2] = {1, 1};
    for (int32_t i = 0; i < x->ndim; i++) {
        int64_t *part = &shape[i < axis ? 0 : 1];
        if (!gc_mul_ok(*part, x->shape[i], part)) {
            return gc_op_fail(c, GRADCAM_E_LIMIT, "the flattened shape is too large");
        }
    }
    return gc_op_set_output(c, 0, x->dtype, 2, shape);
}

/* mask gets a bit for every axis in the list; each may occur once. */
static gc_status axes_mask(gc_op_call *c, int32_t n, const int64_t *axes, int32_t ndim, uint32_t *mask)
{
    *mask = 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t axis = 0;
        GC_TRY(gc_op_axis(c, axes[i], ndim, &axis));
        if ((*mask >> axis & 1U) != 0) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "axis %d is named twice", (int)axis);
        }
        *mask |= 1U << axis;
    }
    return GRADCAM_OK;
}

static gc_status squeeze_infer(gc_op_call *c)
{
    int64_t axes[GRADCAM_MAX_DIMS], shape[GRADCAM_MAX_DIMS];
    int32_t n = 0, rank = 0;
    uint32_t mask = 0;
    c->view = GC_VIEW_FLAT;
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *x = c->in[0];
    bool named = gc_attr_find(&c->attrs, "axes", GRADCAM_ATTR_INTS) != NULL || (c->n_in > 1 && c->in[1] != NULL);
    if (named) {
        GC_TRY(int_list(c, "axes", 1, axes, &n));
        GC_TRY(axes_mask(c, n, axes, x->ndim, &mask));
    }
    for (int32_t i = 0; i < x->ndim; i++) {
        bool drop = named ? (mask >> i & 1U) != 0 : x->shape[i] == 1;
        if (drop && x->shape[i] != 1) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "dimension %d is %lld, not 1", (int)i, (long long)x->shape[i]);
        }
        if (!drop) {
            shape[rank++] = x->shape[i];
        }
    }
    return gc_op_set_output(c, 0, x->dtype, rank, shape);
}

static gc_status unsqueeze_infer(gc_op_call *c)
{
    int64_t axes[GRADCAM_MAX_DIMS], shape[GRADCAM_MAX_DIMS];
    int32_t n = 0, from = 0;
    uint32_t mask = 0;
    c->view = GC_VIEW_FLAT;
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(int_list(c, "axes", 1, axes, &n));
    const gc_tensor *x = c->in[0];
    if (x->ndim + n > GRADCAM_MAX_DIMS) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "rank %d is more than %d", (int)(x->ndim + n), GRADCAM_MAX_DIMS);
    }
    GC_TRY(axes_mask(c, n, axes, x->ndim + n, &mask));
    for (int32_t i = 0; i < x->ndim + n; i++) {
        shape[i] = (mask >> i & 1U) != 0 ? 1 : x->shape[from++];
    }
    return gc_op_set_output(c, 0, x->dtype, x->ndim + n, shape);
}

static int32_t clamp_axis(int64_t v, int32_t ndim)
{
    if (v < 0) {
        v = v < -(int64_t)ndim ? 0 : v + ndim;
    }
    return v > ndim ? ndim : (int32_t)v;
}

static void shape_range(const gc_op_call *c, int32_t *start, int32_t *end)
{
    int32_t ndim = c->in[0]->ndim;
    *start = clamp_axis(gc_attr_int(&c->attrs, "start", 0), ndim);
    *end = clamp_axis(gc_attr_int(&c->attrs, "end", ndim), ndim);
    if (*end < *start) {
        *end = *start;
    }
}

static gc_status shape_infer(gc_op_call *c)
{
    int32_t start = 0, end = 0;
    GC_TRY(gc_op_need(c, 0));
    shape_range(c, &start, &end);
    int64_t length = end - start;
    return gc_op_set_output(c, 0, GRADCAM_I64, 1, &length);
}

static gc_status shape_forward(gc_op_call *c)
{
    int32_t start = 0, end = 0;
    shape_range(c, &start, &end);
    for (int32_t i = start; c->out[0] != NULL && i < end; i++) {
        ((int64_t *)c->out[0]->data)[i - start] = c->in[0]->shape[i];
    }
    return GRADCAM_OK;
}

static gc_status size_infer(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    return gc_op_set_output(c, 0, GRADCAM_I64, 0, NULL);
}

static gc_status size_forward(gc_op_call *c)
{
    if (c->out[0] != NULL) {
        *(int64_t *)c->out[0]->data = gc_numel(c->in[0]);
    }
    return GRADCAM_OK;
}

/* Trilu lives here because, like the others, it keeps the order of elements. */
static gc_status trilu_infer(gc_op_call *c)
{
    int64_t k = 0;
    int32_t n = 1;
    GC_TRY(gc_op_need(c, 0));
    if (c->in[0]->ndim < 2) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the rank must be at least 2");
    }
    if (c->n_in > 1 && c->in[1] != NULL) {
        GC_TRY(gc_op_const_ints(c, 1, &k, 1, &n));
    }
    if (n != 1) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "k must be one number");
    }
    return gc_op_set_output(c, 0, c->in[0]->dtype, c->in[0]->ndim, c->in[0]->shape);
}

static gc_status trilu_run(gc_op_call *c, const gc_tensor *x, gc_tensor *y)
{
    int64_t k = 0, n = gc_numel(x), cols = x->shape[x->ndim - 1], rows = x->shape[x->ndim - 2];
    int32_t count = 0;
    if (c->n_in > 1 && c->in[1] != NULL) {
        GC_TRY(gc_op_const_ints(c, 1, &k, 1, &count));
    }
    bool upper = gc_attr_int(&c->attrs, "upper", 1) != 0;
    k = n == 0 ? 0 : k < -rows ? -rows : k > cols ? cols : k; /* beyond that nothing changes */
    copy_all(x, y);
    size_t size = gc_dtype_size(y->dtype);
    for (int64_t i = 0; i < n; i++) {
        int64_t d = i % cols - i / cols % rows;
        if (upper ? d < k : d > k) {
            memset((char *)y->data + (size_t)i * size, 0, size);
        }
    }
    return GRADCAM_OK;
}

static gc_status trilu_forward(gc_op_call *c)
{
    return c->out[0] != NULL ? trilu_run(c, c->in[0], c->out[0]) : GRADCAM_OK;
}

static gc_status trilu_backward(gc_op_call *c)
{
    bool both = c->grad_in[0] != NULL && c->grad_out[0] != NULL;
    return both ? trilu_run(c, c->grad_out[0], c->grad_in[0]) : GRADCAM_OK;
}

const gc_op gc_ops_shape[] = {
    {"Reshape", reshape_infer, reshape_forward, reshape_backward, 0, 0, 0, 1, 2, 1},
    {"Flatten", flatten_infer, reshape_forward, reshape_backward, 0, 0, 0, 1, 1, 1},
    {"Squeeze", squeeze_infer, reshape_forward, reshape_backward, 0, 0, 0, 1, 2, 1},
    {"Unsqueeze", unsqueeze_infer, reshape_forward, reshape_backward, 0, 0, 0, 1, 2, 1},
    {"Shape", shape_infer, shape_forward, NULL, GC_OP_SHAPE_ONLY | GC_OP_STOPS, 0, 0, 1, 1, 1},
    {"Size", size_infer, size_forward, NULL, GC_OP_SHAPE_ONLY | GC_OP_STOPS, 0, 0, 1, 1, 1},
    {"Trilu", trilu_infer, trilu_forward, trilu_backward, 0, 0, 0, 1, 2, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
