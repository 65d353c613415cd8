/* SPDX-License-Identifier: MIT */
#include "base/compiler.h"
#include "kern/isa.h"
#ifdef GC_HAVE_VECTORS
typedef float vec __attribute__((vector_size(16), aligned(4), may_alias));
typedef int vec_mask __attribute__((vector_size(16)));
#define TARGET
#define VL 4
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
/* The exponent changes its sign, and nearly so the mantissa. */
#define RECIP_SEED(d) ((vec)(0x7EF311C7 - (vec_mask)(d)))
#define VSEL(m, a, b) ((vec)(((m) & (vec_mask)(a)) | (~(m) & (vec_mask)(b))))
#define ROW gc_kern_v4
#define ROW_NAME "v4"
#include "kern/isa_body.h"
#endif
