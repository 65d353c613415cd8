/* SPDX-License-Identifier: MIT */
/* RotaryEmbedding (opset 23): pairs (x1, x2) of a head turn by the angle of their
   position, y1 = cos x1 - sin x2, y2 = sin x1 + cos x2; the gradient turns back.
   Pairs are neighbours when interleaved, else the halves of the rotated part. */
#include <string.h>

#include "ops/op.h"
#include "tensor/walk.h"

enum { RO_X, RO_COS, RO_SIN, RO_POSITIONS };

typedef struct rotary {
    int64_t batches, heads, length, size; /* of X, whichever way it lies */
    int64_t batch_step, head_step, row_step;
    int64_t half;                   /* pairs of one head */
    int64_t near_step, far_step;    /* from pair to pair, from x1 to x2 */
    int64_t table_rows;             /* of the caches, with positions */
    int64_t cache_batch, cache_row; /* steps without positions */
} rotary;

static bool has_positions(const gc_op_call *c)
{
    return c->n_in > RO_POSITIONS && c->in[RO_POSITIONS] != NULL;
}

static gc_status read_input(gc_op_call *c, rotary *r)
{
    for (int32_t i = RO_X; i <= RO_SIN; i++) {
        GC_TRY(gc_op_need(c, i));
        if (c->in[i]->dtype != GRADCAM_F32) {
            return gc_op_fail(c, GRADCAM_E_DTYPE, "input %d is not float", (int)i);
        }
    }
    const gc_tensor *x = c->in[RO_X];
    int64_t heads = gc_attr_int(&c->attrs, "num_heads", 0);
    bool flat = x->ndim == 3;
    if ((x->ndim != 4 && !flat) || (flat && (heads < 1 || x->shape[2] % heads != 0))) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "X must have rank 4, or rank 3 and num_heads that divides its width");
    }
    r->batches = x->shape[0];
    r->heads = flat ? heads : x->shape[1];
    r->length = flat ? x->shape[1] : x->shape[2];
    r->size = flat ? x->shape[2] / heads : x->shape[3];
    r->row_step = flat ? x->shape[2] : r->size;
    r->head_step = flat ? r->size : r->length * r->size;
    r->batch_step = flat ? r->length * x->shape[2] : r->size * r->heads * r->length;
    return GRADCAM_OK;
}

static gc_status read_pairs(gc_op_call *c, rotary *r)
{
    int64_t dim = gc_attr_int(&c->attrs, "rotary_embedding_dim", 0);
    dim = dim == 0 ? r->size : dim;
    if (dim < 0 || dim > r->size || dim % 2 != 0) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "%lld of %lld elements cannot be rotated in pairs", (long long)dim,
                          (long long)r->size);
    }
    bool interleaved = gc_attr_int(&c->attrs, "interleaved", 0) != 0;
    r->half = dim / 2;
    r->near_step = interleaved ? 2 : 1;
    r->far_step = interleaved ? 1 : r->half;
    return GRADCAM_OK;
}

/* Caches are [positions, half], or [batch, length, half] without position_ids. */
static gc_status read_caches(gc_op_call *c, rotary *r)
{
    const gc_tensor *cosine = c->in[RO_COS];
    bool table = has_positions(c), fits = gc_same_shape(cosine, c->in[RO_SIN]) && cosine->ndim == (table ? 2 : 3);
    if (fits && table) {
        const gc_tensor *at = c->in[RO_POSITIONS];
        r->table_rows = cosine->shape[0];
        fits = at->dtype >= GRADCAM_I64 && at->ndim == 2 && at->shape[0] == r->batches && at->shape[1] == r->length;
    } else if (fits) {
        fits = (cosine->shape[0] == r->batches || cosine->shape[0] == 1) && cosine->shape[1] == r->length;
        r->cache_row = r->half;
        r->cache_batch = cosine->shape[0] == 1 ? 0 : r->length * r->half;
    }
    if (!fits || cosine->shape[cosine->ndim - 1] != r->half) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "cos_cache, sin_cache or position_ids do not fit X");
    }
    return GRADCAM_OK;
}

static gc_status setup(gc_op_call *c, rotary *r)
{
    memset(r, 0, sizeof *r);
    GC_TRY(read_input(c, r));
    GC_TRY(read_pairs(c, r));
    return read_caches(c, r);
}

/* Where the caches hold the angles of token i of sample b. */
static gc_status cache_at(gc_op_call *c, const rotary *r, int64_t b, int64_t i, int64_t *at)
{
    *at = b * r->cache_batch + i * r->cache_row;
    if (!has_positions(c)) {
        return GRADCAM_OK;
    }
    const gc_tensor *t = c->in[RO_POSITIONS];
    int64_t k = (b * r->length + i) * (int64_t)gc_dtype_size(t->dtype);
    int64_t position = gc_load_int((const char *)t->data + k, t->dtype);
    if (position < -r->table_rows || position >= r->table_rows) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "position %lld of %lld", (long long)position, (long long)r->table_rows);
    }
    *at = (position < 0 ? position + r->table_rows : position) * r->half;
    return GRADCAM_OK;
}

/* `turn` is 1 or, to turn back, -1. */
static void rotate(const rotary *r, const float *cosine, const float *sine, float turn, const float *x, float *y)
{
    for (int64_t k = 0; k < r->half; k++) {
        int64_t at = k * r->near_step;
        float x1 = x[at], x2 = x[at + r->far_step], s = turn * sine[k];
        y[at] = cosine[k] * x1 - s * x2;
        y[at + r->far_step] = s * x1 + cosine[k] * x2;
    }
    memcpy(y + 2 * r->half, x + 2 * r->half, (size_t)(r->size - 2 * r->half) * sizeof *y);
}

static gc_status rotate_all(gc_op_call *c, const rotary *r, float turn, const float *x, float *y)
{
    const float *cosine = c->in[RO_COS]->data, *sine = c->in[RO_SIN]->data;
    for (int64_t k = 0; k < r->batches * r->length; k++) {
        int64_t b = k / r->length, i = k % r->length, cache;
        GC_TRY(cache_at(c, r, b, i, &cache));
        for (int64_t h = 0; h < r->heads; h++) {
            int64_t at = b * r->batch_step + h * r->head_step + i * r->row_step;
            rotate(r, cosine + cache, sine + cache, turn, x + at, y + at);
        }
    }
    return GRADCAM_OK;
}

static gc_status rotary_infer(gc_op_call *c)
{
    rotary r;
    GC_TRY(setup(c, &r));
    return gc_op_set_output(c, 0, GRADCAM_F32, c->in[RO_X]->ndim, c->in[RO_X]->shape);
}

static gc_status rotary_forward(gc_op_call *c)
{
    rotary r;
    GC_TRY(setup(c, &r));
    return c->out[0] == NULL ? GRADCAM_OK : rotate_all(c, &r, 1.0f, c->in[RO_X]->data, c->out[0]->data);
}

/* dcos += x1 g1 + x2 g2, dsin += x1 g2 - x2 g1; NULL where not wanted. */
static gc_status cache_gradients(gc_op_call *c, const rotary *r, float *dcos, float *dsin)
{
    const float *x = c->in[RO_X]->data, *g = c->grad_out[0]->data;
    for (int64_t k = 0; k < r->batches * r->length * r->heads; k++) {
        int64_t h = k % r->heads, i = k / r->heads % r->length, b = k / r->heads / r->length, cache;
        int64_t row = b * r->batch_step + h * r->head_step + i * r->row_step;
        GC_TRY(cache_at(c, r, b, i, &cache));
        for (int64_t p = 0; p < r->half; p++) {
            int64_t near = row + p * r->near_step, far = near + r->far_step;
            if (dcos != NULL) {
                dcos[cache + p] += x[near] * g[near] + x[far] * g[far];
            }
            if (dsin != NULL) {
                dsin[cache + p] += x[near] * g[far] - x[far] * g[near];
            }
        }
    }
    return GRADCAM_OK;
}

static gc_status rotary_backward(gc_op_call *c)
{
    rotary r;
    float *caches[2] = {NULL, NULL};
    GC_TRY(setup(c, &r));
    for (int32_t i = RO_COS; i < c->n_in; i++) {
        if (c->grad_in[i] != NULL) {
            gc_walk_zero(c->grad_in[i]);
        }
    }
    caches[0] = c->grad_in[RO_COS] != NULL ? c->grad_in[RO_COS]->data : NULL;
    caches[1] = c->grad_in[RO_SIN] != NULL ? c->grad_in[RO_SIN]->data : NULL;
    if (caches[0] != NULL || caches[1] != NULL) {
        GC_TRY(cache_gradients(c, &r, caches[0], caches[1]));
    }
    return c->grad_in[RO_X] == NULL ? GRADCAM_OK
                                    : rotate_all(c, &r, -1.0f, c->grad_out[0]->data, c->grad_in[RO_X]->data);
}

const gc_op gc_ops_rotary[] = {
    {"RotaryEmbedding", rotary_infer, rotary_forward, rotary_backward, 0, 15, 0, 3, 4, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
