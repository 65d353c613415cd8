/* SPDX-License-Identifier: MIT */
/* bfloat16 products of AMX: tiles of 16 rows of 64 bytes.  0 to 3 hold the sums of
   two parts times two blocks, 4 and 5 the parts, 6 and 7 the blocks. */
#include "base/compiler.h"
#include "kern/half.h"
#ifdef GC_HAVE_BF16
#define TARGET GC_TARGET_AMX
#include "kern/half_rows.h"

/* The layout of a tile configuration: palette 1, then bytes of a row at 16 and
   rows at 48. */
enum { PALETTE = 0, ROW_BYTES = 16, ROWS = 48, FIRST_A = 4, FIRST_B = 6 };

static void shape(gc_half_state *s, int k, int64_t rows, int64_t row_bytes)
{
    s->config[ROW_BYTES + 2 * k] = (uint8_t)row_bytes;
    s->config[ROWS + k] = (uint8_t)rows;
}

TARGET static void configure(gc_half_state *s, const gc_half_tile *t)
{
    int32_t depth = (int32_t)gc_half_depth(t->length), second = t->rows[1] > 0 ? t->rows[1] : 1;
    if (s->configured && s->rows[0] == t->rows[0] && s->rows[1] == second && s->depth == depth) {
        return;
    }
    memset(s, 0, sizeof *s);
    s->configured = 1;
    s->rows[0] = t->rows[0];
    s->rows[1] = second;
    s->depth = depth;
    s->config[PALETTE] = 1;
    for (int k = 0; k < 2; k++) {
        shape(s, 2 * k, s->rows[k], 64);
        shape(s, 2 * k + 1, s->rows[k], 64);
        shape(s, FIRST_A + k, s->rows[k], 2 * depth);
        shape(s, FIRST_B + k, depth / 2, 64);
    }
    GC_MEMORY_IS_READ();
    _tile_loadconfig(s->config);
}

TARGET static void end(gc_half_state *s)
{
    if (s->configured) {
        _tile_release();
        memset(s, 0, sizeof *s);
    }
}

TARGET static GC_ALWAYS_INLINE void step(const gc_bf16 *a0, const gc_bf16 *a1, const gc_bf16 *b, int64_t block,
                                         int64_t a_step, const int parts, const int blocks)
{
    _tile_loadd(6, b, 64);
    _tile_loadd(4, a0, a_step);
    _tile_dpbf16ps(0, 4, 6);
    if (blocks == 2) {
        _tile_loadd(7, b + block, 64);
        _tile_dpbf16ps(1, 4, 7);
    }
    if (parts == 2) {
        _tile_loadd(5, a1, a_step);
        _tile_dpbf16ps(2, 5, 6);
    }
    if (parts == 2 && blocks == 2) {
        _tile_dpbf16ps(3, 5, 7);
    }
}

/* A core that has not computed with vectors of 64 bytes for 2000 cycles takes 900 to store a tile:
   `awake` keeps it from falling asleep. */
TARGET static GC_ALWAYS_INLINE void sums(const gc_half_tile *t, int64_t depth, const int parts, const int blocks)
{
    int64_t steps = gc_half_steps(t->length), last = t->length - depth, a_step = 2 * t->a_step;
    int64_t block = t->n_segments * steps * depth * GC_HALF_BLOCK;
    const gc_bf16 *b = t->b;
    const char *ahead = t->ahead;
    __m512 awake = _mm512_setzero_ps();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t g = 0; g < t->n_segments; g++) {
        int64_t first = t->segments != NULL ? t->segments[g] : 0;
        const gc_bf16 *a0 = t->a[0] + first, *a1 = parts == 2 ? t->a[1] + first : a0;
        GC_KEEP_LOOP
        for (int64_t k = 0; k < steps; k++, b += depth * GC_HALF_BLOCK) {
            int64_t at = k * depth < last ? k * depth : last;
            awake = _mm512_add_ps(awake, awake);
            GC_VECTOR_IS_USED(awake);
            step(a0 + at, a1 + at, b, block, a_step, parts, blocks);
            GC_KEEP_LOOP
            for (int64_t line = 0; line < t->ahead_lines; line++, ahead += 64) {
                GC_PREFETCH_AHEAD(ahead);
            }
        }
    }
}

/* The sums are the result. */
static bool is_bare(const gc_half_tile *t)
{
    bool all = t->cols == GC_HALF_COLS && t->keep[0] == (UINT32_C(1) << t->rows[0]) - 1u;
    return all && !t->c_half && t->residual == NULL && t->epi.bias == NULL && t->epi.flags == 0;
}

TARGET static GC_ALWAYS_INLINE void whole(const gc_half_tile *t, int64_t depth, const int parts, const int blocks)
{
    float sum[GC_HALF_PARTS][GC_HALF_ROWS * GC_HALF_COLS];
    sums(t, depth, parts, blocks);
    if (parts == 1 && blocks == 2 && is_bare(t)) {
        float *to = (float *)t->c + t->at[0];
        _tile_stored(0, to, (size_t)t->c_step * sizeof *to);
        _tile_stored(1, to + LANES, (size_t)t->c_step * sizeof *to);
        return;
    }
    _tile_stored(0, sum[0], GC_HALF_COLS * sizeof(float));
    if (blocks == 2) {
        _tile_stored(1, sum[0] + LANES, GC_HALF_COLS * sizeof(float));
    }
    if (parts == 2) {
        _tile_stored(2, sum[1], GC_HALF_COLS * sizeof(float));
    }
    if (parts == 2 && blocks == 2) {
        _tile_stored(3, sum[1] + LANES, GC_HALF_COLS * sizeof(float));
    }
    for (int q = 0; q < parts; q++) {
        finish(t, q, sum[q]);
    }
}

TARGET static void tile(const gc_half_tile *t, gc_half_state *state)
{
    configure(state, t);
    if (t->rows[1] > 0 && t->cols > GC_HALF_BLOCK) {
        whole(t, state->depth, 2, 2);
    } else if (t->rows[1] > 0) {
        whole(t, state->depth, 2, 1);
    } else if (t->cols > GC_HALF_BLOCK) {
        whole(t, state->depth, 1, 2);
    } else {
        whole(t, state->depth, 1, 1);
    }
}

const gc_half gc_half_amx = {"amx_bf16", 12.0, 1,     tile,      end,      narrow,    widen,
                             narrow_odd, dots, axpys, depthwise, max_taps, mean_taps, affine};
#endif
