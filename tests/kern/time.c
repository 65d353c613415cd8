/* SPDX-License-Identifier: MIT */
/* What each kernel does on numbers in the caches, one thread. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "kern/gemm.h"
#include "peak.h"

/* Seconds of a measurement; the best of ROUNDS counts. */
#define SPAN 0.02
enum { ROUNDS = 5 };

typedef struct job {
    const gc_ctx *ctx;
    const gc_kern *k;
    gc_tile tile;
    gc_wino_tile wino;
    gc_depthwise depthwise;
    const float *a, *b;
    const float *taps[9];
    float *c, *work;
    int64_t n;
    int kind;
} job;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* `flops` of one call; 0: bytes moved, as GB/s. */
static void report(const char *name, void (*call)(job *), job *j, double flops, double bytes, double peak)
{
    double best = 0.0;
    for (int round = 0; round < ROUNDS; round++) {
        double start = now(), end = start;
        long calls = 0;
        for (; end - start < SPAN; end = now()) {
            for (int i = 0; i < 20; i++, calls++) {
                call(j);
            }
        }
        double each = (double)calls / (end - start);
        best = each > best ? each : best;
    }
    printf("%-8s%-20s", j->k->name, name);
    if (flops > 0.0) {
        printf("%9.1f GFLOP/s %5.1f %% of the peak\n", best * flops * 1e-9, 100.0 * best * flops * 1e-9 / peak);
    } else {
        printf("%9.1f GB/s\n", best * bytes * 1e-9);
    }
}

static void call_tile(job *j)
{
    j->k->tile(&j->tile);
}

static void call_wino4_in(job *j)
{
    j->k->wino4_in(&j->wino);
}

static void call_wino4_out(job *j)
{
    j->k->wino4_out(&j->wino);
}

static void call_wino2_in(job *j)
{
    j->k->wino2_in(&j->wino);
}

static void call_wino2_out(job *j)
{
    j->k->wino2_out(&j->wino);
}

static void call_depthwise(job *j)
{
    j->k->depthwise(&j->depthwise);
}

static void call_dots(job *j)
{
    j->k->dots(j->a, j->b, 512, 16, 512, j->c);
}

static void call_axpys(job *j)
{
    j->k->axpys(j->a, 1, j->b, 512, 16, 512, j->c);
}

static void call_map(job *j)
{
    j->k->map(j->kind, 1, 2048, j->a, j->c, 0);
}

static void call_slope(job *j)
{
    j->k->slope(j->kind, 2048, j->a, j->b, j->c);
}

static void call_max(job *j)
{
    j->k->max_taps(j->taps, 9, 256, j->c, NULL);
}

static void call_gemm(job *j)
{
    gc_gemm(j->ctx, j->n, j->n, j->n, j->a, j->n, 1, j->b, j->n, 1, 0.0f, j->c, j->n, j->work);
}

static void time_tile(job *j, double peak)
{
    gc_tile *t = &j->tile;
    t->a = j->a;
    t->b = j->b;
    t->c = j->c;
    t->n_segments = 1;
    t->length = 256;
    t->a_step = 272;
    t->rows = j->k->mr;
    t->cols = j->k->nr;
    t->c_step = t->cols;
    report("tile", call_tile, j, 2.0 * 256.0 * t->rows * t->cols, 0.0, peak);
}

static void time_winograd(job *j, double peak)
{
    gc_wino_tile *t = &j->wino;
    t->from = j->a;
    t->to = j->c;
    t->channels = t->pixel = 64;
    t->plane = 1056;
    t->line = 8 * 64;
    t->rows = t->cols = 4;
    double bytes = 4.0 * 64.0;
    report("wino4_in", call_wino4_in, j, 0.0, bytes * 72.0, peak);
    report("wino4_out", call_wino4_out, j, 0.0, bytes * 52.0, peak);
    t->rows = t->cols = 2;
    report("wino2_in", call_wino2_in, j, 0.0, bytes * 32.0, peak);
    report("wino2_out", call_wino2_out, j, 0.0, bytes * 20.0, peak);
}

static void time_depthwise(job *j, int32_t taps, int64_t stride, double peak)
{
    gc_depthwise *d = &j->depthwise;
    char name[40];
    for (int i = 0; i < 9; i++) {
        j->taps[i] = j->a + 4096 * i;
    }
    d->lines = j->taps;
    d->weights = j->b;
    d->to = j->c;
    d->pixel = d->to_pixel = d->channels = 64;
    d->width = 16;
    d->stride = stride;
    d->dilation = 1;
    d->taps_x = d->taps_y = taps;
    d->weights_step = 64;
    d->weights_line = taps * 64;
    snprintf(name, sizeof name, "depthwise %dx%d/%d", (int)taps, (int)taps, (int)stride);
    report(name, call_depthwise, j, 2.0 * 64.0 * 16.0 * taps * taps, 0.0, peak);
}

void check_time(const gc_ctx *ctx)
{
    static const char *const functions[] = {"exp",       "sigmoid", "tanh", "erf",       "gelu",
                                            "tanh gelu", "silu",    "mish", "hard swish"};
    static job j;
    double peak = peak_gflops(1, 0.2);
    memset(&j, 0, sizeof j);
    check_case("time");
    j.ctx = ctx;
    j.k = gc_kern_of(ctx);
    j.n = 192;
    j.a = check_random_buffer(1 << 18);
    j.b = check_random_buffer(1 << 18);
    j.c = check_buffer(1 << 18, 1);
    j.work = check_buffer((int64_t)gc_gemm_work(j.n, j.n, j.n), 1);
    printf("peak: %.1f GFLOP/s of one thread (%s)\n", peak, peak_level());
    time_tile(&j, peak);
    report("gemm 192", call_gemm, &j, 2.0 * 192.0 * 192.0 * 192.0, 0.0, peak);
    time_winograd(&j, peak);
    time_depthwise(&j, 3, 1, peak);
    time_depthwise(&j, 3, 2, peak);
    time_depthwise(&j, 5, 1, peak);
    report("dots", call_dots, &j, 2.0 * 16.0 * 512.0, 0.0, peak);
    report("axpys", call_axpys, &j, 2.0 * 16.0 * 512.0, 0.0, peak);
    for (j.kind = 0; j.kind <= GC_MAP_HARD_SWISH; j.kind++) {
        report(functions[j.kind], call_map, &j, 0.0, 2048.0 * 8.0, peak);
    }
    for (j.kind = GC_MAP_ERF; j.kind <= GC_MAP_HARD_SWISH; j.kind++) {
        char name[40];
        snprintf(name, sizeof name, "slope of %s", functions[j.kind]);
        report(name, call_slope, &j, 0.0, 2048.0 * 12.0, peak);
    }
    report("max_taps", call_max, &j, 0.0, 256.0 * 10.0 * 4.0, peak);
}
