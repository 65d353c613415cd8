/* SPDX-License-Identifier: MIT */
/* Gradients of a convolution to weights and bias that are computed values (a
 * kernel that another part of the network makes); plain loops. */
#include <string.h>

#include "base/size.h"
#include "ops/conv.h"

/* A task owns some channels of the small image. */
enum { CHANNELS = 16 };

typedef struct weight_job {
    const gc_conv *v;
    const float *big, *small;
    double *sum;    /* [small_c][taps][big_g] */
    float *dw;      /* [small_c][big_g][taps] */
    int64_t chunks; /* tasks per group */
} weight_job;

gc_status gc_conv_weight_scratch(gc_op_call *c, const gc_conv *v, int64_t *floats)
{
    int64_t n = 0;
    if (!gc_mul_ok(v->small_c, v->big_g, &n) || !gc_mul_ok(n, v->w.taps, &n) || !gc_mul_ok(n, 2, floats)) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    return GRADCAM_OK;
}

/* sum += small[row][s] * the pixels of the big image under the window. */
static void add_row(const weight_job *j, int64_t row, int64_t s0, int64_t s1, int64_t b0)
{
    const gc_conv *v = j->v;
    int64_t place[3], image = gc_window_split(v->w.out, row, place), depth = v->w.taps * v->big_g;
    for (int64_t tap = 0; tap < v->w.taps; tap++) {
        int64_t pixel = gc_window_pixel(&v->w, place, tap);
        const float *big = j->big + (image * v->w.pixels_in + pixel) * v->big_c + b0;
        for (int64_t s = s0; pixel >= 0 && s < s1; s++) {
            double g = (double)j->small[row * v->small_c + s], *sum = j->sum + s * depth + tap * v->big_g;
            for (int64_t b = 0; b < v->big_g; b++) {
                sum[b] += g * (double)big[b];
            }
        }
    }
}

static void weight_task(void *task, uint32_t index)
{
    const weight_job *j = task;
    const gc_conv *v = j->v;
    int64_t group = index / j->chunks, s0 = group * v->small_g + index % j->chunks * CHANNELS, s1 = s0 + CHANNELS;
    int64_t end = (group + 1) * v->small_g, depth = v->w.taps * v->big_g;
    s1 = s1 < end ? s1 : end;
    memset(j->sum + s0 * depth, 0, (size_t)((s1 - s0) * depth) * sizeof *j->sum);
    for (int64_t row = 0; row < v->w.images * v->w.pixels_out; row++) {
        add_row(j, row, s0, s1, group * v->big_g);
    }
    for (int64_t k = s0 * depth; k < s1 * depth; k++) {
        int64_t s = k / depth, tap = k % depth / v->big_g, b = k % v->big_g;
        j->dw[s * depth + b * v->w.taps + tap] = (float)j->sum[k];
    }
}

gc_status gc_conv_weight_gradient(gc_op_call *c, const gc_conv *v, const float *big, const float *small)
{
    weight_job j = {v, big, small, c->work, c->grad_in[1]->data, (v->small_g + CHANNELS - 1) / CHANNELS};
    int64_t tasks = j.chunks * v->groups; /* at most the channels of the small image */
    if (tasks > INT32_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too many channels");
    }
    return gc_parallel(c->ctx, weight_task, &j, (uint32_t)tasks);
}

void gc_conv_bias_gradient(const gc_op_call *c)
{
    const gc_tensor *dy = c->grad_out[0]; /* channels-last */
    int64_t channels = dy->shape[1], rows = channels > 0 ? gc_numel(dy) / channels : 0;
    for (int64_t k = 0; k < channels; k++) {
        double sum = 0.0;
        for (int64_t r = 0; r < rows; r++) {
            sum += (double)((const float *)dy->data)[r * channels + k];
        }
        ((float *)c->grad_in[2]->data)[k] = (float)sum;
    }
}
