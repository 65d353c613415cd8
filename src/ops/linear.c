/* SPDX-License-Identifier: MIT */
/* Gemm and MatMul, row-major. */
#include <string.h>

#include "base/size.h"
#include "kern/blas.h"
#include "kern/conv.h"
#include "kern/gemm.h"
#include "ops/batches.h"
#include "ops/live.h"

enum { FEW_ROWS = 3 };

/* Y[m][n] = A[m][k] B[k][n], seen through strides. */
typedef struct product {
    int64_t m, n, k;
    int64_t a_row, a_col, b_row, b_col;
} product;

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static gc_status need_floats(gc_op_call *c, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        if (i < 2) {
            GC_TRY(gc_op_need(c, i));
        }
        if (i < c->n_in && c->in[i] && c->in[i]->dtype != GRADCAM_F32 && !(i == 0 && gc_op_is_half(c, c->in[0]))) {
            return gc_op_fail(c, GRADCAM_E_DTYPE, "input %d is not float", (int)i);
        }
    }
    return GRADCAM_OK;
}

/* Each gradient is made of the other operand; that of a constant is not asked for. */
static void declare_keep(gc_op_call *c)
{
    c->keep_in = (gc_is_constant(c->in[1]) ? 0u : 1u) | (gc_is_constant(c->in[0]) ? 0u : 2u);
}

/* Scratch for the product and for both gradients. */
static size_t product_work(const product *p)
{
    size_t n = gc_gemm_work(p->m, p->n, p->k);
    n = max_size(n, max_size(gc_gemm_work(p->m, p->k, p->n), gc_gemm_work(p->k, p->m, p->n)));
    n = max_size(n, max_size(gc_gemm_work(p->k, p->n, p->m), gc_gemm_work(p->n, p->k, p->m)));
    return n * sizeof(float);
}

/* ---- a constant B: packed once, read like a convolution of one tap ---- */

static void as_gather(const gc_op_call *c, const product *p, gc_gather *g)
{
    memset(g, 0, sizeof *g);
    g->kern = gc_kern_of(c->ctx);
    g->half = c->half;
    g->images = g->groups = 1;
    g->in_c = g->in_pixel = p->k;
    g->out_c = g->out_pixel = p->n;
    for (int i = 0; i < 3; i++) {
        int64_t size = i == 2 ? p->m : 1;
        gc_conv_dim dim = {size, size, 1, 1, 1, 0, 0, 1, size, 0, 1};
        g->dim[i] = dim;
    }
}

static gc_conv_method method_of(const gc_gather *g)
{
    return gc_half_fits(g) ? GC_CONV_HALF : GC_CONV_DIRECT;
}

static bool many_rows(const gc_op_call *c, const product *p)
{
    return p->m > FEW_ROWS || c->some_rows;
}

/* Few rows read B as it is, and so does a BLAS; a transposed A needs a copy in any case. */
static bool packable(const gc_op_call *c, const product *p)
{
    gc_blas_product blas = {p->m, p->n, p->k, p->a_row, p->a_col, p->b_row, p->b_col, p->n};
    return gc_is_constant(c->in[1]) && (c->half != NULL || !gc_blas_takes(c->ctx, &blas)) && many_rows(c, p) &&
           p->a_col == 1 && p->a_row == p->k && p->k > 0 && p->n > 0 && p->m < INT32_MAX;
}

/* dA[m][k] = dY[m][n] B^T[n][k]. */
static product gradient_of(const product *p)
{
    product t = {p->m, p->k, p->n, p->n, 1, p->b_col, p->b_row};
    return t;
}

/* Few rows in bfloat16: B is read once, forward and backward, as it lies. */
static bool few_in_half(const gc_op_call *c, const product *p)
{
    return c->half != NULL && gc_is_constant(c->in[1]) && p->m > 0 && !many_rows(c, p) && p->k > 0 && p->n > 0 &&
           p->a_col == 1 && p->a_row == p->k && (p->b_row == 1 || p->b_col == 1);
}

static gc_status few_rows(const gc_op_call *c, const product *p, const float *a, bool add, float *y)
{
    gc_half_rows r = {p->m, p->n, p->k, p->b_row, p->b_col};
    return gc_half_few_rows(c->ctx, c->half, &r, a, c->packed, add, y);
}

static void declare_pack(gc_op_call *c, const product *p, gc_status (*pack)(gc_op_call *, bool, void *))
{
    const product back = gradient_of(p);
    if (few_in_half(c, p)) {
        c->pack = pack;
        c->pack_serves = GC_PACK_FORWARD | GC_PACK_BACKWARD;
        c->pack_bytes = (size_t)(p->n * p->k) * sizeof(gc_bf16);
        c->pack_variant = GC_CONV_HALF;
    }
    for (int i = 0; i < 2; i++) {
        gc_gather g;
        as_gather(c, i == 0 ? p : &back, &g);
        int64_t floats = packable(c, p) ? gc_conv_packed(&g, method_of(&g)) : -1;
        int64_t scratch = gc_conv_scratch(&g, method_of(&g), 1);
        if (floats > 0 && (uint64_t)floats <= SIZE_MAX / sizeof(float)) {
            c->pack = pack;
            c->pack_serves |= i == 0 ? GC_PACK_FORWARD : GC_PACK_BACKWARD;
            *(i == 0 ? &c->pack_bytes : &c->back_pack_bytes) = (size_t)floats * sizeof(float);
            *(i == 0 ? &c->pack_variant : &c->back_pack_variant) = (uint64_t)method_of(&g);
            c->work_bytes = max_size(c->work_bytes, (size_t)scratch * sizeof(float));
        }
    }
}

static gc_status pack_product(gc_op_call *c, const product *forward, bool backward, void *block)
{
    const product back = gradient_of(forward), *p = backward ? &back : forward;
    gc_gather g;
    gc_conv_weights w = {c->in[1]->data, 0, p->b_col, p->b_row, {1, 1, 1}};
    as_gather(c, p, &g);
    if (few_in_half(c, p)) {
        return gc_half_narrow(c->ctx, c->half, p->n * p->k, c->in[1]->data, block);
    }
    return gc_conv_pack(c->ctx, &g, method_of(&g), &w, block);
}

/* A bias is read in whole vectors. */
static bool takes_bias(const gc_op_call *c, const product *p)
{
    return p->n % gc_kern_of(c->ctx)->vl == 0;
}

/* The tiles of packed_product work with the block that pack makes. */
static bool has_tiles(const gc_op_call *c, const product *p)
{
    return c->pack != NULL && !few_in_half(c, p);
}

/* Tiles that do it all write bfloat16, too. */
static void declare_half(gc_op_call *c, const product *p, bool all)
{
    gc_gather g;
    as_gather(c, p, &g);
    if (has_tiles(c, p) && method_of(&g) == GC_CONV_HALF) {
        c->half_able = 1u | (all ? GC_HALF_OUT | GC_HALF_RESIDUAL : 0u);
    }
}

static gc_status packed_product(gc_op_call *c, const product *p, const float *a, const float *bias, float *y)
{
    gc_gather g;
    gc_epilogue epi;
    as_gather(c, p, &g);
    g.in_half = gc_op_is_half(c, c->in[0]);
    g.out_half = gc_op_is_half(c, c->out[0]);
    g.residual_half = gc_op_is_half(c, c->fusion.residual);
    memset(&epi, 0, sizeof epi);
    epi.bias = c->fusion.bias != NULL ? c->fusion.bias->data : bias;
    epi.residual = c->fusion.residual != NULL ? c->fusion.residual->data : NULL;
    if (c->fusion.clip) {
        epi.flags = GC_EPI_CLIP;
        epi.lo = c->fusion.lo;
        epi.hi = c->fusion.hi;
    }
    if (c->fusion.map != 0) {
        epi.flags = GC_EPI_MAP;
        epi.map = c->fusion.map - 1;
    }
    return gc_conv_run(c->ctx, &g, method_of(&g), a, c->packed, &epi, y, c->work, 1);
}

static gc_status forward_product(gc_op_call *c, const product *p, const float *a, const float *b, float *y)
{
    if (c->packed != NULL && few_in_half(c, p)) {
        return few_rows(c, p, a, false, y);
    }
    return gc_gemm(c->ctx, p->m, p->n, p->k, a, p->a_row, p->a_col, b, p->b_row, p->b_col, 0, y, p->n, c->work);
}

/* ---- gradients ---- */

/* dA = dY B^T with the packed B^T; += where dA holds a part already. */
static gc_status packed_gradient(gc_op_call *c, const product *forward, const float *dy, float *da)
{
    product live = *forward;
    int64_t first = gc_live_rows(dy, forward->m, forward->n, &live.m), row = forward->k;
    bool adds = (c->adds & 1u) != 0;
    if (!adds) {
        memset(da, 0, (size_t)(first * row) * sizeof *da);
        memset(da + (first + live.m) * row, 0, (size_t)((forward->m - first - live.m) * row) * sizeof *da);
    }
    if (live.m == 0) {
        return GRADCAM_OK;
    }
    const product p = gradient_of(&live);
    gc_gather g;
    gc_epilogue epi;
    as_gather(c, &p, &g);
    memset(&epi, 0, sizeof epi);
    da += first * row;
    epi.residual = adds ? da : NULL;
    return gc_conv_run(c->ctx, &g, method_of(&g), dy + first * forward->n, c->back_packed, &epi, da, c->work, 1);
}

/* dA += dY B^T.  A transposed in memory (a_col != 1) gets dA^T = B dY^T. */
static gc_status grad_a(gc_op_call *c, const product *p, bool transposed, const float *b, const float *dy, float *da)
{
    if (c->packed != NULL && few_in_half(c, p)) {
        const product back = gradient_of(p);
        return few_rows(c, &back, dy, true, da);
    }
    if (!transposed) {
        product live = *p;
        int64_t at = gc_live_rows(dy, p->m, p->n, &live.m);
        return gc_gemm(c->ctx, live.m, p->k, p->n, dy + at * p->n, p->n, 1, b, p->b_col, p->b_row, 1, da + at * p->k,
                       p->k, c->work);
    }
    return gc_gemm(c->ctx, p->k, p->m, p->n, b, p->b_row, p->b_col, dy, 1, p->n, 1, da, p->m, c->work);
}

/* dB += A^T dY, or dB^T += dY^T A. */
static gc_status grad_b(gc_op_call *c, const product *p, bool transposed, const float *a, const float *dy, float *db)
{
    product live = *p;
    int64_t at = gc_live_rows(dy, p->m, p->n, &live.m);
    if (live.m == 0) {
        return GRADCAM_OK;
    }
    a += at * p->a_row;
    dy += at * p->n;
    if (!transposed) {
        return gc_gemm(c->ctx, p->k, p->n, live.m, a, p->a_col, p->a_row, dy, p->n, 1, 1, db, p->n, c->work);
    }
    return gc_gemm(c->ctx, p->n, p->k, live.m, dy, 1, p->n, a, p->a_row, p->a_col, 1, db, p->k, c->work);
}

static void zero(gc_tensor *t)
{
    memset(t->data, 0, (size_t)gc_numel(t) * sizeof(float));
}

static void scale(gc_tensor *t, float factor)
{
    float *x = t->data;
    int64_t n = factor == 1.0f ? 0 : gc_numel(t);
    for (int64_t i = 0; i < n; i++) {
        x[i] *= factor;
    }
}

/* ---- Gemm ---- */

typedef struct gemm {
    product p;
    bool trans_a, trans_b;
    float alpha, beta;
    int64_t c_row, c_col; /* strides of C, 0 where it is broadcast */
} gemm;

/* C is [n], [1], [], [m, n], [1, n], [m, 1] or [1, 1]. */
static gc_status read_addend(gc_op_call *c, gemm *g)
{
    const gc_tensor *t = c->n_in > 2 ? c->in[2] : NULL;
    if (!t) {
        return GRADCAM_OK;
    }
    int64_t rows = t->ndim > 1 ? t->shape[0] : 1, cols = t->ndim > 0 ? t->shape[t->ndim - 1] : 1;
    if (t->ndim > 2 || (rows != 1 && rows != g->p.m) || (cols != 1 && cols != g->p.n)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "C does not broadcast to [%lld, %lld]", (long long)g->p.m,
                          (long long)g->p.n);
    }
    g->c_row = rows == 1 ? 0 : cols;
    g->c_col = cols == 1 ? 0 : 1;
    return GRADCAM_OK;
}

static gc_status gemm_setup(gc_op_call *c, gemm *g)
{
    memset(g, 0, sizeof *g);
    GC_TRY(need_floats(c, 3));
    const gc_tensor *a = c->in[0], *b = c->in[1];
    if (a->ndim != 2 || b->ndim != 2) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "A and B must be matrices, they have ranks %d and %d", (int)a->ndim,
                          (int)b->ndim);
    }
    g->trans_a = gc_attr_int(&c->attrs, "transA", 0) != 0;
    g->trans_b = gc_attr_int(&c->attrs, "transB", 0) != 0;
    g->alpha = gc_attr_float(&c->attrs, "alpha", 1.0f);
    g->beta = gc_attr_float(&c->attrs, "beta", 1.0f);
    g->p.m = a->shape[g->trans_a ? 1 : 0];
    g->p.k = a->shape[g->trans_a ? 0 : 1];
    g->p.n = b->shape[g->trans_b ? 0 : 1];
    if (b->shape[g->trans_b ? 1 : 0] != g->p.k) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "inner sizes differ: %lld and %lld", (long long)g->p.k,
                          (long long)b->shape[g->trans_b ? 1 : 0]);
    }
    g->p.a_row = g->trans_a ? 1 : g->p.k;
    g->p.a_col = g->trans_a ? g->p.m : 1;
    g->p.b_row = g->trans_b ? 1 : g->p.n;
    g->p.b_col = g->trans_b ? g->p.k : 1;
    return read_addend(c, g);
}

static gc_status gemm_pack(gc_op_call *c, bool backward, void *block)
{
    gemm g;
    GC_TRY(gemm_setup(c, &g));
    return pack_product(c, &g.p, backward, block);
}

static const float *addend(const gc_op_call *c)
{
    return c->n_in > 2 && c->in[2] != NULL ? c->in[2]->data : NULL;
}

/* C, if there is one, is a bias and nothing is scaled: the tiles do it all. */
static bool adds_bias(const gc_op_call *c, const gemm *g)
{
    bool has = c->n_in > 2 && c->in[2] != NULL;
    bool whole = has && g->c_row == 0 && g->c_col == 1 && takes_bias(c, &g->p);
    return g->alpha == 1.0f && (!has || (whole && g->beta == 1.0f));
}

static gc_status gemm_infer(gc_op_call *c)
{
    gemm g;
    GC_TRY(gemm_setup(c, &g));
    declare_keep(c);
    c->work_bytes = product_work(&g.p);
    declare_pack(c, &g.p, gemm_pack);
    c->fuses = has_tiles(c, &g.p) && adds_bias(c, &g) ? GC_FUSE_ADD | GC_FUSE_CLIP | GC_FUSE_MAP | GC_FUSE_FLAT : 0;
    declare_half(c, &g.p, adds_bias(c, &g));
    int64_t shape[2] = {g.p.m, g.p.n};
    return gc_op_set_output(c, 0, GRADCAM_F32, 2, shape);
}

static gc_status gemm_forward(gc_op_call *c)
{
    gemm g;
    GC_TRY(gemm_setup(c, &g));
    float *y = c->out[0]->data;
    if (c->packed != NULL && has_tiles(c, &g.p) && adds_bias(c, &g)) {
        return packed_product(c, &g.p, c->in[0]->data, addend(c), y);
    }
    GC_TRY(c->packed != NULL && has_tiles(c, &g.p) ? packed_product(c, &g.p, c->in[0]->data, NULL, y)
                                                   : forward_product(c, &g.p, c->in[0]->data, c->in[1]->data, y));
    scale(c->out[0], g.alpha);
    const float *add = addend(c);
    for (int64_t i = 0; add && i < g.p.m; i++) {
        for (int64_t k = 0; k < g.p.n; k++) {
            y[i * g.p.n + k] += g.beta * add[i * g.c_row + k * g.c_col];
        }
    }
    return GRADCAM_OK;
}

static gc_status gemm_grad_a(gc_op_call *c, const gemm *g, const float *dy, gc_tensor *da)
{
    if (c->back_packed != NULL) {
        return packed_gradient(c, &g->p, dy, da->data);
    }
    zero(da);
    return grad_a(c, &g->p, g->trans_a, c->in[1]->data, dy, da->data);
}

static gc_status gemm_backward(gc_op_call *c)
{
    gemm g;
    GC_TRY(gemm_setup(c, &g));
    const float *dy = c->grad_out[0]->data;
    if (c->grad_in[0]) {
        GC_TRY(gemm_grad_a(c, &g, dy, c->grad_in[0]));
        scale(c->grad_in[0], g.alpha);
    }
    if (c->grad_in[1]) {
        zero(c->grad_in[1]);
        GC_TRY(grad_b(c, &g.p, g.trans_b, c->in[0]->data, dy, c->grad_in[1]->data));
        scale(c->grad_in[1], g.alpha);
    }
    if (c->n_in > 2 && c->grad_in[2]) {
        float *dc = c->grad_in[2]->data;
        zero(c->grad_in[2]);
        for (int64_t i = 0; i < g.p.m * g.p.n; i++) {
            dc[i / g.p.n * g.c_row + i % g.p.n * g.c_col] += g.beta * dy[i];
        }
    }
    return GRADCAM_OK;
}

/* ---- MatMul ---- */

typedef struct matmul {
    product p;
    int32_t batch_dims;
    int32_t n_out;
    int64_t batches;
    int64_t batch[GRADCAM_MAX_DIMS];
    int64_t a_step[GRADCAM_MAX_DIMS], b_step[GRADCAM_MAX_DIMS]; /* 0 where broadcast */
    int64_t out[GRADCAM_MAX_DIMS];
} matmul;

/* Strides of the `dims` leading dimensions of t within `batch`; `matrix`:
   elements of one matrix. */
static void batch_steps(int32_t dims, const gc_tensor *t, int32_t total, int64_t matrix, int64_t *step)
{
    for (int32_t i = total - 1, k = dims - 1; i >= 0; i--, k--) {
        step[i] = k < 0 || t->shape[k] == 1 ? 0 : matrix;
        matrix *= k < 0 ? 1 : t->shape[k];
    }
}

/* Offsets of both operands for one batch. */
static void batch_offsets(const matmul *q, int64_t index, int64_t *a, int64_t *b)
{
    *a = *b = 0;
    for (int32_t i = q->batch_dims - 1; i >= 0; i--) {
        *a += index % q->batch[i] * q->a_step[i];
        *b += index % q->batch[i] * q->b_step[i];
        index /= q->batch[i];
    }
}

static gc_status matmul_sizes(gc_op_call *c, matmul *q)
{
    const gc_tensor *a = c->in[0], *b = c->in[1];
    if (a->ndim < 1 || b->ndim < 1) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "an operand is a scalar");
    }
    /* A vector is a row on the left and a column on the right. */
    q->p.m = a->ndim == 1 ? 1 : a->shape[a->ndim - 2];
    q->p.k = a->shape[a->ndim - 1];
    q->p.n = b->ndim == 1 ? 1 : b->shape[b->ndim - 1];
    int64_t inner = b->shape[b->ndim == 1 ? 0 : b->ndim - 2];
    if (inner != q->p.k) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "inner sizes differ: %lld and %lld", (long long)q->p.k, (long long)inner);
    }
    q->p.a_row = q->p.k;
    q->p.a_col = 1;
    q->p.b_row = q->p.n;
    q->p.b_col = 1;
    return GRADCAM_OK;
}

static gc_status matmul_setup(gc_op_call *c, matmul *q)
{
    memset(q, 0, sizeof *q);
    GC_TRY(need_floats(c, 2));
    GC_TRY(matmul_sizes(c, q));
    const gc_tensor *a = c->in[0], *b = c->in[1];
    int32_t na = a->ndim < 2 ? 0 : a->ndim - 2, nb = b->ndim < 2 ? 0 : b->ndim - 2;
    GC_TRY(gc_op_broadcast(c, na, a->shape, nb, b->shape, &q->batch_dims, q->batch));
    q->batches = gc_shape_numel(q->batch_dims, q->batch);
    memcpy(q->out, q->batch, sizeof q->out);
    q->n_out = q->batch_dims;
    if (a->ndim > 1) {
        q->out[q->n_out++] = q->p.m;
    }
    if (b->ndim > 1) {
        q->out[q->n_out++] = q->p.n;
    }
    if (q->batches < 0 || gc_shape_numel(q->n_out, q->out) < 0) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    batch_steps(na, a, q->batch_dims, q->p.m * q->p.k, q->a_step);
    batch_steps(nb, b, q->batch_dims, q->p.k * q->p.n, q->b_step);
    /* One matrix B for all: the batches of A are just more rows. */
    if (nb == 0 && na > 0) {
        q->p.m *= q->batches;
        q->batches = q->batches > 0 ? 1 : 0;
    }
    return GRADCAM_OK;
}

static gc_status matmul_pack(gc_op_call *c, bool backward, void *block)
{
    matmul q;
    GC_TRY(matmul_setup(c, &q));
    return pack_product(c, &q.p, backward, block);
}

/* No batch adds to another's gradient. */
static bool apart(const matmul *q)
{
    for (int32_t i = 0; i < q->batch_dims; i++) {
        if (q->batch[i] > 1 && (q->a_step[i] == 0 || q->b_step[i] == 0)) {
            return false;
        }
    }
    return q->batches > 1;
}

static gc_status each_product(gc_op_call *c, const matmul *q, gc_batch_fn fn)
{
    if (apart(q)) {
        return gc_each_batch(c, q->batches, product_work(&q->p), fn, q);
    }
    for (int64_t i = 0; i < q->batches; i++) {
        GC_TRY(fn(c, q, i));
    }
    return GRADCAM_OK;
}

static gc_status matmul_infer(gc_op_call *c)
{
    matmul q;
    GC_TRY(matmul_setup(c, &q));
    declare_keep(c);
    c->work_bytes = product_work(&q.p) * (size_t)(apart(&q) ? gc_batch_tasks(c, q.batches, product_work(&q.p)) : 1);
    if (q.batches == 1) {
        declare_pack(c, &q.p, matmul_pack);
        c->fuses = has_tiles(c, &q.p) ? GC_FUSE_ADD | GC_FUSE_CLIP | GC_FUSE_MAP | GC_FUSE_FLAT : 0;
        c->fuses |= has_tiles(c, &q.p) && takes_bias(c, &q.p) ? GC_FUSE_BIAS : 0;
        declare_half(c, &q.p, true);
    }
    return gc_op_set_output(c, 0, GRADCAM_F32, q.n_out, q.out);
}

/* B may be there in packed form only. */
static const float *matrix_at(const gc_tensor *t, int64_t at)
{
    return t->data != NULL ? (const float *)t->data + at : NULL;
}

static gc_status forward_batch(gc_op_call *c, const void *user, int64_t i)
{
    const matmul *q = user;
    int64_t at_a, at_b;
    batch_offsets(q, i, &at_a, &at_b);
    return forward_product(c, &q->p, (const float *)c->in[0]->data + at_a, matrix_at(c->in[1], at_b),
                           (float *)c->out[0]->data + i * q->p.m * q->p.n);
}

static gc_status matmul_forward(gc_op_call *c)
{
    matmul q;
    GC_TRY(matmul_setup(c, &q));
    if (c->packed != NULL && has_tiles(c, &q.p)) {
        return packed_product(c, &q.p, c->in[0]->data, NULL, c->out[0]->data);
    }
    return each_product(c, &q, forward_batch);
}

static gc_status backward_batch(gc_op_call *c, const void *user, int64_t i)
{
    const matmul *q = user;
    const float *dy = (const float *)c->grad_out[0]->data + i * q->p.m * q->p.n;
    int64_t at_a, at_b;
    batch_offsets(q, i, &at_a, &at_b);
    if (c->grad_in[0]) {
        GC_TRY(grad_a(c, &q->p, false, matrix_at(c->in[1], at_b), dy, (float *)c->grad_in[0]->data + at_a));
    }
    if (c->grad_in[1]) {
        GC_TRY(grad_b(c, &q->p, false, (const float *)c->in[0]->data + at_a, dy, (float *)c->grad_in[1]->data + at_b));
    }
    return GRADCAM_OK;
}

/* Broadcast operands collect the sum over their batches. */
static gc_status matmul_backward(gc_op_call *c)
{
    matmul q;
    GC_TRY(matmul_setup(c, &q));
    if (c->back_packed != NULL) { /* B is constant */
        return packed_gradient(c, &q.p, c->grad_out[0]->data, c->grad_in[0]->data);
    }
    for (int32_t i = 0; i < 2; i++) {
        if (c->grad_in[i] && (c->adds >> i & 1u) == 0) {
            zero(c->grad_in[i]);
        }
    }
    return each_product(c, &q, backward_batch);
}

const gc_op gc_ops_linear[] = {
    {"Gemm", gemm_infer, gemm_forward, gemm_backward, GC_OP_PACKS, 0, 0, 2, 3, 1},
    {"MatMul", matmul_infer, matmul_forward, matmul_backward, GC_OP_PACKS | GC_OP_FINISHES, 0, 0, 2, 2, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
