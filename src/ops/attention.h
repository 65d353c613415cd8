/* SPDX-License-Identifier: MIT */
/* One call of Attention with its sizes, as attention.c and attention_grad.c see it. */
#ifndef GC_OPS_ATTENTION_H
#define GC_OPS_ATTENTION_H

#include "kern/attend.h"
#include "ops/op.h"

enum { AT_Q, AT_K, AT_V, AT_MASK, AT_PAST_K, AT_PAST_V, AT_VALID, AT_INPUTS };
enum { AT_Y, AT_PRESENT_K, AT_PRESENT_V, AT_SCORES, AT_OUTPUTS };
enum { AT_RAW, AT_CAPPED, AT_BIASED, AT_WEIGHTS }; /* qk_matmul_output_mode */

/* Element (b, h, i, d) of a [batch, heads, length, size] array, whichever way it
   lies, is at b * batch + h * head + i * row + d. */
typedef gc_attend_layout at_layout;

/* Attribute of calls that a plan makes of products and a Softmax: 1: a query that sees
   no key gets NaN, as of a Softmax. */
#define GC_ATTENTION_SOFTMAX "gradcam.softmax"

typedef struct attention {
    int64_t batches, heads, kv_heads;   /* each key head serves heads / kv_heads queries */
    int64_t q_len, past, kv_len, total; /* total = past + kv_len keys */
    int64_t size, v_size;
    bool causal;
    bool empty_zero;     /* a query that sees no key gets zeros, else NaN */
    int64_t left, right; /* sliding window, -1: open */
    int64_t mode;
    float scale, cap; /* cap 0: none */
    at_layout q, k, v, past_k, past_v, y;
    int64_t mask_step[4]; /* of the mask, 0 where it repeats */
    int64_t mask_len;     /* keys after these are masked */
    int64_t scores;       /* batches * heads * q_len * total */
} attention;

gc_status gc_attention_setup(gc_op_call *c, attention *a);
/* Input or output i has data. */
bool gc_attention_has(const gc_tensor *const *list, int32_t n, int32_t i);
/* grad_in[i] for all inputs; weights are in aux, followed by the capped scores. */
gc_status gc_attention_backward(gc_op_call *c);

/* A part of the keys and values: the past, or those of this call. */
typedef struct at_part {
    int64_t first, count; /* among the columns of the scores */
    at_layout k, v;
    int32_t k_in, v_in;
} at_part;
int32_t gc_attention_parts(const attention *a, at_part parts[2]);

#endif
