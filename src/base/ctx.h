/* SPDX-License-Identifier: MIT */
/* Host services of a context: memory, logging, task execution.  The only way
   from the library to malloc, threads and the host. */
#ifndef GC_BASE_CTX_H
#define GC_BASE_CTX_H

#include "gradcam/gradcam.h"

struct gc_pool;

struct gc_ctx {
    gc_allocator allocator;
    gc_logger logger;
    gc_executor executor; /* parallel_for NULL: run on the caller's thread */
    struct gc_pool *pool;
    const void *kern; /* row of the table of kernels, see kern/kern.h */
    void *custom;     /* operators of the host, see ops/custom.h */
    void (*custom_release)(gc_ctx *ctx);
    int32_t refs; /* atomic */
    int32_t blas; /* large products go to the CBLAS of this build, see kern/blas.h */
};

/* gc_ctx_create with a row of kernels; options as imported. */
gc_status gc_ctx_open(const gc_ctx_options *options, const void *kern, gc_ctx **out, gc_error *err);

/* Zeroed memory for count * size bytes, 64-byte aligned; NULL when the product
   overflows or the allocator fails.  gc_mem_free(NULL) is allowed. */
void *gc_mem_alloc(gc_ctx *ctx, size_t count, size_t size);
/* The same without zeros, for large blocks that are written at once. */
void *gc_mem_alloc_raw(gc_ctx *ctx, size_t count, size_t size);
void gc_mem_free(gc_ctx *ctx, void *ptr);
char *gc_mem_strdup(gc_ctx *ctx, const char *text, size_t length);

/* Calls fn(task, i) for every i < count, perhaps on several threads. */
gc_status gc_parallel(const gc_ctx *ctx, gc_task_fn fn, void *task, uint32_t count);

/* A copy of the services that matter to a task, which shares its work with nobody; not
   the references, which other threads may count meanwhile.  It is not released. */
gc_ctx gc_ctx_serial(const gc_ctx *ctx);

/* Threads that may work at once, for scratch that each of them needs. */
uint32_t gc_workers(const gc_ctx *ctx);

void gc_log(const gc_ctx *ctx, int32_t level, const char *format, ...);

/* Atomic counters: return the new value. */
int32_t gc_atomic_add(int32_t *counter, int32_t delta);

#endif
