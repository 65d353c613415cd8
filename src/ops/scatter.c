/* SPDX-License-Identifier: MIT */
/* Scatter, ScatterElements, ScatterND with every reduction.  Gradients are
 * those of torch.scatter_reduce(include_self=True): a product passes the product
 * of the other factors, a maximum is shared evenly among all that attain it. */
#include <string.h>

#include "base/size.h"
#include "ops/op.h"
#include "ops/pairs.h"
#include "tensor/walk.h"

enum { RED_NONE, RED_ADD, RED_MUL, RED_MAX, RED_MIN };

static int32_t reduction_of(const gc_op_call *c)
{
    static const char *const names[] = {"none", "add", "mul", "max", "min"};
    const char *r = gc_attr_string(&c->attrs, "reduction", "none");
    for (int32_t i = 0; i < 5; i++) {
        if (strcmp(r, names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

/* ---- shapes ---- */

/* Scratch of the backward pass for one element of the data. */
typedef struct others {
    double product; /* of all factors but zeros */
    double count;   /* zeros among the factors; maxima */
} others;

static gc_status finish(gc_op_call *c, int32_t n, const int64_t *shape)
{
    int64_t bytes = 0;
    GC_TRY(gc_op_need(c, 2));
    const gc_tensor *x = c->in[0], *u = c->in[2];
    bool fits = u->ndim == n;
    for (int32_t i = 0; fits && i < n; i++) {
        fits = u->shape[i] == shape[i];
    }
    if (!fits || u->dtype != x->dtype) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "updates do not fit data and indices");
    }
    int32_t reduction = reduction_of(c);
    if (reduction < 0) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "unknown reduction");
    }
    if (!gc_mul_ok(gc_numel(x), (int64_t)sizeof(others), &bytes) || (uint64_t)bytes > SIZE_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    c->work_bytes = x->dtype == GRADCAM_F32 && reduction > RED_ADD ? (size_t)bytes : 0;
    return gc_op_set_output(c, 0, x->dtype, x->ndim, x->shape);
}

static gc_status elements_infer(gc_op_call *c)
{
    GC_TRY(gc_pairs_need_elements(c));
    return finish(c, c->in[1]->ndim, c->in[1]->shape);
}

static gc_status nd_infer(gc_op_call *c)
{
    int64_t shape[2 * GRADCAM_MAX_DIMS];
    int32_t n = 0;
    GC_TRY(gc_pairs_need(c));
    GC_TRY(gc_pairs_nd_shape(c, 0, shape, &n));
    return finish(c, n, shape);
}

/* ---- forward ---- */

typedef struct update {
    const char *from; /* updates */
    char *to;         /* the output, a copy of the data at first */
    size_t size;
    gc_dtype dtype;
    int32_t reduction;
} update;

static void pair_put(void *user, int64_t small, int64_t big, int64_t n)
{
    const update *m = user;
    memcpy(m->to + (size_t)big * m->size, m->from + (size_t)small * m->size, (size_t)n * m->size);
}

/* NaN wins a maximum and a minimum. */
static float reduce_float(float a, float b, int32_t r)
{
    switch (r) {
    case RED_ADD: return a + b;
    case RED_MUL: return a * b;
    case RED_MAX: return a > b || a != a ? a : b;
    default: return a < b || a != a ? a : b;
    }
}

/* Wraps around, as the reference does. */
static int64_t reduce_int(int64_t a, int64_t b, int32_t r)
{
    switch (r) {
    case RED_ADD: return (int64_t)((uint64_t)a + (uint64_t)b);
    case RED_MUL: return (int64_t)((uint64_t)a * (uint64_t)b);
    case RED_MAX: return a > b ? a : b;
    default: return a < b ? a : b;
    }
}

static void pair_reduce(void *user, int64_t small, int64_t big, int64_t n)
{
    const update *m = user;
    for (int64_t i = 0; i < n; i++) {
        void *d = m->to + (size_t)(big + i) * m->size;
        const void *s = m->from + (size_t)(small + i) * m->size;
        if (m->dtype == GRADCAM_F32) {
            *(float *)d = reduce_float(*(float *)d, *(const float *)s, m->reduction);
        } else {
            gc_store_int(d, m->dtype, reduce_int(gc_load_int(d, m->dtype), gc_load_int(s, m->dtype), m->reduction));
        }
    }
}

static gc_status run(gc_op_call *c, gc_pair_walk walk)
{
    gc_tensor *y = c->out[0];
    if (y == NULL || gc_numel(y) == 0) {
        return GRADCAM_OK;
    }
    size_t size = gc_dtype_size(y->dtype);
    memcpy(y->data, c->in[0]->data, (size_t)gc_numel(y) * size);
    if (gc_numel(c->in[2]) == 0) {
        return GRADCAM_OK;
    }
    GC_TRY(gc_pairs_check(c, walk));
    update m = {c->in[2]->data, y->data, size, y->dtype, reduction_of(c)};
    walk(c, m.reduction == RED_NONE ? pair_put : pair_reduce, &m);
    return GRADCAM_OK;
}

/* ---- backward ---- */

typedef struct gradient {
    const float *x, *u, *y; /* data, updates, output */
    const float *gy;
    float *gx, *gu;
    others *of;
} gradient;

static void pair_zero(void *user, int64_t small, int64_t big, int64_t n)
{
    const gradient *g = user;
    (void)small;
    memset(g->gx + big, 0, (size_t)n * sizeof(float));
}

static void pair_pass(void *user, int64_t small, int64_t big, int64_t n)
{
    const gradient *g = user;
    memcpy(g->gu + small, g->gy + big, (size_t)n * sizeof(float));
}

static void add_factor(others *o, float f)
{
    o->product *= f != 0.0f ? (double)f : 1.0;
    o->count += f == 0.0f;
}

static void pair_factor(void *user, int64_t small, int64_t big, int64_t n)
{
    const gradient *g = user;
    for (int64_t i = 0; i < n; i++) {
        add_factor(&g->of[big + i], g->u[small + i]);
    }
}

/* The product of all factors but this one. */
static float other_factors(const others *o, float f)
{
    double zeros = o->count - (f == 0.0f ? 1.0 : 0.0);
    return zeros > 0.0 ? 0.0f : (float)(f == 0.0f ? o->product : o->product / (double)f);
}

static void pair_product(void *user, int64_t small, int64_t big, int64_t n)
{
    const gradient *g = user;
    for (int64_t i = 0; i < n; i++) {
        g->gu[small + i] = g->gy[big + i] * other_factors(&g->of[big + i], g->u[small + i]);
    }
}

static void pair_count(void *user, int64_t small, int64_t big, int64_t n)
{
    const gradient *g = user;
    for (int64_t i = 0; i < n; i++) {
        g->of[big + i].count += g->u[small + i] == g->y[big + i];
    }
}

static float share(const gradient *g, int64_t at, float candidate)
{
    return candidate == g->y[at] ? g->gy[at] / (float)g->of[at].count : 0.0f;
}

static void pair_share(void *user, int64_t small, int64_t big, int64_t n)
{
    const gradient *g = user;
    for (int64_t i = 0; i < n; i++) {
        g->gu[small + i] = share(g, big + i, g->u[small + i]);
    }
}

/* The data take part in the reduction like one more update. */
static void grad_reduced(const gc_op_call *c, gc_pair_walk walk, gradient *g, bool product, bool any)
{
    int64_t n = gc_numel(c->in[0]);
    for (int64_t i = 0; i < n; i++) {
        others none = {1.0, 0.0};
        g->of[i] = none;
        if (product) {
            add_factor(&g->of[i], g->x[i]);
        } else {
            g->of[i].count = g->x[i] == g->y[i];
        }
    }
    if (any) {
        walk(c, product ? pair_factor : pair_count, g);
    }
    for (int64_t i = 0; g->gx != NULL && i < n; i++) {
        g->gx[i] = product ? g->gy[i] * other_factors(&g->of[i], g->x[i]) : share(g, i, g->x[i]);
    }
    if (g->gu != NULL && any) {
        walk(c, product ? pair_product : pair_share, g);
    }
}

static gc_status grad(gc_op_call *c, gc_pair_walk walk)
{
    gc_tensor *gx = c->grad_in[0], *gu = c->n_in > 2 ? c->grad_in[2] : NULL;
    int32_t reduction = reduction_of(c);
    bool any = gc_numel(c->in[2]) > 0;
    if (gc_numel(c->in[0]) == 0) {
        return GRADCAM_OK;
    }
    if (any) {
        GC_TRY(gc_pairs_check(c, walk));
    }
    gradient g = {c->in[0]->data,
                  c->in[2]->data,
                  c->out[0]->data,
                  c->grad_out[0]->data,
                  gx != NULL ? gx->data : NULL,
                  gu != NULL ? gu->data : NULL,
                  c->work};
    if (reduction > RED_ADD) {
        grad_reduced(c, walk, &g, reduction == RED_MUL, any);
        return GRADCAM_OK;
    }
    if (g.gx != NULL) {
        memcpy(g.gx, g.gy, (size_t)gc_numel(gx) * sizeof(float));
    }
    if (g.gx != NULL && any && reduction == RED_NONE) {
        walk(c, pair_zero, &g);
    }
    if (g.gu != NULL && any) {
        walk(c, pair_pass, &g);
    }
    return GRADCAM_OK;
}

static gc_status elements_forward(gc_op_call *c)
{
    return run(c, gc_pairs_elements);
}
static gc_status elements_backward(gc_op_call *c)
{
    return grad(c, gc_pairs_elements);
}
static gc_status nd_forward(gc_op_call *c)
{
    return run(c, gc_pairs_nd);
}
static gc_status nd_backward(gc_op_call *c)
{
    return grad(c, gc_pairs_nd);
}

const gc_op gc_ops_scatter[] = {
    {"Scatter", elements_infer, elements_forward, elements_backward, 0, 7, 1, 3, 3, 1},
    {"ScatterElements", elements_infer, elements_forward, elements_backward, 0, 7, 1, 3, 3, 1},
    {"ScatterND", nd_infer, nd_forward, nd_backward, 0, 7, 1, 3, 3, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
