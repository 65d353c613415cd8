/* SPDX-License-Identifier: MIT */
/* Element-wise conversion between types and strides. */
#include <string.h>

#include "base/status.h"
#include "tensor/tensor.h"

static float bits_to_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t float_to_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, fraction = h & 1023u;
    if (exponent == 0) {
        float f = (float)fraction * 5.9604644775390625e-8f; /* 2^-24 */
        return sign ? -f : f;
    }
    uint32_t biased = exponent == 31 ? 255u : exponent + 112u;
    return bits_to_float(sign | biased << 23 | fraction << 13);
}

/* Round to nearest even. */
static uint16_t float_to_half(float f)
{
    uint32_t bits = float_to_bits(f), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00u);
    }
    if (magnitude >= 0x477ff000u) {
        return (uint16_t)(sign | 0x7c00u);
    }
    if (magnitude < 0x38800000u) { /* subnormal: adding 0.5 aligns the fraction */
        float shifted = bits_to_float(magnitude) + 0.5f;
        return (uint16_t)(sign | (float_to_bits(shifted) - 0x3f000000u));
    }
    uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u;
    return (uint16_t)(sign | rounded >> 13);
}

static uint16_t float_to_bf16(float f)
{
    uint32_t bits = float_to_bits(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 0x40u);
    }
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static double load_float(const void *p, gc_dtype dtype)
{
    uint16_t h;
    switch (dtype) {
    case GRADCAM_F32: return (double)*(const float *)p;
    case GRADCAM_F64: return *(const double *)p;
    case GRADCAM_F16: memcpy(&h, p, 2); return (double)half_to_float(h);
    case GRADCAM_BF16: memcpy(&h, p, 2); return (double)bits_to_float((uint32_t)h << 16);
    default: return 0.0;
    }
}

static int64_t load_int(const void *p, gc_dtype dtype)
{
    switch (dtype) {
    case GRADCAM_I64: return *(const int64_t *)p;
    case GRADCAM_I32: return *(const int32_t *)p;
    default: return *(const uint8_t *)p;
    }
}

static bool is_float(gc_dtype dtype)
{
    return dtype <= GRADCAM_BF16;
}

/* Truncates towards zero; NaN gives 0, what does not fit the nearest bound. */
static int64_t clamp_to_int(double v, gc_dtype dtype)
{
    double low = dtype == GRADCAM_I64 ? -9223372036854775808.0 : dtype == GRADCAM_I32 ? -2147483648.0 : 0.0;
    double high = dtype == GRADCAM_I64 ? 9223372036854774784.0 : dtype == GRADCAM_I32 ? 2147483647.0 : 255.0;
    if (!(v == v)) {
        return 0;
    }
    return (int64_t)(v < low ? low : v > high ? high : v);
}

static void store_float(void *p, gc_dtype dtype, double v)
{
    uint16_t h;
    switch (dtype) {
    case GRADCAM_F32: *(float *)p = (float)v; break;
    case GRADCAM_F64: *(double *)p = v; break;
    case GRADCAM_F16:
        h = float_to_half((float)v);
        memcpy(p, &h, 2);
        break;
    default:
        h = float_to_bf16((float)v);
        memcpy(p, &h, 2);
        break;
    }
}

static void store_int(void *p, gc_dtype dtype, int64_t v)
{
    switch (dtype) {
    case GRADCAM_I64: *(int64_t *)p = v; break;
    case GRADCAM_I32: *(int32_t *)p = (int32_t)v; break;
    case GRADCAM_U8: *(uint8_t *)p = (uint8_t)v; break;
    default: *(uint8_t *)p = v != 0; break;
    }
}

static void convert_element(const void *src, gc_dtype from, void *dst, gc_dtype to)
{
    if (is_float(to)) {
        store_float(dst, to, is_float(from) ? load_float(src, from) : (double)load_int(src, from));
    } else if (is_float(from) && to == GRADCAM_BOOL) {
        store_int(dst, to, load_float(src, from) != 0.0);
    } else {
        store_int(dst, to, is_float(from) ? clamp_to_int(load_float(src, from), to) : load_int(src, from));
    }
}

/* One run along the last dimension. */
static void convert_row(const gc_tensor *src, int64_t s, gc_tensor *dst, int64_t d, int64_t n)
{
    int32_t last = src->ndim - 1;
    int64_t ss = src->ndim > 0 ? src->strides[last] : 1, ds = dst->ndim > 0 ? dst->strides[last] : 1;
    if (src->dtype == GRADCAM_F32 && dst->dtype == GRADCAM_F32) {
        const float *from = (const float *)src->data + s;
        float *to = (float *)dst->data + d;
        for (int64_t i = 0; i < n; i++) {
            to[i * ds] = from[i * ss];
        }
        return;
    }
    int64_t from_size = (int64_t)gc_dtype_size(src->dtype), to_size = (int64_t)gc_dtype_size(dst->dtype);
    for (int64_t i = 0; i < n; i++) {
        convert_element((const char *)src->data + (s + i * ss) * from_size, src->dtype,
                        (char *)dst->data + (d + i * ds) * to_size, dst->dtype);
    }
}

void gc_tensor_convert(const gc_tensor *src, gc_tensor *dst)
{
    int64_t index[GRADCAM_MAX_DIMS] = {0}, s = 0, d = 0, total = gc_numel(src);
    int64_t n = src->ndim > 0 ? src->shape[src->ndim - 1] : 1;
    for (int64_t done = 0; done < total; done += n) {
        convert_row(src, s, dst, d, n);
        for (int32_t i = src->ndim - 2; i >= 0; i--) {
            s += src->strides[i];
            d += dst->strides[i];
            if (++index[i] < src->shape[i]) {
                break;
            }
            s -= src->strides[i] * index[i];
            d -= dst->strides[i] * index[i];
            index[i] = 0;
        }
    }
}

gc_status gc_tensor_copy(const gc_tensor *src, gc_tensor *dst, gc_error *err)
{
    if (src == NULL || dst == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_tensor_copy: an argument is NULL");
    }
    if (!gc_same_shape(src, dst)) {
        return gc_fail(err, GRADCAM_E_SHAPE, "gc_tensor_copy: the shapes differ");
    }
    gc_tensor_convert(src, dst);
    return GRADCAM_OK;
}
