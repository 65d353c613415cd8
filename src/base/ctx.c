/* SPDX-License-Identifier: MIT */
#include "base/ctx.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/abi.h"
#include "base/huge.h"
#include "base/pool.h"
#include "base/status.h"

/* A block is preceded by its total size, so that release can be told. */
#define GC_MEM_ALIGN ((size_t)64)

/* More threads than this share the scratch of these. */
enum { GC_MOST_WORKERS = 64 };

static void *default_alloc(void *user, size_t size, size_t align)
{
    (void)user;
    void *raw = malloc(size + align);
    if (raw == NULL) {
        return NULL;
    }
    gc_huge_advise(raw, size + align);
    /* The distance back to the malloc block sits just before the result. */
    size_t shift = align - (size_t)((uintptr_t)raw % align);
    unsigned char *p = (unsigned char *)raw + shift;
    p[-1] = (unsigned char)shift;
    return p;
}

static void default_release(void *user, void *ptr, size_t size, size_t align)
{
    (void)user;
    (void)size;
    (void)align;
    unsigned char *p = ptr;
    free(p - p[-1]);
}

void *gc_mem_alloc_raw(gc_ctx *ctx, size_t count, size_t size)
{
    if (size != 0 && count > (SIZE_MAX - 2 * GC_MEM_ALIGN) / size) {
        return NULL;
    }
    size_t total = count * size + GC_MEM_ALIGN;
    unsigned char *block = ctx->allocator.alloc(ctx->allocator.user, total, GC_MEM_ALIGN);
    if (block == NULL) {
        return NULL;
    }
    memcpy(block, &total, sizeof total);
    return block + GC_MEM_ALIGN;
}

void *gc_mem_alloc(gc_ctx *ctx, size_t count, size_t size)
{
    void *block = gc_mem_alloc_raw(ctx, count, size);
    if (block != NULL) {
        memset(block, 0, count * size);
    }
    return block;
}

void gc_mem_free(gc_ctx *ctx, void *ptr)
{
    if (ptr == NULL) {
        return;
    }
    unsigned char *block = (unsigned char *)ptr - GC_MEM_ALIGN;
    size_t total;
    memcpy(&total, block, sizeof total);
    ctx->allocator.release(ctx->allocator.user, block, total, GC_MEM_ALIGN);
}

char *gc_mem_strdup(gc_ctx *ctx, const char *text, size_t length)
{
    char *copy = gc_mem_alloc(ctx, length + 1, 1);
    if (copy != NULL && length > 0) {
        memcpy(copy, text, length);
    }
    return copy;
}

gc_status gc_parallel(const gc_ctx *ctx, gc_task_fn fn, void *task, uint32_t count)
{
    if (ctx->executor.parallel_for != NULL && count > 1) {
        int32_t code = ctx->executor.parallel_for(ctx->executor.user, fn, task, count);
        return code == 0 ? GRADCAM_OK : GRADCAM_E_CALLBACK;
    }
    if (ctx->pool != NULL && count > 1) {
        gc_pool_run(ctx->pool, fn, task, count);
        return GRADCAM_OK;
    }
    for (uint32_t i = 0; i < count; i++) {
        fn(task, i);
    }
    return GRADCAM_OK;
}

gc_ctx gc_ctx_serial(const gc_ctx *ctx)
{
    gc_ctx serial;
    memset(&serial, 0, sizeof serial);
    serial.allocator = ctx->allocator;
    serial.logger = ctx->logger;
    serial.kern = ctx->kern;
    serial.custom = ctx->custom;
    serial.blas = ctx->blas;
    serial.refs = 1;
    return serial;
}

uint32_t gc_workers(const gc_ctx *ctx)
{
    uint32_t n = 1;
    if (ctx->executor.parallel_for != NULL) {
        n = ctx->executor.n_workers > 1 ? ctx->executor.n_workers : 1;
    } else if (ctx->pool != NULL) {
        n = gc_pool_size(ctx->pool);
    }
    return n < GC_MOST_WORKERS ? n : GC_MOST_WORKERS;
}

void gc_log(const gc_ctx *ctx, int32_t level, const char *format, ...)
{
    if (ctx->logger.log == NULL || level > ctx->logger.max_level) {
        return;
    }
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    ctx->logger.log(ctx->logger.user, level, line);
}

static gc_status check_services(const gc_ctx *ctx, const gc_ctx_options *o, gc_error *err)
{
    if (ctx->allocator.alloc == NULL || ctx->allocator.release == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "allocator: alloc and release must both be given");
    }
    if (o->executor != NULL && ctx->executor.parallel_for == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "executor: parallel_for is NULL");
    }
    if (o->n_threads > 1024) {
        return gc_fail(err, GRADCAM_E_INVALID, "n_threads is %u, at most 1024", (unsigned)o->n_threads);
    }
    return GRADCAM_OK;
}

static gc_status apply_options(gc_ctx *ctx, const gc_ctx_options *o, gc_error *err)
{
    if (o->allocator != NULL) {
        GC_TRY(GC_ABI_IMPORT(o->allocator, &ctx->allocator, err));
    }
    if (o->logger != NULL) {
        GC_TRY(GC_ABI_IMPORT(o->logger, &ctx->logger, err));
    }
    if (o->executor != NULL) {
        GC_TRY(GC_ABI_IMPORT(o->executor, &ctx->executor, err));
    }
    return check_services(ctx, o, err);
}

gc_status gc_ctx_open(const gc_ctx_options *o, const void *kern, gc_ctx **out, gc_error *err)
{
    gc_ctx seed;
    memset(&seed, 0, sizeof seed);
    seed.allocator.alloc = default_alloc;
    seed.allocator.release = default_release;
    seed.kern = kern;
    seed.refs = 1;
    GC_TRY(apply_options(&seed, o, err));
    gc_ctx *ctx = gc_mem_alloc(&seed, 1, sizeof *ctx);
    if (ctx == NULL) {
        return GC_NOMEM(err);
    }
    *ctx = seed;
    if (o->n_threads > 1 && ctx->executor.parallel_for == NULL) {
        gc_status s = gc_pool_create(ctx, o->n_threads, &ctx->pool);
        if (s != GRADCAM_OK) {
            gc_mem_free(&seed, ctx);
            return gc_fail(err, s, "could not start %u threads", (unsigned)o->n_threads);
        }
    }
    *out = ctx;
    return GRADCAM_OK;
}

gc_ctx *gc_ctx_ref(gc_ctx *ctx)
{
    if (ctx != NULL) {
        gc_atomic_add(&ctx->refs, 1);
    }
    return ctx;
}

void gc_ctx_unref(gc_ctx *ctx)
{
    if (ctx == NULL || gc_atomic_add(&ctx->refs, -1) > 0) {
        return;
    }
    gc_pool_destroy(ctx, ctx->pool);
    if (ctx->custom_release != NULL) {
        ctx->custom_release(ctx);
    }
    gc_ctx last = *ctx; /* the block is released through a copy of its owner */
    gc_mem_free(&last, ctx);
}
