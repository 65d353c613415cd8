/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <time.h>

#include "base/compiler.h"

/* Who waits stays awake for longer than the pause between two layers or two
   calls, shorter than what a host would notice; from the first look at the
   clock on it lets other threads go first. */
enum { AWAKE_NS = 200000, PAUSES = 2000, LOOK = 64 };
#define CLOSED UINT32_MAX

/* The indices of a job are cut into one range a thread, the caller's first.  A
   thread works off its own range, then those of the others: in every pass it
   sees the same part of a picture, which so stays in its cache, and threads
   meet in one word only where one has run dry.

   `word` is the number of the job in the upper half and the first index of the
   range that nobody has claimed in the lower one.  An index is claimed by
   counting the lower half up while the upper half is that of the job whose
   fields were read, so a late worker can never run an index of one job with
   the function of another; the next job begins only when `done` has reached
   `count`, and its fields are written while the lower halves are CLOSED: else a
   late worker could take the next job's larger `count` for that of the job at
   whose end it looks. */
enum { APART = 128 }; /* two cache lines, which are fetched together */

typedef struct claim_range {
    uint64_t word; /* atomic */
    char apart[APART - sizeof(uint64_t)];
} claim_range;

struct gc_pool {
    pthread_mutex_t turn; /* held by the thread whose job runs */
    pthread_mutex_t mutex;
    pthread_cond_t work;
    pthread_cond_t finished;
    pthread_t *threads;
    claim_range *ranges;
    struct pool_worker *workers;
    uint32_t n_started, n_ranges; /* n_ranges: threads that were asked for */
    char apart[APART];
    uint32_t job; /* atomic, as all below; counted up when its ranges are open */
    uint32_t count;
    gc_task_fn fn;
    void *task;
    int32_t sleepers; /* workers that wait for `work` */
    int32_t waiting;  /* the caller waits for `finished` */
    int32_t stop;
    uint32_t reserved0;
    char apart_too[APART];
    uint32_t done;
};

typedef struct pool_worker {
    gc_pool *pool;
    uint32_t range;
    uint32_t reserved0;
} pool_worker;

static uint32_t job_of(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

/* Where range r of a job begins, and range r - 1 ends. */
static uint32_t range_begin(const gc_pool *p, uint32_t count, uint32_t r)
{
    return (uint32_t)((uint64_t)count * r / p->n_ranges);
}

/* Runs what is left of a range; how many indices that were. */
static uint32_t work_range(gc_pool *p, uint32_t job, uint32_t r)
{
    uint32_t ran = 0;
    uint64_t *at = &p->ranges[r].word, word = GC_ATOMIC_LOAD(at);
    while (job_of(word) == job) {
        gc_task_fn fn = GC_ATOMIC_LOAD(&p->fn);
        void *task = GC_ATOMIC_LOAD(&p->task);
        uint32_t end = range_begin(p, GC_ATOMIC_LOAD(&p->count), r + 1), index = (uint32_t)word;
        if (index >= end) { /* all claimed, or closed */
            break;
        }
        if (!GC_ATOMIC_CAS(at, &word, word + 1)) {
            continue;
        }
        fn(task, index);
        ran++;
        word = GC_ATOMIC_LOAD(at);
    }
    return ran;
}

/* Runs indices of job `job` until none is left to claim, those of range `own`
   first.  What was run is counted at the end: until then the job cannot end. */
static void work_off(gc_pool *p, uint32_t job, uint32_t own)
{
    uint32_t ran = 0;
    for (uint32_t i = 0; i < p->n_ranges; i++) {
        ran += work_range(p, job, (own + i) % p->n_ranges);
    }
    /* `count` is still that of this job when something of it is not counted. */
    uint32_t count = ran > 0 ? GC_ATOMIC_LOAD(&p->count) : 0;
    if (ran > 0 && GC_ATOMIC_ADD(&p->done, ran) == count && GC_ATOMIC_LOAD(&p->waiting)) {
        pthread_mutex_lock(&p->mutex);
        pthread_cond_signal(&p->finished);
        pthread_mutex_unlock(&p->mutex);
    }
}

typedef struct patience {
    int32_t pauses;
    int32_t reserved0;
    int64_t until; /* 0: the clock was not read yet */
} patience;

/* One pause of a waiting thread; false when it is to go to sleep. */
static bool stay_awake(patience *w)
{
    GC_PAUSE();
    if (++w->pauses < PAUSES || w->pauses % LOOK != 0) {
        return true;
    }
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    int64_t now = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    w->until = w->until == 0 ? now + AWAKE_NS : w->until;
    sched_yield();
    return now < w->until;
}

/* Waits until another job than `last` is there (or the end): awake for a
   while, then asleep. */
static void await_job(gc_pool *p, uint32_t last)
{
    patience w = {0, 0, 0};
    do {
        if (GC_ATOMIC_LOAD(&p->job) != last || GC_ATOMIC_LOAD(&p->stop)) {
            return;
        }
    } while (stay_awake(&w));
    pthread_mutex_lock(&p->mutex);
    GC_ATOMIC_ADD(&p->sleepers, 1);
    while (GC_ATOMIC_LOAD(&p->job) == last && !GC_ATOMIC_LOAD(&p->stop)) {
        pthread_cond_wait(&p->work, &p->mutex);
    }
    GC_ATOMIC_ADD(&p->sleepers, -1);
    pthread_mutex_unlock(&p->mutex);
}

static void *worker(void *arg)
{
    const pool_worker *w = arg;
    gc_pool *p = w->pool;
    uint32_t last = 0;
    while (!GC_ATOMIC_LOAD(&p->stop)) {
        await_job(p, last);
        last = GC_ATOMIC_LOAD(&p->job);
        work_off(p, last, w->range);
    }
    return NULL;
}

static void wake_workers(gc_pool *p)
{
    if (GC_ATOMIC_LOAD(&p->sleepers) > 0) {
        pthread_mutex_lock(&p->mutex);
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->mutex);
    }
}

static void await_end(gc_pool *p, uint32_t count)
{
    patience w = {0, 0, 0};
    do {
        if (GC_ATOMIC_LOAD(&p->done) == count) {
            return;
        }
    } while (stay_awake(&w));
    pthread_mutex_lock(&p->mutex);
    GC_ATOMIC_STORE(&p->waiting, 1);
    while (GC_ATOMIC_LOAD(&p->done) != count) {
        pthread_cond_wait(&p->finished, &p->mutex);
    }
    GC_ATOMIC_STORE(&p->waiting, 0);
    pthread_mutex_unlock(&p->mutex);
}

void gc_pool_run(gc_pool *p, gc_task_fn fn, void *task, uint32_t count)
{
    pthread_mutex_lock(&p->turn);
    uint32_t job = GC_ATOMIC_LOAD(&p->job) + 1;
    for (uint32_t r = 0; r < p->n_ranges; r++) {
        GC_ATOMIC_STORE(&p->ranges[r].word, (uint64_t)(job - 1) << 32 | CLOSED);
    }
    GC_ATOMIC_STORE(&p->fn, fn);
    GC_ATOMIC_STORE(&p->task, task);
    GC_ATOMIC_STORE(&p->count, count);
    GC_ATOMIC_STORE(&p->done, 0);
    for (uint32_t r = 0; r < p->n_ranges; r++) {
        GC_ATOMIC_STORE(&p->ranges[r].word, (uint64_t)job << 32 | range_begin(p, count, r));
    }
    GC_ATOMIC_STORE(&p->job, job);
    wake_workers(p);
    work_off(p, job, 0);
    await_end(p, count);
    pthread_mutex_unlock(&p->turn);
}

uint32_t gc_pool_size(const gc_pool *p)
{
    return p->n_started + 1;
}

static void join_all(gc_pool *p)
{
    GC_ATOMIC_STORE(&p->stop, 1);
    pthread_mutex_lock(&p->mutex);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);
    for (uint32_t i = 0; i < p->n_started; i++) {
        pthread_join(p->threads[i], NULL);
    }
}

void gc_pool_destroy(gc_ctx *ctx, gc_pool *p)
{
    if (p == NULL) {
        return;
    }
    join_all(p);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->finished);
    pthread_mutex_destroy(&p->mutex);
    pthread_mutex_destroy(&p->turn);
    gc_mem_free(ctx, p->ranges);
    gc_mem_free(ctx, p->workers);
    gc_mem_free(ctx, p->threads);
    gc_mem_free(ctx, p);
}

gc_status gc_pool_create(gc_ctx *ctx, uint32_t n_threads, gc_pool **out)
{
    gc_pool *p = gc_mem_alloc(ctx, 1, sizeof *p);
    if (p == NULL) {
        return GRADCAM_E_NOMEM;
    }
    pthread_mutex_init(&p->turn, NULL);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->finished, NULL);
    p->n_ranges = n_threads;
    p->threads = gc_mem_alloc(ctx, n_threads, sizeof *p->threads);
    p->workers = gc_mem_alloc(ctx, n_threads, sizeof *p->workers);
    p->ranges = gc_mem_alloc(ctx, n_threads, sizeof *p->ranges);
    bool room = p->threads != NULL && p->workers != NULL && p->ranges != NULL;
    for (; room && p->n_started + 1 < n_threads; p->n_started++) {
        pool_worker *w = &p->workers[p->n_started];
        w->pool = p;
        w->range = p->n_started + 1;
        if (pthread_create(&p->threads[p->n_started], NULL, worker, w) != 0) {
            break;
        }
    }
    if (!room || p->n_started + 1 < n_threads) {
        gc_pool_destroy(ctx, p);
        return GRADCAM_E_NOMEM;
    }
    *out = p;
    return GRADCAM_OK;
}
