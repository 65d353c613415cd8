/* SPDX-License-Identifier: MIT */
/* DeformConv (Dai 2017, with the masks of Zhu 2018), two-dimensional and
 * channels-last: the columns of an ordinary convolution, but every tap is read
 * between pixels at its place plus an offset and times a mask.
 *
 *   column[row][group][tap][channel] = mask * bilinear(x, place + tap + offset)
 *   y[row][group channels] = column[row][group] * weights^T + bias */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "kern/gemm.h"
#include "ops/op.h"
#include "ops/window.h"

enum { COLUMN_FLOATS = 1 << 18, SLICE = 32, ROW_CHUNK = 4 };

typedef struct deform {
    gc_window w;
    int64_t groups, offset_groups, in_c, out_c, in_g, out_g, depth; /* depth: taps * in_g */
    int64_t rows, block;                                            /* output pixels of all images; of one product */
    size_t gemm;                                                    /* floats of scratch */
    const float *x, *offset, *mask;                                 /* mask may be NULL */
    const float *gradient;                                          /* of the columns */
    float *columns;
    float *dx, *doffset, *dmask;
    int64_t first, count; /* the rows of this block */
} deform;

/* One tap of one row: four pixels (-1: outside), the weights of their
   interpolation, and how these change with y and x. */
typedef struct place {
    int64_t pixel[4];
    double weight[4], by_y[4], by_x[4];
    double mask;
    int64_t offset_at, mask_at;
} place;

/* ---- shapes ---- */

static gc_status check_input(gc_op_call *c, int32_t i, int32_t ndim, const int64_t *shape)
{
    const gc_tensor *t = i < c->n_in ? c->in[i] : NULL;
    if (t == NULL) {
        return GRADCAM_OK;
    }
    bool fits = t->dtype == GRADCAM_F32 && t->ndim == ndim;
    for (int32_t d = 0; fits && d < ndim; d++) {
        fits = t->shape[d] == shape[d];
    }
    if (!fits) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "input %d has another type or shape than the rest asks for", (int)i);
    }
    return GRADCAM_OK;
}

static gc_status read_shapes(gc_op_call *c, deform *s)
{
    for (int32_t i = 0; i < 3; i++) {
        GC_TRY(gc_op_need(c, i));
    }
    const gc_tensor *x = c->in[0], *w = c->in[1];
    s->groups = gc_attr_int(&c->attrs, "group", 1);
    s->offset_groups = gc_attr_int(&c->attrs, "offset_group", 1);
    if (x->dtype != GRADCAM_F32 || w->dtype != GRADCAM_F32 || x->ndim != 4 || w->ndim != 4) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "only float images [N, C, H, W] are supported");
    }
    s->in_c = x->shape[1];
    s->out_c = w->shape[0];
    s->in_g = w->shape[1];
    if (s->groups < 1 || s->offset_groups < 1 || s->in_g < 1 || s->out_c < 1 || s->in_c % s->groups != 0 ||
        s->in_c / s->groups != s->in_g || s->out_c % s->groups != 0 || s->in_c % s->offset_groups != 0) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "channels, weights, group and offset_group do not fit");
    }
    s->out_g = s->out_c / s->groups;
    return GRADCAM_OK;
}

static gc_status setup(gc_op_call *c, deform *s)
{
    memset(s, 0, sizeof *s);
    GC_TRY(read_shapes(c, s));
    const gc_tensor *x = c->in[0];
    GC_TRY(gc_window_read(c, 2, c->in[1]->shape + 2, &s->w));
    GC_TRY(gc_window_sizes(c, 4, x->shape, s->w.in));
    GC_TRY(gc_window_places(c, false, &s->w));
    GC_TRY(gc_window_count(c, x->shape[0], &s->w));
    int64_t maps = 0, wide = 0;
    if (!gc_mul_ok(s->offset_groups, s->w.taps, &maps) || maps > INT32_MAX || !gc_mul_ok(s->w.taps, s->in_c, &wide) ||
        wide > INT32_MAX || !gc_mul_ok(s->w.images, s->w.pixels_out, &s->rows) || s->rows > INT64_C(1) << 32) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    int64_t shape[4] = {s->w.images, 2 * maps, s->w.out[1], s->w.out[2]};
    GC_TRY(check_input(c, 2, 4, shape));
    shape[1] = maps;
    GC_TRY(check_input(c, 4, 4, shape));
    GC_TRY(check_input(c, 3, 1, &s->out_c));
    s->depth = s->w.taps * s->in_g;
    s->block = min64(s->rows, COLUMN_FLOATS / wide > 8 ? COLUMN_FLOATS / wide : 8);
    size_t a = gc_gemm_work(s->block, s->out_g, s->depth), b = gc_gemm_work(s->block, s->depth, s->out_g),
           d = gc_gemm_work(s->out_g, s->depth, s->block);
    s->gemm = a > b ? a : b;
    s->gemm = s->gemm > d ? s->gemm : d;
    s->x = x->data;
    s->offset = c->in[2]->data;
    s->mask = c->n_in > 4 && c->in[4] != NULL ? c->in[4]->data : NULL;
    return GRADCAM_OK;
}

/* Work: weights and their gradient as [out][taps][in_g], columns and their
   gradient, the products' own. */
static gc_status deform_infer(gc_op_call *c)
{
    deform s;
    int64_t weights = 0, columns = 0, bytes = 0;
    GC_TRY(setup(c, &s));
    if (!gc_mul_ok(s.out_c, 2 * s.depth, &weights) || !gc_mul_ok(s.block, 2 * s.w.taps * s.in_c, &columns) ||
        !gc_add_ok(weights, columns, &bytes) || !gc_add_ok(bytes, (int64_t)s.gemm, &bytes) ||
        !gc_mul_ok(bytes, (int64_t)sizeof(float), &bytes) || (uint64_t)bytes > SIZE_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    c->work_bytes = (size_t)bytes;
    int64_t shape[4] = {s.w.images, s.out_c, s.w.out[1], s.w.out[2]};
    return gc_op_set_output(c, 0, GRADCAM_F32, 4, shape);
}

/* ---- places ---- */

static place place_of(const deform *s, int64_t row, int64_t og, int64_t tap)
{
    place p;
    int64_t at[3], image = gc_window_split(s->w.out, row, at), pixel = at[1] * s->w.out[2] + at[2];
    int64_t map = (image * s->offset_groups + og) * s->w.taps + tap;
    p.offset_at = 2 * map * s->w.pixels_out + pixel;
    p.mask_at = map * s->w.pixels_out + pixel;
    p.mask = s->mask != NULL ? (double)s->mask[p.mask_at] : 1.0;
    double y = (double)(at[1] * s->w.stride[1] - s->w.pad_begin[1] + tap / s->w.kernel[2] * s->w.dilation[1]) +
               (double)s->offset[p.offset_at];
    double x = (double)(at[2] * s->w.stride[2] - s->w.pad_begin[2] + tap % s->w.kernel[2] * s->w.dilation[2]) +
               (double)s->offset[p.offset_at + s->w.pixels_out];
    /* false for what is no number, too */
    bool inside = y > -1.0 && x > -1.0 && y < (double)s->w.in[1] && x < (double)s->w.in[2];
    double fy = inside ? y - floor(y) : 0.0, fx = inside ? x - floor(x) : 0.0;
    for (int k = 0; k < 4; k++) {
        int64_t py = inside ? (int64_t)floor(y) + k / 2 : -1, px = inside ? (int64_t)floor(x) + k % 2 : -1;
        bool valid = py >= 0 && px >= 0 && py < s->w.in[1] && px < s->w.in[2];
        double wy = k / 2 == 0 ? 1.0 - fy : fy, wx = k % 2 == 0 ? 1.0 - fx : fx;
        p.pixel[k] = valid ? image * s->w.pixels_in + py * s->w.in[2] + px : -1;
        p.weight[k] = wy * wx;
        p.by_y[k] = k / 2 == 0 ? -wx : wx;
        p.by_x[k] = k % 2 == 0 ? -wy : wy;
    }
    return p;
}

/* Where channel ch of tap `tap` lies in the columns of a row. */
static int64_t column_at(const deform *s, int64_t row, int64_t ch, int64_t tap)
{
    return (((row - s->first) * s->groups + ch / s->in_g) * s->w.taps + tap) * s->in_g + ch % s->in_g;
}

/* ---- tasks ---- */

static void column_task(void *task, uint32_t chunk)
{
    const deform *s = task;
    int64_t from = s->first + (int64_t)chunk * ROW_CHUNK, to = min64(from + ROW_CHUNK, s->first + s->count);
    int64_t width = s->in_c / s->offset_groups;
    for (int64_t k = 0; k < (to - from) * s->offset_groups * s->w.taps; k++) {
        int64_t row = from + k / (s->offset_groups * s->w.taps), og = k / s->w.taps % s->offset_groups,
                tap = k % s->w.taps;
        place p = place_of(s, row, og, tap);
        for (int64_t ch = og * width; ch < (og + 1) * width; ch++) {
            double sum = 0.0;
            for (int i = 0; i < 4; i++) {
                sum += p.pixel[i] < 0 ? 0.0 : p.weight[i] * (double)s->x[p.pixel[i] * s->in_c + ch];
            }
            s->columns[column_at(s, row, ch, tap)] = (float)(sum * p.mask);
        }
    }
}

/* To the image: a task owns some channels of one offset group. */
static void image_task(void *task, uint32_t index)
{
    const deform *s = task;
    int64_t width = s->in_c / s->offset_groups, slices = (width + SLICE - 1) / SLICE, og = index / slices;
    int64_t c0 = og * width + index % slices * SLICE, c1 = min64(c0 + SLICE, (og + 1) * width);
    for (int64_t k = 0; k < s->count * s->w.taps; k++) {
        int64_t row = s->first + k / s->w.taps, tap = k % s->w.taps;
        place p = place_of(s, row, og, tap);
        for (int i = 0; i < 4; i++) {
            double w = p.weight[i] * p.mask;
            for (int64_t ch = c0; p.pixel[i] >= 0 && ch < c1; ch++) {
                s->dx[p.pixel[i] * s->in_c + ch] += (float)(w * (double)s->gradient[column_at(s, row, ch, tap)]);
            }
        }
    }
}

/* To offsets and masks: every row has its own. */
static void place_task(void *task, uint32_t chunk)
{
    const deform *s = task;
    int64_t from = s->first + (int64_t)chunk * ROW_CHUNK, to = min64(from + ROW_CHUNK, s->first + s->count);
    int64_t width = s->in_c / s->offset_groups;
    for (int64_t k = 0; k < (to - from) * s->offset_groups * s->w.taps; k++) {
        int64_t row = from + k / (s->offset_groups * s->w.taps), og = k / s->w.taps % s->offset_groups,
                tap = k % s->w.taps;
        place p = place_of(s, row, og, tap);
        double by_y = 0.0, by_x = 0.0, by_mask = 0.0;
        for (int64_t ch = og * width; ch < (og + 1) * width; ch++) {
            double g = (double)s->gradient[column_at(s, row, ch, tap)];
            for (int i = 0; i < 4; i++) {
                double v = p.pixel[i] < 0 ? 0.0 : g * (double)s->x[p.pixel[i] * s->in_c + ch];
                by_y += v * p.by_y[i];
                by_x += v * p.by_x[i];
                by_mask += v * p.weight[i];
            }
        }
        if (s->doffset != NULL) {
            s->doffset[p.offset_at] = (float)(by_y * p.mask);
            s->doffset[p.offset_at + s->w.pixels_out] = (float)(by_x * p.mask);
        }
        if (s->dmask != NULL) {
            s->dmask[p.mask_at] = (float)by_mask;
        }
    }
}

/* ---- forward and backward ---- */

/* [out][in_g][taps] to [out][taps][in_g], or back. */
static void permute_weights(const deform *s, const float *from, float *to, bool back)
{
    for (int64_t i = 0; i < s->out_c * s->depth; i++) {
        int64_t o = i / s->depth, tap = i % s->depth / s->in_g, k = i % s->in_g;
        int64_t onnx = o * s->depth + k * s->w.taps + tap;
        to[back ? onnx : i] = from[back ? i : onnx];
    }
}

static gc_status fill_columns(gc_op_call *c, deform *s, int64_t first)
{
    s->first = first;
    s->count = min64(s->block, s->rows - first);
    return gc_parallel(c->ctx, column_task, s, (uint32_t)((s->count + ROW_CHUNK - 1) / ROW_CHUNK));
}

static gc_status deform_forward(gc_op_call *c)
{
    deform s;
    GC_TRY(setup(c, &s));
    float *weights = c->work, *y = c->out[0]->data;
    s.columns = weights + 2 * s.out_c * s.depth;
    float *gemm = s.columns + 2 * s.block * s.w.taps * s.in_c;
    const gc_tensor *bias = c->n_in > 3 ? c->in[3] : NULL;
    permute_weights(&s, c->in[1]->data, weights, false);
    for (int64_t i = 0; i < s.rows * s.out_c; i++) {
        y[i] = bias != NULL ? ((const float *)bias->data)[i % s.out_c] : 0.0f;
    }
    for (int64_t first = 0; first < s.rows; first += s.block) {
        GC_TRY(fill_columns(c, &s, first));
        for (int64_t g = 0; g < s.groups; g++) {
            GC_TRY(gc_gemm(c->ctx, s.count, s.out_g, s.depth, s.columns + g * s.depth, s.groups * s.depth, 1,
                           weights + g * s.out_g * s.depth, 1, s.depth, 1.0f, y + first * s.out_c + g * s.out_g,
                           s.out_c, gemm));
        }
    }
    return GRADCAM_OK;
}

static float *gradient_of(const gc_op_call *c, int32_t i)
{
    return i < c->n_in && c->grad_in[i] != NULL && gc_numel(c->grad_in[i]) > 0 ? c->grad_in[i]->data : NULL;
}

/* The gradients of one block of rows; dcolumns is scratch, dweights a sum. */
static gc_status back_block(gc_op_call *c, deform *s, const float *weights, float *dweights, float *dcolumns,
                            float *gemm)
{
    const float *dy = (const float *)c->grad_out[0]->data + s->first * s->out_c;
    for (int64_t g = 0; g < s->groups; g++) {
        const float *dy_g = dy + g * s->out_g;
        GC_TRY(gc_gemm(c->ctx, s->count, s->depth, s->out_g, dy_g, s->out_c, 1, weights + g * s->out_g * s->depth,
                       s->depth, 1, 0.0f, dcolumns + g * s->depth, s->groups * s->depth, gemm));
        if (gradient_of(c, 1) != NULL) {
            GC_TRY(gc_gemm(c->ctx, s->out_g, s->depth, s->count, dy_g, 1, s->out_c, s->columns + g * s->depth,
                           s->groups * s->depth, 1, 1.0f, dweights + g * s->out_g * s->depth, s->depth, gemm));
        }
    }
    s->gradient = dcolumns;
    if (s->dx != NULL) {
        int64_t slices = (s->in_c / s->offset_groups + SLICE - 1) / SLICE;
        GC_TRY(gc_parallel(c->ctx, image_task, s, (uint32_t)(slices * s->offset_groups)));
    }
    if (s->doffset != NULL || s->dmask != NULL) {
        GC_TRY(gc_parallel(c->ctx, place_task, s, (uint32_t)((s->count + ROW_CHUNK - 1) / ROW_CHUNK)));
    }
    return GRADCAM_OK;
}

static void bias_gradient(const deform *s, const float *dy, float *db)
{
    for (int64_t k = 0; k < s->out_c; k++) {
        double sum = 0.0;
        for (int64_t r = 0; r < s->rows; r++) {
            sum += (double)dy[r * s->out_c + k];
        }
        db[k] = (float)sum;
    }
}

static gc_status deform_backward(gc_op_call *c)
{
    deform s;
    GC_TRY(setup(c, &s));
    float *weights = c->work, *dweights = weights + s.out_c * s.depth;
    s.columns = dweights + s.out_c * s.depth;
    float *dcolumns = s.columns + s.block * s.w.taps * s.in_c, *gemm = dcolumns + s.block * s.w.taps * s.in_c;
    s.dx = gradient_of(c, 0);
    s.doffset = gradient_of(c, 2);
    s.dmask = gradient_of(c, 4);
    permute_weights(&s, c->in[1]->data, weights, false);
    memset(dweights, 0, (size_t)(s.out_c * s.depth) * sizeof(float));
    if (s.dx != NULL) {
        memset(s.dx, 0, (size_t)gc_numel(c->grad_in[0]) * sizeof(float));
    }
    for (int64_t first = 0; first < s.rows; first += s.block) {
        GC_TRY(fill_columns(c, &s, first));
        GC_TRY(back_block(c, &s, weights, dweights, dcolumns, gemm));
    }
    if (gradient_of(c, 1) != NULL) {
        permute_weights(&s, dweights, gradient_of(c, 1), true);
    }
    if (gradient_of(c, 3) != NULL) {
        bias_gradient(&s, c->grad_out[0]->data, gradient_of(c, 3));
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_deform[] = {
    {"DeformConv", deform_infer, deform_forward, deform_backward, GC_OP_CL, 23, 0, 3, 5, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
