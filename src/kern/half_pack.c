/* SPDX-License-Identifier: MIT */
/* Weights of a convolution in bfloat16 as its tiles read them. */
#include "base/status.h"
#include "kern/half_shape.h"

typedef struct half_pack {
    const gc_gather *g;
    const gc_conv_weights *w;
    gc_bf16 *packed;
} half_pack;

/* Product p of segment `segment` for 16 columns, those past the last zero. */
static void weights_of(const half_pack *j, const float *from, int64_t columns, int64_t segment, int64_t p, float *to)
{
    const gc_gather *g = j->g;
    int64_t channels = gc_half_channels(g), channel = segment / gc_half_taps(g) * gc_half_chunk(g) + p;
    int64_t tap = segment % gc_half_taps(g);
    if (gc_half_joined(g)) {
        channel = p % channels;
        tap = segment * g->dim[2].taps + p / channels;
    }
    for (int64_t k = 0; k < GC_HALF_BLOCK; k++) {
        to[2 * k] = 0.0f;
    }
    from += channel * j->w->channel_step + gc_conv_whole_tap(g, j->w, tap);
    for (int64_t k = 0; k < columns && channel < g->in_c; k++) {
        to[2 * k] = from[k * j->w->column_step];
    }
}

/* One block of columns. */
static void pack_block_task(void *task, uint32_t index)
{
    const half_pack *j = task;
    const gc_gather *g = j->g;
    int64_t blocks = gc_half_columns(g) / GC_HALF_BLOCK, group = index / blocks, first = index % blocks * GC_HALF_BLOCK;
    int64_t length = gc_half_length(g), steps = gc_half_steps(length), depth = gc_half_depth(length);
    int64_t columns = min64(GC_HALF_BLOCK, g->out_c - first);
    gc_bf16 *to = j->packed + (group * gc_half_columns(g) + first) * gc_half_column(g);
    const float *from = j->w->data + group * j->w->group + first * j->w->column_step;
    for (int64_t k = 0; k < gc_half_segments(g) * steps; k++) {
        int64_t begin = gc_half_begin(length, k % steps), fresh = k % steps * depth;
        for (int64_t p = begin; p < begin + depth; p += 2, to += 2 * GC_HALF_BLOCK) {
            float row[2 * GC_HALF_BLOCK] = {0.0f};
            for (int64_t i = 0; i < 2; i++) {
                if (p + i >= fresh) {
                    weights_of(j, from, columns, k / steps, p + i, row + i);
                }
            }
            g->half->narrow(2 * GC_HALF_BLOCK, row, to);
        }
    }
}

gc_status gc_half_pack(const gc_ctx *ctx, const gc_gather *g, const gc_conv_weights *w, float *packed)
{
    half_pack j = {g, w, (gc_bf16 *)(void *)packed};
    return gc_parallel(ctx, pack_block_task, &j, (uint32_t)(g->groups * gc_half_columns(g) / GC_HALF_BLOCK));
}

int64_t gc_half_packed(const gc_gather *g)
{
    int64_t taps, n;
    bool fits = gc_mul_ok(gc_half_taps(g), 2 * GC_HALF_DEPTH, &taps) && gc_mul_ok(taps, g->in_c, &n) &&
                gc_mul_ok(n, gc_half_columns(g), &n) && gc_mul_ok(n, g->groups, &n);
    return fits ? gc_half_column(g) * gc_half_columns(g) * g->groups / 2 : -1;
}
