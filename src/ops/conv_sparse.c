/* SPDX-License-Identifier: MIT */
/* The gradient of a 1x1 convolution when most of grad_output is zero, as behind
   the pooling of a classifier that is a convolution: one class has a gradient,
   the other channels are dead. */
#include <string.h>

#include "base/size.h"
#include "base/status.h"
#include "ops/conv.h"

enum { ROW_CHUNK = 16, SPARSE = 64, SPAN = 64 };

typedef struct sparse_job {
    const gc_conv *v;
    const float *dy, *weights; /* weights [small_c][big_c] */
    float *dx;
    int64_t rows;
} sparse_job;

/* How many of n numbers, at most INT32_MAX, are not zero. */
static int32_t count_live(const float *x, int64_t n)
{
    int32_t live = 0;
    for (int64_t k = 0; k < n; k++) {
        live += x[k] != 0.0f;
    }
    return live;
}

bool gc_conv_may_be_sparse(const gc_conv *v)
{
    bool plain = v->groups == 1 && v->w.taps == 1;
    for (int i = 0; i < 3; i++) {
        plain = plain && v->w.stride[i] == 1 && v->w.pad_begin[i] == 0 && v->w.in[i] == v->w.out[i];
    }
    return plain;
}

typedef struct live_job {
    const float *dy;
    int64_t rows, channels;
    int32_t live; /* atomic */
    int32_t most;
} live_job;

/* Once it is known to be dense nobody counts on. */
static void live_task(void *task, uint32_t chunk)
{
    live_job *j = task;
    if (gc_atomic_add(&j->live, 0) > j->most) {
        return;
    }
    int64_t first = (int64_t)chunk * ROW_CHUNK, n = min64(ROW_CHUNK, j->rows - first) * j->channels;
    gc_atomic_add(&j->live, count_live(j->dy + first * j->channels, n));
}

gc_status gc_conv_is_sparse(const gc_op_call *c, const gc_conv *v, bool *sparse)
{
    live_job j = {c->grad_out[0]->data, v->w.images * v->w.pixels_out, v->small_c, 0, 0};
    *sparse = gc_conv_may_be_sparse(v) && gc_numel(c->grad_out[0]) <= INT32_MAX;
    if (*sparse) {
        j.most = (int32_t)(j.rows * j.channels / SPARSE);
        GC_TRY(gc_parallel(c->ctx, live_task, &j, (uint32_t)((j.rows + ROW_CHUNK - 1) / ROW_CHUNK)));
        *sparse = j.live <= j.most;
    }
    return GRADCAM_OK;
}

/* dx[pixel] = sum of dy[pixel][k] weights[k] over the live channels k. */
static void rows_task(void *task, uint32_t chunk)
{
    const sparse_job *j = task;
    int64_t in = j->v->big_c, out = j->v->small_c, first = (int64_t)chunk * ROW_CHUNK;
    for (int64_t r = first; r < min64(first + ROW_CHUNK, j->rows); r++) {
        const float *dy = j->dy + r * out;
        float *dx = j->dx + r * in;
        memset(dx, 0, (size_t)in * sizeof(float));
        for (int64_t k = 0, n; k < out; k += n) {
            n = min64(SPAN, out - k);
            if (count_live(dy + k, n) > 0) {
                j->v->kern->axpys(dy + k, 1, j->weights + k * in, in, n, in, dx);
            }
        }
    }
}

gc_status gc_conv_sparse_backward(const gc_op_call *c, const gc_conv *v)
{
    sparse_job j = {v, c->grad_out[0]->data, c->in[1]->data, c->grad_in[0]->data, v->w.images * v->w.pixels_out};
    return gc_parallel(c->ctx, rows_task, &j, (uint32_t)((j.rows + ROW_CHUNK - 1) / ROW_CHUNK));
}
