/* SPDX-License-Identifier: MIT */
/* Winograd's transforms, included by isa_body.h. */

/* ---- Winograd F(4x4, 3x3), points 0, a, -a, b, -b, infinity with a = 3/4 and
   b = 3/2: half the error of 1 and 2 with the same even and odd structure.
   Lavin and Gray 2016; input rows are the products of the other factors. ---- */

#define WA 0.75f
#define WB 1.5f
#define WA2 (WA * WA)
#define WB2 (WB * WB)

TARGET static GC_ALWAYS_INLINE void in4(const V *d, int from, V *t, int to)
{
    V d0 = d[0], d1 = d[from], d2 = d[2 * from], d3 = d[3 * from], d4 = d[4 * from], d5 = d[5 * from];
    V a = d4 - BC(WB2) * d2, b = BC(WA) * (d3 - BC(WB2) * d1);
    V c = d4 - BC(WA2) * d2, e = BC(WB) * (d3 - BC(WA2) * d1);
    t[0] = BC(WA2 * WB2) * d0 - BC(WA2 + WB2) * d2 + d4;
    t[to] = a + b;
    t[2 * to] = a - b;
    t[3 * to] = c + e;
    t[4 * to] = c - e;
    t[5 * to] = BC(WA2 * WB2) * d1 - BC(WA2 + WB2) * d3 + d5;
}

TARGET static GC_ALWAYS_INLINE void out4(const V *m, int from, V *y, int to)
{
    V s1 = m[from] + m[2 * from], d1 = m[from] - m[2 * from];
    V s2 = m[3 * from] + m[4 * from], d2 = m[3 * from] - m[4 * from];
    y[0] = m[0] + s1 + s2;
    y[to] = BC(WA) * d1 + BC(WB) * d2;
    y[2 * to] = BC(WA2) * s1 + BC(WB2) * s2;
    y[3 * to] = BC(WA2 * WA) * d1 + BC(WB2 * WB) * d2 + m[5 * from];
}

TARGET static GC_ALWAYS_INLINE void in2(const V *d, int from, V *t, int to)
{
    t[0] = d[0] - d[2 * from];
    t[to] = d[from] + d[2 * from];
    t[2 * to] = d[2 * from] - d[from];
    t[3 * to] = d[3 * from] - d[from];
}

TARGET static GC_ALWAYS_INLINE void out2(const V *m, int from, V *y, int to)
{
    y[0] = m[0] + m[from] + m[2 * from];
    y[to] = m[from] - m[2 * from] + m[3 * from];
}

/* size: m + 2. */
TARGET static GC_ALWAYS_INLINE void wino_in(const gc_wino_tile *t, const int size)
{
    for (int64_t c = 0; c < t->channels; c += VL) {
        V d[6][6], e[6];
        GC_UNROLL(6)
        for (int x = 0; x < size; x++) {
            V column[6];
            GC_UNROLL(6)
            for (int y = 0; y < size; y++) {
                column[y] = LD(t->from + y * t->line + x * t->pixel + c);
            }
            if (size == 6) {
                in4(column, 1, &d[0][x], 6);
            } else {
                in2(column, 1, &d[0][x], 6);
            }
        }
        GC_UNROLL(6)
        for (int y = 0; y < size; y++) {
            if (size == 6) {
                in4(d[y], 1, e, 1);
            } else {
                in2(d[y], 1, e, 1);
            }
            GC_UNROLL(6)
            for (int x = 0; x < size; x++) {
                ST(t->to + (y * size + x) * t->plane + c, e[x]);
            }
        }
    }
}

TARGET static GC_ALWAYS_INLINE void wino_store(const gc_wino_tile *t, int64_t c, int y, const V *values, const int m)
{
    V bias = load_or_zero(t->epi.bias, c);
    V lo = BC(t->epi.lo), hi = BC(t->epi.hi);
    GC_UNROLL(4)
    for (int x = 0; x < m; x++) {
        if (x < t->cols) {
            V v = values[x] + bias;
            if (t->epi.residual != NULL) {
                v += LD(t->epi.residual + y * t->residual_line + x * t->residual_pixel + c);
            }
            ST(t->to + y * t->line + x * t->pixel + c, (t->epi.flags & GC_EPI_CLIP) != 0 ? clip(v, lo, hi) : v);
        }
    }
}

TARGET static GC_ALWAYS_INLINE void wino_out(const gc_wino_tile *t, const int size)
{
    for (int64_t c = 0; c < t->channels; c += VL) {
        V d[4][6], e[4];
        GC_UNROLL(6)
        for (int x = 0; x < size; x++) {
            V column[6];
            GC_UNROLL(6)
            for (int y = 0; y < size; y++) {
                column[y] = LD(t->from + (y * size + x) * t->plane + c);
            }
            if (size == 6) {
                out4(column, 1, &d[0][x], 6);
            } else {
                out2(column, 1, &d[0][x], 6);
            }
        }
        GC_UNROLL(4)
        for (int y = 0; y < size - 2; y++) {
            if (size == 6) {
                out4(d[y], 1, e, 1);
            } else {
                out2(d[y], 1, e, 1);
            }
            if (y < t->rows) {
                wino_store(t, c, y, e, size - 2);
            }
        }
    }
}

TARGET static void wino4_in(const gc_wino_tile *t)
{
    wino_in(t, 6);
}

TARGET static void wino4_out(const gc_wino_tile *t)
{
    wino_out(t, 6);
}

TARGET static void wino2_in(const gc_wino_tile *t)
{
    wino_in(t, 4);
}

TARGET static void wino2_out(const gc_wino_tile *t)
{
    wino_out(t, 4);
}
