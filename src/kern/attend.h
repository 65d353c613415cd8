/* SPDX-License-Identifier: MIT */
/* Y = softmax(scale Q K^T + mask) V for every head, by blocks of rows and keys: the
   scores are never written out whole.  Milakov and Gimelshein 2018, Dao et al. 2022. */
#ifndef GC_KERN_ATTEND_H
#define GC_KERN_ATTEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ctx.h"

/* Element (b, h, i, d) lies at b * batch + h * head + i * row + d. */
typedef struct gc_attend_layout {
    int64_t batch, head, row;
} gc_attend_layout;

/* Keys that lie together, and their values. */
typedef struct gc_attend_part {
    const void *k, *v;
    gc_attend_layout k_at, v_at;
    int64_t count;
} gc_attend_part;

/* Adds the mask to the scores s[0..n) of row `row` with keys first, first + 1, .... */
typedef void (*gc_attend_mask_fn)(const void *user, int64_t batch, int64_t head, int64_t row, int64_t first, int64_t n,
                                  float *s);

typedef struct gc_attend {
    int64_t batches, heads, kv_heads; /* each head of K serves heads / kv_heads of Q */
    int64_t rows, size, v_size;       /* size: of a row of Q and K */
    const void *q;
    void *y;
    gc_attend_layout q_at, y_at;
    gc_attend_part part[2]; /* the keys of the second come after those of the first */
    float scale;
    bool zero_empty;        /* a row whose scores are all -infinity gives zeros, else NaN */
    gc_attend_mask_fn mask; /* or NULL */
    const void *user;
    const struct gc_half *half; /* products in bfloat16, see gc_attend_in_half; or NULL */
    /* Then what lies there is bfloat16, else float32. */
    int32_t q_half, k_half, v_half, y_half;
} gc_attend;

/* `half` is honoured: one part, and rows that are not too long. */
bool gc_attend_in_half(const gc_attend *a);

/* Floats of scratch, or -1 when they cannot be counted. */
int64_t gc_attend_work(const gc_ctx *ctx, const gc_attend *a);
/* The same bits for any number of workers.  Fails only when the executor does. */
gc_status gc_attend_run(const gc_ctx *ctx, const gc_attend *a, float *work);

#endif
