/* SPDX-License-Identifier: MIT */
/* A good guest: with a host's allocator and job system nothing else allocates
   or starts threads, and results do not depend on who runs the tasks.  The
   linker sends malloc and its kin through the functions below. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gradcam/gradcam.h"
#include "unit.h"

/* The only place for state that the wrapped functions can reach. */
static struct {
    int watching;
    long stray, threads;
} guard;

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
int __real_pthread_create(void *thread, const void *attr, void *(*fn)(void *), void *arg);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
int __wrap_pthread_create(void *thread, const void *attr, void *(*fn)(void *), void *arg);

void *__wrap_malloc(size_t size)
{
    guard.stray += guard.watching;
    return __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    guard.stray += guard.watching;
    return __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
    guard.stray += guard.watching;
    return __real_realloc(p, size);
}

int __wrap_pthread_create(void *thread, const void *attr, void *(*fn)(void *), void *arg)
{
    guard.threads += guard.watching;
    return __real_pthread_create(thread, attr, fn, arg);
}

/* A bump allocator: what the host gives. */
typedef struct heap {
    unsigned char *memory;
    size_t used, size;
    long calls;
} heap;

static void *heap_alloc(void *user, size_t size, size_t align)
{
    heap *h = user;
    size_t at = (h->used + align - 1) / align * align;
    if (at + size > h->size) {
        return NULL;
    }
    h->used = at + size;
    h->calls++;
    return h->memory + at;
}

static void heap_release(void *user, void *ptr, size_t size, size_t align)
{
    (void)user;
    (void)ptr;
    (void)size;
    (void)align;
}

/* A job system that runs everything backwards on the calling thread. */
static int32_t backwards(void *user, gc_task_fn fn, void *task, uint32_t count)
{
    long *jobs = user;
    ++*jobs;
    while (count > 0) {
        fn(task, --count);
    }
    return 0;
}

static int32_t refuse(void *user, gc_task_fn fn, void *task, uint32_t count)
{
    (void)user;
    (void)fn;
    (void)task;
    (void)count;
    return 7;
}

static void count_line(void *user, int32_t level, const char *line)
{
    (void)level;
    (void)line;
    ++*(long *)user;
}

enum { SIDE = 112, VALUES = 3 * SIDE * SIDE };

static gc_status guided(gc_ctx *ctx, float *pixels, gc_tensor **map, gc_error *err)
{
    gc_net *net = NULL;
    gc_run *run = NULL;
    gc_tensor *x = NULL;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 4;
    d.shape[0] = 1;
    d.shape[1] = 3;
    d.shape[2] = d.shape[3] = SIDE;
    d.data = pixels;
    gc_status s = gc_net_load_file(ctx, "docs/demo/garments.onnx", NULL, &net, err);
    s = s ? s : gc_run_create(net, &run, err);
    s = s ? s : gc_tensor_create(ctx, &d, &x, err);
    s = s ? s : gc_run_set_input(run, NULL, x, err);
    s = s ? s : gc_guided_gradcam(run, NULL, map, err);
    gc_tensor_unref(x);
    gc_run_destroy(run);
    gc_net_unref(net);
    return s;
}

static gc_status with_options(const gc_ctx_options *o, float *pixels, float *result, gc_error *err)
{
    gc_ctx *ctx = NULL;
    gc_tensor *map = NULL;
    gc_tensor_desc d;
    gc_status s = gc_ctx_create(o, &ctx, err);
    s = s ? s : guided(ctx, pixels, &map, err);
    if (s == GRADCAM_OK) {
        gc_tensor_describe(map, &d);
        memcpy(result, d.data, VALUES * sizeof *result);
    }
    gc_tensor_unref(map);
    gc_ctx_unref(ctx);
    return s;
}

static void test_host(tally *t, float *pixels, const float *want, float *got)
{
    heap h = {malloc((size_t)256 << 20), 0, (size_t)256 << 20, 0};
    long jobs = 0, lines = 0;
    gc_error err;
    gc_allocator a;
    gc_executor e;
    gc_logger l;
    gc_ctx_options o;
    memset(&a, 0, sizeof a);
    memset(&e, 0, sizeof e);
    memset(&l, 0, sizeof l);
    memset(&o, 0, sizeof o);
    memset(&err, 0, sizeof err);
    a.user = &h;
    a.alloc = heap_alloc;
    a.release = heap_release;
    e.user = &jobs;
    e.parallel_for = backwards;
    l.user = &lines;
    l.max_level = GRADCAM_LOG_INFO;
    l.log = count_line;
    o.allocator = &a;
    o.executor = &e;
    o.logger = &l;
    o.n_threads = 4;                                     /* the host's job system wins */
    FILE *warm = fopen("docs/demo/garments.onnx", "rb"); /* stdio's own buffer is the C library's affair */
    if (warm != NULL) {
        fclose(warm);
    }
    guard.watching = 1;
    gc_status s = with_options(&o, pixels, got, &err);
    guard.watching = 0;
    expect(t, s == GRADCAM_OK, err.message);
    expect(t, s == GRADCAM_OK && memcmp(want, got, VALUES * sizeof *got) == 0, "a host's job system: same bits");
    expect(t, jobs > 0 && h.calls > 0, "the host's services are used");
    expect(t, guard.stray == 0, "no other allocation");
    expect(t, guard.threads == 0, "no thread");
    e.parallel_for = refuse;
    expect(t, with_options(&o, pixels, got, &err) == GRADCAM_E_CALLBACK, "a job system that fails");
    free(h.memory);
}

static void test_threads(tally *t, float *pixels, const float *want, float *got)
{
    static const uint32_t counts[] = {2, 3, 8, 64};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        gc_ctx_options o;
        gc_error err;
        memset(&o, 0, sizeof o);
        o.n_threads = counts[i];
        gc_status s = with_options(&o, pixels, got, &err);
        expect(t, s == GRADCAM_OK && memcmp(want, got, VALUES * sizeof *got) == 0, "any number of threads: same bits");
    }
}

int main(void)
{
    tally t = {0, 0};
    float *pixels = malloc(VALUES * sizeof *pixels), *want = malloc(VALUES * sizeof *want);
    float *got = malloc(VALUES * sizeof *got);
    gc_error err;
    memset(&err, 0, sizeof err);
    for (int i = 0; i < VALUES; i++) {
        pixels[i] = (float)((unsigned)i * 2654435761u >> 8 & 255u) / 255.0f;
    }
    expect(&t, with_options(NULL, pixels, want, &err) == GRADCAM_OK, err.message);
    test_host(&t, pixels, want, got);
    test_threads(&t, pixels, want, got);
    free(pixels);
    free(want);
    free(got);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
