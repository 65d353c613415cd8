/* SPDX-License-Identifier: MIT */
/* Where a backward pass carries the sum of a gradient over places in the place of the
   gradient, and that nothing is allocated for it.  The numbers are judged by
   tests/python/test_gradient_mean.py. */
#include "heap.h"

#include <string.h>

#include "run/run.h"
#include "unit.h"

enum { NODES = 8, CHANNELS = 24, SIDE = 8, TOKENS = 10 };

typedef struct made_node {
    const char *op, *in, *weight, *out;
    int64_t shape[4]; /* of the weight, or of what Reshape makes */
    gc_attr attr;
} made_node;

/* A network, and at which of its values the whole gradient is needed for the mean of x. */
typedef struct sample {
    const char *name;
    made_node nodes[NODES];
    const char *whole; /* NULL: of none with more than one place */
    int32_t tokens;
} sample;

static const int64_t one = 1, pair[2] = {2, 2}, triple[2] = {3, 3}, pads[4] = {1, 1, 1, 1};
#define KERNEL(k)                                                                                                      \
    {                                                                                                                  \
        "kernel_shape", k, 2, GRADCAM_ATTR_INTS, 0                                                                     \
    }
#define TURNED                                                                                                         \
    {                                                                                                                  \
        "transB", &one, 1, GRADCAM_ATTR_INT, 0                                                                         \
    }
#define NONE                                                                                                           \
    {                                                                                                                  \
        NULL, NULL, 0, 0, 0                                                                                            \
    }

static const sample samples[] = {
    {"VGG",
     {{"MaxPool", "x", NULL, "p", {0}, KERNEL(pair)},
      {"Flatten", "p", NULL, "f", {0}, NONE},
      {"Gemm", "f", "w", "g", {5, CHANNELS * 49}, TURNED},
      {"Relu", "g", NULL, "y", {0}, NONE}},
     NULL,
     0},
    {"SqueezeNet",
     {{"Conv", "x", "w", "c", {5, CHANNELS, 1, 1}, NONE},
      {"Relu", "c", NULL, "r", {0}, NONE},
      {"GlobalAveragePool", "r", NULL, "m", {0}, NONE},
      {"Flatten", "m", NULL, "y", {0}, NONE}},
     NULL,
     0},
    {"ResNet",
     {{"GlobalAveragePool", "x", NULL, "m", {0}, NONE},
      {"Flatten", "m", NULL, "f", {0}, NONE},
      {"Gemm", "f", "w", "y", {5, CHANNELS}, TURNED}},
     NULL,
     0},
    {"tokens and a softmax",
     {{"MatMul", "x", "w", "h", {CHANNELS, 6}, NONE},
      {"Add", "h", "b", "z", {6}, NONE},
      {"Softmax", "z", NULL, "y", {0}, NONE}},
     "z",
     1},
    {"a convolution that is not linear place by place",
     {{"Conv", "x", "w", "c", {5, CHANNELS, 3, 3}, {"pads", pads, 4, GRADCAM_ATTR_INTS, 0}},
      {"GlobalAveragePool", "c", NULL, "y", {0}, NONE}},
     "x",
     0},
    {"two readers, one of which is not",
     {{"GlobalAveragePool", "x", NULL, "m", {0}, NONE},
      {"Tanh", "x", NULL, "t", {0}, NONE},
      {"GlobalAveragePool", "t", NULL, "n", {0}, NONE},
      {"Add", "m", "n", "y", {0}, NONE}},
     "x",
     0},
    {"Relu in front of something else than a mean",
     {{"Conv", "x", "w", "c", {5, CHANNELS, 1, 1}, NONE},
      {"Relu", "c", NULL, "r", {0}, NONE},
      {"MaxPool", "r", NULL, "y", {0}, KERNEL(triple)}},
     "c",
     0},
};

static gc_tensor *numbers(gc_ctx *ctx, int32_t ndim, const int64_t *shape)
{
    gc_tensor_desc d;
    gc_tensor *t = NULL;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = ndim;
    uint32_t n = 1;
    for (int32_t i = 0; i < ndim; i++) {
        d.shape[i] = shape[i];
        n *= (uint32_t)shape[i];
    }
    if (gc_tensor_create(ctx, &d, &t, NULL) == GRADCAM_OK) {
        gc_tensor_describe(t, &d);
        for (uint32_t i = 0; i < n; i++) {
            ((float *)d.data)[i] = noise(i);
        }
    }
    return t;
}

static gc_status add_node(gc_ctx *ctx, gc_builder *b, const made_node *n, gc_error *err)
{
    const char *in[2] = {n->in, n->weight};
    int32_t ndim = 0;
    while (ndim < 4 && n->shape[ndim] > 0) {
        ndim++;
    }
    gc_status s = GRADCAM_OK;
    if (ndim > 0) {
        gc_tensor *w = numbers(ctx, ndim, n->shape);
        s = gc_builder_weight(b, n->weight, w, err);
        gc_tensor_unref(w);
    }
    return s ? s
             : gc_builder_node(b, n->op, NULL, in, n->weight == NULL ? 1 : 2, &n->out, 1, &n->attr,
                               n->attr.name == NULL ? 0 : 1, err);
}

static gc_run *run_of(gc_ctx *ctx, const sample *m, gc_error *err)
{
    const int64_t map[4] = {2, CHANNELS, SIDE, SIDE}, tokens[3] = {2, TOKENS, CHANNELS};
    gc_tensor *x = m->tokens ? numbers(ctx, 3, tokens) : numbers(ctx, 4, map);
    gc_tensor_desc d;
    gc_builder *b = NULL;
    gc_net *net = NULL;
    gc_run *run = NULL;
    gc_tensor_describe(x, &d);
    gc_status s = gc_builder_create(ctx, 13, &b, err);
    s = s ? s : gc_builder_input(b, "x", &d, err);
    for (int i = 0; i < NODES && m->nodes[i].op != NULL && s == GRADCAM_OK; i++) {
        s = add_node(ctx, b, &m->nodes[i], err);
    }
    s = s ? s : gc_builder_output(b, "y", err);
    s = s ? s : gc_builder_finish(b, &net, err);
    s = s ? s : gc_run_create(net, &run, err);
    s = s ? s : gc_run_set_input(run, "x", x, err);
    s = s ? s : gc_run_watch_mean(run, "x", m->tokens ? -1 : 1, m->tokens, err);
    s = s ? s : gc_run_prepare(run, err);
    gc_builder_destroy(b);
    gc_net_unref(net);
    gc_tensor_unref(x);
    return run;
}

/* A copy of x in another layout counts as x. */
static const char *name_of(const gc_run *run, const gc_slot *s)
{
    int32_t value = s->net_value >= 0 ? s->net_value : run->plan->slots[run->plan->steps[s->producer].in[0]].net_value;
    return run->net->values[value].name;
}

/* The values whose whole gradient flows for a sum, but for those of one place. */
static int right_ones(const gc_run *run, const char *whole)
{
    int right = 1, seen = 0;
    for (int32_t i = 0; i < run->plan->n_slots; i++) {
        const gc_slot *s = &run->plan->slots[i];
        if (s->sums.whole && s->sums.places.places > 1) {
            int named = whole != NULL && strcmp(name_of(run, s), whole) == 0;
            right = right && named;
            seen += named;
        }
    }
    return right && seen == (whole != NULL);
}

static gc_status pass(gc_run *run, gc_tensor *seed, gc_tensor **mean, gc_error *err)
{
    gc_status s = gc_run_forward(run, err);
    s = s ? s : gc_run_backward(run, "y", seed, err);
    return s ? s : gc_run_gradient_mean(run, "x", mean, err);
}

static void test_sample(tally *t, gc_ctx *ctx, const sample *m, const heap *h)
{
    gc_error err;
    gc_tensor_desc d;
    gc_tensor *seed = NULL, *mean = NULL;
    memset(&err, 0, sizeof err);
    gc_run *run = run_of(ctx, m, &err);
    expect(t, err.status == GRADCAM_OK, err.message);
    expect(t, right_ones(run, m->whole), m->name);
    gc_run_describe(run, "y", &d, NULL);
    seed = numbers(ctx, d.ndim, d.shape);
    expect(t, pass(run, seed, &mean, &err) == GRADCAM_OK, err.message);
    long before = h->calls;
    expect(t, pass(run, seed, &mean, &err) == GRADCAM_OK && h->calls == before, "passes allocate nothing");
    gc_tensor_describe(mean, &d);
    expect(t, d.ndim == 2 && d.shape[0] == 2 && d.shape[1] == CHANNELS, "a mean for each sample and channel");
    gc_tensor_unref(seed);
    gc_run_destroy(run);
}

int main(void)
{
    tally t = {0, 0};
    for (uint32_t threads = 1; threads <= 2; threads++) {
        heap h = {-1, 0, 0, 0, 0};
        gc_ctx *ctx = NULL;
        heap_ctx(&h, threads, &ctx, NULL);
        for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
            test_sample(&t, ctx, &samples[i], &h);
        }
        gc_ctx_unref(ctx);
        expect(&t, h.live == 0, "all memory is given back");
    }
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed > 0;
}
