/* SPDX-License-Identifier: MIT */
/* Pooling, channels-last: loops over channels are innermost. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "kern/half.h"
#include "ops/spatial_mean.h"
#include "ops/window.h"

/* Backward tasks own lines of the gradient of the input, so no two add to one element. */
enum { BANDS = 8, ROW_CHUNK = 16, MOST_TAPS = 64 };

typedef struct pool_job {
    gc_window w;
    int64_t channels, rows; /* rows: window places of all images */
    int64_t x_step, y_step; /* forward: floats from pixel to pixel */
    const float *x;
    float *y; /* forward: out[0]; backward: grad_out[0] */
    float *dx;
    int32_t *arg;   /* [rows][channels], pixel within the image or -1 */
    int64_t *index; /* output Indices or NULL, row-major */
    const gc_kern *kern;
    const gc_half *half;        /* x and y are bfloat16 */
    int32_t offsets[MOST_TAPS]; /* pixels from the first tap to each, if they are few */
    bool back;                  /* a backward pass will ask where the maxima were */
    bool count_pads;
    bool column_major; /* numbering of Indices within an image */
} pool_job;

static uint32_t chunks(int64_t n, int64_t size)
{
    return (uint32_t)((n + size - 1) / size);
}

static gc_status check_input(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    if (c->in[0]->dtype != GRADCAM_F32 && !gc_op_is_half(c, c->in[0])) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "the input is not float");
    }
    if (c->in[0]->ndim < 3) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "input of rank %d, expected 3 or more", (int)c->in[0]->ndim);
    }
    if (c->in[0]->shape[0] < 0 || c->in[0]->shape[1] < 0 || c->in[0]->shape[1] > INT32_MAX) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "bad batch or channel size");
    }
    return GRADCAM_OK;
}

static gc_status setup(gc_op_call *c, pool_job *j)
{
    int64_t all;
    memset(j, 0, sizeof *j);
    GC_TRY(check_input(c));
    const gc_tensor *x = c->in[0];
    GC_TRY(gc_window_read(c, x->ndim - 2, NULL, &j->w));
    GC_TRY(gc_window_sizes(c, x->ndim, x->shape, j->w.in));
    GC_TRY(gc_window_places(c, gc_attr_int(&c->attrs, "ceil_mode", 0) != 0, &j->w));
    GC_TRY(gc_window_count(c, x->shape[0], &j->w));
    j->channels = x->shape[1];
    j->kern = gc_kern_of(c->ctx);
    j->back = c->differentiated != 0;
    j->count_pads = gc_attr_int(&c->attrs, "count_include_pad", 0) != 0;
    if (!gc_mul_ok(j->w.images, j->w.pixels_out, &j->rows) || j->rows > UINT32_MAX || j->w.pixels_in > INT32_MAX ||
        !gc_mul_ok(j->rows, j->channels, &all) || !gc_mul_ok(all, 8, &all) || (uint64_t)all > SIZE_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    return GRADCAM_OK;
}

static gc_status set_output(gc_op_call *c, const pool_job *j, int32_t i, gc_dtype dtype)
{
    int64_t shape[GRADCAM_MAX_DIMS] = {j->w.images, j->channels};
    for (int k = j->w.first; k < 3; k++) {
        shape[2 + k - j->w.first] = j->w.out[k];
    }
    return gc_op_set_output(c, i, dtype, c->in[0]->ndim, shape);
}

/* Forward from in[0] to out[0], which may have gaps between pixels. */
static void aim(const gc_op_call *c, pool_job *j)
{
    j->x = c->in[0]->data;
    j->y = c->out[0]->data;
    j->x_step = gc_cl_pixel(c->in[0]);
    j->y_step = gc_cl_pixel(c->out[0]);
    j->half = gc_op_is_half(c, c->in[0]) ? c->half : NULL;
    const gc_window *w = &j->w;
    for (int64_t t = 0; t < w->taps && t < MOST_TAPS; t++) {
        int64_t x = t % w->kernel[2] * w->dilation[2], y = t / w->kernel[2] % w->kernel[1] * w->dilation[1];
        int64_t z = t / w->kernel[2] / w->kernel[1] * w->dilation[0], pixel = (z * w->in[1] + y) * w->in[2] + x;
        j->offsets[t] = pixel <= INT32_MAX ? (int32_t)pixel : 0; /* then no window lies inside */
    }
}

/* The pixel of the first tap of a window all of whose taps lie inside, else -1. */
static int64_t first_pixel(const gc_window *w, const int64_t *place)
{
    int64_t pixel = 0;
    for (int i = 0; i < 3; i++) {
        int64_t at = place[i] * w->stride[i] - w->pad_begin[i];
        if (at < 0 || at + (w->kernel[i] - 1) * w->dilation[i] >= w->in[i]) {
            return -1;
        }
        pixel = pixel * w->in[i] + at;
    }
    return pixel;
}

/* ---- MaxPool ---- */

/* The number of a pixel in Indices; storage_order 1 counts rows fastest. */
static int64_t pixel_number(const pool_job *j, int32_t pixel)
{
    const int64_t *in = j->w.in;
    int64_t zyx[3];
    if (!j->column_major) {
        return pixel;
    }
    (void)gc_window_split(in, pixel, zyx);
    return zyx[0] + in[0] * (zyx[1] + in[1] * zyx[2]);
}

/* Pixels of the taps inside the image.  Windows have MOST_TAPS at most. */
static int64_t taps_inside(const pool_job *j, const int64_t *place, int32_t *pixels)
{
    int64_t count = 0, base = first_pixel(&j->w, place);
    for (int64_t tap = 0; tap < j->w.taps; tap++) {
        int64_t pixel = base >= 0 ? base + j->offsets[tap] : gc_window_pixel(&j->w, place, tap);
        pixels[count] = (int32_t)pixel;
        count += pixel >= 0;
    }
    return count;
}

/* Tap numbers to pixels. */
static void name_pixels(int64_t n, const int32_t *pixels, int32_t *arg)
{
    for (int64_t k = 0; k < n; k++) {
        arg[k] = pixels[arg[k]];
    }
}

/* best/arg over one tap. */
static void take_max(const float *x, int64_t n, int32_t pixel, float *best, int32_t *arg)
{
    for (int64_t k = 0; k < n; k++) {
        bool better = x[k] > best[k] || arg[k] < 0 || (x[k] != x[k] && best[k] == best[k]);
        best[k] = better ? x[k] : best[k];
        arg[k] = better ? pixel : arg[k];
    }
}

/* Windows of many taps, and those that lie in the padding. */
static void max_of_many(const pool_job *j, int64_t image, const int64_t *place, float *best, int32_t *arg)
{
    for (int64_t tap = 0; tap < j->w.taps; tap++) {
        int64_t pixel = gc_window_pixel(&j->w, place, tap);
        if (pixel >= 0) {
            take_max(j->x + (image * j->w.pixels_in + pixel) * j->x_step, j->channels, (int32_t)pixel, best, arg);
        }
    }
}

static void max_place(const pool_job *j, int64_t image, const int64_t *place, float *best, int32_t *arg, bool numbers)
{
    const float *from[MOST_TAPS];
    int32_t pixels[MOST_TAPS];
    int64_t count = j->w.taps <= MOST_TAPS ? taps_inside(j, place, pixels) : 0;
    if (count > 0) {
        for (int64_t t = 0; t < count; t++) {
            from[t] = j->x + (image * j->w.pixels_in + pixels[t]) * j->x_step;
        }
        j->kern->max_taps(from, count, j->channels, best, numbers ? arg : NULL);
        if (numbers) {
            name_pixels(j->channels, pixels, arg);
        }
        return;
    }
    for (int64_t k = 0; k < j->channels; k++) {
        best[k] = -INFINITY;
        arg[k] = -1;
    }
    max_of_many(j, image, place, best, arg);
}

static void max_task(void *task, uint32_t chunk)
{
    const pool_job *j = task;
    int64_t n = j->channels, first = (int64_t)chunk * ROW_CHUNK, last = min64(first + ROW_CHUNK, j->rows);
    for (int64_t r = first; r < last; r++) {
        int64_t place[3], image = gc_window_split(j->w.out, r, place);
        int32_t *arg = j->arg + r * n;
        max_place(j, image, place, j->y + r * j->y_step, arg, j->index != NULL || j->back);
        for (int64_t k = 0; j->index && k < n; k++) {
            j->index[(image * n + k) * j->w.pixels_out + r % j->w.pixels_out] = arg[k] < 0
                                                                                    ? -1
                                                                                    : (image * n + k) * j->w.pixels_in +
                                                                                          pixel_number(j, arg[k]);
        }
    }
}

/* In bfloat16, where nobody asks for the places of the maxima: the larger part of
   both kinds of pooling.  The taps of a place. */
typedef struct half_place {
    const gc_bf16 *from[MOST_TAPS];
    int64_t count, place[3];
} half_place;

static void find_taps(const pool_job *j, int64_t row, half_place *p)
{
    const gc_bf16 *x = (const gc_bf16 *)(const void *)j->x;
    int32_t pixels[MOST_TAPS];
    int64_t image = gc_window_split(j->w.out, row, p->place);
    p->count = taps_inside(j, p->place, pixels);
    for (int64_t t = 0; t < p->count; t++) {
        p->from[t] = x + (image * j->w.pixels_in + pixels[t]) * j->x_step;
    }
}

/* Goes on to the next place: within a line all taps that are inside move by the stride. */
static void next_taps(const pool_job *j, int64_t row, half_place *p)
{
    const gc_window *w = &j->w;
    int64_t x = p->place[2] + 1, last = x * w->stride[2] - w->pad_begin[2] + (w->kernel[2] - 1) * w->dilation[2];
    if (p->count < w->taps || x >= w->out[2] || last >= w->in[2]) {
        find_taps(j, row, p);
        return;
    }
    p->place[2] = x;
    for (int64_t t = 0; t < p->count; t++) {
        p->from[t] += w->stride[2] * j->x_step;
    }
}

static void half_max_task(void *task, uint32_t chunk)
{
    const pool_job *j = task;
    int64_t first = (int64_t)chunk * ROW_CHUNK, last = min64(first + ROW_CHUNK, j->rows);
    half_place p;
    find_taps(j, first, &p);
    for (int64_t r = first; r < last; r++) {
        j->half->max_taps(p.from, p.count, j->channels, (gc_bf16 *)(void *)j->y + r * j->y_step);
        if (r + 1 < last) {
            next_taps(j, r + 1, &p);
        }
    }
}

/* Pixels of an image of dx, whole lines, and the window places whose taps may lie
   there. */
typedef struct band {
    int64_t image;
    int64_t pixel, end;   /* within the image */
    int64_t row, row_end; /* of all images */
} band;

/* The places of one dimension that reach into first .. last of the input. */
static void places_over(const gc_window *w, int i, int64_t first, int64_t last, int64_t *low, int64_t *high)
{
    int64_t reach = (w->kernel[i] - 1) * w->dilation[i], at = first + w->pad_begin[i] - reach;
    *low = at > 0 ? (at + w->stride[i] - 1) / w->stride[i] : 0;
    *high = min64(w->out[i], (last - 1 + w->pad_begin[i]) / w->stride[i] + 1);
    *low = min64(*low, *high);
}

static int64_t band_lines(const pool_job *j)
{
    return max64((j->w.in[1] + BANDS - 1) / BANDS, 2 * ((j->w.kernel[1] - 1) * j->w.dilation[1] + 1));
}

static int64_t bands_of_plane(const pool_job *j)
{
    return (j->w.in[1] + band_lines(j) - 1) / band_lines(j);
}

/* Bands of a picture; of a volume, whose windows reach over several planes, the
   whole image is one. */
static int64_t bands_of_image(const pool_job *j)
{
    return j->w.in[0] == 1 && j->w.out[0] == 1 ? bands_of_plane(j) : 1;
}

static band band_at(const pool_job *j, int64_t index)
{
    int64_t bands = bands_of_image(j), first = index % bands * band_lines(j), low, high;
    band b = {index / bands, 0, j->w.pixels_in, 0, j->w.pixels_out};
    if (bands > 1) {
        int64_t last = min64(j->w.in[1], first + band_lines(j));
        places_over(&j->w, 1, first, last, &low, &high);
        b.pixel = first * j->w.in[2];
        b.end = last * j->w.in[2];
        b.row = low * j->w.out[2];
        b.row_end = high * j->w.out[2];
    }
    b.row += b.image * j->w.pixels_out;
    b.row_end += b.image * j->w.pixels_out;
    return b;
}

/* dx of the band, zeros; from the pixel 0 of the image on. */
static float *clear_band(const pool_job *j, const band *b)
{
    float *dx = j->dx + b->image * j->w.pixels_in * j->channels;
    memset(dx + b->pixel * j->channels, 0, (size_t)((b->end - b->pixel) * j->channels) * sizeof *dx);
    return dx;
}

static void max_back_task(void *task, uint32_t index)
{
    const pool_job *j = task;
    band b = band_at(j, index);
    float *restrict dx = clear_band(j, &b), elsewhere = 0.0f; /* no branch, which nobody could guess */
    const gc_window *w = &j->w;
    int64_t n = j->channels, reach = 0; /* pixels from the first to the last tap */
    for (int i = 0; i < 3; i++) {
        reach = reach * w->in[i] + (w->kernel[i] - 1) * w->dilation[i];
    }
    for (int64_t r = b.row; r < b.row_end; r++) {
        const int32_t *restrict arg = j->arg + r * n;
        const float *restrict dy = j->y + r * n;
        int64_t place[3];
        (void)gc_window_split(j->w.out, r, place);
        int64_t base = first_pixel(w, place);
        bool inside = base >= b.pixel && base + reach < b.end;
        for (int64_t k = 0; k < n && inside; k++) {
            dx[arg[k] * n + k] += dy[k];
        }
        for (int64_t k = 0; k < n && !inside; k++) {
            float *to = arg[k] >= b.pixel && arg[k] < b.end ? &dx[arg[k] * n + k] : &elsewhere;
            *to += dy[k];
        }
    }
}

static gc_status max_infer(gc_op_call *c)
{
    pool_job j;
    GC_TRY(setup(c, &j));
    c->aux_bytes = (size_t)(j.rows * j.channels) * sizeof(int32_t);
    c->wide = 1;
    bool numbers = c->n_out > 1 && c->out[1] != NULL;
    c->half_able = c->half != NULL && !numbers && j.w.taps <= MOST_TAPS ? GC_HALF_SAME : 0;
    GC_TRY(set_output(c, &j, 0, GRADCAM_F32));
    if (c->n_out < 2 || !c->out[1]) {
        return GRADCAM_OK;
    }
    return set_output(c, &j, 1, GRADCAM_I64);
}

static gc_status max_forward(gc_op_call *c)
{
    pool_job j;
    GC_TRY(setup(c, &j));
    if (!c->out[0]) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "Indices without the maxima");
    }
    aim(c, &j);
    j.arg = c->aux;
    j.index = c->n_out > 1 && c->out[1] ? c->out[1]->data : NULL;
    j.column_major = gc_attr_int(&c->attrs, "storage_order", 0) != 0;
    return gc_parallel(c->ctx, j.half != NULL ? half_max_task : max_task, &j, chunks(j.rows, ROW_CHUNK));
}

static gc_status back(gc_op_call *c, pool_job *j, gc_task_fn fn)
{
    if (!c->grad_in[0]) {
        return GRADCAM_OK;
    }
    j->dx = c->grad_in[0]->data;
    if (!c->grad_out[0]) { /* only Indices had a gradient: none */
        memset(j->dx, 0, (size_t)(j->w.images * j->w.pixels_in * j->channels) * sizeof(float));
        return GRADCAM_OK;
    }
    j->y = c->grad_out[0]->data;
    j->arg = c->aux;
    return gc_parallel(c->ctx, fn, j, (uint32_t)(j->w.images * bands_of_image(j)));
}

static gc_status max_backward(gc_op_call *c)
{
    pool_job j;
    GC_TRY(setup(c, &j));
    return back(c, &j, max_back_task);
}

/* ---- AveragePool ---- */

/* The divisor: taps inside the image, or with count_include_pad inside the
   padded image; what ceil_mode adds beyond the pads never counts. */
static float divisor(const pool_job *j, const int64_t *place)
{
    double count = 1;
    for (int i = 0; i < 3; i++) {
        const gc_window *w = &j->w;
        int64_t low = j->count_pads ? -w->pad_begin[i] : 0, high = w->in[i] + (j->count_pads ? w->pad_end[i] : 0);
        int64_t start = place[i] * w->stride[i] - w->pad_begin[i], d = w->dilation[i];
        int64_t skip = start < low ? (low - start + d - 1) / d : 0;
        int64_t end = start < high ? min64(w->kernel[i], (high - 1 - start) / d + 1) : 0;
        count *= end > skip ? (double)(end - skip) : 0.0;
    }
    return count > 0 ? (float)count : 1.0f;
}

static void average_task(void *task, uint32_t chunk)
{
    const pool_job *j = task;
    int64_t n = j->channels, first = (int64_t)chunk * ROW_CHUNK, last = min64(first + ROW_CHUNK, j->rows);
    for (int64_t r = first; r < last; r++) {
        int64_t place[3], image = gc_window_split(j->w.out, r, place);
        float *restrict y = j->y + r * j->y_step, factor = divisor(j, place);
        memset(y, 0, (size_t)n * sizeof(float));
        for (int64_t tap = 0; tap < j->w.taps; tap++) {
            int64_t pixel = gc_window_pixel(&j->w, place, tap);
            const float *restrict x = j->x + (image * j->w.pixels_in + pixel) * j->x_step;
            for (int64_t k = 0; pixel >= 0 && k < n; k++) {
                y[k] += x[k];
            }
        }
        for (int64_t k = 0; k < n; k++) {
            y[k] /= factor;
        }
    }
}

static void half_average_task(void *task, uint32_t chunk)
{
    const pool_job *j = task;
    int64_t first = (int64_t)chunk * ROW_CHUNK, last = min64(first + ROW_CHUNK, j->rows);
    half_place p;
    find_taps(j, first, &p);
    for (int64_t r = first; r < last; r++) {
        gc_bf16 *y = (gc_bf16 *)(void *)j->y + r * j->y_step;
        j->half->mean_taps(p.from, p.count, j->channels, divisor(j, p.place), y);
        if (r + 1 < last) {
            next_taps(j, r + 1, &p);
        }
    }
}

static void average_back_task(void *task, uint32_t index)
{
    const pool_job *j = task;
    band b = band_at(j, index);
    float *image = clear_band(j, &b);
    int64_t n = j->channels;
    for (int64_t r = b.row; r < b.row_end; r++) {
        int64_t place[3];
        (void)gc_window_split(j->w.out, r, place);
        float factor = divisor(j, place);
        for (int64_t tap = 0; tap < j->w.taps; tap++) {
            int64_t pixel = gc_window_pixel(&j->w, place, tap);
            bool inside = pixel >= b.pixel && pixel < b.end;
            float *restrict dx = image + (inside ? pixel : b.pixel) * n;
            const float *restrict dy = j->y + r * n;
            for (int64_t k = 0; inside && k < n; k++) {
                dx[k] += dy[k] / factor;
            }
        }
    }
}

static gc_status average_infer(gc_op_call *c)
{
    pool_job j;
    GC_TRY(setup(c, &j));
    c->wide = 1;
    c->half_able = c->half != NULL && j.w.taps <= MOST_TAPS ? GC_HALF_SAME : 0;
    return set_output(c, &j, 0, GRADCAM_F32);
}

static gc_status average_forward(gc_op_call *c)
{
    pool_job j;
    GC_TRY(setup(c, &j));
    aim(c, &j);
    return gc_parallel(c->ctx, j.half != NULL ? half_average_task : average_task, &j, chunks(j.rows, ROW_CHUNK));
}

static gc_status average_backward(gc_op_call *c)
{
    pool_job j;
    GC_TRY(setup(c, &j));
    return back(c, &j, average_back_task);
}

/* ---- Global pooling: one window over the image, any rank ---- */

/* The image as one line under one window. */
static gc_status global_setup(gc_op_call *c, pool_job *j)
{
    memset(j, 0, sizeof *j);
    GC_TRY(check_input(c));
    const gc_tensor *x = c->in[0];
    j->channels = x->shape[1];
    j->rows = j->w.images = x->shape[0];
    j->w.pixels_out = 1;
    j->w.pixels_in = gc_shape_numel(x->ndim - 2, x->shape + 2);
    for (int i = 0; i < 3; i++) {
        j->w.out[i] = j->w.stride[i] = j->w.dilation[i] = 1;
        j->w.in[i] = j->w.kernel[i] = i < 2 ? 1 : j->w.pixels_in;
    }
    if (j->w.pixels_in < 1 || j->w.pixels_in > INT32_MAX || j->rows > INT32_MAX) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the image is empty or too large");
    }
    return GRADCAM_OK;
}

static gc_status global_output(gc_op_call *c, const pool_job *j)
{
    int64_t shape[GRADCAM_MAX_DIMS];
    for (int32_t i = 0; i < c->in[0]->ndim; i++) {
        shape[i] = i == 0 ? j->rows : i == 1 ? j->channels : 1;
    }
    return gc_op_set_output(c, 0, GRADCAM_F32, c->in[0]->ndim, shape);
}

static gc_status global_average_infer(gc_op_call *c)
{
    pool_job j;
    GC_TRY(global_setup(c, &j));
    if (!gc_spatial_mean_fits(c->in[0], &c->work_bytes)) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    return global_output(c, &j);
}

static gc_status global_average_backward(gc_op_call *c)
{
    return c->grad_in[0] ? gc_spatial_mean_backward(c) : GRADCAM_OK;
}

static gc_status global_max_infer(gc_op_call *c)
{
    pool_job j;
    int64_t n;
    GC_TRY(global_setup(c, &j));
    if (!gc_mul_ok(j.rows, j.channels, &n) || n > INT32_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    c->aux_bytes = (size_t)n * sizeof(int32_t);
    return global_output(c, &j);
}

static gc_status global_max_forward(gc_op_call *c)
{
    pool_job j;
    GC_TRY(global_setup(c, &j));
    const float *x = c->in[0]->data;
    for (int64_t image = 0; image < j.rows; image++) {
        float *best = (float *)c->out[0]->data + image * j.channels;
        int32_t *arg = (int32_t *)c->aux + image * j.channels;
        for (int64_t k = 0; k < j.channels; k++) {
            arg[k] = -1;
            best[k] = -INFINITY;
        }
        for (int64_t p = 0; p < j.w.pixels_in; p++, x += j.channels) {
            take_max(x, j.channels, (int32_t)p, best, arg);
        }
    }
    return GRADCAM_OK;
}

static gc_status global_max_backward(gc_op_call *c)
{
    pool_job j;
    GC_TRY(global_setup(c, &j));
    return back(c, &j, max_back_task);
}

const gc_op gc_ops_pool[] = {
    {"MaxPool", max_infer, max_forward, max_backward, GC_OP_CL | GC_OP_POOLING, 0, 0, 1, 1, 2},
    {"AveragePool", average_infer, average_forward, average_backward, GC_OP_CL | GC_OP_POOLING, 0, 0, 1, 1, 1},
    {"GlobalAveragePool", global_average_infer, gc_spatial_mean_forward, global_average_backward,
     GC_OP_CL | GC_OP_POOLING, 0, 0, 1, 1, 1},
    {"GlobalMaxPool", global_max_infer, global_max_forward, global_max_backward, GC_OP_CL | GC_OP_POOLING, 0, 0, 1, 1,
     1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
