/* SPDX-License-Identifier: MIT */
/* What the tests of perturbation share: a host that counts, a network that is easily
   got wrong, and variants of its values. */
#ifndef TESTS_UNIT_PERTURB_H
#define TESTS_UNIT_PERTURB_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "gradcam/gradcam.h"
#include "unit.h"

enum { CHANNELS = 8, SIDE = 12, CLASSES = 5, MOST = 32 };
enum { INPUT_SIZE = 3 * SIDE * SIDE, LAYER_SIZE = CHANNELS * SIDE * SIDE };

/* ---- a host ---- */

typedef struct host {
    long allocs, fail_at; /* fail_at 0: never */
    long before, after;   /* calls of the operators in front of and behind the value r */
} host;

static inline void *host_alloc(void *user, size_t size, size_t align)
{
    host *h = user;
    void *p = NULL;
    if (++h->allocs == h->fail_at) {
        return NULL;
    }
    return posix_memalign(&p, align, size) == 0 ? p : NULL;
}

static inline void host_release(void *user, void *ptr, size_t size, size_t align)
{
    (void)user;
    (void)size;
    (void)align;
    free(ptr);
}

/* An operator that copies and counts. */
static inline gc_status infer_same(void *user, gc_op_call *call)
{
    gc_tensor_desc d;
    (void)user;
    memset(&d, 0, sizeof d);
    gc_tensor_describe(gc_op_input(call, 0), &d);
    return gc_op_declare_output(call, 0, d.dtype, d.ndim, d.shape);
}

static inline gc_status forward_same(void *user, gc_op_call *call)
{
    ++*(long *)user;
    return gc_tensor_copy(gc_op_input(call, 0), gc_op_output(call, 0), NULL);
}

static inline void register_counter(gc_ctx *ctx, const char *name, long *calls)
{
    gc_op_def def;
    memset(&def, 0, sizeof def);
    def.op = name;
    def.user = calls;
    def.infer = infer_same;
    def.forward = forward_same;
    gc_ctx_register_op(ctx, &def, NULL);
}

static inline gc_ctx *make_ctx(host *h, uint32_t threads)
{
    gc_allocator a;
    gc_ctx_options o;
    gc_ctx *ctx = NULL;
    memset(&a, 0, sizeof a);
    memset(&o, 0, sizeof o);
    a.user = h;
    a.alloc = host_alloc;
    a.release = host_release;
    o.allocator = &a;
    o.n_threads = threads;
    gc_ctx_create(&o, &ctx, NULL);
    register_counter(ctx, "CountBefore", &h->before);
    register_counter(ctx, "CountAfter", &h->after);
    return ctx;
}

static inline gc_tensor *lent(gc_ctx *ctx, int32_t ndim, const int64_t *shape, float *data)
{
    gc_tensor_desc d;
    gc_tensor *t = NULL;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = ndim;
    d.data = data;
    memcpy(d.shape, shape, (size_t)ndim * sizeof *shape);
    gc_tensor_create(ctx, &d, &t, NULL);
    return t;
}

static inline float *numbers(const gc_tensor *t, int64_t *n)
{
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    gc_tensor_describe(t, &d);
    *n = 1;
    for (int32_t i = 0; i < d.ndim; i++) {
        *n *= d.shape[i];
    }
    return d.data;
}

/* ---- networks ---- */

static inline void weight(gc_ctx *ctx, gc_builder *b, const char *name, int32_t ndim, const int64_t *shape)
{
    gc_tensor *t = lent(ctx, ndim, shape, NULL);
    int64_t n;
    float *w = numbers(t, &n);
    for (int64_t i = 0; i < n; i++) {
        w[i] = noise((uint32_t)i + (uint32_t)n * 7u) * 0.4f;
    }
    gc_builder_weight(b, name, t, NULL);
    gc_tensor_unref(t);
}

static inline void node(gc_builder *b, const char *op, const char *x, const char *w, const char *y, const gc_attr *attr)
{
    const char *in[2] = {x, w};
    gc_builder_node(b, op, NULL, in, w == NULL ? 1 : 2, &y, 1, attr, attr == NULL ? 0 : 1, NULL);
}

static inline gc_builder *begin_net(gc_ctx *ctx, int64_t samples)
{
    gc_builder *b = NULL;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 4;
    d.shape[0] = samples;
    d.shape[1] = 3;
    d.shape[2] = d.shape[3] = SIDE;
    gc_builder_create(ctx, 13, &b, NULL);
    gc_builder_input(b, "x", &d, NULL);
    return b;
}

static inline gc_net *end_net(gc_builder *b, const char *output)
{
    gc_net *net = NULL;
    gc_builder_output(b, output, NULL);
    gc_builder_finish(b, &net, NULL);
    gc_builder_destroy(b);
    return net;
}

static inline void integers(gc_ctx *ctx, gc_builder *b, const char *name, int64_t *values, int64_t n)
{
    gc_tensor_desc d;
    gc_tensor *t = NULL;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_I64;
    d.ndim = 1;
    d.shape[0] = n;
    gc_tensor_create(ctx, &d, &t, NULL);
    gc_tensor_describe(t, &d);
    memcpy(d.data, values, (size_t)n * sizeof *values);
    gc_builder_weight(b, name, t, NULL);
    gc_tensor_unref(t);
}

/* x -> Conv c -> Relu r -> Conv d -> (+ skip, a 1x1 Conv of x) s -> Relu t -> pool
   -> Reshape to [samples, CHANNELS] -> Gemm y -> Softmax p, with counters on the way
   and a sample count that is fixed twice. */
static inline gc_net *make_net(gc_ctx *ctx, int64_t samples)
{
    static const int64_t c[4] = {CHANNELS, 3, 3, 3}, d[4] = {CHANNELS, CHANNELS, 3, 3}, k[4] = {CHANNELS, 3, 1, 1};
    static const int64_t f[2] = {CLASSES, CHANNELS}, one = 1, pads[4] = {1, 1, 1, 1};
    const gc_attr pad = {"pads", pads, 4, GRADCAM_ATTR_INTS, 0}, trans = {"transB", &one, 1, GRADCAM_ATTR_INT, 0};
    int64_t flat[2] = {samples, CHANNELS};
    gc_builder *b = begin_net(ctx, samples);
    weight(ctx, b, "cw", 4, c);
    weight(ctx, b, "dw", 4, d);
    weight(ctx, b, "kw", 4, k);
    weight(ctx, b, "fw", 2, f);
    integers(ctx, b, "flat", flat, 2);
    node(b, "Conv", "x", "cw", "c", &pad);
    node(b, "Relu", "c", NULL, "r", NULL);
    node(b, "Conv", "x", "kw", "k0", NULL);
    node(b, "CountBefore", "k0", NULL, "k", NULL);
    node(b, "Conv", "r", "dw", "d0", &pad);
    node(b, "CountAfter", "d0", NULL, "d", NULL);
    node(b, "Add", "d", "k", "s", NULL);
    node(b, "Relu", "s", NULL, "t", NULL);
    node(b, "GlobalAveragePool", "t", NULL, "g", NULL);
    node(b, "Reshape", "g", "flat", "h", NULL);
    node(b, "Gemm", "h", "fw", "y", &trans);
    node(b, "Softmax", "y", NULL, "p", NULL);
    return end_net(b, "p");
}

/* y = m + c where m is the mean of c over the samples. */
static inline gc_net *make_mixing(gc_ctx *ctx)
{
    static const int64_t c[4] = {CHANNELS, 3, 1, 1}, axes = 0;
    const gc_attr mean = {"axes", &axes, 1, GRADCAM_ATTR_INTS, 0};
    gc_builder *b = begin_net(ctx, -1);
    weight(ctx, b, "cw", 4, c);
    node(b, "Conv", "x", "cw", "c", NULL);
    node(b, "ReduceMean", "c", NULL, "m", &mean);
    node(b, "Add", "c", "m", "y", NULL);
    return end_net(b, "y");
}

typedef struct fixture {
    host host;
    gc_ctx *ctx;
    gc_run *run;
    float x[2 * INPUT_SIZE], masks[MOST * SIDE * SIDE];
    gc_tensor *masks_tensor; /* [MOST, SIDE, SIDE] */
} fixture;

typedef gc_net *(*maker)(gc_ctx *ctx, int64_t samples);

static inline int set_up(fixture *f, maker make, int64_t samples, uint32_t threads, long fail_at)
{
    const int64_t shape[4] = {samples, 3, SIDE, SIDE}, masks[3] = {MOST, SIDE, SIDE};
    memset(f, 0, sizeof *f);
    f->ctx = make_ctx(&f->host, threads);
    gc_net *net = make(f->ctx, samples);
    gc_run_create(net, &f->run, NULL);
    gc_net_unref(net);
    for (uint32_t i = 0; i < 2 * INPUT_SIZE; i++) {
        f->x[i] = noise(i + 1000u);
    }
    for (uint32_t i = 0; i < MOST * SIDE * SIDE; i++) {
        f->masks[i] = noise(i + 5000u) * 0.5f + 0.5f;
    }
    gc_tensor *x = lent(f->ctx, 4, shape, f->x);
    gc_run_set_input(f->run, "x", x, NULL);
    gc_tensor_unref(x);
    f->masks_tensor = lent(f->ctx, 3, masks, f->masks);
    f->host.allocs = 0;
    f->host.fail_at = fail_at;
    return f->run != NULL && f->masks_tensor != NULL;
}

static inline void tear_down(fixture *f)
{
    gc_tensor_unref(f->masks_tensor);
    gc_run_destroy(f->run);
    gc_ctx_unref(f->ctx);
}

static inline gc_net *mixing(gc_ctx *ctx, int64_t samples)
{
    (void)samples;
    return make_mixing(ctx);
}

/* ---- what is perturbed ---- */

enum { MASK_INPUT, MASK_LAYER, ABLATE, ABLATE_GROUPS, WRITE, CASES };

static const int64_t few[6] = {3, 0, 7, 7, 2, 5}, ends[7] = {0, 1, 1, 3, 4, 5, 6};

static inline float written(int64_t index, int64_t i)
{
    return noise((uint32_t)(index * 4099 + i));
}

/* The tensor [samples, CHANNELS, SIDE, SIDE] through its strides. */
static inline void write_all(gc_tensor *t, int64_t index)
{
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    gc_tensor_describe(t, &d);
    for (int64_t i = 0, n = 0; n < d.shape[0]; n++) {
        for (int64_t c = 0; c < d.shape[1]; c++) {
            for (int64_t p = 0; p < SIDE * SIDE; p++, i++) {
                int64_t at = n * d.strides[0] + c * d.strides[1] + p / SIDE * d.strides[2] + p % SIDE * d.strides[3];
                ((float *)d.data)[at] = written(index, i);
            }
        }
    }
}

static inline int32_t write_variant(void *user, int64_t index, gc_tensor *variant)
{
    (void)user;
    write_all(variant, index);
    return 0;
}

static inline void options_of(fixture *f, int which, gc_perturb_options *o)
{
    memset(o, 0, sizeof *o);
    o->struct_size = (uint32_t)sizeof *o;
    o->count = which == MASK_INPUT || which == MASK_LAYER ? MOST : which == ABLATE_GROUPS ? 6 : CHANNELS;
    o->kind = which <= MASK_LAYER ? GRADCAM_PERTURB_MASK
              : which == WRITE    ? GRADCAM_PERTURB_WRITE
                                  : GRADCAM_PERTURB_ABLATE;
    o->value = which == MASK_INPUT ? NULL : which == WRITE ? "c" : "r";
    o->output = "y";
    o->masks = f->masks_tensor;
    o->channels = which == ABLATE_GROUPS ? few : NULL;
    o->groups = which == ABLATE_GROUPS ? ends : NULL;
    o->write = write_variant;
}

static inline gc_status perturb(fixture *f, gc_perturb_options *o, int64_t samples, float *y, gc_error *err)
{
    const int64_t shape[3] = {o->count, samples, CLASSES};
    gc_tensor *outputs = lent(f->ctx, 3, shape, y);
    o->outputs = outputs;
    gc_status s = gc_run_perturb(f->run, o, err);
    o->outputs = NULL;
    gc_tensor_unref(outputs);
    return s;
}

#endif
