/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
/* What a model may cost, and what it may reach: limits, weights in other files
   through the host's callback and beside the model's file, readers. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model_bytes.h"

static const float three[3] = {1.0f, 2.0f, 3.0f};

static pb adding_three(void)
{
    pb w = tensor_raw("w", 1, 3, three, sizeof three);
    return adding(&w);
}

/* ---- limits ---- */

static pb int_list(const char *name, size_t n, const int64_t *values)
{
    const int64_t dim = (int64_t)n;
    pb t = tensor_head(name, 7, 1, &dim);
    for (size_t k = 0; k < n; k++) {
        pb_int(&t, 7, (uint64_t)values[k]);
    }
    return t;
}

/* Binds x float[3] and runs forward. */
static gc_status run_forward(gc_ctx *ctx, gc_net *net, gc_error *err)
{
    gc_run *run = NULL;
    gc_tensor *x = NULL;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 1;
    d.shape[0] = 3;
    gc_status s = gc_run_create(net, &run, err);
    s = s ? s : gc_tensor_create(ctx, &d, &x, err);
    s = s ? s : gc_run_set_input(run, NULL, x, err);
    s = s ? s : gc_run_forward(run, err);
    gc_tensor_unref(x);
    gc_run_destroy(run);
    return s;
}

/* The model loads; running it meets the limit that the message names. */
static void limited(tally *t, gc_ctx *ctx, const pb *m, const gc_load_options *options, const char *text,
                    const char *what)
{
    gc_error err;
    memset(&err, 0, sizeof err);
    gc_net *net = load_as(t, ctx, m, options, GRADCAM_OK, "", what);
    gc_status s = net == NULL ? GRADCAM_OK : run_forward(ctx, net, &err);
    expect(t, s == GRADCAM_E_LIMIT && strstr(err.message, text) != NULL, what);
    if (s != GRADCAM_E_LIMIT) {
        printf("    %s, \"%s\"\n", gc_status_name(s), err.message);
    }
    gc_net_unref(net);
}

static void test_bytes(tally *t, gc_ctx *ctx)
{
    gc_load_options options;
    pb m = adding_three(), w, n, g;
    memset(&options, 0, sizeof options);
    options.max_bytes = m.n;
    gc_net_unref(load_as(t, ctx, &m, &options, GRADCAM_OK, "", "a model of max_bytes"));
    options.max_bytes = m.n - 1;
    gc_net_unref(load_as(t, ctx, &m, &options, GRADCAM_E_LIMIT, "max_bytes", "a model above max_bytes"));
    /* 4000 bytes of half become 8000 in memory */
    static const unsigned char halves[4000];
    w = tensor_raw("w", 10, 2000, halves, sizeof halves);
    n = node("Add", "x w", "y", NULL);
    g = graph_of(&n, &w);
    m = model(&g);
    options.max_bytes = 5000;
    gc_net_unref(load_as(t, ctx, &m, &options, GRADCAM_E_LIMIT, "max_bytes", "weights above max_bytes"));
    options.max_bytes = 9000;
    gc_net_unref(load_as(t, ctx, &m, &options, GRADCAM_OK, "", "weights below max_bytes"));
}

static void test_folded(tally *t, gc_ctx *ctx)
{
    static const int64_t most[2] = {1 << 20, 1 << 20}, some[1] = {1 << 20};
    gc_load_options options;
    pb n = node("ConstantOfShape", "w", "c", NULL), sum = node("ReduceSum", "c", "s", NULL), m, w, g, add;
    memset(&options, 0, sizeof options);
    add = node("Add", "x s", "y", NULL);
    w = int_list("w", 2, most);
    g = graph_of(&n, &w);
    pb_part(&g, 1, &sum);
    pb_part(&g, 1, &add);
    m = model(&g);
    limited(t, ctx, &m, NULL, "max_bytes", "a constant of 4 TiB meets the default limit");
    w = int_list("w", 1, some);
    g = graph_of(&n, &w);
    pb_part(&g, 1, &sum);
    pb_part(&g, 1, &add);
    m = model(&g);
    options.max_bytes = 1 << 20;
    limited(t, ctx, &m, &options, "max_bytes", "a constant of 4 MiB meets a limit of one");
}

static void test_activations(tally *t, gc_ctx *ctx)
{
    static const int64_t most[2] = {INT64_C(1) << 55, 3}, some[2] = {100000, 3};
    gc_load_options options;
    pb w = int_list("w", 2, some), n = node("Expand", "x w", "e", NULL), r = node("Exp", "e", "y", NULL);
    pb g = graph_of(&n, &w), m;
    memset(&options, 0, sizeof options);
    pb_part(&g, 1, &r);
    m = model(&g);
    options.max_run_bytes = 1 << 20;
    limited(t, ctx, &m, &options, "max_run_bytes", "activations of 2 MB meet a limit of one");
    options.max_run_bytes = 1 << 22;
    gc_net *net = load_as(t, ctx, &m, &options, GRADCAM_OK, "", "activations below the limit");
    expect(t, net != NULL && run_forward(ctx, net, NULL) == GRADCAM_OK, "they run");
    gc_net_unref(net);
    /* 48 of more than 2^58 bytes: their sum passes the end of 64 bits */
    w = int_list("w", 2, most);
    g = graph_of(&n, &w);
    for (int k = 0; k < 48; k++) {
        char name[16];
        (void)snprintf(name, sizeof name, "o%d", k);
        pb v = value_info(name, 3), more = node("Exp", "e", name, NULL);
        pb_part(&g, 1, &more);
        pb_part(&g, 12, &v);
    }
    pb_part(&g, 1, &r);
    m = model(&g);
    options.max_run_bytes = UINT64_MAX;
    limited(t, ctx, &m, &options, "max_run_bytes", "sizes whose sum overflows");
}

/* If nodes in the then_branch of each other. */
static pb nested_if(int depth, const char *out)
{
    pb a = {0, {0}}, y = value_info("r", 3), inner = node("Identity", "x", "r", NULL), g = {0, {0}}, n;
    if (depth > 0) {
        inner = nested_if(depth - 1, "r");
    }
    pb_part(&g, 1, &inner);
    pb_part(&g, 12, &y);
    pb_text(&a, 1, "then_branch");
    pb_part(&a, 6, &g);
    pb_int(&a, 20, 5);
    n = node("If", "w", out, &a);
    memset(&g, 0, sizeof g);
    memset(&a, 0, sizeof a);
    inner = node("Identity", "x", "r", NULL);
    pb_part(&g, 1, &inner);
    pb_part(&g, 12, &y);
    pb_text(&a, 1, "else_branch");
    pb_part(&a, 6, &g);
    pb_int(&a, 20, 5);
    pb_part(&n, 5, &a);
    return n;
}

static void test_branches(tally *t, gc_ctx *ctx)
{
    pb w = tensor_head("w", 9, 0, NULL), n = nested_if(2, "y"), g, m;
    pb_int(&w, 5, 1);
    g = graph_of(&n, &w);
    m = model(&g);
    gc_net *net = load_as(t, ctx, &m, NULL, GRADCAM_OK, "", "If in If in If");
    expect(t, net != NULL && run_forward(ctx, net, NULL) == GRADCAM_OK, "runs");
    gc_net_unref(net);
    n = nested_if(17, "y");
    g = graph_of(&n, &w);
    m = model(&g);
    refused(t, ctx, &m, GRADCAM_E_LIMIT, "deeper than 16", "If nodes 18 deep");
}

/* ---- weights elsewhere, through a callback ---- */

typedef struct store {
    const unsigned char *bytes;
    size_t n;
    int32_t code; /* returned when not 0 */
    int calls;
    char location[64];
} store;

static int32_t read_store(void *user, const char *location, uint64_t offset, void *dst, size_t size)
{
    store *s = user;
    s->calls++;
    (void)snprintf(s->location, sizeof s->location, "%s", location);
    if (s->code != 0 || offset > s->n || size > s->n - offset) {
        return s->code != 0 ? s->code : -1;
    }
    memcpy(dst, s->bytes + offset, size);
    return 0;
}

static pb outside(uint64_t type, int64_t dim, const char *location, const char *offset, const char *length)
{
    pb w = tensor_head("w", type, 1, &dim);
    pb_external(&w, "location", location);
    if (offset != NULL) {
        pb_external(&w, "offset", offset);
    }
    if (length != NULL) {
        pb_external(&w, "length", length);
    }
    pb_int(&w, 14, 1);
    return w;
}

/* y = Cast(w) + x for x = 0, so y is w as float. */
static int weight_is(gc_ctx *ctx, const pb *w, const gc_load_options *options, const char *path, const float *want)
{
    pb to = {0, {0}}, n, g, m;
    gc_net *net = NULL;
    gc_run *run = NULL;
    gc_tensor *x = NULL, *y = NULL;
    gc_tensor_desc d;
    int same = 0;
    pb_text(&to, 1, "to");
    pb_int(&to, 3, 1);
    pb_int(&to, 20, 2);
    n = node("Cast", "w", "c", &to);
    g = graph_of(&n, w);
    n = node("Add", "x c", "y", NULL);
    pb_part(&g, 1, &n);
    m = model(&g);
    gc_status s;
    if (path != NULL) {
        FILE *file = fopen(path, "wb");
        s = file == NULL || fwrite(m.bytes, 1, m.n, file) != m.n || fclose(file) != 0
                ? GRADCAM_E_IO
                : gc_net_load_file(ctx, path, options, &net, NULL);
    } else {
        s = gc_net_load_memory(ctx, m.bytes, m.n, options, &net, NULL);
    }
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 1;
    d.shape[0] = 3;
    if (s == GRADCAM_OK && gc_run_create(net, &run, NULL) == GRADCAM_OK &&
        gc_tensor_create(ctx, &d, &x, NULL) == GRADCAM_OK && gc_run_set_input(run, NULL, x, NULL) == GRADCAM_OK &&
        gc_run_forward(run, NULL) == GRADCAM_OK && gc_run_value(run, NULL, &y, NULL) == GRADCAM_OK) {
        gc_tensor_describe(y, &d);
        same = memcmp(d.data, want, 3 * sizeof *want) == 0;
    }
    gc_tensor_unref(x);
    gc_run_destroy(run);
    gc_net_unref(net);
    return same;
}

static void test_callback(tally *t, gc_ctx *ctx)
{
    static const struct {
        uint64_t type;
        const char *bytes; /* 1, 2, 3 after five others */
        size_t n;
    } kinds[] = {
        {1, "-----\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40", 17},
        {10, "-----\0\x3c\0\x40\0\x42", 11},
        {16, "-----\x80\x3f\0\x40\x40\x40", 11},
        {11, "-----\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\0\x40\0\0\0\0\0\0\x08\x40", 29},
        {2, "-----\x01\x02\x03", 8},
        {3, "-----\x01\x02\x03", 8},
        {5, "-----\x01\0\x02\0\x03\0", 11},
        {6, "-----\x01\0\0\0\x02\0\0\0\x03\0\0\0", 17},
        {7, "-----\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0", 29},
        {12, "-----\x01\0\0\0\x02\0\0\0\x03\0\0\0", 17},
    };
    gc_load_options options;
    store s;
    memset(&options, 0, sizeof options);
    options.read_external = read_store;
    options.external_user = &s;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        char length[8];
        s = (store){(const unsigned char *)kinds[k].bytes, kinds[k].n, 0, 0, ""};
        (void)snprintf(length, sizeof length, "%lu", (unsigned long)kinds[k].n - 5);
        pb w = outside(kinds[k].type, 3, "sub/w.bin", "5", k % 2 ? length : NULL);
        expect(t, weight_is(ctx, &w, &options, NULL, three) && strcmp(s.location, "sub/w.bin") == 0 && s.calls == 1,
               "the callback's bytes become the weight");
    }
    s = (store){NULL, 0, 77, 0, ""};
    pb w = outside(1, 3, "w.bin", NULL, NULL), m = adding(&w);
    gc_net *net = NULL;
    gc_error err;
    memset(&err, 0, sizeof err);
    expect(t,
           gc_net_load_memory(ctx, m.bytes, m.n, &options, &net, &err) == GRADCAM_E_CALLBACK && net == NULL &&
               err.user_code == 77,
           "the callback's own code travels");
    refused(t, ctx, &m, GRADCAM_E_UNSUPPORTED, "read_external", "other files from memory without a callback");
    w = outside(1, INT64_C(1) << 40, "w.bin", NULL, NULL);
    m = adding(&w);
    s = (store){NULL, 0, 0, 0, ""};
    gc_net_unref(load_as(t, ctx, &m, &options, GRADCAM_E_LIMIT, "max_bytes", "4 TiB are not even asked for"));
    expect(t, s.calls == 0, "the callback was not called");
}

static void test_locations(tally *t, gc_ctx *ctx)
{
    static const char *const bad[] = {"",         "/etc/passwd", "..",      "../w.bin", "a/../../w.bin",
                                      "a//w.bin", "a/",          "c:w.bin", "a\\w.bin", "sub/.."};
    gc_load_options options;
    store s = {NULL, 0, 0, 0, ""};
    pb w, m;
    memset(&options, 0, sizeof options);
    options.read_external = read_store;
    options.external_user = &s;
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        w = outside(1, 3, bad[k], NULL, NULL);
        m = adding(&w);
        gc_net_unref(load_as(t, ctx, &m, &options, GRADCAM_E_FORMAT, "no file beneath", bad[k]));
    }
    expect(t, s.calls == 0, "no such location reaches the host");
    static const char *const numbers[] = {"", "-4", "+4", " 4", "4 ", "0x4", "1e3", "18446744073709551616"};
    for (size_t k = 0; k < 2 * sizeof numbers / sizeof *numbers; k++) {
        const char *text = numbers[k / 2];
        w = outside(1, 3, "w.bin", k % 2 ? text : NULL, k % 2 ? NULL : text);
        m = adding(&w);
        gc_net_unref(load_as(t, ctx, &m, &options, GRADCAM_E_FORMAT, "not a number", text));
    }
    w = outside(1, 3, "w.bin", "18446744073709551615", NULL);
    m = adding(&w);
    gc_net_unref(load_as(t, ctx, &m, &options, GRADCAM_E_FORMAT, "overflow", "an offset of 2^64 - 1"));
    w = outside(1, 3, "w.bin", NULL, "8");
    m = adding(&w);
    gc_net_unref(load_as(t, ctx, &m, &options, GRADCAM_E_FORMAT, "needs 12", "a length that is not the shape's"));
    w = outside(1, 3, "w.bin", NULL, NULL);
    pb_external(&w, "location", "v.bin");
    m = adding(&w);
    gc_net_unref(load_as(t, ctx, &m, &options, GRADCAM_E_FORMAT, "twice", "two locations"));
    w = outside(1, 3, "w.bin", NULL, NULL);
    pb_bytes(&w, 9, three, sizeof three);
    m = adding(&w);
    gc_net_unref(load_as(t, ctx, &m, &options, GRADCAM_E_FORMAT, "more than one", "data here and elsewhere"));
    w = tensor_raw("w", 1, 3, three, sizeof three);
    pb_int(&w, 14, 2);
    m = adding(&w);
    gc_net_unref(load_as(t, ctx, &m, &options, GRADCAM_E_FORMAT, "data_location", "a data_location of 2"));
}

/* ---- beside the file ---- */

static int write_file(const char *folder, const char *name, const void *bytes, size_t n)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    return file != NULL && fwrite(bytes, 1, n, file) == n && fclose(file) == 0;
}

static gc_status load_beside(gc_ctx *ctx, const char *folder, const char *location, const char *offset, gc_error *err)
{
    char path[512];
    gc_net *net = NULL;
    pb w = outside(1, 3, location, offset, NULL), m = adding(&w);
    (void)snprintf(path, sizeof path, "%s/net.onnx", folder);
    memset(err, 0, sizeof *err);
    gc_status s = write_file(folder, "net.onnx", m.bytes, m.n) ? gc_net_load_file(ctx, path, NULL, &net, err)
                                                               : GRADCAM_E_IO;
    gc_net_unref(net);
    return s;
}

/* folder/out.bin; folder/in/{w.bin, deep/w.bin, link -> w.bin, up -> .., pipe, net.onnx} */
static int make_tree(const char *folder, char *inside, size_t cap)
{
    char path[512];
    (void)mkdir(folder, 0777);
    (void)snprintf(inside, cap, "%s/in", folder);
    (void)snprintf(path, sizeof path, "%s/in/deep", folder);
    (void)mkdir(inside, 0777);
    (void)mkdir(path, 0777);
    int ok = write_file(folder, "out.bin", three, sizeof three) && write_file(inside, "w.bin", three, sizeof three) &&
             write_file(path, "w.bin", three, sizeof three);
    (void)snprintf(path, sizeof path, "%s/link", inside);
    (void)unlink(path);
    ok = ok && symlink("w.bin", path) == 0;
    (void)snprintf(path, sizeof path, "%s/up", inside);
    (void)unlink(path);
    ok = ok && symlink("..", path) == 0;
    (void)snprintf(path, sizeof path, "%s/pipe", inside);
    (void)unlink(path);
    return ok && mkfifo(path, 0666) == 0;
}

static void test_folder(tally *t, gc_ctx *ctx, const char *tmp)
{
    static const struct {
        const char *location, *offset, *text;
        gc_status status;
    } cases[] = {
        {"w.bin", NULL, "", GRADCAM_OK},
        {"deep/w.bin", "0", "", GRADCAM_OK},
        {"./w.bin", NULL, "", GRADCAM_OK},
        {"w.bin", "4", "beyond the end", GRADCAM_E_FORMAT},
        {"w.bin", "13", "beyond the end", GRADCAM_E_FORMAT},
        {"missing.bin", NULL, "missing.bin", GRADCAM_E_IO},
        {"w.bin/x", NULL, "w.bin/x", GRADCAM_E_IO},
        {"deep", NULL, "not a regular file", GRADCAM_E_IO},
        {"pipe", NULL, "not a regular file", GRADCAM_E_IO},
        {"link", NULL, "links", GRADCAM_E_IO},
        {"up/out.bin", NULL, "up/out.bin", GRADCAM_E_IO},
        {"../out.bin", NULL, "no file beneath", GRADCAM_E_FORMAT},
    };
    char folder[256], inside[300], path[320];
    gc_error err;
    (void)snprintf(folder, sizeof folder, "%s/outside", tmp);
    expect(t, make_tree(folder, inside, sizeof inside), "the folders of the test");
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        gc_status s = load_beside(ctx, inside, cases[k].location, cases[k].offset, &err);
        expect(t, s == cases[k].status && strstr(err.message, cases[k].text) != NULL, cases[k].location);
        if (s != cases[k].status) {
            printf("    %s: \"%s\"\n", gc_status_name(s), err.message);
        }
    }
    pb w = outside(1, 3, "w.bin", NULL, NULL);
    (void)snprintf(path, sizeof path, "%s/net.onnx", inside);
    expect(t, weight_is(ctx, &w, NULL, path, three), "the file's bytes become the weight");
    (void)snprintf(path, sizeof path, "%s/pipe", inside);
    (void)unlink(path);
}

/* ---- readers ---- */

typedef struct source {
    const pb *m;
    int64_t size, fail_at, part; /* at most `part` bytes a call, 0: all */
} source;

static int64_t source_read(void *user, uint64_t offset, void *dst, size_t size)
{
    const source *s = user;
    if (s->fail_at >= 0 && offset >= (uint64_t)s->fail_at) {
        return -5;
    }
    size_t left = offset < s->m->n ? s->m->n - (size_t)offset : 0, n = size < left ? size : left;
    n = s->part > 0 && n > (size_t)s->part ? (size_t)s->part : n;
    memcpy(dst, s->m->bytes + (n > 0 ? offset : 0), n);
    return (int64_t)n;
}

static int64_t source_size(void *user)
{
    return ((const source *)user)->size;
}

static gc_status load_source(gc_ctx *ctx, source *s, const gc_load_options *options, gc_error *err)
{
    gc_reader reader;
    gc_net *net = NULL;
    memset(&reader, 0, sizeof reader);
    memset(err, 0, sizeof *err);
    reader.user = s;
    reader.read_at = source_read;
    reader.size = source_size;
    gc_status status = gc_net_load_reader(ctx, &reader, options, &net, err);
    gc_net_unref(net);
    return status;
}

static void test_readers(tally *t, gc_ctx *ctx)
{
    pb m = adding_three();
    const int64_t n = (int64_t)m.n;
    gc_load_options options;
    gc_error err;
    source s = {&m, n, -1, 0};
    memset(&options, 0, sizeof options);
    expect(t, load_source(ctx, &s, NULL, &err) == GRADCAM_OK, "a reader");
    s.part = 1;
    expect(t, load_source(ctx, &s, NULL, &err) == GRADCAM_OK, "a reader that gives a byte at a time");
    s.fail_at = n / 2;
    expect(t, load_source(ctx, &s, NULL, &err) == GRADCAM_E_IO && err.user_code == -5, "a reader that fails half-way");
    s = (source){&m, n + 1, -1, 0};
    expect(t, load_source(ctx, &s, NULL, &err) == GRADCAM_E_IO, "a reader that says it has more than it has");
    s.size = -9;
    expect(t, load_source(ctx, &s, NULL, &err) == GRADCAM_E_IO, "a reader that does not know its size");
    s.size = n;
    options.max_bytes = (uint64_t)n - 1;
    expect(t, load_source(ctx, &s, &options, &err) == GRADCAM_E_LIMIT, "a reader above max_bytes");
    s.size = INT64_MAX;
    expect(t, load_source(ctx, &s, NULL, &err) == GRADCAM_E_LIMIT, "a reader of 2^63 - 1 bytes");
}

int main(int argc, char **argv)
{
    tally t = {0, 0};
    gc_ctx *ctx = NULL;
    if (gc_ctx_create(NULL, &ctx, NULL) != GRADCAM_OK) {
        return 1;
    }
    test_bytes(&t, ctx);
    test_folded(&t, ctx);
    test_activations(&t, ctx);
    test_branches(&t, ctx);
    test_callback(&t, ctx);
    test_locations(&t, ctx);
    test_folder(&t, ctx, argc > 1 ? argv[1] : ".");
    test_readers(&t, ctx);
    gc_ctx_unref(ctx);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
