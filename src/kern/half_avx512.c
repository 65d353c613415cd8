/* SPDX-License-Identifier: MIT */
/* bfloat16 products of AVX512-BF16. */
#include "base/compiler.h"
#include "kern/half.h"
#ifdef GC_HAVE_BF16
#define TARGET GC_TARGET_BF16
#include "kern/half_rows.h"

/* Rows that are summed at once: with two blocks 16 sums. */
enum { AT_ONCE = 8 };

TARGET static GC_ALWAYS_INLINE void sum_rows(const gc_half_tile *t, const gc_bf16 *first, float *sum, const int rows,
                                             const int blocks)
{
    int64_t steps = gc_half_steps(t->length), depth = gc_half_depth(t->length);
    const gc_bf16 *b = t->b;
    int64_t block = t->n_segments * steps * depth * GC_HALF_BLOCK;
    __m512 acc[AT_ONCE][2];
    GC_UNROLL(8)
    for (int i = 0; i < rows; i++) {
        acc[i][0] = acc[i][1] = _mm512_setzero_ps();
    }
    for (int64_t k = 0; k < t->n_segments * steps; k++) {
        const gc_bf16 *a = first + (t->segments != NULL ? t->segments[k / steps] : 0) +
                           gc_half_begin(t->length, k % steps);
        GC_KEEP_LOOP
        for (int64_t p = 0; p < depth; p += 2, b += 2 * GC_HALF_BLOCK) {
            __m512i bv[2];
            GC_UNROLL(2)
            for (int j = 0; j < blocks; j++) {
                bv[j] = _mm512_loadu_si512((const void *)(b + j * block));
            }
            GC_UNROLL(8)
            for (int i = 0; i < rows; i++) {
                int32_t pair;
                memcpy(&pair, a + i * t->a_step + p, sizeof pair);
                __m512i av = _mm512_set1_epi32(pair);
                GC_UNROLL(2)
                for (int j = 0; j < blocks; j++) {
                    acc[i][j] = _mm512_dpbf16_ps(acc[i][j], (__m512bh)av, (__m512bh)bv[j]);
                }
            }
        }
    }
    GC_UNROLL(8)
    for (int i = 0; i < rows; i++) {
        GC_UNROLL(2)
        for (int j = 0; j < blocks; j++) {
            _mm512_storeu_ps(sum + i * GC_HALF_COLS + j * LANES, acc[i][j]);
        }
    }
}

TARGET static GC_ALWAYS_INLINE void part(const gc_half_tile *t, int q, const int blocks)
{
    float sum[GC_HALF_ROWS * GC_HALF_COLS];
    int64_t i = 0;
    for (; i + AT_ONCE <= t->rows[q]; i += AT_ONCE) {
        sum_rows(t, t->a[q] + i * t->a_step, sum + i * GC_HALF_COLS, AT_ONCE, blocks);
    }
    for (; i + 2 <= t->rows[q]; i += 2) {
        sum_rows(t, t->a[q] + i * t->a_step, sum + i * GC_HALF_COLS, 2, blocks);
    }
    for (; i < t->rows[q]; i++) {
        sum_rows(t, t->a[q] + i * t->a_step, sum + i * GC_HALF_COLS, 1, blocks);
    }
    finish(t, q, sum);
}

TARGET static void tile(const gc_half_tile *t, gc_half_state *state)
{
    (void)state;
    for (int q = 0; q < GC_HALF_PARTS && t->rows[q] > 0; q++) {
        if (t->cols > GC_HALF_BLOCK) {
            part(t, q, 2);
        } else {
            part(t, q, 1);
        }
    }
}

static void end(gc_half_state *state)
{
    (void)state;
}

const gc_half gc_half_avx512 = {"avx512_bf16", 2.0,  0,     tile,      end,      narrow,    widen,
                                narrow_odd,    dots, axpys, depthwise, max_taps, mean_taps, affine};
#endif
