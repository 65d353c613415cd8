/* SPDX-License-Identifier: MIT */
/* Kernels of products in bfloat16 with float32 sums: a second small table, of
   which a row is used only where a run asks for it.  The row "plain" is C99 and
   what the others are compared with.
 *
 * Packed weights are the same for all rows: panels of 32 columns in blocks of
 * 16, [panel][block][segment][step][pair of k][column][2], with zeros behind the
 * last column.  A segment of `length` (even) products is cut into
 * steps = ceil(length / 32) equal ones of `depth` products; the last begins
 * at length - depth, and its weights are zero where it overlaps the one before. */
#ifndef GC_KERN_HALF_H
#define GC_KERN_HALF_H

#include <stdbool.h>

#include "kern/kern.h"

typedef uint16_t gc_bf16;

enum { GC_HALF_ROWS = 16, GC_HALF_PARTS = 2, GC_HALF_BLOCK = 16, GC_HALF_COLS = 32, GC_HALF_DEPTH = 32 };

/* Up to two parts of up to 16 rows, which may lie anywhere, times one panel:
   c[at[q] + n * c_step + j] = epilogue(sum over segments g and p < length of
       a[q][i * a_step + segments[g] + p] * b(g, p, j))
   where i < rows[q] is the n-th bit that is set in keep[q]: the other rows of A may be read,
   but are not stored.  The residual lies like c; epi.residual and its step are not looked at.
   Steps are in elements. */
typedef struct gc_half_tile {
    const gc_bf16 *a[GC_HALF_PARTS];
    int64_t at[GC_HALF_PARTS];
    int32_t rows[GC_HALF_PARTS]; /* rows[1] may be 0 */
    uint32_t keep[GC_HALF_PARTS];
    int32_t cols;
    int64_t a_step, c_step;
    const int64_t *segments;
    int64_t n_segments, length;
    const gc_bf16 *b;
    void *c;
    const void *residual;          /* or NULL */
    int32_t c_half, residual_half; /* bfloat16, else float32 */
    const char *ahead;             /* every step fetches ahead_lines cache lines from here */
    int64_t ahead_lines;
    gc_epilogue epi;
    const gc_kern *kern; /* for GC_EPI_MAP */
} gc_half_tile;

/* What a row keeps on the core between the tiles of one task. */
typedef struct gc_half_state {
    uint8_t config[64];
    int32_t rows[GC_HALF_PARTS];
    int32_t depth;
    int32_t configured;
} gc_half_state;

/* One line of a depthwise convolution of bfloat16 with float32 weights and sums:
   to[x * to_pixel + c] = epilogue(sum over taps (r, k) of
       lines[r][(x * stride + k * dilation - pad) * pixel + c] * weights[(r * taps_x + k) * weights_step + c])
   for x < places, where pixels outside of the line and lines that are NULL count as
   zeros.  All taps of the places first_inside .. last_inside lie inside. */
enum { GC_HALF_TAPS = 64 };
typedef struct gc_half_line {
    const gc_bf16 *const *lines;
    const float *weights;
    gc_bf16 *to;
    const void *residual; /* as `to` lies, or NULL */
    int64_t pixel, to_pixel, channels, weights_step, pixels, places;
    int64_t first_inside, last_inside;
    int64_t stride, dilation, pad;
    int64_t taps_y, taps_x; /* GC_HALF_TAPS together at most */
    gc_epilogue epi;
    const gc_kern *kern;
    int32_t residual_half;
} gc_half_line;

/* y[c] = clip(x[c] * factor[c] + shift[c], lo, hi), x and y being bfloat16 or float32. */
typedef struct gc_half_affine {
    const float *factor, *shift;
    float lo, hi;
    int32_t x_half, y_half;
} gc_half_affine;

typedef struct gc_half gc_half;
struct gc_half {
    const char *name;
    double speed;        /* products beside those of float32 in the same time */
    int32_t whole_parts; /* a part of a few rows takes as long as one of 16 */
    void (*tile)(const gc_half_tile *t, gc_half_state *state);
    /* After the last tile of a task: the state is zero again, and so is the core's. */
    void (*end)(gc_half_state *state);
    /* Rounds to the nearest, ties to even. */
    void (*narrow)(int64_t n, const float *x, gc_bf16 *y);
    void (*widen)(int64_t n, const gc_bf16 *x, float *y);
    /* Pixels of `channels` < 16, an odd number, with a zero behind each. */
    void (*narrow_odd)(int64_t pixels, int64_t channels, const float *x, gc_bf16 *y);
    /* As in gc_kern, with bfloat16 weights; x and y stay float32. */
    void (*dots)(const float *x, const gc_bf16 *w, int64_t step, int64_t rows, int64_t n, float *y);
    void (*axpys)(const float *factor, int64_t factor_step, const gc_bf16 *w, int64_t step, int64_t rows, int64_t n,
                  float *y);
    void (*depthwise)(const gc_half_line *d);
    /* As in gc_kern; of none: -infinity. */
    void (*max_taps)(const gc_bf16 *const *taps, int64_t count, int64_t channels, gc_bf16 *y);
    /* y[c] = (sum over t of taps[t][c]) / divisor. */
    void (*mean_taps)(const gc_bf16 *const *taps, int64_t count, int64_t channels, float divisor, gc_bf16 *y);
    void (*affine)(const gc_half_affine *a, int64_t n, const void *x, void *y);
};

/* Products of a step of a segment of `length`, and where step `index` begins. */
int64_t gc_half_steps(int64_t length);
int64_t gc_half_depth(int64_t length);
int64_t gc_half_begin(int64_t length, int64_t index);

/* The row for a set of kernels: the best one of the machine, the plain one for
   the plain set, else NULL.  Asks the system for what the row needs. */
const gc_half *gc_half_of(const gc_kern *kern);
/* Rows that this build has, best first, NULL past the end; supported: this
   machine can run it. */
const gc_half *gc_half_at(int32_t index, int32_t *supported);

/* C[m][n] = A[m][k] B (+ C where add), B[p][j] = b[p * b_row + j * b_col]: either
   step is 1.  Both other matrices are row-major. */
typedef struct gc_half_rows {
    int64_t m, n, k, b_row, b_col;
} gc_half_rows;
gc_status gc_half_few_rows(const gc_ctx *ctx, const gc_half *half, const gc_half_rows *r, const float *a,
                           const gc_bf16 *b, bool add, float *c);
gc_status gc_half_narrow(const gc_ctx *ctx, const gc_half *half, int64_t n, const float *from, gc_bf16 *to);

extern const gc_half gc_half_amx, gc_half_avx512, gc_half_plain;

#endif
