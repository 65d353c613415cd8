/* SPDX-License-Identifier: MIT */
/* What the rows with AVX512-BF16 share; TARGET marks the functions. */
#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#include "kern/half.h"

enum { LANES = 16 };

TARGET static GC_ALWAYS_INLINE __mmask16 first_lanes(int64_t n)
{
    return n >= LANES ? (__mmask16)0xffff : (__mmask16)((1u << (n > 0 ? n : 0)) - 1u);
}

TARGET static GC_ALWAYS_INLINE __m512 widened(__m256i x)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

TARGET static void narrow(int64_t n, const float *x, gc_bf16 *y)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        _mm256_storeu_si256((void *)(y + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(x + i)));
    }
    if (i < n) {
        __mmask16 m = first_lanes(n - i);
        _mm256_mask_storeu_epi16(y + i, m, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(m, x + i)));
    }
}

TARGET static void widen(int64_t n, const gc_bf16 *x, float *y)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        _mm512_storeu_ps(y + i, widened(_mm256_loadu_si256((const void *)(x + i))));
    }
    if (i < n) {
        __mmask16 m = first_lanes(n - i);
        _mm512_mask_storeu_ps(y + i, m, widened(_mm256_maskz_loadu_epi16(m, x + i)));
    }
}

/* ---- the epilogue ---- */

TARGET static GC_ALWAYS_INLINE __m512 residual_at(const gc_half_tile *t, int64_t at, __mmask16 m)
{
    if (t->residual_half) {
        return widened(_mm256_maskz_loadu_epi16(m, (const gc_bf16 *)t->residual + at));
    }
    return _mm512_maskz_loadu_ps(m, (const float *)t->residual + at);
}

TARGET static GC_ALWAYS_INLINE void put(const gc_half_tile *t, int64_t at, __mmask16 m, __m512 x)
{
    if (t->c_half) {
        _mm256_mask_storeu_epi16((gc_bf16 *)t->c + at, m, (__m256i)_mm512_cvtneps_pbh(x));
    } else {
        _mm512_mask_storeu_ps((float *)t->c + at, m, x);
    }
}

/* sum[row][GC_HALF_COLS] of part q, of which `blocks` blocks are there. */
TARGET static GC_ALWAYS_INLINE void finish(const gc_half_tile *t, int q, float *sum, const int blocks)
{
    bool clips = (t->epi.flags & GC_EPI_CLIP) != 0, maps = (t->epi.flags & GC_EPI_MAP) != 0;
    __m512 lo = _mm512_set1_ps(t->epi.lo), hi = _mm512_set1_ps(t->epi.hi), bias[2];
    __mmask16 m[2];
    for (int j = 0; j < blocks; j++) {
        m[j] = first_lanes(t->cols - j * LANES);
        bias[j] = t->epi.bias != NULL ? _mm512_loadu_ps(t->epi.bias + j * LANES) : _mm512_setzero_ps();
    }
    for (int64_t i = 0; i < t->rows[q]; i++) {
        for (int j = 0; j < blocks; j++) {
            int64_t at = t->at[q] + i * t->c_step + j * LANES;
            float *from = sum + i * GC_HALF_COLS + j * LANES;
            __m512 x = _mm512_add_ps(_mm512_loadu_ps(from), bias[j]);
            if (t->residual != NULL) {
                x = _mm512_add_ps(x, residual_at(t, at, m[j]));
            }
            if (clips) { /* NaN stays NaN */
                x = _mm512_min_ps(hi, _mm512_max_ps(lo, x));
            }
            if (maps) {
                _mm512_storeu_ps(from, x);
            } else {
                put(t, at, m[j], x);
            }
        }
    }
    gc_kern_map_rows(t->kern, &t->epi, t->rows[q], t->cols, sum, GC_HALF_COLS);
    for (int64_t i = 0; i < t->rows[q] && maps; i++) {
        float *from = sum + i * GC_HALF_COLS;
        for (int j = 0; j < blocks; j++) {
            put(t, t->at[q] + i * t->c_step + j * LANES, m[j], _mm512_loadu_ps(from + j * LANES));
        }
    }
}

/* ---- products with one vector: the weights come from far, sums are float32 ---- */

TARGET static GC_ALWAYS_INLINE void dot_rows(const float *x, const gc_bf16 *w, int64_t step, int64_t n, float *y,
                                             const int rows)
{
    __m512 sum[4];
    GC_UNROLL(4)
    for (int r = 0; r < rows; r++) {
        sum[r] = _mm512_setzero_ps();
    }
    for (int64_t p = 0; p < n; p += LANES) {
        __mmask16 m = first_lanes(n - p);
        __m512 v = _mm512_maskz_loadu_ps(m, x + p);
        GC_UNROLL(4)
        for (int r = 0; r < rows; r++) {
            sum[r] = _mm512_fmadd_ps(v, widened(_mm256_maskz_loadu_epi16(m, w + r * step + p)), sum[r]);
        }
    }
    GC_UNROLL(4)
    for (int r = 0; r < rows; r++) {
        y[r] = _mm512_reduce_add_ps(sum[r]);
    }
}

TARGET static void dots(const float *x, const gc_bf16 *w, int64_t step, int64_t rows, int64_t n, float *y)
{
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        dot_rows(x, w + r * step, step, n, y + r, 4);
    }
    for (; r < rows; r++) {
        dot_rows(x, w + r * step, step, n, y + r, 1);
    }
}

TARGET static GC_ALWAYS_INLINE void add_rows(const gc_bf16 *const *w, const float *factor, int64_t n, float *y,
                                             const int rows)
{
    for (int64_t p = 0; p < n; p += LANES) {
        __mmask16 m = first_lanes(n - p);
        __m512 sum = _mm512_maskz_loadu_ps(m, y + p);
        GC_UNROLL(4)
        for (int r = 0; r < rows; r++) {
            sum = _mm512_fmadd_ps(_mm512_set1_ps(factor[r]), widened(_mm256_maskz_loadu_epi16(m, w[r] + p)), sum);
        }
        _mm512_mask_storeu_ps(y + p, m, sum);
    }
}

/* Rows with factor 0 are not read. */
TARGET static void axpys(const float *factor, int64_t factor_step, const gc_bf16 *w, int64_t step, int64_t rows,
                         int64_t n, float *y)
{
    const gc_bf16 *row[4];
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
