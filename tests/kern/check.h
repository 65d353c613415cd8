/* SPDX-License-Identifier: MIT */
/* What the parts of the kernel checker share: random numbers, buffers between
   guard pages, and verdicts with bounds that follow from the arithmetic. */
#ifndef GRADCAM_KERN_CHECK_H
#define GRADCAM_KERN_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/ctx.h"
#include "kern/half.h"

/* ---- random numbers: the same on every machine ---- */

void check_seed(uint32_t seed);
uint32_t check_random(void);
int64_t check_between(int64_t lo, int64_t hi); /* both may come */
bool check_chance(int64_t one_in);
float check_value(void); /* in [-1, 1) */
/* How many cases of `n` this run does, at least 1: after check_few an eighth. */
int check_rounds(int n);
void check_few(void);

/* ---- buffers ---- */

enum { CHECK_SLOTS = 24 };

/* Forgets the buffers of the case before and names the new one, as printf. */
void check_case(const char *format, ...);
/* A new buffer of this case: uninitialised but for a pattern, its end at an
   unreadable page or, every other time, its begin behind one.  `align` in floats. */
float *check_buffer(int64_t floats, int64_t align);
/* The same full of check_value(), or of one value that nothing computes. */
float *check_random_buffer(int64_t floats);
float *check_marked_buffer(int64_t floats);
extern const float check_mark;
bool check_is_marked(float x);
/* Fails the case when something was written beside a buffer. */
void check_intact(void);

/* ---- verdicts ---- */

/* Begins a section of the checks: they count one by one, failures are told. */
void check_row(const char *row);
void check_fail(const char *format, ...);
void check_that(bool ok, const char *what);
/* want computed in double; the sum of the magnitudes of its `n` terms and
   products is `size`: |got - want| <= n u / (1 - n u) size, u = 2^-24, and n
   times the least denormal.  NaN and infinity must be the same. */
bool check_near(float got, double want, double n, double size);
/* The same after one of GC_MAP_*: what happened before grows by its slope at most. */
bool check_near_mapped(int kind, float got, double want, double n, double size);
double check_function(int kind, double x);
/* The same rounded to bfloat16; kind -1: no function. */
bool check_near_half(int kind, float got, double want, double n, double size);
gc_bf16 check_narrow(float x);
float check_widen(gc_bf16 x);
/* The closing line and the exit code. */
int check_end(void);

/* ---- the epilogue ---- */

/* A random choice: bias of `bias` floats, residual of `residual` floats or that
   pointer itself, clip. */
void check_epilogue(gc_epilogue *epi, int64_t bias, int64_t residual, float *in_place);
/* sum of `size` magnitudes, then bias, residual at `at`, clip. */
double check_finish(const gc_epilogue *epi, double sum, int64_t channel, int64_t at, double *size);

/* ---- the parts ---- */

void check_tile(const gc_kern *k);
void check_winograd(const gc_kern *k);
void check_depthwise(const gc_kern *k);
void check_vectors(const gc_kern *k);
void check_max(const gc_kern *k);
void check_gemm(const gc_ctx *ctx);
void check_conv(const gc_ctx *one, const gc_ctx *many);
void check_attend(const gc_ctx *few, const gc_ctx *many, const gc_half *half);
void check_half(const gc_ctx *one, const gc_ctx *many, const gc_half *half);
void check_half_conv(const gc_ctx *one, const gc_ctx *many, const gc_half *half);
void check_copy(void);
void check_resample(const gc_ctx *ctx);
/* Times everything of a row. */
void check_time(const gc_ctx *ctx);
/* Times the convolutions of two networks, by direct sums and as chosen. */
void check_layers(const gc_ctx *ctx, int threads);

/* Winograd's matrices for m x m results, from the interpolation points. */
typedef struct check_wino {
    int m, size;
    double in[6][6], weights[6][3], out[4][6];
} check_wino;
void check_wino_matrices(int m, check_wino *w);

#endif
