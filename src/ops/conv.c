/* SPDX-License-Identifier: MIT */
/* Conv and ConvTranspose, channels-last.
 *
 * Both are one linear map between a big image (the input of Conv, the output
 * of ConvTranspose) and a small one, with weights [small_c][big_c / g][taps]:
 * `gather` goes from big to small, `scatter` is its transpose.  So Conv is
 * gather forward and scatter backward, ConvTranspose the other way round. */
#include <string.h>

#include "base/size.h"
#include "kern/gemm.h"
#include "ops/op.h"
#include "ops/window.h"

/* Column buffer, in floats: about 256 KB, but enough rows to pay for packing
   the weights, and bounded for huge kernels. */
enum { COL_FLOATS = 65536, COL_MIN_ROWS = 384, COL_MAX_FLOATS = 4 << 20, ROW_CHUNK = 16, CHANNEL_CHUNK = 32 };

typedef struct conv {
    gc_window w;
    int64_t groups, big_c, small_c;
    int64_t big_g, small_g; /* channels per group */
    int64_t depth;          /* taps * big_g: columns of the column matrix */
    int64_t rows;           /* all places of all images */
    int64_t block;          /* places per column buffer */
    bool pointwise;         /* the big image is the column matrix */
    bool depthwise;
} conv;

typedef struct conv_job {
    const conv *v;
    float *big;         /* at the first channel of the group */
    float *col;         /* [count][taps][big_g] */
    int64_t row, count; /* places row .. row + count */
    const float *weights;
    const float *bias;
    float *small;
} conv_job;

static int64_t min64(int64_t x, int64_t y)
{
    return x < y ? x : y;
}

static int64_t max64(int64_t x, int64_t y)
{
    return x > y ? x : y;
}

static uint32_t chunks(int64_t n, int64_t size)
{
    return (uint32_t)((n + size - 1) / size);
}

/* ---- column matrix ---- */

/* The taps lo .. hi of one kernel line (z, y) that lie inside the big image;
   `pixel` is where tap 0 would lie, taps are dilation[2] pixels apart. */
typedef struct tap_line {
    int64_t pixel, lo, hi;
} tap_line;

static tap_line line_at(const gc_window *w, int64_t image, const int64_t *place, int64_t line)
{
    tap_line t = {0, 0, 0};
    int64_t z = place[0] * w->stride[0] - w->pad_begin[0] + line / w->kernel[1] * w->dilation[0];
    int64_t y = place[1] * w->stride[1] - w->pad_begin[1] + line % w->kernel[1] * w->dilation[1];
    int64_t x = place[2] * w->stride[2] - w->pad_begin[2], d = w->dilation[2];
    if (z < 0 || z >= w->in[0] || y < 0 || y >= w->in[1] || x >= w->in[2]) {
        return t;
    }
    t.pixel = ((image * w->in[0] + z) * w->in[1] + y) * w->in[2] + x;
    t.lo = x < 0 ? min64((d - 1 - x) / d, w->kernel[2]) : 0;
    t.hi = max64(t.lo, min64(w->kernel[2], (w->in[2] - 1 - x + d) / d));
    return t;
}

static int64_t line_count(const gc_window *w)
{
    return w->kernel[0] * w->kernel[1];
}

/* One line of taps into col[kernel[2]][big_g]. */
static void copy_line(const conv *v, const float *big, tap_line t, float *col)
{
    int64_t step = v->w.dilation[2] * v->big_c, width = v->big_g;
    memset(col, 0, (size_t)(t.lo * width) * sizeof(float));
    memset(col + t.hi * width, 0, (size_t)((v->w.kernel[2] - t.hi) * width) * sizeof(float));
    if (t.lo == t.hi) {
        return;
    }
    if (step == width) {
        memcpy(col + t.lo * width, big + (t.pixel + t.lo) * width, (size_t)((t.hi - t.lo) * width) * sizeof(float));
        return;
    }
    for (int64_t tap = t.lo; tap < t.hi; tap++) {
        memcpy(col + tap * width, big + t.pixel * v->big_c + tap * step, (size_t)width * sizeof(float));
    }
}

static void im2col_task(void *task, uint32_t index)
{
    const conv_job *j = task;
    const conv *v = j->v;
    int64_t first = (int64_t)index * ROW_CHUNK, last = min64(first + ROW_CHUNK, j->count);
    for (int64_t r = first; r < last; r++) {
        int64_t place[3], image = gc_window_split(v->w.out, j->row + r, place);
        for (int64_t line = 0; line < line_count(&v->w); line++) {
            copy_line(v, j->big, line_at(&v->w, image, place, line),
                      j->col + r * v->depth + line * v->w.kernel[2] * v->big_g);
        }
    }
}

/* Adds the columns back; each task has its own channels, so the order of the
   sums is fixed. */
static void col2im_task(void *task, uint32_t index)
{
    const conv_job *j = task;
    const conv *v = j->v;
    int64_t c0 = (int64_t)index * CHANNEL_CHUNK, width = min64(CHANNEL_CHUNK, v->big_g - c0);
    for (int64_t r = 0; r < j->count; r++) {
        int64_t place[3], image = gc_window_split(v->w.out, j->row + r, place);
        for (int64_t line = 0; line < line_count(&v->w); line++) {
            tap_line t = line_at(&v->w, image, place, line);
            const float *col = j->col + r * v->depth + line * v->w.kernel[2] * v->big_g + c0;
            for (int64_t tap = t.lo; tap < t.hi; tap++) {
                float *to = j->big + (t.pixel + tap * v->w.dilation[2]) * v->big_c + c0;
                for (int64_t k = 0; k < width; k++) {
                    to[k] += col[tap * v->big_g + k];
                }
            }
        }
    }
}

/* ---- depthwise: weights [taps][channels] ---- */

static void depthwise_gather_task(void *task, uint32_t index)
{
    const conv_job *j = task;
    const conv *v = j->v;
    int64_t n = v->big_c, first = (int64_t)index * ROW_CHUNK, last = min64(first + ROW_CHUNK, j->count);
    for (int64_t r = first; r < last; r++) {
        int64_t place[3], image = gc_window_split(v->w.out, r, place);
        float *to = j->small + r * n;
        for (int64_t line = 0; line < line_count(&v->w); line++) {
            tap_line t = line_at(&v->w, image, place, line);
            for (int64_t tap = t.lo; tap < t.hi; tap++) {
                const float *from = j->big + (t.pixel + tap * v->w.dilation[2]) * n;
                const float *w = j->weights + (line * v->w.kernel[2] + tap) * n;
                for (int64_t k = 0; k < n; k++) {
                    to[k] += from[k] * w[k];
                }
            }
        }
    }
}

static void depthwise_scatter_task(void *task, uint32_t index)
{
    const conv_job *j = task;
    const conv *v = j->v;
    int64_t n = v->big_c, c0 = (int64_t)index * CHANNEL_CHUNK, width = min64(CHANNEL_CHUNK, n - c0);
    for (int64_t r = 0; r < j->count; r++) {
        int64_t place[3], image = gc_window_split(v->w.out, r, place);
        const float *from = j->small + r * n + c0;
        for (int64_t line = 0; line < line_count(&v->w); line++) {
            tap_line t = line_at(&v->w, image, place, line);
            for (int64_t tap = t.lo; tap < t.hi; tap++) {
                float *to = j->big + (t.pixel + tap * v->w.dilation[2]) * n + c0;
                const float *w = j->weights + (line * v->w.kernel[2] + tap) * n + c0;
                for (int64_t k = 0; k < width; k++) {
                    to[k] += from[k] * w[k];
                }
            }
        }
    }
}

/* ---- the two maps ---- */

/* ONNX [small_c][big_g][taps] to [small_c][taps][big_g], the order of the
   columns; depthwise to [taps][channels]. */
static void permute_weights(const conv *v, const float *from, float *to)
{
    int64_t rows = v->depthwise ? 1 : v->small_c, width = v->depthwise ? v->big_c : v->big_g;
    for (int64_t r = 0; r < rows; r++, from += width * v->w.taps, to += width * v->w.taps) {
        for (int64_t tap = 0; tap < v->w.taps; tap++) {
            for (int64_t k = 0; k < width; k++) {
                to[tap * width + k] = from[k * v->w.taps + tap];
            }
        }
    }
}

static void fill(float *to, int64_t pixels, int64_t channels, const float *bias)
{
    if (!bias) {
        memset(to, 0, (size_t)(pixels * channels) * sizeof(float));
        return;
    }
    for (int64_t p = 0; p < pixels; p++) {
        memcpy(to + p * channels, bias, (size_t)channels * sizeof(float));
    }
}

static gc_status gather_block(const gc_ctx *ctx, const conv *v, conv_job *j, int64_t group, float *gemm_work)
{
    const float *w = j->weights + group * v->small_g * v->depth, *a = j->col;
    float *to = j->small + j->row * v->small_c + group * v->small_g;
    int64_t a_row = v->depth;
    if (v->pointwise) {
        a = j->big + j->row * v->big_c;
        a_row = v->big_c;
    } else {
        GC_TRY(gc_parallel(ctx, im2col_task, j, chunks(j->count, ROW_CHUNK)));
    }
    return gc_gemm(ctx, j->count, v->small_g, v->depth, a, a_row, 1, w, 1, v->depth, j->bias ? 1.0f : 0.0f, to,
                   v->small_c, gemm_work);
}

static gc_status scatter_block(const gc_ctx *ctx, const conv *v, conv_job *j, int64_t group, float *gemm_work)
{
    const float *w = j->weights + group * v->small_g * v->depth;
    const float *a = j->small + j->row * v->small_c + group * v->small_g;
    if (v->pointwise) {
        return gc_gemm(ctx, j->count, v->depth, v->small_g, a, v->small_c, 1, w, v->depth, 1, 1.0f,
                       j->big + j->row * v->big_c, v->big_c, gemm_work);
    }
    GC_TRY(gc_gemm(ctx, j->count, v->depth, v->small_g, a, v->small_c, 1, w, v->depth, 1, 0.0f, j->col, v->depth,
                   gemm_work));
    return gc_parallel(ctx, col2im_task, j, chunks(v->big_g, CHANNEL_CHUNK));
}

static gc_status run(gc_op_call *c, const conv *v, bool scatter, float *big, float *small, const float *bias)
{
    float *weights = c->work, *col = weights + v->small_c * v->depth;
    float *gemm_work = col + (v->pointwise || v->depthwise ? 0 : v->block * v->depth);
    conv_job job = {v, big, col, 0, v->rows, weights, bias, small};
    permute_weights(v, c->in[1]->data, weights);
    if (scatter) {
        fill(big, v->w.images * v->w.pixels_in, v->big_c, bias);
    } else if (bias || v->depthwise) {
        fill(small, v->rows, v->small_c, bias);
    }
    if (v->depthwise) {
        return scatter ? gc_parallel(c->ctx, depthwise_scatter_task, &job, chunks(v->big_c, CHANNEL_CHUNK))
                       : gc_parallel(c->ctx, depthwise_gather_task, &job, chunks(v->rows, ROW_CHUNK));
    }
    for (job.row = 0; job.row < v->rows; job.row += v->block) {
        job.count = min64(v->block, v->rows - job.row);
        for (int64_t g = 0; g < v->groups; g++) {
            job.big = big + g * v->big_g;
            GC_TRY(scatter ? scatter_block(c->ctx, v, &job, g, gemm_work)
                           : gather_block(c->ctx, v, &job, g, gemm_work));
        }
    }
    return GRADCAM_OK;
}

/* ---- shapes ---- */

static gc_status check_operands(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    for (int32_t i = 0; i < c->n_in && i < 3; i++) {
        if (c->in[i] && c->in[i]->dtype != GRADCAM_F32) {
            return gc_op_fail(c, GRADCAM_E_DTYPE, "input %d is not float", (int)i);
        }
    }
    if (c->in[0]->ndim < 3 || c->in[0]->ndim > 5) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "input of rank %d (3, 4 or 5 are possible)", (int)c->in[0]->ndim);
    }
    if (c->in[1]->ndim != c->in[0]->ndim) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "weights of rank %d for an input of rank %d", (int)c->in[1]->ndim,
                          (int)c->in[0]->ndim);
    }
    return GRADCAM_OK;
}

/* Channels of both images from the weights and the input. */
static gc_status read_channels(gc_op_call *c, bool transposed, conv *v)
{
    const gc_tensor *x = c->in[0], *w = c->in[1];
    v->groups = gc_attr_int(&c->attrs, "group", 1);
    v->small_c = w->shape[0];
    v->big_g = w->shape[1];
    if (v->groups < 1 || v->small_c < 1 || v->big_g < 1 || v->small_c % v->groups != 0 ||
        !gc_mul_ok(v->big_g, v->groups, &v->big_c)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "weights [%lld, %lld, ...] do not fit %lld groups",
                          (long long)v->small_c, (long long)v->big_g, (long long)v->groups);
    }
    v->small_g = v->small_c / v->groups;
    if (x->shape[1] != (transposed ? v->small_c : v->big_c)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "input has %lld channels, the weights want %lld",
                          (long long)x->shape[1], (long long)(transposed ? v->small_c : v->big_c));
    }
    const gc_tensor *bias = c->n_in > 2 ? c->in[2] : NULL;
    if (bias && (bias->ndim != 1 || bias->shape[0] != (transposed ? v->big_c : v->small_c))) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the bias does not have one value per output channel");
    }
    return GRADCAM_OK;
}

/* Chooses the method and the block size. */
static gc_status plan(gc_op_call *c, conv *v)
{
    const gc_window *w = &v->w;
    bool fits = gc_mul_ok(w->taps, v->big_g, &v->depth) && gc_mul_ok(w->images, w->pixels_out, &v->rows);
    if (!fits || v->depth > INT32_MAX || v->rows > INT64_C(1) << 32) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    v->depthwise = v->big_g == 1 && v->small_g == 1 && v->groups > 1;
    v->pointwise = w->taps == 1;
    for (int i = 0; i < 3; i++) {
        v->pointwise = v->pointwise && w->stride[i] == 1 && w->pad_begin[i] == 0 && w->in[i] == w->out[i];
    }
    v->block = v->pointwise ? v->rows : max64(COL_FLOATS / v->depth, COL_MIN_ROWS);
    if (!v->pointwise) {
        v->block = min64(v->block, max64(COL_MAX_FLOATS / v->depth, 8));
    }
    v->block = max64(1, min64(v->block, v->rows));
    return GRADCAM_OK;
}

static gc_status declare_work(gc_op_call *c, const conv *v)
{
    int64_t weights, col, bytes;
    if (!gc_mul_ok(v->small_c, v->depth, &weights) || !gc_mul_ok(v->block, v->depth, &col)) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    size_t there = gc_gemm_work(v->block, v->small_g, v->depth), back = gc_gemm_work(v->block, v->depth, v->small_g);
    int64_t gemm = v->depthwise ? 0 : (int64_t)(there > back ? there : back);
    col = v->pointwise || v->depthwise ? 0 : col;
    if (!gc_add_ok(weights, col, &bytes) || !gc_add_ok(bytes, gemm, &bytes) || !gc_mul_ok(bytes, 4, &bytes) ||
        (uint64_t)bytes > SIZE_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    c->work_bytes = (size_t)bytes;
    return GRADCAM_OK;
}

static gc_status setup_conv(gc_op_call *c, conv *v)
{
    const gc_tensor *x = c->in[0];
    memset(v, 0, sizeof *v);
    GC_TRY(check_operands(c));
    GC_TRY(read_channels(c, false, v));
    GC_TRY(gc_window_read(c, x->ndim - 2, c->in[1]->shape + 2, &v->w));
    GC_TRY(gc_window_sizes(c, x->ndim, x->shape, v->w.in));
    GC_TRY(gc_window_places(c, false, &v->w));
    GC_TRY(gc_window_count(c, x->shape[0], &v->w));
    return plan(c, v);
}

/* The size of the big image and the pads, ONNX ConvTranspose. */
static gc_status transposed_sizes(gc_op_call *c, gc_window *w)
{
    const gc_attr_value *extra = gc_attr_find(&c->attrs, "output_padding", GRADCAM_ATTR_INTS);
    const gc_attr_value *wanted = gc_attr_find(&c->attrs, "output_shape", GRADCAM_ATTR_INTS);
    size_t spatial = (size_t)(3 - w->first);
    extra = extra && extra->count ? extra : NULL;
    wanted = wanted && wanted->count ? wanted : NULL;
    /* Some exporters write output_shape with batch and channels in front. */
    size_t skip = wanted && wanted->count == spatial + 2 ? 2 : 0;
    if ((extra && extra->count != spatial) || (wanted && wanted->count != spatial + skip)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "output_padding or output_shape has the wrong length");
    }
    bool same = w->auto_pad == GC_PAD_SAME_UPPER || w->auto_pad == GC_PAD_SAME_LOWER;
    for (int i = w->first; i < 3; i++) {
        int64_t add = extra ? extra->ints[i - w->first] : 0, s = w->stride[i];
        if (add < 0 || add > INT32_MAX) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "output_padding is out of range");
        }
        /* At most 2^62 + 2^62 - 2^32: no overflow. */
        int64_t full = s * (w->out[i] - 1) + add + w->dilation[i] * (w->kernel[i] - 1) + 1;
        if (wanted || same) {
            w->in[i] = wanted ? wanted->ints[skip + (size_t)(i - w->first)] : w->out[i] * s;
            int64_t total = w->in[i] < 1 ? 0 : max64(0, full - w->in[i]);
            w->pad_begin[i] = w->auto_pad == GC_PAD_SAME_UPPER ? total / 2 : total - total / 2;
            w->pad_end[i] = total - w->pad_begin[i];
        } else {
            w->in[i] = full - w->pad_begin[i] - w->pad_end[i];
        }
        if (w->in[i] < 1 || w->in[i] > INT32_MAX) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "output size %lld", (long long)w->in[i]);
        }
    }
    return GRADCAM_OK;
}

static gc_status setup_transposed(gc_op_call *c, conv *v)
{
    const gc_tensor *x = c->in[0];
    memset(v, 0, sizeof *v);
    GC_TRY(check_operands(c));
    GC_TRY(read_channels(c, true, v));
    GC_TRY(gc_window_read(c, x->ndim - 2, c->in[1]->shape + 2, &v->w));
    GC_TRY(gc_window_sizes(c, x->ndim, x->shape, v->w.out));
    GC_TRY(transposed_sizes(c, &v->w));
    GC_TRY(gc_window_count(c, x->shape[0], &v->w));
    return plan(c, v);
}

/* Output [N, channels, sizes...]. */
static gc_status set_output(gc_op_call *c, const conv *v, int64_t channels, const int64_t *sizes)
{
    int64_t shape[GRADCAM_MAX_DIMS] = {v->w.images, channels};
    for (int i = v->w.first; i < 3; i++) {
        shape[2 + i - v->w.first] = sizes[i];
    }
    GC_TRY(declare_work(c, v));
    return gc_op_set_output(c, 0, GRADCAM_F32, c->in[0]->ndim, shape);
}

static gc_status refuse_weight_gradient(gc_op_call *c)
{
    for (int32_t i = 1; i < c->n_in; i++) {
        if (c->grad_in[i]) {
            return gc_op_fail(c, GRADCAM_E_NO_GRADIENT, "no gradient to the weights or the bias");
        }
    }
    return GRADCAM_OK;
}

static const float *bias_of(const gc_op_call *c)
{
    return c->n_in > 2 && c->in[2] ? c->in[2]->data : NULL;
}

static gc_status conv_infer(gc_op_call *c)
{
    conv v;
    GC_TRY(setup_conv(c, &v));
    return set_output(c, &v, v.small_c, v.w.out);
}

static gc_status conv_forward(gc_op_call *c)
{
    conv v;
    GC_TRY(setup_conv(c, &v));
    return c->out[0] ? run(c, &v, false, c->in[0]->data, c->out[0]->data, bias_of(c)) : GRADCAM_OK;
}

static gc_status conv_backward(gc_op_call *c)
{
    conv v;
    GC_TRY(refuse_weight_gradient(c));
    GC_TRY(setup_conv(c, &v));
    return c->grad_in[0] ? run(c, &v, true, c->grad_in[0]->data, c->grad_out[0]->data, NULL) : GRADCAM_OK;
}

static gc_status transposed_infer(gc_op_call *c)
{
    conv v;
    GC_TRY(setup_transposed(c, &v));
    return set_output(c, &v, v.big_c, v.w.in);
}

static gc_status transposed_forward(gc_op_call *c)
{
    conv v;
    GC_TRY(setup_transposed(c, &v));
    return c->out[0] ? run(c, &v, true, c->out[0]->data, c->in[0]->data, bias_of(c)) : GRADCAM_OK;
}

static gc_status transposed_backward(gc_op_call *c)
{
    conv v;
    GC_TRY(refuse_weight_gradient(c));
    GC_TRY(setup_transposed(c, &v));
    return c->grad_in[0] ? run(c, &v, false, c->grad_out[0]->data, c->grad_in[0]->data, NULL) : GRADCAM_OK;
}

const gc_op gc_ops_conv[] = {
    {"Conv", conv_infer, conv_forward, conv_backward, GC_OP_CL, 2, 0, 2, 3, 1},
    {"ConvTranspose", transposed_infer, transposed_forward, transposed_backward, GC_OP_CL, 2, 0, 2, 3, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
