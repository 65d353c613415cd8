/* SPDX-License-Identifier: MIT */
/* Col2Im: adds overlapping blocks into an image (torch.nn.functional.fold, for
 * one to three dimensions).  The gradient takes the blocks out again. */
#include <string.h>

#include "base/size.h"
#include "ops/op.h"
#include "ops/window.h"

typedef struct col_job {
    gc_window w;      /* in: the image, out: the grid of blocks */
    int64_t channels; /* of all images */
    float *columns;   /* [channels][taps][places] */
    float *image;     /* [channels][pixels] */
    bool take;
} col_job;

static gc_status setup(gc_op_call *c, col_job *j)
{
    int64_t image[GRADCAM_MAX_DIMS], block[GRADCAM_MAX_DIMS], shape[5] = {1, 1, 1, 1, 1};
    int32_t n = 0, n_block = 0;
    memset(j, 0, sizeof *j);
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *x = c->in[0];
    GC_TRY(gc_op_const_ints(c, 1, image, GRADCAM_MAX_DIMS, &n));
    GC_TRY(gc_op_const_ints(c, 2, block, GRADCAM_MAX_DIMS, &n_block));
    if (x->dtype != GRADCAM_F32 || x->ndim != 3 || n != n_block || n < 1 || n > 3) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "needs float [N, C * block, L] and an image of 1 to 3 dimensions");
    }
    memcpy(shape + 2, image, (size_t)n * sizeof *image);
    GC_TRY(gc_window_read(c, n, block, &j->w));
    GC_TRY(gc_window_sizes(c, n + 2, shape, j->w.in));
    GC_TRY(gc_window_places(c, false, &j->w));
    GC_TRY(gc_window_count(c, x->shape[0], &j->w));
    if (x->shape[1] % j->w.taps != 0 || x->shape[2] != j->w.pixels_out) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "[%lld, %lld] is not a multiple of %lld block elements by %lld blocks",
                          (long long)x->shape[1], (long long)x->shape[2], (long long)j->w.taps,
                          (long long)j->w.pixels_out);
    }
    if (!gc_mul_ok(x->shape[0], x->shape[1] / j->w.taps, &j->channels) || j->channels > INT32_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    return GRADCAM_OK;
}

static gc_status col_infer(gc_op_call *c)
{
    col_job j;
    int64_t shape[GRADCAM_MAX_DIMS];
    GC_TRY(setup(c, &j));
    int32_t n = 3 - j.w.first;
    shape[0] = c->in[0]->shape[0];
    shape[1] = c->in[0]->shape[1] / j.w.taps;
    memcpy(shape + 2, j.w.in + j.w.first, (size_t)n * sizeof *shape);
    return gc_op_set_output(c, 0, GRADCAM_F32, n + 2, shape);
}

/* One channel: no two tasks touch one element. */
static void col_task(void *task, uint32_t channel)
{
    const col_job *j = task;
    float *image = j->image + channel * j->w.pixels_in;
    float *column = j->columns + channel * j->w.taps * j->w.pixels_out;
    for (int64_t tap = 0; tap < j->w.taps; tap++, column += j->w.pixels_out) {
        for (int64_t i = 0; i < j->w.pixels_out; i++) {
            int64_t place[3];
            (void)gc_window_split(j->w.out, i, place);
            int64_t pixel = gc_window_pixel(&j->w, place, tap);
            if (j->take) {
                column[i] = pixel >= 0 ? image[pixel] : 0.0f;
            } else if (pixel >= 0) {
                image[pixel] += column[i];
            }
        }
    }
}

static gc_status col_forward(gc_op_call *c)
{
    col_job j;
    GC_TRY(setup(c, &j));
    if (c->out[0] == NULL || gc_numel(c->out[0]) == 0) {
        return GRADCAM_OK;
    }
    j.columns = c->in[0]->data;
    j.image = c->out[0]->data;
    memset(j.image, 0, (size_t)gc_numel(c->out[0]) * sizeof(float));
    return gc_parallel(c->ctx, col_task, &j, (uint32_t)j.channels);
}

static gc_status col_backward(gc_op_call *c)
{
    col_job j;
    GC_TRY(setup(c, &j));
    if (c->grad_in[0] == NULL || gc_numel(c->grad_in[0]) == 0) {
        return GRADCAM_OK;
    }
    j.columns = c->grad_in[0]->data;
    j.image = c->grad_out[0]->data;
    j.take = true;
    return gc_parallel(c->ctx, col_task, &j, (uint32_t)j.channels);
}

const gc_op gc_ops_col2im[] = {
    {"Col2Im", col_infer, col_forward, col_backward, 0, 0, 0, 3, 3, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
