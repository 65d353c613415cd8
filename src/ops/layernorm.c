/* SPDX-License-Identifier: MIT */
/* LayerNormalization and RMSNormalization: from an axis to the end. */
#include <string.h>

#include "base/size.h"
#include "kern/copy.h"
#include "ops/rownorm.h"
#include "tensor/walk.h"

static bool present(const gc_op_call *c, int32_t i)
{
    return i < c->n_in && c->in[i] != NULL;
}

/* Work: scale and bias over one whole row each, then a row of sums. */
typedef struct layer_call {
    gc_row_job job;
    int32_t axis;
    int64_t shape[GRADCAM_MAX_DIMS]; /* of a row */
} layer_call;

static int32_t row_dims(const gc_op_call *c, const layer_call *l)
{
    return c->in[0]->ndim - l->axis;
}

/* Strides of scale or bias within a row, 0 where it repeats. */
static gc_status repeat_strides(gc_op_call *c, int32_t i, const layer_call *l, int64_t *strides)
{
    const gc_tensor *t = c->in[i];
    int32_t dims = row_dims(c, l);
    int64_t own[GRADCAM_MAX_DIMS] = {0};
    gc_row_strides(t->ndim, t->shape, own);
    memset(strides, 0, sizeof own);
    for (int32_t k = 1; k <= t->ndim; k++) {
        int64_t size = t->shape[t->ndim - k];
        if (size != 1 && (k > dims || size != l->shape[dims - k])) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "input %d does not fit the normalised axes", (int)i);
        }
        if (size != 1) {
            strides[dims - k] = own[t->ndim - k];
        }
    }
    return GRADCAM_OK;
}

static gc_status layer_setup(gc_op_call *c, int32_t kind, layer_call *l)
{
    int64_t strides[GRADCAM_MAX_DIMS];
    memset(l, 0, sizeof *l);
    GC_TRY(gc_rows_need_float(c, 0));
    const gc_tensor *x = c->in[0];
    GC_TRY(gc_op_axis(c, gc_attr_int(&c->attrs, "axis", -1), x->ndim, &l->axis));
    memcpy(l->shape, x->shape + l->axis, (size_t)row_dims(c, l) * sizeof l->shape[0]);
    l->job.kind = kind;
    l->job.epsilon = gc_attr_float(&c->attrs, "epsilon", 1e-5f);
    GC_TRY(gc_rows_set(c, &l->job, gc_shape_numel(l->axis, x->shape), gc_shape_numel(row_dims(c, l), l->shape)));
    l->job.span = 1;
    l->job.per_row = l->job.n;
    GC_TRY(gc_rows_need_float(c, 1));
    GC_TRY(repeat_strides(c, 1, l, strides));
    if (present(c, 2)) {
        GC_TRY(gc_rows_need_float(c, 2));
        GC_TRY(repeat_strides(c, 2, l, strides));
    }
    return GRADCAM_OK;
}

/* The row of scale (i = 1) or bias (i = 2): the tensor itself where it is whole. */
static const float *whole_row(gc_op_call *c, const layer_call *l, int32_t i)
{
    int64_t from[GRADCAM_MAX_DIMS], to[GRADCAM_MAX_DIMS] = {0};
    if (!present(c, i) || gc_numel(c->in[i]) == l->job.n) {
        return present(c, i) ? c->in[i]->data : NULL;
    }
    float *row = (float *)c->work + (i - 1) * l->job.n;
    int32_t dims = row_dims(c, l);
    gc_row_strides(dims, l->shape, to);
    if (repeat_strides(c, i, l, from) == GRADCAM_OK) {
        gc_copy_nd(dims, l->shape, row, to, c->in[i]->data, from, sizeof(float));
    }
    return row;
}

static gc_status layer_infer_kind(gc_op_call *c, int32_t kind)
{
    layer_call l;
    int64_t shape[GRADCAM_MAX_DIMS], bytes;
    GC_TRY(layer_setup(c, kind, &l));
    for (int32_t i = 0; i < c->in[0]->ndim; i++) {
        shape[i] = i < l.axis ? c->in[0]->shape[i] : 1;
    }
    for (int32_t i = 1; i < 3 && i < c->n_out; i++) {
        GC_TRY(gc_op_set_output(c, i, GRADCAM_F32, c->in[0]->ndim, shape));
    }
    if (!gc_mul_ok(l.job.n, 2 * (int64_t)(sizeof(float) + sizeof(double)), &bytes)) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    c->work_bytes = (size_t)bytes;
    c->half_able = c->half != NULL && present(c, 2) ? GC_HALF_OUT : 0;
    c->aux_bytes = (size_t)l.job.rows * 2 * sizeof(float);
    return gc_op_set_output(c, 0, GRADCAM_F32, c->in[0]->ndim, c->in[0]->shape);
}

static gc_status layer_infer(gc_op_call *c)
{
    return layer_infer_kind(c, ROW_LAYER);
}

static gc_status rms_infer(gc_op_call *c)
{
    return layer_infer_kind(c, ROW_RMS);
}

static gc_status layer_forward_kind(gc_op_call *c, int32_t kind)
{
    layer_call l;
    GC_TRY(layer_setup(c, kind, &l));
    if (c->out[0] == NULL) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "Mean without the result");
    }
    l.job.x = c->in[0]->data;
    l.job.scale = whole_row(c, &l, 1);
    l.job.bias = whole_row(c, &l, 2);
    l.job.y = c->out[0]->data;
    if (gc_op_is_half(c, c->out[0])) {
        l.job.half = c->half;
        l.job.y_half = c->out[0]->data;
    }
    l.job.stats = c->aux;
    GC_TRY(gc_rows_forward(c, &l.job));
    for (int32_t i = 1; i < 3 && i < c->n_out; i++) {
        for (int64_t r = 0; c->out[i] && r < l.job.rows; r++) {
            ((float *)c->out[i]->data)[r] = l.job.stats[2 * r + i - 1];
        }
    }
    return GRADCAM_OK;
}

static gc_status layer_forward(gc_op_call *c)
{
    return layer_forward_kind(c, ROW_LAYER);
}

static gc_status rms_forward(gc_op_call *c)
{
    return layer_forward_kind(c, ROW_RMS);
}

/* Gradient of scale (i = 1) or bias (i = 2): the row's sums, summed once more
   where the tensor repeats within the row. */
static void layer_scale_gradient(gc_op_call *c, const layer_call *l, int32_t i)
{
    int64_t to[GRADCAM_MAX_DIMS], from[GRADCAM_MAX_DIMS] = {0};
    float *row = (float *)c->work + l->job.n;
    double *sums = (double *)(void *)((float *)c->work + 2 * l->job.n);
    gc_walk_zero(c->grad_in[i]);
    if (l->job.dy == NULL || repeat_strides(c, i, l, to) != GRADCAM_OK) {
        return;
    }
    memset(sums, 0, (size_t)l->job.n * sizeof *sums);
    gc_rows_scale_sums(&l->job, i == 1, sums);
    for (int64_t k = 0; k < l->job.n; k++) {
        row[k] = (float)sums[k];
    }
    gc_row_strides(row_dims(c, l), l->shape, from);
    gc_add_nd(row_dims(c, l), l->shape, c->grad_in[i]->data, to, row, from);
}

static const float *grad_of(const gc_op_call *c, int32_t k)
{
    return k < c->n_out && c->grad_out[k] != NULL ? c->grad_out[k]->data : NULL;
}

static gc_status layer_backward_kind(gc_op_call *c, int32_t kind)
{
    layer_call l;
    GC_TRY(layer_setup(c, kind, &l));
    l.job.x = c->in[0]->data;
    l.job.scale = whole_row(c, &l, 1);
    l.job.dy = grad_of(c, 0);
    l.job.d_mean = grad_of(c, 1);
    l.job.d_factor = grad_of(c, 2);
    l.job.stats = c->aux;
    for (int32_t i = 1; i < c->n_in; i++) {
        if (c->grad_in[i] != NULL) {
            layer_scale_gradient(c, &l, i);
        }
    }
    if (c->grad_in[0] == NULL) {
        return GRADCAM_OK;
    }
    l.job.y = c->grad_in[0]->data;
    return gc_rows_backward(c, &l.job);
}

static gc_status layer_backward(gc_op_call *c)
{
    return layer_backward_kind(c, ROW_LAYER);
}

static gc_status rms_backward(gc_op_call *c)
{
    return layer_backward_kind(c, ROW_RMS);
}

const gc_op gc_ops_layernorm[] = {
    {"LayerNormalization", layer_infer, layer_forward, layer_backward, 0, 3, 0, 2, 3, 3},
    {"RMSNormalization", rms_infer, rms_forward, rms_backward, 0, 3, 0, 2, 2, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
