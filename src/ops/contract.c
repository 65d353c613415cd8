/* SPDX-License-Identifier: MIT */
/* A pair of terms is a batch of matrix products: labels of both that stay are
   the batch, labels of one are rows or columns, labels of both that go are the
   inner dimension.  Labels of one that go are summed beforehand. */
#include "ops/contract.h"

#include <string.h>

#include "base/size.h"
#include "base/status.h"
#include "kern/copy.h"
#include "kern/gemm.h"

enum { SMALL_PRODUCT = 512 }; /* multiplications below which a call of gc_gemm costs more */

typedef struct labels {
    int32_t n;
    int32_t at[2 * GC_TERM_DIMS];
} labels;

static uint64_t bit(int32_t label)
{
    return UINT64_C(1) << label;
}

static uint64_t mask_of(const gc_term *t)
{
    uint64_t mask = 0;
    for (int32_t i = 0; i < t->n; i++) {
        mask |= bit(t->label[i]);
    }
    return mask;
}

static int64_t step_of(const gc_term *t, int32_t label)
{
    for (int32_t i = 0; i < t->n; i++) {
        if (t->label[i] == label) {
            return t->step[i];
        }
    }
    return 0;
}

/* Appends the labels of `t` that lie in `mask`, in t's order. */
static void add_labels(labels *list, const gc_term *t, uint64_t mask)
{
    for (int32_t i = 0; i < t->n; i++) {
        if ((mask & bit(t->label[i])) != 0) {
            list->at[list->n++] = t->label[i];
        }
    }
}

static gc_status numel(const gc_contraction *c, const labels *list, int64_t *out)
{
    *out = 1;
    for (int32_t i = 0; i < list->n; i++) {
        if (!gc_mul_ok(*out, c->size[list->at[i]], out) || *out > INT64_C(1) << 40) {
            return GRADCAM_E_LIMIT;
        }
    }
    return GRADCAM_OK;
}

static gc_status take(gc_contraction *c, int64_t n, float **out)
{
    *out = c->work == NULL ? NULL : c->work + c->used;
    return gc_add_ok(c->used, n, &c->used) && c->used < INT64_C(1) << 40 ? GRADCAM_OK : GRADCAM_E_LIMIT;
}

/* A dense term of these labels. */
static gc_status dense(const gc_contraction *c, const labels *list, gc_term *t, int64_t *count)
{
    if (list->n > GC_TERM_DIMS) {
        return GRADCAM_E_LIMIT;
    }
    GC_TRY(numel(c, list, count));
    int64_t step = 1;
    t->n = list->n;
    for (int32_t i = list->n - 1; i >= 0; i--) {
        t->label[i] = list->at[i];
        t->step[i] = step;
        step *= c->size[list->at[i]] > 0 ? c->size[list->at[i]] : 1;
    }
    return GRADCAM_OK;
}

static void copy(const gc_contraction *c, const gc_term *from, const gc_term *to, float *dst)
{
    int64_t shape[GC_TERM_DIMS], src[GC_TERM_DIMS];
    for (int32_t i = 0; i < to->n; i++) {
        shape[i] = c->size[to->label[i]];
        src[i] = step_of(from, to->label[i]);
    }
    if (c->work != NULL) {
        gc_copy_nd(to->n, shape, dst, to->step, from->data, src, sizeof(float));
    }
}

/* ---- sums of one term ---- */

/* Moves an odometer over `list` one on; false after the last. */
static bool next(const gc_contraction *c, const labels *list, int64_t *pos, const int64_t *step, int64_t *at)
{
    for (int32_t i = list->n - 1; i >= 0; i--) {
        *at += step[i];
        if (++pos[i] < c->size[list->at[i]]) {
            return true;
        }
        *at -= pos[i] * step[i];
        pos[i] = 0;
    }
    return false;
}

static void steps_in(const gc_term *t, const labels *list, int64_t *step)
{
    for (int32_t i = 0; i < list->n; i++) {
        step[i] = step_of(t, list->at[i]);
    }
}

static double sum_all(const gc_contraction *c, const float *x, const labels *gone, const int64_t *step)
{
    int64_t pos[GC_TERM_DIMS] = {0}, at = 0;
    double sum = 0.0;
    do {
        sum += (double)x[at];
    } while (next(c, gone, pos, step, &at));
    return sum;
}

/* Sums t over the labels in `mask`; t becomes the dense result. */
static gc_status reduce(gc_contraction *c, gc_term *t, uint64_t mask)
{
    labels kept = {0, {0}}, gone = {0, {0}};
    int64_t kept_step[GC_TERM_DIMS], gone_step[GC_TERM_DIMS], pos[GC_TERM_DIMS] = {0};
    int64_t count, terms, at = 0;
    gc_term sums = *t;
    float *dst;
    add_labels(&gone, t, mask);
    if (gone.n == 0) {
        return GRADCAM_OK;
    }
    add_labels(&kept, t, ~mask);
    GC_TRY(dense(c, &kept, &sums, &count));
    GC_TRY(numel(c, &gone, &terms));
    GC_TRY(take(c, count, &dst));
    steps_in(t, &kept, kept_step);
    steps_in(t, &gone, gone_step);
    for (int64_t i = 0; dst != NULL && i < count; i++) {
        dst[i] = terms == 0 ? 0.0f : (float)sum_all(c, t->data + at, &gone, gone_step);
        next(c, &kept, pos, kept_step, &at);
    }
    sums.data = dst;
    *t = sums;
    return GRADCAM_OK;
}

/* ---- products of two ---- */

/* One step for all labels of the list, if there is one. */
static bool merge(const gc_contraction *c, const gc_term *t, const labels *list, int64_t *step)
{
    int64_t whole = 0;
    *step = 1;
    for (int32_t i = list->n - 1; i >= 0; i--) {
        int64_t s = step_of(t, list->at[i]), size = c->size[list->at[i]];
        if (size == 1) {
            continue;
        }
        if (whole == 0) {
            *step = s;
        } else if (s != whole) {
            return false;
        }
        whole = s * size;
    }
    return true;
}

/* t as matrices [rows][cols]: copied in the order batch, rows, cols unless its
   steps serve as they are. */
static gc_status as_matrix(gc_contraction *c, gc_term *t, const labels *batch, const labels *rows, const labels *cols,
                           int64_t *row_step, int64_t *col_step)
{
    if (merge(c, t, rows, row_step) && merge(c, t, cols, col_step)) {
        return GRADCAM_OK;
    }
    labels all = *batch;
    gc_term packed = *t;
    int64_t count;
    float *dst;
    for (int32_t i = 0; i < rows->n; i++) {
        all.at[all.n++] = rows->at[i];
    }
    for (int32_t i = 0; i < cols->n; i++) {
        all.at[all.n++] = cols->at[i];
    }
    GC_TRY(dense(c, &all, &packed, &count));
    GC_TRY(take(c, count, &dst));
    copy(c, t, &packed, dst);
    packed.data = dst;
    *t = packed;
    merge(c, t, rows, row_step);
    merge(c, t, cols, col_step);
    return GRADCAM_OK;
}

typedef struct product {
    labels batch, rows, cols, inner;
    int64_t batches, m, n, k;
    int64_t a_row, a_col, b_row, b_col;
} product;

static void small_product(const product *p, const float *a, const float *b, float *y)
{
    for (int64_t i = 0; i < p->m; i++) {
        for (int64_t j = 0; j < p->n; j++) {
            double sum = 0.0;
            for (int64_t l = 0; l < p->k; l++) {
                sum += (double)a[i * p->a_row + l * p->a_col] * (double)b[l * p->b_row + j * p->b_col];
            }
            y[i * p->n + j] = (float)sum;
        }
    }
}

static gc_status multiply(gc_contraction *c, const product *p, const gc_term *a, const gc_term *b, float *y)
{
    int64_t pos_a[2 * GC_TERM_DIMS] = {0}, pos_b[2 * GC_TERM_DIMS] = {0};
    int64_t step_a[2 * GC_TERM_DIMS], step_b[2 * GC_TERM_DIMS], at_a = 0, at_b = 0;
    bool small = p->m * p->n < SMALL_PRODUCT && p->m * p->n * p->k < SMALL_PRODUCT;
    float *scratch = NULL;
    if (!small) {
        GC_TRY(take(c, (int64_t)gc_gemm_work(p->m, p->n, p->k), &scratch));
    }
    steps_in(a, &p->batch, step_a);
    steps_in(b, &p->batch, step_b);
    for (int64_t i = 0; c->work != NULL && i < p->batches; i++, y += p->m * p->n) {
        if (small || p->k == 0) {
            small_product(p, a->data + at_a, b->data + at_b, y);
        } else {
            GC_TRY(gc_gemm(c->ctx, p->m, p->n, p->k, a->data + at_a, p->a_row, p->a_col, b->data + at_b, p->b_row,
                           p->b_col, 0, y, p->n, scratch));
        }
        next(c, &p->batch, pos_a, step_a, &at_a);
        next(c, &p->batch, pos_b, step_b, &at_b);
    }
    return GRADCAM_OK;
}

static bool same_term(const gc_term *a, const gc_term *b)
{
    return a->n == b->n && memcmp(a->label, b->label, (size_t)a->n * sizeof a->label[0]) == 0 &&
           memcmp(a->step, b->step, (size_t)a->n * sizeof a->step[0]) == 0;
}

/* True when `out` names a label of `b` before any of `a`. */
static bool comes_first(const gc_term *out, uint64_t a, uint64_t b)
{
    for (int32_t i = 0; i < out->n; i++) {
        if (((a | b) & bit(out->label[i])) != 0) {
            return (b & bit(out->label[i])) != 0;
        }
    }
    return false;
}

static gc_status classify(const gc_contraction *c, const gc_term *a, const gc_term *b, uint64_t keep,
                          const gc_term *out, product *p)
{
    uint64_t in_a = mask_of(a), in_b = mask_of(b);
    memset(p, 0, sizeof *p);
    add_labels(&p->batch, out != NULL ? out : a, in_a & in_b & keep);
    add_labels(&p->rows, out != NULL ? out : a, in_a & ~in_b);
    add_labels(&p->cols, out != NULL ? out : b, in_b & ~in_a);
    add_labels(&p->inner, a, in_a & in_b & ~keep);
    GC_TRY(numel(c, &p->batch, &p->batches));
    GC_TRY(numel(c, &p->rows, &p->m));
    GC_TRY(numel(c, &p->cols, &p->n));
    GC_TRY(numel(c, &p->inner, &p->k));
    /* An empty batch must not hide the overflow of one matrix. */
    int64_t one;
    return gc_mul_ok(p->m, p->n, &one) && gc_mul_ok(one, p->k, &one) ? GRADCAM_OK : GRADCAM_E_LIMIT;
}

/* y = a b, keeping the labels in `keep`.  The last product of a contraction
   knows `out` and goes straight to dst if that has the natural order. */
static gc_status pair(gc_contraction *c, gc_term a, gc_term b, uint64_t keep, const gc_term *out, float *dst,
                      gc_term *y)
{
    product p;
    int64_t count;
    float *to = dst;
    GC_TRY(reduce(c, &a, mask_of(&a) & ~mask_of(&b) & ~keep));
    GC_TRY(reduce(c, &b, mask_of(&b) & ~mask_of(&a) & ~keep));
    if (out != NULL && comes_first(out, mask_of(&a) & ~mask_of(&b), mask_of(&b) & ~mask_of(&a))) {
        gc_term swap = a;
        a = b;
        b = swap;
    }
    GC_TRY(classify(c, &a, &b, keep, out, &p));
    labels all = p.batch;
    for (int32_t i = 0; i < p.rows.n + p.cols.n; i++) {
        all.at[all.n++] = i < p.rows.n ? p.rows.at[i] : p.cols.at[i - p.rows.n];
        if (all.n > GC_TERM_DIMS) {
            return GRADCAM_E_LIMIT;
        }
    }
    GC_TRY(dense(c, &all, y, &count));
    GC_TRY(as_matrix(c, &a, &p.batch, &p.rows, &p.inner, &p.a_row, &p.a_col));
    GC_TRY(as_matrix(c, &b, &p.batch, &p.inner, &p.cols, &p.b_row, &p.b_col));
    if (out == NULL || !same_term(y, out)) {
        GC_TRY(take(c, count, &to));
    }
    y->data = to;
    return multiply(c, &p, &a, &b, to);
}

gc_status gc_contract(gc_contraction *c, int32_t n, const gc_term *terms, const gc_term *out, float *dst)
{
    gc_term acc = terms[0];
    for (int32_t i = 1; i < n; i++) {
        uint64_t keep = mask_of(out);
        gc_term y = acc;
        for (int32_t k = i + 1; k < n; k++) {
            keep |= mask_of(&terms[k]);
        }
        GC_TRY(pair(c, acc, terms[i], keep, i == n - 1 ? out : NULL, dst, &y));
        acc = y;
    }
    GC_TRY(reduce(c, &acc, ~mask_of(out)));
    if (c->work != NULL && acc.data != dst) {
        copy(c, &acc, out, dst);
    }
    return GRADCAM_OK;
}
