/* SPDX-License-Identifier: MIT */
/* DFT, STFT and the windows for them.  The transform is the plain sum with a
 * table of twiddle factors: O(n^2), exact, any length. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "ops/op.h"

static const double two_pi = 6.28318530717958647692;

/* ---- the transform ---- */

/* y[k] = scale sum_t x[t] exp(sign i 2 pi k t / n), complex or real input. */
typedef struct transform {
    int64_t n;           /* period */
    int64_t times, bins; /* of x and y */
    int64_t parts;       /* of an element of x: 1 real, 2 complex */
    double sign, scale;
    const double *table; /* cos and sin of 2 pi j / n */
} transform;

static void fill_table(double *table, int64_t n)
{
    for (int64_t j = 0; j < n; j++) {
        table[2 * j] = cos(two_pi * (double)j / (double)n);
        table[2 * j + 1] = sin(two_pi * (double)j / (double)n);
    }
}

/* One output: the sum of `count` elements of `parts` parts, `step` floats
   apart, with phases 0, k, 2 k ... */
static void sum_phases(const transform *f, double sign, const float *x, int64_t step, int64_t parts, int64_t count,
                       int64_t k, double *re, double *im)
{
    int64_t phase = 0;
    *re = *im = 0.0;
    for (int64_t t = 0; t < count; t++, x += step) {
        double c = f->table[2 * phase], s = sign * f->table[2 * phase + 1];
        double a = (double)x[0], b = parts == 2 ? (double)x[1] : 0.0;
        *re += a * c - b * s;
        *im += a * s + b * c;
        phase += k;
        phase -= phase >= f->n ? f->n : 0;
    }
}

static void transform_forward(const transform *f, const float *x, int64_t x_step, float *y, int64_t y_step)
{
    for (int64_t k = 0; k < f->bins; k++, y += y_step) {
        double re, im;
        sum_phases(f, f->sign, x, x_step, f->parts, f->times, k % f->n, &re, &im);
        y[0] = (float)(f->scale * re);
        y[1] = (float)(f->scale * im);
    }
}

/* The adjoint: opposite phases; a real input takes the real part. */
static void transform_backward(const transform *f, const float *dy, int64_t y_step, float *dx, int64_t x_step)
{
    for (int64_t t = 0; t < f->times; t++, dx += x_step) {
        double re, im;
        sum_phases(f, -f->sign, dy, y_step, 2, f->bins, t % f->n, &re, &im);
        dx[0] = (float)(f->scale * re);
        if (f->parts == 2) {
            dx[1] = (float)(f->scale * im);
        }
    }
}

/* Bytes of the table, and a bound on n that keeps phases exact. */
static gc_status check_length(gc_op_call *c, int64_t n, size_t *bytes)
{
    if (n < 1 || n > INT32_MAX || (uint64_t)n > SIZE_MAX / (2 * sizeof(double))) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "a length of %lld is not possible", (long long)n);
    }
    *bytes = (size_t)n * 2 * sizeof(double);
    return GRADCAM_OK;
}

/* ---- DFT: [outer][times][inner][parts] to [outer][bins][inner][2] ---- */

typedef struct dft {
    transform f;
    int32_t axis;
    int64_t given; /* length of the axis; beyond n it is cut, below n padded */
    int64_t outer, inner;
    const float *from;
    float *to;
} dft;

static gc_status dft_setup(gc_op_call *c, dft *d, size_t *bytes)
{
    int64_t axis = c->opset < 20 ? gc_attr_int(&c->attrs, "axis", 1) : -2, length = 0;
    int32_t count = -1;
    memset(d, 0, sizeof *d);
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *x = c->in[0];
    GC_TRY(gc_op_ints(c, "", 2, &axis, 1, &count));
    GC_TRY(gc_op_axis(c, axis, x->ndim, &d->axis));
    if (x->dtype != GRADCAM_F32 || d->axis == x->ndim - 1 || x->shape[x->ndim - 1] < 1 || x->shape[x->ndim - 1] > 2) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the input must be float, its last dimension the 1 or 2 parts");
    }
    GC_TRY(gc_op_ints(c, "", 1, &length, 1, &count));
    d->given = x->shape[d->axis];
    d->f.n = count == 1 ? length : d->given;
    GC_TRY(check_length(c, d->f.n, bytes));
    bool inverse = gc_attr_int(&c->attrs, "inverse", 0) != 0, half = gc_attr_int(&c->attrs, "onesided", 0) != 0;
    if (inverse && half) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "inverse together with onesided");
    }
    d->f.times = d->given < d->f.n ? d->given : d->f.n;
    d->f.bins = half ? d->f.n / 2 + 1 : d->f.n;
    d->f.parts = x->shape[x->ndim - 1];
    d->f.sign = inverse ? 1.0 : -1.0;
    d->f.scale = inverse ? 1.0 / (double)d->f.n : 1.0;
    d->outer = gc_shape_numel(d->axis, x->shape);
    d->inner = gc_shape_numel(x->ndim - d->axis - 2, x->shape + d->axis + 1);
    if (d->inner > 0 && d->outer > INT32_MAX / d->inner) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too many signals");
    }
    return GRADCAM_OK;
}

static gc_status dft_infer(gc_op_call *c)
{
    dft d;
    int64_t shape[GRADCAM_MAX_DIMS];
    GC_TRY(dft_setup(c, &d, &c->work_bytes));
    memcpy(shape, c->in[0]->shape, sizeof shape);
    shape[d.axis] = d.f.bins;
    shape[c->in[0]->ndim - 1] = 2;
    return gc_op_set_output(c, 0, GRADCAM_F32, c->in[0]->ndim, shape);
}

static void dft_task(void *task, uint32_t index)
{
    const dft *d = task;
    int64_t o = index / d->inner, i = index % d->inner, x_step = d->inner * d->f.parts, y_step = d->inner * 2;
    transform_forward(&d->f, d->from + o * d->given * x_step + i * d->f.parts, x_step,
                      d->to + o * d->f.bins * y_step + i * 2, y_step);
}

static void dft_back_task(void *task, uint32_t index)
{
    const dft *d = task;
    int64_t o = index / d->inner, i = index % d->inner, x_step = d->inner * d->f.parts, y_step = d->inner * 2;
    transform_backward(&d->f, d->from + o * d->f.bins * y_step + i * 2, y_step,
                       d->to + o * d->given * x_step + i * d->f.parts, x_step);
}

static gc_status dft_forward(gc_op_call *c)
{
    dft d;
    size_t bytes = 0;
    GC_TRY(dft_setup(c, &d, &bytes));
    fill_table(c->work, d.f.n);
    d.f.table = c->work;
    d.from = c->in[0]->data;
    d.to = c->out[0]->data;
    return gc_parallel(c->ctx, dft_task, &d, (uint32_t)(d.outer * d.inner));
}

static gc_status dft_backward(gc_op_call *c)
{
    dft d;
    size_t bytes = 0;
    gc_tensor *gx = c->grad_in[0];
    GC_TRY(dft_setup(c, &d, &bytes));
    if (gx == NULL || gc_numel(gx) == 0) {
        return GRADCAM_OK;
    }
    memset(gx->data, 0, (size_t)gc_numel(gx) * sizeof(float)); /* beyond n nothing arrives */
    fill_table(c->work, d.f.n);
    d.f.table = c->work;
    d.from = c->grad_out[0]->data;
    d.to = gx->data;
    return gc_parallel(c->ctx, dft_back_task, &d, (uint32_t)(d.outer * d.inner));
}

/* ---- STFT: frames of the signal, times the window, transformed ---- */

typedef struct stft {
    transform f;
    int64_t batches, length, step, frames;
    const float *signal, *window; /* window NULL: ones */
    float *to;
    float *scratch; /* one frame for every task */
} stft;

static gc_status stft_setup(gc_op_call *c, stft *s, size_t *bytes)
{
    int64_t n = 0, step = 0;
    int32_t given = -1, count = 0;
    memset(s, 0, sizeof *s);
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    const gc_tensor *x = c->in[0], *window = c->n_in > 2 ? c->in[2] : NULL;
    GC_TRY(gc_op_const_ints(c, 1, &step, 1, &count));
    GC_TRY(gc_op_ints(c, "", 3, &n, 1, &given));
    s->f.n = given == 1 ? n : window != NULL && window->ndim == 1 ? window->shape[0] : 0;
    GC_TRY(check_length(c, s->f.n, bytes));
    bool parts = x->ndim == 2 || (x->ndim == 3 && (x->shape[2] == 1 || x->shape[2] == 2));
    if (x->dtype != GRADCAM_F32 || !parts || count != 1 || step < 1 || x->shape[1] < s->f.n) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "needs a float signal [N, L] or [N, L, 1 or 2] of a frame or more");
    }
    if (window != NULL && (window->dtype != GRADCAM_F32 || window->ndim != 1 || window->shape[0] != s->f.n)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the window must be float and as long as a frame");
    }
    s->batches = x->shape[0];
    s->length = x->shape[1];
    s->step = step;
    s->frames = (s->length - s->f.n) / step + 1;
    s->f.times = s->f.n;
    s->f.bins = gc_attr_int(&c->attrs, "onesided", 1) != 0 ? s->f.n / 2 + 1 : s->f.n;
    s->f.parts = x->ndim == 3 ? x->shape[2] : 1;
    s->f.sign = -1.0;
    s->f.scale = 1.0;
    s->signal = x->data;
    s->window = window != NULL ? window->data : NULL;
    if (s->batches > 0 && s->frames > INT32_MAX / s->batches) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too many frames");
    }
    return GRADCAM_OK;
}

/* Work: the table, a frame for every signal, the sums of the window's gradient. */
static gc_status stft_infer(gc_op_call *c)
{
    stft s;
    int64_t frames = 0;
    GC_TRY(stft_setup(c, &s, &c->work_bytes));
    if (!gc_mul_ok(s.batches + 2, 2 * s.f.n * (int64_t)sizeof(float), &frames) ||
        (uint64_t)frames > SIZE_MAX - c->work_bytes) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    c->work_bytes += (size_t)frames;
    int64_t shape[4] = {s.batches, s.frames, s.f.bins, 2};
    return gc_op_set_output(c, 0, GRADCAM_F32, 4, shape);
}

static void stft_task(void *task, uint32_t batch)
{
    const stft *s = task;
    float *frame = s->scratch + (int64_t)batch * s->f.n * 2;
    for (int64_t k = 0; k < s->frames; k++) {
        const float *x = s->signal + (batch * s->length + k * s->step) * s->f.parts;
        for (int64_t i = 0; i < s->f.n * s->f.parts; i++) {
            frame[i] = x[i] * (s->window != NULL ? s->window[i / s->f.parts] : 1.0f);
        }
        transform_forward(&s->f, frame, s->f.parts, s->to + (batch * s->frames + k) * s->f.bins * 2, 2);
    }
}

static gc_status stft_forward(gc_op_call *c)
{
    stft s;
    size_t bytes = 0;
    GC_TRY(stft_setup(c, &s, &bytes));
    fill_table(c->work, s.f.n);
    s.f.table = c->work;
    s.scratch = (float *)(void *)((double *)c->work + 2 * s.f.n);
    s.to = c->out[0]->data;
    return gc_parallel(c->ctx, stft_task, &s, (uint32_t)s.batches);
}

/* One frame of grad_output: to the signal, and to the sums of the window. */
static void stft_back_frame(const stft *s, const float *dy, int64_t at, float *frame, float *dx, double *dw)
{
    transform_backward(&s->f, dy, 2, frame, s->f.parts);
    for (int64_t i = 0; i < s->f.n * s->f.parts; i++) {
        int64_t t = i / s->f.parts;
        if (dx != NULL) {
            dx[at + i] += frame[i] * (s->window != NULL ? s->window[t] : 1.0f);
        }
        if (dw != NULL) {
            dw[t] += (double)frame[i] * (double)s->signal[at + i];
        }
    }
}

static gc_status stft_backward(gc_op_call *c)
{
    stft s;
    size_t bytes = 0;
    gc_tensor *gx = c->grad_in[0], *gw = c->n_in > 2 ? c->grad_in[2] : NULL;
    GC_TRY(stft_setup(c, &s, &bytes));
    fill_table(c->work, s.f.n);
    s.f.table = c->work;
    double *sums = (double *)c->work + 2 * s.f.n;
    float *frame = (float *)(void *)(sums + s.f.n), *dx = gx != NULL ? gx->data : NULL;
    if (dx != NULL) {
        memset(dx, 0, (size_t)gc_numel(gx) * sizeof *dx);
    }
    memset(sums, 0, (size_t)s.f.n * sizeof *sums);
    for (int64_t k = 0; k < s.batches * s.frames; k++) {
        int64_t at = (k / s.frames * s.length + k % s.frames * s.step) * s.f.parts;
        stft_back_frame(&s, (const float *)c->grad_out[0]->data + k * s.f.bins * 2, at, frame, dx,
                        gw != NULL ? sums : NULL);
    }
    for (int64_t t = 0; gw != NULL && t < s.f.n; t++) {
        ((float *)gw->data)[t] = (float)sums[t];
    }
    return GRADCAM_OK;
}

/* ---- windows: a0 - a1 cos(2 pi t / n) + a2 cos(4 pi t / n) ---- */

static gc_status window_infer(gc_op_call *c)
{
    int64_t size = 0;
    int32_t n = 0;
    int64_t type = gc_attr_int(&c->attrs, "output_datatype", 1); /* of TensorProto.DataType */
    GC_TRY(gc_op_const_ints(c, 0, &size, 1, &n));
    if (type != 1 && type != 10 && type != 11 && type != 16) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "only a window of floats is supported");
    }
    if (n != 1 || size < 0 || size > INT32_MAX) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "a window of %lld is not possible", (long long)size);
    }
    return gc_op_set_output(c, 0, GRADCAM_F32, 1, &size);
}

static gc_status window_forward(gc_op_call *c)
{
    static const double hann[3] = {0.5, 0.5, 0.0}, hamming[3] = {25.0 / 46.0, 21.0 / 46.0, 0.0},
                        blackman[3] = {0.42, 0.5, 0.08};
    const double *a = strcmp(c->op_name, "HannWindow") == 0      ? hann
                      : strcmp(c->op_name, "HammingWindow") == 0 ? hamming
                                                                 : blackman;
    int64_t size = gc_numel(c->out[0]), n = gc_attr_int(&c->attrs, "periodic", 1) != 0 ? size : size - 1;
    for (int64_t t = 0; t < size; t++) {
        double x = n > 0 ? two_pi * (double)t / (double)n : two_pi / 2.0; /* one point is the crest */
        ((float *)c->out[0]->data)[t] = (float)(a[0] - a[1] * cos(x) + a[2] * cos(2.0 * x));
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_signal[] = {
    {"DFT", dft_infer, dft_forward, dft_backward, 0, 0, 0, 1, 3, 1},
    {"STFT", stft_infer, stft_forward, stft_backward, 0, 5, 0, 2, 4, 1},
    {"HannWindow", window_infer, window_forward, NULL, GC_OP_STOPS, 0, 0, 1, 1, 1},
    {"HammingWindow", window_infer, window_forward, NULL, GC_OP_STOPS, 0, 0, 1, 1, 1},
    {"BlackmanWindow", window_infer, window_forward, NULL, GC_OP_STOPS, 0, 0, 1, 1, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
