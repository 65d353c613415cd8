/* SPDX-License-Identifier: MIT */
/* Whole convolutions by every method that fits: weights are packed, one gather
   is run, every float of the output is looked at. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kern/conv.h"

typedef struct conv {
    gc_gather g;
    gc_conv_weights w;
    gc_epilogue epi;
    const float *in;
    const void *in_data; /* what is run: `in`, or the same in bfloat16 */
    gc_epilogue run_epi; /* likewise */
    bool round_in, round_weights;
    int64_t in_pixels, out_pixels, out_floats;
} conv;

/* ---- what may be asked for ---- */

/* One dimension: a forward pass, or one residue of a gradient with a stride. */
static void choose_dim(gc_conv_dim *d, int64_t most, int64_t *kernel)
{
    memset(d, 0, sizeof *d);
    bool forward = check_chance(2);
    d->in = check_between(1, 11);
    d->stride = check_between(1, forward ? 3 : 1);
    d->dilation = check_between(1, check_chance(2) ? 1 : 3);
    d->taps = check_between(1, check_chance(5) ? 7 : 3);
    d->pad = check_between(-3, d->taps * d->dilation + 1);
    d->places = check_between(1, most);
    int64_t step = forward ? 1 : check_between(1, 3), first = check_between(0, step - 1);
    d->tap_step = forward ? 1 : -step;
    *kernel = first + (d->taps - 1) * step + 1 + check_between(0, forward ? 0 : step - 1);
    d->tap_first = forward ? 0 : first + (d->taps - 1) * step;
    if (check_chance(3)) { /* no padding in any place: the image is read where it lies */
        d->pad = check_between(-2, 0);
        d->in = (d->places - 1) * d->stride + (d->taps - 1) * d->dilation + 1 - d->pad + check_between(0, 2);
    }
    d->out_step = forward ? 1 : check_between(1, 3);
    d->out_first = check_between(0, d->out_step - 1);
    d->out = d->out_first + (d->places - 1) * d->out_step + 1 + check_between(0, d->out_step - 1);
}

static void no_dim(gc_conv_dim *d, int64_t *kernel)
{
    static const gc_conv_dim none = {1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 1};
    *d = none;
    *kernel = 1;
}

static void choose_sizes(conv *c, bool depthwise)
{
    gc_gather *g = &c->g;
    int64_t rank = check_between(1, 3), vl = g->kern->vl;
    for (int i = 0; i < 3; i++) {
        if (i < 3 - rank) {
            no_dim(&g->dim[i], &c->w.kernel[i]);
        } else {
            choose_dim(&g->dim[i], rank == 3 ? 4 : 9, &c->w.kernel[i]);
        }
    }
    if (check_chance(8)) { /* 1 x 1: all images are one line */
        for (int i = 0; i < 3; i++) {
            no_dim(&g->dim[i], &c->w.kernel[i]);
            g->dim[i].in = g->dim[i].places = g->dim[i].out = i < 3 - rank ? 1 : check_between(1, 6);
        }
    }
    if (depthwise && g->half == NULL && check_chance(12)) { /* more lines of taps than are summed at once */
        gc_conv_dim *d = &g->dim[1];
        no_dim(d, &c->w.kernel[1]);
        d->in = 40;
        d->taps = c->w.kernel[1] = check_between(33, 70);
        d->pad = check_between(0, 40);
        d->places = d->out = 3;
    }
    g->images = check_between(1, 3);
    g->groups = depthwise ? check_between(vl, 3 * vl + 1) : check_between(1, check_chance(2) ? 1 : 4);
    g->in_c = depthwise ? 1 : check_between(1, check_chance(3) ? 40 : 9);
    if (g->half != NULL && !depthwise) { /* around the depth of a step; in groups products come in pairs */
        g->in_c = check_chance(4) ? check_between(30, 70) : g->in_c;
        g->in_c += g->groups > 1 ? g->in_c % 2 : 0;
    }
    g->out_c = depthwise ? 1 : check_between(1, check_chance(3) ? 2 * g->kern->nr + 3 : g->kern->nr);
}

enum { SLICED = 4 }; /* cases of many channels; those after them are large images, then deep panels */

/* So many channels that they are taken in slices: around the sizes of a slice
   and of a block of places. */
static void choose_sliced(conv *c, int64_t index)
{
    static const int64_t channels[] = {2047, 512, 1536, 1025};
    gc_gather *g = &c->g;
    for (int i = 0; i < 3; i++) {
        no_dim(&g->dim[i], &c->w.kernel[i]);
    }
    g->dim[2].in = g->dim[2].places = g->dim[2].out = 224 + index % 2;
    g->images = g->groups = 1;
    g->in_c = channels[index];
    g->out_c = 4 * g->kern->nr + check_between(0, 3);
}

/* So large an image that it is padded a strip of lines at a time. */
static void choose_strips(conv *c)
{
    gc_gather *g = &c->g;
    no_dim(&g->dim[0], &c->w.kernel[0]);
    for (int i = 1; i < 3; i++) {
        gc_conv_dim *d = &g->dim[i];
        no_dim(d, &c->w.kernel[i]);
        d->in = i == 1 ? 53 : 170;
        d->taps = c->w.kernel[i] = 3;
        d->stride = check_between(1, 2);
        d->dilation = check_between(1, 2);
        d->pad = check_between(1, 3);
        d->places = d->out = (d->in + d->pad - 2 * d->dilation) / d->stride;
    }
    g->images = check_between(1, 2);
    g->groups = 1;
    g->in_c = 70;
    g->out_c = check_between(1, 3);
}

/* Pixels so wide that they go by chunks, weights so large that several small images share them, the
   last of them by itself. */
static void choose_wide(conv *c, int64_t index)
{
    gc_gather *g = &c->g;
    no_dim(&g->dim[0], &c->w.kernel[0]);
    for (int i = 1; i < 3; i++) {
        gc_conv_dim *d = &g->dim[i];
        no_dim(d, &c->w.kernel[i]);
        d->in = check_between(13, 15);
        d->taps = c->w.kernel[i] = 3;
        d->pad = 1;
        d->stride = index % 2 + 1;
        d->places = d->out = (d->in - 1) / d->stride + 1;
    }
    g->images = 3;
    g->groups = 1;
    g->in_c = index % 3 == 1 ? 510 : 512;
    g->out_c = check_between(57, 65);
}

/* So deep a panel of weights, just over 320 KB, that its taps go in parts. */
static void choose_deep(conv *c)
{
    gc_gather *g = &c->g;
    no_dim(&g->dim[0], &c->w.kernel[0]);
    for (int i = 1; i < 3; i++) {
        gc_conv_dim *d = &g->dim[i];
        no_dim(d, &c->w.kernel[i]);
        d->in = check_between(5, 7);
        d->taps = c->w.kernel[i] = 3;
        d->stride = check_between(1, 2);
        d->pad = check_between(0, 1);
        d->places = d->out = (d->in + 2 * d->pad - 3) / d->stride + 1;
    }
    g->images = g->groups = 1;
    g->in_c = (320 << 10) / (9 * g->kern->nr * (int64_t)sizeof(float)) + check_between(1, 4);
    g->out_c = 2 * g->kern->nr + check_between(-3, 3);
}

/* 3 x 3 taps at stride 1, whole vectors of channels. */
static void choose_winograd(conv *c)
{
    gc_gather *g = &c->g;
    int64_t vl = g->kern->vl;
    no_dim(&g->dim[0], &c->w.kernel[0]);
    for (int i = 1; i < 3; i++) {
        gc_conv_dim *d = &g->dim[i];
        no_dim(d, &c->w.kernel[i]);
        d->in = check_between(1, 20);
        d->taps = c->w.kernel[i] = 3;
        d->pad = check_between(-1, 2);
        d->places = d->out = check_between(1, 18);
        d->tap_step = check_chance(2) ? 1 : -1;
        d->tap_first = d->tap_step > 0 ? 0 : 2;
    }
    g->images = check_between(1, 3);
    g->groups = 1;
    g->in_c = (16 + vl - 1) / vl * vl + vl * check_between(0, 3);
    g->out_c = (32 + vl - 1) / vl * vl + vl * check_between(0, 3);
}

/* Memory as tight as the contract allows. */
static void make_operands(conv *c)
{
    gc_gather *g = &c->g;
    const gc_conv_dim *d = g->dim;
    int64_t taps = c->w.kernel[0] * c->w.kernel[1] * c->w.kernel[2], channels = g->groups * g->out_c;
    g->in_pixel = g->groups * g->in_c + (check_chance(2) ? 0 : check_between(1, 9));
    g->out_pixel = channels + (check_chance(2) ? 0 : check_between(1, 9));
    c->in_pixels = g->images * d[0].in * d[1].in * d[2].in;
    c->out_pixels = g->images * d[0].out * d[1].out * d[2].out;
    c->out_floats = (c->out_pixels - 1) * g->out_pixel + channels;
    c->in = check_random_buffer((c->in_pixels - 1) * g->in_pixel + g->groups * g->in_c);
    bool transposed = check_chance(2);
    c->w.group = g->out_c * g->in_c * taps;
    c->w.column_step = transposed ? taps : g->in_c * taps;
    c->w.channel_step = transposed ? g->out_c * taps : taps;
    c->w.data = check_random_buffer(g->groups * c->w.group);
    check_epilogue(&c->epi, gc_conv_bias_floats(g), c->out_floats, NULL);
    if (check_chance(4)) {
        c->epi.flags |= GC_EPI_MAP;
        c->epi.map = (int32_t)check_between(GC_MAP_SIGMOID, GC_MAP_HARD_SWISH);
    }
}

/* The same numbers in bfloat16, up to the very end of the buffer. */
static const void *in_half(const float *from, int64_t n)
{
    gc_bf16 *to = (gc_bf16 *)(void *)check_buffer((n + 1) / 2, 1) + n % 2;
    for (int64_t i = 0; i < n; i++) {
        to[i] = check_narrow(from[i]);
    }
    return to;
}

static void make_half(conv *c, bool depthwise)
{
    gc_gather *g = &c->g;
    g->in_half = depthwise || check_chance(2);
    g->out_half = depthwise || check_chance(2);
    g->residual_half = check_chance(2);
    c->round_in = true;
    c->round_weights = !depthwise;
    if (g->in_half) {
        c->in_data = in_half(c->in, (c->in_pixels - 1) * g->in_pixel + g->groups * g->in_c);
    }
    if (c->epi.residual != NULL && g->residual_half) {
        float *p = (float *)(uintptr_t)c->epi.residual;
        c->run_epi.residual = in_half(p, c->out_floats);
        for (int64_t i = 0; i < c->out_floats; i++) {
            p[i] = check_widen(check_narrow(p[i]));
        }
    }
}

/* ---- what must come out ---- */

static double factor_of(float x, bool rounded)
{
    return (double)(rounded ? check_widen(check_narrow(x)) : x);
}

/* The place of an output coordinate, or -1 where the gather writes nothing. */
static int64_t place_of(const gc_conv_dim *d, int64_t out)
{
    int64_t at = out - d->out_first;
    return at < 0 || at % d->out_step != 0 || at / d->out_step >= d->places ? -1 : at / d->out_step;
}

static double term(const conv *c, const int64_t *at, int64_t image, int64_t column, int64_t channel, int64_t tap)
{
    const gc_gather *g = &c->g;
    int64_t pixel = image, number = 0, group = column / g->out_c;
    int64_t taps[3] = {tap / g->dim[2].taps / g->dim[1].taps, tap / g->dim[2].taps % g->dim[1].taps,
                       tap % g->dim[2].taps};
    for (int i = 0; i < 3; i++) {
        const gc_conv_dim *d = &g->dim[i];
        int64_t x = at[i] * d->stride + taps[i] * d->dilation - d->pad;
        if (x < 0 || x >= d->in) {
            return 0.0;
        }
        pixel = pixel * d->in + x;
        number = number * c->w.kernel[i] + d->tap_first + taps[i] * d->tap_step;
    }
    int64_t weight = group * c->w.group + column % g->out_c * c->w.column_step + channel * c->w.channel_step + number;
    return factor_of(c->in[pixel * g->in_pixel + group * g->in_c + channel], c->round_in) *
           factor_of(c->w.data[weight], c->round_weights);
}

static double plain_sum(const conv *c, const int64_t *at, int64_t image, int64_t column, double *size)
{
    const gc_gather *g = &c->g;
    double sum = 0.0;
    *size = 0.0;
    for (int64_t tap = 0; tap < g->dim[0].taps * g->dim[1].taps * g->dim[2].taps; tap++) {
        for (int64_t channel = 0; channel < g->in_c; channel++) {
            double product = term(c, at, image, column, channel, tap);
            sum += product;
            *size += fabs(product);
        }
    }
    return sum;
}

/* Winograd's sum with every term by its magnitude, |A| (|G||g||G| . |B||d||B|) |A|:
   the factors of the weights for all, those of the pixels and the sums over
   channels of the tile that was asked for last. */
enum { MOST_C = 80, PLANES = 36 };
typedef struct magnitudes {
    double u[PLANES][MOST_C][MOST_C], sum[PLANES][MOST_C];
    int64_t image, y, x;
    check_wino w;
} magnitudes;

/* to[i * size + j] = sum of |left[i][y]| |d[y][x]| |left[j][x]|. */
static void both_sides(int size, int n, const double *left, int step, double d[6][6], double *to)
{
    double half[6][6] = {{0.0}};
    for (int i = 0; i < size * n; i++) {
        for (int y = 0; y < n; y++) {
            half[i / n][i % n] += fabs(left[i / n * step + y] * d[y][i % n]);
        }
    }
    for (int i = 0; i < size * size; i++) {
        to[i] = 0.0;
        for (int x = 0; x < n; x++) {
            to[i] += half[i / size][x] * fabs(left[i % size * step + x]);
        }
    }
}

static void weigh(const conv *c, magnitudes *t)
{
    const gc_conv_dim *d = c->g.dim;
    double kernel[6][6], planes[PLANES];
    for (int64_t k = 0; k < c->g.in_c * c->g.out_c; k++) {
        int64_t channel = k / c->g.out_c, column = k % c->g.out_c;
        const float *from = c->w.data + column * c->w.column_step + channel * c->w.channel_step;
        for (int i = 0; i < 9; i++) {
            kernel[i / 3][i % 3] = (double)
                from[(d[1].tap_first + i / 3 * d[1].tap_step) * 3 + d[2].tap_first + i % 3 * d[2].tap_step];
        }
        both_sides(t->w.size, 3, t->w.weights[0], 3, kernel, planes);
        for (int i = 0; i < t->w.size * t->w.size; i++) {
            t->u[i][channel][column] = planes[i];
        }
    }
    t->image = -1;
}

static void visit(const conv *c, magnitudes *t)
{
    const gc_gather *g = &c->g;
    int n = t->w.size;
    double d[6][6], planes[PLANES];
    memset(t->sum, 0, sizeof t->sum);
    for (int64_t channel = 0; channel < g->in_c; channel++) {
        for (int i = 0; i < n * n; i++) {
            int64_t y = t->y * t->w.m - g->dim[1].pad + i / n, x = t->x * t->w.m - g->dim[2].pad + i % n;
            bool inside = y >= 0 && y < g->dim[1].in && x >= 0 && x < g->dim[2].in;
            int64_t pixel = (t->image * g->dim[1].in + y) * g->dim[2].in + x;
            d[i / n][i % n] = inside ? (double)c->in[pixel * g->in_pixel + channel] : 0.0;
        }
        both_sides(n, n, t->w.in[0], 6, d, planes);
        for (int i = 0; i < n * n; i++) {
            for (int64_t column = 0; column < g->out_c; column++) {
                t->sum[i][column] += t->u[i][channel][column] * planes[i];
            }
        }
    }
}

static double wino_size(const conv *c, magnitudes *t, const int64_t *at, int64_t image, int64_t column)
{
    int64_t y = at[1] / t->w.m, x = at[2] / t->w.m;
    double size = 0.0;
    if (image != t->image || y != t->y || x != t->x) {
        t->image = image;
        t->y = y;
        t->x = x;
        visit(c, t);
    }
    for (int i = 0; i < t->w.size * t->w.size; i++) {
        size += fabs(t->w.out[at[1] % t->w.m][i / t->w.size] * t->w.out[at[2] % t->w.m][i % t->w.size]) *
                t->sum[i][column];
    }
    return size;
}

/* Roundings besides those of the sum over channels: 3 transforms of two passes
   with at most 4 each, the constants of that of the weights, bias, residual. */
enum { WINO_ROUNDINGS = 28, PACK_ROUNDINGS = 8 };

/* Element `index` of the output, and whether nobody has written it. */
static float element(const conv *c, const void *out, int64_t index, bool *marked)
{
    gc_bf16 mark[2], x;
    float f;
    if (!c->g.out_half) {
        memcpy(&f, (const float *)out + index, sizeof f);
        *marked = check_is_marked(f);
        return f;
    }
    memcpy(mark, &check_mark, sizeof mark);
    memcpy(&x, (const gc_bf16 *)out + index, sizeof x);
    *marked = x == mark[index % 2];
    return check_widen(x);
}

static bool good(const conv *c, magnitudes *w, const void *out, int64_t pixel, int64_t column)
{
    bool marked;
    const gc_gather *g = &c->g;
    int64_t at[3], rest = pixel, index = pixel * g->out_pixel + column;
    for (int i = 2; i >= 0; i--) {
        at[i] = place_of(&g->dim[i], rest % g->dim[i].out);
        rest /= g->dim[i].out;
    }
    float got = element(c, out, index, &marked);
    if (column >= g->groups * g->out_c || at[0] < 0 || at[1] < 0 || at[2] < 0) {
        return marked;
    }
    double size, terms = (double)(g->dim[0].taps * g->dim[1].taps * g->dim[2].taps * g->in_c + 2);
    double want = plain_sum(c, at, rest, column, &size);
    if (w != NULL) {
        size = wino_size(c, w, at, rest, column);
        terms = (double)(g->in_c + WINO_ROUNDINGS);
    }
    want = check_finish(&c->epi, want, column, index, &size);
    int kind = (c->epi.flags & GC_EPI_MAP) != 0 ? c->epi.map : -1;
    if (g->out_half) {
        return check_near_half(kind, got, want, terms, size);
    }
    return kind >= 0 ? check_near_mapped(kind, got, want, terms, size) : check_near(got, want, terms, size);
}

/* G g G^T as it was packed: [plane][panel][channel][column of the panel]. */
static void packed_planes(const conv *c, const check_wino *w, const float *packed)
{
    const gc_gather *g = &c->g;
    const gc_conv_dim *d = g->dim;
    int wrong = 0;
    for (int64_t at = 0; at < w->size * w->size * g->in_c * g->out_c; at++) {
        int64_t plane = at / g->in_c / g->out_c, rest = at % (g->in_c * g->out_c);
        int64_t first = rest / (g->in_c * g->kern->nr) * g->kern->nr;
        int64_t width = g->out_c - first < g->kern->nr ? g->out_c - first : g->kern->nr;
        int64_t channel = (rest - first * g->in_c) / width, column = first + (rest - first * g->in_c) % width;
        const float *from = c->w.data + column * c->w.column_step + channel * c->w.channel_step;
        double sum = 0.0, size = 0.0;
        for (int i = 0; i < 9; i++) {
            int64_t y = d[1].tap_first + i / 3 * d[1].tap_step, x = d[2].tap_first + i % 3 * d[2].tap_step;
            double term = w->weights[plane / w->size][i / 3] * w->weights[plane % w->size][i % 3] *
                          (double)from[y * 3 + x];
            sum += term;
            size += fabs(term);
        }
        wrong += !check_near(packed[at], sum, PACK_ROUNDINGS, size);
    }
    check_that(wrong == 0, "wrong transforms of the weights");
}

static const char *const names[] = {"direct", "wino4", "wino2", "depthwise", "half"};

static void describe(const conv *c, gc_conv_method method, int32_t workers)
{
    const gc_gather *g = &c->g;
    char dims[300];
    size_t used = 0;
    for (int i = 0; i < 3; i++) {
        const gc_conv_dim *d = &g->dim[i];
        used += (size_t)snprintf(dims + used, sizeof dims - used, " %d>%d k%d s%d d%d p%d o%d+%d", (int)d->in,
                                 (int)d->places, (int)d->taps, (int)d->stride, (int)d->dilation, (int)d->pad,
                                 (int)d->out_first, (int)d->out_step);
    }
    check_case("%s, %d workers, %d images, %d groups, %d>%d channels,%s", names[method], (int)workers, (int)g->images,
               (int)g->groups, (int)g->in_c, (int)g->out_c, dims);
}

static gc_status run(const gc_ctx *ctx, conv *c, gc_conv_method method, const check_wino *w, int32_t workers,
                     float *out)
{
    int64_t packed_floats = gc_conv_packed(&c->g, method), scratch = gc_conv_scratch(&c->g, method, workers);
    check_that(packed_floats >= 0 && scratch >= 0, "sizes");
    float *packed = check_buffer(packed_floats, 1), *work = check_buffer(scratch, 2);
    gc_status s = gc_conv_pack(ctx, &c->g, method, &c->w, packed);
    if (w != NULL && workers == 1) {
        packed_planes(c, w, packed);
    }
    return s ? s : gc_conv_run(ctx, &c->g, method, c->in_data, packed, &c->run_epi, out, work, workers);
}

static void one(const gc_ctx *one_worker, const gc_ctx *many, gc_conv_method method, const gc_half *half, int64_t large)
{
    conv c;
    static magnitudes w;
    bool wino = method == GC_CONV_WINO4 || method == GC_CONV_WINO2;
    int64_t wrong = 0;
    memset(&c, 0, sizeof c);
    c.g.kern = gc_kern_of(one_worker);
    c.g.half = half;
    if (wino) {
        choose_winograd(&c);
        check_wino_matrices(method == GC_CONV_WINO4 ? 4 : 2, &w.w);
    } else if (half != NULL && large >= 0) {
        choose_wide(&c, large);
    } else if (large > SLICED) {
        choose_deep(&c);
    } else if (large == SLICED) {
        choose_strips(&c);
    } else if (large >= 0) {
        choose_sliced(&c, large);
    } else {
        choose_sizes(&c, method == GC_CONV_DEPTHWISE);
    }
    if (half != NULL && method == GC_CONV_DEPTHWISE && !gc_half_depthwise_fits(&c.g)) {
        return;
    }
    describe(&c, method, 3);
    make_operands(&c);
    c.in_data = c.in;
    c.run_epi = c.epi;
    if (half != NULL) {
        make_half(&c, method == GC_CONV_DEPTHWISE);
    }
    if (wino) {
        weigh(&c, &w);
    }
    float *out = check_marked_buffer(c.out_floats), *again = check_marked_buffer(c.out_floats);
    check_that(run(one_worker, &c, method, wino ? &w.w : NULL, 1, out) == GRADCAM_OK, "fails");
    for (int64_t i = 0; i < c.out_floats; i++) {
        wrong += !good(&c, wino ? &w : NULL, out, i / c.g.out_pixel, i % c.g.out_pixel);
    }
    check_that(wrong == 0, "wrong numbers");
    check_that(run(many, &c, method, NULL, 3, again) == GRADCAM_OK, "fails with three workers");
    check_that(memcmp(out, again, (size_t)c.out_floats * sizeof *out) == 0, "three workers give other bits than one");
    check_intact();
}

void check_conv(const gc_ctx *one_worker, const gc_ctx *many)
{
    for (int i = 0; i < check_rounds(600); i++) {
        one(one_worker, many, GC_CONV_DIRECT, NULL, -1);
    }
    for (int i = 0; i < check_rounds(SLICED); i++) {
        one(one_worker, many, GC_CONV_DIRECT, NULL, i);
        one(one_worker, many, GC_CONV_DIRECT, NULL, SLICED);
        one(one_worker, many, GC_CONV_DIRECT, NULL, SLICED + 1);
    }
    for (int i = 0; i < check_rounds(300); i++) {
        one(one_worker, many, GC_CONV_DEPTHWISE, NULL, -1);
    }
    for (int i = 0; i < check_rounds(5) && gc_kern_of(one_worker)->vl > 1; i++) {
        one(one_worker, many, GC_CONV_WINO4, NULL, -1);
        one(one_worker, many, GC_CONV_WINO2, NULL, -1);
    }
}

void check_half_conv(const gc_ctx *one_worker, const gc_ctx *many, const gc_half *half)
{
    for (int i = 0; i < check_rounds(600); i++) {
        one(one_worker, many, GC_CONV_HALF, half, -1);
    }
    for (int i = 0; i < check_rounds(4); i++) {
        one(one_worker, many, GC_CONV_HALF, half, i);
    }
    for (int i = 0; i < check_rounds(400); i++) {
        one(one_worker, many, GC_CONV_DEPTHWISE, half, -1);
    }
}
