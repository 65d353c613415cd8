/* SPDX-License-Identifier: MIT */
/* The reference: no extensions, no vectors. */
#include "kern/isa.h"

#define TARGET
#define VL 1
#define NV 8
#define MR 4
#define V float
#define LD(p) (*(const float *)(p))
#define ST(p, x) (*(float *)(p) = (x))
#define BC(x) (x)
#define VLT(a, b) ((a) < (b))
#define VSEL(m, a, b) ((m) ? (a) : (b))
#define ROW gc_kern_plain
#define ROW_NAME "plain"
#include "kern/isa_body.h"
