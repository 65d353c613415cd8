/* SPDX-License-Identifier: MIT */
/* Normalisation.  Batch, instance and local response normalisation are
   channels-last. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "kern/half.h"
#include "ops/op.h"

enum { SLICE = 32, ROW_CHUNK = 16 };

typedef struct norm_job {
    int64_t images, pixels, channels;
    const float *x, *scale, *bias, *dy;
    float *y;
    float *stats; /* aux: mean and 1/deviation in pairs; LRN: the sums */
    float *temp;
    float epsilon, alpha, beta, shift;
    float lo, hi;           /* BatchNormalization: bounds of the result */
    int64_t x_step, y_step; /* and floats from pixel to pixel */
    int64_t window;
    const gc_half *half; /* x or y is bfloat16: what `affine` says */
    gc_half_affine affine;
} norm_job;

static uint32_t chunks(int64_t n, int64_t size)
{
    return (uint32_t)((n + size - 1) / size);
}

static gc_status need_float(gc_op_call *c, int32_t i)
{
    GC_TRY(gc_op_need(c, i));
    if (c->in[i]->dtype != GRADCAM_F32 && !(i == 0 && gc_op_is_half(c, c->in[0]))) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "input %d is not float", (int)i);
    }
    return GRADCAM_OK;
}

/* [N, C, ...] into images, channels, pixels. */
static gc_status read_sizes(gc_op_call *c, int32_t min_rank, norm_job *j)
{
    memset(j, 0, sizeof *j);
    GC_TRY(need_float(c, 0));
    const gc_tensor *x = c->in[0];
    if (x->ndim < min_rank) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "input of rank %d, expected %d or more", (int)x->ndim, (int)min_rank);
    }
    j->images = x->shape[0];
    j->channels = x->shape[1];
    j->pixels = gc_shape_numel(x->ndim - 2, x->shape + 2);
    int64_t all = gc_shape_numel(x->ndim, x->shape);
    if (all < 0 || j->pixels < 0 || all > INT64_C(1) << 40 || j->channels > INT32_MAX || j->images > INT32_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "bad or too large shape");
    }
    return GRADCAM_OK;
}

static gc_status need_per_channel(gc_op_call *c, int32_t i, int64_t channels)
{
    GC_TRY(need_float(c, i));
    if (c->in[i]->ndim != 1 || c->in[i]->shape[0] != channels) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "input %d does not have %lld values", (int)i, (long long)channels);
    }
    return GRADCAM_OK;
}

static gc_status refuse_other_gradients(gc_op_call *c)
{
    for (int32_t i = 1; i < c->n_in; i++) {
        if (c->grad_in[i]) {
            return gc_op_fail(c, GRADCAM_E_NO_GRADIENT, "no gradient to input %d", (int)i);
        }
    }
    return GRADCAM_OK;
}

static gc_status same_output(gc_op_call *c)
{
    return gc_op_set_output(c, 0, GRADCAM_F32, c->in[0]->ndim, c->in[0]->shape);
}

/* ---- InstanceNormalization: over the pixels of each image and channel ---- */

static gc_status instance_infer(gc_op_call *c)
{
    norm_job j;
    GC_TRY(read_sizes(c, 3, &j));
    GC_TRY(need_per_channel(c, 1, j.channels));
    GC_TRY(need_per_channel(c, 2, j.channels));
    int64_t bytes;
    if (!gc_mul_ok(j.images, j.channels, &bytes) || !gc_mul_ok(bytes, 8, &bytes) || (uint64_t)bytes > SIZE_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    c->aux_bytes = (size_t)bytes;
    return same_output(c);
}

/* Task = a slice of channels; loops over the images. */
static void instance_task(void *task, uint32_t slice)
{
    const norm_job *j = task;
    int64_t n = j->channels, k0 = (int64_t)slice * SLICE, width = min64(SLICE, n - k0);
    for (int64_t image = 0; image < j->images; image++) {
        int64_t base = image * j->pixels * n + k0;
        double mean[SLICE] = {0}, var[SLICE] = {0};
        for (int64_t p = 0; p < j->pixels; p++) {
            for (int64_t k = 0; k < width; k++) {
                mean[k] += (double)j->x[base + p * n + k] / (double)j->pixels;
            }
        }
        for (int64_t p = 0; p < j->pixels; p++) {
            for (int64_t k = 0; k < width; k++) {
                double d = (double)j->x[base + p * n + k] - mean[k];
                var[k] += d * d / (double)j->pixels;
            }
        }
        float *stats = j->stats + 2 * (image * n + k0);
        for (int64_t k = 0; k < width; k++) {
            stats[2 * k] = (float)mean[k];
            stats[2 * k + 1] = (float)(1.0 / sqrt(var[k] + (double)j->epsilon));
        }
        for (int64_t p = 0; p < j->pixels; p++) {
            for (int64_t k = 0; k < width; k++) {
                int64_t i = base + p * n + k;
                j->y[i] = (j->x[i] - stats[2 * k]) * stats[2 * k + 1] * j->scale[k0 + k] + j->bias[k0 + k];
            }
        }
    }
}

/* dx = s r (dy - mean(dy) - xhat mean(dy xhat)). */
static void instance_back_task(void *task, uint32_t slice)
{
    const norm_job *j = task;
    int64_t n = j->channels, k0 = (int64_t)slice * SLICE, width = min64(SLICE, n - k0);
    for (int64_t image = 0; image < j->images; image++) {
        int64_t base = image * j->pixels * n + k0;
        const float *stats = j->stats + 2 * (image * n + k0);
        double sum[SLICE] = {0}, dot[SLICE] = {0};
        for (int64_t p = 0; p < j->pixels; p++) {
            for (int64_t k = 0; k < width; k++) {
                int64_t i = base + p * n + k;
                sum[k] += (double)j->dy[i];
                dot[k] += (double)(j->dy[i] * ((j->x[i] - stats[2 * k]) * stats[2 * k + 1]));
            }
        }
        for (int64_t p = 0; p < j->pixels; p++) {
            for (int64_t k = 0; k < width; k++) {
                int64_t i = base + p * n + k;
                double r = (double)stats[2 * k + 1], hat = (double)(j->x[i] - stats[2 * k]) * r;
                j->y[i] = (float)((double)j->scale[k0 + k] * r *
                                  ((double)j->dy[i] - (sum[k] + hat * dot[k]) / (double)j->pixels));
            }
        }
    }
}

static gc_status instance_forward(gc_op_call *c)
{
    norm_job j;
    GC_TRY(read_sizes(c, 3, &j));
    j.x = c->in[0]->data;
    j.scale = c->in[1]->data;
    j.bias = c->in[2]->data;
    j.y = c->out[0]->data;
    j.stats = c->aux;
    j.epsilon = gc_attr_float(&c->attrs, "epsilon", 1e-5f);
    return gc_parallel(c->ctx, instance_task, &j, chunks(j.channels, SLICE));
}

static gc_status instance_backward(gc_op_call *c)
{
    norm_job j;
    GC_TRY(refuse_other_gradients(c));
    GC_TRY(read_sizes(c, 3, &j));
    if (!c->grad_in[0]) {
        return GRADCAM_OK;
    }
    j.x = c->in[0]->data;
    j.scale = c->in[1]->data;
    j.dy = c->grad_out[0]->data;
    j.y = c->grad_in[0]->data;
    j.stats = c->aux;
    return gc_parallel(c->ctx, instance_back_task, &j, chunks(j.channels, SLICE));
}

/* ---- BatchNormalization ----

   Inference: y = x * factor[c] + shift[c].  Before opset 9, spatial 0 gives every
   element of an image its own factor.  Training: InstanceNormalization of one
   image that holds the pixels of all; aux keeps the statistics, then x. */

static bool trains(const gc_op_call *c)
{
    return c->opset >= 14 && gc_attr_int(&c->attrs, "training_mode", 0) != 0;
}

static bool per_element(const gc_op_call *c)
{
    return c->opset < 9 && gc_attr_int(&c->attrs, "spatial", 1) == 0;
}

/* A vector counts as images of one channel. */
static gc_status batch_sizes(gc_op_call *c, norm_job *j)
{
    GC_TRY(gc_op_need(c, 0));
    if (c->in[0]->ndim != 1) {
        return read_sizes(c, 2, j);
    }
    memset(j, 0, sizeof *j);
    GC_TRY(need_float(c, 0));
    j->images = c->in[0]->shape[0];
    j->channels = j->pixels = 1;
    return j->images <= INT32_MAX ? GRADCAM_OK : gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
}

static gc_status need_per_element(gc_op_call *c, int32_t i)
{
    GC_TRY(need_float(c, i));
    const gc_tensor *x = c->in[0], *t = c->in[i];
    bool fits = t->ndim == x->ndim - 1;
    for (int32_t d = 0; fits && d < t->ndim; d++) {
        fits = t->shape[d] == x->shape[d + 1];
    }
    return fits ? GRADCAM_OK : gc_op_fail(c, GRADCAM_E_SHAPE, "input %d does not have the shape of an image", (int)i);
}

static gc_status batch_infer(gc_op_call *c)
{
    norm_job j;
    GC_TRY(batch_sizes(c, &j));
    if (c->out[0] == NULL) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "statistics without the result");
    }
    int64_t values = per_element(c) ? j.channels * j.pixels : j.channels;
    for (int32_t i = 1; i < 5; i++) {
        GC_TRY(per_element(c) ? need_per_element(c, i) : need_per_channel(c, i, j.channels));
    }
    for (int32_t i = 1; i < c->n_out; i++) {
        GC_TRY(gc_op_set_output(c, i, GRADCAM_F32, c->in[1]->ndim, c->in[1]->shape));
    }
    /* read_sizes limits the elements to 2^40. */
    c->work_bytes = (size_t)values * 2 * sizeof(float);
    c->fuses = trains(c) ? 0 : GC_FUSE_CLIP;
    c->wide = !trains(c) && !per_element(c) && c->in[0]->ndim >= 3;
    c->half_able = c->half != NULL && c->wide ? 1u | GC_HALF_OUT : 0u;
    c->aux_bytes = trains(c) ? (size_t)(2 * values + j.images * j.pixels * j.channels) * sizeof(float) : 0;
    return same_output(c);
}

static void batch_task(void *task, uint32_t chunk)
{
    const norm_job *j = task;
    int64_t n = j->channels, first = (int64_t)chunk * ROW_CHUNK, last = min64(first + ROW_CHUNK, j->pixels);
    const float *factor = j->temp, *shift = j->temp + n;
    float lo = j->lo, hi = j->hi;
    for (int64_t p = first; p < last; p++) {
        const float *restrict x = j->x + p * j->x_step;
        float *restrict y = j->y + p * j->y_step;
        for (int64_t k = 0; k < n; k++) { /* NaN stays NaN */
            float v = x[k] * factor[k] + shift[k];
            v = v < lo ? lo : v;
            y[k] = v > hi ? hi : v;
        }
    }
}

static void half_batch_task(void *task, uint32_t chunk)
{
    const norm_job *j = task;
    int64_t first = (int64_t)chunk * ROW_CHUNK, last = min64(first + ROW_CHUNK, j->pixels);
    int64_t x_size = j->affine.x_half ? 2 : 4, y_size = j->affine.y_half ? 2 : 4;
    for (int64_t p = first; p < last; p++) {
        j->half->affine(&j->affine, j->channels, (const char *)j->x + p * j->x_step * x_size,
                        (char *)j->y + p * j->y_step * y_size);
    }
}

/* Forward, or with shift 0 the gradient.  Parameters are row-major, [C] or
   [C, pixels]; factors lie channels-last like x. */
static gc_status batch_run(gc_op_call *c, const float *x, float *y, bool gradient)
{
    norm_job j;
    GC_TRY(batch_sizes(c, &j));
    float epsilon = gc_attr_float(&c->attrs, "epsilon", 1e-5f);
    const float *scale = c->in[1]->data, *var = c->in[4]->data;
    const float *bias = gradient ? NULL : c->in[2]->data, *mean = gradient ? NULL : c->in[3]->data;
    int64_t each = per_element(c) ? j.pixels : 1, n = j.channels * each;
    j.temp = c->work;
    for (int64_t k = 0; k < n; k++) {
        int64_t to = k % each * j.channels + k / each;
        j.temp[to] = (float)((double)scale[k] / sqrt((double)var[k] + (double)epsilon));
        j.temp[n + to] = gradient ? 0.0f : bias[k] - mean[k] * j.temp[to];
    }
    bool clips = !gradient && c->fusion.clip != 0;
    j.lo = clips ? c->fusion.lo : -INFINITY;
    j.hi = clips ? c->fusion.hi : INFINITY;
    j.x = x;
    j.y = y;
    j.x_step = c->wide && !gradient ? gc_cl_pixel(c->in[0]) : n;
    j.y_step = c->wide && !gradient ? gc_cl_pixel(c->out[0]) : n;
    j.channels = n;
    j.pixels = j.pixels / each * j.images;
    if (!gradient && (gc_op_is_half(c, c->in[0]) || gc_op_is_half(c, c->out[0]))) {
        gc_half_affine a = {j.temp, j.temp + n, j.lo, j.hi, gc_op_is_half(c, c->in[0]), gc_op_is_half(c, c->out[0])};
        j.half = c->half;
        j.affine = a;
        return gc_parallel(c->ctx, half_batch_task, &j, chunks(j.pixels, ROW_CHUNK));
    }
    return gc_parallel(c->ctx, batch_task, &j, chunks(j.pixels, ROW_CHUNK));
}

static gc_status batch_train(gc_op_call *c, norm_job *j)
{
    GC_TRY(batch_sizes(c, j));
    j->pixels *= j->images;
    j->images = 1;
    j->scale = c->in[1]->data;
    j->stats = c->aux;
    j->temp = j->stats + 2 * j->channels;
    j->epsilon = gc_attr_float(&c->attrs, "epsilon", 1e-5f);
    if (j->pixels == 0) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "no elements to take statistics of");
    }
    return GRADCAM_OK;
}

/* running = momentum old + (1 - momentum) new, for mean and variance. */
static void running_stats(gc_op_call *c, const norm_job *j)
{
    double momentum = (double)gc_attr_float(&c->attrs, "momentum", 0.9f);
    for (int32_t i = 1; i < 3 && i < c->n_out; i++) {
        const float *old = c->in[i + 2]->data;
        for (int64_t k = 0; c->out[i] != NULL && k < j->channels; k++) {
            double factor = (double)j->stats[2 * k + 1];
            double now = i == 1 ? (double)j->stats[2 * k] : 1.0 / (factor * factor) - (double)j->epsilon;
            ((float *)c->out[i]->data)[k] = (float)(momentum * (double)old[k] + (1.0 - momentum) * now);
        }
    }
}

static gc_status batch_forward(gc_op_call *c)
{
    norm_job j;
    if (!trains(c)) {
        /* Old files name the outputs of training; they hold the estimates. */
        for (int32_t i = 1; i < c->n_out; i++) {
            if (c->out[i] != NULL) {
                memcpy(c->out[i]->data, c->in[i % 2 == 1 ? 3 : 4]->data, (size_t)gc_numel(c->in[3]) * sizeof(float));
            }
        }
        return batch_run(c, c->in[0]->data, c->out[0]->data, false);
    }
    GC_TRY(batch_train(c, &j));
    memcpy(j.temp, c->in[0]->data, (size_t)(j.pixels * j.channels) * sizeof(float));
    j.x = j.temp;
    j.bias = c->in[2]->data;
    j.y = c->out[0]->data;
    GC_TRY(gc_parallel(c->ctx, instance_task, &j, chunks(j.channels, SLICE)));
    running_stats(c, &j);
    return GRADCAM_OK;
}

static gc_status batch_backward(gc_op_call *c)
{
    norm_job j;
    GC_TRY(refuse_other_gradients(c));
    for (int32_t k = 1; k < c->n_out; k++) {
        if (c->grad_out[k] != NULL) {
            return gc_op_fail(c, GRADCAM_E_NO_GRADIENT, "no gradient through output %d", (int)k);
        }
    }
    if (c->grad_in[0] == NULL || !trains(c)) {
        return c->grad_in[0] ? batch_run(c, c->grad_out[0]->data, c->grad_in[0]->data, true) : GRADCAM_OK;
    }
    GC_TRY(batch_train(c, &j));
    j.x = j.temp;
    j.dy = c->grad_out[0]->data;
    j.y = c->grad_in[0]->data;
    return gc_parallel(c->ctx, instance_back_task, &j, chunks(j.channels, SLICE));
}

/* ---- LRN: y = x s^-beta, s = bias + alpha/size * sum of x^2 over channels ---- */

static gc_status lrn_setup(gc_op_call *c, norm_job *j)
{
    GC_TRY(read_sizes(c, 3, j));
    j->window = gc_attr_int(&c->attrs, "size", 0);
    j->alpha = gc_attr_float(&c->attrs, "alpha", 1e-4f);
    j->beta = gc_attr_float(&c->attrs, "beta", 0.75f);
    j->shift = gc_attr_float(&c->attrs, "bias", 1.0f);
    j->pixels *= j->images;
    if (j->window < 1 || j->window > INT32_MAX) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "size %lld", (long long)j->window);
    }
    return GRADCAM_OK;
}

static gc_status lrn_infer(gc_op_call *c)
{
    norm_job j;
    GC_TRY(lrn_setup(c, &j));
    /* read_sizes limits the elements to 2^40. */
    c->aux_bytes = c->work_bytes = (size_t)(j.pixels * j.channels) * sizeof(float);
    return same_output(c);
}

/* Sum of v over low .. high, clipped to the n channels. */
static double window_sum(const float *v, int64_t n, int64_t low, int64_t high, bool square)
{
    double sum = 0;
    for (int64_t k = low < 0 ? 0 : low; k <= high && k < n; k++) {
        sum += square ? (double)v[k] * (double)v[k] : (double)v[k];
    }
    return sum;
}

static void lrn_task(void *task, uint32_t chunk)
{
    const norm_job *j = task;
    int64_t n = j->channels, before = (j->window - 1) / 2, after = j->window - 1 - before;
    int64_t first = (int64_t)chunk * ROW_CHUNK, last = min64(first + ROW_CHUNK, j->pixels);
    for (int64_t p = first; p < last; p++) {
        const float *x = j->x + p * n;
        for (int64_t k = 0; k < n; k++) {
            double sum = window_sum(x, n, k - before, k + after, true);
            float s = (float)((double)j->shift + (double)j->alpha / (double)j->window * sum);
            j->stats[p * n + k] = s;
            j->y[p * n + k] = x[k] * powf(s, -j->beta);
        }
    }
}

/* dx = dy s^-b - 2ab/size x sum over the windows that hold x of dy x s^(-b-1). */
static void lrn_back_task(void *task, uint32_t chunk)
{
    const norm_job *j = task;
    int64_t n = j->channels, before = (j->window - 1) / 2, after = j->window - 1 - before;
    int64_t first = (int64_t)chunk * ROW_CHUNK, last = min64(first + ROW_CHUNK, j->pixels);
    for (int64_t p = first; p < last; p++) {
        const float *x = j->x + p * n, *dy = j->dy + p * n, *s = j->stats + p * n;
        float *t = j->temp + p * n, *dx = j->y + p * n;
        for (int64_t k = 0; k < n; k++) {
            dx[k] = dy[k] * powf(s[k], -j->beta);
            t[k] = dx[k] * x[k] / s[k];
        }
        for (int64_t k = 0; k < n; k++) {
            double sum = window_sum(t, n, k - after, k + before, false);
            dx[k] -= (float)(2.0 * (double)j->alpha * (double)j->beta / (double)j->window * (double)x[k] * sum);
        }
    }
}

static gc_status lrn_forward(gc_op_call *c)
{
    norm_job j;
    GC_TRY(lrn_setup(c, &j));
    j.x = c->in[0]->data;
    j.y = c->out[0]->data;
    j.stats = c->aux;
    return gc_parallel(c->ctx, lrn_task, &j, chunks(j.pixels, ROW_CHUNK));
}

static gc_status lrn_backward(gc_op_call *c)
{
    norm_job j;
    GC_TRY(lrn_setup(c, &j));
    if (!c->grad_in[0]) {
        return GRADCAM_OK;
    }
    j.x = c->in[0]->data;
    j.dy = c->grad_out[0]->data;
    j.y = c->grad_in[0]->data;
    j.stats = c->aux;
    j.temp = c->work;
    return gc_parallel(c->ctx, lrn_back_task, &j, chunks(j.pixels, ROW_CHUNK));
}

const gc_op gc_ops_norm[] = {
    {"BatchNormalization", batch_infer, batch_forward, batch_backward, GC_OP_CL, 1u << 1 | 1u << 4, 0, 5, 5, 5},
    {"InstanceNormalization", instance_infer, instance_forward, instance_backward, GC_OP_CL, 3, 0, 3, 3, 1},
    {"LRN", lrn_infer, lrn_forward, lrn_backward, GC_OP_CL, 1, 0, 1, 1, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
