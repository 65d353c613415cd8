/* SPDX-License-Identifier: MIT */
/* Copies and sums of blocks with any strides, sparse matrices along an axis. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "kern/copy.h"
#include "kern/resample.h"

enum { DIMS = 6 };

/* One side of a copy: strides of either sign, and where element 0 lies. */
typedef struct block {
    int64_t strides[DIMS], zero, elements;
} block;

/* A permuted, gapped layout; `repeats`: some strides are 0. */
static void choose_block(int32_t ndim, const int64_t *shape, bool repeats, block *b)
{
    int32_t order[DIMS];
    int64_t step = check_between(1, 2);
    memset(b, 0, sizeof *b);
    for (int32_t i = 0; i < ndim; i++) {
        int32_t at = (int32_t)check_between(0, i);
        order[i] = order[at];
        order[at] = i;
    }
    b->elements = 1;
    for (int32_t i = 0; i < ndim; i++) {
        int64_t n = shape[order[i]], stride = step;
        if (repeats && check_chance(4)) {
            continue;
        }
        step = step * n + (check_chance(3) ? check_between(0, 3) : 0);
        if (n > 0) {
            b->elements += (n - 1) * stride;
            b->zero += check_chance(4) ? (stride = -stride, -(n - 1) * stride) : 0;
        }
        b->strides[order[i]] = stride;
    }
}

static int64_t offset_of(int32_t ndim, const int64_t *shape, const block *b, int64_t index)
{
    int64_t at = b->zero;
    for (int32_t i = ndim - 1; i >= 0; i--) {
        at += index % shape[i] * b->strides[i];
        index /= shape[i];
    }
    return at;
}

static int64_t choose_shape(int32_t ndim, int64_t *shape)
{
    int64_t n = 1;
    for (int32_t i = 0; i < ndim; i++) {
        shape[i] = check_chance(40) ? 0 : check_between(1, check_chance(6) ? 20 : 5);
        n *= shape[i];
    }
    return n;
}

static unsigned char *byte_buffer(int64_t bytes)
{
    return (unsigned char *)(void *)check_random_buffer((bytes + 3) / 4);
}

static void one_copy(void)
{
    static const size_t sizes[4] = {1, 2, 4, 8};
    int64_t shape[DIMS], wrong = 0;
    int32_t ndim = (int32_t)check_between(0, DIMS);
    size_t size = sizes[check_between(0, 3)];
    bool fill = check_chance(4);
    block d, s;
    int64_t n = choose_shape(ndim, shape);
    choose_block(ndim, shape, false, &d);
    choose_block(ndim, shape, true, &s);
    check_case("%s of rank %d, %d elements of %d bytes", fill ? "fill" : "copy", (int)ndim, (int)n, (int)size);
    unsigned char *dst = byte_buffer(d.elements * (int64_t)size), *want = byte_buffer(d.elements * (int64_t)size);
    unsigned char *src = byte_buffer(s.elements * (int64_t)size);
    memcpy(want, dst, (size_t)d.elements * size);
    for (int64_t i = 0; i < n; i++) {
        int64_t from = fill ? 0 : offset_of(ndim, shape, &s, i);
        memcpy(want + offset_of(ndim, shape, &d, i) * (int64_t)size, src + from * (int64_t)size, size);
    }
    if (fill) {
        gc_fill_nd(ndim, shape, dst + d.zero * (int64_t)size, d.strides, src, size);
    } else {
        gc_copy_nd(ndim, shape, dst + d.zero * (int64_t)size, d.strides, src + s.zero * (int64_t)size, s.strides, size);
    }
    wrong = memcmp(dst, want, (size_t)d.elements * size);
    check_that(wrong == 0, "wrong bytes");
    check_intact();
}

/* dst may repeat, too: then it is a sum over that dimension. */
static void one_add(void)
{
    double sum[4096], size[4096];
    int64_t shape[DIMS], terms[4096] = {0}, wrong = 0, n;
    int32_t ndim = (int32_t)check_between(0, 4);
    block d, s;
    do {
        n = choose_shape(ndim, shape);
        choose_block(ndim, shape, true, &d);
        choose_block(ndim, shape, true, &s);
    } while (d.elements > 4096);
    check_case("sum of rank %d, %d elements into %d", (int)ndim, (int)n, (int)d.elements);
    float *dst = check_random_buffer(d.elements), *src = check_random_buffer(s.elements);
    for (int64_t i = 0; i < d.elements; i++) {
        sum[i] = (double)dst[i];
        size[i] = fabs(sum[i]);
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t at = offset_of(ndim, shape, &d, i);
        sum[at] += (double)src[offset_of(ndim, shape, &s, i)];
        size[at] += fabs((double)src[offset_of(ndim, shape, &s, i)]);
        terms[at]++;
    }
    gc_add_nd(ndim, shape, dst + d.zero, d.strides, src + s.zero, s.strides);
    for (int64_t i = 0; i < d.elements; i++) {
        wrong += !check_near(dst[i], sum[i], (double)terms[i] + 1, size[i]);
    }
    check_that(wrong == 0, "wrong sums");
    check_intact();
}

void check_copy(void)
{
    for (int i = 0; i < check_rounds(4000); i++) {
        one_copy();
        one_add();
    }
}

/* ---- resampling ---- */

enum { ROWS = 40, TAPS = 6 };

static void choose_matrix(gc_resample *m, int64_t rows, int64_t cols)
{
    m->rows = rows;
    m->cols = cols;
    m->start[0] = 0;
    for (int64_t r = 0; r < rows; r++) {
        m->start[r + 1] = m->start[r];
        for (int64_t taps = check_between(0, TAPS - 1); taps > 0; taps--) {
            m->index[m->start[r + 1]] = (int32_t)check_between(0, cols - 1);
            m->weight[m->start[r + 1]++] = check_chance(3) ? 1.0f : check_value();
        }
    }
}

/* y of one element from the definition; `transposed`: the matrix the other way. */
static double element(const gc_resample *m, bool transposed, int64_t row, int64_t inner, const float *x, double *size,
                      int64_t *terms)
{
    double sum = 0.0;
    *size = 0.0;
    *terms = 0;
    for (int64_t r = 0; r < m->rows; r++) {
        for (int64_t k = m->start[r]; k < m->start[r + 1]; k++) {
            if ((transposed ? m->index[k] : r) == row) {
                double term = (double)m->weight[k] * (double)x[(transposed ? r : m->index[k]) * inner];
                sum += term;
                *size += fabs(term);
                ++*terms;
            }
        }
    }
    return sum;
}

static void apply(const gc_ctx *ctx, const gc_resample *m, bool transposed, const gc_resample *used, int64_t outer,
                  int64_t inner)
{
    int64_t wrong = 0, plane = used->cols * inner;
    const float *x = check_random_buffer(outer * plane);
    float *y = check_marked_buffer(outer * used->rows * inner);
    check_that(gc_resample_apply(ctx, used, outer, inner, x, y) == GRADCAM_OK, "fails");
    for (int64_t i = 0; i < outer * used->rows * inner; i++) {
        double size;
        int64_t terms, o = i / inner / used->rows;
        double want = element(m, transposed, i / inner % used->rows, inner, x + o * plane + i % inner, &size, &terms);
        wrong += !check_near(y[i], want, (double)terms, size);
    }
    check_that(wrong == 0, transposed ? "wrong numbers, transposed" : "wrong numbers");
}

void check_resample(const gc_ctx *ctx)
{
    int64_t start[ROWS + 1], other[ROWS + 1];
    int32_t index[ROWS * TAPS], other_index[ROWS * TAPS];
    float weight[ROWS * TAPS], other_weight[ROWS * TAPS];
    gc_resample m = {0, 0, start, index, weight}, back = {0, 0, other, other_index, other_weight};
    for (int i = 0; i < check_rounds(200); i++) {
        int64_t rows = check_between(1, ROWS), cols = check_between(1, ROWS), outer = check_between(1, 3);
        int64_t inner = check_chance(2) ? 1 : check_chance(10) ? check_between(1000, 2100) : check_between(1, 40);
        check_case("resample %d to %d, %d outer, %d inner", (int)cols, (int)rows, (int)outer, (int)inner);
        choose_matrix(&m, rows, cols);
        gc_resample_transpose(&m, &back);
        apply(ctx, &m, false, &m, outer, inner);
        apply(ctx, &m, true, &back, outer, inner);
        check_intact();
    }
}
