/* SPDX-License-Identifier: MIT */
#include "kern/copy.h"

#include <stdbool.h>
#include <string.h>

typedef struct nd_plan {
    int32_t n;
    int64_t shape[GC_COPY_DIMS];
    int64_t d[GC_COPY_DIMS];
    int64_t s[GC_COPY_DIMS];
} nd_plan;

typedef void (*row_fn)(char *d, int64_t ds, const char *s, int64_t ss, int64_t n);

enum { SHORT_ROW = 8 };

static int64_t magnitude(int64_t d, int64_t s)
{
    int64_t v = d != 0 ? d : s;
    return v < 0 ? -v : v;
}

/* Keeps the dimensions longer than one, longest stride of dst first, so that
   the innermost loop writes neighbours whatever the layout. */
static bool sort_dims(nd_plan *p, int32_t ndim, const int64_t *shape, const int64_t *ds, const int64_t *ss)
{
    p->n = 0;
    for (int32_t i = 0; i < ndim; i++) {
        if (shape[i] <= 0) {
            return false;
        }
        if (shape[i] == 1) {
            continue;
        }
        int32_t k = p->n++;
        for (; k > 0 && magnitude(p->d[k - 1], p->s[k - 1]) < magnitude(ds[i], ss[i]); k--) {
            p->shape[k] = p->shape[k - 1];
            p->d[k] = p->d[k - 1];
            p->s[k] = p->s[k - 1];
        }
        p->shape[k] = shape[i];
        p->d[k] = ds[i];
        p->s[k] = ss[i];
    }
    return true;
}

/* Joins neighbours that step through both blocks without a jump. */
static void coalesce(nd_plan *p)
{
    int32_t m = 0;
    for (int32_t i = 1; i < p->n; i++) {
        if (p->d[m] == p->d[i] * p->shape[i] && p->s[m] == p->s[i] * p->shape[i]) {
            p->shape[m] *= p->shape[i];
        } else {
            m++;
            p->shape[m] = p->shape[i];
        }
        p->d[m] = p->d[i];
        p->s[m] = p->s[i];
    }
    if (p->n == 0) {
        p->shape[0] = 1;
        p->d[0] = 1;
        p->s[0] = 1;
    }
    p->n = m + 1;
}

/* Row i of n elements begins at element i of the source: pixels from planes of
   channels.  Rows of three, the colours, become vectors. */
static void rows_copy4(const nd_plan *p, char *restrict d, const char *restrict s)
{
    int64_t rows = p->shape[p->n - 2], step = 4 * p->d[p->n - 2], n = p->shape[p->n - 1], plane = 4 * p->s[p->n - 1];
    if (n == 3 && step == 12) {
        for (int64_t i = 0; i < rows; i++) {
            memcpy(d + i * 12, s + i * 4, 4);
            memcpy(d + i * 12 + 4, s + plane + i * 4, 4);
            memcpy(d + i * 12 + 8, s + 2 * plane + i * 4, 4);
        }
        return;
    }
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t k = 0; k < n; k++) {
            memcpy(d + i * step + k * 4, s + i * 4 + k * plane, 4);
        }
    }
}

static bool has_short_rows(const nd_plan *p, size_t size)
{
    return size == 4 && p->n >= 2 && p->shape[p->n - 1] <= SHORT_ROW && p->d[p->n - 1] == 1 && p->s[p->n - 2] == 1;
}

/* `row` NULL: short rows, two loops at once. */
static void walk(const nd_plan *p, char *d, const char *s, int64_t size, row_fn row)
{
    int64_t pos[GC_COPY_DIMS] = {0};
    int32_t last = p->n - (row == NULL ? 2 : 1);
    for (;;) {
        if (row == NULL) {
            rows_copy4(p, d, s);
        } else {
            row(d, p->d[last], s, p->s[last], p->shape[last]);
        }
        int32_t k = last - 1;
        while (k >= 0 && ++pos[k] == p->shape[k]) {
            d -= (p->shape[k] - 1) * p->d[k] * size;
            s -= (p->shape[k] - 1) * p->s[k] * size;
            pos[k--] = 0;
        }
        if (k < 0) {
            return;
        }
        d += p->d[k] * size;
        s += p->s[k] * size;
    }
}

static void row_copy1(char *d, int64_t ds, const char *s, int64_t ss, int64_t n)
{
    if (ds == 1 && ss == 1) {
        memcpy(d, s, (size_t)n);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        d[i * ds] = s[i * ss];
    }
}

/* memcpy of a constant size compiles to one move and is safe for every type. */
static void row_copy2(char *d, int64_t ds, const char *s, int64_t ss, int64_t n)
{
    if (ds == 1 && ss == 1) {
        memcpy(d, s, (size_t)n * 2);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        memcpy(d + i * ds * 2, s + i * ss * 2, 2);
    }
}

static void row_copy4(char *d, int64_t ds, const char *s, int64_t ss, int64_t n)
{
    if (ds == 1 && ss == 1) {
        memcpy(d, s, (size_t)n * 4);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        memcpy(d + i * ds * 4, s + i * ss * 4, 4);
    }
}

static void row_copy8(char *d, int64_t ds, const char *s, int64_t ss, int64_t n)
{
    if (ds == 1 && ss == 1) {
        memcpy(d, s, (size_t)n * 8);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        memcpy(d + i * ds * 8, s + i * ss * 8, 8);
    }
}

static void row_add(char *dc, int64_t ds, const char *sc, int64_t ss, int64_t n)
{
    float *d = (float *)(void *)dc;
    const float *s = (const float *)(const void *)sc;
    if (ds == 0) { /* a long sum: keep it exact */
        double sum = 0.0;
        for (int64_t i = 0; i < n; i++) {
            sum += (double)s[i * ss];
        }
        *d += (float)sum;
    } else if (ds == 1 && ss == 1) {
        for (int64_t i = 0; i < n; i++) {
            d[i] += s[i];
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            d[i * ds] += s[i * ss];
        }
    }
}

void gc_copy_nd(int32_t ndim, const int64_t *shape, void *dst, const int64_t *dst_strides, const void *src,
                const int64_t *src_strides, size_t size)
{
    nd_plan p;
    if (!sort_dims(&p, ndim, shape, dst_strides, src_strides)) {
        return;
    }
    coalesce(&p);
    row_fn row = size == 1 ? row_copy1 : size == 2 ? row_copy2 : size == 4 ? row_copy4 : row_copy8;
    walk(&p, dst, src, (int64_t)size, has_short_rows(&p, size) ? NULL : row);
}

void gc_add_nd(int32_t ndim, const int64_t *shape, float *dst, const int64_t *dst_strides, const float *src,
               const int64_t *src_strides)
{
    nd_plan p;
    if (!sort_dims(&p, ndim, shape, dst_strides, src_strides)) {
        return;
    }
    coalesce(&p);
    walk(&p, (char *)(void *)dst, (const char *)(const void *)src, (int64_t)sizeof(float), row_add);
}

void gc_fill_nd(int32_t ndim, const int64_t *shape, void *dst, const int64_t *dst_strides, const void *value,
                size_t size)
{
    static const int64_t none[GC_COPY_DIMS] = {0};
    gc_copy_nd(ndim, shape, dst, dst_strides, value, none, size);
}
