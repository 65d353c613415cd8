/* SPDX-License-Identifier: MIT */
#include "ops/live.h"

#include <stdbool.h>

enum { RUN = 64 };

static bool is_zero(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += RUN) {
        int64_t end = n - i < RUN ? n : i + RUN;
        bool any = false;
        for (int64_t k = i; k < end; k++) {
            any |= x[k] != 0.0f; /* NaN is something */
        }
        if (any) {
            return false;
        }
    }
    return true;
}

int64_t gc_live_rows(const float *x, int64_t rows, int64_t n, int64_t *count)
{
    int64_t first = 0, last = rows;
    while (last > 0 && is_zero(x + (last - 1) * n, n)) {
        last--;
    }
    while (first < last && is_zero(x + first * n, n)) {
        first++;
    }
    *count = last - first;
    return first;
}
