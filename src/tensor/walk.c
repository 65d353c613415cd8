/* SPDX-License-Identifier: MIT */
#include "tensor/walk.h"

#include <string.h>

#include "base/ctx.h"

typedef struct walk_plan {
    int32_t ndim;
    int64_t shape[GRADCAM_MAX_DIMS];
    int64_t strides[GC_WALK_MAX][GRADCAM_MAX_DIMS];
} walk_plan;

/* The stride that orders a dimension: of the first operand that moves at all. */
static int64_t order_key(const gc_walk_operand *ops, int32_t n_ops, int32_t d)
{
    for (int32_t k = 0; k < n_ops; k++) {
        int64_t s = ops[k].strides[d];
        if (s != 0) {
            return s < 0 ? -s : s;
        }
    }
    return 0;
}

static int32_t sorted_dims(int32_t ndim, const int64_t *shape, int32_t n_ops, const gc_walk_operand *ops, int32_t *dims)
{
    int64_t keys[GRADCAM_MAX_DIMS];
    int32_t n = 0;
    for (int32_t d = 0; d < ndim; d++) {
        if (shape[d] == 1) {
            continue;
        }
        int64_t key = order_key(ops, n_ops, d);
        int32_t at = n++;
        for (; at > 0 && keys[at - 1] < key; at--) {
            keys[at] = keys[at - 1];
            dims[at] = dims[at - 1];
        }
        keys[at] = key;
        dims[at] = d;
    }
    return n;
}

/* True when dimension `last` of the plan continues into dimension d of the operands. */
static bool joins(const walk_plan *w, int32_t n_ops, const gc_walk_operand *ops, int32_t d, int64_t size)
{
    if (w->ndim == 0) {
        return false;
    }
    for (int32_t k = 0; k < n_ops; k++) {
        if (w->strides[k][w->ndim - 1] != ops[k].strides[d] * size) {
            return false;
        }
    }
    return true;
}

static void make_plan(walk_plan *w, int32_t ndim, const int64_t *shape, int32_t n_ops, const gc_walk_operand *ops)
{
    int32_t dims[GRADCAM_MAX_DIMS];
    int32_t n = sorted_dims(ndim, shape, n_ops, ops, dims);
    w->ndim = 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t d = dims[i];
        if (joins(w, n_ops, ops, d, shape[d])) {
            w->shape[w->ndim - 1] *= shape[d];
        } else {
            w->shape[w->ndim++] = shape[d];
        }
        for (int32_t k = 0; k < n_ops; k++) {
            w->strides[k][w->ndim - 1] = ops[k].strides[d];
        }
    }
    if (w->ndim == 0) { /* one element */
        w->ndim = 1;
        w->shape[0] = 1;
        for (int32_t k = 0; k < n_ops; k++) {
            w->strides[k][0] = 0;
        }
    }
}

/* The runs of a plan with first elements at p. */
static void walk_plan_from(const walk_plan *w, int32_t n_ops, char *const *start, gc_walk_fn fn, void *user)
{
    int64_t index[GRADCAM_MAX_DIMS] = {0};
    char *p[GC_WALK_MAX];
    int64_t s[GC_WALK_MAX];
    for (int32_t k = 0; k < n_ops; k++) {
        p[k] = start[k];
        s[k] = w->strides[k][w->ndim - 1];
    }
    for (;;) {
        int32_t d = w->ndim - 2;
        fn(user, w->shape[w->ndim - 1], p, s);
        for (; d >= 0; d--) {
            bool more = ++index[d] < w->shape[d];
            for (int32_t k = 0; k < n_ops; k++) {
                p[k] += more ? w->strides[k][d] : -w->strides[k][d] * (w->shape[d] - 1);
            }
            if (more) {
                break;
            }
            index[d] = 0;
        }
        if (d < 0) {
            return;
        }
    }
}

static bool is_empty(int32_t ndim, const int64_t *shape)
{
    for (int32_t d = 0; d < ndim; d++) {
        if (shape[d] == 0) {
            return true;
        }
    }
    return false;
}

void gc_walk(int32_t ndim, const int64_t *shape, int32_t n_ops, const gc_walk_operand *ops, gc_walk_fn fn, void *user)
{
    walk_plan w;
    char *p[GC_WALK_MAX];
    if (is_empty(ndim, shape)) {
        return;
    }
    make_plan(&w, ndim, shape, n_ops, ops);
    memset(p, 0, sizeof p);
    for (int32_t k = 0; k < n_ops; k++) {
        p[k] = ops[k].data;
    }
    walk_plan_from(&w, n_ops, p, fn, user);
}

/* A walk cut along its outermost dimension. */
enum { CHUNK_ELEMENTS = 16384 };

typedef struct walk_job {
    walk_plan w;
    const gc_walk_operand *ops;
    gc_walk_fn fn;
    void *user;
    int64_t chunk; /* of the outermost dimension */
    int32_t n_ops;
    int32_t reserved0;
} walk_job;

static void walk_task(void *task, uint32_t index)
{
    const walk_job *j = task;
    walk_plan part = j->w;
    char *p[GC_WALK_MAX];
    int64_t first = (int64_t)index * j->chunk, left = j->w.shape[0] - first;
    part.shape[0] = left < j->chunk ? left : j->chunk;
    for (int32_t k = 0; k < j->n_ops; k++) {
        p[k] = (char *)j->ops[k].data + first * j->w.strides[k][0];
    }
    walk_plan_from(&part, j->n_ops, p, j->fn, j->user);
}

gc_status gc_walk_on(const gc_ctx *ctx, int32_t ndim, const int64_t *shape, int32_t n_ops, const gc_walk_operand *ops,
                     gc_walk_fn fn, void *user)
{
    walk_job j;
    int64_t inner = 1;
    memset(&j, 0, sizeof j);
    if (is_empty(ndim, shape)) {
        return GRADCAM_OK;
    }
    make_plan(&j.w, ndim, shape, n_ops, ops);
    j.ops = ops;
    j.fn = fn;
    j.user = user;
    j.n_ops = n_ops;
    for (int32_t d = 1; d < j.w.ndim; d++) {
        inner *= j.w.shape[d];
    }
    j.chunk = inner >= CHUNK_ELEMENTS ? 1 : CHUNK_ELEMENTS / inner;
    int64_t count = (j.w.shape[0] - 1) / j.chunk + 1;
    while (count > INT32_MAX) { /* more tasks than a pool can count */
        j.chunk *= 2;
        count = (j.w.shape[0] - 1) / j.chunk + 1;
    }
    return gc_parallel(ctx, walk_task, &j, (uint32_t)count);
}

void gc_walk_bind(gc_walk_operand *op, const gc_tensor *t, int32_t ndim, int32_t lead)
{
    int64_t size = (int64_t)gc_dtype_size(t->dtype);
    op->data = t->data;
    for (int32_t d = 0; d < ndim; d++) {
        op->strides[d] = 0;
    }
    for (int32_t d = 0; d < t->ndim; d++) {
        int32_t at = d + lead;
        if (at >= 0 && at < ndim && t->shape[d] != 1) {
            op->strides[at] = t->strides[d] * size;
        }
    }
}

void gc_walk_tensors(int32_t n, const gc_tensor *const *ts, gc_walk_fn fn, void *user)
{
    gc_walk_operand ops[GC_WALK_MAX] = {{NULL, {0}}};
    for (int32_t k = 0; k < n; k++) {
        gc_walk_bind(&ops[k], ts[k], ts[0]->ndim, ts[0]->ndim - ts[k]->ndim);
    }
    gc_walk(ts[0]->ndim, ts[0]->shape, n, ops, fn, user);
}

gc_status gc_walk_tensors_on(const gc_ctx *ctx, int32_t n, const gc_tensor *const *ts, gc_walk_fn fn, void *user)
{
    gc_walk_operand ops[GC_WALK_MAX];
    for (int32_t k = 0; k < n; k++) {
        gc_walk_bind(&ops[k], ts[k], ts[0]->ndim, ts[0]->ndim - ts[k]->ndim);
    }
    return gc_walk_on(ctx, ts[0]->ndim, ts[0]->shape, n, ops, fn, user);
}

static void round_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    (void)user;
    for (int64_t i = 0; i < n; i++) {
        *(float *)(void *)(p[0] + i * s[0]) = (float)*(const double *)(void *)(p[1] + i * s[1]);
    }
}

static void round_add(void *user, int64_t n, char *const *p, const int64_t *s)
{
    (void)user;
    for (int64_t i = 0; i < n; i++) {
        *(float *)(void *)(p[0] + i * s[0]) += (float)*(const double *)(void *)(p[1] + i * s[1]);
    }
}

/* Operand 1 of a gradient walk: the sums, row-major in the shape of dst. */
static void bind_sums(gc_walk_operand *op, const gc_tensor *dst, double *work, int32_t ndim, int32_t lead)
{
    gc_tensor sums = *dst;
    sums.data = work;
    sums.dtype = GRADCAM_F64;
    gc_row_strides(dst->ndim, dst->shape, sums.strides);
    gc_walk_bind(op, &sums, ndim, lead);
}

/* Runs of `set` by way of a block on the stack, which is added to the target. */
enum { BLOCK = 1024 };

static void add_set(void *user, int64_t n, char *const *p, const int64_t *s)
{
    const gc_walk_grad *w = user;
    float part[BLOCK];
    char *q[GC_WALK_MAX];
    int64_t t[GC_WALK_MAX];
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t m = n - i < BLOCK ? n - i : BLOCK;
        for (int32_t k = 0; k < w->n + 2; k++) {
            q[k] = p[k] + i * s[k];
            t[k] = s[k];
        }
        q[1] = (char *)part;
        t[1] = (int64_t)sizeof *part;
        w->set(w->user, m, q, t);
        gc_walk_add(m, part, p[1] + i * s[1], s[1]);
    }
}

void gc_walk_add(int64_t n, const float *restrict part, void *to, int64_t stride)
{
    float *restrict sum = to;
    for (int64_t i = 0; i < n && stride == (int64_t)sizeof *sum; i++) {
        sum[i] += part[i];
    }
    for (int64_t i = 0; i < n && stride != (int64_t)sizeof *sum; i++) {
        *(float *)(void *)((char *)to + i * stride) += part[i];
    }
}

gc_status gc_walk_gradient(const gc_walk_grad *w, const gc_tensor *g, gc_tensor *dst, int32_t lead)
{
    gc_walk_operand ops[GC_WALK_MAX];
    gc_walk_operand back[2];
    int64_t count = gc_numel(dst);
    gc_walk_bind(&ops[0], g, g->ndim, 0);
    for (int32_t k = 0; k < w->n; k++) {
        gc_walk_bind(&ops[k + 2], w->ts[k], g->ndim, w->leads[k]);
    }
    if (count == gc_numel(g)) {
        gc_walk_bind(&ops[1], dst, g->ndim, lead);
        return gc_walk_on(w->ctx, g->ndim, g->shape, w->n + 2, ops, w->add ? add_set : w->set,
                          w->add ? (void *)(uintptr_t)w : w->user);
    }
    memset(w->work, 0, (size_t)count * sizeof(double));
    bind_sums(&ops[1], dst, w->work, g->ndim, lead);
    gc_walk(g->ndim, g->shape, w->n + 2, ops, w->acc, w->user);
    gc_walk_bind(&back[0], dst, dst->ndim, 0);
    bind_sums(&back[1], dst, w->work, dst->ndim, 0);
    gc_walk(dst->ndim, dst->shape, 2, back, w->add ? round_add : round_run, NULL);
    return GRADCAM_OK;
}

static void zero_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    size_t size = *(const size_t *)user;
    if (s[0] == (int64_t)size) {
        memset(p[0], 0, (size_t)n * size);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        memset(p[0] + i * s[0], 0, size);
    }
}

void gc_walk_zero(gc_tensor *t)
{
    const gc_tensor *ts[1] = {t};
    size_t size = gc_dtype_size(t->dtype);
    gc_walk_tensors(1, ts, zero_run, &size);
}

int64_t gc_load_int(const void *p, gc_dtype dtype)
{
    switch (dtype) {
    case GRADCAM_I64: return *(const int64_t *)p;
    case GRADCAM_I32: return *(const int32_t *)p;
    default: return *(const uint8_t *)p;
    }
}

void gc_store_int(void *p, gc_dtype dtype, int64_t v)
{
    uint32_t low = (uint32_t)((uint64_t)v & 0xFFFFFFFFu);
    switch (dtype) {
    case GRADCAM_I64: *(int64_t *)p = v; break;
    case GRADCAM_I32:
        memcpy(p, &low, sizeof low); /* modulo 2^32 without a signed overflow */
        break;
    case GRADCAM_BOOL: *(uint8_t *)p = v != 0; break;
    default: *(uint8_t *)p = (uint8_t)(low & 0xFFu); break;
    }
}

double gc_load_real(const void *p, gc_dtype dtype)
{
    if (dtype == GRADCAM_F32) {
        return (double)*(const float *)p;
    }
    if (dtype == GRADCAM_F64) {
        return *(const double *)p;
    }
    return (double)gc_load_int(p, dtype);
}
