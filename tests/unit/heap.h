/* SPDX-License-Identifier: MIT */
/* A host's allocator that counts and can be made to fail.  Its calls come from
   one thread at a time.  Include it first: posix_memalign is not C99. */
#ifndef TESTS_UNIT_HEAP_H
#define TESTS_UNIT_HEAP_H

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include <stdlib.h>

#include "gradcam/gradcam.h"

typedef struct heap {
    long fail_at;     /* from this call on, counted from 0, nothing is given; never: -1 */
    long calls, live; /* so far; blocks that are not released */
    size_t now, most; /* bytes */
} heap;

static inline void *heap_alloc(void *user, size_t size, size_t align)
{
    heap *h = (heap *)user;
    void *p = NULL;
    if (h->calls++ >= h->fail_at && h->fail_at >= 0) {
        return NULL;
    }
    if (posix_memalign(&p, align, size) != 0) {
        return NULL;
    }
    h->live++;
    h->now += size;
    h->most = h->now > h->most ? h->now : h->most;
    return p;
}

static inline void heap_release(void *user, void *ptr, size_t size, size_t align)
{
    heap *h = (heap *)user;
    (void)align;
    h->live--;
    h->now -= size;
    free(ptr);
}

/* A context on it. */
static inline gc_status heap_ctx(heap *h, uint32_t threads, gc_ctx **ctx, gc_error *err)
{
    gc_allocator a = {0};
    gc_ctx_options o = {0};
    a.user = h;
    a.alloc = heap_alloc;
    a.release = heap_release;
    o.allocator = &a;
    o.n_threads = threads;
    return gc_ctx_create(&o, ctx, err);
}

#endif
