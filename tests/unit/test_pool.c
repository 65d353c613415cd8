/* SPDX-License-Identifier: MIT */
/* The thread pool under stress: jobs so small that threads fall asleep and wake
   up all the time, more threads than cores, several pools at once, several host
   threads on one pool.  Every index of every job must run exactly once, and the
   job must be over when the call returns; a wake-up that is lost is an alarm. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/ctx.h"
#include "unit.h"

enum { MOST = 150, HOSTS = 4, CONTEXTS = 3, SECONDS = 240 };

static void on_alarm(int number)
{
    static const char text[] = "FAILED: a job does not end: a wake-up is lost\n0 passed, 1 failed, 0 skipped\n";
    (void)number;
    _exit(write(1, text, sizeof text - 1) > 0 ? 1 : 2);
}

/* ---- jobs ---- */

typedef struct job {
    uint32_t count;
    int32_t busy; /* rounds of idling in one index */
    int32_t runs[MOST];
} job;

static void job_task(void *task, uint32_t index)
{
    job *j = task;
    volatile int32_t idle = 0;
    while (idle < j->busy) {
        idle = idle + 1;
    }
    if (index < j->count) {
        GC_ATOMIC_ADD(&j->runs[index], 1);
    } else {
        GC_ATOMIC_ADD(&j->runs[0], 1000); /* an index that nobody asked for */
    }
}

static uint32_t next(uint32_t *random)
{
    *random = *random * 1664525u + 1013904223u;
    return *random >> 8;
}

/* One job of a random size; between jobs a pause now and then, so that workers
   are caught awake, falling asleep and asleep. */
static int one_job(const gc_ctx *ctx, uint32_t *random)
{
    job j;
    int wrong = 0;
    memset(&j, 0, sizeof j);
    j.count = next(random) % (next(random) % 8 == 0 ? MOST : 6);
    j.busy = next(random) % 4 == 0 ? (int32_t)(next(random) % 3000) : 0;
    wrong += gc_parallel(ctx, job_task, &j, j.count) != GRADCAM_OK;
    for (uint32_t i = 0; i < MOST; i++) {
        wrong += GC_ATOMIC_LOAD(&j.runs[i]) != (i < j.count ? 1 : 0);
    }
    if (next(random) % 64 == 0) {
        struct timespec pause = {0, (long)(next(random) % 300000)};
        nanosleep(&pause, NULL);
    }
    return wrong;
}

/* ---- who issues them ---- */

typedef struct host {
    pthread_t thread;
    gc_ctx *ctx[CONTEXTS];
    uint32_t random;
    int jobs, wrong;
} host;

static void *issue(void *arg)
{
    host *h = arg;
    for (int i = 0; i < h->jobs; i++) {
        h->wrong += one_job(h->ctx[i % CONTEXTS], &h->random);
    }
    return NULL;
}

static gc_ctx *context(uint32_t n_threads)
{
    gc_ctx_options o;
    gc_ctx *ctx = NULL;
    memset(&o, 0, sizeof o);
    o.n_threads = n_threads;
    gc_ctx_create(&o, &ctx, NULL);
    return ctx;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void one_host(tally *t, uint32_t n_threads, int jobs, int told)
{
    host h;
    memset(&h, 0, sizeof h);
    h.random = n_threads;
    h.jobs = jobs;
    h.ctx[0] = h.ctx[1] = h.ctx[2] = context(n_threads);
    expect(t, h.ctx[0] != NULL, "threads start");
    if (h.ctx[0] != NULL) {
        double start = now();
        issue(&h);
        if (told) {
            printf("%u threads: %.1f us a job\n", (unsigned)n_threads, (now() - start) * 1e6 / jobs);
        }
        expect(t, h.wrong == 0, "every index once");
    }
    gc_ctx_unref(h.ctx[0]);
}

static void many_hosts(tally *t, uint32_t n_threads, int jobs)
{
    host hosts[HOSTS];
    gc_ctx *ctx[CONTEXTS];
    int started = 0;
    memset(hosts, 0, sizeof hosts);
    for (int i = 0; i < CONTEXTS; i++) {
        ctx[i] = context(n_threads + (uint32_t)i);
    }
    for (; started < HOSTS; started++) {
        memcpy(hosts[started].ctx, ctx, sizeof ctx);
        hosts[started].random = (uint32_t)started * 77u + n_threads;
        hosts[started].jobs = jobs;
        if (pthread_create(&hosts[started].thread, NULL, issue, &hosts[started]) != 0) {
            break;
        }
    }
    expect(t, started == HOSTS, "hosts start");
    for (int i = 0; i < started; i++) {
        pthread_join(hosts[i].thread, NULL);
        expect(t, hosts[i].wrong == 0, "every index once, several hosts and pools");
    }
    for (int i = 0; i < CONTEXTS; i++) {
        gc_ctx_unref(ctx[i]);
    }
}

/* Pools that end before their threads have begun, or right after a job. */
static void short_lives(tally *t)
{
    uint32_t random = 9;
    int wrong = 0;
    for (uint32_t i = 0; i < 200; i++) {
        gc_ctx *ctx = context(1 + i % 9);
        for (uint32_t k = 0; k < i % 3 && ctx != NULL; k++) {
            wrong += one_job(ctx, &random);
        }
        wrong += ctx == NULL;
        gc_ctx_unref(ctx);
    }
    expect(t, wrong == 0, "short lives");
}

int main(int argc, char **argv)
{
    static const uint32_t sizes[] = {1, 2, 3, 4, 8, 16, 64};
    tally t = {0, 0};
    int told = argc > 1 && strcmp(argv[1], "--time") == 0;
    signal(SIGALRM, on_alarm);
    alarm(SECONDS);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        one_host(&t, sizes[i], sizes[i] > 8 ? 3000 : 20000, told);
    }
    many_hosts(&t, 2, 4000);
    many_hosts(&t, 7, 2000);
    many_hosts(&t, 30, 300);
    short_lives(&t);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
