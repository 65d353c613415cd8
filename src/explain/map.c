/* SPDX-License-Identifier: MIT */
#include "explain/map.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/ctx.h"
#include "base/status.h"

gc_status gc_map_make(gc_ctx *ctx, int32_t ndim, const int64_t *shape, gc_tensor *into, gc_tensor **out, gc_error *err)
{
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    if (into == NULL) {
        d.dtype = GRADCAM_F32;
        d.ndim = ndim;
        memcpy(d.shape, shape, (size_t)ndim * sizeof *shape);
        return gc_tensor_create(ctx, &d, out, err);
    }
    gc_tensor_describe(into, &d);
    bool fits = d.ndim == ndim && d.dtype == GRADCAM_F32;
    int64_t step = 1;
    for (int32_t i = ndim - 1; i >= 0 && fits; i--) {
        fits = d.shape[i] == shape[i] && (d.shape[i] == 1 || d.strides[i] == step);
        step *= d.shape[i];
    }
    if (!fits) {
        return gc_fail(err, GRADCAM_E_SHAPE, "options->into must be row-major float32 of the result's shape");
    }
    *out = gc_tensor_ref(into);
    return GRADCAM_OK;
}

uint32_t gc_map_warnings(const gc_tensor *map)
{
    gc_tensor_desc d;
    gc_tensor_describe(map, &d);
    const float *v = d.data;
    int64_t n = 1;
    for (int32_t i = 0; i < d.ndim; i++) {
        n *= d.shape[i];
    }
    bool empty = true, constant = true, finite = true;
    for (int64_t i = 0; i < n; i++) {
        empty = empty && v[i] == 0.0f;
        constant = constant && v[i] == v[0];
        finite = finite && isfinite(v[i]);
    }
    return (empty ? GRADCAM_WARN_EMPTY : 0u) | (constant ? GRADCAM_WARN_CONSTANT : 0u) |
           (finite ? 0u : GRADCAM_WARN_NAN);
}

/* Where output x reads along one axis: lower index and weight of the upper. */
static void source(int32_t mode, int64_t x, int64_t from, int64_t to, int64_t *low, float *weight)
{
    double at;
    if (mode == GRADCAM_RESIZE_ALIGN_CORNERS) {
        at = to > 1 ? (double)x * (double)(from - 1) / (double)(to - 1) : 0.0;
    } else if (mode == GRADCAM_RESIZE_NEAREST) {
        at = floor((double)x * (double)from / (double)to);
    } else {
        at = ((double)x + 0.5) * ((double)from / (double)to) - 0.5;
    }
    at = at < 0.0 ? 0.0 : at > (double)(from - 1) ? (double)(from - 1) : at;
    *low = (int64_t)at;
    *weight = *low + 1 < from ? (float)(at - (double)*low) : 0.0f;
}

/* A plane of a map: its last two dimensions. */
typedef struct plane {
    float *data;
    int64_t height, width, row, column; /* row, column: strides */
} plane;

/* Columns that are resized at once, and sums that advance side by side. */
enum { COLUMNS = 256, LANES = 32 };

/* What columns x .. x + n of the result read: element low, and that at next
   with the weight. */
typedef struct columns {
    int64_t x, n;
    int64_t low[COLUMNS], next[COLUMNS];
    float weight[COLUMNS];
} columns;

static void aim_columns(const plane *src, int32_t mode, const plane *dst, int64_t x, columns *c)
{
    c->x = x;
    c->n = dst->width - x < COLUMNS ? dst->width - x : COLUMNS;
    for (int64_t i = 0; i < c->n; i++) {
        int64_t low;
        source(mode, x + i, src->width, dst->width, &low, &c->weight[i]);
        c->low[i] = low * src->column;
        c->next[i] = (c->weight[i] > 0.0f ? low + 1 : low) * src->column;
    }
}

static void stretch(const float *line, const columns *c, float *to)
{
    for (int64_t i = 0; i < c->n; i++) {
        to[i] = line[c->low[i]] * (1.0f - c->weight[i]) + line[c->next[i]] * c->weight[i];
    }
}

static void mix(const float *restrict top, const float *restrict bottom, float weight, const columns *c,
                const plane *dst, int64_t y)
{
    float *restrict to = dst->data + y * dst->row + c->x * dst->column;
    if (dst->column == 1) {
        for (int64_t i = 0; i < c->n; i++) {
            to[i] = top[i] * (1.0f - weight) + bottom[i] * weight;
        }
        return;
    }
    for (int64_t i = 0; i < c->n; i++) {
        to[i * dst->column] = top[i] * (1.0f - weight) + bottom[i] * weight;
    }
}

/* Lines of the source are stretched once and mixed for all lines between them. */
static void resize_plane(const plane *src, int32_t mode, const plane *dst)
{
    columns c;
    float line[2][COLUMNS];
    for (int64_t x = 0; x < dst->width; x += COLUMNS) {
        int64_t holds[2] = {-1, -1}; /* line y of the source lies in line[y % 2] */
        aim_columns(src, mode, dst, x, &c);
        for (int64_t y = 0; y < dst->height; y++) {
            int64_t low;
            float weight;
            source(mode, y, src->height, dst->height, &low, &weight);
            int64_t next = weight > 0.0f ? low + 1 : low;
            for (int64_t k = low; k <= next; k++) {
                if (holds[k % 2] != k) {
                    stretch(src->data + k * src->row, &c, line[k % 2]);
                    holds[k % 2] = k;
                }
            }
            mix(line[low % 2], line[next % 2], weight, &c, dst, y);
        }
    }
}

/* Plane `index` of the leading dimensions, which are counted row-major. */
static plane plane_of(const gc_tensor_desc *d, int64_t index)
{
    const int32_t y = d->ndim - 2, x = d->ndim - 1;
    int64_t offset = 0;
    for (int32_t i = y - 1; i >= 0; i--) {
        offset += index % d->shape[i] * d->strides[i];
        index /= d->shape[i];
    }
    return (plane){(float *)d->data + offset, d->shape[y], d->shape[x], d->strides[y], d->strides[x]};
}

gc_status gc_map_resize(const gc_tensor *src, int32_t mode, gc_tensor *dst, gc_error *err)
{
    gc_tensor_desc s, d;
    if (src == NULL || dst == NULL || mode < GRADCAM_RESIZE_BILINEAR || mode > GRADCAM_RESIZE_NEAREST) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_map_resize: a tensor is NULL or the mode is unknown");
    }
    gc_tensor_describe(src, &s);
    gc_tensor_describe(dst, &d);
    bool fits = s.ndim == d.ndim && s.ndim >= 2 && s.dtype == GRADCAM_F32 && d.dtype == GRADCAM_F32;
    int64_t planes = 1;
    for (int32_t i = 0; fits && i < s.ndim - 2; i++) {
        fits = s.shape[i] == d.shape[i];
        planes *= s.shape[i];
    }
    if (!fits) {
        return gc_fail(err, GRADCAM_E_SHAPE,
                       "gc_map_resize: needs two float32 tensors [..., H, W] that differ in the "
                       "last two dimensions only");
    }
    if (s.shape[s.ndim - 2] < 1 || s.shape[s.ndim - 1] < 1) {
        return gc_fail(err, GRADCAM_E_SHAPE, "gc_map_resize: the map is empty");
    }
    for (int64_t i = 0; i < planes; i++) {
        const plane from = plane_of(&s, i), to = plane_of(&d, i);
        resize_plane(&from, mode, &to);
    }
    return GRADCAM_OK;
}

/* Row-major without gaps: the elements of a sample lie one after the other. */
static bool dense(const gc_tensor_desc *d)
{
    int64_t step = 1;
    for (int32_t i = d->ndim - 1; i >= 0; i--) {
        if (d->shape[i] != 1 && d->strides[i] != step) {
            return false;
        }
        step *= d->shape[i];
    }
    return true;
}

/* The smallest and the largest number; NaN is neither.  So many lanes that the loop
   over them stays a loop, of vectors. */
static void range_of(const float *v, int64_t n, float *low, float *high)
{
    float least[LANES], most[LANES];
    int64_t i = 0;
    for (int32_t k = 0; k < LANES; k++) {
        least[k] = INFINITY;
        most[k] = -INFINITY;
    }
    for (; i + LANES <= n; i += LANES) {
        for (int32_t k = 0; k < LANES; k++) {
            float x = v[i + k], low_k = least[k], high_k = most[k];
            least[k] = x < low_k ? x : low_k;
            most[k] = x > high_k ? x : high_k;
        }
    }
    *low = INFINITY;
    *high = -INFINITY;
    for (int32_t k = 0; k < LANES; k++) {
        *low = least[k] < *low ? least[k] : *low;
        *high = most[k] > *high ? most[k] : *high;
    }
    for (; i < n; i++) {
        *low = v[i] < *low ? v[i] : *low;
        *high = v[i] > *high ? v[i] : *high;
    }
}

static void normalize_sample(float *v, int64_t n)
{
    float low, high;
    range_of(v, n, &low, &high);
    if (!(high > low)) {
        memset(v, 0, (size_t)n * sizeof *v);
        return;
    }
    /* A product takes less time than a quotient.  The factor is 1 / (high - low) or the next
       number, so that the largest becomes 1. */
    const float span = high - low, inverse = 1.0f / span;
    const float factor = span * inverse < 1.0f ? nextafterf(inverse, INFINITY) : inverse;
    if (!isfinite(factor)) { /* of a span near zero */
        for (int64_t i = 0; i < n; i++) {
            v[i] = (v[i] - low) / span;
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float x = (v[i] - low) * factor;
        v[i] = x > 1.0f ? 1.0f : x;
    }
}

gc_status gc_map_normalize(gc_tensor *map, gc_error *err)
{
    gc_tensor_desc d;
    if (map == NULL || gc_tensor_describe(map, &d) != GRADCAM_OK || d.dtype != GRADCAM_F32 || d.ndim < 1 ||
        !dense(&d)) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_map_normalize: needs a row-major float32 map of rank 1 or more");
    }
    int64_t n = 1;
    for (int32_t i = 1; i < d.ndim; i++) {
        n *= d.shape[i];
    }
    for (int64_t s = 0; s < d.shape[0]; s++) {
        normalize_sample((float *)d.data + s * n, n);
    }
    return GRADCAM_OK;
}
