/* SPDX-License-Identifier: MIT */
/* Resize and Upsample: per axis one linear map, a table of (index, weight)
 * taps; the backward pass applies the transpose of the same tables. */
#include <math.h>
#include <string.h>

#include "kern/copy.h"
#include "ops/op.h"

enum { MAX_TAPS = 4 };

typedef struct axis_map {
    double num, den; /* scale = num / den, kept apart so that sizes stay exact */
    int64_t in, out;
    int32_t taps;
    int32_t reserved0;
    int64_t *index;
    float *weight;
} axis_map;

typedef struct resize_plan {
    axis_map axis[GRADCAM_MAX_DIMS];
    int32_t ndim;
    bool legacy; /* Upsample, Resize 10: asymmetric */
    bool exclude;
    char mode; /* n, l, c */
    const char *coordinates;
    const char *nearest;
    double a;
} resize_plan;

static gc_status need_const(gc_op_call *c, const gc_tensor *t)
{
    if (t->data == NULL) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "scales or sizes are not constant: data-dependent shape");
    }
    return GRADCAM_OK;
}

/* The axes attribute, or all axes. */
static gc_status axes_of(gc_op_call *c, int32_t ndim, int32_t *axes, int64_t *count)
{
    const gc_attr_value *a = gc_attr_find(&c->attrs, "axes", GRADCAM_ATTR_INTS);
    *count = a != NULL ? (int64_t)a->count : ndim;
    if (*count > ndim) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "more axes than dimensions");
    }
    for (int32_t i = 0; i < (int32_t)*count; i++) {
        GC_TRY(gc_op_axis(c, a != NULL ? a->ints[i] : i, ndim, &axes[i]));
    }
    return GRADCAM_OK;
}

static gc_status use_scales(gc_op_call *c, resize_plan *p, const float *scales, int64_t n)
{
    int32_t axes[GRADCAM_MAX_DIMS];
    int64_t count = 0;
    GC_TRY(axes_of(c, p->ndim, axes, &count));
    if (n != count) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "%lld scales for %lld axes", (long long)n, (long long)count);
    }
    for (int64_t i = 0; i < n; i++) {
        axis_map *m = &p->axis[axes[i]];
        double length = floor((double)((float)m->in * scales[i]));
        if (strcmp(c->op_name, "Upsample") == 0 && !(scales[i] >= 1.0F)) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "scale %g is below 1", (double)scales[i]);
        }
        if (!(scales[i] > 0.0F) || !(length <= 2147483647.0)) {
            return gc_op_fail(c, GRADCAM_E_LIMIT, "scale %g is not possible", (double)scales[i]);
        }
        m->out = (int64_t)length;
        m->num = (double)scales[i];
        m->den = 1.0;
    }
    return GRADCAM_OK;
}

static gc_status use_sizes(gc_op_call *c, resize_plan *p, const gc_tensor *t)
{
    int32_t axes[GRADCAM_MAX_DIMS];
    int64_t count = 0, sizes[GRADCAM_MAX_DIMS];
    int32_t n = 0;
    if (strcmp(gc_attr_string(&c->attrs, "keep_aspect_ratio_policy", "stretch"), "stretch") != 0) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "only keep_aspect_ratio_policy 'stretch' is supported");
    }
    GC_TRY(axes_of(c, p->ndim, axes, &count));
    if (gc_numel(t) != count) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "the number of sizes does not fit");
    }
    GC_TRY(gc_op_const_ints(c, 3, sizes, GRADCAM_MAX_DIMS, &n));
    for (int32_t i = 0; i < n && i < count; i++) {
        axis_map *m = &p->axis[axes[i]];
        if (sizes[i] < 0 || sizes[i] > 2147483647 || (m->in == 0 && sizes[i] > 0)) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "size %lld is not possible", (long long)sizes[i]);
        }
        m->out = sizes[i];
        m->num = (double)m->out;
        m->den = (double)m->in;
    }
    return GRADCAM_OK;
}

static gc_status read_modes(gc_op_call *c, resize_plan *p)
{
    static const char *const known[] = {"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric",
                                        "half_pixel_symmetric"};
    const char *mode = gc_attr_string(&c->attrs, "mode", "nearest");
    bool found = false;
    p->legacy = strcmp(c->op_name, "Upsample") == 0 || c->opset < 11;
    p->coordinates = p->legacy ? "asymmetric"
                               : gc_attr_string(&c->attrs, "coordinate_transformation_mode", "half_pixel");
    p->nearest = gc_attr_string(&c->attrs, "nearest_mode", "round_prefer_floor");
    p->a = (double)gc_attr_float(&c->attrs, "cubic_coeff_a", -0.75F);
    p->exclude = gc_attr_int(&c->attrs, "exclude_outside", 0) != 0;
    p->mode = strcmp(mode, "nearest") == 0                                    ? 'n'
              : strcmp(mode, "linear") == 0 || strcmp(mode, "bilinear") == 0 ? 'l'
              : strcmp(mode, "cubic") == 0                                    ? 'c'
                                                                              : 0;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        found = found || strcmp(known[i], p->coordinates) == 0;
    }
    if (p->mode == 0 || !found || gc_attr_int(&c->attrs, "antialias", 0) != 0) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "mode '%s', coordinates '%s' or antialias is not supported", mode,
                          p->coordinates);
    }
    return GRADCAM_OK;
}

static gc_status make_plan(gc_op_call *c, resize_plan *p)
{
    memset(p, 0, sizeof *p);
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *x = c->in[0];
    GC_TRY(read_modes(c, p));
    p->ndim = x->ndim;
    for (int32_t i = 0; i < x->ndim; i++) {
        p->axis[i].in = p->axis[i].out = x->shape[i];
        p->axis[i].num = p->axis[i].den = 1.0;
    }
    const gc_attr_value *a = gc_attr_find(&c->attrs, "scales", GRADCAM_ATTR_FLOATS);
    int32_t at = p->legacy ? 1 : 2;
    const gc_tensor *s = c->n_in > at ? c->in[at] : NULL, *z = !p->legacy && c->n_in > 3 ? c->in[3] : NULL;
    if (a != NULL) {
        GC_TRY(use_scales(c, p, a->floats, (int64_t)a->count));
    } else if (s != NULL && gc_numel(s) > 0) {
        GC_TRY(need_const(c, s));
        if (s->dtype != GRADCAM_F32) {
            return gc_op_fail(c, GRADCAM_E_DTYPE, "scales must be float");
        }
        GC_TRY(use_scales(c, p, s->data, gc_numel(s)));
    } else if (z != NULL) {
        GC_TRY(use_sizes(c, p, z));
    } else {
        return gc_op_fail(c, GRADCAM_E_INVALID, "neither scales nor sizes");
    }
    for (int32_t i = 0; i < p->ndim; i++) {
        axis_map *m = &p->axis[i];
        bool same = m->in == m->out && m->num == m->den;
        m->taps = same || p->mode == 'n' ? 1 : p->mode == 'l' ? 2 : 4;
    }
    return GRADCAM_OK;
}

static gc_status resize_infer(gc_op_call *c)
{
    resize_plan p;
    int64_t shape[GRADCAM_MAX_DIMS], n = 0;
    GC_TRY(make_plan(c, &p));
    if (c->in[0]->dtype != GRADCAM_F32) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "only float is supported");
    }
    for (int32_t i = 0; i < p.ndim; i++) {
        shape[i] = p.axis[i].out;
    }
    GC_TRY(gc_op_set_output(c, 0, GRADCAM_F32, p.ndim, shape));
    for (int32_t i = 0; gc_shape_numel(p.ndim, shape) > 0 && i < p.ndim; i++) {
        n += p.axis[i].out * p.axis[i].taps;
    }
    c->work_bytes = (size_t)n * (sizeof(int64_t) + sizeof(float));
    return GRADCAM_OK;
}

static double position(const resize_plan *p, const axis_map *m, int64_t o)
{
    double x = (double)o, in = (double)m->in, out = (double)m->out;
    const char *t = p->coordinates;
    if (strcmp(t, "asymmetric") == 0) {
        return x * m->den / m->num;
    }
    if (strcmp(t, "align_corners") == 0) {
        return m->out == 1 ? 0.0 : x * (in - 1.0) / (out - 1.0);
    }
    double half = (x + 0.5) * m->den / m->num - 0.5;
    if (strcmp(t, "pytorch_half_pixel") == 0) {
        return m->out > 1 ? half : 0.0;
    }
    if (strcmp(t, "half_pixel_symmetric") == 0) {
        return half + in / 2.0 * (1.0 - out * m->den / (m->num * in));
    }
    return half;
}

static double nearest(const resize_plan *p, const axis_map *m, double x)
{
    if (p->legacy) { /* Resize 10 rounds up when it shrinks */
        return m->num < m->den ? ceil(x) : floor(x);
    }
    if (strcmp(p->nearest, "floor") == 0) {
        return floor(x);
    }
    if (strcmp(p->nearest, "ceil") == 0) {
        return ceil(x);
    }
    return strcmp(p->nearest, "round_prefer_ceil") == 0 ? floor(x + 0.5) : ceil(x - 0.5);
}

static void cubic(double a, double t, double *w)
{
    double u = 1.0 - t, v = 1.0 + t, s = 2.0 - t;
    w[0] = ((a * v - 5.0 * a) * v + 8.0 * a) * v - 4.0 * a;
    w[1] = ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0;
    w[2] = ((a + 2.0) * u - (a + 3.0)) * u * u + 1.0;
    w[3] = ((a * s - 5.0 * a) * s + 8.0 * a) * s - 4.0 * a;
}

static void fill_taps(const resize_plan *p, axis_map *m, int64_t o)
{
    double x = position(p, m, o), w[MAX_TAPS] = {1.0}, sum = 0.0, low = floor(x);
    bool same = m->in == m->out && m->num == m->den;
    if (same) {
        low = (double)o;
    } else if (m->taps == 1) {
        low = nearest(p, m, x);
    } else if (m->taps == 2) {
        w[1] = x - low;
        w[0] = 1.0 - w[1];
    } else {
        cubic(p->a, x - low, w);
        low -= 1.0;
    }
    for (int32_t k = 0; k < m->taps; k++) {
        double at = low + k, last = (double)(m->in - 1);
        if (p->exclude && m->taps > 1 && (at < 0.0 || at > last)) {
            w[k] = 0.0;
        }
        sum += w[k];
        m->index[o * m->taps + k] = (int64_t)(at < 0.0 ? 0.0 : at > last ? last : at);
    }
    for (int32_t k = 0; k < m->taps; k++) {
        m->weight[o * m->taps + k] = (float)(p->exclude && sum != 0.0 ? w[k] / sum : w[k]);
    }
}

static void make_tables(resize_plan *p, void *work)
{
    int64_t total = 0, at = 0;
    for (int32_t i = 0; i < p->ndim; i++) {
        total += p->axis[i].out * p->axis[i].taps;
    }
    float *weights = (float *)(void *)((int64_t *)work + total);
    for (int32_t i = 0; i < p->ndim; i++) {
        axis_map *m = &p->axis[i];
        m->index = (int64_t *)work + at;
        m->weight = weights + at;
        at += m->out * m->taps;
        for (int64_t o = 0; o < m->out; o++) {
            fill_taps(p, m, o);
        }
    }
}

/* y += w * (map of x) or, for the gradient, x += w * (transposed map of y). */
static void apply(const resize_plan *p, int32_t d, float *x, float *y, float w, bool transpose)
{
    const axis_map *m = &p->axis[d];
    int64_t xs = 1, ys = 1;
    if (d == p->ndim) {
        *(transpose ? x : y) += w * *(transpose ? y : x);
        return;
    }
    for (int32_t i = d + 1; i < p->ndim; i++) {
        xs *= p->axis[i].in;
        ys *= p->axis[i].out;
    }
    for (int64_t o = 0; o < m->out; o++) {
        for (int64_t k = o * m->taps; k < (o + 1) * m->taps; k++) {
            if (m->weight[k] != 0.0F) {
                apply(p, d + 1, x + m->index[k] * xs, y + o * ys, w * m->weight[k], transpose);
            }
        }
    }
}

static gc_status run(gc_op_call *c, gc_tensor *x, gc_tensor *y, bool transpose)
{
    resize_plan p;
    GC_TRY(make_plan(c, &p));
    gc_tensor *to = transpose ? x : y;
    if (gc_numel(to) > 0) {
        memset(to->data, 0, (size_t)gc_numel(to) * sizeof(float));
    }
    if (gc_numel(x) > 0 && gc_numel(y) > 0) {
        make_tables(&p, c->work);
        apply(&p, 0, x->data, y->data, 1.0F, transpose);
    }
    return GRADCAM_OK;
}

static gc_status resize_forward(gc_op_call *c)
{
    gc_tensor x = *c->in[0]; /* only read */
    return c->out[0] != NULL ? run(c, &x, c->out[0], false) : GRADCAM_OK;
}

static gc_status resize_backward(gc_op_call *c)
{
    if (c->grad_in[0] == NULL || c->grad_out[0] == NULL) {
        return GRADCAM_OK;
    }
    return run(c, c->grad_in[0], c->grad_out[0], true);
}

/* ---- DepthToSpace and SpaceToDepth: a resize that loses nothing ---- */

static gc_status depth_infer(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *x = c->in[0];
    int64_t b = gc_attr_int(&c->attrs, "blocksize", 0);
    bool to_space = strcmp(c->op_name, "DepthToSpace") == 0;
    if (x->ndim != 4 || b < 1 || b > 32768) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "needs rank 4 and a blocksize of 1 to 32768");
    }
    if (to_space ? x->shape[1] % (b * b) != 0 || x->shape[2] > INT64_MAX / b || x->shape[3] > INT64_MAX / b
                 : x->shape[2] % b != 0 || x->shape[3] % b != 0 || x->shape[1] > INT64_MAX / (b * b)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "blocksize %lld does not fit the shape", (long long)b);
    }
    int64_t deep[4] = {x->shape[0], x->shape[1] * (to_space ? 1 : b * b), 0, 0};
    if (to_space) {
        deep[1] /= b * b;
    }
    deep[2] = to_space ? x->shape[2] * b : x->shape[2] / b;
    deep[3] = to_space ? x->shape[3] * b : x->shape[3] / b;
    return gc_op_set_output(c, 0, x->dtype, 4, deep);
}

/* Copies between the deep and the wide form; every element moves once. */
static void depth_copy(const gc_op_call *c, const gc_tensor *src, gc_tensor *dst, bool to_wide)
{
    const gc_tensor *wide = to_wide ? dst : src;
    int64_t b = gc_attr_int(&c->attrs, "blocksize", 1);
    int64_t ch = wide->shape[1], h = wide->shape[2] / b, w = wide->shape[3] / b;
    bool crd = strcmp(c->op_name, "DepthToSpace") == 0 &&
               strcmp(gc_attr_string(&c->attrs, "mode", "DCR"), "CRD") == 0;
    if (gc_numel(src) == 0) {
        return;
    }
    int64_t step = crd ? h * w : ch * h * w;
    int64_t shape[6] = {wide->shape[0], ch, h, b, w, b}, flat[6];
    int64_t deep[6] = {ch * b * b * h * w, crd ? b * b * h * w : h * w, w, b * step, 1, step};
    gc_row_strides(6, shape, flat);
    gc_copy_nd(6, shape, dst->data, to_wide ? flat : deep, src->data, to_wide ? deep : flat,
               gc_dtype_size(dst->dtype));
}

static gc_status depth_forward(gc_op_call *c)
{
    if (c->out[0] != NULL) {
        depth_copy(c, c->in[0], c->out[0], strcmp(c->op_name, "DepthToSpace") == 0);
    }
    return GRADCAM_OK;
}

static gc_status depth_backward(gc_op_call *c)
{
    if (c->grad_in[0] != NULL && c->grad_out[0] != NULL) {
        depth_copy(c, c->grad_out[0], c->grad_in[0], strcmp(c->op_name, "DepthToSpace") != 0);
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_resize[] = {
    {"Resize", resize_infer, resize_forward, resize_backward, 0, 0, 0, 1, 4, 1},
    {"Upsample", resize_infer, resize_forward, resize_backward, 0, 0, 0, 1, 2, 1},
    {"DepthToSpace", depth_infer, depth_forward, depth_backward, 0, 0, 0, 1, 1, 1},
    {"SpaceToDepth", depth_infer, depth_forward, depth_backward, 0, 0, 0, 1, 1, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
