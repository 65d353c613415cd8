/* SPDX-License-Identifier: MIT */
/* Results do not hang on who computes them: outputs, gradients and maps have the
   same bits for 1 to 64 threads of the built-in pool, and for job systems of a
   host that go backwards or at random on threads of their own. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gradcam/gradcam.h"
#include "unit.h"

enum { OWN_THREADS = 3, RESULTS = 4, NETS = 2 };

static void expect_of(tally *t, int ok, const char *what, const char *who)
{
    if (ok) {
        t->passed++;
    } else {
        t->failed++;
        printf("FAILED: %s: %s\n", who, what);
    }
}

static gc_tensor *tensor(gc_ctx *ctx, int32_t ndim, const int64_t *shape, uint32_t seed)
{
    gc_tensor_desc d;
    gc_tensor *t = NULL;
    int64_t n = 1;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = ndim;
    for (int32_t i = 0; i < ndim; i++) {
        d.shape[i] = shape[i];
        n *= shape[i];
    }
    if (gc_tensor_create(ctx, &d, &t, NULL) == GRADCAM_OK) {
        gc_tensor_describe(t, &d);
        for (int64_t i = 0; i < n; i++) {
            ((float *)d.data)[i] = noise((uint32_t)i * 5u + seed) * 0.5f;
        }
    }
    return t;
}

/* ---- job systems of a host ---- */

static int32_t backwards(void *user, gc_task_fn fn, void *task, uint32_t count)
{
    (void)user;
    for (uint32_t i = count; i > 0; i--) {
        fn(task, i - 1);
    }
    return 0;
}

typedef struct share {
    pthread_t thread;
    gc_task_fn fn;
    void *task;
    const uint32_t *order;
    uint32_t first, count;
} share;

static void *work(void *arg)
{
    share *s = arg;
    for (uint32_t i = s->first; i < s->count; i += OWN_THREADS) {
        s->fn(s->task, s->order[i]);
    }
    return NULL;
}

/* Shuffled, and dealt out to threads that begin and end with the job. */
static int32_t shuffled(void *user, gc_task_fn fn, void *task, uint32_t count)
{
    uint32_t *random = user, *order = malloc(((size_t)count + 1) * sizeof *order);
    share shares[OWN_THREADS];
    int started = 0;
    for (uint32_t i = 0; order != NULL && i < count; i++) {
        *random = *random * 1664525u + 1013904223u;
        uint32_t at = (*random >> 8) % (i + 1);
        order[i] = order[at];
        order[at] = i;
    }
    for (; order != NULL && started < OWN_THREADS; started++) {
        shares[started] = (share){.fn = fn, .task = task, .order = order, .first = (uint32_t)started, .count = count};
        if (pthread_create(&shares[started].thread, NULL, work, &shares[started]) != 0) {
            break;
        }
    }
    for (int i = 0; i < started; i++) {
        pthread_join(shares[i].thread, NULL);
    }
    free(order);
    return started == OWN_THREADS ? 0 : 1;
}

/* ---- two networks ---- */

typedef struct layer {
    const char *op, *from, *to;
    int64_t w[4]; /* shape of the weights; 0: none */
    gc_attr attrs[3];
    size_t n_attrs;
} layer;

static const int64_t ones[4] = {1, 1, 1, 1}, two[2] = {2, 2}, groups4 = 4, groups96 = 96;
#define INTS(name, data, n)                                                                                            \
    {                                                                                                                  \
        name, data, n, GRADCAM_ATTR_INTS, 0                                                                            \
    }
#define INT(name, data)                                                                                                \
    {                                                                                                                  \
        name, data, 1, GRADCAM_ATTR_INT, 0                                                                             \
    }
/* Every method of convolution in both directions, and what comes with them. */
static const layer layers[] = {
    {"Conv", "x", "a", {96, 64, 3, 3}, {INTS("pads", ones, 4)}, 1},
    {"Relu", "a", "b", {0}, {{0}}, 0},
    {"Conv", "b", "c", {96, 1, 3, 3}, {INTS("pads", ones, 4), INTS("strides", two, 2), INT("group", &groups96)}, 3},
    {"Sigmoid", "c", "d", {0}, {{0}}, 0},
    {"Conv", "d", "e", {40, 24, 1, 1}, {INT("group", &groups4)}, 1},
    {"ConvTranspose", "e", "f", {40, 17, 3, 3}, {INTS("strides", two, 2)}, 1},
    {"Tanh", "f", "g", {0}, {{0}}, 0},
    {"Conv", "g", "h", {33, 17, 3, 3}, {INTS("strides", two, 2)}, 1},
    {"Relu", "h", "i", {0}, {{0}}, 0},
    {"GlobalAveragePool", "i", "j", {0}, {{0}}, 0},
    {"Flatten", "j", "k", {0}, {{0}}, 0},
    {"MatMul", "k", "y", {33, 7, 0, 0}, {{0}}, 0},
};

static gc_status build(gc_ctx *ctx, gc_net **net, gc_error *err)
{
    gc_builder *b = NULL;
    gc_tensor_desc d = {.dtype = GRADCAM_F32, .ndim = 4, .shape = {2, 64, 21, 22}};
    gc_status s = gc_builder_create(ctx, 14, &b, err);
    s = s ? s : gc_builder_input(b, "x", &d, err);
    for (size_t i = 0; i < sizeof layers / sizeof *layers && s == GRADCAM_OK; i++) {
        const layer *l = &layers[i];
        char weight[8];
        snprintf(weight, sizeof weight, "w%d", (int)i);
        const char *in[2] = {l->from, weight};
        if (l->w[0] > 0) {
            gc_tensor *w = tensor(ctx, l->w[2] > 0 ? 4 : 2, l->w, (uint32_t)i * 1001u);
            s = gc_builder_weight(b, weight, w, err);
            gc_tensor_unref(w);
        }
        s = s ? s : gc_builder_node(b, l->op, l->to, in, l->w[0] > 0 ? 2 : 1, &l->to, 1, l->attrs, l->n_attrs, err);
    }
    s = s ? s : gc_builder_output(b, "y", err);
    s = s ? s : gc_builder_finish(b, net, err);
    gc_builder_destroy(b);
    return s;
}

/* ---- what comes out ---- */

typedef struct results {
    float *data[NETS][RESULTS];
    size_t bytes[NETS][RESULTS];
} results;

static void keep(const gc_tensor *t, float **data, size_t *bytes)
{
    gc_tensor_desc d;
    gc_tensor_describe(t, &d);
    int64_t n = 1, last = 0;
    for (int32_t i = 0; i < d.ndim; i++) {
        n *= d.shape[i];
        last += (d.shape[i] - 1) * d.strides[i];
    }
    *bytes = (size_t)(last + 1 == n ? n : 0) * sizeof(float); /* without gaps: the layout is the same, too */
    *data = malloc(*bytes + 1);
    if (*data != NULL) {
        memcpy(*data, d.data, *bytes);
    }
}

/* Output, gradient of the input, Grad-CAM, Guided Grad-CAM. */
static gc_status compute(gc_run *run, const char *input, const char *output, results *r, int net, gc_error *err)
{
    gc_tensor *y = NULL, *dx = NULL, *map = NULL;
    gc_status s = gc_run_watch(run, input, GRADCAM_WATCH_GRAD, err);
    s = s ? s : gc_run_forward(run, err);
    s = s ? s : gc_run_value(run, output, &y, err);
    s = s ? s : gc_run_backward(run, output, y, err);
    s = s ? s : gc_run_gradient(run, input, &dx, err);
    if (s == GRADCAM_OK) {
        keep(y, &r->data[net][0], &r->bytes[net][0]);
        keep(dx, &r->data[net][1], &r->bytes[net][1]);
        s = gc_gradcam(run, NULL, &map, err);
    }
    if (s == GRADCAM_OK) {
        keep(map, &r->data[net][2], &r->bytes[net][2]);
        gc_tensor_unref(map);
        map = NULL;
        s = gc_guided_gradcam(run, NULL, &map, err);
    }
    if (s == GRADCAM_OK) {
        keep(map, &r->data[net][3], &r->bytes[net][3]);
        gc_tensor_unref(map);
    }
    return s;
}

static gc_status one_net(gc_ctx *ctx, int which, results *r, gc_error *err)
{
    static const int64_t shapes[NETS][4] = {{1, 3, 112, 112}, {2, 64, 21, 22}};
    gc_net *net = NULL;
    gc_run *run = NULL;
    gc_tensor *x = tensor(ctx, 4, shapes[which], 3);
    gc_status s = which == 0 ? gc_net_load_file(ctx, "docs/demo/garments.onnx", NULL, &net, err)
                             : build(ctx, &net, err);
    s = s ? s : gc_run_create(net, &run, err);
    s = s ? s : gc_run_set_input(run, NULL, x, err);
    s = s ? s : compute(run, which == 0 ? "image" : "x", which == 0 ? "logits" : "y", r, which, err);
    gc_tensor_unref(x);
    gc_run_destroy(run);
    gc_net_unref(net);
    return s;
}

static void all_nets(tally *t, const gc_ctx_options *o, const char *who, results *r)
{
    gc_ctx *ctx = NULL;
    gc_error err;
    memset(&err, 0, sizeof err);
    memset(r, 0, sizeof *r);
    gc_status s = gc_ctx_create(o, &ctx, &err);
    for (int i = 0; i < NETS && s == GRADCAM_OK; i++) {
        s = one_net(ctx, i, r, &err);
    }
    expect_of(t, s == GRADCAM_OK, err.message, who);
    gc_ctx_unref(ctx);
}

static void release(results *r)
{
    for (int i = 0; i < NETS * RESULTS; i++) {
        free(r->data[i / RESULTS][i % RESULTS]);
    }
}

static void compare(tally *t, const gc_ctx_options *o, const char *who, const results *want)
{
    static const char *const names[RESULTS] = {"output", "gradient", "Grad-CAM", "Guided Grad-CAM"};
    results r;
    all_nets(t, o, who, &r);
    for (int i = 0; i < NETS * RESULTS; i++) {
        const float *a = want->data[i / RESULTS][i % RESULTS], *b = r.data[i / RESULTS][i % RESULTS];
        size_t bytes = want->bytes[i / RESULTS][i % RESULTS];
        int same = a != NULL && b != NULL && bytes > 0 && bytes == r.bytes[i / RESULTS][i % RESULTS] &&
                   memcmp(a, b, bytes) == 0;
        expect_of(t, same, names[i % RESULTS], who);
    }
    release(&r);
}

static void compare_executor(tally *t, gc_executor e, const char *who, const results *want)
{
    gc_ctx_options o;
    memset(&o, 0, sizeof o);
    o.executor = &e;
    compare(t, &o, who, want);
}

int main(void)
{
    static const uint32_t counts[] = {2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 31, 32, 33, 63, 64};
    uint32_t random = 1;
    tally t = {0, 0};
    results want;
    gc_ctx_options o;
    memset(&o, 0, sizeof o);
    all_nets(&t, &o, "alone", &want);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        char who[32];
        o.n_threads = counts[i];
        snprintf(who, sizeof who, "%u threads", (unsigned)counts[i]);
        compare(&t, &o, who, &want);
    }
    compare_executor(&t, (gc_executor){.n_workers = 1, .parallel_for = backwards}, "backwards", &want);
    compare_executor(&t, (gc_executor){.n_workers = 40, .parallel_for = backwards}, "backwards, many", &want);
    compare_executor(&t, (gc_executor){.n_workers = OWN_THREADS, .user = &random, .parallel_for = shuffled}, "shuffled",
                     &want);
    release(&want);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
