/* SPDX-License-Identifier: MIT */
/* Winograd's transforms against matrices made from the interpolation points. */
#include "check.h"

#include <math.h>
#include <string.h>

/* ---- the matrices: Lavin and Gray 2016 by way of Toom and Cook ---- */

/* Coefficients of the product of (x - point) over all points but `left_out`. */
static void product(int n, const double *points, int left_out, double *c)
{
    int degree = 0;
    c[0] = 1.0;
    for (int i = 0; i < n; i++) {
        if (i == left_out) {
            continue;
        }
        c[++degree] = 0.0;
        for (int k = degree; k > 0; k--) {
            c[k] = c[k - 1] - points[i] * c[k];
        }
        c[0] *= -points[i];
    }
}

void check_wino_matrices(int m, check_wino *w)
{
    static const double points4[5] = {0.0, 0.75, -0.75, 1.5, -1.5}, points2[3] = {0.0, 1.0, -1.0};
    const double *points = m == 4 ? points4 : points2;
    int n = m + 1;
    memset(w, 0, sizeof *w);
    w->m = m;
    w->size = m + 2;
    for (int i = 0; i < n; i++) {
        double distance = 1.0;
        product(n, points, i, w->in[i]);
        for (int k = 0; k < n; k++) {
            distance *= k == i ? 1.0 : points[i] - points[k];
        }
        for (int k = 0; k < 3; k++) {
            w->weights[i][k] = pow(points[i], k) / distance;
        }
        for (int r = 0; r < m; r++) {
            w->out[r][i] = pow(points[i], r);
        }
    }
    product(n, points, -1, w->in[n]);
    w->weights[n][2] = 1.0;
    w->out[m - 1][n] = 1.0;
    /* F(2x2) has the other sign in its first row and the first row of the weights. */
    for (int k = 0; m == 2 && k < 4; k++) {
        w->in[0][k] = -w->in[0][k];
    }
    for (int k = 0; m == 2 && k < 3; k++) {
        w->weights[0][k] = -w->weights[0][k];
    }
}

/* ---- one tile ---- */

/* left[i][.] d right[j][.], and with all magnitudes. */
static double between(const double *left, const double *right, int n, const float *d, int64_t line, int64_t pixel,
                      double *size)
{
    double sum = 0.0;
    *size = 0.0;
    for (int y = 0; y < n; y++) {
        for (int x = 0; x < n; x++) {
            double term = left[y] * right[x] * (double)d[y * line + x * pixel];
            sum += term;
            *size += fabs(term);
        }
    }
    return sum;
}

/* Roundings of one pass: three sums of a term that is a product itself. */
enum { PASS = 4 };

static void one_in(const gc_kern *k, const check_wino *w)
{
    gc_wino_tile t;
    int wrong = 0, n = w->size;
    memset(&t, 0, sizeof t);
    t.channels = k->vl * check_between(1, 4);
    t.pixel = t.channels + check_between(0, 9);
    t.line = check_chance(4) ? t.channels : t.pixel * n + check_between(0, 30);
    t.plane = t.channels + check_between(0, 40);
    check_case("winograd %d in, %d channels", w->m, (int)t.channels);
    t.from = check_random_buffer((n - 1) * (t.line + t.pixel) + t.channels);
    t.to = check_marked_buffer((n * n - 1) * t.plane + t.channels);
    (w->m == 4 ? k->wino4_in : k->wino2_in)(&t);
    for (int64_t at = 0; at < (n * n - 1) * t.plane + t.channels; at++) {
        int64_t xi = at / t.plane, c = at % t.plane;
        double size,
            want = between(w->in[xi / n], w->in[xi % n], n, t.from + c * (c < t.channels), t.line, t.pixel, &size);
        wrong += c < t.channels ? !check_near(t.to[at], want, 2 * PASS, size) : !check_is_marked(t.to[at]);
    }
    check_that(wrong == 0, "wrong numbers");
    check_intact();
}

/* The pixel at `at` of the result, or what must have been left alone. */
static bool good_pixel(const check_wino *w, const gc_wino_tile *t, int64_t at)
{
    int64_t y = at / t->line, x = at % t->line / t->pixel, c = at % t->line % t->pixel;
    if (y >= t->rows || x >= t->cols || c >= t->channels) {
        return check_is_marked(t->to[at]);
    }
    double size, want = between(w->out[y], w->out[x], w->size, t->from + c, w->size * t->plane, t->plane, &size);
    want = check_finish(&t->epi, want, c, y * t->residual_line + x * t->residual_pixel + c, &size);
    return check_near(t->to[at], want, 2 * PASS + 2, size);
}

static void one_out(const gc_kern *k, const check_wino *w)
{
    gc_wino_tile t;
    int wrong = 0, n = w->size;
    memset(&t, 0, sizeof t);
    t.channels = k->vl * check_between(1, 4);
    t.plane = t.channels + check_between(0, 40);
    t.pixel = t.channels + check_between(0, 9);
    t.line = t.pixel * w->m + check_between(0, 30);
    t.rows = (int32_t)check_between(1, w->m);
    t.cols = (int32_t)check_between(1, w->m);
    t.residual_pixel = t.channels + check_between(0, 9);
    t.residual_line = t.residual_pixel * w->m + check_between(0, 30);
    check_case("winograd %d out, %d channels, %dx%d", w->m, (int)t.channels, (int)t.rows, (int)t.cols);
    t.from = check_random_buffer((n * n - 1) * t.plane + t.channels);
    int64_t floats = (t.rows - 1) * t.line + (t.cols - 1) * t.pixel + t.channels;
    t.to = check_marked_buffer(floats);
    check_epilogue(&t.epi, t.channels, (t.rows - 1) * t.residual_line + (t.cols - 1) * t.residual_pixel + t.channels,
                   NULL);
    (w->m == 4 ? k->wino4_out : k->wino2_out)(&t);
    for (int64_t at = 0; at < floats; at++) {
        wrong += !good_pixel(w, &t, at);
    }
    check_that(wrong == 0, "wrong numbers");
    check_intact();
}

void check_winograd(const gc_kern *k)
{
    check_wino w[2];
    check_wino_matrices(4, &w[0]);
    check_wino_matrices(2, &w[1]);
    for (int i = 0; i < check_rounds(200); i++) {
        one_in(k, &w[i % 2]);
        one_out(k, &w[i % 2]);
    }
}
