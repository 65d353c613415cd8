/* SPDX-License-Identifier: MIT */
/* Selvaraju 2017, eq. 1 and 2: a map from activations and gradients.
 *
 * Positions are cut into chunks, by the shape alone: each chunk pools its part
 * of every channel's gradient, the parts are put together in order, and each
 * chunk sums its part of the map.  So the result does not depend on who runs
 * what.  Sums run in float over a few hundred numbers, beyond that in double. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/ctx.h"
#include "base/status.h"
#include "explain/map.h"

enum {
    LANES = 16,          /* sums that advance side by side */
    BLOCK = 64,          /* channels, or positions, of one float sum on the stack */
    CHUNK = 1 << 16,     /* elements that are worth a task */
    FLOAT_TERMS = 1 << 6 /* after which a float sum goes on in double */
};

/* A tensor [N, C, spatial...], or with C last, whose spatial dimensions are walked in one
   stride, and whose channels or positions are neighbours. */
typedef struct planes {
    const float *data;
    int64_t sample, channel, position; /* strides */
} planes;

typedef struct weighing {
    planes act, grad;
    int64_t samples, channels, positions;
    int64_t chunk, chunks; /* of positions */
    const gc_explain_options *o;
    double *parts;  /* [samples, chunks, channels] */
    float *weights; /* [samples, channels] */
    float *map;     /* [samples, positions] */
} weighing;

static int32_t channel_axis(const gc_tensor_desc *d, const gc_explain_options *o)
{
    return o->channel_axis < 0 ? d->ndim - 1 : 1;
}

static bool read_planes(const gc_tensor_desc *d, const gc_explain_options *o, planes *p)
{
    const int32_t axis = channel_axis(d, o);
    int64_t walked = 1;
    p->data = d->data;
    p->sample = d->strides[0];
    p->channel = d->shape[axis] > 1 ? d->strides[axis] : 1;
    p->position = 0;
    for (int32_t i = d->ndim - 1; i >= 1; i--) {
        if (d->shape[i] == 1 || i == axis) {
            continue;
        }
        p->position = walked == 1 ? d->strides[i] : p->position;
        if (d->strides[i] != p->position * walked) {
            return false;
        }
        walked *= d->shape[i];
    }
    p->data += (int64_t)o->skip * p->position;
    return p->channel == 1 || walked == 1 || p->position == 1;
}

static inline float modified(float g, int32_t how)
{
    float positive = g < 0.0f ? 0.0f : g;
    return how == GRADCAM_GRAD_ABS ? fabsf(g) : how == GRADCAM_GRAD_POSITIVE ? positive : g;
}

/* ---- eq. 1: parts of a channel's pooled gradient ---- */

/* Neighbours in memory are channels: rows of them are added up. */
static void pool_rows(const weighing *w, const float *g, int64_t n, double *parts)
{
    const int32_t how = w->o->grad;
    for (int64_t c = 0; c < w->channels; c += BLOCK) {
        int64_t width = w->channels - c < BLOCK ? w->channels - c : BLOCK;
        for (int64_t p = 0; p < n; p += FLOAT_TERMS) {
            int64_t end = n - p < FLOAT_TERMS ? n : p + FLOAT_TERMS;
            float sum[BLOCK] = {0.0f};
            for (int64_t q = p; q < end; q++) {
                const float *row = g + q * w->grad.position + c;
                for (int64_t k = 0; k < width; k++) {
                    sum[k] += modified(row[k], how);
                }
            }
            for (int64_t k = 0; k < width; k++) {
                parts[c + k] += (double)sum[k];
            }
        }
    }
}

/* Neighbours in memory are positions of one channel. */
static double pool_line(const float *g, int64_t n, int32_t how)
{
    double total = 0.0;
    int64_t p = 0;
    while (p + LANES <= n) {
        int64_t end = n - p < LANES * FLOAT_TERMS ? n : p + LANES * FLOAT_TERMS;
        float sum[LANES] = {0.0f};
        for (; p + LANES <= end; p += LANES) {
            for (int32_t k = 0; k < LANES; k++) {
                sum[k] += modified(g[p + k], how);
            }
        }
        for (int32_t k = 0; k < LANES; k++) {
            total += (double)sum[k];
        }
    }
    for (; p < n; p++) {
        total += (double)modified(g[p], how);
    }
    return total;
}

static double most_of(const float *g, int64_t step, int64_t n, int32_t how)
{
    double most = -INFINITY;
    for (int64_t p = 0; p < n; p++) {
        double v = (double)modified(g[p * step], how);
        most = v > most ? v : most;
    }
    return most;
}

static int64_t length_of(const weighing *w, int64_t chunk)
{
    int64_t left = w->positions - chunk * w->chunk;
    return left < w->chunk ? left : w->chunk;
}

static void pool_chunk(void *task, uint32_t index)
{
    const weighing *w = task;
    int64_t sample = index / w->chunks, chunk = index % w->chunks, n = length_of(w, chunk);
    const float *g = w->grad.data + sample * w->grad.sample + chunk * w->chunk * w->grad.position;
    double *parts = w->parts + index * w->channels;
    bool rows = w->grad.channel == 1 && w->o->pool != GRADCAM_POOL_MAX;
    memset(parts, 0, (size_t)w->channels * sizeof *parts);
    if (rows) {
        pool_rows(w, g, n, parts);
    }
    for (int64_t k = 0; k < w->channels && !rows; k++) {
        const float *channel = g + k * w->grad.channel;
        parts[k] = w->o->pool == GRADCAM_POOL_MAX ? most_of(channel, w->grad.position, n, w->o->grad)
                                                  : pool_line(channel, n, w->o->grad);
    }
}

static void join_parts(const weighing *w)
{
    const bool max = w->o->pool == GRADCAM_POOL_MAX;
    const double scale = w->o->pool == GRADCAM_POOL_MEAN ? 1.0 / (double)w->positions : 1.0;
    for (int64_t i = 0; i < w->samples * w->channels; i++) {
        const double *part = w->parts + i / w->channels * w->chunks * w->channels + i % w->channels;
        double sum = part[0];
        for (int64_t c = 1; c < w->chunks; c++) {
            double more = part[c * w->channels];
            sum = max ? (more > sum ? more : sum) : sum + more;
        }
        w->weights[i] = (float)(sum * scale);
    }
}

/* ---- eq. 2: the weighted sum over channels ---- */

static double dot(const float *restrict a, const float *restrict weights, int64_t n)
{
    float sum[LANES] = {0.0f};
    double total = 0.0;
    int64_t k = 0;
    for (; k + LANES <= n; k += LANES) {
        for (int32_t j = 0; j < LANES; j++) {
            sum[j] += weights[k + j] * a[k + j];
        }
    }
    for (; k < n; k++) {
        total += (double)weights[k] * (double)a[k];
    }
    for (int32_t j = 0; j < LANES; j++) {
        total += (double)sum[j];
    }
    return total;
}

/* map[p] for p < n <= BLOCK where neighbours in memory are positions. */
static void sum_lines(const weighing *w, const float *a, const float *weights, int64_t n, float *map)
{
    double total[BLOCK] = {0.0};
    for (int64_t k = 0; k < w->channels; k += FLOAT_TERMS) {
        int64_t end = w->channels - k < FLOAT_TERMS ? w->channels : k + FLOAT_TERMS;
        float sum[BLOCK] = {0.0f};
        for (int64_t j = k; j < end; j++) {
            const float *line = a + j * w->act.channel, weight = weights[j];
            for (int64_t p = 0; p < n; p++) {
                sum[p] += weight * line[p];
            }
        }
        for (int64_t p = 0; p < n; p++) {
            total[p] += (double)sum[p];
        }
    }
    for (int64_t p = 0; p < n; p++) {
        map[p] = (float)total[p];
    }
}

static void map_chunk(void *task, uint32_t index)
{
    const weighing *w = task;
    int64_t sample = index / w->chunks, chunk = index % w->chunks, n = length_of(w, chunk);
    const float *a = w->act.data + sample * w->act.sample + chunk * w->chunk * w->act.position;
    const float *weights = w->weights + sample * w->channels;
    float *map = w->map + sample * w->positions + chunk * w->chunk;
    for (int64_t p = 0; p < n && w->act.channel == 1; p++) {
        map[p] = (float)dot(a + p * w->act.position, weights, w->channels);
    }
    for (int64_t p = 0; p < n && w->act.channel != 1; p += BLOCK) {
        sum_lines(w, a + p * w->act.position, weights, n - p < BLOCK ? n - p : BLOCK, map + p);
    }
    for (int64_t p = 0; p < n && !w->o->signed_map; p++) {
        map[p] = map[p] < 0.0f ? 0.0f : map[p];
    }
}

/* grad NULL: its mean is known. */
static gc_status measure(weighing *w, const gc_tensor *act, const gc_tensor *grad, gc_error *err)
{
    gc_tensor_desc a, g;
    gc_tensor_describe(act, &a);
    if (grad != NULL) {
        gc_tensor_describe(grad, &g);
    }
    if (!read_planes(&a, w->o, &w->act) || (grad != NULL && !read_planes(&g, w->o, &w->grad))) {
        return gc_fail(err, GRADCAM_E_INTERNAL, "a layer lies neither row-major nor channels-last");
    }
    w->samples = a.shape[0];
    w->channels = a.shape[channel_axis(&a, w->o)];
    w->positions = 1;
    for (int32_t i = 1; i < a.ndim; i++) {
        w->positions *= i == channel_axis(&a, w->o) ? 1 : a.shape[i];
    }
    w->positions -= (int64_t)w->o->skip;
    w->chunk = w->channels < CHUNK ? CHUNK / (w->channels > 0 ? w->channels : 1) : 1;
    w->chunks = (w->positions + w->chunk - 1) / w->chunk;
    return GRADCAM_OK;
}

static gc_status scratch(gc_run *run, int32_t which, gc_dtype dtype, int64_t n, gc_tensor_desc *d, gc_error *err)
{
    gc_tensor *t;
    memset(d, 0, sizeof *d);
    d->dtype = dtype;
    d->ndim = 1;
    d->shape[0] = n;
    GC_TRY(gc_run_scratch(run, which, d, &t, err));
    return gc_tensor_describe(t, d);
}

/* A mean gradient is the weight, or the sum over that many places is. */
static void take_mean(weighing *w, const gc_tensor *mean)
{
    gc_tensor_desc m;
    gc_tensor_describe(mean, &m);
    float scale = w->o->pool == GRADCAM_POOL_SUM ? (float)w->positions : 1.0f;
    for (int64_t i = 0; i < w->samples * w->channels; i++) {
        w->weights[i] = ((const float *)m.data)[i] * scale;
    }
}

static gc_status pool(weighing *w, gc_run *run, int64_t tasks, gc_error *err)
{
    gc_tensor_desc parts;
    GC_TRY(scratch(run, GC_SCRATCH_PARTS, GRADCAM_F64, tasks * w->channels, &parts, err));
    w->parts = parts.data;
    GC_TRY(gc_parallel(gc_run_ctx(run), pool_chunk, w, (uint32_t)tasks));
    join_parts(w);
    return GRADCAM_OK;
}

gc_status gc_map_weigh(gc_run *run, const gc_tensor *act, const gc_tensor *grad, bool is_mean,
                       const gc_explain_options *o, gc_tensor *map, gc_error *err)
{
    weighing w;
    gc_tensor_desc weights, m;
    memset(&w, 0, sizeof w);
    w.o = o;
    GC_TRY(measure(&w, act, is_mean ? NULL : grad, err));
    int64_t tasks = w.samples * w.chunks;
    if (tasks == 0 || tasks > (int64_t)UINT32_MAX) {
        return tasks == 0 ? GRADCAM_OK : gc_fail(err, GRADCAM_E_LIMIT, "the layer is too large for a map");
    }
    GC_TRY(scratch(run, GC_SCRATCH_WEIGHTS, GRADCAM_F32, w.samples * w.channels, &weights, err));
    gc_tensor_describe(map, &m);
    w.weights = weights.data;
    w.map = m.data;
    gc_status s = GRADCAM_OK;
    if (is_mean) {
        take_mean(&w, grad);
    } else {
        s = pool(&w, run, tasks, err);
    }
    s = s == GRADCAM_OK ? gc_parallel(gc_run_ctx(run), map_chunk, &w, (uint32_t)tasks) : s;
    return s == GRADCAM_OK ? s : gc_fail(err, s, "the executor failed while a map was made");
}
