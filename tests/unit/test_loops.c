/* SPDX-License-Identifier: MIT */
/* A model with a loop in a loop, a branch, a sequence and a scan, while every
   allocation of loading, preparing and running fails in turn. */
#include "heap.h"

#include "model_bytes.h"

/* ---- the model ---- */

static pb attr_graph(const char *name, const pb *graph)
{
    pb a = {0, {0}};
    pb_text(&a, 1, name);
    pb_part(&a, 6, graph);
    pb_int(&a, 20, 5);
    return a;
}

static pb attr_int(const char *name, uint64_t v)
{
    pb a = {0, {0}};
    pb_text(&a, 1, name);
    pb_int(&a, 3, v);
    pb_int(&a, 20, 2);
    return a;
}

static void add_node(pb *graph, const char *op, const char *inputs, const char *outputs, const pb *a, const pb *b)
{
    pb n = node(op, inputs, outputs, a);
    if (b != NULL) {
        pb_part(&n, 5, b);
    }
    pb_text(&n, 3, outputs); /* named by its output */
    pb_part(graph, 1, &n);
}

/* ValueInfoProtos that say nothing but names. */
static void add_names(pb *graph, uint32_t field, const char *names)
{
    while (*names != '\0') {
        size_t n = strcspn(names, " ");
        pb v = {0, {0}};
        pb_bytes(&v, 1, names, n);
        pb_part(graph, field, &v);
        names += n + (names[n] == ' ');
    }
}

/* e, the state; two turns of e + x, each a piece of the sequence t. */
static pb inner_body(void)
{
    pb g = {0, {0}};
    add_names(&g, 11, "j on e s");
    add_node(&g, "Add", "e x", "f", NULL, NULL);
    add_node(&g, "SequenceInsert", "s f", "t", NULL, NULL);
    add_names(&g, 12, "on f t");
    return g;
}

/* A branch that makes c of the state of the outer loop. */
static pb branch(const char *op)
{
    pb g = {0, {0}};
    add_node(&g, op, "a", "c", NULL, NULL);
    add_names(&g, 12, "c");
    return g;
}

static pb outer_body(void)
{
    static const float scale = 0.5f;
    pb g = {0, {0}}, inner = inner_body(), yes = branch("Neg"), no = branch("Abs");
    pb body = attr_graph("body", &inner), then_part = attr_graph("then_branch", &yes);
    pb else_part = attr_graph("else_branch", &no), along = attr_int("axis", 0);
    pb weight = tensor_raw("w", 1, 1, &scale, sizeof scale);
    pb_part(&g, 5, &weight);
    add_names(&g, 11, "i go a");
    add_node(&g, "If", "go", "b", &then_part, &else_part);
    add_node(&g, "SequenceEmpty", "", "none", NULL, NULL);
    pb two = node("Loop", "n go b none", "h parts", &body);
    pb_text(&two, 3, "inner");
    pb_part(&g, 1, &two);
    add_node(&g, "ConcatFromSequence", "parts", "whole", &along, NULL);
    add_node(&g, "Mul", "h w", "k", NULL, NULL);
    add_names(&g, 12, "go k whole");
    return g;
}

static pb scan_body(void)
{
    pb g = {0, {0}};
    add_names(&g, 11, "p q");
    add_node(&g, "Add", "p q", "r", NULL, NULL);
    add_names(&g, 12, "r r");
    return g;
}

/* x [3] -> two turns of the outer loop, the scan of what they stacked -> y */
static pb loops(void)
{
    static const int64_t two = 2;
    pb g = {0, {0}}, x = value_info("x", 3), outer = outer_body(), sums = scan_body();
    pb n = tensor_raw("n", 7, 1, &two, sizeof two), body = attr_graph("body", &outer);
    pb scanned = attr_graph("body", &sums), one = attr_int("num_scan_inputs", 1), along = attr_int("axis", 0);
    pb_part(&g, 5, &n);
    pb_part(&g, 11, &x);
    pb first = node("Loop", "n  x", "u all", &body);
    pb_text(&first, 3, "outer");
    pb_part(&g, 1, &first);
    add_node(&g, "ReduceSum", "all", "zero", NULL, NULL);
    pb second = node("Scan", "zero all", "sum sums", &scanned);
    pb_part(&second, 5, &one);
    pb_text(&second, 3, "scan");
    pb_part(&g, 1, &second);
    add_node(&g, "SplitToSequence", "sums", "rows", &along, NULL);
    add_node(&g, "ConcatFromSequence", "rows", "y", &along, NULL);
    add_names(&g, 12, "y u");
    return model(&g);
}

/* ---- the passes ---- */

static gc_status bind(gc_ctx *ctx, gc_run *run, gc_error *err)
{
    static const float three[3] = {1.0f, -2.0f, 3.0f};
    gc_tensor *x = NULL;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 1;
    d.shape[0] = 3;
    gc_status s = gc_tensor_create(ctx, &d, &x, err);
    if (s == GRADCAM_OK) {
        gc_tensor_describe(x, &d);
        memcpy(d.data, three, sizeof three);
        s = gc_run_set_input(run, "x", x, err);
    }
    gc_tensor_unref(x);
    return s;
}

static gc_status pass(gc_run *run, double *result, gc_error *err)
{
    gc_tensor *t = NULL;
    gc_tensor_desc d;
    gc_status s = gc_run_forward(run, err);
    s = s ? s : gc_run_value(run, "u", &t, err);
    s = s ? s : gc_run_backward(run, "u", t, err);
    s = s ? s : gc_run_gradient(run, "x", &t, err);
    if (s == GRADCAM_OK) {
        gc_tensor_describe(t, &d);
        *result = (double)((const float *)d.data)[0] + 10.0 * (double)((const float *)d.data)[1];
        s = gc_run_value(run, "outer/1/inner/0/f", &t, err);
    }
    return s;
}

static gc_status everything(heap *h, const pb *m, double *result, gc_error *err)
{
    gc_load_options o;
    gc_ctx *ctx = NULL;
    gc_net *net = NULL;
    gc_run *run = NULL;
    gc_status s = heap_ctx(h, 0, &ctx, err);
    memset(&o, 0, sizeof o);
    o.max_nodes = 1000; /* damaged trip counts end soon */
    s = s ? s : gc_net_load_memory(ctx, m->bytes, m->n, &o, &net, err);
    s = s ? s : gc_run_create(net, &run, err);
    s = s ? s : gc_run_watch(run, "x", GRADCAM_WATCH_GRAD, err);
    s = s ? s : gc_run_watch(run, "outer/1/inner/0/f", GRADCAM_WATCH_VALUE, err);
    s = s ? s : bind(ctx, run, err);
    if (s == GRADCAM_OK && (s = pass(run, result, err)) == GRADCAM_E_NOMEM) {
        h->fail_at = -1; /* with memory again the same run goes on */
        s = pass(run, result, NULL) == GRADCAM_OK ? s : GRADCAM_E_INTERNAL;
    }
    gc_run_destroy(run);
    gc_net_unref(net);
    gc_ctx_unref(ctx);
    return s;
}

/* u = ((-((-x + 2x) / 2)) + 2x) / 2 = 3x / 4, so with seed u the gradient is 9x / 16. */
static void test_faults(tally *t)
{
    pb m = loops();
    heap plenty = {-1, 0, 0, 0, 0};
    double want = 9.0 / 16.0 * (1.0 - 20.0), got = 0.0;
    gc_error err;
    memset(&err, 0, sizeof err);
    gc_status s = everything(&plenty, &m, &got, &err);
    if (s != GRADCAM_OK) {
        printf("%s\n", err.message);
    }
    expect(t, s == GRADCAM_OK && got == want && plenty.live == 0, "without faults");
    int clean = 1;
    long n = 0;
    for (s = GRADCAM_E_NOMEM; s != GRADCAM_OK && n < 100000; n++) {
        heap h = {n, 0, 0, 0, 0};
        got = 0.0;
        memset(&err, 0, sizeof err);
        s = everything(&h, &m, &got, &err);
        clean = clean && h.live == 0 && (s == GRADCAM_E_NOMEM || (s == GRADCAM_OK && got == want));
    }
    printf("fault loop: %ld allocations failed in turn\n", n - 1);
    expect(t, s == GRADCAM_OK && n > 200, "the fault loop reaches the end");
    expect(t, clean, "a failed allocation is a clean error, leaks nothing, and the run is usable again");
}

/* The model cut short, and with every bit changed: a message or a result. */
static void test_damage(tally *t)
{
    pb m = loops();
    heap h = {-1, 0, 0, 0, 0};
    double got;
    int clean = 1;
    for (size_t i = 0; i < 8 * m.n; i++) {
        gc_error err;
        memset(&err, 0, sizeof err);
        m.bytes[i / 8] ^= (unsigned char)(1u << i % 8);
        gc_status s = everything(&h, &m, &got, &err);
        m.bytes[i / 8] ^= (unsigned char)(1u << i % 8);
        clean = clean && (s == GRADCAM_OK || err.message[0] != '\0') && s != GRADCAM_E_INTERNAL && h.live == 0;
        h.fail_at = -1;
    }
    expect(t, clean, "a changed bit is a result or an error with a message");
}

/* A sequence of no parts, and how many they are. */
static gc_status count_nothing(gc_run *run, gc_tensor *x, int64_t *count, gc_error *err)
{
    gc_tensor *n = NULL;
    gc_tensor_desc d;
    gc_status s = gc_run_set_input(run, "x", x, err);
    s = s ? s : gc_run_forward(run, err);
    s = s ? s : gc_run_value(run, "n", &n, err);
    if (s == GRADCAM_OK) {
        gc_tensor_describe(n, &d);
        *count = *(const int64_t *)d.data;
    }
    return s;
}

static void test_nothing(tally *t)
{
    pb graph = {0, {0}}, input = value_info("x", 0), output = value_info("n", 0);
    int64_t count = -1;
    heap h = {-1, 0, 0, 0, 0};
    gc_ctx *ctx = NULL;
    gc_run *run = NULL;
    gc_tensor *x = NULL;
    gc_tensor_desc d;
    add_node(&graph, "SplitToSequence", "x", "parts", NULL, NULL);
    add_node(&graph, "SequenceLength", "parts", "n", NULL, NULL);
    pb_part(&graph, 11, &input);
    pb_part(&graph, 12, &output);
    pb m = model(&graph);
    gc_status s = heap_ctx(&h, 0, &ctx, NULL);
    gc_net *net = s ? NULL : load_as(t, ctx, &m, NULL, GRADCAM_OK, "", "a sequence of nothing loads");
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 1;
    s = gc_tensor_create(ctx, &d, &x, NULL);
    s = s ? s : gc_run_create(net, &run, NULL);
    s = s ? s : count_nothing(run, x, &count, NULL);
    expect(t, s == GRADCAM_OK && count == 0, "a sequence of no parts");
    gc_run_destroy(run);
    gc_tensor_unref(x);
    gc_net_unref(net);
    gc_ctx_unref(ctx);
    expect(t, h.live == 0, "and nothing is left");
}

int main(void)
{
    tally t = {0, 0};
    test_faults(&t);
    test_nothing(&t);
    test_damage(&t);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
