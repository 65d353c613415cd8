/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "base/pool.h"

#include <pthread.h>

#include "base/compiler.h"

/* About 50 microseconds: longer than the pause between two layers, shorter
   than what a host would notice. */
enum { SPINS = 2000 };
#define CLOSED UINT32_MAX

/* `word` is the number of the job in the upper half and the first index nobody
   has claimed in the lower one.  An index is claimed by counting the lower
   half up while the upper half is that of the job whose fields were read, so a
   late worker can never run an index of one job with the function of another;
   the next job begins only when `done` has reached `count`, and its fields are
   written while the lower half is CLOSED: else a late worker could take the next
   job's larger `count` for that of the job at whose end it looks. */
struct gc_pool {
    pthread_mutex_t turn; /* held by the thread whose job runs */
    pthread_mutex_t mutex;
    pthread_cond_t work;
    pthread_cond_t finished;
    pthread_t *threads;
    uint64_t word; /* atomic, as all below */
    gc_task_fn fn;
    void *task;
    uint32_t count;
    uint32_t done;
    int32_t sleepers; /* workers that wait for `work` */
    int32_t waiting;  /* the caller waits for `finished` */
    int32_t stop;
    uint32_t n_started;
};

static uint32_t job_of(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

/* Runs indices of job `job` until none is left to claim. */
static void work_off(gc_pool *p, uint32_t job)
{
    uint64_t word = GC_ATOMIC_LOAD(&p->word);
    while (job_of(word) == job) {
        gc_task_fn fn = GC_ATOMIC_LOAD(&p->fn);
        void *task = GC_ATOMIC_LOAD(&p->task);
        uint32_t count = GC_ATOMIC_LOAD(&p->count), index = (uint32_t)word;
        if (index >= count) { /* all claimed, or closed */
            return;
        }
        if (!GC_ATOMIC_CAS(&p->word, &word, word + 1)) {
            continue;
        }
        fn(task, index);
        if (GC_ATOMIC_ADD(&p->done, 1) == count && GC_ATOMIC_LOAD(&p->waiting)) {
            pthread_mutex_lock(&p->mutex);
            pthread_cond_signal(&p->finished);
            pthread_mutex_unlock(&p->mutex);
        }
        word = GC_ATOMIC_LOAD(&p->word);
    }
}

/* Waits until another job than `last` is there (or the end): awake for a
   while, then asleep. */
static void await_job(gc_pool *p, uint32_t last)
{
    for (int i = 0; i < SPINS; i++) {
        if (job_of(GC_ATOMIC_LOAD(&p->word)) != last || GC_ATOMIC_LOAD(&p->stop)) {
            return;
        }
        GC_PAUSE();
    }
    pthread_mutex_lock(&p->mutex);
    GC_ATOMIC_ADD(&p->sleepers, 1);
    while (job_of(GC_ATOMIC_LOAD(&p->word)) == last && !GC_ATOMIC_LOAD(&p->stop)) {
        pthread_cond_wait(&p->work, &p->mutex);
    }
    GC_ATOMIC_ADD(&p->sleepers, -1);
    pthread_mutex_unlock(&p->mutex);
}

static void *worker(void *arg)
{
    gc_pool *p = arg;
    uint32_t last = 0;
    while (!GC_ATOMIC_LOAD(&p->stop)) {
        await_job(p, last);
        last = job_of(GC_ATOMIC_LOAD(&p->word));
        work_off(p, last);
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
    for (int i = 0; i < SPINS; i++) {
        if (GC_ATOMIC_LOAD(&p->done) == count) {
            return;
        }
        GC_PAUSE();
    }
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
    uint32_t job = job_of(GC_ATOMIC_LOAD(&p->word)) + 1;
    GC_ATOMIC_STORE(&p->word, (uint64_t)(job - 1) << 32 | CLOSED);
    GC_ATOMIC_STORE(&p->fn, fn);
    GC_ATOMIC_STORE(&p->task, task);
    GC_ATOMIC_STORE(&p->count, count);
    GC_ATOMIC_STORE(&p->done, 0);
    GC_ATOMIC_STORE(&p->word, (uint64_t)job << 32);
    wake_workers(p);
    work_off(p, job);
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
    gc_mem_free(ctx, p->threads);
    gc_mem_free(ctx, p);
}

gc_status gc_pool_create(gc_ctx *ctx, uint32_t n_threads, gc_pool **out)
{
    gc_pool *p = gc_mem_alloc(ctx, 1, sizeof *p);
    if (p == NULL) {
        return GRADCAM_E_NOMEM;
    }
    p->threads = gc_mem_alloc(ctx, n_threads, sizeof *p->threads);
    if (p->threads == NULL) {
        gc_mem_free(ctx, p);
        return GRADCAM_E_NOMEM;
    }
    pthread_mutex_init(&p->turn, NULL);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->finished, NULL);
    for (; p->n_started + 1 < n_threads; p->n_started++) {
        if (pthread_create(&p->threads[p->n_started], NULL, worker, p) != 0) {
            gc_pool_destroy(ctx, p);
            return GRADCAM_E_NOMEM;
        }
    }
    *out = p;
    return GRADCAM_OK;
}
