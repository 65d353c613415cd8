/* SPDX-License-Identifier: MIT */
/* What may be shared: one context with a pool, one network and one input
   tensor serve several threads, each with a run of its own.  Every thread must
   get the bits that one thread alone gets; the thread sanitizer watches. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gradcam/gradcam.h"
#include "unit.h"

enum { THREADS = 4, ROUNDS = 2, METHODS = 4, SIDE = 112, VALUES = 3 * SIDE * SIDE };

typedef gc_status (*method)(gc_run *, const gc_explain_options *, gc_tensor **, gc_error *);
static const method methods[METHODS] = {gc_cam, gc_gradcam, gc_guided_backprop, gc_guided_gradcam};

/* What all threads look at, and nobody changes. */
typedef struct shared {
    gc_ctx *ctx;
    gc_net *net;
    gc_tensor *image;
} shared;

/* What one thread does and finds. */
typedef struct worker {
    const shared *s;
    int64_t class_index;
    double sums[METHODS];
    gc_status status;
    int same; /* every round gave the same sums */
    gc_error err;
} worker;

static double weighted_sum(const gc_tensor *map)
{
    gc_tensor_desc d;
    double sum = 0.0;
    gc_tensor_describe(map, &d);
    int64_t n = d.shape[0] * d.strides[0];
    for (int64_t i = 0; i < n; i++) {
        sum += (double)((const float *)d.data)[i] * (double)(i % 97 + 1);
    }
    return sum;
}

static gc_status explain_once(worker *w, gc_run *run, double *sums)
{
    gc_target target;
    gc_explain_options o;
    memset(&target, 0, sizeof target);
    memset(&o, 0, sizeof o);
    target.kind = GRADCAM_TARGET_CLASS;
    target.index = w->class_index;
    o.target = &target;
    gc_status s = GRADCAM_OK;
    for (int m = 0; m < METHODS && s == GRADCAM_OK; m++) {
        gc_tensor *map = NULL;
        s = methods[m](run, &o, &map, &w->err);
        sums[m] = s == GRADCAM_OK ? weighted_sum(map) : 0.0;
        gc_tensor_unref(map);
    }
    return s;
}

static gc_status explain_rounds(worker *w, gc_run *run)
{
    gc_status s = explain_once(w, run, w->sums);
    w->same = 1;
    for (int k = 1; k < ROUNDS && s == GRADCAM_OK; k++) {
        double again[METHODS];
        s = explain_once(w, run, again);
        w->same = w->same && memcmp(again, w->sums, sizeof again) == 0;
    }
    return s;
}

/* A thread's life: references of its own, a run, explanations, all released. */
static void *work(void *arg)
{
    worker *w = arg;
    gc_ctx *ctx = gc_ctx_ref(w->s->ctx);
    gc_net *net = gc_net_ref(w->s->net);
    gc_tensor *image = gc_tensor_ref(w->s->image);
    gc_run *run = NULL;
    w->status = gc_run_create(net, &run, &w->err);
    if (w->status == GRADCAM_OK) {
        w->status = gc_run_set_input(run, NULL, image, &w->err);
    }
    gc_tensor_unref(image);
    gc_net_unref(net);
    if (w->status == GRADCAM_OK) {
        w->status = explain_rounds(w, run);
    }
    gc_run_destroy(run);
    gc_ctx_unref(ctx);
    return NULL;
}

static gc_status open_shared(shared *s, uint32_t n_threads, gc_error *err)
{
    gc_ctx_options o;
    gc_tensor_desc d;
    memset(s, 0, sizeof *s);
    memset(&o, 0, sizeof o);
    memset(&d, 0, sizeof d);
    o.n_threads = n_threads;
    d.dtype = GRADCAM_F32;
    d.ndim = 4;
    d.shape[0] = 1;
    d.shape[1] = 3;
    d.shape[2] = d.shape[3] = SIDE;
    gc_status status = gc_ctx_create(&o, &s->ctx, err);
    status = status ? status : gc_net_load_file(s->ctx, "docs/demo/garments.onnx", NULL, &s->net, err);
    status = status ? status : gc_tensor_create(s->ctx, &d, &s->image, err);
    if (status == GRADCAM_OK) {
        gc_tensor_describe(s->image, &d);
        for (int i = 0; i < VALUES; i++) {
            ((float *)d.data)[i] = (float)((unsigned)i * 2654435761u >> 8 & 255u) / 255.0f;
        }
    }
    return status;
}

static void close_shared(shared *s)
{
    gc_tensor_unref(s->image);
    gc_net_unref(s->net);
    gc_ctx_unref(s->ctx);
}

/* One worker after the other, on the calling thread. */
static void alone(tally *t, worker *workers)
{
    shared s;
    gc_error err;
    memset(&err, 0, sizeof err);
    expect(t, open_shared(&s, 1, &err) == GRADCAM_OK, err.message);
    for (int i = 0; i < THREADS && s.image != NULL; i++) {
        workers[i].s = &s;
        workers[i].class_index = i;
        work(&workers[i]);
        expect(t, workers[i].status == GRADCAM_OK && workers[i].same, "alone: the same sums every time");
    }
    close_shared(&s);
}

/* All at once; the pool of the context has `n_threads`. */
static void together(tally *t, const worker *want, uint32_t n_threads)
{
    shared s;
    gc_error err;
    pthread_t threads[THREADS];
    worker workers[THREADS];
    int started = 0;
    memset(&err, 0, sizeof err);
    memset(workers, 0, sizeof workers);
    expect(t, open_shared(&s, n_threads, &err) == GRADCAM_OK, err.message);
    for (; started < THREADS && s.image != NULL; started++) {
        workers[started].s = &s;
        workers[started].class_index = started;
        if (pthread_create(&threads[started], NULL, work, &workers[started]) != 0) {
            break;
        }
    }
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
    }
    expect(t, started == THREADS, "threads start");
    close_shared(&s);
    for (int i = 0; i < started; i++) {
        expect(t, workers[i].status == GRADCAM_OK, workers[i].err.message);
        expect(t, workers[i].same, "every round gives the same");
        expect(t, memcmp(workers[i].sums, want[i].sums, sizeof want[i].sums) == 0, "the bits of one thread alone");
    }
}

int main(void)
{
    tally t = {0, 0};
    worker want[THREADS];
    memset(want, 0, sizeof want);
    alone(&t, want);
    expect(&t, memcmp(want[0].sums, want[1].sums, sizeof want[0].sums) != 0, "classes differ");
    together(&t, want, 1);
    together(&t, want, 3);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
