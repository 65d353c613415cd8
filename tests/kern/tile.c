/* SPDX-License-Identifier: MIT */
/* The matrix tile: every number of rows and columns, segments of any place and
   length, every combination of the epilogue. */
#include "check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SEGMENTS = 9, MOST = 16 * 32 };

typedef struct sums {
    double sum[MOST], size[MOST];
} sums;

static int64_t width_of(const gc_kern *k, int32_t cols)
{
    return (cols + k->vl - 1) / k->vl * k->vl;
}

/* The contract of kern.h, word for word. */
static void expected(const gc_kern *k, const gc_tile *t, sums *s)
{
    for (int32_t i = 0; i < t->rows; i++) {
        for (int32_t j = 0; j < t->cols; j++) {
            double sum = 0.0, size = 0.0;
            for (int64_t n = 0; n < t->n_segments * t->length; n++) {
                int64_t offset = t->segments != NULL ? t->segments[n / t->length] : 0;
                double product = (double)t->a[i * t->a_step + offset + n % t->length] *
                                 (double)t->b[n * width_of(k, t->cols) + j];
                sum += product;
                size += fabs(product);
            }
            s->sum[i * t->cols + j] = check_finish(&t->epi, sum, j, i * t->epi.residual_step + j, &size);
            s->size[i * t->cols + j] = size;
        }
    }
}

/* Columns of b that are only padding may hold anything. */
static float *make_b(const gc_kern *k, const gc_tile *t)
{
    int64_t width = width_of(k, t->cols), depth = t->n_segments * t->length;
    float *b = check_random_buffer(depth * width);
    for (int64_t n = 0; n < depth * width; n++) {
        b[n] = n % width < t->cols ? b[n] : NAN;
    }
    return b;
}

static void verify(const gc_tile *t, const sums *want)
{
    int wrong = 0, beside = 0;
    for (int64_t n = 0; n < (t->rows - 1) * t->c_step + t->cols; n++) {
        int64_t i = n / t->c_step, j = n % t->c_step, at = i * t->cols + j;
        if (j >= t->cols) {
            beside += !check_is_marked(t->c[n]);
        } else if (!check_near(t->c[n], want->sum[at], (double)(t->n_segments * t->length + 2), want->size[at])) {
            wrong++;
        }
    }
    check_that(wrong == 0, "wrong sums");
    check_that(beside == 0, "written between the rows");
}

static void one(const gc_kern *k, int32_t rows, int32_t cols)
{
    static sums want;
    int64_t segments[SEGMENTS], reach = 0;
    gc_tile t;
    memset(&t, 0, sizeof t);
    t.rows = rows;
    t.cols = cols;
    t.n_segments = check_between(1, SEGMENTS);
    t.length = check_between(1, check_chance(4) ? 70 : 9);
    for (int64_t g = 0; g < t.n_segments; g++) {
        segments[g] = check_between(0, 60);
        reach = segments[g] > reach ? segments[g] : reach;
    }
    bool only = check_chance(4);
    t.n_segments = only ? 1 : t.n_segments;
    t.segments = only ? NULL : segments;
    reach = only ? 0 : reach;
    t.a_step = check_between(1, 80);
    t.c_step = check_between(cols, cols + 20);
    check_case("tile %dx%d, %d segments of %d, steps %d and %d", (int)rows, (int)cols, (int)t.n_segments, (int)t.length,
               (int)t.a_step, (int)t.c_step);
    float *a = check_random_buffer((rows - 1) * t.a_step + reach + t.length);
    if (check_chance(8)) { /* must not reach other rows */
        a[check_between(0, (rows - 1) * t.a_step + reach + t.length - 1)] = check_chance(2) ? NAN : INFINITY;
    }
    t.a = a;
    t.b = make_b(k, &t);
    int64_t floats = (rows - 1) * t.c_step + cols;
    t.c = check_marked_buffer(floats);
    /* A product that is added to: the residual is the result itself. */
    bool same = check_chance(4);
    int64_t step = same ? t.c_step : check_between(cols, cols + 20);
    check_epilogue(&t.epi, k->nr, (rows - 1) * step + cols, same ? t.c : NULL);
    t.epi.residual_step = step;
    if (same && t.epi.residual != NULL) {
        for (int64_t n = 0; n < floats; n++) {
            t.c[n] = n % t.c_step < cols ? t.c[n] : check_mark;
        }
    }
    expected(k, &t, &want);
    k->tile(&t);
    verify(&t, &want);
    check_intact();
}

void check_tile(const gc_kern *k)
{
    int each = check_rounds(8);
    check_case("the table");
    check_that(k->mr * k->nr <= MOST && k->nr % k->vl == 0 && k->nr <= 32 && k->mr <= 14,
               "sizes that the callers know");
    for (int64_t step = 1; step <= 4096; step++) {
        int32_t rows = gc_kern_tile_rows(k, step);
        if (rows < 1 || rows > k->mr) {
            check_fail("gc_kern_tile_rows: %d rows of %d", (int)rows, (int)k->mr);
        }
    }
    for (int32_t rows = 1; rows <= k->mr; rows++) {
        for (int32_t cols = 1; cols <= k->nr; cols++) {
            for (int i = 0; i < each; i++) {
                one(k, rows, cols);
            }
        }
    }
}
