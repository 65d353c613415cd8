/* SPDX-License-Identifier: MIT */
/* The kernels, once for each instruction set.  The including file defines
 *   TARGET   attribute of the functions
 *   VL, NV   floats in a vector, vectors in a panel; MR rows of a tile
 *   V        the vector type; LD, ST, BC load, store, broadcast; VSEL(m, a, b)
 *            a where m else b; VLT, VEQ, VNE compare, VAND and VOR join masks
 *            of type VM; POW2(t) 2^k where k are the low bits of the float t;
 *            VMAX and VMIN(a, b), if there are such: b where one is NaN;
 *            RECIP_SEED(d), if it is cheap, 1 / d to 12 % for 0 < d < 2^126;
 *            RECIP_NEAR(d), if there is such, to 2^-13; VSCALE(x, n), if there
 *            is such, x 2^n for whole numbers n
 *   ROW      the name of the table row, ROW_NAME its text
 * MR * NV sums, NV of B and one broadcast have to fit into the registers.
 */
#include <math.h>
#include <string.h>

#include "base/compiler.h"
#include "kern/kern.h"

#ifndef VMAX
#define VMAX(a, b) VSEL(VLT(b, a), a, b)
#define VMIN(a, b) VSEL(VLT(a, b), a, b)
#endif

/* NaN stays NaN. */
TARGET static GC_ALWAYS_INLINE V clip(V x, V lo, V hi)
{
    return VMIN(hi, VMAX(lo, x));
}

TARGET static GC_ALWAYS_INLINE V load_or_zero(const float *p, int64_t at)
{
    V x = BC(0.0f);
    if (p != NULL) {
        x = LD(p + at);
    }
    return x;
}

/* n < VL elements; the rest of the result is zero. */
TARGET static GC_ALWAYS_INLINE V load_part(const float *p, int64_t n)
{
    float buffer[VL] = {0};
    memcpy(buffer, p, (size_t)n * sizeof(float));
    return LD(buffer);
}

TARGET static GC_ALWAYS_INLINE void store_part(float *p, V x, int64_t n)
{
#if VL == 1
    (void)n;
    ST(p, x);
#else
    float buffer[VL];
    ST(buffer, x);
    if (n == VL / 2) { /* the common tail, without a call */
        memcpy(p, buffer, VL / 2 * sizeof(float));
    } else {
        memcpy(p, buffer, (size_t)n * sizeof(float));
    }
#endif
}

/* ---- matrix tile ---- */

/* One step k + u of the inner loop.  Rows are reached from every third one, so
   that 14 of them need five pointers. */
TARGET static GC_ALWAYS_INLINE void tile_step(V (*restrict sum)[NV], const char *const *a, ptrdiff_t step,
                                              const float *b, int u, const int rows, const int nv)
{
    V bv[NV];
    GC_UNROLL(8)
    for (int j = 0; j < nv; j++) {
        bv[j] = LD(b + u * nv * VL + j * VL);
    }
    GC_UNROLL(16)
    for (int i = 0; i < rows; i++) {
        float x;
        memcpy(&x, a[i / 3] + (i % 3) * step + u * (int)sizeof(float), sizeof x);
        V av = BC(x);
        GC_UNROLL(8)
        for (int j = 0; j < nv; j++) {
            sum[i][j] += av * bv[j];
        }
    }
}

TARGET static GC_ALWAYS_INLINE void tile_store(const gc_tile *t, V (*restrict sum)[NV], const int rows, const int nv)
{
    const int64_t tail = VL == 1 ? 1 : t->cols - (nv - 1) * VL; /* valid elements of the last vector */
    if (t->epi.residual != NULL) {
        GC_UNROLL(16)
        for (int i = 0; i < rows; i++) {
            const float *from = t->epi.residual + i * t->epi.residual_step;
            GC_UNROLL(8)
            for (int j = 0; j < nv; j++) {
                if (j + 1 < nv || tail == VL) {
                    sum[i][j] += LD(from + j * VL);
                } else {
                    sum[i][j] += load_part(from + j * VL, tail);
                }
            }
        }
    }
    if ((t->epi.flags & GC_EPI_CLIP) != 0) {
        V lo = BC(t->epi.lo), hi = BC(t->epi.hi);
        GC_UNROLL(16)
        for (int i = 0; i < rows; i++) {
            GC_UNROLL(8)
            for (int j = 0; j < nv; j++) {
                sum[i][j] = clip(sum[i][j], lo, hi);
            }
        }
    }
    GC_UNROLL(16)
    for (int i = 0; i < rows; i++) {
        float *to = t->c + i * t->c_step;
        GC_UNROLL(8)
        for (int j = 0; j < nv; j++) {
            if (j + 1 < nv || tail == VL) {
                ST(to + j * VL, sum[i][j]);
            } else {
                store_part(to + j * VL, sum[i][j], tail);
            }
        }
    }
}

TARGET static GC_ALWAYS_INLINE void tile_body(const gc_tile *t, const int rows, const int nv)
{
    V sum[MR][NV];
    ptrdiff_t step = (ptrdiff_t)t->a_step * (ptrdiff_t)sizeof(float);
    const float *b = t->b;
    const char *ahead = t->ahead_lines > 0 ? t->ahead : (const char *)t->b;
    GC_UNROLL(16)
    for (int i = 0; i < rows; i++) {
        GC_PREFETCH_WRITE(t->c + i * t->c_step);
        GC_PREFETCH_WRITE(t->c + i * t->c_step + (nv - 1) * VL);
        GC_UNROLL(8)
        for (int j = 0; j < nv; j++) {
            sum[i][j] = load_or_zero(t->epi.bias, j * VL);
        }
    }
    for (int64_t g = 0; g < t->n_segments; g++) {
        const char *first = (const char *)(t->a + (t->segments != NULL ? t->segments[g] : 0));
        const char *a[(MR + 2) / 3];
        GC_UNROLL(8)
        for (int i = 0; i < (rows + 2) / 3; i++) {
            a[i] = first + 3 * i * step;
        }
        int64_t k = t->length;
        GC_KEEP_LOOP
        for (; k >= 4; k -= 4) {
            tile_step(sum, a, step, b, 0, rows, nv);
            tile_step(sum, a, step, b, 1, rows, nv);
            tile_step(sum, a, step, b, 2, rows, nv);
            tile_step(sum, a, step, b, 3, rows, nv);
            b += 4 * nv * VL;
            GC_KEEP_LOOP
            for (int64_t line = 0; line < t->ahead_lines; line++) {
                GC_PREFETCH_AHEAD(ahead + 64 * line);
            }
            ahead += t->ahead_step;
            GC_UNROLL(8)
            for (int i = 0; i < (rows + 2) / 3; i++) {
                a[i] += 4 * sizeof(float);
            }
        }
        GC_KEEP_LOOP
        for (; k > 0; k--) {
            tile_step(sum, a, step, b, 0, rows, nv);
            b += nv * VL;
            GC_UNROLL(8)
            for (int i = 0; i < (rows + 2) / 3; i++) {
                a[i] += sizeof(float);
            }
        }
    }
    tile_store(t, sum, rows, nv);
}

#define TILE_CASE(n)                                                                                                   \
    case n: tile_body(t, n, nv); break

TARGET static GC_ALWAYS_INLINE void tile_rows(const gc_tile *t, const int nv)
{
    switch (t->rows) {
        TILE_CASE(1);
        TILE_CASE(2);
        TILE_CASE(3);
        TILE_CASE(4);
#if MR > 4
        TILE_CASE(5);
        TILE_CASE(6);
#endif
#if MR > 6
        TILE_CASE(7);
        TILE_CASE(8);
#endif
#if MR > 8
        TILE_CASE(9);
        TILE_CASE(10);
        TILE_CASE(11);
        TILE_CASE(12);
        TILE_CASE(13);
        TILE_CASE(14);
#endif
    default: break;
    }
}
#undef TILE_CASE

#if NV == 2
TARGET static void tile_narrow(const gc_tile *t)
{
    tile_rows(t, 1);
}
#endif

TARGET static void tile(const gc_tile *t)
{
#if NV == 2
    if (t->cols <= VL) {
        tile_narrow(t);
        return;
    }
#endif
    tile_rows(t, NV);
}

#include "kern/isa_wino.h"

/* ---- depthwise ---- */

enum { DW_WIDTH = 4, DW_WIDE = 8 };

TARGET static GC_ALWAYS_INLINE void depthwise_store(const gc_depthwise *d, V sum, int64_t x, int64_t c)
{
    if (d->epi.residual != NULL) {
        sum += LD(d->epi.residual + x * d->epi.residual_step + c);
    }
    if ((d->epi.flags & GC_EPI_CLIP) != 0) {
        sum = clip(sum, BC(d->epi.lo), BC(d->epi.hi));
    }
    ST(d->to + x * d->to_pixel + c, sum);
}

/* `count` neighbouring pixels share the weights, and with stride 1 the loads. */
TARGET static GC_ALWAYS_INLINE void depthwise_pixels(const gc_depthwise *d, int64_t x, int64_t c, const int count,
                                                     const int taps, const int stride)
{
    V sum[DW_WIDTH];
    GC_UNROLL(4)
    for (int i = 0; i < count; i++) {
        sum[i] = load_or_zero(d->epi.bias, c);
    }
    for (int r = 0; r < d->taps_y; r++) {
        if (d->lines[r] == NULL) {
            continue;
        }
        const float *from = d->lines[r] + x * stride * d->pixel + c;
        const float *w = d->weights + r * d->weights_line + c;
        GC_KEEP_LOOP
        for (int k = 0; k < taps; k++) {
            V wk = LD(w + k * d->weights_step);
            GC_UNROLL(4)
            for (int i = 0; i < count; i++) {
                sum[i] += LD(from + (i * stride + k * d->dilation) * d->pixel) * wk;
            }
        }
    }
    GC_UNROLL(4)
    for (int i = 0; i < count; i++) {
        depthwise_store(d, sum[i], x + i, c);
    }
}

/* A single pixel, `count` vectors of channels: used at the edges. */
TARGET static GC_ALWAYS_INLINE void depthwise_edge(const gc_depthwise *d, int64_t c, const int count)
{
    V sum[DW_WIDTH];
    GC_UNROLL(4)
    for (int i = 0; i < count; i++) {
        sum[i] = load_or_zero(d->epi.bias, c + i * VL);
    }
    for (int r = 0; r < d->taps_y; r++) {
        if (d->lines[r] == NULL) {
            continue;
        }
        const float *from = d->lines[r] + c;
        const float *w = d->weights + r * d->weights_line + c;
        GC_KEEP_LOOP
        for (int k = 0; k < d->taps_x; k++) {
            GC_UNROLL(4)
            for (int i = 0; i < count; i++) {
                sum[i] += LD(from + k * d->dilation * d->pixel + i * VL) * LD(w + k * d->weights_step + i * VL);
            }
        }
    }
    GC_UNROLL(4)
    for (int i = 0; i < count; i++) {
        depthwise_store(d, sum[i], 0, c + i * VL);
    }
}

/* Odd numbers of taps at stride 1 without dilation: every pixel is loaded once. */
TARGET static GC_ALWAYS_INLINE void depthwise_dense(const gc_depthwise *d, int64_t x, int64_t c, const int taps,
                                                    const int count)
{
    V sum[DW_WIDE];
    GC_UNROLL(8)
    for (int i = 0; i < count; i++) {
        sum[i] = load_or_zero(d->epi.bias, c);
    }
    GC_KEEP_LOOP
    for (int r = 0; r < d->taps_y; r++) {
        if (d->lines[r] == NULL) {
            continue;
        }
        const float *from = d->lines[r] + x * d->pixel + c;
        const float *w = d->weights + r * d->weights_line + c;
        V wk[7];
        GC_UNROLL(7)
        for (int k = 0; k < taps; k++) {
            wk[k] = LD(w + k * d->weights_step);
        }
        GC_UNROLL(14)
        for (int p = 0; p < taps + count - 1; p++) {
            V v = LD(from + p * d->pixel);
            GC_UNROLL(8)
            for (int i = 0; i < count; i++) {
                if (p - i >= 0 && p - i < taps) {
                    sum[i] += v * wk[p - i];
                }
            }
        }
    }
    GC_UNROLL(8)
    for (int i = 0; i < count; i++) {
        depthwise_store(d, sum[i], x + i, c);
    }
}

TARGET static void depthwise_channels(const gc_depthwise *d, int64_t c)
{
    int64_t x = 0;
    if (d->stride == 1 && d->dilation == 1 && (d->taps_x == 3 || d->taps_x == 5 || d->taps_x == 7)) {
        for (; x + DW_WIDE <= d->width && d->taps_x < 7; x += DW_WIDE) {
            if (d->taps_x == 3) {
                depthwise_dense(d, x, c, 3, DW_WIDE);
            } else {
                depthwise_dense(d, x, c, 5, DW_WIDE);
            }
        }
        for (; x + DW_WIDTH <= d->width; x += DW_WIDTH) {
            if (d->taps_x == 3) {
                depthwise_dense(d, x, c, 3, DW_WIDTH);
            } else if (d->taps_x == 5) {
                depthwise_dense(d, x, c, 5, DW_WIDTH);
            } else {
                depthwise_dense(d, x, c, 7, DW_WIDTH);
            }
        }
    }
    for (; x + DW_WIDTH <= d->width; x += DW_WIDTH) {
        depthwise_pixels(d, x, c, DW_WIDTH, d->taps_x, (int)d->stride);
    }
    for (; x < d->width; x++) {
        depthwise_pixels(d, x, c, 1, d->taps_x, (int)d->stride);
    }
}

/* Channels behind the last whole vector, one by one. */
TARGET static void depthwise_rest(const gc_depthwise *d, int64_t x)
{
    for (int64_t c = d->channels / VL * VL; c < d->channels; c++) {
        float sum = d->epi.bias != NULL ? d->epi.bias[c] : 0.0f;
        for (int64_t i = 0; i < (int64_t)d->taps_y * d->taps_x; i++) {
            int64_t r = i / d->taps_x, k = i % d->taps_x;
            const float *from = d->lines[r];
            if (from != NULL) {
                sum += from[(x * d->stride + k * d->dilation) * d->pixel + c] *
                       d->weights[r * d->weights_line + k * d->weights_step + c];
            }
        }
        sum += d->to[x * d->to_pixel + c];
        if ((d->epi.flags & GC_EPI_CLIP) != 0) {
            sum = sum < d->epi.lo ? d->epi.lo : sum;
            sum = d->epi.hi < sum ? d->epi.hi : sum;
        }
        d->to[x * d->to_pixel + c] = sum;
    }
}

/* The last vector overlaps the one before it: the same values twice, but not
   where they are added to what was there. */
TARGET static void depthwise(const gc_depthwise *d)
{
    int64_t wide = d->width == 1 ? d->channels / (DW_WIDTH * VL) * (DW_WIDTH * VL) : 0;
    for (int64_t c = 0; c < wide; c += DW_WIDTH * VL) {
        depthwise_edge(d, c, DW_WIDTH);
    }
    for (int64_t c = wide; c + VL <= d->channels; c += VL) {
        depthwise_channels(d, c);
    }
    if (d->channels % VL != 0 && d->epi.residual == d->to) {
        for (int64_t x = 0; x < d->width; x++) {
            depthwise_rest(d, x);
        }
    } else if (d->channels % VL != 0) {
        depthwise_channels(d, d->channels - VL);
    }
}

/* ---- products with one vector ---- */

/* By halves: a chain of sums would take longer than a short row. */
TARGET static GC_ALWAYS_INLINE float sum_of(V x)
{
    float part[VL];
    ST(part, x);
    GC_UNROLL(5)
    for (int half = VL / 2; half > 0; half /= 2) {
        GC_UNROLL(8)
        for (int i = 0; i < half; i++) {
            part[i] += part[i + half];
        }
    }
    return part[0];
}

/* Up to four rows at once share the loads of x. */
TARGET static GC_ALWAYS_INLINE void dot_rows(const float *x, const float *w, int64_t step, int64_t n, float *y,
                                             const int rows)
{
    V sum[4];
    int64_t p = 0;
    GC_UNROLL(4)
    for (int r = 0; r < rows; r++) {
        sum[r] = BC(0.0f);
    }
    for (; p + VL <= n; p += VL) {
        V v = LD(x + p);
        GC_UNROLL(4)
        for (int r = 0; r < rows; r++) {
            sum[r] += v * LD(w + r * step + p);
        }
    }
    GC_UNROLL(4)
    for (int r = 0; r < rows; r++) {
        float total = sum_of(sum[r]);
        for (int64_t q = p; q < n; q++) {
            total += x[q] * w[r * step + q];
        }
        y[r] = total;
    }
}

TARGET static void dots(const float *x, const float *w, int64_t step, int64_t rows, int64_t n, float *y)
{
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        dot_rows(x, w + r * step, step, n, y + r, 4);
    }
    for (; r < rows; r++) {
        dot_rows(x, w + r * step, step, n, y + r, 1);
    }
}

TARGET static GC_ALWAYS_INLINE void add_rows(const float *const *w, const float *factor, int64_t n, float *y,
                                             const int rows)
{
    int64_t p = 0;
    for (; p + VL <= n; p += VL) {
        V sum = LD(y + p);
        GC_UNROLL(4)
        for (int r = 0; r < rows; r++) {
            sum += BC(factor[r]) * LD(w[r] + p);
        }
        ST(y + p, sum);
    }
    for (; p < n; p++) {
        for (int r = 0; r < rows; r++) {
            y[p] += factor[r] * w[r][p];
        }
    }
}

/* Rows with factor 0 are not read: behind a ReLU most gradients are zero. */
TARGET static void axpys(const float *factor, int64_t factor_step, const float *w, int64_t step, int64_t rows,
                         int64_t n, float *y)
{
    const float *row[4];
    float a[4];
    int count = 0;
    for (int64_t r = 0; r < rows; r++) {
        float f = factor[r * factor_step];
        if (f != 0.0f) {
            row[count] = w + r * step;
            a[count++] = f;
        }
        if (count == 4) {
            add_rows(row, a, n, y, 4);
            count = 0;
        }
    }
    for (int i = 0; i < count; i++) {
        add_rows(row + i, a + i, n, y, 1);
    }
}

#include "kern/isa_map.h"

/* ---- maximum over taps: the first one stays, NaN beats everything ---- */

TARGET static GC_ALWAYS_INLINE void max_vector(const float *const *taps, int64_t count, int64_t c, float *y,
                                               int32_t *arg)
{
    V best = LD(taps[0] + c), which = BC(0.0f);
    for (int64_t t = 1; t < count; t++) {
        V v = LD(taps[t] + c);
        VM better = VOR(VLT(best, v), VAND(VNE(v, v), VEQ(best, best)));
        best = VSEL(better, v, best);
        which = VSEL(better, BC((float)t), which);
    }
    ST(y + c, best);
    if (arg != NULL) {
        float number[VL];
        ST(number, which);
        for (int i = 0; i < VL; i++) {
            arg[c + i] = (int32_t)number[i];
        }
    }
}

/* The maximum alone: VMAX forgets a NaN, so those are counted apart. */
TARGET static GC_ALWAYS_INLINE void max_only(const float *const *taps, int64_t count, int64_t c, float *y)
{
    V best = LD(taps[0] + c);
    VM nan = VNE(best, best);
    for (int64_t t = 1; t < count; t++) {
        V v = LD(taps[t] + c);
        nan = VOR(nan, VNE(v, v));
        best = VMAX(best, v);
    }
    ST(y + c, VSEL(nan, BC(NAN), best));
}

TARGET static void max_taps(const float *const *taps, int64_t count, int64_t channels, float *y, int32_t *arg)
{
    int64_t c = 0;
    for (; arg == NULL && c + VL <= channels; c += VL) {
        max_only(taps, count, c, y);
    }
    for (; c + VL <= channels; c += VL) {
        max_vector(taps, count, c, y, arg);
    }
    if (c < channels && channels >= VL) { /* the last vector overlaps the one before it */
        max_vector(taps, count, channels - VL, y, arg);
        return;
    }
    for (; c < channels; c++) {
        int32_t which = 0;
        for (int32_t t = 1; t < count; t++) {
            float v = taps[t][c], best = taps[which][c];
            which = v > best || (v != v && best == best) ? t : which;
        }
        y[c] = taps[which][c];
        if (arg != NULL) {
            arg[c] = which;
        }
    }
}

#include "kern/isa_rows.h"

const gc_kern ROW = {
    ROW_NAME,  VL,   VL *NV, MR,  0,     tile,     wino4_in, wino4_out, wino2_in, wino2_out,
    depthwise, dots, axpys,  map, slope, max_taps, softmax,  soften,    moment,
};
