/* SPDX-License-Identifier: MIT */
#define _DEFAULT_SOURCE
/* One network on one number of threads: the cold figures, then rounds. */
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "peak.h"

#define TURN 0.03       /* seconds of timed calls a turn, one call at least */
#define PEAK_TURN 0.005 /* seconds of the FMA loop a round */
#define SHORT_CALL 50.0 /* ms; so short a call is preceded by an untimed one */

double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int bench_refuse(const char *what, gc_status status, const gc_error *err)
{
    fprintf(stderr, "bench: %s: %s: %s\n", what, gc_status_name(status), err->message);
    return -1;
}

/* ---- the allocator that counts ---- */

static void meter_change(void *user, int64_t bytes)
{
    meter *m = user;
    pthread_mutex_lock(&m->lock);
    m->live += bytes;
    m->peak = m->live > m->peak ? m->live : m->peak;
    pthread_mutex_unlock(&m->lock);
}

/* Large blocks in large pages, as the library's own allocator has them. */
static void *meter_alloc(void *user, size_t size, size_t align)
{
    const size_t large = size >= (size_t)4 << 20 ? (size_t)2 << 20 : sizeof(void *);
    void *p = NULL;
    if (posix_memalign(&p, align < large ? large : align, size) != 0) {
        return NULL;
    }
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (large > sizeof(void *)) {
        (void)madvise(p, size / large * large, MADV_HUGEPAGE);
    }
#endif
    meter_change(user, (int64_t)size);
    return p;
}

static void meter_release(void *user, void *ptr, size_t size, size_t align)
{
    (void)align;
    free(ptr);
    meter_change(user, -(int64_t)size);
}

/* ---- jobs ---- */

static gc_status call_gradcam(job *j, const char *layer, gc_report *report, gc_error *err)
{
    gc_explain_options o;
    gc_tensor *map = NULL;
    memset(&o, 0, sizeof o);
    o.layer = layer;
    o.report = report;
    o.into = j->into;
    gc_status status = gc_gradcam(j->run, &o, &map, err);
    if (!status && j->into == NULL) {
        j->into = map;
    } else if (!status) {
        gc_tensor_unref(map);
    }
    return status;
}

static gc_status call_guided(job *j, gc_error *err)
{
    gc_explain_options o;
    gc_tensor *map = NULL;
    memset(&o, 0, sizeof o);
    o.into = j->into;
    gc_status status = gc_guided_backprop(j->run, &o, &map, err);
    if (!status && j->into == NULL) {
        j->into = map;
    } else if (!status) {
        gc_tensor_unref(map);
    }
    return status;
}

static gc_status call_sweep(seat *s, job *j, gc_error *err)
{
    gc_status status = gc_gradcam_layers(j->run, s->layers, s->n_layers, NULL, s->maps, err);
    for (size_t i = 0; !status && i < s->n_layers; i++) {
        gc_tensor_unref(s->maps[i]);
    }
    return status;
}

static gc_status call(seat *s, int kind, gc_error *err)
{
    job *j = &s->jobs[kind];
    switch (kind) {
    case JOB_FORWARD: return gc_run_forward(j->run, err);
    case JOB_GRADCAM: return call_gradcam(j, s->layer[0] ? s->layer : NULL, NULL, err);
    case JOB_GUIDED: return call_guided(j, err);
    default: return call_sweep(s, j, err);
    }
}

static gc_status start_run(seat *s, job *j, gc_net *net, gc_error *err)
{
    gc_status status = gc_run_create(net, &j->run, err);
    return status ? status : gc_run_set_input(j->run, NULL, s->image, err);
}

static void end_run(job *j)
{
    gc_tensor_unref(j->into);
    gc_run_destroy(j->run);
    j->into = NULL;
    j->run = NULL;
}

/* ---- cold figures: each job on a network of its own ---- */

/* The layer that the library chooses, as Grad-CAM reports it. */
static gc_status find_layer(seat *s, job *j, gc_error *err)
{
    gc_report report;
    memset(&report, 0, sizeof report);
    gc_status status = call_gradcam(j, NULL, &report, err);
    if (status) {
        return status;
    }
    snprintf(s->layer, sizeof s->layer, "%s", report.layer);
    if (report.warnings & (GRADCAM_WARN_NAN | GRADCAM_WARN_NOT_CONNECTED)) {
        snprintf(err->message, sizeof err->message, "Grad-CAM at %s warns %u", s->layer, (unsigned)report.warnings);
        return GRADCAM_E_INTERNAL;
    }
    return GRADCAM_OK;
}

/* Random networks are only fair if their values are ordinary numbers. */
static gc_status look_at_output(seat *s, job *j, gc_error *err)
{
    gc_tensor *y = NULL;
    gc_tensor_desc d;
    gc_status status = gc_run_value(j->run, s->model->values[s->model->n_values - 1].name, &y, err);
    if (status) {
        return status;
    }
    memset(&d, 0, sizeof d);
    gc_tensor_describe(y, &d);
    s->largest = 0;
    for (int64_t i = 0; i < d.shape[1]; i++) {
        float v = fabsf(((const float *)d.data)[i * d.strides[1]]);
        s->largest = v <= s->largest ? s->largest : v; /* NaN stays */
    }
    if (!(s->largest > 1e-3f && s->largest < 1e3f)) {
        snprintf(err->message, sizeof err->message, "the largest output is %g", (double)s->largest);
        return GRADCAM_E_INTERNAL;
    }
    return GRADCAM_OK;
}

static gc_status first_call(seat *s, int kind, gc_net *net, gc_error *err)
{
    job *j = &s->jobs[kind];
    double start = bench_now();
    gc_status status = start_run(s, j, net, err);
    if (!status && kind == JOB_FORWARD) {
        status = gc_run_prepare(j->run, err);
        s->prepare_ms = (bench_now() - start) * 1e3;
    }
    status = status ? status : kind == JOB_GRADCAM ? find_layer(s, j, err) : call(s, kind, err);
    j->first_ms = (bench_now() - start) * 1e3;
    if (!status && kind == JOB_FORWARD) {
        status = look_at_output(s, j, err);
    }
    return status;
}

static gc_status cold(seat *s, int kind, gc_error *err)
{
    job *j = &s->jobs[kind];
    gc_net *net = NULL;
    s->meter.peak = s->meter.live;
    gc_status status = model_build(s->model, s->ctx, s->batch, &s->lent, &net, err);
    status = status ? status : first_call(s, kind, net, err);
    j->peak = s->meter.peak;
    j->arena = status ? 0 : (int64_t)gc_run_arena_bytes(j->run);
    end_run(j);
    gc_net_unref(net);
    return status;
}

/* ---- opening ---- */

static int choose_layers(seat *s)
{
    const model *m = s->model;
    s->layers = malloc(m->n_values * sizeof *s->layers);
    s->maps = malloc(m->n_values * sizeof *s->maps);
    for (size_t i = 0; s->layers && i < m->n_values; i++) {
        if (m->values[i].feature) {
            s->layers[s->n_layers++] = m->values[i].name;
        }
    }
    return s->layers && s->maps ? 0 : -1;
}

static int count_flops(seat *s)
{
    const model *m = s->model;
    int layer = model_find(m, s->layer);
    char *marks = calloc(m->n_values, 1);
    if (marks == NULL || layer < 0) {
        free(marks);
        return -1;
    }
    double forward = model_forward_macs(m), scale = 2e-9 * (double)s->batch;
    marks[layer] = 1;
    s->jobs[JOB_FORWARD].gflop = scale * forward;
    s->jobs[JOB_GRADCAM].gflop = scale * (forward + model_backward_macs(m, marks));
    memset(marks, 0, m->n_values);
    marks[0] = 1; /* the image */
    s->jobs[JOB_GUIDED].gflop = scale * (forward + model_backward_macs(m, marks));
    for (size_t i = 0; i < m->n_values; i++) {
        marks[i] = (char)m->values[i].feature;
    }
    s->jobs[JOB_SWEEP].gflop = scale * (forward + model_backward_macs(m, marks));
    free(marks);
    return 0;
}

static gc_status make_image(seat *s, gc_error *err)
{
    gc_tensor_desc d;
    uint32_t random = 2463534242u;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 4;
    d.shape[0] = s->batch;
    d.shape[1] = s->model->values[0].channels;
    d.shape[2] = d.shape[3] = s->model->size;
    gc_status status = gc_tensor_create(s->ctx, &d, &s->image, err);
    if (status) {
        return status;
    }
    gc_tensor_describe(s->image, &d);
    for (int64_t i = 0; i < d.shape[0] * d.shape[1] * d.shape[2] * d.shape[3]; i++) {
        random = random * 1664525u + 1013904223u;
        ((float *)d.data)[i] = (float)(random >> 8) / 8388608.0f - 1.0f;
    }
    return GRADCAM_OK;
}

static gc_status make_ctx(seat *s, gc_error *err)
{
    gc_allocator allocator;
    gc_ctx_options o;
    memset(&allocator, 0, sizeof allocator);
    memset(&o, 0, sizeof o);
    allocator.user = &s->meter;
    allocator.alloc = meter_alloc;
    allocator.release = meter_release;
    o.n_threads = (uint32_t)s->threads;
    o.allocator = &allocator;
    return gc_ctx_create(&o, &s->ctx, err);
}

int seat_open(seat *s, const model *m, int threads, int64_t batch)
{
    static const char *const names[JOB_COUNT] = {"forward", "gradcam", "guided", "sweep"};
    gc_error err;
    memset(&err, 0, sizeof err);
    memset(s, 0, sizeof *s);
    s->model = m;
    s->threads = threads;
    s->batch = batch;
    pthread_mutex_init(&s->meter.lock, NULL);
    s->lent.change = meter_change;
    s->lent.user = &s->meter;
    gc_status status = choose_layers(s) ? GRADCAM_E_NOMEM : make_ctx(s, &err);
    status = status ? status : make_image(s, &err);
    for (int i = 0; !status && i < JOB_COUNT; i++) {
        s->jobs[i].name = names[i];
        status = cold(s, i, &err);
    }
    status = status ? status : model_build(m, s->ctx, batch, &s->lent, &s->net, &err);
    for (int i = 0; !status && i < JOB_COUNT; i++) { /* ready for the rounds: one call each */
        status = start_run(s, &s->jobs[i], s->net, &err);
        status = status ? status : call(s, i, &err);
    }
    if (!status && count_flops(s)) {
        fprintf(stderr, "bench: %s: no memory, or layer \"%s\" is unknown\n", m->name, s->layer);
        return -1;
    }
    return status ? bench_refuse(m->name, status, &err) : 0;
}

void seat_close(seat *s)
{
    for (int i = 0; i < JOB_COUNT; i++) {
        end_run(&s->jobs[i]);
        free(s->jobs[i].ms.data);
    }
    free(s->peak.data);
    gc_net_unref(s->net);
    gc_tensor_unref(s->image);
    gc_ctx_unref(s->ctx);
    free(s->layers);
    free(s->maps);
    pthread_mutex_destroy(&s->meter.lock);
}

/* ---- rounds ---- */

static int turn(seat *s, int kind)
{
    job *j = &s->jobs[kind];
    gc_error err;
    memset(&err, 0, sizeof err);
    gc_status status = GRADCAM_OK;
    double last = j->ms.count ? j->ms.data[j->ms.count - 1] : j->first_ms, end;
    if (last < SHORT_CALL) {
        status = call(s, kind, &err); /* brings back what the others drove from the cache */
    }
    end = bench_now() + TURN;
    do {
        double start = bench_now();
        status = status ? status : call(s, kind, &err);
        if (!status && samples_add(&j->ms, (bench_now() - start) * 1e3)) {
            status = GRADCAM_E_NOMEM;
        }
    } while (!status && bench_now() < end);
    return status ? bench_refuse(s->model->name, status, &err) : 0;
}

int seat_round(seat *s)
{
    double peak = peak_gflops(s->threads, PEAK_TURN);
    if (samples_add(&s->peak, peak)) {
        return -1;
    }
    for (int i = 0; i < JOB_COUNT; i++) {
        if (turn(s, i)) {
            return -1;
        }
    }
    return 0;
}
