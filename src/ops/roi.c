/* SPDX-License-Identifier: MIT */
/* RoiAlign (He 2017) and MaxRoiPool (Girshick 2015), channels-last.  Gradients
 * go to the image only: the boxes are data that other code chose. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "ops/op.h"
#include "ops/window.h"

/* A forward task owns some rows, a backward task a slice of channels. */
enum { SLICE = 32, ROW_CHUNK = 16, MOST_SAMPLES = 16384 };

/* Where the largest value of an output came from. */
typedef struct winner {
    int32_t pixel; /* within the image, -1: none */
    float weight;
} winner;

typedef struct roi_job {
    int64_t height, width, images, channels;
    int64_t out_h, out_w, rois, columns; /* columns of the boxes: 4, or 5 with the image in front */
    double scale, offset;
    int64_t sampling;
    bool align, max, clamp; /* clamp: boxes are at least one pixel wide */
    const float *boxes;
    const gc_tensor *batch;
    float *image; /* x or its gradient */
    float *y;     /* output or its gradient */
    winner *won;
} roi_job;

/* The samples of one output along one axis: first, step, count. */
typedef struct samples {
    double first, step;
    int64_t count;
} samples;

/* ---- attributes and shapes ---- */

static gc_status read_attributes(gc_op_call *c, roi_job *j)
{
    const char *mode = gc_attr_string(&c->attrs, "mode", "avg");
    const char *grid = gc_attr_string(&c->attrs, "coordinate_transformation_mode",
                                      c->opset < 16 ? "output_half_pixel" : "half_pixel");
    bool half = strcmp(grid, "half_pixel") == 0;
    const gc_attr_value *shape = gc_attr_find(&c->attrs, "pooled_shape", GRADCAM_ATTR_INTS);
    j->align = strcmp(c->op_name, "RoiAlign") == 0;
    j->max = !j->align || strcmp(mode, "max") == 0;
    if (j->align && ((!half && strcmp(grid, "output_half_pixel") != 0) || (!j->max && strcmp(mode, "avg") != 0))) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "unknown mode '%.40s' or '%.40s'", mode, grid);
    }
    if (!j->align && (shape == NULL || shape->count != 2)) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "pooled_shape must have two entries");
    }
    j->out_h = j->align ? gc_attr_int(&c->attrs, "output_height", 1) : shape->ints[0];
    j->out_w = j->align ? gc_attr_int(&c->attrs, "output_width", 1) : shape->ints[1];
    j->scale = (double)gc_attr_float(&c->attrs, "spatial_scale", 1.0F);
    j->offset = half ? 0.5 : 0.0;
    j->clamp = !half;
    j->sampling = gc_attr_int(&c->attrs, "sampling_ratio", 0);
    j->columns = j->align ? 4 : 5;
    if (j->out_h < 1 || j->out_w < 1 || j->out_h > INT32_MAX || j->out_w > INT32_MAX || j->sampling > MOST_SAMPLES) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "an output of %lld x %lld or a sampling_ratio of %lld is not possible",
                          (long long)j->out_h, (long long)j->out_w, (long long)j->sampling);
    }
    return GRADCAM_OK;
}

static gc_status setup(gc_op_call *c, roi_job *j)
{
    int64_t size[3] = {1, 1, 1};
    memset(j, 0, sizeof *j);
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    const gc_tensor *x = c->in[0], *boxes = c->in[1];
    GC_TRY(read_attributes(c, j));
    if (x->dtype != GRADCAM_F32 || x->ndim != 4 || boxes->dtype != GRADCAM_F32 || boxes->ndim != 2 ||
        boxes->shape[1] != j->columns) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "needs a float image [N, C, H, W] and float boxes [R, %d]",
                          (int)j->columns);
    }
    GC_TRY(gc_window_sizes(c, 4, x->shape, size));
    if (j->align) {
        GC_TRY(gc_op_need(c, 2));
        j->batch = c->in[2];
        if (j->batch->dtype != GRADCAM_I64 || j->batch->ndim != 1 || j->batch->shape[0] != boxes->shape[0]) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "batch_indices must be int64 and one for each box");
        }
    }
    j->height = size[1];
    j->width = size[2];
    j->images = x->shape[0];
    j->channels = x->shape[1];
    j->rois = boxes->shape[0];
    j->boxes = boxes->data;
    if (j->height > INT32_MAX / j->width || j->rois > INT32_MAX / j->out_h / j->out_w || j->channels > INT32_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    return GRADCAM_OK;
}

static gc_status roi_infer(gc_op_call *c)
{
    roi_job j;
    GC_TRY(setup(c, &j));
    int64_t shape[4] = {j.rois, j.channels, j.out_h, j.out_w}, n = gc_shape_numel(4, shape);
    if (n < 0 || (uint64_t)n > SIZE_MAX / sizeof(winner)) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    c->aux_bytes = j.max ? (size_t)n * sizeof(winner) : 0;
    return gc_op_set_output(c, 0, GRADCAM_F32, 4, shape);
}

/* ---- geometry ---- */

static int64_t image_of(const roi_job *j, int64_t roi)
{
    return j->align ? ((const int64_t *)j->batch->data)[roi] : (int64_t)j->boxes[roi * j->columns];
}

/* Extent of a box along an axis (0: x, 1: y) in pixels of the feature map. */
static void extent(const roi_job *j, int64_t roi, int axis, double *from, double *length)
{
    const float *box = j->boxes + roi * j->columns + j->columns - 4;
    *from = (double)box[axis] * j->scale - j->offset;
    *length = (double)box[axis + 2] * j->scale - j->offset - *from;
    if (j->clamp && *length < 1.0) {
        *length = 1.0;
    }
}

static samples samples_of(const roi_job *j, int64_t roi, int axis, int64_t cell)
{
    double from, length, cells = (double)(axis == 0 ? j->out_w : j->out_h);
    samples s;
    extent(j, roi, axis, &from, &length);
    double bin = length / cells, count = j->sampling > 0 ? (double)j->sampling : ceil(bin);
    s.count = count > 0.0 ? (int64_t)count : 0;
    s.step = s.count > 0 ? bin / count : 0.0;
    s.first = from + (double)cell * bin + 0.5 * s.step;
    return s;
}

/* Boxes are untrusted data: they name an image, and give a bounded number of
   samples. */
static gc_status check_boxes(gc_op_call *c, const roi_job *j)
{
    for (int64_t r = 0; r < j->rois; r++) {
        const float *box = j->boxes + r * j->columns;
        bool fine = true;
        for (int64_t k = 0; k < j->columns; k++) {
            fine = fine && fabs((double)box[k] * j->scale) < 1e9 && fabs((double)box[k]) < 1e9;
        }
        for (int axis = 0; fine && axis < 2; axis++) {
            double from, length, cells = (double)(axis == 0 ? j->out_w : j->out_h);
            extent(j, r, axis, &from, &length);
            fine = length / cells <= (double)MOST_SAMPLES;
        }
        if (!fine || image_of(j, r) < 0 || image_of(j, r) >= j->images) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "box %lld is too large, no number or of no image", (long long)r);
        }
    }
    return GRADCAM_OK;
}

/* Two neighbours of a sample and their weights; false: outside. */
static bool between(double at, int64_t size, int64_t *low, int64_t *high, double *weight_high)
{
    if (at < -1.0 || at > (double)size) {
        return false;
    }
    at = at < 0.0 ? 0.0 : at;
    *low = (int64_t)at;
    if (*low >= size - 1) {
        *low = *high = size - 1;
        *weight_high = 0.0;
        return true;
    }
    *high = *low + 1;
    *weight_high = at - (double)*low;
    return true;
}

/* The four pixels of one sample; outside, all weights are 0. */
static void corners(const roi_job *j, double y, double x, int64_t *pixel, float *weight)
{
    int64_t y0 = 0, y1 = 0, x0 = 0, x1 = 0;
    double wy = 0.0, wx = 0.0;
    bool inside = between(y, j->height, &y0, &y1, &wy) && between(x, j->width, &x0, &x1, &wx);
    for (int k = 0; k < 4; k++) {
        pixel[k] = inside ? (k < 2 ? y0 : y1) * j->width + (k % 2 == 0 ? x0 : x1) : 0;
        weight[k] = inside ? (float)((k < 2 ? 1.0 - wy : wy) * (k % 2 == 0 ? 1.0 - wx : wx)) : 0.0f;
    }
}

/* ---- RoiAlign ---- */

typedef void (*sample_fn)(const roi_job *j, int64_t row, int64_t c0, int64_t width, int64_t pixel, float weight);

/* Calls fn for every pixel that output `row` reads. */
static void each_sample(const roi_job *j, int64_t row, int64_t c0, int64_t width, sample_fn fn)
{
    int64_t roi = row / (j->out_h * j->out_w);
    samples v = samples_of(j, roi, 1, row / j->out_w % j->out_h), h = samples_of(j, roi, 0, row % j->out_w);
    float share = j->max || v.count * h.count == 0 ? 1.0f : 1.0f / (float)(v.count * h.count);
    for (int64_t iy = 0; iy < v.count; iy++) {
        for (int64_t ix = 0; ix < h.count; ix++) {
            int64_t pixel[4];
            float weight[4];
            corners(j, v.first + (double)iy * v.step, h.first + (double)ix * h.step, pixel, weight);
            for (int k = 0; k < 4; k++) {
                fn(j, row, c0, width, pixel[k], weight[k] * share);
            }
        }
    }
}

static float *pixel_at(const roi_job *j, int64_t row, int64_t pixel)
{
    int64_t image = image_of(j, row / (j->out_h * j->out_w));
    return j->image + (image * j->height * j->width + pixel) * j->channels;
}

static void add_sample(const roi_job *j, int64_t row, int64_t c0, int64_t width, int64_t pixel, float weight)
{
    const float *x = pixel_at(j, row, pixel) + c0;
    float *y = j->y + row * j->channels + c0;
    for (int64_t k = 0; k < width; k++) {
        y[k] += weight * x[k];
    }
}

/* The largest weighted corner of all samples, as ONNX defines it. */
static void max_sample(const roi_job *j, int64_t row, int64_t c0, int64_t width, int64_t pixel, float weight)
{
    const float *x = pixel_at(j, row, pixel) + c0;
    float *y = j->y + row * j->channels + c0;
    winner *won = j->won + row * j->channels + c0;
    for (int64_t k = 0; k < width; k++) {
        float v = weight * x[k];
        if (won[k].pixel < 0 || v > y[k]) {
            winner w = {(int32_t)pixel, weight};
            y[k] = v;
            won[k] = w;
        }
    }
}

static void back_sample(const roi_job *j, int64_t row, int64_t c0, int64_t width, int64_t pixel, float weight)
{
    float *dx = pixel_at(j, row, pixel) + c0;
    const float *dy = j->y + row * j->channels + c0;
    for (int64_t k = 0; k < width; k++) {
        dx[k] += weight * dy[k];
    }
}

/* ---- MaxRoiPool ---- */

/* The pixels of one cell along an axis, rounded outwards. */
static void cell_pixels(const roi_job *j, int64_t roi, int axis, int64_t cell, int64_t *from, int64_t *to)
{
    const float *box = j->boxes + roi * j->columns + 1;
    double start = round((double)box[axis] * j->scale), end = round((double)box[axis + 2] * j->scale);
    double length = end - start + 1.0 > 1.0 ? end - start + 1.0 : 1.0;
    double size = (double)(axis == 0 ? j->width : j->height);
    double bin = length / (double)(axis == 0 ? j->out_w : j->out_h);
    double low = floor((double)cell * bin) + start, high = ceil((double)(cell + 1) * bin) + start;
    *from = (int64_t)(low < 0.0 ? 0.0 : low > size ? size : low);
    *to = (int64_t)(high < 0.0 ? 0.0 : high > size ? size : high);
}

static void pool_row(const roi_job *j, int64_t row)
{
    int64_t roi = row / (j->out_h * j->out_w), y0, y1, x0, x1;
    cell_pixels(j, roi, 1, row / j->out_w % j->out_h, &y0, &y1);
    cell_pixels(j, roi, 0, row % j->out_w, &x0, &x1);
    for (int64_t y = y0; y < y1; y++) {
        for (int64_t x = x0; x < x1; x++) {
            max_sample(j, row, 0, j->channels, y * j->width + x, 1.0f);
        }
    }
}

/* ---- tasks ---- */

static void forward_task(void *task, uint32_t chunk)
{
    const roi_job *j = task;
    int64_t first = (int64_t)chunk * ROW_CHUNK, last = min64(first + ROW_CHUNK, j->rois * j->out_h * j->out_w);
    for (int64_t row = first; row < last; row++) {
        memset(j->y + row * j->channels, 0, (size_t)j->channels * sizeof *j->y);
        for (int64_t k = 0; j->max && k < j->channels; k++) {
            j->won[row * j->channels + k].pixel = -1;
        }
        if (j->align) {
            each_sample(j, row, 0, j->channels, j->max ? max_sample : add_sample);
        } else {
            pool_row(j, row);
        }
    }
}

static void backward_task(void *task, uint32_t slice)
{
    const roi_job *j = task;
    int64_t c0 = (int64_t)slice * SLICE, width = min64(SLICE, j->channels - c0);
    for (int64_t row = 0; row < j->rois * j->out_h * j->out_w; row++) {
        if (!j->max) {
            each_sample(j, row, c0, width, back_sample);
            continue;
        }
        for (int64_t k = c0; k < c0 + width; k++) {
            winner w = j->won[row * j->channels + k];
            if (w.pixel >= 0) {
                pixel_at(j, row, w.pixel)[k] += w.weight * j->y[row * j->channels + k];
            }
        }
    }
}

static gc_status roi_forward(gc_op_call *c)
{
    roi_job j;
    GC_TRY(setup(c, &j));
    GC_TRY(check_boxes(c, &j));
    gc_tensor x = *c->in[0];
    j.image = x.data;
    j.y = c->out[0]->data;
    j.won = c->aux;
    return gc_parallel(c->ctx, forward_task, &j, (uint32_t)((j.rois * j.out_h * j.out_w + ROW_CHUNK - 1) / ROW_CHUNK));
}

static gc_status roi_backward(gc_op_call *c)
{
    roi_job j;
    GC_TRY(setup(c, &j));
    if (c->grad_in[1] != NULL && gc_numel(c->grad_in[1]) > 0) {
        memset(c->grad_in[1]->data, 0, (size_t)gc_numel(c->grad_in[1]) * sizeof(float));
    }
    if (c->grad_in[0] == NULL || gc_numel(c->grad_in[0]) == 0) {
        return GRADCAM_OK;
    }
    j.image = c->grad_in[0]->data;
    j.y = c->grad_out[0]->data;
    j.won = c->aux;
    memset(j.image, 0, (size_t)gc_numel(c->grad_in[0]) * sizeof(float));
    return gc_parallel(c->ctx, backward_task, &j, (uint32_t)((j.channels + SLICE - 1) / SLICE));
}

const gc_op gc_ops_roi[] = {
    {"RoiAlign", roi_infer, roi_forward, roi_backward, GC_OP_CL | GC_OP_POOLING, 6, 0, 3, 3, 1},
    {"MaxRoiPool", roi_infer, roi_forward, roi_backward, GC_OP_CL | GC_OP_POOLING, 2, 0, 2, 2, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
