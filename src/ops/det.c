/* SPDX-License-Identifier: MIT */
/* Det of square matrices.  With complete pivoting P A Q = L U,
     det A = sign prod(u_ii),  adj A = sign Q adj(U) L^-1 P,
   and the gradient is dA = dy adj(A)^T.  No pivot but the last may vanish unless
   the rank is below n - 1, where adj A = 0, so singular matrices do no harm. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "ops/op.h"
#include "tensor/walk.h"

/* Work: the matrix as doubles, a column of its adjugate, and the two permutations. */
typedef struct det {
    int64_t n, batches;
    double *lu, *column;
    int64_t *rows, *cols;
    double sign;
} det;

static gc_status setup(gc_op_call *c, det *d)
{
    memset(d, 0, sizeof *d);
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *x = c->in[0];
    if (x->dtype != GRADCAM_F32) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "the input must be floating point");
    }
    if (x->ndim < 2 || x->shape[x->ndim - 1] != x->shape[x->ndim - 2]) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the last two dimensions must be a square matrix");
    }
    d->n = x->shape[x->ndim - 1];
    d->batches = gc_shape_numel(x->ndim - 2, x->shape);
    d->lu = c->work;
    if (d->lu != NULL) {
        d->column = d->lu + d->n * d->n;
        d->rows = (int64_t *)(void *)(d->column + d->n);
        d->cols = d->rows + d->n;
    }
    return GRADCAM_OK;
}

static gc_status infer(gc_op_call *c)
{
    det d;
    int64_t bytes;
    GC_TRY(setup(c, &d));
    if (!gc_mul_ok(d.n, d.n + 3, &bytes) || !gc_mul_ok(bytes, sizeof(double), &bytes)) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    c->work_bytes = (size_t)bytes;
    return gc_op_set_output(c, 0, GRADCAM_F32, c->in[0]->ndim - 2, c->in[0]->shape);
}

static void swap(double *a, double *b)
{
    double t = *a;
    *a = *b;
    *b = t;
}

/* Brings the largest element of the rest to (k, k). */
static void pivot(det *d, int64_t k)
{
    int64_t n = d->n, row = k, col = k;
    for (int64_t i = k * n; i < n * n; i++) {
        bool rest = i % n >= k;
        if (rest && fabs(d->lu[i]) > fabs(d->lu[row * n + col])) {
            row = i / n;
            col = i % n;
        }
    }
    for (int64_t i = 0; i < n && row != k; i++) {
        swap(&d->lu[row * n + i], &d->lu[k * n + i]);
    }
    for (int64_t i = 0; i < n && col != k; i++) {
        swap(&d->lu[i * n + col], &d->lu[i * n + k]);
    }
    int64_t r = d->rows[k], q = d->cols[k];
    d->rows[k] = d->rows[row];
    d->rows[row] = r;
    d->cols[k] = d->cols[col];
    d->cols[col] = q;
    d->sign *= (row != k) == (col != k) ? 1.0 : -1.0;
}

static void factor(det *d, const float *x)
{
    int64_t n = d->n;
    d->sign = 1.0;
    for (int64_t i = 0; i < n * n; i++) {
        d->lu[i] = (double)x[i];
    }
    for (int64_t i = 0; i < n; i++) {
        d->rows[i] = d->cols[i] = i;
    }
    for (int64_t k = 0; k < n; k++) {
        pivot(d, k);
        double p = d->lu[k * n + k];
        for (int64_t i = k + 1; i < n && p != 0.0; i++) {
            double f = d->lu[i * n + k] /= p;
            for (int64_t j = k + 1; j < n; j++) {
                d->lu[i * n + j] -= f * d->lu[k * n + j];
            }
        }
    }
}

/* Product of the first `count` pivots. */
static double pivots(const det *d, int64_t count)
{
    double product = d->sign;
    for (int64_t i = 0; i < count; i++) {
        product *= d->lu[i * d->n + i];
    }
    return product;
}

static gc_status det_forward(gc_op_call *c)
{
    det d;
    GC_TRY(setup(c, &d));
    for (int64_t b = 0; c->out[0] != NULL && b < d.batches; b++) {
        factor(&d, (const float *)c->in[0]->data + b * d.n * d.n);
        ((float *)c->out[0]->data)[b] = (float)pivots(&d, d.n);
    }
    return GRADCAM_OK;
}

/* Column j of adj(U) L^-1, up to the sign and the permutations.  With
   U = [V u; 0 p], adj U = det V [p V^-1, -V^-1 u; 0, 1]. */
static void adjugate_column(const det *d, int64_t j, double *y)
{
    int64_t n = d->n, m = n - 1;
    double p = d->lu[m * n + m];
    for (int64_t i = 0; i < n; i++) { /* y = L^-1 e_j */
        y[i] = i == j ? 1.0 : 0.0;
        for (int64_t k = j; k < i; k++) {
            y[i] -= d->lu[i * n + k] * y[k];
        }
    }
    for (int64_t i = m - 1; i >= 0; i--) { /* V z = p y - u y_m */
        double sum = p * y[i] - d->lu[i * n + m] * y[m];
        for (int64_t k = i + 1; k < m; k++) {
            sum -= d->lu[i * n + k] * y[k];
        }
        y[i] = sum / d->lu[i * n + i];
    }
}

static void gradient(det *d, const float *x, double g, float *dx)
{
    int64_t n = d->n;
    factor(d, x);
    double product = pivots(d, n - 1);
    for (int64_t j = 0; j < n; j++) {
        if (product != 0.0) {
            adjugate_column(d, j, d->column);
        }
        for (int64_t i = 0; i < n; i++) { /* element (cols[i], rows[j]) of the adjugate */
            dx[d->rows[j] * n + d->cols[i]] = product == 0.0 ? 0.0f : (float)(g * product * d->column[i]);
        }
    }
}

static gc_status det_backward(gc_op_call *c)
{
    det d;
    GC_TRY(setup(c, &d));
    for (int64_t b = 0; c->grad_in[0] != NULL && b < d.batches && d.n > 0; b++) {
        int64_t at = b * d.n * d.n;
        gradient(&d, (const float *)c->in[0]->data + at, (double)((const float *)c->grad_out[0]->data)[b],
                 (float *)c->grad_in[0]->data + at);
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_det[] = {
    {"Det", infer, det_forward, det_backward, 0, 1, 0, 1, 1, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
