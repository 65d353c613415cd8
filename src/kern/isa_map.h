/* SPDX-License-Identifier: MIT */
/* Functions of one value in vectors, included by isa_body.h. */

/* ---- functions of one value; polynomials fitted to the relative error ---- */

/* 2^n (1 + r + r^2 q(r)) with y = n ln 2 + r; relative error below 2^-22 for
   -86.98 <= y <= 88.72283, zero for smaller y. */
TARGET static GC_ALWAYS_INLINE V exp_inside(V y)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: the sum's low bits are the rounded n */
    V t = y * BC(1.44269504f) + BC(magic - 1.0f);
    V n = t - BC(magic - 1.0f);
    V r = y - n * BC(0.693359375f) - n * BC(-2.12194440e-4f);
    V q = BC(1.381458966e-3f);
    q = q * r + BC(8.368713287e-3f);
    q = q * r + BC(4.166838793e-2f);
    q = q * r + BC(1.666652066e-1f);
    q = q * r + BC(4.999999345e-1f);
#ifdef VSCALE
    return VSCALE(q * r * r + r + BC(1.0f), n);
#else
    return (q * r * r + r + BC(1.0f)) * POW2(t) * BC(2.0f); /* 2^(n - 1) is finite for the largest n */
#endif
}

/* Below lie denormals and what is next to them, taken as zero; above infinity. */
TARGET static GC_ALWAYS_INLINE V exp_of(V x)
{
    V e = exp_inside(clip(x, BC(-87.3f), BC(88.72283f)));
    e = VSEL(VLT(x, BC(-87.3f)), BC(0.0f), e);
    e = VSEL(VLT(BC(88.72283f), x), BC(INFINITY), e);
    return VSEL(VNE(x, x), x, e);
}

/* 1 / d for 1 <= d < 2^126: a division takes longer than Newton's steps, each
   of which squares the error. */
TARGET static GC_ALWAYS_INLINE V recip_of(V d)
{
#if defined(RECIP_NEAR)
    V r = RECIP_NEAR(d);
    return r * (BC(2.0f) - d * r);
#elif defined(RECIP_SEED)
    V r = RECIP_SEED(d);
    r = r * (BC(2.0f) - d * r);
    r = r * (BC(2.0f) - d * r);
    return r * (BC(2.0f) - d * r);
#else
    return BC(1.0f) / d;
#endif
}

TARGET static GC_ALWAYS_INLINE V sigmoid_of(V x)
{
    V y = recip_of(BC(1.0f) + exp_inside(-clip(x, BC(-87.3f), BC(87.3f))));
    return VSEL(VLT(x, BC(-87.3f)), BC(0.0f), y);
}

TARGET static GC_ALWAYS_INLINE V tanh_of(V x)
{
    V a = VSEL(VLT(x, BC(0.0f)), -x, x), t = x * x;
    V p = BC(2.065941351e-3f);
    p = p * t + BC(-8.092878062e-3f);
    p = p * t + BC(2.166645405e-2f);
    p = p * t + BC(-5.394051958e-2f);
    p = p * t + BC(1.333315689e-1f);
    p = p * t + BC(-3.333332957e-1f);
    V far = BC(1.0f) - BC(2.0f) * recip_of(exp_inside(clip(a + a, BC(0.0f), BC(87.3f))) + BC(1.0f));
    V y = VSEL(VLT(a, BC(0.64f)), a + a * t * p, far);
    return VSEL(VLT(x, BC(0.0f)), -y, y);
}

/* x P(x^2) / Q(x^2) for |x| <= 4, beyond which erf is 1; the fit's relative error
   is below 7e-8. */
TARGET static GC_ALWAYS_INLINE V erf_of(V x)
{
    V b = clip(x, BC(-4.0f), BC(4.0f)), t = b * b;
    V p = BC(1.911088635659235e-8f);
    p = p * t + BC(-1.942282285242008e-6f);
    p = p * t + BC(1.4728063396149616e-4f);
    p = p * t + BC(3.990353246839974e-3f);
    p = p * t + BC(5.152421873015525e-2f);
    p = p * t + BC(2.071203091023526e-1f);
    p = p * t + BC(1.128379094208296e+0f);
    V q = BC(1.0210574088731924e-3f);
    q = q * t + BC(1.4957637741736285e-2f);
    q = q * t + BC(1.1796869305668618e-1f);
    q = q * t + BC(5.168868447868769e-1f);
    q = q * t + BC(1.0f);
    return clip(b * p * recip_of(q), BC(-1.0f), BC(1.0f));
}

/* 2 sqrt(2 / pi), and that times 0.044715: GELU's approximation is x sigmoid(A x + B x^3). */
#define GELU_A 1.59576912f
#define GELU_B 0.0713548163f

/* tanh(log(1 + e)) */
TARGET static GC_ALWAYS_INLINE V mish_gate(V e)
{
    V w = e * (e + BC(2.0f));
    return w * recip_of(w + BC(2.0f));
}

TARGET static GC_ALWAYS_INLINE V map_one(const int kind, V x)
{
    switch (kind) {
    case GC_MAP_EXP: return exp_of(x);
    case GC_MAP_SIGMOID: return sigmoid_of(x);
    case GC_MAP_SILU: return x * sigmoid_of(x);
    case GC_MAP_TANH: return tanh_of(x);
    case GC_MAP_ERF: return erf_of(x);
    case GC_MAP_GELU: return BC(0.5f) * x * (BC(1.0f) + erf_of(x * BC(0.70710678f)));
    case GC_MAP_GELU_TANH: return x * sigmoid_of(x * (BC(GELU_A) + BC(GELU_B) * x * x));
    case GC_MAP_MISH: return x * mish_gate(exp_of(VMIN(BC(20.0f), x)));
    default: /* GC_MAP_HARD_SWISH */ return x * clip(x * BC(1.0f / 6.0f) + BC(0.5f), BC(0.0f), BC(1.0f));
    }
}

/* d/dx of x sigmoid(u) where du is d/dx of u: with e = exp(-|u|) neither sigmoid nor
   1 - sigmoid cancels. */
TARGET static GC_ALWAYS_INLINE V gate_slope(V x, V u, V du)
{
    V e = exp_inside(clip(VSEL(VLT(u, BC(0.0f)), u, -u), BC(-87.3f), BC(0.0f)));
    V r = recip_of(BC(1.0f) + e);
    return VSEL(VLT(u, BC(0.0f)), e * r, r) + x * du * (e * r * r);
}

/* The derivative; where it has reached its limit, x is cut off. */
TARGET static GC_ALWAYS_INLINE V slope_one(const int kind, V x)
{
    V b, e, w, r;
    switch (kind) {
    case GC_MAP_ERF: return BC(1.12837917f) * exp_of(-(x * x));
    case GC_MAP_GELU:
        b = clip(x, BC(-13.0f), BC(13.0f));
        e = BC(0.39894228f) * exp_inside(b * b * BC(-0.5f));
        return b * e + (BC(0.5f) + BC(0.5f) * erf_of(b * BC(0.70710678f)));
    case GC_MAP_GELU_TANH:
        b = clip(x, BC(-9.0f), BC(9.0f));
        return gate_slope(b, b * (BC(GELU_A) + BC(GELU_B) * b * b), BC(GELU_A) + BC(3.0f * GELU_B) * b * b);
    case GC_MAP_SILU: b = clip(x, BC(-87.0f), BC(87.0f)); return gate_slope(b, b, BC(1.0f));
    case GC_MAP_MISH: /* t + x sigmoid(x) (1 - t^2) where t = w / (w + 2), w + 1 = (1 + e)^2 */
        b = clip(x, BC(-87.0f), BC(20.0f));
        e = exp_inside(b);
        w = e * (e + BC(2.0f));
        r = recip_of(w + BC(2.0f));
        return w * r + b * (BC(4.0f) * e * r) * ((BC(1.0f) + e) * r);
    default: /* GC_MAP_HARD_SWISH */
        b = VSEL(VLT(x, BC(3.0f)), x * BC(1.0f / 3.0f) + BC(0.5f), BC(1.0f));
        b = VSEL(VLT(BC(-3.0f), x), b, BC(0.0f));
        return VSEL(VNE(x, x), x, b);
    }
}

TARGET static GC_ALWAYS_INLINE void map_all(const int kind, int64_t rows, int64_t n, const float *x, float *y,
                                            int64_t step)
{
    for (int64_t r = 0; r < rows; r++, x += step, y += step) {
        int64_t i = 0;
        for (; i + VL <= n; i += VL) {
            ST(y + i, map_one(kind, LD(x + i)));
        }
        if (i < n) {
            store_part(y + i, map_one(kind, load_part(x + i, n - i)), n - i);
        }
    }
}

TARGET static void map(int32_t kind, int64_t rows, int64_t n, const float *x, float *y, int64_t step)
{
    switch (kind) {
    case GC_MAP_EXP: map_all(GC_MAP_EXP, rows, n, x, y, step); break;
    case GC_MAP_SIGMOID: map_all(GC_MAP_SIGMOID, rows, n, x, y, step); break;
    case GC_MAP_SILU: map_all(GC_MAP_SILU, rows, n, x, y, step); break;
    case GC_MAP_TANH: map_all(GC_MAP_TANH, rows, n, x, y, step); break;
    case GC_MAP_ERF: map_all(GC_MAP_ERF, rows, n, x, y, step); break;
    case GC_MAP_GELU: map_all(GC_MAP_GELU, rows, n, x, y, step); break;
    case GC_MAP_GELU_TANH: map_all(GC_MAP_GELU_TANH, rows, n, x, y, step); break;
    case GC_MAP_MISH: map_all(GC_MAP_MISH, rows, n, x, y, step); break;
    default: map_all(GC_MAP_HARD_SWISH, rows, n, x, y, step); break;
    }
}

TARGET static GC_ALWAYS_INLINE void slope_all(const int kind, int64_t n, const float *x, const float *g, float *y)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
        ST(y + i, LD(g + i) * slope_one(kind, LD(x + i)));
    }
    if (i < n) {
        store_part(y + i, load_part(g + i, n - i) * slope_one(kind, load_part(x + i, n - i)), n - i);
    }
}

TARGET static void slope(int32_t kind, int64_t n, const float *x, const float *g, float *y)
{
    switch (kind) {
    case GC_MAP_ERF: slope_all(GC_MAP_ERF, n, x, g, y); break;
    case GC_MAP_GELU: slope_all(GC_MAP_GELU, n, x, g, y); break;
    case GC_MAP_GELU_TANH: slope_all(GC_MAP_GELU_TANH, n, x, g, y); break;
    case GC_MAP_SILU: slope_all(GC_MAP_SILU, n, x, g, y); break;
    case GC_MAP_MISH: slope_all(GC_MAP_MISH, n, x, g, y); break;
    default: slope_all(GC_MAP_HARD_SWISH, n, x, g, y); break;
    }
}
