/* SPDX-License-Identifier: MIT */
/* What a host may ask of a run: arithmetic of the nodes, layers to look at,
   progress, and stopping at every single step. */
#include <stdio.h>
#include <string.h>

#include "gradcam/gradcam.h"
#include "unit.h"

/* ---- networks by hand ---- */

static gc_tensor *tensor(gc_ctx *ctx, int32_t ndim, int64_t a, int64_t b, int64_t c, int64_t d)
{
    gc_tensor_desc desc;
    gc_tensor *t = NULL;
    memset(&desc, 0, sizeof desc);
    desc.dtype = GRADCAM_F32;
    desc.ndim = ndim;
    desc.shape[0] = a;
    desc.shape[1] = b;
    desc.shape[2] = c;
    desc.shape[3] = d;
    gc_tensor_create(ctx, &desc, &t, NULL);
    return t;
}

/* One node y = op(x, w, r) between an input and an output. */
typedef struct lonely {
    const char *op;
    gc_attr attr;       /* name NULL: none */
    int32_t nx, nw, nr; /* ranks; 0: no such weight */
    int64_t x[4], w[4], r[4];
    int64_t flops;
} lonely;

static gc_status add_weight(gc_ctx *ctx, gc_builder *b, const char *name, int32_t n, const int64_t *shape,
                            gc_error *err)
{
    gc_tensor *t = n > 0 ? tensor(ctx, n, shape[0], shape[1], shape[2], shape[3]) : NULL;
    gc_status s = n > 0 ? gc_builder_weight(b, name, t, err) : GRADCAM_OK;
    gc_tensor_unref(t);
    return s;
}

static gc_status build(gc_ctx *ctx, const lonely *l, gc_net **net, gc_error *err)
{
    const char *in[3] = {"x", "w", "r"}, *out = "y";
    gc_builder *b = NULL;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = l->nx;
    memcpy(d.shape, l->x, sizeof l->x);
    gc_status s = gc_builder_create(ctx, 13, &b, err);
    s = s ? s : gc_builder_input(b, "x", &d, err);
    s = s ? s : add_weight(ctx, b, "w", l->nw, l->w, err);
    s = s ? s : add_weight(ctx, b, "r", l->nr, l->r, err);
    s = s ? s
          : gc_builder_node(b, l->op, "node", in, 1u + (l->nw > 0) + (l->nr > 0), &out, 1, &l->attr,
                            l->attr.name != NULL, err);
    s = s ? s : gc_builder_output(b, "y", err);
    s = s ? s : gc_builder_finish(b, net, err);
    gc_builder_destroy(b);
    return s;
}

static void test_flops_of(tally *t, gc_ctx *ctx, const lonely *l)
{
    gc_net *net = NULL;
    gc_run *run = NULL;
    gc_tensor *x = tensor(ctx, l->nx, l->x[0], l->x[1], l->x[2], l->x[3]);
    gc_error err;
    memset(&err, 0, sizeof err);
    gc_status s = build(ctx, l, &net, &err);
    s = s ? s : gc_run_create(net, &run, &err);
    s = s ? s : gc_run_set_input(run, "x", x, &err);
    expect(t, gc_run_node_flops(run, 0) == -1, "no arithmetic before gc_run_prepare");
    s = s ? s : gc_run_prepare(run, &err);
    const int64_t got = gc_run_node_flops(run, 0);
    if (s != GRADCAM_OK || got != l->flops) {
        printf("%s: %lld instead of %lld %s\n", l->op, (long long)got, (long long)l->flops, err.message);
    }
    expect(t, s == GRADCAM_OK && got == l->flops, "operations of a node");
    expect(t, gc_run_node_flops(run, 1) == -1 && gc_run_node_flops(run, -1) == -1, "no such node");
    gc_tensor_unref(x);
    gc_run_destroy(run);
    gc_net_unref(net);
}

static void test_flops(tally *t, gc_ctx *ctx)
{
    static const int64_t two = 2, eight = 8, one = 1;
    static const char batched[] = "bij,bjk->bik", dots[] = "...ij,...jk->...ik", implicit[] = "ij,jk", trace[] = "ii";
    const lonely cases[] = {
        /* 2 x 3 x 3 outputs of 4 channels, 8 / 2 x 3 x 3 products each */
        {"Conv", {"group", &two, 1, GRADCAM_ATTR_INT, 0}, 4, 4, 0, {2, 8, 5, 5}, {4, 4, 3, 3}, {0}, 2 * 72 * 36},
        {"ConvTranspose", {NULL, NULL, 0, 0, 0}, 4, 4, 0, {1, 6, 4, 4}, {6, 5, 2, 2}, {0}, 2 * 96 * 20},
        {"Gemm", {"transA", &one, 1, GRADCAM_ATTR_INT, 0}, 2, 2, 0, {7, 3}, {7, 5}, {0}, 2 * 3 * 5 * 7},
        {"MatMul", {NULL, NULL, 0, 0, 0}, 3, 2, 0, {2, 3, 7}, {7, 5}, {0}, 2 * 6 * 5 * 7},
        {"LSTM",
         {"hidden_size", &eight, 1, GRADCAM_ATTR_INT, 0},
         3,
         3,
         3,
         {5, 2, 3},
         {1, 32, 3},
         {1, 32, 8},
         2 * 10 * (96 + 256)},
        {"Einsum",
         {"equation", batched, sizeof batched - 1, GRADCAM_ATTR_STRING, 0},
         3,
         3,
         0,
         {2, 3, 4},
         {2, 4, 5},
         {0},
         2 * 30 * 4},
        {"Einsum",
         {"equation", dots, sizeof dots - 1, GRADCAM_ATTR_STRING, 0},
         4,
         3,
         0,
         {2, 6, 3, 4},
         {6, 4, 5},
         {0},
         2 * 180 * 4},
        {"Einsum",
         {"equation", implicit, sizeof implicit - 1, GRADCAM_ATTR_STRING, 0},
         2,
         2,
         0,
         {3, 4},
         {4, 5},
         {0},
         2 * 15 * 4},
        {"Einsum", {"equation", trace, sizeof trace - 1, GRADCAM_ATTR_STRING, 0}, 2, 0, 0, {3, 3}, {0}, {0}, 0},
        {"Relu", {NULL, NULL, 0, 0, 0}, 4, 0, 0, {1, 2, 3, 4}, {0}, {0}, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_flops_of(t, ctx, &cases[i]);
    }
}

/* ---- the demo network ---- */

typedef struct watcher {
    uint32_t next[2], total[2]; /* by phase: forward, backward */
    uint32_t calls, stop_at;    /* stop_at 0: never */
    int in_order;
} watcher;

static int32_t watch(void *user, const gc_progress *p)
{
    watcher *w = user;
    const int phase = p->phase == GRADCAM_HOOK_BACKWARD;
    w->in_order = w->in_order && p->struct_size == sizeof *p && p->run != NULL && p->done <= p->total &&
                  (p->done == 0 || (p->done == w->next[phase] && p->total == w->total[phase]));
    w->next[phase] = p->done + 1;
    w->total[phase] = p->total;
    return ++w->calls == w->stop_at ? 42 : 0;
}

static gc_status open_demo(gc_ctx *ctx, gc_run **run, gc_error *err)
{
    gc_net *net = NULL;
    gc_tensor *image = tensor(ctx, 4, 1, 3, 112, 112);
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    gc_tensor_describe(image, &d);
    for (int i = 0; i < 3 * 112 * 112; i++) {
        ((float *)d.data)[i] = (float)((unsigned)i * 2654435761u >> 8 & 255u) / 255.0f;
    }
    gc_status s = gc_net_load_file(ctx, "docs/demo/garments.onnx", NULL, &net, err);
    s = s ? s : gc_run_create(net, run, err);
    s = s ? s : gc_run_set_input(*run, NULL, image, err);
    gc_tensor_unref(image);
    gc_net_unref(net);
    return s;
}

static int same(const gc_tensor *a, const gc_tensor *b)
{
    gc_tensor_desc x, y;
    memset(&x, 0, sizeof x);
    memset(&y, 0, sizeof y);
    gc_tensor_describe(a, &x);
    gc_tensor_describe(b, &y);
    return memcmp(x.data, y.data, (size_t)(x.shape[0] * x.strides[0]) * sizeof(float)) == 0;
}

/* Stops at call n; then everything must be as if nothing had happened. */
static void test_stop_at(tally *t, gc_run *run, uint32_t n, const gc_tensor *want)
{
    watcher w = {{0, 0}, {0, 0}, 0, n, 1};
    gc_tensor *map = NULL, *gradient = NULL;
    gc_error err;
    memset(&err, 0, sizeof err);
    gc_run_set_progress(run, watch, &w, NULL);
    gc_status s = gc_gradcam(run, NULL, &map, &err);
    expect(t, s == GRADCAM_E_CANCELLED && map == NULL && err.user_code == 42, "stopped");
    s = gc_run_gradient(run, gc_net_input_name(gc_run_net(run), 0), &gradient, NULL);
    expect(t, s != GRADCAM_OK && gradient == NULL, "no gradient to read");
    gc_run_set_progress(run, NULL, NULL, NULL);
    s = gc_gradcam(run, NULL, &map, &err);
    expect(t, s == GRADCAM_OK && same(map, want), "the next one is whole");
    gc_tensor_unref(map);
}

static void test_progress(tally *t, gc_run *run)
{
    watcher w = {{0, 0}, {0, 0}, 0, 0, 1};
    gc_tensor *map = NULL;
    const char *input = gc_net_input_name(gc_run_net(run), 0);
    expect(t, gc_run_watch(run, input, GRADCAM_WATCH_GRAD, NULL) == GRADCAM_OK, "watch");
    expect(t, gc_run_set_progress(run, watch, &w, NULL) == GRADCAM_OK, "a callback");
    expect(t, gc_run_set_progress(NULL, watch, &w, NULL) == GRADCAM_E_INVALID, "no run");
    expect(t, gc_gradcam(run, NULL, &map, NULL) == GRADCAM_OK, "it runs");
    expect(t, w.in_order && w.total[0] > 5 && w.next[0] == w.total[0] + 1 && w.next[1] == w.total[1] + 1,
           "both passes count from 0 to their end");
    for (uint32_t n = 1; n <= w.calls; n++) {
        test_stop_at(t, run, n, map);
    }
    gc_tensor_unref(map);
}

static void test_layers(tally *t, gc_run *run)
{
    const char *names[64], *first = NULL;
    size_t count = 0, again = 0;
    gc_report report;
    gc_explain_options o;
    gc_tensor *map = NULL;
    gc_target far;
    memset(&report, 0, sizeof report);
    memset(&o, 0, sizeof o);
    memset(&far, 0, sizeof far);
    o.report = &report;
    expect(t, gc_candidate_layers(run, NULL, names, 64, &count, NULL) == GRADCAM_OK, "layers");
    expect(t, count > 3 && count < 64, "a plausible number of layers");
    expect(t, gc_gradcam(run, &o, &map, NULL) == GRADCAM_OK, "a map");
    expect(t, strcmp(report.layer, names[0]) == 0, "the default first");
    gc_tensor_unref(map);
    expect(t, gc_candidate_layers(run, NULL, NULL, 0, &again, NULL) == GRADCAM_OK && again == count, "only counted");
    expect(t,
           gc_candidate_layers(run, NULL, &first, 1, &again, NULL) == GRADCAM_OK && again == count && first == names[0],
           "only the first");
    for (size_t i = 0; i < count; i++) {
        gc_tensor_desc d;
        map = NULL;
        o.layer = names[i];
        memset(&d, 0, sizeof d);
        expect(t, gc_gradcam(run, &o, &map, NULL) == GRADCAM_OK, "each of them can be drawn");
        gc_tensor_describe(map, &d);
        expect(t, d.ndim == 3 && d.shape[1] * d.shape[2] > 1, "and has a spatial extent");
        gc_tensor_unref(map);
    }
    far.output = names[count / 2];
    expect(t, gc_candidate_layers(run, &far, names, 64, &again, NULL) == GRADCAM_OK && again < count, "before a layer");
    expect(t, gc_candidate_layers(run, NULL, NULL, 2, &again, NULL) == GRADCAM_E_INVALID, "nowhere to write");
}

static gc_status chain(gc_builder *b, const char *op, const char *x, const char *y, const gc_attr *attr, gc_error *err)
{
    const char *in[2] = {x, strcmp(op, "Conv") == 0 ? "w" : NULL};
    return gc_builder_node(b, op, NULL, in, 2, &y, 1, attr, attr != NULL, err);
}

/* Channels last in between keep a map a map; pooled and turned features,
   [1, 1, 1, 24], are none although their last axis is long. */
static gc_status turning_net(gc_ctx *ctx, gc_builder *b, gc_error *err)
{
    static const int64_t last[4] = {0, 2, 3, 1}, first[4] = {0, 3, 1, 2}, weight[4] = {24, 3, 3, 3};
    const gc_attr to_last = {"perm", last, 4, GRADCAM_ATTR_INTS, 0};
    const gc_attr to_first = {"perm", first, 4, GRADCAM_ATTR_INTS, 0};
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 4;
    d.shape[0] = 1;
    d.shape[1] = 3;
    d.shape[2] = 9;
    d.shape[3] = 8;
    gc_status s = gc_builder_input(b, "x", &d, err);
    s = s ? s : add_weight(ctx, b, "w", 4, weight, err);
    s = s ? s : chain(b, "Conv", "x", "map", NULL, err);
    s = s ? s : chain(b, "Transpose", "map", "last", &to_last, err);
    s = s ? s : chain(b, "Tanh", "last", "bent", NULL, err);
    s = s ? s : chain(b, "Transpose", "bent", "back", &to_first, err);
    s = s ? s : chain(b, "GlobalAveragePool", "back", "mean", NULL, err);
    s = s ? s : chain(b, "Transpose", "mean", "turned", &to_last, err);
    s = s ? s : chain(b, "Relu", "turned", "features", NULL, err);
    s = s ? s : chain(b, "Flatten", "features", "y", NULL, err);
    return s ? s : gc_builder_output(b, "y", err);
}

static void test_turned(tally *t, gc_ctx *ctx)
{
    gc_builder *b = NULL;
    gc_net *net = NULL;
    gc_run *run = NULL;
    gc_tensor *x = tensor(ctx, 4, 1, 3, 9, 8);
    const char *names[8] = {NULL};
    size_t count = 0;
    gc_error err;
    memset(&err, 0, sizeof err);
    gc_status s = gc_builder_create(ctx, 13, &b, &err);
    s = s ? s : turning_net(ctx, b, &err);
    s = s ? s : gc_builder_finish(b, &net, &err);
    s = s ? s : gc_run_create(net, &run, &err);
    s = s ? s : gc_run_set_input(run, NULL, x, &err);
    s = s ? s : gc_candidate_layers(run, NULL, names, 8, &count, &err);
    expect(t, s == GRADCAM_OK, err.message);
    expect(t, count == 2 && strcmp(names[0], "back") == 0 && strcmp(names[1], "map") == 0, "maps, and nothing else");
    gc_tensor_unref(x);
    gc_run_destroy(run);
    gc_net_unref(net);
    gc_builder_destroy(b);
}

int main(void)
{
    tally t = {0, 0};
    gc_ctx *ctx = NULL;
    gc_run *run = NULL;
    gc_error err;
    memset(&err, 0, sizeof err);
    expect(&t, gc_ctx_create(NULL, &ctx, &err) == GRADCAM_OK, err.message);
    test_flops(&t, ctx);
    test_turned(&t, ctx);
    expect(&t, open_demo(ctx, &run, &err) == GRADCAM_OK, err.message);
    expect(&t, gc_net_parameter_count(gc_run_net(run)) == 140974 && gc_net_parameter_count(NULL) == -1, "parameters");
    test_layers(&t, run);
    test_progress(&t, run);
    gc_run_destroy(run);
    gc_ctx_unref(ctx);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
