/* SPDX-License-Identifier: MIT */
/* The loader against models that are wrong in one place each: the wire format,
   tensors, attributes, nodes, functions.  Then one model with a bit of
   everything, cut at every byte and with seeded bits flipped. */
#include <stdlib.h>

#include "model_bytes.h"

static const float three[3] = {1.0f, 2.0f, 3.0f};

static gc_ctx *context(void)
{
    gc_ctx *ctx = NULL;
    return gc_ctx_create(NULL, &ctx, NULL) == GRADCAM_OK ? ctx : NULL;
}

static pb good_weight(void)
{
    return tensor_raw("w", 1, 3, three, sizeof three);
}

/* ---- the wire format ---- */

/* The good model with these bytes before it. */
static pb after(const void *bytes, size_t n)
{
    pb w = good_weight(), good = adding(&w), m = {0, {0}};
    pb_raw(&m, bytes, n);
    pb_raw(&m, good.bytes, good.n);
    return m;
}

static void test_wire(tally *t, gc_ctx *ctx)
{
    static const struct {
        const char *what, *bytes;
        size_t n;
    } bad[] = {
        {"a varint of eleven bytes", "\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 12},
        {"a varint above 64 bits", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11},
        {"field number 0", "\x00\x01", 2},
        {"a field number above 32 bits", "\xf8\xff\xff\xff\xff\x01\x01", 7},
        {"wire type 6", "\x0e", 1},
        {"wire type 7", "\x0f", 1},
        {"the end of a group that never began", "\x0c", 1},
        {"a group that never ends", "\x0b", 1},
        {"a length of 2^64 - 1", "\x32\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11},
        {"a length of 2^63", "\x32\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11},
    };
    static const char known[] = "\x9b\x06\x0b\x08\x01\x12\x01z\x0c\x9c\x06" /* a group in a group */
                                "\x98\x06\x07"
                                "\x9d\x06"
                                "abcd"
                                "\x99\x06"
                                "abcdefgh"
                                "\x9a\x06\x02hi";
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        pb m = after(bad[k].bytes, bad[k].n);
        refused(t, ctx, &m, GRADCAM_E_FORMAT, "", bad[k].what);
    }
    pb m = after(known, sizeof known - 1);
    gc_net_unref(load_as(t, ctx, &m, NULL, GRADCAM_OK, "", "unknown fields of every type are skipped"));
    pb empty = {0, {0}};
    refused(t, ctx, &empty, GRADCAM_E_FORMAT, "no graph", "an empty file");
    m = after("", 0);
    pb_tag(&m, 6, 1);
    pb_raw(&m, "1234567", 7);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "malformed", "seven bytes of a fixed64");
    m = after("", 0);
    pb_tag(&m, 6, 5);
    pb_raw(&m, "123", 3);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "malformed", "three bytes of a fixed32");
}

static void test_model(tally *t, gc_ctx *ctx)
{
    pb w = good_weight(), n = node("Add", "x w", "y", NULL), g = graph_of(&n, &w), m = model(&g), opset = {0, {0}};
    gc_net_unref(load_as(t, ctx, &m, NULL, GRADCAM_OK, "", "the good model"));
    pb_part(&m, 7, &g);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "two graphs", "two graphs");
    m = model(&g);
    pb_int(&opset, 2, 13);
    pb_part(&m, 8, &opset);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "imported twice, as 17 and 13", "two versions of the operators");
    memset(&m, 0, sizeof m);
    pb_int(&m, 1, 8);
    pb_part(&m, 7, &g);
    refused(t, ctx, &m, GRADCAM_E_UNSUPPORTED, "opset 0", "no version of the operators");
    memset(&m, 0, sizeof m);
    pb_part(&m, 7, &g);
    pb_part(&m, 8, &opset);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "ir_version", "no ir_version");
    memset(&g, 0, sizeof g);
    pb_part(&g, 1, &n);
    m = model(&g);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "no outputs", "no outputs");
}

/* ---- tensors ---- */

static void test_shapes(tally *t, gc_ctx *ctx)
{
    const int64_t negative[1] = {-3}, huge[3] = {1 << 30, 1 << 30, 1 << 30}, nine[9] = {1, 1, 1, 1, 1, 1, 1, 1, 3};
    const int64_t three_d[1] = {3};
    pb w = tensor_head("w", 1, 1, negative), m = adding(&w);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "'w': a dimension is negative", "a negative dimension");
    w = tensor_head("w", 1, 3, huge);
    m = adding(&w);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "overflows", "a product of dimensions above 2^63");
    w = tensor_head("w", 1, 9, nine);
    pb_bytes(&w, 9, three, sizeof three);
    m = adding(&w);
    refused(t, ctx, &m, GRADCAM_E_UNSUPPORTED, "8 dimensions", "nine dimensions");
    w = tensor_head("w", 1, 1, three_d);
    pb_bytes(&w, 1, "\x80", 1);
    m = adding(&w);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "dims", "packed dims that end in a varint");
    w = tensor_head("w", 1, 1, three_d);
    m = adding(&w);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "has 0 elements of data but its shape needs 3", "no data");
}

static void test_data(tally *t, gc_ctx *ctx)
{
    const int64_t dim = 3;
    pb w = tensor_raw("w", 1, 3, three, 8), m = adding(&w);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "has 2 elements", "raw_data is too short");
    w = tensor_raw("w", 1, 3, three, 11);
    m = adding(&w);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "multiple", "raw_data is no multiple of an element");
    w = good_weight();
    pb_bytes(&w, 9, three, sizeof three);
    m = adding(&w);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "twice", "raw_data twice");
    w = good_weight();
    pb_float(&w, 4, 1.0f);
    m = adding(&w);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "more than one data field", "raw_data and float_data");
    w = tensor_head("w", 1, 1, &dim);
    pb_int(&w, 7, 1);
    m = adding(&w);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "does not fit the element type", "float with int64_data");
    w = tensor_head("w", 1, 1, &dim);
    pb_bytes(&w, 4, three, 10);
    m = adding(&w);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "malformed", "ten bytes of packed floats");
    w = good_weight();
    pb_bytes(&w, 3, "", 0);
    m = adding(&w);
    refused(t, ctx, &m, GRADCAM_E_UNSUPPORTED, "segment", "a segmented tensor");
}

static void test_types(tally *t, gc_ctx *ctx)
{
    static const uint64_t without[] = {0, 8, 14, 15, 17, 18, 19, 20, 21, 22, 23, 24, 99, UINT64_MAX};
    const int64_t dim = 3;
    pb w, m;
    for (size_t k = 0; k < sizeof without / sizeof *without; k++) {
        w = tensor_raw("w", without[k], 3, three, sizeof three);
        m = adding(&w);
        refused(t, ctx, &m, GRADCAM_E_UNSUPPORTED, "element type", "an element type that is not supported");
    }
    w = tensor_head("w", 2, 1, &dim);
    pb_bytes(&w, 5, "\x01\x02\x80\x02", 4); /* 1, 2, 256 */
    m = adding(&w);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "outside the range", "256 as uint8");
    w = tensor_raw("w", 13, 1, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    m = adding(&w);
    refused(t, ctx, &m, GRADCAM_E_UNSUPPORTED, "does not fit int64", "2^64 - 1 as uint64");
}

static void test_names(tally *t, gc_ctx *ctx)
{
    const int64_t dim = 3;
    pb w = good_weight(), g, m, n;
    n = node("Add", "x w", "y", NULL);
    g = graph_of(&n, &w);
    pb_part(&g, 5, &w);
    m = model(&g);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "given twice", "an initializer twice");
    w = tensor_head("", 1, 1, &dim);
    pb_bytes(&w, 9, three, sizeof three);
    m = adding(&w);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "no name", "an initializer without name");
    w = good_weight();
    pb_bytes(&w, 8, "w\0x", 3);
    m = adding(&w);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "NUL", "a NUL in a name");
    n = node("Add", "x missing", "y", NULL);
    g = graph_of(&n, NULL);
    m = model(&g);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "missing", "a value that nobody makes");
    n = node("Add", "x y", "y", NULL);
    g = graph_of(&n, NULL);
    m = model(&g);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "y", "a node that feeds itself");
    n = node("Relu", "x", "x", NULL);
    g = graph_of(&n, NULL);
    m = model(&g);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "x", "a node that writes the input");
}

/* ---- attributes ---- */

static void with_attr(tally *t, gc_ctx *ctx, const pb *attr, gc_status status, const char *text, const char *what)
{
    pb n = node("LeakyRelu", "x", "y", attr), g = graph_of(&n, NULL), m = model(&g);
    refused(t, ctx, &m, status, text, what);
}

static void test_attributes(tally *t, gc_ctx *ctx)
{
    pb a = attr_float("alpha", 0.1f), w = good_weight(), n;
    with_attr(t, ctx, &a, GRADCAM_OK, "", "an attribute");
    memset(&a, 0, sizeof a);
    pb_text(&a, 1, "alpha");
    pb_float(&a, 2, 0.1f);
    with_attr(t, ctx, &a, GRADCAM_OK, "", "an attribute of an old file, without type");
    pb_int(&a, 20, 2);
    with_attr(t, ctx, &a, GRADCAM_E_FORMAT, "says type 2", "an attribute that lies about its type");
    memset(&a, 0, sizeof a);
    pb_float(&a, 2, 0.1f);
    with_attr(t, ctx, &a, GRADCAM_E_FORMAT, "no name", "an attribute without name");
    a = attr_float("alpha", 0.1f);
    pb_text(&a, 21, "other");
    with_attr(t, ctx, &a, GRADCAM_E_FORMAT, "keep one", "a value and a reference");
    memset(&a, 0, sizeof a);
    pb_text(&a, 1, "alpha");
    pb_text(&a, 21, "other");
    pb_int(&a, 20, 1);
    with_attr(t, ctx, &a, GRADCAM_E_FORMAT, "outside a function", "a reference outside a function");
    memset(&a, 0, sizeof a);
    pb_text(&a, 1, "alpha");
    pb_int(&a, 20, 4);
    with_attr(t, ctx, &a, GRADCAM_E_FORMAT, "no tensor", "a tensor attribute without tensor");
    pb_part(&a, 5, &w);
    pb_part(&a, 5, &w);
    with_attr(t, ctx, &a, GRADCAM_E_FORMAT, "two tensors", "a tensor attribute with two");
    a = attr_float("alpha", 0.1f);
    n = node("LeakyRelu", "x", "y", &a);
    pb_part(&n, 5, &a);
    pb g = graph_of(&n, NULL), m = model(&g);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "given twice", "an attribute twice");
    for (int k = 0; k < 64; k++) {
        pb_part(&n, 5, &a);
    }
    g = graph_of(&n, NULL);
    m = model(&g);
    refused(t, ctx, &m, GRADCAM_E_LIMIT, "attributes", "66 attributes");
    n = node("", "x", "y", NULL);
    g = graph_of(&n, NULL);
    m = model(&g);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "op_type", "a node without operator");
}

/* ---- functions ---- */

/* FunctionProto a -> b in domain "d" whose body is one node of that domain. */
static pb function(const char *name, const char *op)
{
    pb f = {0, {0}}, n = node(op, "a", "b", NULL), opset = f;
    pb_text(&n, 7, strcmp(op, "Relu") == 0 ? "" : "d");
    pb_text(&f, 1, name);
    pb_text(&f, 4, "a");
    pb_text(&f, 5, "b");
    pb_part(&f, 7, &n);
    pb_int(&opset, 2, 17);
    pb_part(&f, 9, &opset);
    pb_text(&f, 10, "d");
    return f;
}

static pb calling(const char *name)
{
    pb n = node(name, "x", "y", NULL);
    pb_text(&n, 7, "d");
    pb g = graph_of(&n, NULL);
    return model(&g);
}

static void test_functions(tally *t, gc_ctx *ctx)
{
    pb m = calling("F"), f = function("F", "Relu"), g;
    char name[16], next[16];
    pb_part(&m, 25, &f);
    gc_net_unref(load_as(t, ctx, &m, NULL, GRADCAM_OK, "", "a function"));
    pb_part(&m, 25, &f);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "F", "a function twice");
    m = calling("F");
    f = function("F", "F");
    pb_part(&m, 25, &f);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "F", "a function that calls itself");
    m = calling("F");
    f = function("F", "G");
    g = function("G", "F");
    pb_part(&m, 25, &f);
    pb_part(&m, 25, &g);
    refused(t, ctx, &m, GRADCAM_E_FORMAT, "calls itself", "two functions that call each other");
    for (int depth = 64; depth <= 66; depth += 2) {
        m = calling("F0");
        for (int k = 0; k < depth; k++) {
            (void)snprintf(name, sizeof name, "F%d", k);
            (void)snprintf(next, sizeof next, "F%d", k + 1);
            f = function(name, k + 1 < depth ? next : "Relu");
            pb_part(&m, 25, &f);
        }
        gc_net_unref(load_as(t, ctx, &m, NULL, depth <= 64 ? GRADCAM_OK : GRADCAM_E_LIMIT, "64",
                             depth <= 64 ? "functions 64 deep" : "functions 66 deep"));
    }
}

/* F0 calls F1 twice, and so on: 2^k nodes from k functions. */
static void test_expansion(tally *t, gc_ctx *ctx)
{
    gc_load_options options;
    char name[16], next[16];
    pb m = calling("F0"), f, twice;
    memset(&options, 0, sizeof options);
    for (int k = 0; k < 40; k++) {
        (void)snprintf(name, sizeof name, "F%d", k);
        (void)snprintf(next, sizeof next, "F%d", k + 1);
        f = function(name, k < 39 ? next : "Relu");
        twice = node(k < 39 ? next : "Relu", "a", "unused", NULL);
        pb_text(&twice, 7, k < 39 ? "d" : "");
        pb_part(&f, 7, &twice);
        pb_part(&m, 25, &f);
    }
    refused(t, ctx, &m, GRADCAM_E_LIMIT, "max_nodes", "2^40 nodes");
    m = calling("F");
    f = function("F", "Relu");
    twice = node("Relu", "a", "c", NULL);
    pb_part(&f, 7, &twice);
    pb_part(&m, 25, &f);
    options.max_nodes = 4;
    gc_net_unref(load_as(t, ctx, &m, &options, GRADCAM_OK, "", "few nodes"));
    options.max_nodes = 1;
    gc_net_unref(load_as(t, ctx, &m, &options, GRADCAM_E_LIMIT, "max_nodes", "more nodes than max_nodes"));
}

/* ---- operators ---- */

static gc_status twice_infer(void *user, gc_op_call *call)
{
    gc_tensor_desc d;
    (void)user;
    memset(&d, 0, sizeof d);
    gc_tensor_describe(gc_op_input(call, 0), &d);
    return gc_op_declare_output(call, 0, d.dtype, d.ndim, d.shape);
}

static gc_status twice_forward(void *user, gc_op_call *call)
{
    (void)user;
    return gc_tensor_copy(gc_op_input(call, 0), gc_op_output(call, 0), NULL);
}

static void test_unknown_operators(tally *t)
{
    static const char *const names[] = {"Alpha", "Beta"};
    gc_ctx *ctx = context();
    pb a = node("Alpha", "x", "a", NULL), b = node("Beta", "a", "b", NULL), c = node("Alpha", "b", "y", NULL);
    pb g = graph_of(&a, NULL), m;
    gc_op_def def;
    gc_net *net = NULL;
    gc_error err;
    memset(&err, 0, sizeof err);
    pb_text(&b, 3, "second");
    pb_part(&g, 1, &b);
    pb_part(&g, 1, &c);
    m = model(&g);
    gc_status s = gc_net_load_memory(ctx, m.bytes, m.n, NULL, &net, &err);
    expect(t,
           s == GRADCAM_E_UNSUPPORTED && strstr(err.message, "3 unsupported") && strstr(err.message, "Alpha") &&
               strstr(err.message, "Beta") && strstr(err.message, "second"),
           "one message names all unknown operators and their nodes");
    memset(&def, 0, sizeof def);
    def.infer = twice_infer;
    def.forward = twice_forward;
    for (int k = 0; k < 2; k++) {
        def.op = names[k];
        expect(t, gc_ctx_register_op(ctx, &def, &err) == GRADCAM_OK, err.message);
    }
    net = load_as(t, ctx, &m, NULL, GRADCAM_OK, "", "operators of the host make the model load");
    gc_net_unref(net);
    gc_ctx_unref(ctx);
}

/* ---- one model with a bit of everything, damaged ---- */

static pb rich_model(void)
{
    static const int64_t shape[2] = {1, 3}, dim = 2;
    pb w = good_weight(), s = tensor_head("s", 7, 1, &dim), k = tensor_raw("", 1, 3, three, sizeof three);
    pb leak = attr_float("alpha", 0.5f), value = {0, {0}}, n, g, m, f = function("F", "Relu");
    for (int i = 0; i < 2; i++) {
        pb_int(&s, 7, (uint64_t)shape[i]);
    }
    pb_text(&value, 1, "value");
    pb_part(&value, 5, &k);
    pb_int(&value, 20, 4);
    n = node("Add", "x w", "a", NULL);
    g = graph_of(&n, &w);
    pb_part(&g, 5, &s);
    n = node("LeakyRelu", "a", "b", &leak);
    pb_part(&g, 1, &n);
    n = node("Constant", "", "c", &value);
    pb_part(&g, 1, &n);
    n = node("Mul", "b c", "d", NULL);
    pb_part(&g, 1, &n);
    n = node("F", "d", "e", NULL);
    pb_text(&n, 7, "d");
    pb_part(&g, 1, &n);
    n = node("Reshape", "e s", "y", NULL);
    pb_part(&g, 1, &n);
    m = model(&g);
    pb_part(&m, 25, &f);
    return m;
}

/* Loads, runs forward and backward as far as it goes; 1: all the way. */
static int survive(gc_ctx *ctx, const unsigned char *bytes, size_t n)
{
    gc_net *net = NULL;
    gc_run *run = NULL;
    gc_tensor *x = NULL, *y = NULL;
    gc_tensor_desc d;
    gc_load_options options;
    memset(&options, 0, sizeof options);
    options.max_bytes = options.max_run_bytes = 1 << 24;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 1;
    d.shape[0] = 3;
    int whole = gc_net_load_memory(ctx, bytes, n, &options, &net, NULL) == GRADCAM_OK &&
                gc_run_create(net, &run, NULL) == GRADCAM_OK && gc_tensor_create(ctx, &d, &x, NULL) == GRADCAM_OK &&
                gc_run_set_input(run, NULL, x, NULL) == GRADCAM_OK &&
                gc_run_watch(run, gc_net_input_name(net, 0), GRADCAM_WATCH_GRAD, NULL) == GRADCAM_OK &&
                gc_run_forward(run, NULL) == GRADCAM_OK && gc_run_value(run, NULL, &y, NULL) == GRADCAM_OK &&
                gc_run_backward(run, NULL, y, NULL) == GRADCAM_OK;
    gc_tensor_unref(x);
    gc_run_destroy(run);
    gc_net_unref(net);
    return whole;
}

static void test_truncation(tally *t, gc_ctx *ctx)
{
    pb m = rich_model();
    int loaded = 0;
    expect(t, survive(ctx, m.bytes, m.n), "the rich model runs");
    for (size_t n = 0; n < m.n; n++) {
        unsigned char *exact = malloc(n + 1); /* so that a sanitizer sees one byte too many */
        if (exact != NULL) {
            memcpy(exact + 1, m.bytes, n);
            loaded += survive(ctx, exact + 1, n);
        }
        free(exact);
    }
    printf("cut at each of %lu bytes: %d still run\n", (unsigned long)m.n, loaded);
    expect(t, loaded == 0, "a cut model does not run");
}

static void test_flips(tally *t, gc_ctx *ctx)
{
    pb m = rich_model();
    uint32_t seed = 12345;
    int whole = 0, rounds = 20000;
    for (int k = 0; k < rounds; k++) {
        pb damaged = m;
        for (int flips = 1 + k % 3; flips > 0; flips--) {
            seed = seed * 1664525u + 1013904223u;
            damaged.bytes[(seed >> 8) % m.n] ^= (unsigned char)(1u << (seed & 7u));
        }
        whole += survive(ctx, damaged.bytes, damaged.n);
    }
    printf("%d models with flipped bits: %d still run\n", rounds, whole);
    expect(t, whole > 0 && whole < rounds, "some damage is harmless, some is not");
}

int main(void)
{
    tally t = {0, 0};
    gc_ctx *ctx = context();
    test_wire(&t, ctx);
    test_model(&t, ctx);
    test_shapes(&t, ctx);
    test_data(&t, ctx);
    test_types(&t, ctx);
    test_names(&t, ctx);
    test_attributes(&t, ctx);
    test_functions(&t, ctx);
    test_expansion(&t, ctx);
    test_unknown_operators(&t);
    test_truncation(&t, ctx);
    test_flips(&t, ctx);
    gc_ctx_unref(ctx);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
