/* SPDX-License-Identifier: MIT */
#include "ops/resize_map.h"

#include <math.h>

/* Distance at which the filter ends. */
static double radius(const gc_resize_rule *rule)
{
    return rule->mode == GC_RESIZE_CUBIC ? 2.0 : 1.0;
}

void gc_resize_prepare(const gc_resize_rule *rule, gc_resize_axis *a)
{
    a->same = a->in == a->out && a->num == a->den && rule->grid != GC_GRID_TF_CROP_AND_RESIZE &&
              rule->grid != GC_GRID_TF_HALF_PIXEL_FOR_NN;
    a->stretch = rule->antialias && a->num < a->den ? a->num / a->den : 1.0;
    if (rule->mode == GC_RESIZE_NEAREST || a->same) {
        a->first = 0;
        a->taps = 1;
        return;
    }
    a->first = (int64_t)floor(-radius(rule) / a->stretch) + 1;
    a->taps = 2 - 2 * a->first;
}

/* Where output o lies in the input, in pixels. */
static double position(const gc_resize_rule *rule, const gc_resize_axis *a, int64_t o)
{
    double x = (double)o, last = (double)(a->in - 1), steps = (double)(a->out - 1);
    double half = (x + 0.5) * a->den / a->num - 0.5;
    switch (rule->grid) {
    case GC_GRID_PYTORCH_HALF_PIXEL: return a->out > 1 ? half : 0.0;
    case GC_GRID_ALIGN_CORNERS: return a->out > 1 ? x * last / steps : 0.0;
    case GC_GRID_ASYMMETRIC: return x * a->den / a->num;
    case GC_GRID_TF_HALF_PIXEL_FOR_NN: return half + 0.5;
    case GC_GRID_TF_CROP_AND_RESIZE: {
        double span = (a->roi_end - a->roi_begin) * last;
        return a->roi_begin * last + (a->out > 1 ? x * span / steps : span / 2.0);
    }
    case GC_GRID_HALF_PIXEL_SYMMETRIC: /* the centres meet although out is rounded down */
        return half + (double)a->in / 2.0 * (1.0 - (double)a->out * a->den / (a->num * (double)a->in));
    default: return half;
    }
}

static double nearest(const gc_resize_rule *rule, const gc_resize_axis *a, double x)
{
    switch (rule->round) {
    case GC_ROUND_FLOOR: return floor(x);
    case GC_ROUND_CEIL: return ceil(x);
    case GC_ROUND_PREFER_CEIL: return floor(x + 0.5);
    case GC_ROUND_OPSET_10: return a->num < a->den ? ceil(x) : floor(x);
    default: return ceil(x - 0.5);
    }
}

/* Keys 1981, with the free parameter a. */
static double cubic(double a, double x)
{
    if (x >= 2.0) {
        return 0.0;
    }
    return x > 1.0 ? ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a : ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
}

static double filter(const gc_resize_rule *rule, double x)
{
    x = fabs(x);
    return rule->mode == GC_RESIZE_CUBIC ? cubic(rule->cubic_a, x) : x < 1.0 ? 1.0 - x : 0.0;
}

bool gc_resize_outside(const gc_resize_rule *rule, const gc_resize_axis *a, int64_t o)
{
    double x = position(rule, a, o);
    return rule->grid == GC_GRID_TF_CROP_AND_RESIZE && !a->same && !(x >= 0.0 && x <= (double)(a->in - 1));
}

static void put(gc_resample *m, int64_t *n, double at, double last, double weight)
{
    if (weight != 0.0) {
        m->index[*n] = (int32_t)(at < 0.0 ? 0.0 : at > last ? last : at);
        m->weight[(*n)++] = (float)weight;
    }
}

/* The taps of one output; outside the input the border repeats or, with
   exclude_outside, does not count. */
static void filter_row(const gc_resize_rule *rule, const gc_resize_axis *a, double x, gc_resample *m, int64_t *n)
{
    double last = (double)(a->in - 1), low = floor(x), t = x - low, sum = 0.0;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t k = a->first; k < a->first + a->taps; k++) {
            double at = low + (double)k, w = filter(rule, ((double)k - t) * a->stretch);
            if (rule->exclude_outside && (at < 0.0 || at > last)) {
                continue;
            }
            if (pass == 0) {
                sum += w;
            } else {
                put(m, n, at, last, sum != 0.0 ? w / sum : 0.0);
            }
        }
    }
}

void gc_resize_matrix(const gc_resize_rule *rule, const gc_resize_axis *a, gc_resample *m)
{
    int64_t n = 0;
    m->rows = a->out;
    m->cols = a->in;
    for (int64_t o = 0; o < a->out; o++) {
        double x = position(rule, a, o);
        m->start[o] = n;
        if (gc_resize_outside(rule, a, o)) {
            continue; /* no taps: neither value nor gradient */
        }
        if (rule->mode == GC_RESIZE_NEAREST) {
            put(m, &n, nearest(rule, a, x), (double)(a->in - 1), 1.0);
        } else {
            filter_row(rule, a, x, m, &n);
        }
    }
    m->start[a->out] = n;
}
