/* SPDX-License-Identifier: MIT */
/* The map from the small image to the big one where few channels come out, or a
   window moves so far that there would be very many passes: all taps of a place
   are one product, [places][small_g] x [small_g][taps * big_g], whose rows are
   then added to the big image.  A band of the big image is one piece of work. */
#include <string.h>

#include "base/size.h"
#include "kern/share.h"
#include "ops/conv.h"

/* Floats of products at a time; passes from which on they are too many; bands of
   an image, each several windows high, as places on their border count twice. */
enum { COL_FLOATS = 32768, MAX_PASSES = 64, MOST_BANDS = 8, BAND_WINDOWS = 6 };

typedef struct columns {
    const gc_conv *v;
    const float *small, *packed, *bias;
    float *big;
    int64_t width, panels; /* floats of a row of products */
    int64_t rows;          /* places whose products are held at once */
    int64_t bands;
    int64_t slot_floats;
    int32_t dim; /* that is cut into bands */
    int32_t reserved0;
} columns;

/* The part of the big image that is written. */
typedef struct box {
    int64_t lo[3], hi[3];
} box;

/* x / y rounded up, at least 0. */
static int64_t ceil_div(int64_t x, int64_t y)
{
    return x <= 0 ? 0 : (x - 1) / y + 1;
}

bool gc_conv_by_columns(const gc_conv *v, bool scatter)
{
    bool depthwise = v->big_g == 1 && v->small_g == 1 && v->groups >= v->kern->vl;
    bool many = v->w.stride[0] * v->w.stride[1] * v->w.stride[2] > MAX_PASSES;
    return scatter && (many || (!depthwise && v->big_g < v->kern->vl && v->w.taps > 1));
}

static bool measure(const gc_conv *v, columns *j)
{
    const gc_window *w = &v->w;
    int64_t nr = v->kern->nr, vl = v->kern->vl, depth = w->taps * v->big_g, last = (depth - 1) % nr + 1;
    memset(j, 0, sizeof *j);
    j->v = v;
    j->panels = ceil_div(depth, nr);
    j->width = (j->panels - 1) * nr + ceil_div(last, vl) * vl;
    j->rows = min64(w->pixels_out, max64(v->kern->mr, COL_FLOATS / j->width));
    for (j->dim = w->first; j->dim < 2 && w->in[j->dim] == 1 && w->out[j->dim] == 1;) {
        j->dim++;
    }
    int64_t window = max64(1, (w->kernel[j->dim] - 1) * w->dilation[j->dim]);
    j->bands = min64(w->in[j->dim], max64(1, min64(MOST_BANDS, w->in[j->dim] / (BAND_WINDOWS * window) / 2 * 2)));
    return gc_mul_ok(j->rows, j->width, &j->slot_floats) && gc_add_ok(j->slot_floats, GC_SHARE_FLOATS, &j->slot_floats);
}

gc_status gc_conv_columns_sizes(const gc_conv *v, gc_conv_need *need)
{
    columns j;
    bool fits = measure(v, &j) && gc_mul_ok(v->small_c, j.width, &need->packed) &&
                gc_mul_ok(j.slot_floats, v->workers, &need->scratch);
    return fits ? GRADCAM_OK : GRADCAM_E_LIMIT;
}

/* ONNX [small_c][big_g][taps] to panels [channel][columns of the panel] of each
   group; column tap * big_g + channel of the big image. */
void gc_conv_columns_pack(const gc_conv *v, const float *weights, float *packed)
{
    columns j;
    (void)measure(v, &j);
    int64_t nr = v->kern->nr, depth = v->w.taps * v->big_g;
    memset(packed, 0, (size_t)(v->small_c * j.width) * sizeof(float));
    for (int64_t s = 0; s < v->small_c; s++) {
        float *group = packed + s / v->small_g * v->small_g * j.width;
        for (int64_t c = 0; c < depth; c++) {
            int64_t first = c / nr * nr, wide = min64(nr, j.width - first);
            group[first * v->small_g + s % v->small_g * wide + c % nr] =
                weights[s * depth + c % v->big_g * v->w.taps + c / v->big_g];
        }
    }
}

/* ---- one band ---- */

/* Panels with taps that reach from the given places into the box. */
static void panels_of(const columns *j, const box *b, int64_t row, int64_t count, int64_t *first, int64_t *end)
{
    const gc_window *w = &j->v->w;
    int64_t d = j->dim, inner = 1, size = j->v->big_g, nr = j->v->kern->nr;
    for (int64_t i = d + 1; i < 3; i++) {
        inner *= w->out[i];
        size *= w->kernel[i];
    }
    int64_t from = row % w->pixels_out / inner % w->out[d], to = (row + count - 1) % w->pixels_out / inner % w->out[d];
    int64_t least = ceil_div(b->lo[d] + w->pad_begin[d] - to * w->stride[d], w->dilation[d]);
    int64_t most = ceil_div(b->hi[d] + w->pad_begin[d] - from * w->stride[d], w->dilation[d]);
    *first = min64(least * size / nr, j->panels);
    *end = min64(ceil_div(most * size, nr), j->panels);
}

static void multiply(const columns *j, const box *b, int64_t group, int64_t row, int64_t count, float *col)
{
    const gc_conv *v = j->v;
    int64_t nr = v->kern->nr, tiles = ceil_div(count, gc_kern_tile_rows(v->kern, v->small_c)), first, end;
    const float *packed = j->packed + group * v->small_g * j->width;
    gc_tile t;
    memset(&t, 0, sizeof t);
    t.a_step = v->small_c;
    t.n_segments = 1;
    t.length = v->small_g;
    t.c_step = j->width;
    panels_of(j, b, row, count, &first, &end);
    for (int64_t i = 0; i < tiles; i++) {
        int64_t at = count * i / tiles;
        t.rows = (int32_t)(count * (i + 1) / tiles - at);
        t.a = j->small + (row + at) * v->small_c + group * v->small_g;
        for (int64_t p = first; p < end; p++) {
            t.cols = (int32_t)min64(nr, j->width - p * nr);
            t.b = packed + p * nr * v->small_g;
            t.c = col + at * j->width + p * nr;
            v->kern->tile(&t);
        }
    }
}

/* The taps of one kernel line, of which tap 0 lies over pixel x of a line. */
static void add_taps(const columns *j, const box *b, int64_t x, const float *restrict col, float *restrict line)
{
    const gc_window *w = &j->v->w;
    int64_t d = w->dilation[2], n = j->v->big_g, step = d * j->v->big_c, lo = 0, hi = w->kernel[2];
    if (x < b->lo[2] || x + (hi - 1) * d >= b->hi[2]) {
        lo = min64(hi, ceil_div(b->lo[2] - x, d));
        hi = max64(lo, min64(hi, ceil_div(b->hi[2] - x, d)));
    }
    float *restrict to = line + x * j->v->big_c;
    if (step == n) { /* neighbouring taps are neighbouring floats */
        for (int64_t k = lo * n; k < hi * n; k++) {
            to[k] += col[k];
        }
        return;
    }
    for (int64_t tap = lo; tap < hi; tap++) {
        for (int64_t k = 0; k < n; k++) {
            to[tap * step + k] += col[tap * n + k];
        }
    }
}

/* `count` neighbouring places of a line.  Windows that overlap are not added one
   right after the other: reading what was just written in part would wait. */
static void add_places(const columns *j, const box *b, int64_t image, const int64_t *place, int64_t count,
                       int64_t group, const float *col)
{
    const gc_conv *v = j->v;
    const gc_window *w = &v->w;
    int64_t apart = ((w->kernel[2] - 1) * w->dilation[2]) / w->stride[2] + 1;
    for (int64_t line = 0; line < w->kernel[0] * w->kernel[1]; line++, col += w->kernel[2] * v->big_g) {
        int64_t z = place[0] * w->stride[0] - w->pad_begin[0] + line / w->kernel[1] * w->dilation[0];
        int64_t y = place[1] * w->stride[1] - w->pad_begin[1] + line % w->kernel[1] * w->dilation[1];
        if (z < b->lo[0] || z >= b->hi[0] || y < b->lo[1] || y >= b->hi[1]) {
            continue;
        }
        float *to = j->big + ((image * w->in[0] + z) * w->in[1] + y) * w->in[2] * v->big_c + group * v->big_g;
        for (int64_t first = 0; first < apart; first++) {
            for (int64_t i = first; i < count; i += apart) {
                add_taps(j, b, (place[2] + i) * w->stride[2] - w->pad_begin[2], col + i * j->width, to);
            }
        }
    }
}

static void add_rows(const columns *j, const box *b, int64_t group, int64_t row, int64_t count, const float *col)
{
    const gc_window *w = &j->v->w;
    for (int64_t done = 0, n; done < count; done += n) {
        int64_t place[3], image = gc_window_split(w->out, row + done, place);
        n = min64(count - done, w->out[2] - place[2]);
        add_places(j, b, image, place, n, group, col + done * j->width);
    }
}

static void fill(const columns *j, int64_t first, int64_t end)
{
    int64_t n = j->v->big_c;
    if (j->bias == NULL) {
        memset(j->big + first * n, 0, (size_t)((end - first) * n) * sizeof(float));
        return;
    }
    for (int64_t p = first; p < end; p++) {
        memcpy(j->big + p * n, j->bias, (size_t)n * sizeof(float));
    }
}

static void band(const void *task, int64_t item, float *slot, int64_t *kept)
{
    const columns *j = task;
    const gc_window *w = &j->v->w;
    int64_t image = item / j->bands, index = item % j->bands, d = j->dim, pixels = 1, places = 1;
    box b = {{0, 0, 0}, {w->in[0], w->in[1], w->in[2]}};
    (void)kept;
    b.lo[d] = w->in[d] * index / j->bands;
    b.hi[d] = w->in[d] * (index + 1) / j->bands;
    for (int64_t i = d + 1; i < 3; i++) {
        pixels *= w->in[i];
        places *= w->out[i];
    }
    fill(j, image * w->pixels_in + b.lo[d] * pixels, image * w->pixels_in + b.hi[d] * pixels);
    int64_t reach = (w->kernel[d] - 1) * w->dilation[d];
    int64_t first = ceil_div(b.lo[d] + w->pad_begin[d] - reach, w->stride[d]);
    int64_t end = min64(w->out[d], ceil_div(b.hi[d] + w->pad_begin[d], w->stride[d]));
    for (int64_t g = 0; g < j->v->groups; g++) {
        for (int64_t at = first * places, n; at < end * places; at += n) {
            n = min64(j->rows, end * places - at);
            multiply(j, &b, g, image * w->pixels_out + at, n, slot);
            add_rows(j, &b, g, image * w->pixels_out + at, n, slot);
        }
    }
}

gc_status gc_conv_columns_run(const gc_ctx *ctx, const gc_conv *v, const float *small, const float *packed,
                              const float *bias, float *big, float *scratch)
{
    columns j;
    (void)measure(v, &j);
    j.small = small;
    j.packed = packed;
    j.bias = bias;
    j.big = big;
    gc_share share = {band, &j, scratch, j.slot_floats, v->w.images * j.bands, v->workers, 0};
    return gc_share_run(ctx, &share);
}
