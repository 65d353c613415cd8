/* SPDX-License-Identifier: MIT */
/* LpPool and GlobalLpPool, channels-last: y = (sum |x|^p)^(1/p) over a window. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "ops/op.h"
#include "ops/window.h"

/* A forward task owns some rows, a backward task a slice of channels. */
enum { SLICE = 32, ROW_CHUNK = 16 };

typedef struct lp_job {
    gc_window w;
    int64_t channels, rows; /* rows: window places of all images */
    double p;
    const float *x, *y, *dy;
    float *out; /* forward: y; backward: dx */
} lp_job;

/* The image as one line: a global window needs no more, whatever the rank. */
static gc_status global_window(gc_op_call *c, gc_window *w)
{
    const gc_tensor *x = c->in[0];
    memset(w, 0, sizeof *w);
    for (int i = 0; i < 3; i++) {
        w->in[i] = w->out[i] = w->kernel[i] = w->stride[i] = w->dilation[i] = 1;
    }
    w->in[2] = w->kernel[2] = gc_shape_numel(x->ndim - 2, x->shape + 2);
    if (w->in[2] < 1 || w->in[2] > INT32_MAX) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the image is empty or too large");
    }
    return GRADCAM_OK;
}

static gc_status setup(gc_op_call *c, lp_job *j)
{
    memset(j, 0, sizeof *j);
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *x = c->in[0];
    if (x->dtype != GRADCAM_F32 || x->ndim < 3) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the input must be float of rank 3 or more");
    }
    if (strcmp(c->op_name, "GlobalLpPool") == 0) {
        GC_TRY(global_window(c, &j->w));
    } else {
        GC_TRY(gc_window_read(c, x->ndim - 2, NULL, &j->w));
        GC_TRY(gc_window_sizes(c, x->ndim, x->shape, j->w.in));
        GC_TRY(gc_window_places(c, gc_attr_int(&c->attrs, "ceil_mode", 0) != 0, &j->w));
    }
    GC_TRY(gc_window_count(c, x->shape[0], &j->w));
    int64_t p = gc_attr_int(&c->attrs, "p", 2);
    if (p < 1 || p > 1000) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "p = %lld", (long long)p);
    }
    j->p = (double)p;
    j->channels = x->shape[1];
    if (!gc_mul_ok(j->w.images, j->w.pixels_out, &j->rows) || j->rows / ROW_CHUNK >= INT32_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    return GRADCAM_OK;
}

static gc_status lp_infer(gc_op_call *c)
{
    lp_job j;
    int64_t shape[GRADCAM_MAX_DIMS];
    GC_TRY(setup(c, &j));
    for (int32_t i = 0; i < c->in[0]->ndim; i++) {
        shape[i] = i < 2 ? c->in[0]->shape[i] : 1;
    }
    for (int k = j.w.first; strcmp(c->op_name, "LpPool") == 0 && k < 3; k++) {
        shape[2 + k - j.w.first] = j.w.out[k];
    }
    return gc_op_set_output(c, 0, GRADCAM_F32, c->in[0]->ndim, shape);
}

static double power(double v, double p)
{
    return p == 1.0 ? v : p == 2.0 ? v * v : pow(v, p);
}

static void lp_row(const lp_job *j, int64_t row, int64_t c0, int64_t width)
{
    double sum[SLICE] = {0.0};
    int64_t place[3], image = gc_window_split(j->w.out, row, place);
    for (int64_t tap = 0; tap < j->w.taps; tap++) {
        int64_t pixel = gc_window_pixel(&j->w, place, tap);
        const float *x = j->x + (image * j->w.pixels_in + pixel) * j->channels + c0;
        for (int64_t k = 0; pixel >= 0 && k < width; k++) {
            sum[k] += power(fabs((double)x[k]), j->p);
        }
    }
    for (int64_t k = 0; k < width; k++) {
        j->out[row * j->channels + c0 + k] = (float)(j->p == 1.0   ? sum[k]
                                                     : j->p == 2.0 ? sqrt(sum[k])
                                                                   : pow(sum[k], 1.0 / j->p));
    }
}

static void lp_task(void *task, uint32_t chunk)
{
    const lp_job *j = task;
    int64_t first = (int64_t)chunk * ROW_CHUNK, last = min64(first + ROW_CHUNK, j->rows);
    for (int64_t row = first; row < last; row++) {
        for (int64_t c0 = 0; c0 < j->channels; c0 += SLICE) {
            lp_row(j, row, c0, min64(SLICE, j->channels - c0));
        }
    }
}

/* dx += dy sign(x) (|x| / y)^(p - 1), which is 0 in a window of zeros. */
static double slope(const lp_job *j, double x, double y)
{
    if (x == 0.0 || y == 0.0) {
        return 0.0;
    }
    return (x < 0.0 ? -1.0 : 1.0) * (j->p == 1.0 ? 1.0 : pow(fabs(x) / y, j->p - 1.0));
}

static void lp_back_task(void *task, uint32_t slice)
{
    const lp_job *j = task;
    int64_t n = j->channels, c0 = (int64_t)slice * SLICE, width = min64(SLICE, n - c0);
    for (int64_t row = 0; row < j->rows; row++) {
        int64_t place[3], image = gc_window_split(j->w.out, row, place);
        const float *y = j->y + row * n + c0, *dy = j->dy + row * n + c0;
        for (int64_t tap = 0; tap < j->w.taps; tap++) {
            int64_t pixel = gc_window_pixel(&j->w, place, tap);
            int64_t at = (image * j->w.pixels_in + pixel) * n + c0;
            for (int64_t k = 0; pixel >= 0 && k < width; k++) {
                j->out[at + k] += (float)((double)dy[k] * slope(j, (double)j->x[at + k], (double)y[k]));
            }
        }
    }
}

static gc_status lp_forward(gc_op_call *c)
{
    lp_job j;
    GC_TRY(setup(c, &j));
    j.x = c->in[0]->data;
    j.out = c->out[0]->data;
    return gc_parallel(c->ctx, lp_task, &j, (uint32_t)((j.rows + ROW_CHUNK - 1) / ROW_CHUNK));
}

static gc_status lp_backward(gc_op_call *c)
{
    lp_job j;
    GC_TRY(setup(c, &j));
    if (c->grad_in[0] == NULL || gc_numel(c->grad_in[0]) == 0) {
        return GRADCAM_OK;
    }
    j.x = c->in[0]->data;
    j.y = c->out[0]->data;
    j.dy = c->grad_out[0]->data;
    j.out = c->grad_in[0]->data;
    memset(j.out, 0, (size_t)gc_numel(c->grad_in[0]) * sizeof(float));
    return gc_parallel(c->ctx, lp_back_task, &j, (uint32_t)((j.channels + SLICE - 1) / SLICE));
}

const gc_op gc_ops_lppool[] = {
    {"LpPool", lp_infer, lp_forward, lp_backward, GC_OP_CL | GC_OP_POOLING, 1, 1, 1, 1, 1},
    {"GlobalLpPool", lp_infer, lp_forward, lp_backward, GC_OP_CL | GC_OP_POOLING, 1, 1, 1, 1, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
