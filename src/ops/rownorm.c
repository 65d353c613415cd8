/* SPDX-License-Identifier: MIT */
/* Normalisation of rows, and the operators whose rows are groups of channels
   (GroupNormalization) or any axes (LpNormalization, MeanVarianceNormalization). */
#include "ops/rownorm.h"

#include <math.h>
#include <string.h>

#include "base/size.h"
#include "kern/copy.h"

gc_status gc_rows_need_float(gc_op_call *c, int32_t i)
{
    GC_TRY(gc_op_need(c, i));
    if (c->in[i]->dtype != GRADCAM_F32) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "input %d is not float", (int)i);
    }
    return GRADCAM_OK;
}

gc_status gc_rows_set(gc_op_call *c, gc_row_job *j, int64_t rows, int64_t n)
{
    j->rows = rows;
    j->n = n;
    j->groups = j->per_row = 1;
    j->span = n;
    j->chunk = n > 4096 ? 1 : 4096 / (n > 0 ? n : 1);
    if (rows < 0 || n < 1 || rows > INT64_C(1) << 31) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "bad or too large shape");
    }
    return GRADCAM_OK;
}

/* ---- one row ---- */

enum { SOME = 256 };

/* The second sum takes off what the first one rounded: rows may lie far from zero. */
static double row_mean(const gc_row_job *j, const float *x)
{
    double n = (double)j->n, mean = j->kern->moment(j->n, x, 0.0f, 1) / n;
    float near = (float)mean;
    return (double)near + j->kern->moment(j->n, x, near, 1) / n;
}

static double row_norm(const gc_row_job *j, const float *x, double center)
{
    double sum = 0;
    if (j->kind != ROW_L1) {
        return j->kern->moment(j->n, x, (float)center, 2);
    }
    for (int64_t k = 0; k < j->n; k++) {
        sum += fabs((double)x[k]);
    }
    return sum;
}

static void measure(const gc_row_job *j, const float *x, float *stats)
{
    bool centered = j->kind == ROW_LAYER || j->kind == ROW_MVN;
    double center = centered ? row_mean(j, x) : 0.0;
    double sum = row_norm(j, x, center), size;
    switch (j->kind) {
    case ROW_L1: size = sum; break;
    case ROW_L2: size = sqrt(sum); break;
    case ROW_MVN: size = sqrt(sum / (double)j->n) + 1e-9; break;
    default: size = sqrt(sum / (double)j->n + (double)j->epsilon); break;
    }
    stats[0] = (float)center;
    stats[1] = size == 0.0 && j->kind >= ROW_L1 ? 0.0f : (float)(1.0 / size);
}

/* y = v s, s as of row r. */
static void times_scale(const gc_row_job *j, int64_t r, const float *v, float *y)
{
    const float *s = j->scale + r % j->groups * j->per_row;
    if (j->span == 1) {
        for (int64_t k = 0; k < j->n; k++) {
            y[k] = v[k] * s[k];
        }
        return;
    }
    for (int64_t k = 0; k < j->n; k++) {
        y[k] = v[k] * s[k / j->span];
    }
}

static void plus_bias(const gc_row_job *j, int64_t r, float *y)
{
    const float *b = j->bias + r % j->groups * j->per_row;
    for (int64_t k = 0; k < j->n; k++) {
        y[k] += b[j->span == 1 ? k : k / j->span];
    }
}

static void whole_row(int64_t n, const float *restrict x, float center, float factor, const float *restrict scale,
                      const float *restrict bias, float *restrict y)
{
    for (int64_t k = 0; k < n; k++) {
        y[k] = (x[k] - center) * factor * scale[k] + bias[k];
    }
}

/* The same into bfloat16, some at a time. */
static void whole_row_half(const gc_row_job *j, const float *x, float center, float factor, const float *scale,
                           const float *bias, gc_bf16 *y)
{
    float part[SOME];
    for (int64_t k = 0; k < j->n; k += SOME) {
        int64_t n = min64(SOME, j->n - k);
        whole_row(n, x + k, center, factor, scale + k, bias + k, part);
        j->half->narrow(n, part, y + k);
    }
}

static void forward_task(void *task, uint32_t chunk)
{
    const gc_row_job *j = task;
    int64_t first = (int64_t)chunk * j->chunk, last = min64(first + j->chunk, j->rows);
    for (int64_t r = first; r < last; r++) {
        const float *x = j->x + r * j->n;
        measure(j, x, j->stats + 2 * r);
        float center = j->stats[2 * r], factor = j->stats[2 * r + 1];
        if (j->span == 1 && j->scale != NULL && j->bias != NULL) {
            int64_t at = r % j->groups * j->per_row;
            if (j->y_half != NULL) {
                whole_row_half(j, x, center, factor, j->scale + at, j->bias + at, j->y_half + r * j->n);
            } else {
                whole_row(j->n, x, center, factor, j->scale + at, j->bias + at, j->y + r * j->n);
            }
            continue;
        }
        float *y = j->y + r * j->n;
        for (int64_t k = 0; k < j->n; k++) {
            y[k] = (x[k] - center) * factor;
        }
        if (j->scale != NULL) {
            times_scale(j, r, y, y);
        }
        if (j->bias != NULL) {
            plus_bias(j, r, y);
        }
    }
}

static void backward_row(const gc_row_job *j, int64_t r, const float *x, float *dx)
{
    bool centered = j->kind == ROW_LAYER || j->kind == ROW_MVN, sum_only = j->kind >= ROW_L1;
    float center = j->stats[2 * r], factor = j->stats[2 * r + 1];
    double n = (double)j->n, sum = 0, dot = 0;
    for (int64_t k = 0; k < j->n; k++) {
        sum += (double)dx[k];
        dot += (double)(dx[k] * ((x[k] - center) * factor));
    }
    double shift = centered ? sum / n : 0.0, slope = sum_only ? dot : dot / n;
    if (j->d_mean != NULL && factor != 0.0f) {
        shift -= (double)j->d_mean[r] / n / (double)factor;
    }
    if (j->d_factor != NULL) {
        slope += (double)factor * (double)j->d_factor[r] / n;
    }
    for (int64_t k = 0; k < j->n; k++) {
        float hat = (x[k] - center) * factor;
        float h = j->kind != ROW_L1 ? hat : x[k] > 0.0f ? 1.0f : x[k] < 0.0f ? -1.0f : 0.0f;
        dx[k] = factor * (dx[k] - (float)shift - h * (float)slope);
    }
}

static void backward_task(void *task, uint32_t chunk)
{
    const gc_row_job *j = task;
    int64_t first = (int64_t)chunk * j->chunk, last = min64(first + j->chunk, j->rows);
    for (int64_t r = first; r < last; r++) {
        float *g = j->y + r * j->n;
        if (j->dy == NULL) {
            memset(g, 0, (size_t)j->n * sizeof *g);
        } else if (j->scale != NULL) {
            times_scale(j, r, j->dy + r * j->n, g);
        } else if (g != j->dy + r * j->n) {
            memcpy(g, j->dy + r * j->n, (size_t)j->n * sizeof *g);
        }
        backward_row(j, r, j->x + r * j->n, g);
    }
}

static uint32_t tasks(const gc_row_job *j)
{
    return (uint32_t)((j->rows + j->chunk - 1) / j->chunk);
}

gc_status gc_rows_forward(gc_op_call *c, gc_row_job *j)
{
    j->kern = gc_kern_of(c->ctx);
    return gc_parallel(c->ctx, forward_task, j, tasks(j));
}

gc_status gc_rows_backward(gc_op_call *c, gc_row_job *j)
{
    return gc_parallel(c->ctx, backward_task, j, tasks(j));
}

void gc_rows_scale_sums(const gc_row_job *j, bool with_x, double *sums)
{
    for (int64_t r = 0; r < j->rows; r++) {
        double *at = sums + r % j->groups * j->per_row;
        const float *dy = j->dy + r * j->n, *x = j->x + r * j->n;
        float center = j->stats[2 * r], factor = j->stats[2 * r + 1];
        for (int64_t k = 0; k < j->n; k++) {
            at[k / j->span] += (double)(with_x ? dy[k] * ((x[k] - center) * factor) : dy[k]);
        }
    }
}

/* ---- GroupNormalization: [N, C, ...] is [N * groups] rows ---- */

static gc_status group_setup(gc_op_call *c, gc_row_job *j)
{
    memset(j, 0, sizeof *j);
    GC_TRY(gc_rows_need_float(c, 0));
    const gc_tensor *x = c->in[0];
    int64_t groups = gc_attr_int(&c->attrs, "num_groups", 0);
    if (x->ndim < 2 || groups < 1 || x->shape[1] % groups != 0) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "num_groups %lld does not divide the channels", (long long)groups);
    }
    int64_t each = x->shape[1] / groups, pixels = gc_shape_numel(x->ndim - 2, x->shape + 2), n, rows;
    if (pixels < 0 || !gc_mul_ok(each, pixels, &n) || !gc_mul_ok(x->shape[0], groups, &rows)) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    GC_TRY(gc_rows_set(c, j, rows, n));
    j->kind = ROW_LAYER;
    j->epsilon = gc_attr_float(&c->attrs, "epsilon", 1e-5f);
    j->groups = groups;
    j->per_row = c->opset < 21 ? 1 : each; /* until 21 one scale served a group */
    j->span = c->opset < 21 ? n : pixels;
    for (int32_t i = 1; i < 3; i++) {
        GC_TRY(gc_rows_need_float(c, i));
        if (c->in[i]->ndim != 1 || c->in[i]->shape[0] != groups * j->per_row) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "input %d does not have %lld values", (int)i,
                              (long long)(groups * j->per_row));
        }
    }
    return GRADCAM_OK;
}

static gc_status group_infer(gc_op_call *c)
{
    gc_row_job j;
    GC_TRY(group_setup(c, &j));
    c->aux_bytes = (size_t)j.rows * 2 * sizeof(float);
    c->work_bytes = (size_t)(j.groups * j.per_row) * sizeof(double);
    return gc_op_set_output(c, 0, GRADCAM_F32, c->in[0]->ndim, c->in[0]->shape);
}

static gc_status group_forward(gc_op_call *c)
{
    gc_row_job j;
    GC_TRY(group_setup(c, &j));
    j.x = c->in[0]->data;
    j.scale = c->in[1]->data;
    j.bias = c->in[2]->data;
    j.y = c->out[0]->data;
    j.stats = c->aux;
    return gc_rows_forward(c, &j);
}

static gc_status group_backward(gc_op_call *c)
{
    gc_row_job j;
    GC_TRY(group_setup(c, &j));
    j.x = c->in[0]->data;
    j.scale = c->in[1]->data;
    j.dy = c->grad_out[0]->data;
    j.stats = c->aux;
    for (int32_t i = 1; i < 3; i++) {
        double *sums = c->work;
        float *to = c->grad_in[i] == NULL ? NULL : c->grad_in[i]->data;
        memset(sums, 0, c->work_bytes);
        if (to != NULL) {
            gc_rows_scale_sums(&j, i == 1, sums);
        }
        for (int64_t k = 0; to != NULL && k < j.groups * j.per_row; k++) {
            to[k] = (float)sums[k];
        }
    }
    if (c->grad_in[0] == NULL) {
        return GRADCAM_OK;
    }
    j.y = c->grad_in[0]->data;
    return gc_rows_backward(c, &j);
}

/* ---- LpNormalization, MeanVarianceNormalization: any axes ----

   The normalised axes are brought to the end.  Work: input, gradient or result
   in that order. */

typedef struct axes_call {
    gc_row_job job;
    int64_t numel;
    int64_t shape[GRADCAM_MAX_DIMS]; /* kept axes, then normalised ones */
    int64_t strides[GRADCAM_MAX_DIMS];
} axes_call;

static gc_status mark_axes(gc_op_call *c, bool mvn, bool *gone)
{
    static const int64_t usual[] = {0, 2, 3};
    int64_t one = gc_attr_int(&c->attrs, "axis", -1);
    const gc_attr_value *given = mvn ? gc_attr_find(&c->attrs, "axes", GRADCAM_ATTR_INTS) : NULL;
    const int64_t *axes = !mvn ? &one : given != NULL ? given->ints : usual;
    size_t count = !mvn ? 1 : given != NULL ? given->count : 3;
    for (size_t i = 0; i < count; i++) {
        int32_t d = 0;
        GC_TRY(gc_op_axis(c, axes[i], c->in[0]->ndim, &d));
        gone[d] = true;
    }
    return GRADCAM_OK;
}

static gc_status axes_setup(gc_op_call *c, bool mvn, axes_call *a)
{
    bool gone[GRADCAM_MAX_DIMS] = {false};
    int64_t own[GRADCAM_MAX_DIMS] = {0};
    memset(a, 0, sizeof *a);
    GC_TRY(gc_rows_need_float(c, 0));
    GC_TRY(mark_axes(c, mvn, gone));
    const gc_tensor *x = c->in[0];
    int32_t kept = 0, n = 0;
    gc_row_strides(x->ndim, x->shape, own);
    for (int32_t pass = 0; pass < 2; pass++) {
        for (int32_t d = 0; d < x->ndim; d++) {
            if (gone[d] == (pass == 1)) {
                a->shape[n] = x->shape[d];
                a->strides[n++] = own[d];
            }
        }
        kept = pass == 0 ? n : kept;
    }
    int64_t p = gc_attr_int(&c->attrs, "p", 2);
    if (!mvn && p != 1 && p != 2) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "p is %lld, it must be 1 or 2", (long long)p);
    }
    a->job.kind = mvn ? ROW_MVN : p == 1 ? ROW_L1 : ROW_L2;
    a->numel = gc_numel(x);
    return gc_rows_set(c, &a->job, gc_shape_numel(kept, a->shape), gc_shape_numel(n - kept, a->shape + kept));
}

static gc_status axes_infer(gc_op_call *c, bool mvn)
{
    axes_call a;
    int64_t bytes;
    GC_TRY(axes_setup(c, mvn, &a));
    if (!gc_mul_ok(a.numel, 2 * (int64_t)sizeof(float), &bytes)) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    c->work_bytes = (size_t)bytes;
    c->aux_bytes = (size_t)a.job.rows * 2 * sizeof(float);
    return gc_op_set_output(c, 0, GRADCAM_F32, c->in[0]->ndim, c->in[0]->shape);
}

/* Between the tensor's order and that of rows. */
static void reorder(const gc_op_call *c, const axes_call *a, float *rows, float *tensor, bool to_rows)
{
    int64_t dense[GRADCAM_MAX_DIMS] = {0};
    int32_t ndim = c->in[0]->ndim;
    gc_row_strides(ndim, a->shape, dense);
    gc_copy_nd(ndim, a->shape, to_rows ? rows : tensor, to_rows ? dense : a->strides, to_rows ? tensor : rows,
               to_rows ? a->strides : dense, sizeof(float));
}

static gc_status axes_forward(gc_op_call *c, bool mvn)
{
    axes_call a;
    GC_TRY(axes_setup(c, mvn, &a));
    float *rows = c->work;
    reorder(c, &a, rows, c->in[0]->data, true);
    a.job.x = rows;
    a.job.y = rows;
    a.job.stats = c->aux;
    GC_TRY(gc_rows_forward(c, &a.job));
    reorder(c, &a, rows, c->out[0]->data, false);
    return GRADCAM_OK;
}

static gc_status axes_backward(gc_op_call *c, bool mvn)
{
    axes_call a;
    GC_TRY(axes_setup(c, mvn, &a));
    float *rows = c->work, *grads = rows + a.numel;
    if (c->grad_in[0] == NULL) {
        return GRADCAM_OK;
    }
    reorder(c, &a, rows, c->in[0]->data, true);
    reorder(c, &a, grads, c->grad_out[0]->data, true);
    a.job.x = rows;
    a.job.dy = grads;
    a.job.y = grads;
    a.job.stats = c->aux;
    GC_TRY(gc_rows_backward(c, &a.job));
    reorder(c, &a, grads, c->grad_in[0]->data, false);
    return GRADCAM_OK;
}

static gc_status lp_infer(gc_op_call *c)
{
    return axes_infer(c, false);
}

static gc_status lp_forward(gc_op_call *c)
{
    return axes_forward(c, false);
}

static gc_status lp_backward(gc_op_call *c)
{
    return axes_backward(c, false);
}

static gc_status mvn_infer(gc_op_call *c)
{
    return axes_infer(c, true);
}

static gc_status mvn_forward(gc_op_call *c)
{
    return axes_forward(c, true);
}

static gc_status mvn_backward(gc_op_call *c)
{
    return axes_backward(c, true);
}

const gc_op gc_ops_rownorm[] = {
    {"GroupNormalization", group_infer, group_forward, group_backward, 0, 3, 0, 3, 3, 1},
    {"LpNormalization", lp_infer, lp_forward, lp_backward, 0, 1, 0, 1, 1, 1},
    {"MeanVarianceNormalization", mvn_infer, mvn_forward, mvn_backward, 0, 1, 0, 1, 1, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
