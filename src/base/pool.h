/* SPDX-License-Identifier: MIT */
/* The built-in thread pool: claimed indices, the caller works too. */
#ifndef GC_BASE_POOL_H
#define GC_BASE_POOL_H

#include "base/ctx.h"

typedef struct gc_pool gc_pool;

/* n_threads counts the caller; n_threads - 1 threads are started. */
gc_status gc_pool_create(gc_ctx *ctx, uint32_t n_threads, gc_pool **out);
uint32_t gc_pool_size(const gc_pool *pool);
void gc_pool_destroy(gc_ctx *ctx, gc_pool *pool);
/* One job at a time: jobs of other threads wait for their turn. */
void gc_pool_run(gc_pool *pool, gc_task_fn fn, void *task, uint32_t count);

#endif
