/* SPDX-License-Identifier: MIT */
/* Softmax, LogSoftmax and Hardmax along one axis. */
#include <math.h>
#include <string.h>

#include "kern/kern.h"
#include "ops/op.h"

/* A row is n elements `inner` apart; outer * inner rows. */
typedef struct rows {
    int64_t outer;
    int64_t n;
    int64_t inner;
} rows;

/* Before opset 13 the input is flattened to two dimensions at the axis. */
static gc_status find_rows(gc_op_call *c, rows *r)
{
    const gc_tensor *x = c->in[0];
    bool flat = c->opset < 13;
    int64_t axis = gc_attr_int(&c->attrs, "axis", flat ? 1 : -1);
    int32_t at = 0;
    r->outer = r->n = r->inner = 1;
    if (flat && axis == x->ndim) {
        at = x->ndim;
    } else if (x->ndim > 0) {
        GC_TRY(gc_op_axis(c, axis, x->ndim, &at));
    }
    for (int32_t d = 0; d < x->ndim; d++) {
        if (d < at) {
            r->outer *= x->shape[d];
        } else if (flat || d == at) {
            r->n *= x->shape[d];
        } else {
            r->inner *= x->shape[d];
        }
    }
    return GRADCAM_OK;
}

static gc_status infer_softmax(gc_op_call *c)
{
    rows r;
    GC_TRY(gc_op_need(c, 0));
    if (c->in[0]->dtype != GRADCAM_F32) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "the input must be floating point");
    }
    GC_TRY(gc_op_set_output(c, 0, GRADCAM_F32, c->in[0]->ndim, c->in[0]->shape));
    return find_rows(c, &r);
}

static int64_t largest(const float *x, int64_t n, int64_t step)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) {
        best = x[i * step] > x[best * step] ? i : best;
    }
    return best;
}

/* The largest value is taken off first, so that exp cannot overflow. */
static void softmax_row(const gc_kern *kern, const float *x, float *y, int64_t n, int64_t step)
{
    if (step == 1) {
        kern->softmax(n, x, y);
        return;
    }
    float top = x[largest(x, n, step) * step];
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        y[i * step] = expf(x[i * step] - top);
        sum += (double)y[i * step];
    }
    float scale = (float)(1.0 / sum);
    for (int64_t i = 0; i < n; i++) {
        y[i * step] *= scale;
    }
}

static void log_softmax_row(const gc_kern *kern, const float *x, float *y, int64_t n, int64_t step)
{
    (void)kern;
    float top = x[largest(x, n, step) * step];
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)expf(x[i * step] - top);
    }
    float shift = (float)log(sum);
    for (int64_t i = 0; i < n; i++) {
        y[i * step] = x[i * step] - top - shift;
    }
}

static void hardmax_row(const gc_kern *kern, const float *x, float *y, int64_t n, int64_t step)
{
    (void)kern;
    int64_t best = largest(x, n, step);
    for (int64_t i = 0; i < n; i++) {
        y[i * step] = i == best ? 1.0f : 0.0f;
    }
}

typedef void (*row_fn)(const gc_kern *kern, const float *x, float *y, int64_t n, int64_t step);

typedef struct rows_job {
    rows r;
    const gc_kern *kern;
    row_fn row;
    const float *x;
    float *y;
} rows_job;

enum { ROWS_TASK = 16 };

static void rows_task(void *task, uint32_t index)
{
    const rows_job *j = task;
    int64_t first = (int64_t)index * ROWS_TASK, last = first + ROWS_TASK, all = j->r.outer * j->r.inner;
    for (int64_t k = first; k < (last < all ? last : all); k++) {
        int64_t at = k / j->r.inner * j->r.n * j->r.inner + k % j->r.inner;
        j->row(j->kern, j->x + at, j->y + at, j->r.n, j->r.inner);
    }
}

static gc_status forward_rows(gc_op_call *c, row_fn row)
{
    rows_job j;
    memset(&j, 0, sizeof j);
    GC_TRY(find_rows(c, &j.r));
    int64_t tasks = (j.r.outer * j.r.inner + ROWS_TASK - 1) / ROWS_TASK;
    if (c->out[0] == NULL || j.r.n == 0) {
        return GRADCAM_OK;
    }
    if (tasks > UINT32_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too many rows");
    }
    j.kern = gc_kern_of(c->ctx);
    j.row = row;
    j.x = c->in[0]->data;
    j.y = c->out[0]->data;
    return gc_parallel(c->ctx, rows_task, &j, (uint32_t)tasks);
}

static gc_status softmax_forward(gc_op_call *c)
{
    return forward_rows(c, softmax_row);
}

static gc_status log_softmax_forward(gc_op_call *c)
{
    return forward_rows(c, log_softmax_row);
}

static gc_status hardmax_forward(gc_op_call *c)
{
    return forward_rows(c, hardmax_row);
}

static void softmax_grad(const float *y, const float *g, float *d, int64_t n, int64_t step)
{
    double dot = 0.0;
    bool any = false; /* often only few rows have a gradient */
    for (int64_t i = 0; i < n; i++) {
        any |= g[i * step] != 0.0f;
    }
    if (!any) {
        for (int64_t i = 0; i < n; i++) {
            d[i * step] = 0.0f * y[i * step];
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        dot += (double)y[i * step] * (double)g[i * step];
    }
    for (int64_t i = 0; i < n; i++) {
        d[i * step] = (float)((double)y[i * step] * ((double)g[i * step] - dot));
    }
}

static void log_softmax_grad(const float *y, const float *g, float *d, int64_t n, int64_t step)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)g[i * step];
    }
    for (int64_t i = 0; i < n; i++) {
        d[i * step] = (float)((double)g[i * step] - (double)expf(y[i * step]) * sum);
    }
}

typedef void (*row_grad_fn)(const float *y, const float *g, float *d, int64_t n, int64_t step);

typedef struct grad_job {
    rows r;
    row_grad_fn row;
    const float *y, *g;
    float *d;
} grad_job;

static void grad_task(void *task, uint32_t index)
{
    const grad_job *j = task;
    int64_t first = (int64_t)index * ROWS_TASK, last = first + ROWS_TASK, all = j->r.outer * j->r.inner;
    for (int64_t k = first; k < (last < all ? last : all); k++) {
        int64_t at = k / j->r.inner * j->r.n * j->r.inner + k % j->r.inner;
        j->row(j->y + at, j->g + at, j->d + at, j->r.n, j->r.inner);
    }
}

static gc_status backward_rows(gc_op_call *c, row_grad_fn row)
{
    grad_job j;
    memset(&j, 0, sizeof j);
    GC_TRY(find_rows(c, &j.r));
    int64_t tasks = (j.r.outer * j.r.inner + ROWS_TASK - 1) / ROWS_TASK;
    if (c->grad_in[0] == NULL || j.r.n == 0) {
        return GRADCAM_OK;
    }
    if (tasks > UINT32_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too many rows");
    }
    j.row = row;
    j.y = c->out[0]->data;
    j.g = c->grad_out[0]->data;
    j.d = c->grad_in[0]->data;
    return gc_parallel(c->ctx, grad_task, &j, (uint32_t)tasks);
}

static gc_status softmax_backward(gc_op_call *c)
{
    return backward_rows(c, softmax_grad);
}

static gc_status log_softmax_backward(gc_op_call *c)
{
    return backward_rows(c, log_softmax_grad);
}

const gc_op gc_ops_softmax[] = {
    {"Softmax", infer_softmax, softmax_forward, softmax_backward, 0, 0, 1, 1, 1, 1},
    {"LogSoftmax", infer_softmax, log_softmax_forward, log_softmax_backward, 0, 0, 1, 1, 1, 1},
    {"Hardmax", infer_softmax, hardmax_forward, NULL, GC_OP_STOPS, 0, 0, 1, 1, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
