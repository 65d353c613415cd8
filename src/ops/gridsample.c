/* SPDX-License-Identifier: MIT */
/* GridSample and AffineGrid (spatial transformers), as torch.nn.functional's
 * grid_sample and affine_grid: one to three spatial dimensions, channels-last. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "ops/op.h"
#include "ops/window.h"

/* Backward tasks own a slice of channels, so no two add to one element. */
enum { SLICE = 32, PIXEL_CHUNK = 64, MAX_TAPS = 64 };

typedef enum sample_mode { SAMPLE_LINEAR, SAMPLE_NEAREST, SAMPLE_CUBIC } sample_mode;
typedef enum sample_padding { SAMPLE_ZEROS, SAMPLE_BORDER, SAMPLE_REFLECTION } sample_padding;

typedef struct sampler {
    sample_mode mode;
    sample_padding padding;
    bool align_corners;
    int32_t rank;  /* of the space: 1 to 3 */
    int64_t in[3]; /* missing dimensions in front have size 1 */
    int64_t images, channels, pixels_in, pixels_out;
    const float *x, *grid;
    float *y; /* forward: the output; backward: its gradient */
    float *dx, *dgrid;
} sampler;

/* The taps along one axis; index -1 lies in the padding. */
typedef struct axis_taps {
    int32_t n;
    int64_t index[4];
    double weight[4], slope[4]; /* slope: of the weight, by the grid's coordinate */
} axis_taps;

/* All taps of one output pixel that lie in the image. */
typedef struct point {
    int32_t n;
    int64_t pixel[MAX_TAPS];
    float weight[MAX_TAPS];
    float slope[3][MAX_TAPS];
} point;

/* ---- coordinates ---- */

/* Keys 1981 with a = -0.75, and its derivative. */
static double cubic(double x)
{
    const double a = -0.75;
    x = fabs(x);
    return x <= 1.0 ? ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0 : ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
}

static double cubic_slope(double x)
{
    const double a = -0.75;
    double m = fabs(x);
    double s = m <= 1.0 ? (3.0 * (a + 2.0) * m - 2.0 * (a + 3.0)) * m : (3.0 * a * m - 10.0 * a) * m + 8.0 * a;
    return x < 0.0 ? -s : s;
}

/* Moves a coordinate into the image; *slope becomes 0 where it is held. */
static double clip(double x, double last, double *slope)
{
    if (x <= 0.0 || x >= last) {
        *slope = 0.0;
    }
    return x < 0.0 ? 0.0 : x > last ? last : x;
}

/* Reflects between the outer pixels' centres (align_corners) or edges. */
static double reflect(double x, int64_t size, bool centres, double *slope)
{
    double low = centres ? 0.0 : -0.5, span = centres ? (double)(size - 1) : (double)size;
    if (span <= 0.0) {
        *slope = 0.0;
        return 0.0;
    }
    *slope *= x < low ? -1.0 : 1.0;
    double away = fabs(x - low), rest = fmod(away, span);
    if (fmod(floor(away / span), 2.0) == 0.0) {
        return rest + low;
    }
    *slope *= -1.0;
    return span - rest + low;
}

static double pad_coordinate(const sampler *s, int64_t size, double x, double *slope)
{
    if (s->padding == SAMPLE_ZEROS) {
        return x;
    }
    if (s->padding == SAMPLE_REFLECTION) {
        x = reflect(x, size, s->align_corners, slope);
    }
    return clip(x, (double)(size - 1), slope);
}

static int64_t inside(double at, int64_t size)
{
    return at >= 0.0 && at < (double)size ? (int64_t)at : -1;
}

/* Four taps; every tap is padded for itself, as torch does. */
static void cubic_taps(const sampler *s, int64_t size, double x, double scale, axis_taps *t)
{
    double low = floor(x);
    t->n = 4;
    for (int k = 0; k < 4; k++) {
        double at = low + k - 1, unused = 1.0, distance = x - at;
        t->index[k] = inside(pad_coordinate(s, size, at, &unused), size);
        t->weight[k] = cubic(distance);
        t->slope[k] = cubic_slope(distance) * scale;
    }
}

static void taps_of(const sampler *s, int64_t size, double g, axis_taps *t)
{
    double scale = s->align_corners ? (double)(size - 1) / 2.0 : (double)size / 2.0, slope = 1.0;
    double x = s->align_corners ? (g + 1.0) * scale : (g + 1.0) * scale - 0.5;
    if (!(fabs(x) < 1e9)) { /* not a number, or far outside */
        x = -100.0;
    }
    if (s->mode == SAMPLE_CUBIC) {
        cubic_taps(s, size, x, scale, t);
        return;
    }
    x = pad_coordinate(s, size, x, &slope);
    double low = s->mode == SAMPLE_NEAREST ? rint(x) : floor(x);
    t->n = s->mode == SAMPLE_NEAREST ? 1 : 2;
    for (int k = 0; k < t->n; k++) {
        t->index[k] = inside(low + k, size);
        t->weight[k] = t->n == 1 ? 1.0 : k == 0 ? 1.0 - (x - low) : x - low;
        t->slope[k] = t->n == 1 ? 0.0 : (k == 0 ? -scale : scale) * slope;
    }
}

/* Tap (a, b, c) of the three axes joins the point, unless it is padding. */
static void add_tap(const sampler *s, const axis_taps *t, const int *k, point *p)
{
    int64_t z = t[0].index[k[0]], y = t[1].index[k[1]], x = t[2].index[k[2]];
    if (z < 0 || y < 0 || x < 0) {
        return;
    }
    double wz = t[0].weight[k[0]], wy = t[1].weight[k[1]], wx = t[2].weight[k[2]];
    p->pixel[p->n] = (z * s->in[1] + y) * s->in[2] + x;
    p->weight[p->n] = (float)(wz * wy * wx);
    p->slope[0][p->n] = (float)(t[0].slope[k[0]] * wy * wx);
    p->slope[1][p->n] = (float)(wz * t[1].slope[k[1]] * wx);
    p->slope[2][p->n++] = (float)(wz * wy * t[2].slope[k[2]]);
}

/* The grid names its coordinates in reverse: x, y, z. */
static void point_at(const sampler *s, int64_t row, point *p)
{
    axis_taps t[3];
    int k[3];
    p->n = 0;
    for (int d = 0; d < 3; d++) {
        if (d < 3 - s->rank) {
            memset(&t[d], 0, sizeof t[d]);
            t[d].n = 1;
            t[d].weight[0] = 1.0;
        } else {
            taps_of(s, s->in[d], (double)s->grid[row * s->rank + 2 - d], &t[d]);
        }
    }
    for (k[0] = 0; k[0] < t[0].n; k[0]++) {
        for (k[1] = 0; k[1] < t[1].n; k[1]++) {
            for (k[2] = 0; k[2] < t[2].n; k[2]++) {
                add_tap(s, t, k, p);
            }
        }
    }
}

/* ---- tasks ---- */

static void sample_task(void *task, uint32_t chunk)
{
    const sampler *s = task;
    point p;
    int64_t n = s->channels, first = (int64_t)chunk * PIXEL_CHUNK;
    int64_t last = min64(first + PIXEL_CHUNK, s->images * s->pixels_out);
    for (int64_t row = first; row < last; row++) {
        const float *x = s->x + row / s->pixels_out * s->pixels_in * n;
        float *y = s->y + row * n;
        point_at(s, row, &p);
        memset(y, 0, (size_t)n * sizeof *y);
        for (int32_t k = 0; k < p.n; k++) {
            const float *from = x + p.pixel[k] * n;
            for (int64_t c = 0; c < n; c++) {
                y[c] += p.weight[k] * from[c];
            }
        }
    }
}

static void back_task(void *task, uint32_t slice)
{
    const sampler *s = task;
    point p;
    int64_t n = s->channels, c0 = (int64_t)slice * SLICE, width = min64(SLICE, n - c0);
    for (int64_t row = 0; row < s->images * s->pixels_out; row++) {
        float *dx = s->dx + row / s->pixels_out * s->pixels_in * n + c0;
        const float *dy = s->y + row * n + c0;
        point_at(s, row, &p);
        for (int32_t k = 0; k < p.n; k++) {
            float *to = dx + p.pixel[k] * n;
            for (int64_t c = 0; c < width; c++) {
                to[c] += p.weight[k] * dy[c];
            }
        }
    }
}

static void grid_task(void *task, uint32_t chunk)
{
    const sampler *s = task;
    point p;
    int64_t n = s->channels, first = (int64_t)chunk * PIXEL_CHUNK;
    int64_t last = min64(first + PIXEL_CHUNK, s->images * s->pixels_out);
    for (int64_t row = first; row < last; row++) {
        const float *x = s->x + row / s->pixels_out * s->pixels_in * n, *dy = s->y + row * n;
        double sum[3] = {0.0, 0.0, 0.0};
        point_at(s, row, &p);
        for (int32_t k = 0; k < p.n; k++) {
            double dot = 0.0;
            for (int64_t c = 0; c < n; c++) {
                dot += (double)dy[c] * (double)x[p.pixel[k] * n + c];
            }
            for (int d = 0; d < 3; d++) {
                sum[d] += dot * (double)p.slope[d][k];
            }
        }
        for (int32_t d = 0; d < s->rank; d++) {
            s->dgrid[row * s->rank + d] = (float)sum[2 - d];
        }
    }
}

/* ---- GridSample ---- */

static gc_status read_modes(gc_op_call *c, sampler *s)
{
    static const char *const modes[] = {"linear", "nearest", "cubic", "bilinear", "nearest", "bicubic"};
    static const char *const paddings[] = {"zeros", "border", "reflection"};
    const char *mode = gc_attr_string(&c->attrs, "mode", "linear");
    const char *padding = gc_attr_string(&c->attrs, "padding_mode", "zeros");
    int m = 0, p = 0;
    for (; m < 6 && strcmp(mode, modes[m]) != 0; m++) {
    }
    for (; p < 3 && strcmp(padding, paddings[p]) != 0; p++) {
    }
    if (m == 6 || p == 3) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "unknown mode '%.40s' or padding_mode '%.40s'", mode, padding);
    }
    s->mode = (sample_mode)(m % 3);
    s->padding = (sample_padding)p;
    s->align_corners = gc_attr_int(&c->attrs, "align_corners", 0) != 0;
    return GRADCAM_OK;
}

static gc_status sample_setup(gc_op_call *c, sampler *s)
{
    memset(s, 0, sizeof *s);
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    const gc_tensor *x = c->in[0], *grid = c->in[1];
    GC_TRY(read_modes(c, s));
    s->rank = x->ndim - 2;
    if (x->dtype != GRADCAM_F32 || grid->dtype != GRADCAM_F32) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "input and grid must be float");
    }
    if (s->rank < 1 || s->rank > 3 || grid->ndim != x->ndim || grid->shape[grid->ndim - 1] != s->rank ||
        grid->shape[0] != x->shape[0]) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "a grid of rank %d does not fit an input of rank %d (3 to 5)",
                          (int)grid->ndim, (int)x->ndim);
    }
    s->in[0] = s->in[1] = s->in[2] = 1;
    GC_TRY(gc_window_sizes(c, x->ndim, x->shape, s->in));
    s->images = x->shape[0];
    s->channels = x->shape[1];
    s->pixels_in = gc_shape_numel(3, s->in);
    s->pixels_out = gc_shape_numel(s->rank, grid->shape + 1);
    if (s->pixels_in < 0 || s->images * s->pixels_out / PIXEL_CHUNK >= INT32_MAX || s->channels > INT32_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    s->x = x->data;
    s->grid = grid->data;
    return GRADCAM_OK;
}

static gc_status sample_infer(gc_op_call *c)
{
    sampler s;
    int64_t shape[GRADCAM_MAX_DIMS];
    GC_TRY(sample_setup(c, &s));
    shape[0] = s.images;
    shape[1] = s.channels;
    memcpy(shape + 2, c->in[1]->shape + 1, (size_t)s.rank * sizeof *shape);
    return gc_op_set_output(c, 0, GRADCAM_F32, s.rank + 2, shape);
}

static uint32_t pixel_chunks(const sampler *s)
{
    return (uint32_t)((s->images * s->pixels_out + PIXEL_CHUNK - 1) / PIXEL_CHUNK);
}

static gc_status sample_forward(gc_op_call *c)
{
    sampler s;
    GC_TRY(sample_setup(c, &s));
    if (c->out[0] == NULL || gc_numel(c->out[0]) == 0) {
        return GRADCAM_OK;
    }
    s.y = c->out[0]->data;
    return gc_parallel(c->ctx, sample_task, &s, pixel_chunks(&s));
}

static gc_status sample_backward(gc_op_call *c)
{
    sampler s;
    gc_tensor *dx = c->grad_in[0], *dgrid = c->grad_in[1];
    GC_TRY(sample_setup(c, &s));
    s.y = c->grad_out[0]->data;
    if (dx != NULL && gc_numel(dx) > 0) {
        s.dx = dx->data;
        memset(s.dx, 0, (size_t)gc_numel(dx) * sizeof(float));
        GC_TRY(gc_parallel(c->ctx, back_task, &s, (uint32_t)((s.channels + SLICE - 1) / SLICE)));
    }
    if (dgrid != NULL && gc_numel(dgrid) > 0) {
        s.dgrid = dgrid->data;
        GC_TRY(gc_parallel(c->ctx, grid_task, &s, pixel_chunks(&s)));
    }
    return GRADCAM_OK;
}

/* ---- AffineGrid: grid = base * theta^T, base = (x, y, 1) or (x, y, z, 1) ---- */

static gc_status affine_infer(gc_op_call *c)
{
    int64_t size[GRADCAM_MAX_DIMS];
    int32_t n = 0;
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *theta = c->in[0];
    GC_TRY(gc_op_const_ints(c, 1, size, GRADCAM_MAX_DIMS, &n));
    if (theta->dtype != GRADCAM_F32 || (n != 4 && n != 5) || theta->ndim != 3 || theta->shape[0] != size[0] ||
        theta->shape[1] != n - 2 || theta->shape[2] != n - 1) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "theta must be float [N, 2, 3] for a size of 4, [N, 3, 4] for 5");
    }
    for (int32_t i = 1; i < n - 1; i++) {
        size[i] = size[i + 1];
    }
    size[n - 1] = n - 2;
    return gc_op_set_output(c, 0, GRADCAM_F32, n, size);
}

/* Coordinate k of `size` pixels, -1 to 1 at the outer centres or edges. */
static double base_coordinate(int64_t k, int64_t size, bool align_corners)
{
    if (align_corners) {
        return size > 1 ? 2.0 * (double)k / (double)(size - 1) - 1.0 : 0.0;
    }
    return (2.0 * (double)k + 1.0) / (double)size - 1.0;
}

/* base[0..rank]: the homogeneous coordinates of pixel `at` of the grid. */
static void base_of(const gc_tensor *grid, int64_t at, bool align_corners, double *base)
{
    int32_t rank = grid->ndim - 2;
    for (int32_t d = 0; d < rank; d++) {
        int64_t size = grid->shape[rank - d];
        base[d] = base_coordinate(at % size, size, align_corners);
        at /= size;
    }
    base[rank] = 1.0;
}

static gc_status affine_forward(gc_op_call *c)
{
    gc_tensor *y = c->out[0];
    int64_t n = y != NULL ? gc_numel(y) : 0;
    if (n == 0) {
        return GRADCAM_OK;
    }
    int32_t rank = y->ndim - 2;
    int64_t pixels = gc_shape_numel(rank, y->shape + 1);
    bool align = gc_attr_int(&c->attrs, "align_corners", 0) != 0;
    for (int64_t i = 0; i < n / rank; i++) {
        const float *theta = (const float *)c->in[0]->data + i / pixels * rank * (rank + 1);
        double base[4];
        base_of(y, i % pixels, align, base);
        for (int32_t r = 0; r < rank; r++) {
            double sum = 0.0;
            for (int32_t k = 0; k <= rank; k++) {
                sum += (double)theta[r * (rank + 1) + k] * base[k];
            }
            ((float *)y->data)[i * rank + r] = (float)sum;
        }
    }
    return GRADCAM_OK;
}

static gc_status affine_backward(gc_op_call *c)
{
    gc_tensor *dtheta = c->grad_in[0];
    const gc_tensor *dy = c->grad_out[0];
    int32_t rank = dy->ndim - 2;
    int64_t pixels = gc_shape_numel(rank, dy->shape + 1), images = dy->shape[0];
    bool align = gc_attr_int(&c->attrs, "align_corners", 0) != 0;
    for (int64_t image = 0; dtheta != NULL && image < images; image++) {
        double sum[12] = {0.0};
        for (int64_t i = 0; i < pixels; i++) {
            const float *g = (const float *)dy->data + (image * pixels + i) * rank;
            double base[4];
            base_of(dy, i, align, base);
            for (int32_t k = 0; k < rank * (rank + 1); k++) {
                sum[k] += (double)g[k / (rank + 1)] * base[k % (rank + 1)];
            }
        }
        for (int32_t k = 0; k < rank * (rank + 1); k++) {
            ((float *)dtheta->data)[image * rank * (rank + 1) + k] = (float)sum[k];
        }
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_gridsample[] = {
    {"GridSample", sample_infer, sample_forward, sample_backward, GC_OP_CL, 3, 0, 2, 2, 1},
    {"AffineGrid", affine_infer, affine_forward, affine_backward, 0, 0, 0, 2, 2, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
