/* SPDX-License-Identifier: MIT */
#include "ops/spatial_mean.h"

#include <string.h>

#include "base/size.h"
#include "kern/kern.h"

/* Pixels of a block, of a line if that is shorter but no few; channels that are
   put together at once. */
enum { BLOCK = 128, SHORT = 4, CHANNELS = 64, ROW_CHUNK = 16 };

typedef struct mean_job {
    const gc_kern *kern;
    int64_t images, pixels, channels;
    int64_t block, blocks; /* of pixels */
    const float *x;
    float *y;
    float *partial; /* [images][blocks][channels] */
} mean_job;

int64_t gc_spatial_mean_block(const gc_tensor *x)
{
    int64_t line = x->shape[x->ndim - 1];
    return line >= SHORT && line <= BLOCK ? line : BLOCK;
}

static void measure(const gc_tensor *x, mean_job *j)
{
    j->images = x->shape[0];
    j->channels = x->shape[1];
    j->pixels = gc_shape_numel(x->ndim - 2, x->shape + 2);
    j->block = gc_spatial_mean_block(x);
    j->blocks = (j->pixels + j->block - 1) / j->block;
}

bool gc_spatial_mean_fits(const gc_tensor *x, size_t *work_bytes)
{
    mean_job j;
    int64_t n;
    if (x->ndim < 3 || x->dtype != GRADCAM_F32) {
        return false;
    }
    measure(x, &j);
    bool fits = j.pixels >= 1 && j.pixels <= INT32_MAX && gc_mul_ok(j.images, j.pixels, &n) && n <= INT32_MAX &&
                gc_mul_ok(j.images * j.blocks, j.channels, &n) && n <= INT32_MAX;
    *work_bytes = fits ? (size_t)n * sizeof(float) : 0;
    return fits;
}

void gc_spatial_mean_sum(const gc_kern *kern, int64_t pixels, int64_t channels, const float *x, float *sum)
{
    static const float one = 1.0f;
    memset(sum, 0, (size_t)channels * sizeof *sum);
    kern->axpys(&one, 0, x, channels, pixels, channels, sum);
}

void gc_spatial_mean_join(int64_t blocks, int64_t pixels, int64_t channels, const float *sums, float *y)
{
    for (int64_t first = 0; first < channels; first += CHANNELS) {
        int64_t n = min64(CHANNELS, channels - first);
        double total[CHANNELS] = {0};
        for (int64_t b = 0; b < blocks; b++) {
            const float *sum = sums + b * channels + first;
            for (int64_t k = 0; k < n; k++) {
                total[k] += (double)sum[k];
            }
        }
        for (int64_t k = 0; k < n; k++) {
            y[first + k] = (float)(total[k] / (double)pixels);
        }
    }
}

static void sum_task(void *task, uint32_t index)
{
    const mean_job *j = task;
    int64_t first = index % j->blocks * j->block, image = index / j->blocks;
    gc_spatial_mean_sum(j->kern, min64(j->block, j->pixels - first), j->channels,
                        j->x + (image * j->pixels + first) * j->channels, j->partial + index * j->channels);
}

gc_status gc_spatial_mean_forward(gc_op_call *c)
{
    mean_job j;
    measure(c->in[0], &j);
    j.kern = gc_kern_of(c->ctx);
    j.x = c->in[0]->data;
    j.partial = c->work;
    j.y = c->out[0]->data;
    GC_TRY(gc_parallel(c->ctx, sum_task, &j, (uint32_t)(j.images * j.blocks)));
    for (int64_t i = 0; i < j.images; i++) {
        gc_spatial_mean_join(j.blocks, j.pixels, j.channels, j.partial + i * j.blocks * j.channels,
                             j.y + i * j.channels);
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
