/* SPDX-License-Identifier: MIT */
/* bfloat16 products in C99: a bfloat16 is the upper half of a float32, so that
   products are exact in float32. */
#include <math.h>
#include <string.h>

#include "kern/half.h"

static float widen_one(gc_bf16 x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static gc_bf16 narrow_one(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) { /* NaN stays one */
        return (gc_bf16)(bits >> 16 | 0x40u);
    }
    return (gc_bf16)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static void narrow(int64_t n, const float *x, gc_bf16 *y)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] = narrow_one(x[i]);
    }
}

static void widen(int64_t n, const gc_bf16 *x, float *y)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] = widen_one(x[i]);
    }
}

static void narrow_odd(int64_t pixels, int64_t channels, const float *x, gc_bf16 *y)
{
    for (int64_t i = 0; i < pixels; i++, x += channels, y += channels + 1) {
        narrow(channels, x, y);
        y[channels] = 0;
    }
}

/* Row i of part q times block `block` of the panel. */
static void sum_row(const gc_half_tile *t, int q, int64_t i, int64_t block, float *sum)
{
    int64_t steps = gc_half_steps(t->length), depth = gc_half_depth(t->length);
    const gc_bf16 *b = t->b + block * t->n_segments * steps * depth * GC_HALF_BLOCK;
    for (int64_t k = 0; k < t->n_segments * steps; k++, b += depth * GC_HALF_BLOCK) {
        const gc_bf16 *a = t->a[q] + i * t->a_step + (t->segments != NULL ? t->segments[k / steps] : 0) +
                           gc_half_begin(t->length, k % steps);
        for (int64_t p = 0; p < depth; p++) {
            const gc_bf16 *row = b + p / 2 * 2 * GC_HALF_BLOCK + p % 2;
            for (int64_t j = 0; j < GC_HALF_BLOCK; j++) {
                sum[j] += widen_one(a[p]) * widen_one(row[2 * j]);
            }
        }
    }
}

static void finish_row(const gc_half_tile *t, int64_t at, float *sum)
{
    for (int64_t j = 0; j < t->cols; j++) {
        if (t->epi.bias != NULL) {
            sum[j] += t->epi.bias[j];
        }
        if (t->residual != NULL) {
            sum[j] += t->residual_half ? widen_one(((const gc_bf16 *)t->residual)[at + j])
                                       : ((const float *)t->residual)[at + j];
        }
        if ((t->epi.flags & GC_EPI_CLIP) != 0) {
            sum[j] = sum[j] < t->epi.lo ? t->epi.lo : sum[j];
            sum[j] = t->epi.hi < sum[j] ? t->epi.hi : sum[j];
        }
    }
    gc_kern_map_rows(t->kern, &t->epi, 1, t->cols, sum, 0);
    for (int64_t j = 0; j < t->cols; j++) {
        if (t->c_half) {
            ((gc_bf16 *)t->c)[at + j] = narrow_one(sum[j]);
        } else {
            ((float *)t->c)[at + j] = sum[j];
        }
    }
}

static void tile(const gc_half_tile *t, gc_half_state *state)
{
    (void)state;
    for (int q = 0; q < GC_HALF_PARTS; q++) {
        int64_t at = t->at[q];
        for (int64_t i = 0; i < t->rows[q]; i++) {
            float sum[GC_HALF_COLS] = {0};
            if ((t->keep[q] >> i & 1u) == 0) {
                continue;
            }
            for (int64_t block = 0; block * GC_HALF_BLOCK < t->cols; block++) {
                sum_row(t, q, i, block, sum + block * GC_HALF_BLOCK);
            }
            finish_row(t, at, sum);
            at += t->c_step;
        }
    }
}

static void end(gc_half_state *state)
{
    (void)state;
}

static void dots(const float *x, const gc_bf16 *w, int64_t step, int64_t rows, int64_t n, float *y)
{
    for (int64_t r = 0; r < rows; r++) {
        float sum = 0.0f;
        for (int64_t p = 0; p < n; p++) {
            sum += x[p] * widen_one(w[r * step + p]);
        }
        y[r] = sum;
    }
}

static void axpys(const float *factor, int64_t factor_step, const gc_bf16 *w, int64_t step, int64_t rows, int64_t n,
                  float *y)
{
    for (int64_t r = 0; r < rows; r++) {
        float f = factor[r * factor_step];
        for (int64_t p = 0; p < n && f != 0.0f; p++) {
            y[p] += f * widen_one(w[r * step + p]);
        }
    }
}

static float depthwise_sum(const gc_half_line *d, int64_t x, int64_t c)
{
    float sum = 0.0f;
    for (int64_t i = 0; i < d->taps_y * d->taps_x; i++) {
        int64_t at = x * d->stride + i % d->taps_x * d->dilation - d->pad;
        const gc_bf16 *line = d->lines[i / d->taps_x];
        if (line != NULL && at >= 0 && at < d->pixels) {
            sum += widen_one(line[at * d->pixel + c]) * d->weights[i * d->weights_step + c];
        }
    }
    return sum;
}

static void depthwise(const gc_half_line *d)
{
    for (int64_t x = 0; x < d->places; x++) {
        for (int64_t c = 0; c < d->channels; c++) {
            float sum = depthwise_sum(d, x, c);
            gc_half_tile t;
            memset(&t, 0, sizeof t);
            t.cols = 1;
            t.c = d->to;
            t.c_half = 1;
            t.residual = d->residual;
            t.residual_half = d->residual_half;
            t.epi = d->epi;
            t.epi.bias = d->epi.bias != NULL ? d->epi.bias + c : NULL;
            t.kern = d->kern;
            finish_row(&t, x * d->to_pixel + c, &sum);
        }
    }
}

static void max_taps(const gc_bf16 *const *taps, int64_t count, int64_t channels, gc_bf16 *y)
{
    for (int64_t c = 0; c < channels; c++) {
        float best = -INFINITY;
        for (int64_t t = 0; t < count; t++) {
            float v = widen_one(taps[t][c]);
            best = v > best || v != v ? v : best;
        }
        y[c] = narrow_one(best);
    }
}

static void mean_taps(const gc_bf16 *const *taps, int64_t count, int64_t channels, float divisor, gc_bf16 *y)
{
    for (int64_t c = 0; c < channels; c++) {
        float sum = 0.0f;
        for (int64_t t = 0; t < count; t++) {
            sum += widen_one(taps[t][c]);
        }
        y[c] = narrow_one(sum / divisor);
    }
}

static void affine(const gc_half_affine *a, int64_t n, const void *x, void *y)
{
    for (int64_t c = 0; c < n; c++) {
        float v = a->x_half ? widen_one(((const gc_bf16 *)x)[c]) : ((const float *)x)[c];
        v = v * a->factor[c] + a->shift[c];
        v = v < a->lo ? a->lo : v;
        v = v > a->hi ? a->hi : v;
        if (a->y_half) {
            ((gc_bf16 *)y)[c] = narrow_one(v);
        } else {
            ((float *)y)[c] = v;
        }
    }
}

const gc_half gc_half_plain = {"plain",    1.0,  1,     tile,      end,      narrow,    widen,
                               narrow_odd, dots, axpys, depthwise, max_taps, mean_taps, affine};
