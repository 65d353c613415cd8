/* SPDX-License-Identifier: MIT */
/* What was prepared stays: with options->into a method that is called again
   allocates nothing, without it only the map; and maps of layers that lie in
   memory in any order are the sums that equations 1 and 2 say. */
#include "heap.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "unit.h"

enum { CHANNELS = 24, SIDE = 40, CLASSES = 7, LAYERS = 4 };

static gc_tensor *random_tensor(gc_ctx *ctx, int32_t ndim, const int64_t *shape, uint32_t seed)
{
    gc_tensor_desc d;
    gc_tensor *t = NULL;
    size_t n = 1;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = ndim;
    for (int32_t i = 0; i < ndim; i++) {
        d.shape[i] = shape[i];
        n *= (size_t)shape[i];
    }
    if (gc_tensor_create(ctx, &d, &t, NULL) == GRADCAM_OK) {
        gc_tensor_describe(t, &d);
        for (size_t i = 0; i < n; i++) {
            seed = seed * 1664525u + 1013904223u;
            ((float *)d.data)[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
        }
    }
    return t;
}

static void weight(gc_ctx *ctx, gc_builder *b, const char *name, int32_t ndim, const int64_t *shape)
{
    gc_tensor *t = random_tensor(ctx, ndim, shape, (uint32_t)ndim);
    gc_builder_weight(b, name, t, NULL);
    gc_tensor_unref(t);
}

static void node(gc_builder *b, const char *op, const char *x, const char *w, const char *y, const gc_attr *attr)
{
    const char *in[2] = {x, w};
    gc_builder_node(b, op, NULL, in, w == NULL ? 1 : 2, &y, 1, attr, attr == NULL ? 0 : 1, NULL);
}

/* x [N,3,S,S] -> Conv 3x3 c -> Transpose a -> Transpose b -> Relu r -> GlobalAveragePool -> Flatten -> Gemm */
static gc_net *make_net(gc_ctx *ctx)
{
    static const int64_t cw[4] = {CHANNELS, 3, 3, 3}, fw[2] = {CLASSES, CHANNELS}, one = 1;
    static const int64_t pads[4] = {1, 1, 1, 1}, across[4] = {0, 2, 1, 3};
    const gc_attr trans = {"transB", &one, 1, GRADCAM_ATTR_INT, 0}, pad = {"pads", pads, 4, GRADCAM_ATTR_INTS, 0};
    const gc_attr perm = {"perm", across, 4, GRADCAM_ATTR_INTS, 0};
    gc_builder *b = NULL;
    gc_net *net = NULL;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 4;
    d.shape[0] = -1;
    d.shape[1] = 3;
    d.shape[2] = d.shape[3] = SIDE;
    gc_builder_create(ctx, 13, &b, NULL);
    gc_builder_input(b, "x", &d, NULL);
    weight(ctx, b, "cw", 4, cw);
    weight(ctx, b, "fw", 2, fw);
    node(b, "Conv", "x", "cw", "c", &pad);
    node(b, "Transpose", "c", NULL, "a", &perm);
    node(b, "Transpose", "a", NULL, "b", &perm);
    node(b, "Relu", "b", NULL, "r", NULL);
    node(b, "GlobalAveragePool", "r", NULL, "g", NULL);
    node(b, "Flatten", "g", NULL, "f", NULL);
    node(b, "Gemm", "f", "fw", "y", &trans);
    gc_builder_output(b, "y", NULL);
    gc_builder_finish(b, &net, NULL);
    gc_builder_destroy(b);
    return net;
}

static gc_run *make_run(gc_ctx *ctx)
{
    static const int64_t shape[4] = {2, 3, SIDE, SIDE};
    gc_net *net = make_net(ctx);
    gc_tensor *x = random_tensor(ctx, 4, shape, 77);
    gc_run *run = NULL;
    gc_run_create(net, &run, NULL);
    gc_run_set_input(run, NULL, x, NULL);
    gc_tensor_unref(x);
    gc_net_unref(net);
    return run;
}

/* ---- nothing is allocated ---- */

typedef gc_status (*method)(gc_run *run, const gc_explain_options *o, gc_tensor **map, gc_error *err);

static void test_method(tally *t, gc_run *run, method explain, const long *calls)
{
    gc_explain_options o;
    gc_report report;
    gc_tensor *first = NULL, *again = NULL;
    memset(&o, 0, sizeof o);
    memset(&report, 0, sizeof report);
    o.report = &report;
    o.layer = explain == gc_cam ? "r" : NULL; /* by itself CAM takes the convolution, before the transposes */
    gc_error err;
    memset(&err, 0, sizeof err);
    expect(t, explain(run, &o, &first, &err) == GRADCAM_OK, err.message);
    o.into = first;
    long before = *calls;
    gc_status s = explain(run, &o, &again, NULL);
    expect(t, s == GRADCAM_OK && again == first, "the second call writes into the tensor");
    expect(t, *calls == before, "and allocates nothing");
    gc_tensor_unref(again);
    o.into = NULL;
    s = explain(run, &o, &again, NULL);
    expect(t, s == GRADCAM_OK && *calls > before && *calls <= before + 2, "without `into` only the map is new");
    gc_tensor_unref(again);
    gc_tensor_unref(first);
}

/* A map of another size is made of one in the run's memory. */
static void test_size(tally *t, gc_run *run, const long *calls)
{
    gc_explain_options o;
    gc_tensor *first = NULL, *again = NULL;
    gc_tensor_desc d;
    memset(&o, 0, sizeof o);
    o.height = 70;
    o.width = 90;
    o.normalize = 1;
    expect(t, gc_gradcam(run, &o, &first, NULL) == GRADCAM_OK, "a large map");
    gc_tensor_describe(first, &d);
    expect(t, d.ndim == 3 && d.shape[0] == 2 && d.shape[1] == 70 && d.shape[2] == 90, "of that size");
    o.into = first;
    long before = *calls;
    gc_status s = gc_gradcam(run, &o, &again, NULL);
    expect(t, s == GRADCAM_OK && again == first && *calls == before, "again, and nothing is allocated");
    gc_tensor_unref(again);
    gc_tensor_unref(first);
}

static const char *const layers[LAYERS] = {"r", "a", "c", "x"};

static void test_layers(tally *t, gc_run *run, const long *calls)
{
    gc_tensor *maps[LAYERS] = {NULL}, *again[LAYERS] = {NULL};
    gc_explain_options o;
    memset(&o, 0, sizeof o);
    expect(t, gc_gradcam_layers(run, layers, LAYERS, &o, maps, NULL) == GRADCAM_OK, "a sweep");
    o.into_layers = maps;
    long before = *calls;
    gc_status s = gc_gradcam_layers(run, layers, LAYERS, &o, again, NULL);
    expect(t, s == GRADCAM_OK && memcmp(maps, again, sizeof maps) == 0, "the second sweep writes into the tensors");
    expect(t, *calls == before, "and allocates nothing");
    for (int i = 0; i < LAYERS; i++) {
        gc_tensor_unref(again[i]);
    }
    gc_tensor_unref(maps[1]);
    maps[1] = NULL;
    s = gc_gradcam_layers(run, layers, LAYERS, &o, again, NULL);
    expect(t, s == GRADCAM_OK && again[0] == maps[0] && again[1] != NULL, "a layer without a tensor gets a new one");
    for (int i = 0; i < LAYERS; i++) {
        gc_tensor_unref(again[i]);
        gc_tensor_unref(maps[i]);
    }
}

static void test_counts(tally *t, uint32_t threads)
{
    static const method methods[4] = {gc_cam, gc_gradcam, gc_guided_backprop, gc_guided_gradcam};
    heap h = {-1, 0, 0, 0, 0};
    gc_ctx *ctx = NULL;
    heap_ctx(&h, threads, &ctx, NULL);
    gc_run *run = make_run(ctx);
    for (int i = 0; i < 4; i++) {
        test_method(t, run, methods[i], &h.calls);
    }
    test_size(t, run, &h.calls);
    test_layers(t, run, &h.calls);
    gc_run_forward(run, NULL);
    long before = h.calls;
    expect(t, gc_run_forward(run, NULL) == GRADCAM_OK && h.calls == before, "a forward pass allocates nothing");
    gc_run_destroy(run);
    gc_ctx_unref(ctx);
}

/* ---- the sums ---- */

static double pooled(const gc_tensor_desc *g, int64_t n, int64_t k, const gc_explain_options *o)
{
    double sum = 0.0, most = -INFINITY;
    for (int64_t y = 0; y < g->shape[2]; y++) {
        for (int64_t x = 0; x < g->shape[3]; x++) {
            double v = (double)((const float *)g->data)[n * g->strides[0] + k * g->strides[1] + y * g->strides[2] +
                                                        x * g->strides[3]];
            v = o->grad == GRADCAM_GRAD_ABS ? fabs(v) : o->grad == GRADCAM_GRAD_POSITIVE && v < 0.0 ? 0.0 : v;
            sum += v;
            most = v > most ? v : most;
        }
    }
    return o->pool == GRADCAM_POOL_MAX   ? most
           : o->pool == GRADCAM_POOL_SUM ? sum
                                         : sum / (double)(g->shape[2] * g->shape[3]);
}

/* The greatest difference of a map to the sums, over the sums of magnitudes. */
static double wrong_by(gc_run *run, const char *layer, const gc_explain_options *o, gc_tensor *map)
{
    gc_tensor *act = NULL, *grad = NULL;
    gc_tensor_desc a, g, m;
    double worst = 0.0;
    gc_run_value(run, layer, &act, NULL);
    gc_run_gradient(run, layer, &grad, NULL);
    gc_tensor_describe(act, &a);
    gc_tensor_describe(grad, &g);
    gc_tensor_describe(map, &m);
    for (int64_t i = 0; i < m.shape[0] * m.shape[1] * m.shape[2]; i++) {
        int64_t n = i / (m.shape[1] * m.shape[2]), y = i / m.shape[2] % m.shape[1], x = i % m.shape[2];
        double sum = 0.0, magnitude = 1e-30;
        for (int64_t k = 0; k < a.shape[1]; k++) {
            double v = (double)((const float *)
                                    a.data)[n * a.strides[0] + k * a.strides[1] + y * a.strides[2] + x * a.strides[3]] *
                       pooled(&g, n, k, o);
            sum += v;
            magnitude += fabs(v);
        }
        sum = !o->signed_map && sum < 0.0 ? 0.0 : sum;
        double off = fabs(sum - (double)((const float *)m.data)[i]) / magnitude;
        worst = off > worst || !(off == off) ? off : worst;
    }
    return worst;
}

static void test_sums(tally *t)
{
    heap h = {-1, 0, 0, 0, 0};
    gc_ctx *ctx = NULL;
    heap_ctx(&h, 2, &ctx, NULL);
    gc_run *run = make_run(ctx);
    for (int32_t i = 0; i < LAYERS; i++) {
        gc_run_watch(run, layers[i], GRADCAM_WATCH_GRAD, NULL); /* for the judge */
    }
    for (int32_t i = 0; i < 9 * LAYERS; i++) {
        gc_explain_options o;
        gc_tensor *map = NULL;
        memset(&o, 0, sizeof o);
        o.layer = layers[i / 9];
        o.pool = i % 3;
        o.grad = i / 3 % 3;
        o.signed_map = (uint32_t)i % 2;
        gc_status s = gc_gradcam(run, &o, &map, NULL);
        double off = s == GRADCAM_OK ? wrong_by(run, o.layer, &o, map) : INFINITY;
        /* 64 terms in float, twice, and the roundings of weight and product */
        expect(t, off < 2.0 * 64.0 * 1.2e-7, "a map is the weighted sum of the channels");
        gc_tensor_unref(map);
    }
    gc_run_destroy(run);
    gc_ctx_unref(ctx);
}

int main(void)
{
    tally t = {0, 0};
    test_counts(&t, 1);
    test_counts(&t, 2);
    test_sums(&t);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
