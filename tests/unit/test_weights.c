/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
/* Large weights: whether they are copied at load or read when a run prepares, and
   from where, changes neither a bit of any result nor what is said of damaged
   models; only the memory that a network takes. */
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "heap.h"
#include "model_bytes.h"

enum { MOST = 1 << 20, SIDE = 12 };

/* A file's content, of any size up to MOST. */
typedef struct content {
    size_t n;
    unsigned char bytes[MOST + 4];
} content;

static void append(content *c, const void *p, size_t n)
{
    if (n <= MOST - c->n) {
        memcpy(c->bytes + c->n, p, n);
        c->n += n;
    }
}

/* GraphProto.initializer; elements are float, or half with the same bytes in each. */
static void add_weight(content *graph, const char *name, uint64_t type, size_t ndim, const int64_t *dims)
{
    static unsigned char raw[MOST];
    pb t = tensor_head(name, type, ndim, dims), head = {0, {0}};
    size_t count = 1, size = type == 1 ? 4 : type == 7 ? 8 : 2;
    for (size_t k = 0; k < ndim; k++) {
        count *= (size_t)dims[k];
    }
    for (size_t k = 0; k < count; k++) {
        float v = noise((uint32_t)(k * 7 + strlen(name) + (unsigned char)name[1])) * 0.2f;
        unsigned char half[2] = {(unsigned char)k, 0x2c}; /* about 1/16 */
        memcpy(raw + k * size, type == 1 ? (const void *)&v : half, type == 1 ? 4 : 2);
    }
    pb_tag(&t, 9, 2);
    pb_number(&t, count * size);
    pb_tag(&head, 5, 2);
    pb_number(&head, t.n + count * size);
    append(graph, head.bytes, head.n);
    append(graph, t.bytes, t.n);
    append(graph, raw, count * size);
}

/* A batch normalization's four, all in (0.5, 1.5). */
static void add_vector(content *graph, const char *name)
{
    float v[64];
    pb head = {0, {0}};
    for (uint32_t k = 0; k < 64; k++) {
        v[k] = 1.0f + 0.5f * noise(k * 31 + (unsigned char)name[0]);
    }
    pb t = tensor_raw(name, 1, 64, v, sizeof v);
    pb_part(&head, 5, &t);
    append(graph, head.bytes, head.n);
}

static pb attr_ints(const char *name, size_t n, const int64_t *values)
{
    pb a = {0, {0}};
    pb_text(&a, 1, name);
    for (size_t k = 0; k < n; k++) {
        pb_int(&a, 8, (uint64_t)values[k]);
    }
    pb_int(&a, 20, 7);
    return a;
}

static pb attr_int(const char *name, int64_t v)
{
    pb a = {0, {0}};
    pb_text(&a, 1, name);
    pb_int(&a, 3, (uint64_t)v);
    pb_int(&a, 20, 2);
    return a;
}

static pb float_input(const char *name, size_t ndim, const int64_t *dims)
{
    pb v = {0, {0}}, type = v, tensor = v, shape = v;
    for (size_t k = 0; k < ndim; k++) {
        pb d = {0, {0}};
        pb_int(&d, 1, (uint64_t)dims[k]);
        pb_part(&shape, 1, &d);
    }
    pb_int(&tensor, 1, 1);
    pb_part(&tensor, 2, &shape);
    pb_part(&type, 1, &tensor);
    pb_text(&v, 1, name);
    pb_part(&v, 2, &type);
    return v;
}

static void add_nodes(pb *g)
{
    static const int64_t pads[4] = {1, 1, 1, 1};
    pb pad = attr_ints("pads", 4, pads), trans = attr_int("transB", 1), axis = attr_int("axis", 2);
    pb all[] = {
        node("Conv", "x w1", "c1", &pad),     node("BatchNormalization", "c1 scale beta mean var", "b1", NULL),
        node("Relu", "b1", "r1", NULL),       node("Conv", "r1 w2", "c2", NULL),
        node("Mul", "c2 w3", "m", NULL),      node("GlobalAveragePool", "m", "p", NULL),
        node("Flatten", "p", "f", NULL),      node("Gemm", "f w4", "y", &trans),
        node("Flatten", "r1", "rows", &axis), node("MatMul", "rows w5", "z", NULL),
    };
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        pb_part(g, 1, &all[k]);
    }
}

/* Convolutions that are packed for Winograd and directly, a batch normalization
   between, weights in half, an operator that reads its weights as they are, a
   classifier of one row and a product of many.  `twice`: a weight is given again. */
static void make_model(content *m, int twice)
{
    static content graph;
    static const int64_t w1[] = {64, 32, 3, 3}, w2[] = {256, 64, 1, 1}, w3[] = {256, SIDE, SIDE}, w4[] = {70, 256},
                         w5[] = {SIDE * SIDE, 128}, x[] = {1, 32, SIDE, SIDE};
    pb nodes = {0, {0}}, ends = nodes, front = nodes, opset = nodes, back = nodes, y = nodes;
    graph.n = m->n = 0;
    add_nodes(&nodes);
    append(&graph, nodes.bytes, nodes.n);
    add_weight(&graph, "w1", 1, 4, w1);
    add_weight(&graph, "w2", 1, 4, w2);
    add_vector(&graph, "scale");
    add_vector(&graph, "beta");
    add_vector(&graph, "mean");
    add_vector(&graph, "var");
    add_weight(&graph, "w3", 10, 3, w3);
    add_weight(&graph, "w4", 1, 2, w4);
    add_weight(&graph, "w5", 1, 2, w5);
    if (twice) {
        add_vector(&graph, "scale");
    }
    pb in = float_input("x", 4, x);
    pb_part(&ends, 11, &in);
    pb_text(&y, 1, "y");
    pb_part(&ends, 12, &y);
    y.n = 0;
    pb_text(&y, 1, "z");
    pb_part(&ends, 12, &y);
    append(&graph, ends.bytes, ends.n);
    pb_int(&front, 1, 8);
    pb_tag(&front, 7, 2);
    pb_number(&front, graph.n);
    append(m, front.bytes, front.n);
    append(m, graph.bytes, graph.n);
    pb_int(&opset, 2, 17);
    pb_part(&back, 8, &opset);
    append(m, back.bytes, back.n);
}

/* ---- contexts and readers ---- */

static gc_ctx *new_ctx(uint32_t threads)
{
    gc_ctx_options o = {0};
    gc_ctx *ctx = NULL;
    o.n_threads = threads;
    return gc_ctx_create(&o, &ctx, NULL) == GRADCAM_OK ? ctx : NULL;
}

static int64_t content_read(void *user, uint64_t offset, void *dst, size_t size)
{
    const content *c = user;
    size_t left = offset < c->n ? c->n - (size_t)offset : 0, n = size < left ? size : left;
    memcpy(dst, c->bytes + offset, n);
    return (int64_t)n;
}

static int64_t content_size(void *user)
{
    return (int64_t)((const content *)user)->n;
}

enum from { MEMORY, READER, DISK };

static gc_status load(gc_ctx *ctx, enum from from, content *m, const char *path, uint32_t weights, gc_net **net,
                      gc_error *err)
{
    gc_load_options o;
    memset(&o, 0, sizeof o);
    o.weights = weights;
    if (from == MEMORY) {
        return gc_net_load_memory(ctx, m->bytes, m->n, &o, net, err);
    }
    if (from == READER) {
        gc_reader reader = {0, 0, m, content_read, content_size};
        return gc_net_load_reader(ctx, &reader, &o, net, err);
    }
    return gc_net_load_file(ctx, path, &o, net, err);
}

static int save(const content *m, const char *path)
{
    FILE *file = fopen(path, "wb");
    return file != NULL && fwrite(m->bytes, 1, m->n, file) == m->n && fclose(file) == 0;
}

/* ---- results ---- */

/* The outputs, two weights, and maps, one after the other; then outputs and maps of
   exact kernels, and of bfloat16 where the machine can. */
typedef struct results {
    gc_status status;
    gc_error err;
    size_t n;
    float v[1 << 18];
} results;

static void keep(results *r, gc_ctx *ctx, gc_tensor *t)
{
    gc_tensor_desc d;
    gc_tensor *row = NULL;
    size_t n = 1;
    gc_tensor_describe(t, &d);
    for (int32_t i = 0; i < d.ndim; i++) {
        n *= (size_t)d.shape[i];
    }
    memset(d.strides, 0, sizeof d.strides);
    d.data = r->v + r->n;
    r->n += n;
    r->status = r->n > sizeof r->v / sizeof *r->v ? GRADCAM_E_INTERNAL : gc_tensor_create(ctx, &d, &row, &r->err);
    r->status = r->status ? r->status : gc_tensor_copy(t, row, &r->err);
    gc_tensor_unref(row);
}

static gc_run *new_run(gc_ctx *ctx, gc_net *net, results *r)
{
    gc_tensor_desc d;
    gc_tensor *x = NULL;
    gc_run *run = NULL;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 4;
    d.shape[0] = 1;
    d.shape[1] = 32;
    d.shape[2] = d.shape[3] = SIDE;
    r->status = gc_run_create(net, &run, &r->err);
    r->status = r->status ? r->status : gc_tensor_create(ctx, &d, &x, &r->err);
    if (r->status == GRADCAM_OK) {
        gc_tensor_describe(x, &d);
        for (uint32_t k = 0; k < 32 * SIDE * SIDE; k++) {
            ((float *)d.data)[k] = noise(k);
        }
    }
    r->status = r->status ? r->status : gc_run_set_input(run, NULL, x, &r->err);
    gc_tensor_unref(x);
    return run;
}

typedef gc_status (*method)(gc_run *, const gc_explain_options *, gc_tensor **, gc_error *);

/* output: NULL, or the value of which one channel is explained; its gradient is sparse. */
static void explain(results *r, gc_ctx *ctx, gc_run *run, method how, const char *layer, const char *output)
{
    gc_explain_options o;
    gc_target target;
    gc_tensor *map = NULL;
    memset(&o, 0, sizeof o);
    memset(&target, 0, sizeof target);
    target.kind = output != NULL ? GRADCAM_TARGET_CLASS : GRADCAM_TARGET_ARGMAX;
    target.index = output != NULL ? 3 : 0;
    target.output = output;
    o.target = &target;
    o.layer = layer;
    r->status = r->status ? r->status : how(run, &o, &map, &r->err);
    if (r->status == GRADCAM_OK) {
        keep(r, ctx, map);
    }
    gc_tensor_unref(map);
}

static void run_all(gc_ctx *ctx, gc_net *net, results *r)
{
    static const char *const values[] = {"y", "z", "w4", "w3"};
    memset(r, 0, sizeof *r);
    gc_run *run = new_run(ctx, net, r);
    for (int32_t pass = 0; pass < 3 && r->status == GRADCAM_OK; pass++) {
        r->status = gc_run_set_exact(run, pass == 1, &r->err);
        if (pass == 2 && gc_run_set_precision(run, GRADCAM_BF16, NULL) != GRADCAM_OK) {
            break;
        }
        r->status = r->status ? r->status : gc_run_forward(run, &r->err);
        for (size_t k = 0; k < (pass > 0 ? 2 : 4) && r->status == GRADCAM_OK; k++) {
            gc_tensor *v = NULL;
            r->status = gc_run_value(run, values[k], &v, &r->err);
            if (r->status == GRADCAM_OK) {
                keep(r, ctx, v);
            }
        }
        explain(r, ctx, run, gc_gradcam, "m", NULL);
        explain(r, ctx, run, gc_gradcam, "r1", NULL);
        explain(r, ctx, run, gc_gradcam, "r1", "c2");
        explain(r, ctx, run, gc_guided_backprop, NULL, NULL);
    }
    gc_run_destroy(run);
}

static void same(tally *t, const results *got, const results *want, const char *what)
{
    int ok = got->status == GRADCAM_OK && got->n == want->n && memcmp(got->v, want->v, want->n * sizeof *want->v) == 0;
    expect(t, ok, what);
    if (got->status != GRADCAM_OK) {
        printf("    %s, \"%s\"\n", gc_status_name(got->status), got->err.message);
    }
}

/* ---- tests ---- */

/* From everywhere, copied or not, with one thread and three. */
static void test_bits(tally *t, content *m, const char *path, const results *want)
{
    static results got;
    for (int k = 0; k < 12; k++) {
        gc_ctx *ctx = new_ctx(k % 2 ? 3 : 1);
        gc_net *net = NULL;
        memset(&got, 0, sizeof got);
        got.status = load(ctx, (enum from)(k / 4), m, path, (uint32_t)(k / 2 % 2), &net, &got.err);
        if (got.status == GRADCAM_OK) {
            run_all(ctx, net, &got);
        }
        same(t, &got, want, "the bits of all results, wherever the weights are");
        gc_net_unref(net);
        gc_ctx_unref(ctx);
    }
}

/* A model in memory at every distance from where floats may be. */
static void test_alignment(tally *t, const content *m, const results *want)
{
    static content moved;
    static results got;
    for (size_t shift = 0; shift < 4; shift++) {
        gc_ctx *ctx = new_ctx(1);
        gc_net *net = NULL;
        gc_load_options o;
        memset(&o, 0, sizeof o);
        memset(&got, 0, sizeof got);
        o.weights = GRADCAM_WEIGHTS_ON_DEMAND;
        memcpy(moved.bytes + shift, m->bytes, m->n);
        got.status = gc_net_load_memory(ctx, moved.bytes + shift, m->n, &o, &net, &got.err);
        if (got.status == GRADCAM_OK) {
            run_all(ctx, net, &got);
        }
        same(t, &got, want, "a model in memory that the network borrows");
        gc_net_unref(net);
        gc_ctx_unref(ctx);
    }
}

/* Bytes that the library holds: `most` while loading, the rest after a forward pass. */
static size_t held(tally *t, enum from from, content *m, const char *path, uint32_t weights, size_t *most)
{
    static results r;
    heap h = {-1, 0, 0, 0, 0};
    gc_ctx *ctx = NULL;
    gc_net *net = NULL;
    heap_ctx(&h, 1, &ctx, NULL);
    r.status = load(ctx, from, m, path, weights, &net, &r.err);
    *most = h.most;
    gc_run *run = r.status ? NULL : new_run(ctx, net, &r);
    expect(t, run != NULL && gc_run_forward(run, NULL) == GRADCAM_OK, "a forward pass under a counting allocator");
    size_t now = h.now;
    gc_run_destroy(run);
    gc_net_unref(net);
    gc_ctx_unref(ctx);
    expect(t, h.now == 0, "everything is released");
    return now;
}

static void test_memory(tally *t, content *m, const char *path)
{
    /* w1, w2 and w5 are packed, w4 serves one row as it is, w3 is halves in the file */
    const size_t packed = 4 * (64 * 32 * 9 + 256 * 64 + SIDE * SIDE * 128), w4 = 4 * 70 * 256,
                 all = packed + w4 + 4 * 256 * SIDE * SIDE, slack = 80 << 10;
    for (int k = READER; k <= DISK; k++) {
        size_t load_copy, load_demand, copy = held(t, (enum from)k, m, path, GRADCAM_WEIGHTS_COPY, &load_copy);
        size_t demand = held(t, (enum from)k, m, path, GRADCAM_WEIGHTS_ON_DEMAND, &load_demand);
        expect(t, load_copy < all + 2 * slack, "at load there is one copy of the weights");
        expect(t, load_copy - load_demand + slack > packed + w4, "at load there is none of those that are read later");
        expect(t, copy - demand + 4096 > packed, "packed weights are there once");
    }
    size_t load_demand, copy = held(t, DISK, m, path, GRADCAM_WEIGHTS_COPY, &load_demand);
    size_t demand = held(t, MEMORY, m, path, GRADCAM_WEIGHTS_ON_DEMAND, &load_demand);
    expect(t, copy - demand + 4096 > packed, "a borrowed model is copied where it is packed only");
}

typedef struct sharer {
    gc_ctx *ctx;
    gc_net *net;
    results got;
} sharer;

static void *share(void *arg)
{
    sharer *s = arg;
    run_all(s->ctx, s->net, &s->got);
    return NULL;
}

/* Runs of one network prepare at the same time: each reads what none has read before. */
static void test_shared(tally *t, const char *path, const results *want)
{
    static sharer all[3];
    pthread_t threads[3];
    gc_ctx *ctx = new_ctx(2);
    gc_net *net = NULL;
    gc_error err;
    int n = load(ctx, DISK, NULL, path, GRADCAM_WEIGHTS_ON_DEMAND, &net, &err) == GRADCAM_OK ? 3 : 0, started = 0;
    for (; started < n; started++) {
        all[started].ctx = ctx;
        all[started].net = net;
        if (pthread_create(&threads[started], NULL, share, &all[started]) != 0) {
            break;
        }
    }
    expect(t, started == 3, "three threads");
    for (int k = 0; k < started; k++) {
        pthread_join(threads[k], NULL);
        same(t, &all[k].got, want, "a network whose weights are read by three threads");
    }
    gc_net_unref(net);
    gc_ctx_unref(ctx);
}

/* Changing the file ends with a message, never otherwise. */
static void test_changed(tally *t, const content *m, const char *path, const results *want)
{
    static results got;
    gc_ctx *ctx = new_ctx(1);
    for (int k = 0; k < 4; k++) {
        gc_net *net = NULL;
        int ok = save(m, path);
        memset(&got, 0, sizeof got);
        got.status = load(ctx, DISK, NULL, path, GRADCAM_WEIGHTS_ON_DEMAND, &net, &got.err);
        switch (k) {
        case 0: ok = ok && truncate(path, (off_t)m->n / 2) == 0; break;
        case 1: ok = ok && truncate(path, 0) == 0; break;
        case 2: ok = ok && truncate(path, (off_t)m->n + 1) == 0; break;
        default: ok = ok && unlink(path) == 0; break;
        }
        if (got.status == GRADCAM_OK) {
            run_all(ctx, net, &got);
        }
        if (k < 3) {
            expect(t, ok && got.status == GRADCAM_E_IO && strstr(got.err.message, "changed") != NULL,
                   "a file that was changed after the load");
        } else {
            expect(t, ok, "the file goes away");
            same(t, &got, want, "a file that was deleted after the load");
        }
        gc_net_unref(net);
    }
    expect(t, load(ctx, DISK, NULL, path, 2, &(gc_net *){NULL}, &got.err) == GRADCAM_E_INVALID, "no such option");
    gc_ctx_unref(ctx);
}

static void one_damage(tally *t, gc_ctx *ctx, content *m, uint32_t weights)
{
    gc_error whole, part;
    gc_net *a = NULL, *b = NULL;
    memset(&whole, 0, sizeof whole);
    memset(&part, 0, sizeof part);
    gc_status want = load(ctx, MEMORY, m, NULL, GRADCAM_WEIGHTS_COPY, &a, &whole);
    gc_status got = load(ctx, READER, m, NULL, weights, &b, &part);
    int ok = got == want && whole.offset == part.offset && strcmp(whole.message, part.message) == 0;
    expect(t, ok, "what is said of a damaged model, and where");
    if (!ok) {
        printf("    \"%s\" at %llu, not \"%s\" at %llu\n", part.message, (unsigned long long)part.offset, whole.message,
               (unsigned long long)whole.offset);
    }
    gc_net_unref(a);
    gc_net_unref(b);
}

/* Models that end too soon, or with a byte that is not as it was. */
static void test_damage(tally *t, content *m)
{
    static content bad;
    gc_ctx *ctx = new_ctx(1);
    for (uint32_t k = 0; k < 400; k++) {
        uint32_t r = (uint32_t)((noise(k) + 1.0f) * 32768.0f);
        bad = *m;
        if (k % 8 == 0) {
            bad.n = m->n * r / 65536;
        } else {
            /* heads of weights and nodes, rather than numbers */
            size_t at = k % 2 ? r % 600 : m->n - 1 - r % 120;
            bad.bytes[at] = (unsigned char)(bad.bytes[at] ^ (1u << (k / 8 % 8)));
        }
        one_damage(t, ctx, &bad, k & 1u);
    }
    make_model(&bad, 1);
    one_damage(t, ctx, &bad, GRADCAM_WEIGHTS_COPY);
    gc_ctx_unref(ctx);
}

int main(int argc, char **argv)
{
    static content m;
    static results want;
    tally t = {0, 0};
    char path[512];
    gc_ctx *ctx = new_ctx(1);
    gc_net *net = NULL;
    (void)snprintf(path, sizeof path, "%.400s/weights.onnx", argc > 1 ? argv[1] : ".");
    make_model(&m, 0);
    if (ctx == NULL || !save(&m, path) || load(ctx, MEMORY, &m, NULL, GRADCAM_WEIGHTS_COPY, &net, &want.err)) {
        printf("%s\n", want.err.message);
        return 1;
    }
    run_all(ctx, net, &want);
    expect(&t, want.status == GRADCAM_OK && want.n > 0, "the model that is in memory");
    gc_net_unref(net);
    gc_ctx_unref(ctx);
    test_bits(&t, &m, path, &want);
    test_alignment(&t, &m, &want);
    test_memory(&t, &m, path);
    test_shared(&t, path, &want);
    test_damage(&t, &m);
    test_changed(&t, &m, path, &want);
    (void)unlink(path);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
