/* SPDX-License-Identifier: MIT */
/* The kernels, once for each instruction set.  The including file defines
 *   TARGET   attribute of the functions
 *   VL, NV   floats in a vector, vectors in a panel; MR rows of a tile
 *   V        the vector type; LD, ST, BC load, store, broadcast; VSEL(m, a, b)
 *            a where m else b; VLT, VEQ, VNE compare, VAND and VOR join masks
 *            of type VM; POW2(t) 2^k where k are the low bits of the float t;
 *            VMAX and VMIN(a, b), if there are such: b where one is NaN;
 *            RECIP_SEED(d), if it is cheap, 1 / d to 12 % for 0 < d < 2^126
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
    const char *ahead = t->ahead;
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
            for (int64_t line = 0; line < t->ahead_lines; line++, ahead += 64) {
                GC_PREFETCH_AHEAD(ahead);
            }
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

/* ---- Winograd F(4x4, 3x3), points 0, a, -a, b, -b, infinity with a = 3/4 and
   b = 3/2: half the error of 1 and 2 with the same even and odd structure.
   Lavin and Gray 2016; input rows are the products of the other factors. ---- */

#define WA 0.75f
#define WB 1.5f
#define WA2 (WA * WA)
#define WB2 (WB * WB)

TARGET static GC_ALWAYS_INLINE void in4(const V *d, int from, V *t, int to)
{
    V d0 = d[0], d1 = d[from], d2 = d[2 * from], d3 = d[3 * from], d4 = d[4 * from], d5 = d[5 * from];
    V a = d4 - BC(WB2) * d2, b = BC(WA) * (d3 - BC(WB2) * d1);
    V c = d4 - BC(WA2) * d2, e = BC(WB) * (d3 - BC(WA2) * d1);
    t[0] = BC(WA2 * WB2) * d0 - BC(WA2 + WB2) * d2 + d4;
    t[to] = a + b;
    t[2 * to] = a - b;
    t[3 * to] = c + e;
    t[4 * to] = c - e;
    t[5 * to] = BC(WA2 * WB2) * d1 - BC(WA2 + WB2) * d3 + d5;
}

TARGET static GC_ALWAYS_INLINE void out4(const V *m, int from, V *y, int to)
{
    V s1 = m[from] + m[2 * from], d1 = m[from] - m[2 * from];
    V s2 = m[3 * from] + m[4 * from], d2 = m[3 * from] - m[4 * from];
    y[0] = m[0] + s1 + s2;
    y[to] = BC(WA) * d1 + BC(WB) * d2;
    y[2 * to] = BC(WA2) * s1 + BC(WB2) * s2;
    y[3 * to] = BC(WA2 * WA) * d1 + BC(WB2 * WB) * d2 + m[5 * from];
}

TARGET static GC_ALWAYS_INLINE void in2(const V *d, int from, V *t, int to)
{
    t[0] = d[0] - d[2 * from];
    t[to] = d[from] + d[2 * from];
    t[2 * to] = d[2 * from] - d[from];
    t[3 * to] = d[3 * from] - d[from];
}

TARGET static GC_ALWAYS_INLINE void out2(const V *m, int from, V *y, int to)
{
    y[0] = m[0] + m[from] + m[2 * from];
    y[to] = m[from] - m[2 * from] + m[3 * from];
}

/* size: m + 2. */
TARGET static GC_ALWAYS_INLINE void wino_in(const gc_wino_tile *t, const int size)
{
    for (int64_t c = 0; c < t->channels; c += VL) {
        V d[6][6], e[6];
        GC_UNROLL(6)
        for (int x = 0; x < size; x++) {
            V column[6];
            GC_UNROLL(6)
            for (int y = 0; y < size; y++) {
                column[y] = LD(t->from + y * t->line + x * t->pixel + c);
            }
            if (size == 6) {
                in4(column, 1, &d[0][x], 6);
            } else {
                in2(column, 1, &d[0][x], 6);
            }
        }
        GC_UNROLL(6)
        for (int y = 0; y < size; y++) {
            if (size == 6) {
                in4(d[y], 1, e, 1);
            } else {
                in2(d[y], 1, e, 1);
            }
            GC_UNROLL(6)
            for (int x = 0; x < size; x++) {
                ST(t->to + (y * size + x) * t->plane + c, e[x]);
            }
        }
    }
}

TARGET static GC_ALWAYS_INLINE void wino_store(const gc_wino_tile *t, int64_t c, int y, const V *values, const int m)
{
    V bias = load_or_zero(t->epi.bias, c);
    V lo = BC(t->epi.lo), hi = BC(t->epi.hi);
    GC_UNROLL(4)
    for (int x = 0; x < m; x++) {
        if (x < t->cols) {
            V v = values[x] + bias;
            if (t->epi.residual != NULL) {
                v += LD(t->epi.residual + y * t->residual_line + x * t->residual_pixel + c);
            }
            ST(t->to + y * t->line + x * t->pixel + c, (t->epi.flags & GC_EPI_CLIP) != 0 ? clip(v, lo, hi) : v);
        }
    }
}

TARGET static GC_ALWAYS_INLINE void wino_out(const gc_wino_tile *t, const int size)
{
    for (int64_t c = 0; c < t->channels; c += VL) {
        V d[4][6], e[4];
        GC_UNROLL(6)
        for (int x = 0; x < size; x++) {
            V column[6];
            GC_UNROLL(6)
            for (int y = 0; y < size; y++) {
                column[y] = LD(t->from + (y * size + x) * t->plane + c);
            }
            if (size == 6) {
                out4(column, 1, &d[0][x], 6);
            } else {
                out2(column, 1, &d[0][x], 6);
            }
        }
        GC_UNROLL(4)
        for (int y = 0; y < size - 2; y++) {
            if (size == 6) {
                out4(d[y], 1, e, 1);
            } else {
                out2(d[y], 1, e, 1);
            }
            if (y < t->rows) {
                wino_store(t, c, y, e, size - 2);
            }
        }
    }
}

TARGET static void wino4_in(const gc_wino_tile *t)
{
    wino_in(t, 6);
}

TARGET static void wino4_out(const gc_wino_tile *t)
{
    wino_out(t, 6);
}

TARGET static void wino2_in(const gc_wino_tile *t)
{
    wino_in(t, 4);
}

TARGET static void wino2_out(const gc_wino_tile *t)
{
    wino_out(t, 4);
}

/* ---- depthwise ---- */

enum { DW_WIDTH = 4 };

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
            V wk = LD(w + k * d->channels);
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
                sum[i] += LD(from + k * d->dilation * d->pixel + i * VL) * LD(w + k * d->channels + i * VL);
            }
        }
    }
    GC_UNROLL(4)
    for (int i = 0; i < count; i++) {
        depthwise_store(d, sum[i], 0, c + i * VL);
    }
}

/* Odd numbers of taps at stride 1 without dilation: every pixel is loaded once. */
TARGET static GC_ALWAYS_INLINE void depthwise_dense(const gc_depthwise *d, int64_t x, int64_t c, const int taps)
{
    V sum[DW_WIDTH];
    GC_UNROLL(4)
    for (int i = 0; i < DW_WIDTH; i++) {
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
            wk[k] = LD(w + k * d->channels);
        }
        GC_UNROLL(10)
        for (int p = 0; p < taps + DW_WIDTH - 1; p++) {
            V v = LD(from + p * d->pixel);
            GC_UNROLL(4)
            for (int i = 0; i < DW_WIDTH; i++) {
                if (p - i >= 0 && p - i < taps) {
                    sum[i] += v * wk[p - i];
                }
            }
        }
    }
    GC_UNROLL(4)
    for (int i = 0; i < DW_WIDTH; i++) {
        depthwise_store(d, sum[i], x + i, c);
    }
}

TARGET static void depthwise_channels(const gc_depthwise *d, int64_t c)
{
    int64_t x = 0;
    if (d->stride == 1 && d->dilation == 1 && (d->taps_x == 3 || d->taps_x == 5 || d->taps_x == 7)) {
        for (; x + DW_WIDTH <= d->width; x += DW_WIDTH) {
            if (d->taps_x == 3) {
                depthwise_dense(d, x, c, 3);
            } else if (d->taps_x == 5) {
                depthwise_dense(d, x, c, 5);
            } else {
                depthwise_dense(d, x, c, 7);
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
                       d->weights[r * d->weights_line + k * d->channels + c];
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

TARGET static GC_ALWAYS_INLINE float sum_of(V x)
{
    float part[VL], total = 0.0f;
    ST(part, x);
    for (int i = 0; i < VL; i++) {
        total += part[i];
    }
    return total;
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

/* ---- functions of one value; polynomials fitted to the relative error ---- */

/* 2^n (1 + r + r^2 q(r)) with y = n ln 2 + r; relative error below 2^-22 for
   -86.98 <= y <= 88.72283, zero for smaller y. */
TARGET static GC_ALWAYS_INLINE V exp_inside(V y)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: the sum's low bits are the rounded n */
    V t = y * BC(1.44269504f) + BC(magic - 1.0f);
    V n = t - BC(magic - 1.0f);
    V r = y - n * BC(0.693359375f) - n * BC(-2.12194440e-4f);
    V q = BC(1.381458966e-3f);
    q = q * r + BC(8.368713287e-3f);
    q = q * r + BC(4.166838793e-2f);
    q = q * r + BC(1.666652066e-1f);
    q = q * r + BC(4.999999345e-1f);
    return (q * r * r + r + BC(1.0f)) * POW2(t) * BC(2.0f); /* 2^(n - 1) is finite for the largest n */
}

/* Below lie denormals and what is next to them, taken as zero; above infinity. */
TARGET static GC_ALWAYS_INLINE V exp_of(V x)
{
    V e = exp_inside(clip(x, BC(-87.3f), BC(88.72283f)));
    e = VSEL(VLT(x, BC(-87.3f)), BC(0.0f), e);
    e = VSEL(VLT(BC(88.72283f), x), BC(INFINITY), e);
    return VSEL(VNE(x, x), x, e);
}

/* 1 / d for 1 <= d < 2^126: a division takes longer than Newton's steps, each
   of which squares the error. */
TARGET static GC_ALWAYS_INLINE V recip_of(V d)
{
#ifdef RECIP_SEED
    V r = RECIP_SEED(d);
    r = r * (BC(2.0f) - d * r);
    r = r * (BC(2.0f) - d * r);
    return r * (BC(2.0f) - d * r);
#else
    return BC(1.0f) / d;
#endif
}

TARGET static GC_ALWAYS_INLINE V sigmoid_of(V x)
{
    V y = recip_of(BC(1.0f) + exp_inside(clip(-x, BC(-87.3f), BC(87.3f))));
    return VSEL(VLT(x, BC(-87.3f)), BC(0.0f), y);
}

TARGET static GC_ALWAYS_INLINE V tanh_of(V x)
{
    V a = VSEL(VLT(x, BC(0.0f)), -x, x), t = x * x;
    V p = BC(2.065941351e-3f);
    p = p * t + BC(-8.092878062e-3f);
    p = p * t + BC(2.166645405e-2f);
    p = p * t + BC(-5.394051958e-2f);
    p = p * t + BC(1.333315689e-1f);
    p = p * t + BC(-3.333332957e-1f);
    V far = BC(1.0f) - BC(2.0f) * recip_of(exp_inside(clip(a + a, BC(0.0f), BC(87.3f))) + BC(1.0f));
    V y = VSEL(VLT(a, BC(0.64f)), a + a * t * p, far);
    return VSEL(VLT(x, BC(0.0f)), -y, y);
}

/* x P(x^2) / Q(x^2) for |x| <= 4, beyond which erf is 1; the fit's relative error
   is below 7e-8. */
TARGET static GC_ALWAYS_INLINE V erf_of(V x)
{
    V b = clip(x, BC(-4.0f), BC(4.0f)), t = b * b;
    V p = BC(1.911088635659235e-8f);
    p = p * t + BC(-1.942282285242008e-6f);
    p = p * t + BC(1.4728063396149616e-4f);
    p = p * t + BC(3.990353246839974e-3f);
    p = p * t + BC(5.152421873015525e-2f);
    p = p * t + BC(2.071203091023526e-1f);
    p = p * t + BC(1.128379094208296e+0f);
    V q = BC(1.0210574088731924e-3f);
    q = q * t + BC(1.4957637741736285e-2f);
    q = q * t + BC(1.1796869305668618e-1f);
    q = q * t + BC(5.168868447868769e-1f);
    q = q * t + BC(1.0f);
    return clip(b * p * recip_of(q), BC(-1.0f), BC(1.0f));
}

TARGET static GC_ALWAYS_INLINE V map_one(const int kind, V x)
{
    switch (kind) {
    case GC_MAP_EXP: return exp_of(x);
    case GC_MAP_SIGMOID: return sigmoid_of(x);
    case GC_MAP_SILU: return x * sigmoid_of(x);
    case GC_MAP_TANH: return tanh_of(x);
    case GC_MAP_ERF: return erf_of(x);
    case GC_MAP_HARD_SWISH: return x * clip(x * BC(1.0f / 6.0f) + BC(0.5f), BC(0.0f), BC(1.0f));
    default: /* GC_MAP_GELU */ return BC(0.5f) * x * (BC(1.0f) + erf_of(x * BC(0.70710678f)));
    }
}

TARGET static GC_ALWAYS_INLINE void map_all(const int kind, int64_t n, const float *x, float *y)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
        ST(y + i, map_one(kind, LD(x + i)));
    }
    if (i < n) {
        store_part(y + i, map_one(kind, load_part(x + i, n - i)), n - i);
    }
}

TARGET static void map(int32_t kind, int64_t n, const float *x, float *y)
{
    switch (kind) {
    case GC_MAP_EXP: map_all(GC_MAP_EXP, n, x, y); break;
    case GC_MAP_SIGMOID: map_all(GC_MAP_SIGMOID, n, x, y); break;
    case GC_MAP_SILU: map_all(GC_MAP_SILU, n, x, y); break;
    case GC_MAP_TANH: map_all(GC_MAP_TANH, n, x, y); break;
    case GC_MAP_ERF: map_all(GC_MAP_ERF, n, x, y); break;
    case GC_MAP_HARD_SWISH: map_all(GC_MAP_HARD_SWISH, n, x, y); break;
    default: map_all(GC_MAP_GELU, n, x, y); break;
    }
}

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
    ROW_NAME,  VL,        VL *NV, MR,    0,   tile,     wino4_in, wino4_out, wino2_in,
    wino2_out, depthwise, dots,   axpys, map, max_taps, softmax,  moment,
};
