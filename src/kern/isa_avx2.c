/* SPDX-License-Identifier: MIT */
#include "base/compiler.h"
#include "kern/isa.h"
#ifdef GC_HAVE_X86
#include <immintrin.h>
typedef float vec __attribute__((vector_size(32), aligned(4), may_alias));
typedef int vec_mask __attribute__((vector_size(32)));
#define TARGET GC_TARGET_AVX2
#define VL 8
#define NV 2
#define MR 6
#define V vec
#define LD(p) (*(const vec *)(p))
#define ST(p, x) (*(vec *)(p) = (x))
#define BC(x) ((x) - (vec){0})
#define VLT(a, b) ((vec_mask)((a) < (b)))
#define VEQ(a, b) ((vec_mask)((a) == (b)))
#define VNE(a, b) ((vec_mask)((a) != (b)))
#define VAND(a, b) ((a) & (b))
#define VOR(a, b) ((a) | (b))
#define VM vec_mask
/* 127 + k in the place of the exponent. */
#define POW2(t) ((vec)(((vec_mask)(t) + 127) << 23))
#define VMAX(a, b) ((vec)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define VMIN(a, b) ((vec)_mm256_min_ps((__m256)(a), (__m256)(b)))
/* The exponent changes its sign, and nearly so the mantissa. */
#define RECIP_SEED(d) ((vec)(0x7EF311C7 - (vec_mask)(d)))
#define VSEL(m, a, b) ((vec)(((m) & (vec_mask)(a)) | (~(m) & (vec_mask)(b))))
#define ROW gc_kern_avx2
#define ROW_NAME "avx2"
#include "kern/isa_body.h"
#endif
