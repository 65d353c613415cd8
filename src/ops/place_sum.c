/* SPDX-License-Identifier: MIT */
#include "ops/place_sum.h"

#include <string.h>

#include "base/size.h"
#include "kern/kern.h"
#include "ops/window.h"

bool gc_same_places(const gc_places *a, const gc_places *b)
{
    return a->samples == b->samples && a->channels == b->channels && a->places == b->places && a->skip == b->skip &&
           a->last == b->last;
}

/* ---- which way ---- */

/* [samples, channels, spatial...], with all places. */
static bool is_map(const gc_tensor *t, const gc_places *p)
{
    return t->ndim >= 3 && p->last == 0 && p->skip == 0 && t->shape[0] == p->samples && t->shape[1] == p->channels;
}

/* The output is the same with other channels and places. */
static bool set_places(const gc_op_call *c, const gc_places *in, int64_t channels, gc_places *out)
{
    int64_t n = gc_numel(c->out[0]), rows = 0;
    *out = *in;
    out->channels = channels;
    bool fits = gc_mul_ok(in->samples, channels, &rows) && rows > 0 && n % rows == 0;
    out->places = fits ? n / rows : 0;
    return out->places > 0;
}

/* Every window has a tap inside, so every output hands its gradient on. */
static bool windows_reach(const gc_window *w)
{
    for (int i = 0; i < 3; i++) {
        for (int64_t place = 0; place < w->out[i]; place++) {
            int64_t at = place * w->stride[i] - w->pad_begin[i], step = w->dilation[i];
            int64_t tap = at < 0 ? (step - 1 - at) / step : 0;
            if (tap >= w->kernel[i] || at + tap * step >= w->in[i]) {
                return false;
            }
        }
    }
    return true;
}

static bool is_padded(const gc_window *w)
{
    bool padded = false;
    for (int i = 0; i < 3; i++) {
        padded = padded || w->pad_begin[i] != 0 || w->pad_end[i] != 0;
    }
    return padded;
}

static bool read_window(gc_op_call *c, const int64_t *kernel, gc_window *w)
{
    const gc_tensor *x = c->in[0];
    memset(w, 0, sizeof *w);
    return x->ndim <= 5 && gc_window_read(c, x->ndim - 2, kernel, w) == GRADCAM_OK &&
           gc_window_sizes(c, x->ndim, x->shape, w->in) == GRADCAM_OK &&
           gc_window_places(c, gc_attr_int(&c->attrs, "ceil_mode", 0) != 0, w) == GRADCAM_OK;
}

/* An average divides by the taps inside, unless it counts those in a padding. */
static gc_sums_way pool_way(gc_op_call *c, int32_t k, const gc_places *in, gc_places *out)
{
    gc_window w;
    if (k != 0 || !is_map(c->in[0], in) || (c->n_out > 1 && c->out[1] != NULL) || !read_window(c, NULL, &w) ||
        !windows_reach(&w) || (gc_attr_int(&c->attrs, "count_include_pad", 0) != 0 && is_padded(&w))) {
        return GC_SUMS_NONE;
    }
    return set_places(c, in, in->channels, out) ? GC_SUMS_SAME : GC_SUMS_NONE;
}

static gc_sums_way global_way(gc_op_call *c, int32_t k, const gc_places *in, gc_places *out)
{
    return k == 0 && is_map(c->in[0], in) && set_places(c, in, in->channels, out) ? GC_SUMS_SAME : GC_SUMS_NONE;
}

/* The mean over some or all dimensions of places. */
static gc_sums_way mean_way(gc_op_call *c, int32_t k, const gc_places *in, gc_places *out)
{
    int64_t axes[GRADCAM_MAX_DIMS];
    int32_t count = 0, ndim = c->in[0]->ndim, channel = in->last ? ndim - 1 : 1;
    bool ok = k == 0 && in->skip == 0 && ndim >= 3 && c->in[0]->shape[0] == in->samples &&
              c->in[0]->shape[channel] == in->channels &&
              gc_op_ints(c, "axes", 1, axes, GRADCAM_MAX_DIMS, &count) == GRADCAM_OK && count > 0;
    for (int32_t i = 0; ok && i < count; i++) {
        int64_t axis = axes[i] < 0 ? axes[i] + ndim : axes[i];
        ok = axis != 0 && axis != channel;
    }
    return ok && set_places(c, in, in->channels, out) ? GC_SUMS_SAME : GC_SUMS_NONE;
}

/* The elements keep their order. */
static gc_sums_way view_way(gc_op_call *c, int32_t k, const gc_places *in, gc_places *out)
{
    *out = *in;
    return k == 0 && c->out[0] != NULL && gc_numel(c->out[0]) == gc_numel(c->in[0]) ? GC_SUMS_SAME : GC_SUMS_NONE;
}

/* Dimensions of more than one element stay in their order. */
static gc_sums_way transpose_way(gc_op_call *c, int32_t k, const gc_places *in, gc_places *out)
{
    int64_t perm[GRADCAM_MAX_DIMS], last = -1;
    int32_t count = 0;
    bool ok = gc_op_ints(c, "perm", -1, perm, GRADCAM_MAX_DIMS, &count) == GRADCAM_OK && count == c->in[0]->ndim;
    for (int32_t i = 0; ok && i < count; i++) {
        bool one = c->in[0]->shape[perm[i]] == 1;
        ok = one || perm[i] > last;
        last = one ? last : perm[i];
    }
    return ok ? view_way(c, k, in, out) : GC_SUMS_NONE;
}

static gc_sums_way add_way(gc_op_call *c, int32_t k, const gc_places *in, gc_places *out)
{
    *out = *in;
    return gc_numel(c->out[0]) == gc_numel(c->in[k]) ? GC_SUMS_SAME : GC_SUMS_NONE;
}

/* 1x1, any stride, no padding: each place that is read is read once. */
static gc_sums_way conv_way(gc_op_call *c, int32_t k, const gc_places *in, gc_places *out)
{
    gc_window w;
    const gc_tensor *f = c->in[1];
    int64_t taps = gc_shape_numel(f->ndim - 2, f->shape + 2);
    if (k != 0 || taps != 1 || !is_map(c->in[0], in) || f->shape[1] != in->channels || !gc_is_constant(f) ||
        !read_window(c, f->shape + 2, &w) || is_padded(&w)) {
        return GC_SUMS_NONE;
    }
    return set_places(c, in, f->shape[0], out) ? GC_SUMS_PRODUCT : GC_SUMS_NONE;
}

/* Rows of B are inputs, its columns outputs. */
typedef struct matrix {
    int64_t rows, columns, row, column; /* the last two: strides */
    float factor;
} matrix;

static bool read_matrix(const gc_op_call *c, matrix *m)
{
    const gc_tensor *b = c->in[1];
    bool gemm = strcmp(c->op_name, "Gemm") == 0, turned = gemm && gc_attr_int(&c->attrs, "transB", 0) != 0;
    if (b->ndim != 2 || b->dtype != GRADCAM_F32 || (gemm && gc_attr_int(&c->attrs, "transA", 0) != 0)) {
        return false;
    }
    m->rows = b->shape[turned ? 1 : 0];
    m->columns = b->shape[turned ? 0 : 1];
    m->row = turned ? 1 : m->columns;
    m->column = turned ? m->rows : 1;
    m->factor = gemm ? gc_attr_float(&c->attrs, "alpha", 1.0f) : 1.0f;
    return true;
}

/* A row holds the channels of a place, or a whole sample. */
static gc_sums_way product_way(gc_op_call *c, int32_t k, const gc_places *in, gc_places *out)
{
    matrix m;
    const gc_tensor *a = c->in[0];
    if (k != 0 || !gc_is_constant(c->in[1]) || !read_matrix(c, &m) || a->ndim < 2 || a->shape[a->ndim - 1] != m.rows ||
        m.rows != (in->last ? in->channels : in->channels * in->places) || (!in->last && in->skip != 0)) {
        return GC_SUMS_NONE;
    }
    return set_places(c, in, m.columns, out) ? GC_SUMS_PRODUCT : GC_SUMS_NONE;
}

static gc_sums_way relu_way(gc_op_call *c, int32_t k, const gc_places *in, gc_places *out)
{
    *out = *in;
    return k == 0 && is_map(c->in[0], in) ? GC_SUMS_COUNT : GC_SUMS_NONE;
}

gc_sums_way gc_sums_way_of(gc_op_call *c, int32_t k, const gc_places *in, gc_places *out)
{
    static const struct {
        const char *op;
        gc_sums_way (*way)(gc_op_call *c, int32_t k, const gc_places *in, gc_places *out);
    } known[] = {
        {"MaxPool", pool_way},
        {"AveragePool", pool_way},
        {"GlobalAveragePool", global_way},
        {"GlobalMaxPool", global_way},
        {"ReduceMean", mean_way},
        {"Flatten", view_way},
        {"Reshape", view_way},
        {"Squeeze", view_way},
        {"Unsqueeze", view_way},
        {"Identity", view_way},
        {"Dropout", view_way},
        {"Transpose", transpose_way},
        {"Add", add_way},
        {"Conv", conv_way},
        {"Gemm", product_way},
        {"MatMul", product_way},
        {"Relu", relu_way},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known && c->custom == NULL; i++) {
        if (strcmp(known[i].op, c->op_name) == 0) {
            return known[i].way(c, k, in, out);
        }
    }
    return GC_SUMS_NONE;
}

/* ---- weights ---- */

/* Weights of a convolution lie as they are needed. */
int64_t gc_sums_packed(const gc_op_call *c, const gc_places *in, const gc_places *out)
{
    int64_t floats = 0;
    if (strcmp(c->op_name, "Conv") == 0) {
        return 0;
    }
    bool fits = gc_mul_ok(in->channels, out->channels, &floats) && (uint64_t)floats <= SIZE_MAX / sizeof(float) / 2;
    return fits ? floats : -1;
}

typedef struct pack_job {
    matrix m;
    int64_t channels, places;
    const float *b;
    float *packed;
} pack_job;

/* A row of W: what output `index` has of each channel, at all places together. */
static void pack_task(void *task, uint32_t index)
{
    const pack_job *j = task;
    const float *column = j->b + index * j->m.column;
    float *row = j->packed + index * j->channels;
    for (int64_t k = 0; k < j->channels; k++) {
        double sum = 0.0;
        for (int64_t p = 0; p < j->places; p++) {
            sum += (double)column[(k * j->places + p) * j->m.row];
        }
        row[k] = (float)(sum * (double)j->m.factor);
    }
}

gc_status gc_sums_pack(gc_op_call *c, const gc_places *in, const gc_places *out, float *packed)
{
    pack_job j;
    memset(&j, 0, sizeof j);
    read_matrix(c, &j.m);
    j.channels = in->channels;
    j.places = in->last ? 1 : in->places;
    j.b = c->in[1]->data;
    j.packed = packed;
    gc_status s = out->channels > (int64_t)UINT32_MAX ? GRADCAM_E_LIMIT
                                                      : gc_parallel(c->ctx, pack_task, &j, (uint32_t)out->channels);
    return s == GRADCAM_OK ? s : gc_fail(c->err, s, "the executor failed while weights were prepared");
}

/* ---- sums ---- */

/* Channels of a task; products that are worth several tasks; places that are added up in
   float before the sum goes on in double. */
enum { SLICE = 64, SHARED = 1 << 16, FLOAT_PLACES = 64 };

typedef struct sums_job {
    const gc_kern *kern;
    int64_t samples, channels, slices;
    int64_t rows; /* products: outputs; gradients: places */
    int64_t width;
    const float *from;
    const float *weights;
    float *sums;
    const gc_places *places;
    const gc_tensor *gradient;
} sums_job;

static gc_status run_tasks(const gc_ctx *ctx, gc_task_fn fn, sums_job *j, bool share)
{
    j->kern = gc_kern_of(ctx);
    j->width = share || j->channels < SLICE ? SLICE : j->channels;
    j->slices = (j->channels + j->width - 1) / j->width;
    int64_t tasks = j->samples * j->slices;
    if (share) {
        return tasks > (int64_t)UINT32_MAX ? GRADCAM_E_LIMIT : gc_parallel(ctx, fn, j, (uint32_t)tasks);
    }
    for (int64_t i = 0; i < tasks; i++) {
        fn(j, (uint32_t)i);
    }
    return GRADCAM_OK;
}

static void product_task(void *task, uint32_t index)
{
    const sums_job *j = task;
    int64_t n = index / j->slices, first = index % j->slices * j->width;
    j->kern->axpys(j->from + n * j->rows, 1, j->weights + first, j->channels, j->rows,
                   min64(j->width, j->channels - first), j->sums + n * j->channels + first);
}

static int64_t count_live(const float *v, int64_t n)
{
    int64_t live = 0;
    for (int64_t i = 0; i < n; i++) {
        live += v[i] < 0.0f || v[i] > 0.0f || v[i] != v[i];
    }
    return live;
}

gc_status gc_sums_product(const gc_ctx *ctx, const gc_places *in, const gc_places *out, const float *weights,
                          const float *out_sums, float *sums)
{
    sums_job j;
    memset(&j, 0, sizeof j);
    j.samples = in->samples;
    j.channels = in->channels;
    j.rows = out->channels;
    j.from = out_sums;
    j.weights = weights;
    j.sums = sums;
    /* As many whatever the number of threads: each sum is one sum in one order. */
    return run_tasks(ctx, product_task, &j, count_live(out_sums, j.samples * j.rows) * j.channels >= SHARED);
}

/* Elements from the first to that number `place` of a channel. */
static int64_t place_at(const gc_tensor *t, int32_t first, int32_t end, int64_t place)
{
    int64_t at = 0;
    for (int32_t i = end - 1; i >= first; i--) {
        at += place % t->shape[i] * t->strides[i];
        place /= t->shape[i];
    }
    return at;
}

static bool is_positive(const gc_tensor *t, int64_t at)
{
    if (t->dtype == GRADCAM_BF16) {
        return ((const int16_t *)t->data)[at] > 0; /* the sign, and not all zeros */
    }
    return ((const float *)t->data)[at] > 0.0f;
}

void gc_sums_count(const gc_places *p, gc_rule rule, const gc_tensor *y, const float *out_sums, float *sums)
{
    for (int64_t i = 0; i < p->samples * p->channels; i++) {
        float g = out_sums[i];
        int64_t at = i / p->channels * y->strides[0] + i % p->channels * y->strides[1], count = 0;
        bool stopped = rule != GRADCAM_RULE_PLAIN && !(g > 0.0f);
        if (stopped || count_live(&g, 1) == 0) {
            continue;
        }
        for (int64_t k = 0; k < p->places && rule != GRADCAM_RULE_DECONVNET; k++) {
            count += is_positive(y, at + place_at(y, 2, y->ndim, k));
        }
        count = rule == GRADCAM_RULE_DECONVNET ? p->places : count;
        sums[i] += g * ((float)count / (float)p->places);
    }
}

/* How a gradient is walked: its strides where they are regular. */
typedef struct walk {
    int64_t sample, channel, place;
    bool regular;
} walk;

static walk walk_of(const gc_places *p, const gc_tensor *t)
{
    int64_t all = p->channels * p->places;
    if (gc_is_row(t)) {
        return p->last ? (walk){all, 1, p->channels, true} : (walk){all, p->places, 1, true};
    }
    if (t->ndim >= 3 && gc_is_cl(t) && is_map(t, p)) {
        return (walk){all, 1, p->channels, true};
    }
    return (walk){0, 0, 0, false};
}

/* Places first .. first + count of the channels, one by one. */
static void add_places(const sums_job *j, const walk *w, int64_t n, int64_t channel, int64_t width, int64_t first,
                       int64_t count, float *sum)
{
    static const float one = 1.0f;
    const gc_places *p = j->places;
    const float *g = j->gradient->data;
    if (w->regular && w->channel == 1) {
        j->kern->axpys(&one, 0, g + n * w->sample + first * w->place + channel, w->place, count, width, sum);
        return;
    }
    for (int64_t k = channel; k < channel + width; k++) {
        for (int64_t q = first; q < first + count; q++) {
            int64_t flat = p->last ? (n * p->places + q) * p->channels + k : (n * p->channels + k) * p->places + q;
            int64_t at = w->regular ? n * w->sample + k * w->channel + q * w->place
                                    : place_at(j->gradient, 0, j->gradient->ndim, flat);
            sum[k - channel] += g[at];
        }
    }
}

static void gradient_task(void *task, uint32_t index)
{
    const sums_job *j = task;
    const gc_places *p = j->places;
    const walk w = walk_of(p, j->gradient);
    int64_t n = index / j->slices, channel = index % j->slices * SLICE, width = min64(SLICE, p->channels - channel);
    double total[SLICE] = {0.0};
    for (int64_t q = p->skip; q < p->places; q += FLOAT_PLACES) {
        float sum[SLICE] = {0.0f};
        add_places(j, &w, n, channel, width, q, min64(FLOAT_PLACES, p->places - q), sum);
        for (int64_t k = 0; k < width; k++) {
            total[k] += (double)sum[k];
        }
    }
    for (int64_t k = 0; k < width; k++) {
        j->sums[n * p->channels + channel + k] = (float)total[k];
    }
}

gc_status gc_sums_of(const gc_ctx *ctx, const gc_places *p, const gc_tensor *gradient, float *sums)
{
    sums_job j;
    memset(&j, 0, sizeof j);
    j.samples = p->samples;
    j.channels = p->channels;
    j.rows = p->places;
    j.sums = sums;
    j.places = p;
    j.gradient = gradient;
    if (p->places == 1 && gc_is_row(gradient)) {
        memcpy(sums, gradient->data, (size_t)(p->samples * p->channels) * sizeof *sums);
        return GRADCAM_OK;
    }
    return run_tasks(ctx, gradient_task, &j, true);
}
