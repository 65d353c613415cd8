/* SPDX-License-Identifier: MIT */
/* The kernels of bfloat16.  Factors are rounded here by arithmetic, so that what
   is left are the roundings of float32 sums, and one of the result where that is
   bfloat16. */
#include "check.h"

#include <math.h>
#include <string.h>

/* The nearest number with 8 significant bits, ties to even, by way of the exponent. */
gc_bf16 check_narrow(float x)
{
    uint32_t bits;
    if (isfinite(x) && x != 0.0f) {
        int exponent;
        frexp((double)x, &exponent);
        x = (float)ldexp(nearbyint(ldexp((double)x, 8 - exponent)), exponent - 8);
    }
    memcpy(&bits, &x, sizeof bits);
    return (gc_bf16)(bits >> 16);
}

float check_widen(gc_bf16 x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

bool check_near_half(int kind, float got, double want, double n, double size)
{
    double y = kind >= 0 ? check_function(kind, want) : want, u = ldexp(1.0, -24);
    if (y != y) {
        return got != got;
    }
    if (isinf(want) || isinf(size)) {
        return fabs((double)got - y) <= ldexp(fabs(y), -8) || (double)got == y;
    }
    double before = n * u / (1.0 - n * u) * size, slack = before;
    if (kind >= 0) {
        slack = 1.5 * before + 4e-7 * (fabs(y) + fabs(want) + before) + ldexp(1.0, -119);
    }
    return fabs((double)got - y) <= slack + ldexp(fabs(y) + slack, -8) + ldexp(1.0, -126);
}

/* Numbers of all magnitudes but denormal ones, which the machine may take for zero. */
static float any_normal(void)
{
    uint32_t bits = check_random();
    float x;
    memcpy(&x, &bits, sizeof x);
    return x == 0.0f || fabsf(x) >= 1.2e-38f || x != x ? x : 1.0f;
}

static void check_rounding(const gc_half *half)
{
    for (int round = 0; round < check_rounds(200); round++) {
        int64_t n = check_between(1, 70), wrong = 0;
        check_case("rounding of %d", (int)n);
        float *x = check_buffer(n, 1), *back = check_buffer(n, 1);
        gc_bf16 *y = (gc_bf16 *)(void *)check_buffer((n + 1) / 2, 1) + n % 2;
        for (int64_t i = 0; i < n; i++) {
            x[i] = any_normal();
        }
        half->narrow(n, x, y);
        half->widen(n, y, back);
        for (int64_t i = 0; i < n; i++) {
            bool same = y[i] == check_narrow(x[i]) && back[i] == check_widen(y[i]);
            wrong += !(x[i] != x[i] ? back[i] != back[i] : same);
        }
        check_that(wrong == 0, "wrong numbers");
        check_intact();
    }
}

static void few_rows(const gc_ctx *one, const gc_ctx *many, const gc_half *half)
{
    gc_half_rows r = {check_between(1, 3), check_between(1, check_chance(4) ? 2100 : 150), check_between(1, 100), 1, 1};
    bool by_columns = check_chance(2), add = check_chance(2);
    *(by_columns ? &r.b_col : &r.b_row) = by_columns ? r.k : r.n;
    check_case("%d rows, %d to %d%s%s", (int)r.m, (int)r.k, (int)r.n, by_columns ? ", by columns" : "",
               add ? ", added" : "");
    float *a = check_random_buffer(r.m * r.k), *b = check_random_buffer(r.k * r.n), *c = check_random_buffer(r.m * r.n);
    float *got = check_buffer(r.m * r.n, 1), *again = check_buffer(r.m * r.n, 1);
    gc_bf16 *narrow = (gc_bf16 *)(void *)check_buffer((r.k * r.n + 1) / 2, 1) + r.k * r.n % 2;
    int64_t wrong = 0;
    a[check_between(0, r.m * r.k - 1)] = 0.0f;
    memcpy(got, c, (size_t)(r.m * r.n) * sizeof *c);
    memcpy(again, c, (size_t)(r.m * r.n) * sizeof *c);
    check_that(gc_half_narrow(one, half, r.k * r.n, b, narrow) == GRADCAM_OK, "fails");
    check_that(gc_half_few_rows(one, half, &r, a, narrow, add, got) == GRADCAM_OK, "fails");
    check_that(gc_half_few_rows(many, half, &r, a, narrow, add, again) == GRADCAM_OK, "fails with many workers");
    for (int64_t i = 0; i < r.m * r.n; i++) {
        double sum = add ? (double)c[i] : 0.0, size = fabs(sum);
        for (int64_t p = 0; p < r.k; p++) {
            double w = (double)check_widen(check_narrow(b[p * r.b_row + i % r.n * r.b_col]));
            sum += (double)a[i / r.n * r.k + p] * w;
            size += fabs((double)a[i / r.n * r.k + p] * w);
        }
        wrong += !check_near(got[i], sum, (double)(r.k + 2), size);
    }
    check_that(wrong == 0, "wrong numbers");
    check_that(memcmp(got, again, (size_t)(r.m * r.n) * sizeof *got) == 0, "many workers give other bits than one");
    check_intact();
}

static void maxima(const gc_half *half)
{
    const gc_bf16 *taps[9];
    int64_t count = check_between(0, 9), n = check_between(1, 70), wrong = 0;
    check_case("maximum of %d, %d channels", (int)count, (int)n);
    for (int64_t t = 0; t < count; t++) {
        gc_bf16 *x = (gc_bf16 *)(void *)check_buffer((n + 1) / 2, 1) + n % 2;
        for (int64_t i = 0; i < n; i++) { /* a NaN of either sign now and then */
            x[i] = check_chance(40) ? (gc_bf16)(0x7fc0 | (check_random() & 0x8001)) : check_narrow(any_normal());
        }
        taps[t] = x;
    }
    gc_bf16 *y = (gc_bf16 *)(void *)check_buffer((n + 1) / 2, 1) + n % 2;
    half->max_taps(taps, count, n, y);
    for (int64_t i = 0; i < n; i++) {
        float best = -INFINITY, got = check_widen(y[i]);
        for (int64_t t = 0; t < count; t++) {
            float x = check_widen(taps[t][i]);
            best = x > best || x != x ? x : best;
            best = best != best ? NAN : best;
        }
        wrong += !(best != best ? got != got : got == best);
    }
    check_that(wrong == 0, "wrong numbers");
    check_intact();
}

static void means(const gc_half *half)
{
    const gc_bf16 *taps[9];
    int64_t count = check_between(0, 9), n = check_between(1, 70), wrong = 0;
    float divisor = (float)check_between(1, 9);
    check_case("mean of %d, %d channels", (int)count, (int)n);
    for (int64_t t = 0; t < count; t++) {
        gc_bf16 *x = (gc_bf16 *)(void *)check_buffer((n + 1) / 2, 1) + n % 2;
        for (int64_t i = 0; i < n; i++) {
            x[i] = check_narrow(check_value());
        }
        taps[t] = x;
    }
    gc_bf16 *y = (gc_bf16 *)(void *)check_buffer((n + 1) / 2, 1) + n % 2;
    half->mean_taps(taps, count, n, divisor, y);
    for (int64_t i = 0; i < n; i++) {
        double sum = 0.0, size = 0.0;
        for (int64_t t = 0; t < count; t++) {
            sum += (double)check_widen(taps[t][i]) / (double)divisor;
            size += fabs((double)check_widen(taps[t][i]) / (double)divisor);
        }
        wrong += !check_near_half(-1, check_widen(y[i]), sum, (double)(count + 1), size);
    }
    check_that(wrong == 0, "wrong numbers");
    check_intact();
}

static void affine(const gc_half *half)
{
    int64_t n = check_between(1, 70), wrong = 0;
    gc_half_affine a = {NULL, NULL, -0.3f, check_chance(2) ? INFINITY : 0.4f, check_chance(2), check_chance(2)};
    check_case("%d channels from %s to %s", (int)n, a.x_half ? "bfloat16" : "float32",
               a.y_half ? "bfloat16" : "float32");
    a.factor = check_random_buffer(n);
    a.shift = check_random_buffer(n);
    float *x = check_random_buffer(n), *y = check_buffer(n, 1);
    gc_bf16 *narrow_x = (gc_bf16 *)(void *)check_buffer((n + 1) / 2, 1) + n % 2;
    gc_bf16 *narrow_y = (gc_bf16 *)(void *)check_buffer((n + 1) / 2, 1) + n % 2;
    half->narrow(n, x, narrow_x);
    half->affine(&a, n, a.x_half ? (const void *)narrow_x : x, a.y_half ? (void *)narrow_y : y);
    for (int64_t i = 0; i < n; i++) {
        double product = (double)a.factor[i] * (double)(a.x_half ? check_widen(narrow_x[i]) : x[i]);
        double want = product + (double)a.shift[i], size = fabs(product) + fabs((double)a.shift[i]);
        want = want < (double)a.lo ? (double)a.lo : want > (double)a.hi ? (double)a.hi : want;
        wrong += !(a.y_half ? check_near_half(-1, check_widen(narrow_y[i]), want, 2.0, size)
                            : check_near(y[i], want, 2.0, size));
    }
    check_that(wrong == 0, "wrong numbers");
    check_intact();
}

void check_half(const gc_ctx *one, const gc_ctx *many, const gc_half *half)
{
    check_rounding(half);
    for (int i = 0; i < check_rounds(200); i++) {
        few_rows(one, many, half);
    }
    for (int i = 0; i < check_rounds(200); i++) {
        maxima(half);
        means(half);
        affine(half);
    }
    check_half_conv(one, many, half);
}
