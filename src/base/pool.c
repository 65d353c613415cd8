/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "base/pool.h"

#include <pthread.h>

/* The mutex guards every field below it.  `next` is the first index nobody has
   claimed; `running` counts claimed indices that are not finished. */
struct gc_pool {
    pthread_mutex_t turn; /* held by the thread whose job runs */
    pthread_mutex_t mutex;
    pthread_cond_t work;
    pthread_cond_t done;
    pthread_t *threads;
    gc_task_fn fn;
    void *task;
    uint32_t count;
    uint32_t next;
    uint32_t running;
    uint32_t n_started;
    int32_t stop;
    uint32_t reserved0;
};

/* Claims and runs indices until none is left.  Called with the mutex held. */
static void work_off(gc_pool *p)
{
    while (p->next < p->count) {
        uint32_t index = p->next++;
        p->running++;
        pthread_mutex_unlock(&p->mutex);
        p->fn(p->task, index);
        pthread_mutex_lock(&p->mutex);
        p->running--;
    }
    if (p->running == 0) {
        pthread_cond_broadcast(&p->done);
    }
}

static void *worker(void *arg)
{
    gc_pool *p = arg;
    pthread_mutex_lock(&p->mutex);
    while (!p->stop) {
        if (p->next < p->count) {
            work_off(p);
        } else {
            pthread_cond_wait(&p->work, &p->mutex);
        }
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

void gc_pool_run(gc_pool *p, gc_task_fn fn, void *task, uint32_t count)
{
    pthread_mutex_lock(&p->turn);
    pthread_mutex_lock(&p->mutex);
    p->fn = fn;
    p->task = task;
    p->count = count;
    p->next = 0;
    pthread_cond_broadcast(&p->work);
    work_off(p);
    while (p->running > 0) {
        pthread_cond_wait(&p->done, &p->mutex);
    }
    p->count = 0;
    p->next = 0;
    pthread_mutex_unlock(&p->mutex);
    pthread_mutex_unlock(&p->turn);
}

uint32_t gc_pool_size(const gc_pool *p)
{
    return p->n_started + 1;
}

static void join_all(gc_pool *p)
{
    pthread_mutex_lock(&p->mutex);
    p->stop = 1;
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
    pthread_cond_destroy(&p->done);
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
    pthread_cond_init(&p->done, NULL);
    for (; p->n_started + 1 < n_threads; p->n_started++) {
        if (pthread_create(&p->threads[p->n_started], NULL, worker, p) != 0) {
            gc_pool_destroy(ctx, p);
            return GRADCAM_E_NOMEM;
        }
    }
    *out = p;
    return GRADCAM_OK;
}
