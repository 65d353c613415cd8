/* SPDX-License-Identifier: MIT */
/* What the rows with AVX512-BF16 share; TARGET marks the functions. */
#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "kern/half.h"

enum { LANES = 16 };

TARGET static GC_ALWAYS_INLINE __mmask16 first_lanes(int64_t n)
{
    return (__mmask16)(n >= LANES ? 0xffffu : (1u << (n > 0 ? n : 0)) - 1u);
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

/* As many pixels at once as fill a vector. */
TARGET static void narrow_odd(int64_t pixels, int64_t channels, const float *x, gc_bf16 *y)
{
    int32_t lane[LANES];
    int64_t at_once = LANES / (channels + 1);
    __mmask16 valid = 0;
    for (int64_t i = 0; i < LANES; i++) {
        int64_t pixel = i / (channels + 1), channel = i % (channels + 1);
        bool is = pixel < at_once && channel < channels;
        lane[i] = is ? (int32_t)(pixel * channels + channel) : 0;
        valid = (__mmask16)(valid | (is ? 1u << i : 0u));
    }
    __m512i lanes = _mm512_loadu_si512((const void *)lane);
    for (int64_t i = 0; i < pixels; i += at_once, x += at_once * channels, y += at_once * (channels + 1)) {
        int64_t n = pixels - i < at_once ? pixels - i : at_once;
        __m512 v = _mm512_maskz_loadu_ps(first_lanes(n * channels), x);
        v = _mm512_maskz_permutexvar_ps(valid, lanes, v);
        _mm256_mask_storeu_epi16(y, first_lanes(n * (channels + 1)), (__m256i)_mm512_cvtneps_pbh(v));
    }
}

/* ---- the epilogue ---- */

enum { NO_RESIDUAL, FLOAT_RESIDUAL, HALF_RESIDUAL };

typedef struct ends {
    __mmask16 m[2]; /* columns that are there */
    __m512 bias[2], lo, hi;
} ends;

TARGET static GC_ALWAYS_INLINE ends ends_of(const gc_half_tile *t)
{
    bool clips = (t->epi.flags & GC_EPI_CLIP) != 0;
    ends e;
    for (int j = 0; j < 2; j++) {
        e.m[j] = first_lanes(t->cols - j * LANES);
        e.bias[j] = t->epi.bias != NULL ? _mm512_maskz_loadu_ps(e.m[j], t->epi.bias + j * LANES) : _mm512_setzero_ps();
    }
    e.lo = _mm512_set1_ps(clips ? t->epi.lo : -INFINITY);
    e.hi = _mm512_set1_ps(clips ? t->epi.hi : INFINITY);
    return e;
}

/* Vector j of a row of sums with bias, residual and clip, by which NaN stays NaN. */
TARGET static GC_ALWAYS_INLINE __m512 finished(const gc_half_tile *t, const ends *e, const float *sum, int64_t at,
                                               const int j, const int residual)
{
    __m512 x = _mm512_add_ps(_mm512_loadu_ps(sum + j * LANES), e->bias[j]);
    if (residual == HALF_RESIDUAL) {
        const gc_bf16 *r = (const gc_bf16 *)t->residual + at + j * LANES;
        x = _mm512_add_ps(x, widened(_mm256_maskz_loadu_epi16(e->m[j], r)));
    } else if (residual == FLOAT_RESIDUAL) {
        const float *r = (const float *)t->residual + at + j * LANES;
        x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(e->m[j], r));
    }
    return _mm512_min_ps(e->hi, _mm512_max_ps(e->lo, x));
}

TARGET static GC_ALWAYS_INLINE void put(const gc_half_tile *t, const ends *e, int64_t at, const int j, __m512 x)
{
    if (t->c_half) {
        _mm256_mask_storeu_epi16((gc_bf16 *)t->c + at + j * LANES, e->m[j], (__m256i)_mm512_cvtneps_pbh(x));
    } else {
        _mm512_mask_storeu_ps((float *)t->c + at + j * LANES, e->m[j], x);
    }
}

/* sum[row][GC_HALF_COLS] of part q; `whole`: 32 columns of bfloat16. */
TARGET static GC_ALWAYS_INLINE void finish_rows(const gc_half_tile *t, int q, const float *sum, const int residual,
                                                const int whole)
{
    ends e = ends_of(t);
    int64_t at = t->at[q];
    for (uint32_t keep = t->keep[q]; keep != 0; keep >>= 1, sum += GC_HALF_COLS) {
        if ((keep & 1u) == 0) {
            continue;
        }
        __m512 x = finished(t, &e, sum, at, 0, residual);
        if (whole) {
            __m512 y = finished(t, &e, sum, at, 1, residual);
            _mm512_storeu_si512((void *)((gc_bf16 *)t->c + at), (__m512i)_mm512_cvtne2ps_pbh(y, x));
        } else {
            put(t, &e, at, 0, x);
            if (e.m[1] != 0) {
                put(t, &e, at, 1, finished(t, &e, sum, at, 1, residual));
            }
        }
        at += t->c_step;
    }
}

/* The same with a function behind it: sums are overwritten, those of the rows that are kept by
   each other. */
TARGET static void finish_mapped(const gc_half_tile *t, int q, float *sum)
{
    ends e = ends_of(t);
    int residual = t->residual == NULL ? NO_RESIDUAL : t->residual_half ? HALF_RESIDUAL : FLOAT_RESIDUAL;
    int64_t kept = 0;
    for (int64_t i = 0; i < t->rows[q]; i++) {
        if ((t->keep[q] >> i & 1u) == 0) {
            continue;
        }
        for (int j = 0; j < 2 && e.m[j] != 0; j++) {
            __m512 x = finished(t, &e, sum + i * GC_HALF_COLS, t->at[q] + kept * t->c_step, j, residual);
            _mm512_storeu_ps(sum + kept * GC_HALF_COLS + j * LANES, x);
        }
        kept++;
    }
    gc_kern_map_rows(t->kern, &t->epi, kept, t->cols, sum, GC_HALF_COLS);
    for (int64_t i = 0; i < kept; i++) {
        for (int j = 0; j < 2 && e.m[j] != 0; j++) {
            put(t, &e, t->at[q] + i * t->c_step, j, _mm512_loadu_ps(sum + i * GC_HALF_COLS + j * LANES));
        }
    }
}

TARGET static void finish(const gc_half_tile *t, int q, float *sum)
{
    bool whole = t->cols == GC_HALF_COLS && t->c_half;
    if ((t->epi.flags & GC_EPI_MAP) != 0) {
        finish_mapped(t, q, sum);
    } else if (t->residual == NULL && whole) {
        finish_rows(t, q, sum, NO_RESIDUAL, 1);
    } else if (t->residual == NULL) {
        finish_rows(t, q, sum, NO_RESIDUAL, 0);
    } else if (t->residual_half && whole) {
        finish_rows(t, q, sum, HALF_RESIDUAL, 1);
    } else if (t->residual_half) {
        finish_rows(t, q, sum, HALF_RESIDUAL, 0);
    } else {
        finish_rows(t, q, sum, FLOAT_RESIDUAL, 0);
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

/* ---- pooling and normalisation ---- */

/* Bits of bfloat16 in an order of whole numbers, those of NaN above all others:
   what is negative is turned round, and the NaN at the lower end go past the
   upper one. */
enum { NAN_KEYS = 0x7f };

TARGET static GC_ALWAYS_INLINE __m512i key_of(__m512i x)
{
    __m512i turn = _mm512_and_si512(_mm512_srai_epi16(x, 15), _mm512_set1_epi16(0x7fff));
    return _mm512_sub_epi16(_mm512_xor_si512(x, turn), _mm512_set1_epi16(NAN_KEYS));
}

TARGET static GC_ALWAYS_INLINE __m512i bits_of(__m512i key)
{
    __m512i x = _mm512_add_epi16(key, _mm512_set1_epi16(NAN_KEYS));
    return _mm512_xor_si512(x, _mm512_and_si512(_mm512_srai_epi16(x, 15), _mm512_set1_epi16(0x7fff)));
}

TARGET static void max_taps(const gc_bf16 *const *taps, int64_t count, int64_t channels, gc_bf16 *y)
{
    for (int64_t c = 0; c < channels; c += 2 * LANES) {
        int64_t n = channels - c;
        __mmask32 m = (__mmask32)(n < 2 * LANES ? (UINT32_C(1) << n) - 1u : UINT32_MAX);
        __m512i best = key_of(_mm512_set1_epi16((short)0xff80)); /* -infinity */
        for (int64_t t = 0; t < count; t++) {
            best = _mm512_max_epi16(best, key_of(_mm512_maskz_loadu_epi16(m, taps[t] + c)));
        }
        _mm512_mask_storeu_epi16(y + c, m, bits_of(best));
    }
}

TARGET static void mean_taps(const gc_bf16 *const *taps, int64_t count, int64_t channels, float divisor, gc_bf16 *y)
{
    for (int64_t c = 0; c < channels; c += LANES) {
        __mmask16 m = first_lanes(channels - c);
        __m512 sum = _mm512_setzero_ps();
        for (int64_t t = 0; t < count; t++) {
            sum = _mm512_add_ps(sum, widened(_mm256_maskz_loadu_epi16(m, taps[t] + c)));
        }
        sum = _mm512_div_ps(sum, _mm512_set1_ps(divisor));
        _mm256_mask_storeu_epi16(y + c, m, (__m256i)_mm512_cvtneps_pbh(sum));
    }
}

TARGET static GC_ALWAYS_INLINE void affine_lanes(const gc_half_affine *a, const void *x, void *y, int64_t c,
                                                 __mmask16 m, const int x_half, const int y_half)
{
    __m512 v = x_half ? widened(_mm256_maskz_loadu_epi16(m, (const gc_bf16 *)x + c))
                      : _mm512_maskz_loadu_ps(m, (const float *)x + c);
    v = _mm512_fmadd_ps(v, _mm512_maskz_loadu_ps(m, a->factor + c), _mm512_maskz_loadu_ps(m, a->shift + c));
    v = _mm512_min_ps(_mm512_set1_ps(a->hi), _mm512_max_ps(_mm512_set1_ps(a->lo), v)); /* NaN stays NaN */
    if (y_half) {
        _mm256_mask_storeu_epi16((gc_bf16 *)y + c, m, (__m256i)_mm512_cvtneps_pbh(v));
    } else {
        _mm512_mask_storeu_ps((float *)y + c, m, v);
    }
}

TARGET static GC_ALWAYS_INLINE void affine_row(const gc_half_affine *a, int64_t n, const void *x, void *y,
                                               const int x_half, const int y_half)
{
    int64_t c = 0;
    for (; c + LANES <= n; c += LANES) {
        affine_lanes(a, x, y, c, (__mmask16)0xffff, x_half, y_half);
    }
    if (c < n) {
        affine_lanes(a, x, y, c, first_lanes(n - c), x_half, y_half);
    }
}

TARGET static void affine(const gc_half_affine *a, int64_t n, const void *x, void *y)
{
    if (a->x_half && a->y_half) {
        affine_row(a, n, x, y, 1, 1);
    } else if (a->x_half) {
        affine_row(a, n, x, y, 1, 0);
    } else {
        affine_row(a, n, x, y, 0, a->y_half);
    }
}

/* ---- depthwise: 32 channels at once, those with even numbers in one vector and
   those with odd numbers in another ---- */

typedef struct duo {
    __m512 even, odd;
} duo;

enum { DUO = 2 * LANES, PLACES = 4 };

TARGET static GC_ALWAYS_INLINE duo duo_of_half(const gc_bf16 *p, __mmask32 m)
{
    __m512i x = _mm512_maskz_loadu_epi16(m, p);
    duo d = {_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)),
             _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32((int)0xffff0000u)))};
    return d;
}

/* n floats, the others are zero. */
TARGET static GC_ALWAYS_INLINE duo duo_of_floats(const float *p, int64_t n)
{
    __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    __m512 a = _mm512_maskz_loadu_ps(first_lanes(n), p), b = _mm512_maskz_loadu_ps(first_lanes(n - LANES), p + LANES);
    duo d = {_mm512_permutex2var_ps(a, even, b),
             _mm512_permutex2var_ps(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b)};
    return d;
}

TARGET static GC_ALWAYS_INLINE void put_duo(gc_bf16 *p, __mmask32 m, duo d)
{
    __m512i even = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(d.even));
    __m512i odd = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(d.odd));
    _mm512_mask_storeu_epi16(p, m, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
}

/* Channels c .. c + 32 of a line. */
typedef struct duo_block {
    const gc_half_line *d;
    int64_t c, count;
    __mmask32 m;
    duo bias;
    float weights[GC_HALF_TAPS][DUO];
} duo_block;

TARGET static GC_ALWAYS_INLINE void finish_duos(const duo_block *b, int64_t x, duo *sum, const int count)
{
    const gc_half_line *d = b->d;
    __m512 lo = _mm512_set1_ps(d->epi.lo), hi = _mm512_set1_ps(d->epi.hi);
    if (d->residual != NULL) {
        for (int i = 0; i < count; i++) {
            int64_t at = (x + i) * d->to_pixel + b->c;
            duo r = d->residual_half ? duo_of_half((const gc_bf16 *)d->residual + at, b->m)
                                     : duo_of_floats((const float *)d->residual + at, b->count);
            sum[i].even = _mm512_add_ps(sum[i].even, r.even);
            sum[i].odd = _mm512_add_ps(sum[i].odd, r.odd);
        }
    }
    if ((d->epi.flags & GC_EPI_CLIP) != 0) {
        for (int i = 0; i < count; i++) {
            sum[i].even = _mm512_min_ps(hi, _mm512_max_ps(lo, sum[i].even));
            sum[i].odd = _mm512_min_ps(hi, _mm512_max_ps(lo, sum[i].odd));
        }
    }
    if ((d->epi.flags & GC_EPI_MAP) != 0) {
        float y[PLACES * DUO];
        for (int i = 0; i < count; i++) {
            _mm512_storeu_ps(y + i * DUO, sum[i].even);
            _mm512_storeu_ps(y + i * DUO + LANES, sum[i].odd);
        }
        gc_kern_map_rows(d->kern, &d->epi, 1, count * DUO, y, 0);
        for (int i = 0; i < count; i++) {
            sum[i].even = _mm512_loadu_ps(y + i * DUO);
            sum[i].odd = _mm512_loadu_ps(y + i * DUO + LANES);
        }
    }
    for (int i = 0; i < count; i++) {
        put_duo(d->to + (x + i) * d->to_pixel + b->c, b->m, sum[i]);
    }
}

TARGET static GC_ALWAYS_INLINE void add_product(duo *sum, duo x, const float *w)
{
    sum->even = _mm512_fmadd_ps(x.even, _mm512_loadu_ps(w), sum->even);
    sum->odd = _mm512_fmadd_ps(x.odd, _mm512_loadu_ps(w + LANES), sum->odd);
}

/* Taps lo .. hi of `count` neighbouring places. */
TARGET static GC_ALWAYS_INLINE void places(const duo_block *b, int64_t x, int64_t lo, int64_t hi, const int count)
{
    const gc_half_line *d = b->d;
    duo sum[PLACES];
    for (int i = 0; i < count; i++) {
        sum[i] = b->bias;
    }
    for (int64_t r = 0; r < d->taps_y; r++) {
        int64_t end = d->lines[r] != NULL ? hi : lo;
        GC_KEEP_LOOP
        for (int64_t k = lo; k < end; k++) {
            const gc_bf16 *from = d->lines[r] + (x * d->stride + k * d->dilation - d->pad) * d->pixel + b->c;
            GC_UNROLL(4)
            for (int i = 0; i < count; i++) {
                add_product(&sum[i], duo_of_half(from + i * d->stride * d->pixel, b->m), b->weights[r * d->taps_x + k]);
            }
        }
    }
    finish_duos(b, x, sum, count);
}

/* At stride 1 without dilation every pixel is loaded once. */
TARGET static GC_ALWAYS_INLINE void dense_places(const duo_block *b, int64_t x, const int taps)
{
    const gc_half_line *d = b->d;
    duo sum[PLACES];
    for (int i = 0; i < PLACES; i++) {
        sum[i] = b->bias;
    }
    for (int64_t r = 0; r < d->taps_y; r++) {
        if (d->lines[r] == NULL) {
            continue;
        }
        const gc_bf16 *from = d->lines[r] + (x - d->pad) * d->pixel + b->c;
        GC_UNROLL(10)
        for (int p = 0; p < taps + PLACES - 1; p++) {
            duo v = duo_of_half(from + p * d->pixel, b->m);
            GC_UNROLL(4)
            for (int i = 0; i < PLACES; i++) {
                if (p - i >= 0 && p - i < taps) {
                    add_product(&sum[i], v, b->weights[r * taps + p - i]);
                }
            }
        }
    }
    finish_duos(b, x, sum, PLACES);
}

/* A place some of whose taps may lie outside. */
TARGET static void edge_place(const duo_block *b, int64_t x)
{
    const gc_half_line *d = b->d;
    int64_t at = x * d->stride - d->pad, lo = at < 0 ? (-at + d->dilation - 1) / d->dilation : 0;
    int64_t hi = at < d->pixels ? (d->pixels - 1 - at) / d->dilation + 1 : 0;
    places(b, x, lo, hi < d->taps_x ? hi : d->taps_x, 1);
}

TARGET static void inside_places(const duo_block *b, int64_t x, int64_t last)
{
    const gc_half_line *d = b->d;
    bool dense = d->stride == 1 && d->dilation == 1;
    for (; x + PLACES <= last; x += PLACES) {
        if (dense && d->taps_x == 3) {
            dense_places(b, x, 3);
        } else if (dense && d->taps_x == 5) {
            dense_places(b, x, 5);
        } else if (dense && d->taps_x == 7) {
            dense_places(b, x, 7);
        } else {
            places(b, x, 0, d->taps_x, PLACES);
        }
    }
    for (; x < last; x++) {
        places(b, x, 0, d->taps_x, 1);
    }
}

TARGET static void depthwise(const gc_half_line *d)
{
    duo_block b;
    b.d = d;
    for (b.c = 0; b.c < d->channels; b.c += DUO) {
        b.count = d->channels - b.c < DUO ? d->channels - b.c : DUO;
        b.m = (__mmask32)(b.count < DUO ? (UINT32_C(1) << b.count) - 1u : UINT32_MAX);
        b.bias.even = b.bias.odd = _mm512_setzero_ps();
        if (d->epi.bias != NULL) {
            b.bias = duo_of_floats(d->epi.bias + b.c, b.count);
        }
        for (int64_t i = 0; i < d->taps_y * d->taps_x; i++) {
            duo w = duo_of_floats(d->weights + i * d->weights_step + b.c, b.count);
            _mm512_storeu_ps(b.weights[i], w.even);
            _mm512_storeu_ps(b.weights[i] + LANES, w.odd);
        }
        for (int64_t x = 0; x < d->first_inside; x++) {
            edge_place(&b, x);
        }
        inside_places(&b, d->first_inside, d->last_inside);
        for (int64_t x = d->last_inside; x < d->places; x++) {
            edge_place(&b, x);
        }
    }
}
