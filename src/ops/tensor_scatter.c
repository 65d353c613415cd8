/* SPDX-License-Identifier: MIT */
/* TensorScatter: writes an update into a key or value cache, at a place for each
 * sample.  Row-major: [samples][between][sequence][inner]. */
#include <string.h>

#include "ops/op.h"

typedef struct cache {
    int64_t samples, between, most, count, inner; /* most: of the cache, count: of the update */
    bool circular;
    const int64_t *first; /* NULL: 0 for all */
} cache;

static gc_status setup(gc_op_call *c, cache *s)
{
    const char *mode = gc_attr_string(&c->attrs, "mode", "linear");
    int32_t axis = 0;
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    const gc_tensor *past = c->in[0], *update = c->in[1], *first = c->n_in > 2 ? c->in[2] : NULL;
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", -2), past->ndim, &axis));
    s->circular = strcmp(mode, "circular") == 0;
    if (axis == 0 || (!s->circular && strcmp(mode, "linear") != 0)) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "axis 0 or unknown mode '%.40s'", mode);
    }
    bool fits = update->dtype == past->dtype && update->ndim == past->ndim;
    for (int32_t i = 0; fits && i < past->ndim; i++) {
        fits = i == axis ? update->shape[i] <= past->shape[i] : update->shape[i] == past->shape[i];
    }
    if (!fits) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the update does not fit into the cache");
    }
    if (first != NULL && (first->dtype != GRADCAM_I64 || first->ndim != 1 || first->shape[0] != past->shape[0])) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "write_indices must be int64 and one for each sample");
    }
    s->samples = past->shape[0];
    s->between = gc_shape_numel(axis - 1, past->shape + 1);
    s->most = past->shape[axis];
    s->count = update->shape[axis];
    s->inner = gc_shape_numel(past->ndim - axis - 1, past->shape + axis + 1);
    s->first = first != NULL ? first->data : NULL;
    return GRADCAM_OK;
}

static gc_status scatter_infer(gc_op_call *c)
{
    cache s;
    GC_TRY(setup(c, &s));
    return gc_op_set_output(c, 0, c->in[0]->dtype, c->in[0]->ndim, c->in[0]->shape);
}

static gc_status check_places(gc_op_call *c, const cache *s)
{
    for (int64_t b = 0; s->first != NULL && b < s->samples; b++) {
        if (s->first[b] < 0 || (!s->circular && s->first[b] > s->most - s->count)) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "sample %lld is written at %lld of %lld", (long long)b,
                              (long long)s->first[b], (long long)s->most);
        }
    }
    return GRADCAM_OK;
}

/* Visits the rows of the update: part -> whole, whole -> part, or whole = 0. */
static void move(const cache *s, char *whole, char *part, size_t size, bool to_part)
{
    size_t row = (size_t)s->inner * size;
    for (int64_t i = 0; i < s->samples * s->between; i++) {
        int64_t first = s->first != NULL ? s->first[i / s->between] : 0;
        for (int64_t t = 0; t < s->count; t++) {
            int64_t at = s->circular ? (first % s->most + t) % s->most : first + t;
            char *w = whole + (size_t)(i * s->most + at) * row;
            char *p = part != NULL ? part + (size_t)(i * s->count + t) * row : NULL;
            if (p == NULL) {
                memset(w, 0, row);
            } else {
                memcpy(to_part ? p : w, to_part ? w : p, row);
            }
        }
    }
}

static gc_status scatter_forward(gc_op_call *c)
{
    cache s;
    gc_tensor *y = c->out[0], update = *c->in[1];
    GC_TRY(setup(c, &s));
    GC_TRY(check_places(c, &s));
    if (y != NULL && gc_numel(y) > 0) {
        memcpy(y->data, c->in[0]->data, (size_t)gc_numel(y) * gc_dtype_size(y->dtype));
        move(&s, y->data, update.data, gc_dtype_size(y->dtype), false);
    }
    return GRADCAM_OK;
}

static gc_status scatter_backward(gc_op_call *c)
{
    cache s;
    gc_tensor *gx = c->grad_in[0], *gu = c->grad_in[1], *gy = c->grad_out[0];
    GC_TRY(setup(c, &s));
    if (gc_numel(gy) == 0) {
        return GRADCAM_OK;
    }
    if (gx != NULL) {
        memcpy(gx->data, gy->data, (size_t)gc_numel(gx) * sizeof(float));
        move(&s, gx->data, NULL, sizeof(float), false);
    }
    if (gu != NULL && gc_numel(gu) > 0) {
        move(&s, gy->data, gu->data, sizeof(float), true);
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_tensor_scatter[] = {
    {"TensorScatter", scatter_infer, scatter_forward, scatter_backward, 0, 4, 0, 2, 3, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
