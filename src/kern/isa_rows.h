/* SPDX-License-Identifier: MIT */
/* Kernels over one row of numbers, included by isa_body.h.  Sums are taken in
   vectors over RUN elements and those sums added in double, so that the error
   does not grow with the length of the row. */

enum { RUN = 1024 };

/* Sum of (x - shift)^power over n <= RUN elements. */
TARGET static GC_ALWAYS_INLINE float moment_run(int64_t n, const float *x, V shift, const int power)
{
    V sum[4] = {BC(0.0f), BC(0.0f), BC(0.0f), BC(0.0f)};
    int64_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL) {
        GC_UNROLL(4)
        for (int k = 0; k < 4; k++) {
            V d = LD(x + i + k * VL) - shift;
            if (power == 2) {
                d = d * d;
            }
            sum[k] += d;
        }
    }
    for (; i + VL <= n; i += VL) {
        V d = LD(x + i) - shift;
        if (power == 2) {
            d = d * d;
        }
        sum[0] += d;
    }
    float rest = 0.0f, by[VL];
    ST(by, shift);
    for (; i < n; i++) {
        float d = x[i] - by[0];
        rest += power == 2 ? d * d : d;
    }
    return sum_of((sum[0] + sum[1]) + (sum[2] + sum[3])) + rest;
}

TARGET static double moment(int64_t n, const float *x, float shift, int32_t power)
{
    double total = 0.0;
    V by = BC(shift);
    for (int64_t i = 0; i < n; i += RUN) {
        int64_t run = n - i < RUN ? n - i : RUN;
        total += (double)(power == 2 ? moment_run(run, x + i, by, 2) : moment_run(run, x + i, by, 1));
    }
    return total;
}

/* NaN is not seen: it comes through exp. */
TARGET static GC_ALWAYS_INLINE float largest_of(int64_t n, const float *x)
{
    float top = x[0], part[VL];
    int64_t i = 0;
    if (n >= VL) {
        V best = LD(x);
        for (i = VL; i + VL <= n; i += VL) {
            best = VMAX(LD(x + i), best);
        }
        ST(part, best);
        GC_UNROLL(5)
        for (int half = VL / 2; half > 0; half /= 2) {
            GC_UNROLL(8)
            for (int k = 0; k < half; k++) {
                part[k] = part[k + half] > part[k] ? part[k + half] : part[k];
            }
        }
        top = part[0] > top ? part[0] : top;
    }
    for (; i < n; i++) {
        top = x[i] > top ? x[i] : top;
    }
    return top;
}

/* exp(x - shift) for shift >= x. */
TARGET static GC_ALWAYS_INLINE V weight_of(const float *x, V shift)
{
    V d = LD(x) - shift;
    return VSEL(VLT(d, BC(-87.3f)), BC(0.0f), exp_inside(VMAX(BC(-87.3f), d)));
}

TARGET static float soften(int64_t n, float *x, float *top)
{
    float most = largest_of(n, x);
    *top = most > *top ? most : *top;
    V shift = BC(*top == -INFINITY ? 0.0f : *top), even = BC(0.0f), odd = BC(0.0f);
    int64_t i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        V e = weight_of(x + i, shift), f = weight_of(x + i + VL, shift);
        ST(x + i, e);
        ST(x + i + VL, f);
        even += e;
        odd += f;
    }
    if (i < n) {
        V e = weight_of(x + i, shift);
        ST(x + i, e);
        even += e;
    }
    return sum_of(even + odd);
}

/* The largest value is taken off first, so that exp cannot overflow. */
TARGET static void softmax(int64_t n, const float *x, float *y)
{
    V top = BC(largest_of(n, x));
    double total = 0.0;
    for (int64_t first = 0; first < n; first += RUN) {
        int64_t last = n - first < RUN ? n : first + RUN, i = first;
        V sum = BC(0.0f);
        for (; i + VL <= last; i += VL) {
            V e = exp_of(LD(x + i) - top);
            ST(y + i, e);
            sum += e;
        }
        total += (double)sum_of(sum);
        if (i < last) {
            store_part(y + i, exp_of(load_part(x + i, last - i) - top), last - i);
            for (; i < last; i++) {
                total += (double)y[i];
            }
        }
    }
    float scale = (float)(1.0 / total);
    for (int64_t i = 0; i < n; i++) {
        y[i] *= scale;
    }
}
