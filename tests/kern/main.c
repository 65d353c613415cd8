/* SPDX-License-Identifier: MIT */
/* Checks every kernel of every set that this machine can run against plain sums
   in double, in buffers between pages that cannot be touched.
     kern [--few] [--seed N] [FOLDER]   check; --few: an eighth of the cases
     kern --time                        GFLOP/s of each, and the share of the peak
     kern --layers THREADS              the convolutions of two networks likewise
     kern --list                        the sets of kernels
   FOLDER is what tests/check.sh gives to every test; nothing is written. */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static gc_ctx *context(const char *kernels, uint32_t n_threads)
{
    gc_ctx_options o;
    gc_ctx *ctx = NULL;
    gc_error err;
    memset(&o, 0, sizeof o);
    memset(&err, 0, sizeof err);
    o.kernels = kernels;
    o.n_threads = n_threads;
    if (gc_ctx_create(&o, &ctx, &err) != GRADCAM_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(2);
    }
    return ctx;
}

static void check_set(const char *name, uint32_t seed)
{
    gc_ctx *one = context(name, 1), *many = context(name, 3);
    const gc_kern *k = gc_kern_of(one);
    check_row(name);
    check_seed(seed);
    check_tile(k);
    check_winograd(k);
    check_depthwise(k);
    check_vectors(k);
    check_max(k);
    check_gemm(one);
    check_gemm(many);
    check_conv(one, many);
    check_attend(one, many, NULL);
    gc_ctx_unref(one);
    gc_ctx_unref(many);
}

/* The plain set has the plain row, AVX-512 those of the machine. */
static void check_halves(uint32_t seed)
{
    int32_t supported = 0;
    for (int32_t i = 0; gc_half_at(i, &supported) != NULL; i++) {
        const gc_half *half = gc_half_at(i, &supported);
        const char *kernels = half == &gc_half_plain ? "plain" : "avx512";
        if (supported) {
            gc_ctx *one = context(kernels, 1), *many = context(kernels, 64);
            check_row(half->name);
            check_seed(seed);
            check_half(one, many, half);
            check_attend(one, many, half);
            gc_ctx_unref(one);
            gc_ctx_unref(many);
        }
    }
}

static void check_all(uint32_t seed)
{
    gc_ctx *many = context(NULL, 3);
    for (int32_t i = 0; gc_kernels(i) != NULL; i++) {
        check_set(gc_kernels(i), seed);
    }
    check_halves(seed);
    check_row("any set");
    check_seed(seed);
    check_copy();
    check_resample(many);
    gc_ctx_unref(many);
}

static int list(void)
{
    for (int32_t i = 0; gc_kernels(i) != NULL; i++) {
        puts(gc_kernels(i));
    }
    return 0;
}

int main(int argc, char **argv)
{
    uint32_t seed = 1;
    int threads = 0;
    bool timed = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--few") == 0) {
            check_few();
        } else if (strcmp(argv[i], "--time") == 0) {
            timed = true;
        } else if (strcmp(argv[i], "--layers") == 0 && i + 1 < argc) {
            threads = atoi(argv[++i]);
        } else if (strcmp(argv[i], "--list") == 0) {
            return list();
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            seed = (uint32_t)strtoul(argv[++i], NULL, 10);
        }
    }
    if (threads > 0) {
        gc_ctx *ctx = context(NULL, (uint32_t)threads);
        check_layers(ctx, threads);
        gc_ctx_unref(ctx);
        return 0;
    }
    for (int32_t i = 0; timed && gc_kernels(i) != NULL; i++) {
        gc_ctx *ctx = context(gc_kernels(i), 1);
        check_time(ctx);
        gc_ctx_unref(ctx);
    }
    if (timed) {
        return 0;
    }
    check_all(seed);
    return check_end();
}
