/* SPDX-License-Identifier: MIT */
/* Normalisation.  Batch, instance and local response normalisation are
   channels-last, layer normalisation is row-major. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "ops/op.h"

enum { SLICE = 32, ROW_CHUNK = 16 };

typedef struct norm_job {
    int64_t images, pixels, channels; /* layer: rows = images, channels = elements of a row, pixels 1 */
    int64_t scale_n, bias_n;          /* layer: repeat of scale and bias */
    const float *x, *scale, *bias, *dy;
    float *y;
    float *stats; /* aux: mean and 1/deviation in pairs; LRN: the sums */
    float *temp;
    float epsilon, alpha, beta, shift;
    int64_t window;
} norm_job;

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static uint32_t chunks(int64_t n, int64_t size)
{
    return (uint32_t)((n + size - 1) / size);
}

static gc_status need_float(gc_op_call *c, int32_t i)
{
    GC_TRY(gc_op_need(c, i));
    if (c->in[i]->dtype != GRADCAM_F32) {
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

/* ---- BatchNormalization: y = x * factor[c] + shift[c] ---- */

static gc_status batch_infer(gc_op_call *c)
{
    norm_job j;
    GC_TRY(read_sizes(c, 2, &j));
    if (gc_attr_int(&c->attrs, "training_mode", 0) != 0 ||
        (c->opset < 9 && gc_attr_int(&c->attrs, "spatial", 1) == 0)) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "training_mode 1 or spatial 0");
    }
    for (int32_t i = 1; i < c->n_out; i++) {
        if (c->out[i]) {
            return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "output %d exists in training only", (int)i);
        }
    }
    for (int32_t i = 1; i < 5; i++) {
        GC_TRY(need_per_channel(c, i, j.channels));
    }
    c->work_bytes = (size_t)j.channels * 2 * sizeof(float);
    return same_output(c);
}

static void batch_task(void *task, uint32_t chunk)
{
    const norm_job *j = task;
    int64_t n = j->channels, first = (int64_t)chunk * ROW_CHUNK, last = min64(first + ROW_CHUNK, j->pixels);
    const float *factor = j->temp, *shift = j->temp + n;
    for (int64_t p = first; p < last; p++) {
        for (int64_t k = 0; k < n; k++) {
            j->y[p * n + k] = j->x[p * n + k] * factor[k] + shift[k];
        }
    }
}

/* Forward, or with shift 0 the gradient. */
static gc_status batch_run(gc_op_call *c, const float *x, float *y, bool gradient)
{
    norm_job j;
    GC_TRY(read_sizes(c, 2, &j));
    float epsilon = gc_attr_float(&c->attrs, "epsilon", 1e-5f);
    const float *scale = c->in[1]->data, *var = c->in[4]->data;
    const float *bias = gradient ? NULL : c->in[2]->data, *mean = gradient ? NULL : c->in[3]->data;
    j.temp = c->work;
    for (int64_t k = 0; k < j.channels; k++) {
        j.temp[k] = (float)((double)scale[k] / sqrt((double)var[k] + (double)epsilon));
        j.temp[j.channels + k] = gradient ? 0.0f : bias[k] - mean[k] * j.temp[k];
    }
    j.x = x;
    j.y = y;
    j.pixels *= j.images;
    return gc_parallel(c->ctx, batch_task, &j, chunks(j.pixels, ROW_CHUNK));
}

static gc_status batch_forward(gc_op_call *c)
{
    return batch_run(c, c->in[0]->data, c->out[0]->data, false);
}

static gc_status batch_backward(gc_op_call *c)
{
    GC_TRY(refuse_other_gradients(c));
    return c->grad_in[0] ? batch_run(c, c->grad_out[0]->data, c->grad_in[0]->data, true) : GRADCAM_OK;
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

/* ---- LayerNormalization ---- */

/* Scale and bias repeat over the row: their shape, without leading ones, must
   be a tail of the input's shape. */
static gc_status layer_repeat(gc_op_call *c, int32_t i, int64_t row, int64_t *repeat)
{
    GC_TRY(need_float(c, i));
    const gc_tensor *t = c->in[i], *x = c->in[0];
    int32_t skip = 0;
    *repeat = gc_shape_numel(t->ndim, t->shape);
    while (skip < t->ndim && t->shape[skip] == 1) {
        skip++;
    }
    bool fits = *repeat > 0 && *repeat <= row && row % *repeat == 0 && t->ndim - skip <= x->ndim;
    for (int32_t k = skip; fits && k < t->ndim; k++) {
        fits = t->shape[k] == x->shape[x->ndim - t->ndim + k];
    }
    return fits ? GRADCAM_OK : gc_op_fail(c, GRADCAM_E_SHAPE, "input %d does not fit the normalised axes", (int)i);
}

static gc_status layer_setup(gc_op_call *c, norm_job *j, int32_t *axis)
{
    memset(j, 0, sizeof *j);
    GC_TRY(need_float(c, 0));
    const gc_tensor *x = c->in[0];
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", -1), x->ndim, axis));
    j->images = gc_shape_numel(*axis, x->shape);
    j->channels = gc_shape_numel(x->ndim - *axis, x->shape + *axis);
    j->epsilon = gc_attr_float(&c->attrs, "epsilon", 1e-5f);
    if (j->images < 0 || j->channels < 1 || j->images > INT64_C(1) << 35) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "bad or too large shape");
    }
    GC_TRY(layer_repeat(c, 1, j->channels, &j->scale_n));
    return c->n_in > 2 && c->in[2] ? layer_repeat(c, 2, j->channels, &j->bias_n) : GRADCAM_OK;
}

static gc_status layer_infer(gc_op_call *c)
{
    norm_job j;
    int32_t axis;
    GC_TRY(layer_setup(c, &j, &axis));
    int64_t shape[GRADCAM_MAX_DIMS];
    for (int32_t i = 0; i < c->in[0]->ndim; i++) {
        shape[i] = i < axis ? c->in[0]->shape[i] : 1;
    }
    for (int32_t i = 1; i < 3 && i < c->n_out; i++) {
        GC_TRY(gc_op_set_output(c, i, GRADCAM_F32, c->in[0]->ndim, shape));
    }
    c->aux_bytes = (size_t)j.images * 2 * sizeof(float);
    return same_output(c);
}

static void layer_task(void *task, uint32_t chunk)
{
    const norm_job *j = task;
    int64_t n = j->channels, first = (int64_t)chunk * ROW_CHUNK, last = min64(first + ROW_CHUNK, j->images);
    for (int64_t r = first; r < last; r++) {
        const float *x = j->x + r * n;
        float *y = j->y + r * n;
        double sum = 0, squares = 0;
        for (int64_t k = 0; k < n; k++) {
            sum += (double)x[k];
        }
        double mean = sum / (double)n;
        for (int64_t k = 0; k < n; k++) {
            squares += ((double)x[k] - mean) * ((double)x[k] - mean);
        }
        float center = (float)mean, factor = (float)(1.0 / sqrt(squares / (double)n + (double)j->epsilon));
        j->stats[2 * r] = center;
        j->stats[2 * r + 1] = factor;
        for (int64_t k = 0; k < n; k++) {
            y[k] = (x[k] - center) * factor * j->scale[j->scale_n == n ? k : k % j->scale_n];
        }
        for (int64_t k = 0; j->bias && k < n; k++) {
            y[k] += j->bias[j->bias_n == n ? k : k % j->bias_n];
        }
    }
}

static void layer_back_task(void *task, uint32_t chunk)
{
    const norm_job *j = task;
    int64_t n = j->channels, first = (int64_t)chunk * ROW_CHUNK, last = min64(first + ROW_CHUNK, j->images);
    for (int64_t r = first; r < last; r++) {
        const float *x = j->x + r * n, *dy = j->dy + r * n;
        float *dx = j->y + r * n, center = j->stats[2 * r], factor = j->stats[2 * r + 1];
        double sum = 0, dot = 0;
        for (int64_t k = 0; k < n; k++) {
            dx[k] = dy[k] * j->scale[j->scale_n == n ? k : k % j->scale_n];
            sum += (double)dx[k];
            dot += (double)(dx[k] * ((x[k] - center) * factor));
        }
        float mean = (float)(sum / (double)n), slope = (float)(dot / (double)n);
        for (int64_t k = 0; k < n; k++) {
            dx[k] = factor * (dx[k] - mean - (x[k] - center) * factor * slope);
        }
    }
}

static gc_status layer_forward(gc_op_call *c)
{
    norm_job j;
    int32_t axis;
    GC_TRY(layer_setup(c, &j, &axis));
    if (!c->out[0]) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "Mean without the result");
    }
    j.x = c->in[0]->data;
    j.scale = c->in[1]->data;
    j.bias = j.bias_n > 0 ? c->in[2]->data : NULL;
    j.y = c->out[0]->data;
    j.stats = c->aux;
    GC_TRY(gc_parallel(c->ctx, layer_task, &j, chunks(j.images, ROW_CHUNK)));
    for (int32_t i = 1; i < 3 && i < c->n_out; i++) {
        for (int64_t r = 0; c->out[i] && r < j.images; r++) {
            ((float *)c->out[i]->data)[r] = j.stats[2 * r + i - 1];
        }
    }
    return GRADCAM_OK;
}

static gc_status layer_backward(gc_op_call *c)
{
    norm_job j;
    int32_t axis;
    GC_TRY(refuse_other_gradients(c));
    GC_TRY(layer_setup(c, &j, &axis));
    if (!c->grad_in[0]) {
        return GRADCAM_OK;
    }
    if (!c->grad_out[0] || (c->n_out > 1 && c->grad_out[1]) || (c->n_out > 2 && c->grad_out[2])) {
        return gc_op_fail(c, GRADCAM_E_NO_GRADIENT, "no gradient through Mean or InvStdDev");
    }
    j.x = c->in[0]->data;
    j.scale = c->in[1]->data;
    j.dy = c->grad_out[0]->data;
    j.y = c->grad_in[0]->data;
    j.stats = c->aux;
    return gc_parallel(c->ctx, layer_back_task, &j, chunks(j.images, ROW_CHUNK));
}

const gc_op gc_ops_norm[] = {
    {"BatchNormalization", batch_infer, batch_forward, batch_backward, GC_OP_CL, 1u << 1 | 1u << 4, 0, 5, 5, 5},
    {"InstanceNormalization", instance_infer, instance_forward, instance_backward, GC_OP_CL, 3, 0, 3, 3, 1},
    {"LRN", lrn_infer, lrn_forward, lrn_backward, GC_OP_CL, 1, 0, 1, 1, 1},
    {"LayerNormalization", layer_infer, layer_forward, layer_backward, 0, 3, 0, 2, 3, 3},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
