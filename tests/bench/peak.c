/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "peak.h"

#include <pthread.h>
#include <stddef.h>
#include <time.h>

enum { MAX_THREADS = 64, CHUNK = 100000 };
typedef double (*peak_loop)(long rounds); /* the FLOPs done */

#if defined(__GNUC__)
typedef float vec4 __attribute__((vector_size(16)));
#define PEAK_NAME loop_128
#define PEAK_TYPE vec4
#define PEAK_TARGET
#include "peak_body.h"
#else
#define PEAK_NAME loop_plain
#define PEAK_TYPE float
#define PEAK_TARGET
#include "peak_body.h"
#endif

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
typedef float vec8 __attribute__((vector_size(32)));
typedef float vec16 __attribute__((vector_size(64)));
#define PEAK_NAME loop_avx2
#define PEAK_TYPE vec8
#define PEAK_TARGET __attribute__((target("avx2,fma")))
#include "peak_body.h"
#define PEAK_NAME loop_avx512
#define PEAK_TYPE vec16
#define PEAK_TARGET __attribute__((target("avx512f")))
#include "peak_body.h"

static peak_loop choose(const char **level)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) {
        *level = "AVX-512 FMA";
        return loop_avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        *level = "AVX2 FMA";
        return loop_avx2;
    }
    *level = "128-bit multiply and add";
    return loop_128;
}
#elif defined(__GNUC__)
static peak_loop choose(const char **level)
{
#if defined(__FP_FAST_FMAF) || defined(__ARM_NEON)
    *level = "128-bit FMA";
#else
    *level = "128-bit multiply and add";
#endif
    return loop_128;
}
#else
static peak_loop choose(const char **level)
{
    *level = "plain C";
    return loop_plain;
}
#endif

const char *peak_level(void)
{
    const char *level;
    choose(&level);
    return level;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct worker {
    pthread_t thread;
    peak_loop loop;
    double seconds, gflops;
} worker;

static void *work(void *user)
{
    worker *w = user;
    double flops = 0, start, end;
    w->loop(CHUNK); /* wide vectors take a moment to wake up */
    start = end = now();
    while (end - start < w->seconds) {
        flops += w->loop(CHUNK);
        end = now();
    }
    w->gflops = flops / (end - start) * 1e-9;
    return NULL;
}

double peak_gflops(int threads, double seconds)
{
    worker workers[MAX_THREADS];
    const char *level;
    double sum = 0;
    int started = 1, failed = threads < 1 || threads > MAX_THREADS;
    for (int i = 0; !failed && i < threads; i++) {
        workers[i].loop = choose(&level);
        workers[i].seconds = seconds;
        workers[i].gflops = 0;
    }
    while (!failed && started < threads) { /* the caller is the first */
        failed = pthread_create(&workers[started].thread, NULL, work, &workers[started]) != 0;
        started += !failed;
    }
    if (!failed) {
        work(&workers[0]);
        sum = workers[0].gflops;
    }
    for (int i = 1; i < started; i++) {
        pthread_join(workers[i].thread, NULL);
        sum += workers[i].gflops;
    }
    return failed ? 0 : sum;
}
