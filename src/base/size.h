/* SPDX-License-Identifier: MIT */
/* Checked size arithmetic, and the smaller and the larger of two. */
#ifndef GC_BASE_SIZE_H
#define GC_BASE_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* *r = a * b for a, b >= 0; false on overflow of int64_t. */
static inline bool gc_mul_ok(int64_t a, int64_t b, int64_t *r)
{
    if (a < 0 || b < 0 || (b != 0 && a > INT64_MAX / b)) {
        return false;
    }
    *r = a * b;
    return true;
}

/* *r = a + b; false on overflow. */
static inline bool gc_add_ok(int64_t a, int64_t b, int64_t *r)
{
    if ((b > 0 && a > INT64_MAX - b) || (b < 0 && a < INT64_MIN - b)) {
        return false;
    }
    *r = a + b;
    return true;
}

#endif
