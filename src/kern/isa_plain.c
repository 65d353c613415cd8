/* SPDX-License-Identifier: MIT */
/* The reference: no extensions, no vectors. */
#include <string.h>

#include "kern/isa.h"

/* 2^k, k being the low bits of t = 1.5 * 2^23 + k. */
static float pow2_of(float t)
{
    uint32_t bits;
    memcpy(&bits, &t, sizeof bits);
    bits = (bits + 127u) << 23;
    memcpy(&t, &bits, sizeof t);
    return t;
}

#define TARGET
#define VL 1
#define NV 2
#define MR 6
#define V float
#define LD(p) (*(const float *)(p))
#define ST(p, x) (*(float *)(p) = (x))
#define BC(x) (x)
#define VLT(a, b) ((a) < (b))
#define VEQ(a, b) ((a) == (b))
#define VNE(a, b) ((a) != (b))
#define VAND(a, b) ((a) && (b))
#define VOR(a, b) ((a) || (b))
#define VM int
#define POW2(t) pow2_of(t)
#define VSEL(m, a, b) ((m) ? (a) : (b))
#define ROW gc_kern_plain
#define ROW_NAME "plain"
#include "kern/isa_body.h"
