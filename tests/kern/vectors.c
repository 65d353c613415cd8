/* SPDX-License-Identifier: MIT */
/* Products with one vector, functions of one value, maxima. */
#include "check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- dots and axpys ---- */

static void one_dots(const gc_kern *k)
{
    int64_t rows = check_between(1, 9), n = check_between(1, 70), step = n + check_between(0, 5);
    int wrong = 0;
    check_case("dots of %d rows of %d", (int)rows, (int)n);
    const float *x = check_random_buffer(n), *w = check_random_buffer((rows - 1) * step + n);
    float *y = check_marked_buffer(rows);
    k->dots(x, w, step, rows, n, y);
    for (int64_t r = 0; r < rows; r++) {
        double sum = 0.0, size = 0.0;
        for (int64_t p = 0; p < n; p++) {
            double term = (double)x[p] * (double)w[r * step + p];
            sum += term;
            size += fabs(term);
        }
        wrong += !check_near(y[r], sum, (double)n, size);
    }
    check_that(wrong == 0, "wrong sums");
    check_intact();
}

static void one_axpys(const gc_kern *k)
{
    int64_t rows = check_between(1, 11), n = check_between(1, 70), step = n + check_between(0, 5);
    int64_t factor_step = check_between(1, 4);
    int wrong = 0;
    check_case("axpys of %d rows of %d", (int)rows, (int)n);
    float *factor = check_random_buffer((rows - 1) * factor_step + 1), *w = check_random_buffer((rows - 1) * step + n);
    float *y = check_random_buffer(n), *before = check_buffer(n, 1);
    memcpy(before, y, (size_t)n * sizeof *y);
    for (int64_t r = 0; r < rows; r++) {
        if (check_chance(3)) { /* such a row is not looked at */
            factor[r * factor_step] = check_chance(2) ? 0.0f : -0.0f;
            w[r * step + check_between(0, n - 1)] = check_chance(2) ? NAN : INFINITY;
        }
    }
    k->axpys(factor, factor_step, w, step, rows, n, y);
    for (int64_t p = 0; p < n; p++) {
        double sum = (double)before[p], size = fabs(sum);
        for (int64_t r = 0; r < rows; r++) {
            double f = (double)factor[r * factor_step], term = f == 0.0 ? 0.0 : f * (double)w[r * step + p];
            sum += term;
            size += fabs(term);
        }
        wrong += !check_near(y[p], sum, (double)(rows + 1), size);
    }
    check_that(wrong == 0, "wrong sums");
    check_intact();
}

/* ---- functions ---- */

double check_function(int kind, double x)
{
    switch (kind) {
    case GC_MAP_EXP: return exp(x);
    case GC_MAP_SIGMOID: return 1.0 / (1.0 + exp(-x));
    case GC_MAP_SILU: return x / (1.0 + exp(-x));
    case GC_MAP_TANH: return tanh(x);
    case GC_MAP_ERF: return erf(x);
    case GC_MAP_HARD_SWISH: return x * fmin(fmax(x / 6.0 + 0.5, 0.0), 1.0);
    case GC_MAP_MISH: return x * tanh(log1p(exp(x)));
    case GC_MAP_GELU_TANH: return 0.5 * x * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
    default: return 0.5 * x * erfc(-x * sqrt(0.5));
    }
}

/* x f'(x) is 0 at infinity, which the formulas do not see. */
static double derivative(int kind, double x)
{
    double root = sqrt(2.0 / acos(-1.0)), b = fmax(-100.0, fmin(100.0, x)), t, s = 1.0 / (1.0 + exp(-b));
    switch (kind) {
    case GC_MAP_ERF: return sqrt(2.0) * root * exp(-x * x);
    case GC_MAP_SILU: return s + b * s * (1.0 - s);
    case GC_MAP_HARD_SWISH: return x <= -3.0 ? 0.0 : x < 3.0 ? x / 3.0 + 0.5 : 1.0;
    case GC_MAP_MISH: t = tanh(log1p(exp(b))); return t + b * s * (1.0 - t * t);
    case GC_MAP_GELU_TANH:
        t = tanh(root * (b + 0.044715 * b * b * b));
        return 0.5 * (1.0 + t) + 0.5 * b * (1.0 - t * t) * root * (1.0 + 3.0 * 0.044715 * b * b);
    default: return 0.5 * erfc(-b * sqrt(0.5)) + 0.5 * b * root * exp(-0.5 * b * b);
    }
}

/* The bound of kern.h.  Zero times infinity is no number: SiLU and the like where x
   is -infinity. */
static bool good_value(int kind, float x, float y)
{
    bool factor = kind >= GC_MAP_GELU;
    double want = check_function(kind, (double)x), size = fabs(want);
    if (x != x || (isinf(x) && x < 0 && factor)) {
        return y != y;
    }
    if (size > 3.4028234e38) {
        return isinf(y) || (double)y > 3.402e38;
    }
    if (kind == GC_MAP_HARD_SWISH || (factor && kind != GC_MAP_SILU && x < 0)) {
        size = fabs((double)x);
    }
    return fabs((double)y - want) <= (kind == GC_MAP_ERF ? 5e-7 : 4e-7) * size + ldexp(1.0, -119);
}

static const float edges[] = {
    0.0f,     -0.0f,  1e-45f,  -1e-45f, 1e-38f,   1.17549435e-38f, 1e-30f,  0.64f,      -0.64f,     0.96f,
    -0.96f,   4.0f,   -4.0f,   5.6f,    -5.6f,    87.3f,           -87.3f,  -87.31f,    88.0f,      88.72283f,
    88.7229f, -88.0f, -103.0f, 104.0f,  -1000.0f, 1000.0f,         3.4e38f, -3.4e38f,   INFINITY,   -INFINITY,
    NAN,      1.0f,   9.0f,    -9.0f,   -0.7f,    -16.0f,          16.0f,   0.3465736f, -0.3465736f};
enum { EDGES = sizeof edges / sizeof *edges };

static float sample(int64_t i)
{
    if (i < EDGES) {
        return edges[i];
    }
    uint32_t bits = check_random();
    float any;
    memcpy(&any, &bits, sizeof any);
    int64_t which = check_between(0, 3);
    return which == 0 ? any : which == 1 ? 100.0f * check_value() : which == 2 ? 8.0f * check_value() : check_value();
}

static void one_map(const gc_kern *k, int kind, int64_t n, bool in_place)
{
    int wrong = 0;
    check_case("function %d of %d values", kind, (int)n);
    float *x = check_buffer(n, 1), *y = in_place ? x : check_marked_buffer(n), *copy = check_buffer(n, 1);
    for (int64_t i = 0; i < n; i++) {
        copy[i] = x[i] = n > 100 ? sample(i) : sample(check_between(0, 2 * EDGES));
    }
    k->map(kind, 1, n, x, y, 0);
    for (int64_t i = 0; i < n; i++) {
        if (!good_value(kind, copy[i], y[i])) {
            check_fail("f(%.9g) is %.9g instead of %.9g", (double)copy[i], (double)y[i],
                       check_function(kind, (double)copy[i]));
            wrong++;
        }
    }
    check_that(wrong == 0, "wrong values");
    check_intact();
}

static void one_slope(const gc_kern *k, int kind, int64_t n, bool in_place)
{
    int wrong = 0;
    check_case("derivative of function %d of %d values", kind, (int)n);
    float *x = check_buffer(n, 1), *g = check_random_buffer(n), *copy = check_buffer(n, 1);
    float *y = in_place ? g : check_marked_buffer(n);
    for (int64_t i = 0; i < n; i++) {
        x[i] = n > 100 ? sample(i) : sample(check_between(0, 2 * EDGES));
    }
    memcpy(copy, g, (size_t)n * sizeof *g);
    k->slope(kind, n, x, g, y);
    for (int64_t i = 0; i < n; i++) {
        double want = derivative(kind, (double)x[i]), by = (double)copy[i];
        bool good = x[i] != x[i] ? y[i] != y[i] : fabs((double)y[i] - by * want) <= 5e-7 * fabs(by);
        if (!good) {
            check_fail("f'(%.9g) is %.9g instead of %.9g", (double)x[i], (double)y[i] / by, want);
            wrong++;
        }
    }
    check_that(wrong == 0, "wrong values");
    check_intact();
}

/* ---- rows ---- */

/* Sums are taken over runs of so many elements. */
enum { RUN = 1024 };

static double roundings(int64_t n)
{
    return (double)(n < RUN ? n : RUN) + 7.0;
}

static void one_moment(const gc_kern *k)
{
    int64_t n = check_between(1, check_chance(6) ? 3 * RUN : 200);
    int32_t power = (int32_t)check_between(1, 2);
    float shift = check_value();
    double sum = 0.0, size = 0.0;
    check_case("moment %d of %d values", (int)power, (int)n);
    const float *x = check_random_buffer(n);
    for (int64_t i = 0; i < n; i++) {
        double d = (double)x[i] - (double)shift;
        sum += power == 2 ? d * d : d;
        size += power == 2 ? d * d : fabs(d);
    }
    check_that(check_near((float)k->moment(n, x, shift, power), sum, roundings(n), size), "wrong sum");
    check_intact();
}

/* Errors of both exponential functions, of the differences that they are taken
   of, and of the sum. */
static void one_softmax(const gc_kern *k)
{
    int64_t n = check_between(1, check_chance(6) ? 3 * RUN : 100), wrong = 0;
    float scale = check_chance(2) ? 1.0f : 30.0f;
    double top = -INFINITY, total = 0.0, u = ldexp(1.0, -24);
    check_case("softmax of %d values", (int)n);
    float *x = check_random_buffer(n), *copy = check_buffer(n, 1), *y = check_chance(2) ? x : check_marked_buffer(n);
    bool nan = check_chance(8);
    for (int64_t i = 0; i < n; i++) {
        copy[i] = x[i] *= scale;
        top = (double)x[i] > top ? (double)x[i] : top;
    }
    int64_t spoilt = check_between(0, n - 1);
    copy[spoilt] = x[spoilt] = nan ? NAN : x[spoilt];
    for (int64_t i = 0; i < n; i++) {
        total += exp((double)copy[i] - top);
    }
    k->softmax(n, x, y);
    for (int64_t i = 0; i < n; i++) {
        double want = exp((double)copy[i] - top) / total, range = 4.0 * (double)scale;
        wrong += nan ? y[i] == y[i]
                     : fabs((double)y[i] - want) > want * (8e-7 + (range + roundings(n)) * u) + ldexp(1.0, -119);
    }
    check_that(wrong == 0, "wrong values");
    check_intact();
}

void check_vectors(const gc_kern *k)
{
    for (int i = 0; i < check_rounds(600); i++) {
        one_dots(k);
        one_axpys(k);
        one_moment(k);
        one_softmax(k);
    }
    for (int kind = GC_MAP_EXP; kind <= GC_MAP_HARD_SWISH; kind++) {
        one_map(k, kind, check_rounds(200000), kind % 2 == 0);
        for (int i = 0; i < check_rounds(100); i++) {
            one_map(k, kind, check_between(1, 2 * k->vl + 1), check_chance(2));
        }
    }
    for (int kind = GC_MAP_ERF; kind <= GC_MAP_HARD_SWISH; kind++) {
        one_slope(k, kind, check_rounds(200000), kind % 2 == 0);
        for (int i = 0; i < check_rounds(100); i++) {
            one_slope(k, kind, check_between(1, 2 * k->vl + 1), check_chance(2));
        }
    }
}

/* ---- maxima ---- */

enum { MAX_TAPS = CHECK_SLOTS - 2 };

static void one_max(const gc_kern *k)
{
    static const float few[] = {-1.0f, 0.0f, -0.0f, 1.0f, NAN, INFINITY, -INFINITY};
    const float *taps[MAX_TAPS];
    int64_t count = check_between(1, MAX_TAPS), channels = check_between(1, 5 * k->vl);
    int most = (int)check_between(1, 6), wrong = 0; /* often without NaN */
    check_case("the largest of %d taps, %d channels", (int)count, (int)channels);
    for (int64_t t = 0; t < count; t++) {
        float *p = check_random_buffer(channels);
        for (int64_t c = 0; c < channels; c++) {
            p[c] = check_chance(2) ? few[check_between(0, most)] : p[c];
        }
        taps[t] = p;
    }
    float *y = check_marked_buffer(channels);
    int32_t *arg = check_chance(3) ? NULL : (int32_t *)(void *)check_buffer(channels, 1);
    k->max_taps(taps, count, channels, y, arg);
    for (int64_t c = 0; c < channels; c++) {
        int64_t best = 0;
        for (int64_t t = 1; t < count; t++) {
            float v = taps[t][c], b = taps[best][c];
            best = b == b && (v != v || v > b) ? t : best;
        }
        float want = taps[best][c]; /* which of two zeros it is, nobody says */
        wrong += (want != want ? y[c] == y[c] : y[c] != want) || (arg != NULL && arg[c] != best);
    }
    check_that(wrong == 0, "wrong maxima");
    check_intact();
}

void check_max(const gc_kern *k)
{
    for (int i = 0; i < check_rounds(800); i++) {
        one_max(k);
    }
}
