/* SPDX-License-Identifier: MIT */
#include "base/compiler.h"
#include "kern/isa.h"
#ifdef GC_HAVE_X86
#include <immintrin.h>
typedef float vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int vec_mask __attribute__((vector_size(64)));
#define TARGET GC_TARGET_AVX512
#define VL 16
#define NV 2
#define MR 14
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
#define VMAX(a, b) ((vec)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define VMIN(a, b) ((vec)_mm512_min_ps((__m512)(a), (__m512)(b)))
#define RECIP_NEAR(d) ((vec)_mm512_rcp14_ps((__m512)(d)))
#define VSCALE(x, n) ((vec)_mm512_scalef_ps((__m512)(x), (__m512)(n)))
#define VSEL(m, a, b) ((vec)(((m) & (vec_mask)(a)) | (~(m) & (vec_mask)(b))))
#define ROW gc_kern_avx512
#define ROW_NAME "avx512"
#include "kern/isa_body.h"
#endif
