/* SPDX-License-Identifier: MIT */
/* The table of kernels.  Each instruction set has a row, made from the same
   source (isa_body.h); the row "plain" is C99 without extensions and what the
   others are compared with. */
#ifndef GC_KERN_KERN_H
#define GC_KERN_KERN_H

#include <stddef.h>
#include <stdint.h>

#include "base/ctx.h"

/* What happens to a sum before it is stored:
   y = clip(sum + bias[channel] + residual, lo, hi); without GC_EPI_CLIP no
   clip.  NaN stays NaN.  GC_EPI_MAP: whoever calls the kernel then applies `map`
   (gc_kern.map) to what it wrote, while that is in the first cache. */
enum { GC_EPI_CLIP = 1, GC_EPI_MAP = 2 };
typedef struct gc_epilogue {
    const float *bias;     /* [columns rounded up to a panel], or NULL */
    const float *residual; /* at the first result, or NULL */
    int64_t residual_step; /* floats from row to row */
    int32_t flags;
    float lo, hi;
    int32_t map; /* GC_MAP_* */
} gc_epilogue;

/* One tile of a matrix product: rows <= mr, columns <= the panel's width.
   c[i][j] = sum over segments g and p < length of
             a[i * a_step + segments[g] + p] * b[(g * length + p) * width + j]
   where width = cols rounded up to vl, at most nr.  Steps are in floats. */
typedef struct gc_tile {
    const float *a;
    int64_t a_step;
    const int64_t *segments; /* NULL: one segment at offset 0 */
    int64_t n_segments, length;
    const float *b;
    float *c;
    int64_t c_step;
    int32_t rows, cols;
    /* What comes next: every four steps fetch the ahead_lines cache lines from here and
       go on by ahead_step bytes. */
    const char *ahead;
    int64_t ahead_lines, ahead_step;
    gc_epilogue epi;
} gc_tile;

/* Winograd transforms of one tile for all channels (a multiple of vl).
   in:  pixels of (m + 2)^2 at `line` and `pixel` floats from each other, to
        v[xi * plane + channel];
   out: m[xi * plane + channel] to rows x cols pixels of m x m. */
typedef struct gc_wino_tile {
    const float *from;
    float *to;
    int64_t line, pixel, plane, channels;
    int64_t residual_line, residual_pixel;
    int32_t rows, cols;
    gc_epilogue epi;
} gc_wino_tile;

/* One line of a depthwise convolution, channels >= vl:
   to[x * to_pixel + c] = sum over taps (r, k) of
       lines[r][(x * stride + k * dilation) * pixel + c] * weights[r * weights_line + k * weights_step + c]
   for x < width; lines[r] is NULL where the line is padding.  The residual may
   be `to` itself. */
typedef struct gc_depthwise {
    const float *const *lines;
    const float *weights;
    float *to;
    int64_t pixel, to_pixel, channels, width;
    int64_t stride, dilation, weights_line, weights_step;
    int32_t taps_y, taps_x;
    gc_epilogue epi;
} gc_depthwise;

/* Functions of one value; the error is below 4e-7 of the result plus 2^-119;
   of ERF below 5e-7: 7e-8 of the fit and seven roundings where there is no FMA.
   HARD_SWISH, and GELU, its approximation and MISH of a negative x: 4e-7 of x, as they
   are rounded before their factor is clipped or near zero.  The derivatives of the first
   three follow from their values; those of the others, from GC_MAP_ERF on, have the
   error 5e-7 (they reach from -0.2 to 1.5). */
enum {
    GC_MAP_EXP,
    GC_MAP_SIGMOID,
    GC_MAP_TANH,
    GC_MAP_ERF,
    GC_MAP_GELU,
    GC_MAP_GELU_TANH, /* x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) */
    GC_MAP_SILU,
    GC_MAP_MISH,
    GC_MAP_HARD_SWISH
};

typedef struct gc_kern {
    const char *name;
    int32_t vl, nr, mr; /* vector length, panel width, rows of a tile */
    int32_t reserved0;
    void (*tile)(const gc_tile *t);
    void (*wino4_in)(const gc_wino_tile *t);
    void (*wino4_out)(const gc_wino_tile *t);
    void (*wino2_in)(const gc_wino_tile *t);
    void (*wino2_out)(const gc_wino_tile *t);
    void (*depthwise)(const gc_depthwise *d);
    /* y[r] = sum over p < n of x[p] w[r * step + p]. */
    void (*dots)(const float *x, const float *w, int64_t step, int64_t rows, int64_t n, float *y);
    /* y[p] += sum over r of factor[r * factor_step] w[r * step + p]; rows with
       factor 0 are left out (their NaN and infinity as well). */
    void (*axpys)(const float *factor, int64_t factor_step, const float *w, int64_t step, int64_t rows, int64_t n,
                  float *y);
    /* y[i] = f(x[i]), f being GC_MAP_*, for i < n of rows that lie `step` floats
       apart; x may be y. */
    void (*map)(int32_t kind, int64_t rows, int64_t n, const float *x, float *y, int64_t step);
    /* y[i] = g[i] f'(x[i]), f being one of GC_MAP_* from ERF on; y may be g or x. */
    void (*slope)(int32_t kind, int64_t n, const float *x, const float *g, float *y);
    /* y[c] = max over t of taps[t][c], arg[c] (may be NULL) the first such t;
       NaN counts as larger than anything. */
    void (*max_taps)(const float *const *taps, int64_t count, int64_t channels, float *y, int32_t *arg);
    /* y = exp(x - max) / its sum; n >= 1, x may be y. */
    void (*softmax)(int64_t n, const float *x, float *y);
    /* A part of a softmax: *top, -infinity at first, becomes the largest of itself and
       all x, x becomes exp(x - *top) (0 where all is -infinity); their sum.  n is a
       multiple of vl. */
    float (*soften)(int64_t n, float *x, float *top);
    /* Sum of (x - shift)^power, power being 1 or 2. */
    double (*moment)(int64_t n, const float *x, float shift, int32_t power);
} gc_kern;

/* y = map(y) for `rows` runs of n floats, `step` floats apart, if the epilogue says so. */
void gc_kern_map_rows(const gc_kern *kern, const gc_epilogue *epi, int64_t rows, int64_t n, float *y, int64_t step);

/* Tile `index` of `count` fetches its share of the `bytes` at `next`, which the
   tiles after these will read. */
void gc_kern_look_ahead(const float *next, int64_t bytes, int64_t index, int64_t count, gc_tile *t);

/* Rows of a tile over rows of A that lie a_step floats apart: at multiples of
   4 KB more than 7 would chase each other out of the first cache. */
int32_t gc_kern_tile_rows(const gc_kern *kern, int64_t a_step);

/* Rows that this build has, best first, NULL past the end; supported: this
   machine can run it. */
const gc_kern *gc_kern_at(int32_t index, int32_t *supported);
/* The best row this machine can run; `name` (may be NULL) asks for a certain
   one, NULL when it is not there. */
const gc_kern *gc_kern_find(const char *name);
/* The row of a context. */
const gc_kern *gc_kern_of(const gc_ctx *ctx);

#endif
