/* SPDX-License-Identifier: MIT */
/* The convolutions of VGG16 and ResNet-50 at 224x224, in the order of the network and
   each with weights of its own, so that these come from where they lie in a network:
   as direct sums, and by the method that is chosen.  The peak is measured in every
   round; all figures are medians over the rounds. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/huge.h"
#include "kern/conv.h"
#include "peak.h"

enum { ROUNDS = 15, MOST = 64, WAYS = 2, LARGE_PAGE = 2 << 20 };

/* `same` convolutions of one kind; the image is `size` pixels wide and high. */
typedef struct layer {
    int16_t same, size, in, out, kernel, stride, residual;
} layer;

static const layer vgg16[] = {
    {1, 224, 3, 64, 3, 1, 0},   {1, 224, 64, 64, 3, 1, 0},  {1, 112, 64, 128, 3, 1, 0}, {1, 112, 128, 128, 3, 1, 0},
    {1, 56, 128, 256, 3, 1, 0}, {2, 56, 256, 256, 3, 1, 0}, {1, 28, 256, 512, 3, 1, 0}, {2, 28, 512, 512, 3, 1, 0},
    {3, 14, 512, 512, 3, 1, 0}, {0, 0, 0, 0, 0, 0, 0},
};

/* A stage is a block that changes the size, and others of three layers; the repeats
   of those follow each other here. */
static const layer resnet50[] = {
    {1, 224, 3, 64, 7, 2, 0},     {1, 56, 64, 64, 1, 1, 0},   {3, 56, 64, 64, 3, 1, 0},    {1, 56, 64, 256, 1, 1, 0},
    {3, 56, 64, 256, 1, 1, 1},    {2, 56, 256, 64, 1, 1, 0},  {1, 56, 256, 128, 1, 1, 0},  {1, 56, 128, 128, 3, 2, 0},
    {1, 56, 256, 512, 1, 2, 0},   {4, 28, 128, 512, 1, 1, 1}, {3, 28, 512, 128, 1, 1, 0},  {3, 28, 128, 128, 3, 1, 0},
    {1, 28, 512, 256, 1, 1, 0},   {1, 28, 256, 256, 3, 2, 0}, {1, 28, 512, 1024, 1, 2, 0}, {6, 14, 256, 1024, 1, 1, 1},
    {5, 14, 1024, 256, 1, 1, 0},  {5, 14, 256, 256, 3, 1, 0}, {1, 14, 1024, 512, 1, 1, 0}, {1, 14, 512, 512, 3, 2, 0},
    {1, 14, 1024, 2048, 1, 2, 0}, {3, 7, 512, 2048, 1, 1, 1}, {2, 7, 2048, 512, 1, 1, 0},  {2, 7, 512, 512, 3, 1, 0},
    {0, 0, 0, 0, 0, 0, 0},
};

/* One convolution: [0] as a direct sum, [1] as chosen. */
typedef struct seat {
    const layer *l;
    gc_gather g;
    gc_conv_method method[WAYS];
    int64_t packed[WAYS]; /* where in the block of all */
    double seconds[WAYS][ROUNDS];
} seat;

typedef struct bench {
    const gc_ctx *ctx;
    int32_t workers;
    int seats;
    float *maps[3], *bias;        /* what is read, written, added */
    float *packs[WAYS], *scratch; /* one block for all layers, as in a plan */
    int64_t pack_floats[WAYS], scratch_floats;
    seat seat[MOST];
    double peak[ROUNDS];
} bench;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* In large pages, like the blocks of a plan. */
static float *room(int64_t floats)
{
    void *p;
    size_t bytes = (size_t)(floats + 16) * sizeof(float);
    if (floats < 0 || posix_memalign(&p, LARGE_PAGE, bytes) != 0) {
        fprintf(stderr, "no memory\n");
        exit(2);
    }
    gc_huge_advise(p, bytes);
    memset(p, 0, bytes);
    return p;
}

static float *random_room(int64_t floats)
{
    float *p = room(floats);
    for (int64_t i = 0; i < floats; i++) {
        p[i] = check_value();
    }
    return p;
}

static void describe(const gc_kern *k, const layer *l, gc_gather *g)
{
    int64_t places = (l->size + 2 * (l->kernel / 2) - l->kernel) / l->stride + 1;
    gc_conv_dim none = {1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 1};
    gc_conv_dim d = {l->size, places, l->stride, 1, l->kernel, l->kernel / 2, 0, 1, places, 0, 1};
    memset(g, 0, sizeof *g);
    g->kern = k;
    g->dim[0] = none;
    g->dim[1] = g->dim[2] = d;
    g->images = g->groups = 1;
    g->in_c = g->in_pixel = l->in;
    g->out_c = g->out_pixel = l->out;
}

static double flops(const seat *s)
{
    const gc_conv_dim *d = s->g.dim;
    return 2.0 * (double)(d[1].places * d[2].places * d[1].taps * d[2].taps) * (double)(s->g.in_c * s->g.out_c);
}

static void take_seat(bench *b, const layer *l)
{
    seat *s = &b->seat[b->seats++];
    s->l = l;
    describe(gc_kern_of(b->ctx), l, &s->g);
    s->method[0] = GC_CONV_DIRECT;
    s->method[1] = gc_conv_choose(&s->g, 0);
    for (int way = 0; way < WAYS; way++) {
        int64_t scratch = gc_conv_scratch(&s->g, s->method[way], b->workers);
        b->scratch_floats = scratch > b->scratch_floats ? scratch : b->scratch_floats;
        s->packed[way] = b->pack_floats[way];
        b->pack_floats[way] += (gc_conv_packed(&s->g, s->method[way]) + 15) / 16 * 16;
    }
}

static void pack_seat(const bench *b, const seat *s)
{
    const layer *l = s->l;
    int64_t taps = l->kernel * l->kernel;
    gc_conv_weights w = {random_room(taps * l->in * l->out), 0, l->in * taps, taps, {1, l->kernel, l->kernel}};
    for (int way = 0; way < WAYS; way++) {
        if (gc_conv_pack(b->ctx, &s->g, s->method[way], &w, b->packs[way] + s->packed[way]) != GRADCAM_OK) {
            exit(2);
        }
    }
    free((void *)(uintptr_t)w.data);
}

static void run_round(bench *b, int way, int round)
{
    for (int i = 0; i < b->seats; i++) {
        seat *s = &b->seat[i];
        gc_epilogue epi = {b->bias, s->l->residual ? b->maps[2] : NULL, s->g.out_pixel, GC_EPI_CLIP, 0.0f, INFINITY, 0};
        double start = now();
        if (gc_conv_run(b->ctx, &s->g, s->method[way], b->maps[i % 2], b->packs[way] + s->packed[way], &epi,
                        b->maps[(i + 1) % 2], b->scratch, b->workers) != GRADCAM_OK) {
            exit(2);
        }
        s->seconds[way][round] = now() - start;
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof *values, by_size);
    return values[ROUNDS / 2];
}

/* Seconds of each way over seats first to end. */
static void add_up(bench *b, int first, int end, double *work, double *seconds)
{
    *work = seconds[0] = seconds[1] = 0.0;
    for (int i = first; i < end; i++) {
        *work += flops(&b->seat[i]);
        for (int way = 0; way < WAYS; way++) {
            seconds[way] += median(b->seat[i].seconds[way]);
        }
    }
}

static void print_line(const char *name, double work, const double *seconds, double peak, const char *method)
{
    printf("%-34s%9.3f%9.1f", name, 1e3 * seconds[0], 100.0 * work / seconds[0] / peak);
    if (method != NULL) {
        printf("   %-8s%9.3f%9.2f", method, 1e3 * seconds[1], seconds[0] / seconds[1]);
    }
    printf("\n");
}

static void report(bench *b, const char *name)
{
    static const char *const methods[] = {"direct", "wino4", "wino2"};
    double peak = 1e9 * median(b->peak), work, seconds[WAYS], fast[WAYS] = {0.0, 0.0};
    char text[80];
    printf("%s, %d threads, peak %.1f GFLOP/s (%s)\n", name, (int)b->workers, 1e-9 * peak, peak_level());
    printf("%-34s%9s%9s   %-8s%9s%9s\n", "layer", "ms", "% peak", "chosen", "ms", "faster");
    for (int i = 0, end; i < b->seats; i = end) {
        const seat *s = &b->seat[i];
        const layer *l = s->l;
        for (end = i; end < b->seats && b->seat[end].l == l;) {
            end++;
        }
        add_up(b, i, end, &work, seconds);
        bool direct = s->method[1] == GC_CONV_DIRECT;
        for (int way = 0; way < WAYS && !direct; way++) {
            fast[way] += seconds[way];
        }
        snprintf(text, sizeof text, "%d x %dx%d %d>%d k%d s%d%s", l->same, l->size, l->size, l->in, l->out, l->kernel,
                 l->stride, l->residual ? " +" : "");
        print_line(text, work, seconds, peak, direct ? NULL : methods[s->method[1]]);
    }
    add_up(b, 0, b->seats, &work, seconds);
    print_line("all", work, seconds, peak, "");
    if (fast[1] > 0.0) {
        printf("Winograd's layers: %.3f ms as direct sums, %.3f by Winograd, %.2f times as fast\n", 1e3 * fast[0],
               1e3 * fast[1], fast[0] / fast[1]);
    }
}

static void time_net(const gc_ctx *ctx, int threads, const char *name, const layer *layers)
{
    static bench b;
    memset(&b, 0, sizeof b);
    b.ctx = ctx;
    b.workers = threads;
    b.bias = random_room(4096);
    for (int i = 0; i < 3; i++) {
        b.maps[i] = random_room(224 * 224 * 64);
    }
    for (const layer *l = layers; l->same > 0; l++) {
        for (int i = 0; i < l->same; i++) {
            take_seat(&b, l);
        }
    }
    b.scratch = room(b.scratch_floats);
    for (int way = 0; way < WAYS; way++) {
        b.packs[way] = room(b.pack_floats[way]);
    }
    for (int i = 0; i < b.seats; i++) {
        pack_seat(&b, &b.seat[i]);
    }
    run_round(&b, 0, 0);
    for (int round = 0; round < ROUNDS; round++) {
        b.peak[round] = peak_gflops(threads, threads > 1 ? 0.1 : 0.02); /* threads take a moment to spread */
        for (int way = 0; way < WAYS; way++) { /* twice: the other way's weights leave the caches */
            run_round(&b, way, round);
            run_round(&b, way, round);
        }
    }
    report(&b, name);
    for (int way = 0; way < WAYS; way++) {
        free(b.packs[way]);
    }
    for (int i = 0; i < 3; i++) {
        free(b.maps[i]);
    }
    free(b.scratch);
    free(b.bias);
}

void check_layers(const gc_ctx *ctx, int threads)
{
    time_net(ctx, threads, "VGG16", vgg16);
    time_net(ctx, threads, "ResNet-50", resnet50);
}
