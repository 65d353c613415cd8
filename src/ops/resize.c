/* SPDX-License-Identifier: MIT */
/* Resize and Upsample: one sparse matrix for each axis that changes, applied
 * axis by axis; the backward pass applies the transposed matrices in reverse. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "kern/copy.h"
#include "ops/op.h"
#include "ops/resize_map.h"

typedef struct resize {
    gc_resize_rule rule;
    gc_resize_axis axis[GRADCAM_MAX_DIMS];
    int32_t ndim;
    bool legacy; /* Upsample and Resize 10 */
    float extrapolation;
    int32_t order[GRADCAM_MAX_DIMS]; /* the axes that change, shrinking ones first */
    int32_t passes;
    /* Of the scratch memory: */
    int64_t starts;   /* of one matrix */
    int64_t taps;     /* of one matrix */
    int64_t between;  /* floats of one result between two passes */
    int64_t straight; /* floats of the input in the output's layout, 0 if it lies so */
} resize;

/* ---- attributes ---- */

static int32_t one_of(const char *name, const char *const *names, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        if (strcmp(name, names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

static gc_status read_rule(gc_op_call *c, resize *p)
{
    static const char *const modes[] = {"nearest", "linear", "cubic", "bilinear"};
    static const char *const grids[] = {"half_pixel",          "pytorch_half_pixel",   "align_corners",
                                        "asymmetric",          "half_pixel_symmetric", "tf_crop_and_resize",
                                        "tf_half_pixel_for_nn"};
    static const char *const rounds[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"};
    const char *mode = gc_attr_string(&c->attrs, "mode", "nearest");
    const char *grid = gc_attr_string(&c->attrs, "coordinate_transformation_mode", "half_pixel");
    const char *rounding = gc_attr_string(&c->attrs, "nearest_mode", "round_prefer_floor");
    p->legacy = strcmp(c->op_name, "Upsample") == 0 || c->opset < 11;
    int32_t m = one_of(mode, modes, 4), g = p->legacy ? GC_GRID_ASYMMETRIC : one_of(grid, grids, 7);
    int32_t r = p->legacy ? GC_ROUND_OPSET_10 : one_of(rounding, rounds, 4);
    if (m < 0 || g < 0 || r < 0) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "unknown mode '%.40s', '%.40s' or '%.40s'", mode, grid, rounding);
    }
    p->rule.mode = m == 3 ? GC_RESIZE_LINEAR : (gc_resize_mode)m;
    p->rule.grid = (gc_resize_grid)g;
    p->rule.round = (gc_resize_round)r;
    p->rule.cubic_a = (double)gc_attr_float(&c->attrs, "cubic_coeff_a", -0.75F);
    p->rule.exclude_outside = gc_attr_int(&c->attrs, "exclude_outside", 0) != 0;
    p->rule.antialias = gc_attr_int(&c->attrs, "antialias", 0) != 0;
    p->extrapolation = gc_attr_float(&c->attrs, "extrapolation_value", 0.0F);
    return GRADCAM_OK;
}

/* The axes attribute, or all axes. */
static gc_status axes_of(gc_op_call *c, int32_t ndim, int32_t *axes, int32_t *count)
{
    const gc_attr_value *a = gc_attr_find(&c->attrs, "axes", GRADCAM_ATTR_INTS);
    uint32_t seen = 0;
    if (a != NULL && a->count > (size_t)ndim) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "more axes than dimensions");
    }
    *count = a != NULL ? (int32_t)a->count : ndim;
    for (int32_t i = 0; i < *count; i++) {
        GC_TRY(gc_op_axis(c, a != NULL ? a->ints[i] : i, ndim, &axes[i]));
        if ((seen >> axes[i] & 1U) != 0) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "axis %d is named twice", (int)axes[i]);
        }
        seen |= 1U << axes[i];
    }
    return GRADCAM_OK;
}

/* Input i as constant floats, `n` of them. */
static gc_status floats_of(gc_op_call *c, int32_t i, int64_t n, const float **out)
{
    const gc_tensor *t = c->in[i];
    if (t->data == NULL) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "input %d is not constant: data-dependent shape", (int)i);
    }
    if (t->dtype != GRADCAM_F32 || gc_numel(t) != n) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "input %d must hold %lld floats", (int)i, (long long)n);
    }
    *out = t->data;
    return GRADCAM_OK;
}

/* ---- sizes ---- */

static gc_status set_size(gc_op_call *c, gc_resize_axis *a, double length, double num, double den)
{
    if (!(num > 0.0) && length != 0.0) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "scale %g is not possible", num);
    }
    if (!(length >= 0.0 && length <= 2147483647.0) || (a->in == 0 && length > 0.0)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "an axis of %lld cannot become %g long", (long long)a->in, length);
    }
    a->out = (int64_t)length;
    a->num = num;
    a->den = den;
    return GRADCAM_OK;
}

static gc_status use_scales(gc_op_call *c, resize *p, const float *scales, const int32_t *axes, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        gc_resize_axis *a = &p->axis[axes[i]];
        if (!(scales[i] > 0.0F) || (strcmp(c->op_name, "Upsample") == 0 && scales[i] < 1.0F)) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "scale %g is not possible", (double)scales[i]);
        }
        GC_TRY(set_size(c, a, floor((double)((float)a->in * scales[i])), (double)scales[i], 1.0));
    }
    return GRADCAM_OK;
}

/* keep_aspect_ratio_policy: one scale for all, the sizes are bounds. */
static gc_status keep_aspect(gc_op_call *c, resize *p, const int32_t *axes, int32_t n, bool larger)
{
    double scale = 0.0;
    for (int32_t i = 0; i < n; i++) {
        const gc_resize_axis *a = &p->axis[axes[i]];
        double s = a->in > 0 ? (double)a->out / (double)a->in : 1.0;
        scale = i == 0 || (larger ? s > scale : s < scale) ? s : scale;
    }
    for (int32_t i = 0; i < n; i++) {
        gc_resize_axis *a = &p->axis[axes[i]];
        GC_TRY(set_size(c, a, floor(scale * (double)a->in + 0.5), scale, 1.0));
    }
    return GRADCAM_OK;
}

static gc_status use_sizes(gc_op_call *c, resize *p, const int32_t *axes, int32_t n)
{
    static const char *const policies[] = {"stretch", "not_larger", "not_smaller"};
    int32_t policy = one_of(gc_attr_string(&c->attrs, "keep_aspect_ratio_policy", "stretch"), policies, 3);
    int64_t sizes[GRADCAM_MAX_DIMS];
    int32_t count = 0;
    GC_TRY(gc_op_const_ints(c, 3, sizes, GRADCAM_MAX_DIMS, &count));
    if (count != n || policy < 0) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "%d sizes for %d axes, or an unknown keep_aspect_ratio_policy",
                          (int)count, (int)n);
    }
    for (int32_t i = 0; i < n; i++) {
        gc_resize_axis *a = &p->axis[axes[i]];
        GC_TRY(set_size(c, a, (double)sizes[i], (double)sizes[i], (double)a->in));
    }
    return policy == 0 ? GRADCAM_OK : keep_aspect(c, p, axes, n, policy == 2);
}

static gc_status use_roi(gc_op_call *c, resize *p, const int32_t *axes, int32_t n)
{
    const float *roi = NULL;
    if (p->rule.grid != GC_GRID_TF_CROP_AND_RESIZE) {
        return GRADCAM_OK;
    }
    GC_TRY(gc_op_need(c, 1));
    GC_TRY(floats_of(c, 1, 2 * (int64_t)n, &roi));
    for (int32_t i = 0; i < n; i++) {
        p->axis[axes[i]].roi_begin = (double)roi[i];
        p->axis[axes[i]].roi_end = (double)roi[n + i];
    }
    return GRADCAM_OK;
}

static gc_status read_sizes(gc_op_call *c, resize *p)
{
    int32_t axes[GRADCAM_MAX_DIMS], n = 0, at = p->legacy ? 1 : 2;
    const gc_attr_value *attr = gc_attr_find(&c->attrs, "scales", GRADCAM_ATTR_FLOATS);
    const float *scales = NULL;
    GC_TRY(axes_of(c, p->ndim, axes, &n));
    GC_TRY(use_roi(c, p, axes, n));
    if (attr != NULL) { /* Upsample 7 */
        if (attr->count != (size_t)n) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "%zu scales for %d axes", attr->count, (int)n);
        }
        return use_scales(c, p, attr->floats, axes, n);
    }
    if (c->n_in > at && c->in[at] != NULL && gc_numel(c->in[at]) > 0) {
        GC_TRY(floats_of(c, at, n, &scales));
        return use_scales(c, p, scales, axes, n);
    }
    if (!p->legacy && c->n_in > 3 && c->in[3] != NULL) {
        return use_sizes(c, p, axes, n);
    }
    return gc_op_fail(c, GRADCAM_E_INVALID, "neither scales nor sizes");
}

/* ---- the plan ---- */

/* Whether axis b comes before a later axis a: shrinking axes first, then nothing
   between is larger than the larger end; of two that grow alike the later one,
   whose neighbours lie apart, works on the smaller block. */
static bool in_order(const gc_resize_axis *b, const gc_resize_axis *a)
{
    double grows_b = (double)b->out * (double)a->in, grows_a = (double)a->out * (double)b->in;
    return grows_b < grows_a || (grows_b == grows_a && a->out <= a->in);
}

static void order_passes(resize *p)
{
    for (int32_t i = 0; i < p->ndim; i++) {
        const gc_resize_axis *a = &p->axis[i];
        int32_t at = p->passes;
        if (a->same) {
            continue;
        }
        for (; at > 0; at--) {
            if (in_order(&p->axis[p->order[at - 1]], a)) {
                break;
            }
            p->order[at] = p->order[at - 1];
        }
        p->order[at] = i;
        p->passes++;
    }
}

static gc_status count_scratch(gc_op_call *c, resize *p)
{
    int64_t shape[GRADCAM_MAX_DIMS];
    for (int32_t i = 0; i < p->ndim; i++) {
        shape[i] = p->axis[i].in;
    }
    for (int32_t i = 0; i < p->passes; i++) {
        const gc_resize_axis *a = &p->axis[p->order[i]];
        int64_t taps = 0, starts = a->in > a->out ? a->in : a->out;
        shape[p->order[i]] = a->out;
        int64_t n = i + 1 < p->passes ? gc_shape_numel(p->ndim, shape) : 0;
        if (!gc_mul_ok(a->taps, a->out, &taps) || n < 0 || a->in > INT32_MAX) {
            return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
        }
        p->taps = taps > p->taps ? taps : p->taps;
        p->starts = starts + 1 > p->starts ? starts + 1 : p->starts;
        p->between = n > p->between ? n : p->between;
    }
    return GRADCAM_OK;
}

/* False when there is nothing to compute. */
static bool has_elements(const resize *p)
{
    for (int32_t i = 0; i < p->ndim; i++) {
        if (p->axis[i].in == 0 || p->axis[i].out == 0) {
            return false;
        }
    }
    return true;
}

static gc_status make_plan(gc_op_call *c, resize *p)
{
    memset(p, 0, sizeof *p);
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *x = c->in[0];
    if (x->dtype != GRADCAM_F32) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "only float is supported");
    }
    GC_TRY(read_rule(c, p));
    p->ndim = x->ndim;
    for (int32_t i = 0; i < x->ndim; i++) {
        gc_resize_axis *a = &p->axis[i];
        a->in = a->out = x->shape[i];
        a->num = a->den = a->roi_end = 1.0;
    }
    GC_TRY(read_sizes(c, p));
    if (!has_elements(p)) {
        return GRADCAM_OK;
    }
    for (int32_t i = 0; i < p->ndim; i++) {
        gc_resize_prepare(&p->rule, &p->axis[i]);
    }
    order_passes(p);
    return count_scratch(c, p);
}

/* Bytes of the scratch memory: two matrices, two results between passes, one
   input or its gradient in another layout. */
static bool scratch_bytes(const resize *p, int64_t *bytes)
{
    int64_t tables = 0, between = 0, straight = 0;
    return gc_mul_ok(p->taps, 2 * (int64_t)(sizeof(float) + sizeof(int32_t)), &tables) &&
           gc_add_ok(tables, 2 * p->starts * (int64_t)sizeof(int64_t), &tables) &&
           gc_mul_ok(p->between, (p->passes > 2 ? 2 : 1) * (int64_t)sizeof(float), &between) &&
           gc_mul_ok(p->straight, (int64_t)sizeof(float), &straight) && gc_add_ok(tables, between, bytes) &&
           gc_add_ok(*bytes, straight, bytes) && (uint64_t)*bytes <= SIZE_MAX;
}

static gc_status resize_infer(gc_op_call *c)
{
    resize p;
    int64_t shape[GRADCAM_MAX_DIMS], bytes = 0;
    GC_TRY(make_plan(c, &p));
    for (int32_t i = 0; i < p.ndim; i++) {
        shape[i] = p.axis[i].out;
    }
    /* A result computed now is row-major, a later one follows its input. */
    const gc_tensor *x = c->in[0];
    p.straight = gc_is_row(x) || (gc_is_cl(x) && x->data == NULL) ? 0 : gc_numel(x);
    if (!scratch_bytes(&p, &bytes)) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    c->work_bytes = (size_t)bytes;
    return gc_op_set_output(c, 0, GRADCAM_F32, p.ndim, shape);
}

/* ---- running ---- */

typedef struct scratch {
    gc_resample matrix, transposed;
    float *between[2];
    float *straight;
} scratch;

static void split_scratch(const resize *p, void *work, scratch *s)
{
    int64_t *starts = work;
    float *floats = (float *)(void *)(starts + 2 * p->starts);
    s->matrix.start = starts;
    s->transposed.start = starts + p->starts;
    s->matrix.weight = floats;
    s->transposed.weight = floats + p->taps;
    s->between[0] = floats + 2 * p->taps;
    s->between[1] = s->between[0] + (p->passes > 2 ? p->between : 0);
    s->straight = s->between[1] + p->between;
    s->matrix.index = (int32_t *)(void *)(s->straight + p->straight);
    s->transposed.index = s->matrix.index + p->taps;
}

/* Pass k of the forward (or backward) sweep over the axes in memory order
   (`dims`), whose lengths so far are in `shape`. */
static gc_status run_pass(gc_op_call *c, const resize *p, scratch *s, int32_t axis, const int32_t *dims, int64_t *shape,
                          bool backward, const float *from, float *to)
{
    int64_t outer = 1, inner = 1;
    int32_t at = 0;
    for (; dims[at] != axis; at++) {
        outer *= shape[dims[at]];
    }
    for (at++; at < p->ndim; at++) {
        inner *= shape[dims[at]];
    }
    gc_resize_matrix(&p->rule, &p->axis[axis], &s->matrix);
    if (backward) {
        gc_resample_transpose(&s->matrix, &s->transposed);
    }
    shape[axis] = backward ? p->axis[axis].in : p->axis[axis].out;
    return gc_resample_apply(c->ctx, backward ? &s->transposed : &s->matrix, outer, inner, from, to);
}

/* All passes between two blocks whose memory has the same order of axes. */
static gc_status run_passes(gc_op_call *c, const resize *p, scratch *s, const int32_t *dims, bool backward,
                            const float *from, float *to)
{
    int64_t shape[GRADCAM_MAX_DIMS], n = 1;
    for (int32_t i = 0; i < p->ndim; i++) {
        shape[i] = backward ? p->axis[i].out : p->axis[i].in;
        n *= shape[i];
    }
    if (p->passes == 0) {
        memcpy(to, from, (size_t)n * sizeof *to);
    }
    for (int32_t k = 0; k < p->passes; k++) {
        float *result = k + 1 == p->passes ? to : s->between[k % 2];
        GC_TRY(run_pass(c, p, s, p->order[backward ? p->passes - 1 - k : k], dims, shape, backward, from, result));
        from = result;
    }
    return GRADCAM_OK;
}

/* Axes from the slowest to the fastest in the memory of t. */
static void memory_order(const gc_tensor *t, int32_t *dims)
{
    bool row = gc_is_row(t);
    for (int32_t i = 0; i < t->ndim; i++) {
        dims[i] = row || i == 0 ? i : i == t->ndim - 1 ? 1 : i + 1;
    }
}

static bool same_order(const gc_tensor *a, const gc_tensor *b)
{
    return gc_is_row(b) ? gc_is_row(a) : gc_is_cl(a);
}

static void fill_outside(const resize *p, gc_tensor *y)
{
    int64_t shape[GRADCAM_MAX_DIMS];
    for (int32_t i = 0; p->rule.grid == GC_GRID_TF_CROP_AND_RESIZE && i < p->ndim; i++) {
        memcpy(shape, y->shape, sizeof shape);
        shape[i] = 1;
        for (int64_t o = 0; o < y->shape[i]; o++) {
            if (gc_resize_outside(&p->rule, &p->axis[i], o)) {
                gc_fill_nd(y->ndim, shape, (float *)y->data + o * y->strides[i], y->strides, &p->extrapolation,
                           sizeof p->extrapolation);
            }
        }
    }
}

static gc_status resize_forward(gc_op_call *c)
{
    resize p;
    scratch s;
    int32_t dims[GRADCAM_MAX_DIMS];
    gc_tensor *y = c->out[0];
    const gc_tensor *x = c->in[0];
    if (y == NULL || gc_numel(y) == 0) {
        return GRADCAM_OK;
    }
    GC_TRY(make_plan(c, &p));
    p.straight = same_order(x, y) ? 0 : gc_numel(x);
    split_scratch(&p, c->work, &s);
    memory_order(y, dims);
    const float *from = x->data;
    if (p.straight > 0) {
        gc_tensor moved = *x;
        (gc_is_row(y) ? gc_row_strides : gc_cl_strides)(x->ndim, x->shape, moved.strides);
        gc_copy_nd(x->ndim, x->shape, s.straight, moved.strides, x->data, x->strides, sizeof(float));
        from = s.straight;
    }
    GC_TRY(run_passes(c, &p, &s, dims, false, from, y->data));
    fill_outside(&p, y);
    return GRADCAM_OK;
}

static gc_status resize_backward(gc_op_call *c)
{
    resize p;
    scratch s;
    int32_t dims[GRADCAM_MAX_DIMS];
    gc_tensor *gx = c->grad_in[0], *gy = c->grad_out[0];
    for (int32_t i = 1; i < c->n_in; i++) { /* roi, scales and sizes are constants of the plan */
        if (c->grad_in[i] != NULL) {
            return gc_op_fail(c, GRADCAM_E_NO_GRADIENT, "no gradient to input %d", (int)i);
        }
    }
    if (gx == NULL || gc_numel(gx) == 0) {
        return GRADCAM_OK;
    }
    if (gc_numel(gy) == 0) {
        memset(gx->data, 0, (size_t)gc_numel(gx) * sizeof(float));
        return GRADCAM_OK;
    }
    GC_TRY(make_plan(c, &p));
    p.straight = same_order(gx, gy) ? 0 : gc_numel(gx);
    split_scratch(&p, c->work, &s);
    memory_order(gy, dims);
    GC_TRY(run_passes(c, &p, &s, dims, true, gy->data, p.straight == 0 ? gx->data : s.straight));
    if (p.straight > 0) {
        gc_tensor moved = *gx;
        (gc_is_row(gy) ? gc_row_strides : gc_cl_strides)(gx->ndim, gx->shape, moved.strides);
        gc_copy_nd(gx->ndim, gx->shape, gx->data, gx->strides, s.straight, moved.strides, sizeof(float));
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_resize[] = {
    {"Resize", resize_infer, resize_forward, resize_backward, GC_OP_SAME, 0, 0, 1, 4, 1},
    {"Upsample", resize_infer, resize_forward, resize_backward, GC_OP_SAME, 0, 0, 1, 2, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
