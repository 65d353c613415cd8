/* SPDX-License-Identifier: MIT */
#include "ops/spatial_mean.h"

#include "base/size.h"

enum { SLICE = 32, BLOCK = 1024, ROW_CHUNK = 16 };

typedef struct mean_job {
    int64_t images, pixels, channels;
    int64_t slices, blocks; /* of channels, of pixels */
    const float *x;
    float *y;
    double *partial; /* [images][blocks][channels] */
} mean_job;

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void measure(const gc_tensor *x, mean_job *j)
{
    j->images = x->shape[0];
    j->channels = x->shape[1];
    j->pixels = gc_shape_numel(x->ndim - 2, x->shape + 2);
    j->slices = (j->channels + SLICE - 1) / SLICE;
    j->blocks = (j->pixels + BLOCK - 1) / BLOCK;
}

bool gc_spatial_mean_fits(const gc_tensor *x, size_t *work_bytes)
{
    mean_job j;
    int64_t n;
    if (x->ndim < 3 || x->dtype != GRADCAM_F32) {
        return false;
    }
    measure(x, &j);
    bool fits = j.pixels >= 1 && j.pixels <= INT32_MAX && gc_mul_ok(j.images, j.slices, &n) &&
                gc_mul_ok(n, j.blocks, &n) && n <= INT32_MAX && gc_mul_ok(j.images, j.pixels, &n) && n <= INT32_MAX &&
                gc_mul_ok(j.images * j.blocks, j.channels, &n) && n <= INT32_MAX;
    *work_bytes = fits ? (size_t)n * sizeof(double) : 0;
    return fits;
}

/* A slice of channels over a block of pixels. */
static void sum_task(void *task, uint32_t index)
{
    const mean_job *j = task;
    int64_t slice = index % j->slices, part = index / j->slices, block = part % j->blocks, image = part / j->blocks;
    int64_t first = block * BLOCK, count = min64(BLOCK, j->pixels - first), n = j->channels;
    int64_t k0 = slice * SLICE, width = min64(SLICE, n - k0);
    const float *x = j->x + (image * j->pixels + first) * n + k0;
    double sum[SLICE] = {0};
    if (width == SLICE) {
        for (int64_t p = 0; p < count; p++, x += n) {
            for (int64_t k = 0; k < SLICE; k++) {
                sum[k] += (double)x[k];
            }
        }
    } else {
        for (int64_t p = 0; p < count; p++, x += n) {
            for (int64_t k = 0; k < width; k++) {
                sum[k] += (double)x[k];
            }
        }
    }
    for (int64_t k = 0; k < width; k++) {
        j->partial[part * n + k0 + k] = sum[k];
    }
}

gc_status gc_spatial_mean_forward(gc_op_call *c)
{
    mean_job j;
    measure(c->in[0], &j);
    j.x = c->in[0]->data;
    j.partial = c->work;
    j.y = c->out[0]->data;
    GC_TRY(gc_parallel(c->ctx, sum_task, &j, (uint32_t)(j.images * j.blocks * j.slices)));
    for (int64_t i = 0; i < j.images * j.channels; i++) {
        const double *from = j.partial + i / j.channels * j.blocks * j.channels + i % j.channels;
        double sum = 0.0;
        for (int64_t block = 0; block < j.blocks; block++) {
            sum += from[block * j.channels];
        }
        j.y[i] = (float)(sum / (double)j.pixels);
    }
    return GRADCAM_OK;
}

static void spread_task(void *task, uint32_t index)
{
    const mean_job *j = task;
    int64_t first = (int64_t)index * ROW_CHUNK, last = min64(first + ROW_CHUNK, j->images * j->pixels), n = j->channels;
    float factor = 1.0f / (float)j->pixels;
    for (int64_t p = first; p < last; p++) {
        const float *restrict dy = j->x + p / j->pixels * n;
        float *restrict dx = j->y + p * n;
        for (int64_t k = 0; k < n; k++) {
            dx[k] = dy[k] * factor;
        }
    }
}

gc_status gc_spatial_mean_backward(gc_op_call *c)
{
    mean_job j;
    measure(c->in[0], &j);
    j.x = c->grad_out[0]->data;
    j.y = c->grad_in[0]->data;
    return gc_parallel(c->ctx, spread_task, &j, (uint32_t)((j.images * j.pixels + ROW_CHUNK - 1) / ROW_CHUNK));
}
