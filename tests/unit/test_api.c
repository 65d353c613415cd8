/* SPDX-License-Identifier: MIT */
/* The public interface on a small network with known answers: builder, run,
   hooks, the four functions, and a loop in which every allocation fails. */
#include "heap.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "unit.h"

static const float conv_weight[2 * 1 * 1 * 1] = {1.0f, -2.0f};
static const float fc_weight[2 * 2] = {1.0f, 2.0f, 3.0f, 4.0f};

static gc_status add_weight(gc_ctx *ctx, gc_builder *b, const char *name, const float *data, int32_t ndim,
                            const int64_t *shape, gc_error *err)
{
    gc_tensor_desc d;
    gc_tensor *t = NULL;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = ndim;
    memcpy(d.shape, shape, (size_t)ndim * sizeof *shape);
    d.data = (void *)(uintptr_t)data;
    gc_status s = gc_tensor_create(ctx, &d, &t, err);
    if (s == GRADCAM_OK) {
        s = gc_builder_weight(b, name, t, err);
    }
    gc_tensor_unref(t);
    return s;
}

static gc_status one_node(gc_builder *b, const char *op, const char *x, const char *w, const char *y,
                          const gc_attr *attr, gc_error *err)
{
    const char *in[2] = {x, w}, *out[1] = {y};
    return gc_builder_node(b, op, NULL, in, w == NULL ? 1 : 2, out, 1, attr, attr == NULL ? 0 : 1, err);
}

/* x [N,1,2,2] -> Conv 1x1 (weights 1, -2) -> Relu -> GlobalAveragePool -> Flatten -> Gemm -> Softmax */
static gc_status fill(gc_ctx *ctx, gc_builder *b, gc_error *err)
{
    static const int64_t cw[4] = {2, 1, 1, 1}, fw[2] = {2, 2}, one = 1;
    const gc_attr trans = {"transB", &one, 1, GRADCAM_ATTR_INT, 0};
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 4;
    d.shape[0] = -1;
    d.shape[1] = 1;
    d.shape[2] = d.shape[3] = 2;
    gc_status s = gc_builder_input(b, "x", &d, err);
    s = s ? s : add_weight(ctx, b, "cw", conv_weight, 4, cw, err);
    s = s ? s : add_weight(ctx, b, "fw", fc_weight, 2, fw, err);
    s = s ? s : one_node(b, "Conv", "x", "cw", "c", NULL, err);
    s = s ? s : one_node(b, "Relu", "c", NULL, "r", NULL, err);
    s = s ? s : one_node(b, "GlobalAveragePool", "r", NULL, "g", NULL, err);
    s = s ? s : one_node(b, "Flatten", "g", NULL, "f", NULL, err);
    s = s ? s : one_node(b, "Gemm", "f", "fw", "y", &trans, err);
    s = s ? s : one_node(b, "Softmax", "y", NULL, "p", NULL, err);
    return s ? s : gc_builder_output(b, "p", err);
}

static gc_status make_net(gc_ctx *ctx, gc_net **net, gc_error *err)
{
    gc_builder *b = NULL;
    gc_status s = gc_builder_create(ctx, 13, &b, err);
    s = s ? s : fill(ctx, b, err);
    s = s ? s : gc_builder_finish(b, net, err);
    gc_builder_destroy(b);
    return s;
}

static const float image[4] = {1.0f, -1.0f, 2.0f, 0.5f};

static gc_status make_run(gc_ctx *ctx, gc_run **run, gc_error *err)
{
    gc_net *net = NULL;
    gc_tensor *x = NULL;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 4;
    d.shape[0] = d.shape[1] = 1;
    d.shape[2] = d.shape[3] = 2;
    d.data = (void *)(uintptr_t)image;
    gc_run *made = NULL;
    gc_status s = make_net(ctx, &net, err);
    s = s ? s : gc_run_create(net, &made, err);
    s = s ? s : gc_tensor_create(ctx, &d, &x, err);
    s = s ? s : gc_run_set_input(made, NULL, x, err);
    gc_tensor_unref(x);
    gc_net_unref(net);
    if (s == GRADCAM_OK) {
        *run = made;
    } else {
        gc_run_destroy(made);
    }
    return s;
}

static int near(const gc_tensor *t, const float *want, int n)
{
    gc_tensor_desc d;
    gc_tensor_describe(t, &d);
    for (int i = 0; i < n; i++) {
        if (!(fabsf(((const float *)d.data)[i] - want[i]) <= 1e-6f)) {
            return 0;
        }
    }
    return 1;
}

typedef gc_status (*method)(gc_run *, const gc_explain_options *, gc_tensor **, gc_error *);

/* Worked by hand: r = {1,0,2,.5 | 0,2,0,0}, g = {.875, .5}; class 1 wins with
   3*.875 + 4*.5; weights 3 and 4, Z = 4. */
static void test_values(tally *t, gc_run *run)
{
    static const float cam[4] = {3.0f, 8.0f, 6.0f, 1.5f};
    static const float gradcam[4] = {0.75f, 2.0f, 1.5f, 0.375f};
    static const float guided[4] = {0.75f, -2.0f, 0.75f, 0.75f};
    static const float both[4] = {0.5625f, -4.0f, 1.125f, 0.28125f};
    static const float *const wants[4] = {cam, gradcam, guided, both};
    static const method methods[4] = {gc_cam, gc_gradcam, gc_guided_backprop, gc_guided_gradcam};
    for (int i = 0; i < 4; i++) {
        gc_error err;
        gc_report report;
        gc_explain_options o;
        gc_tensor *map = NULL;
        memset(&err, 0, sizeof err);
        memset(&o, 0, sizeof o);
        memset(&report, 0, sizeof report);
        o.report = &report;
        gc_status s = methods[i](run, &o, &map, &err);
        expect(t, s == GRADCAM_OK, err.message);
        expect(t, s == GRADCAM_OK && near(map, wants[i], 4), "values of a method on the worked example");
        expect(t, s == GRADCAM_OK && report.index == 1 && strcmp(report.output, "y") == 0, "target chosen");
        expect(t, s == GRADCAM_OK && (i == 2 || strcmp(report.layer, "r") == 0), "layer chosen");
        gc_tensor_unref(map);
    }
}

static int32_t double_it(void *user, const gc_hook_event *event)
{
    gc_tensor_desc d;
    int32_t *hook = user;
    gc_tensor_describe(event->tensor, &d);
    for (int i = 0; i < 8; i++) {
        ((float *)d.data)[i] *= 2.0f;
    }
    return gc_run_remove_hook(event->run, *hook);
}

static void test_hooks(tally *t, gc_run *run)
{
    static const float doubled[4] = {1.5f, 4.0f, 3.0f, 0.75f}, plain[4] = {0.75f, 2.0f, 1.5f, 0.375f};
    gc_tensor *map = NULL;
    int32_t hook = -1;
    gc_status s = gc_run_add_hook(run, "r", GRADCAM_HOOK_FORWARD | GRADCAM_HOOK_WRITE, double_it, &hook, &hook, NULL);
    expect(t, s == GRADCAM_OK, "adding a hook");
    s = gc_gradcam(run, NULL, &map, NULL);
    expect(t, s == GRADCAM_OK && near(map, doubled, 4), "a hook replaces an activation");
    gc_tensor_unref(map);
    map = NULL;
    s = gc_gradcam(run, NULL, &map, NULL);
    expect(t, s == GRADCAM_OK && near(map, plain, 4), "a hook removed itself");
    gc_tensor_unref(map);
}

static int32_t copy_gradient(void *user, const gc_hook_event *event)
{
    gc_tensor_desc d;
    gc_tensor_describe(event->tensor, &d);
    memcpy(user, d.data, 8 * sizeof(float));
    return 0;
}

static float sum_of_eight(const float *x)
{
    float sum = 0.0f;
    for (int i = 0; i < 8; i++) {
        sum += x[i];
    }
    return sum;
}

/* The gradient of y[1] at r is 3 / 4 and 4 / 4 everywhere, at c the same where r is not zero. */
static void test_passing_hooks(tally *t, gc_ctx *ctx)
{
    static const float picked[2] = {0.0f, 1.0f};
    float at_c[8] = {0.0f}, at_r[8] = {0.0f};
    int32_t hooks[2] = {-1, -1}, later = -1;
    gc_run *run = NULL;
    gc_tensor *seed = NULL, *grad = NULL;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 2;
    d.shape[0] = 1;
    d.shape[1] = 2;
    d.data = (void *)(uintptr_t)picked;
    const uint32_t flags = GRADCAM_HOOK_BACKWARD | GRADCAM_HOOK_PASSING;
    gc_status s = make_run(ctx, &run, NULL);
    s = s ? s : gc_tensor_create(ctx, &d, &seed, NULL);
    s = s ? s : gc_run_watch(run, "y", GRADCAM_WATCH_VALUE, NULL);
    s = s ? s : gc_run_add_hook(run, "c", flags, copy_gradient, at_c, &hooks[0], NULL);
    s = s ? s : gc_run_add_hook(run, "r", flags, copy_gradient, at_r, &hooks[1], NULL);
    s = s ? s : gc_run_forward(run, NULL);
    expect(t, s == GRADCAM_OK && gc_run_gradient(run, "r", &grad, NULL) == GRADCAM_E_NO_GRADIENT, "no pass yet");
    s = s ? s : gc_run_backward(run, "y", seed, NULL);
    expect(t, s == GRADCAM_OK && sum_of_eight(at_r) == 7.0f && sum_of_eight(at_c) == 3.25f, "a gradient passes");
    expect(t, s == GRADCAM_OK && gc_run_gradient(run, "r", &grad, NULL) == GRADCAM_E_STATE, "it has passed");
    expect(t, s == GRADCAM_OK && gc_run_remove_hook(run, hooks[1]) == GRADCAM_OK, "removing the last hook");
    s = s ? s : gc_run_add_hook(run, "r", GRADCAM_HOOK_BACKWARD, copy_gradient, at_r, &later, NULL);
    expect(t, s == GRADCAM_OK && gc_run_remove_hook(run, hooks[1]) == GRADCAM_E_NOT_FOUND, "it is not another hook");
    memset(at_r, 0, sizeof at_r);
    s = s ? s : gc_run_forward(run, NULL);
    s = s ? s : gc_run_backward(run, "y", seed, NULL);
    expect(t, s == GRADCAM_OK && sum_of_eight(at_r) == 7.0f && gc_run_gradient(run, "r", &grad, NULL) == GRADCAM_OK,
           "kept again");
    gc_tensor_unref(seed);
    gc_run_destroy(run);
}

static void test_errors(tally *t, gc_ctx *ctx, gc_run *run)
{
    gc_error err;
    gc_tensor *map = NULL;
    gc_net *net = NULL;
    gc_explain_options o;
    memset(&o, 0, sizeof o);
    o.layer = "nowhere";
    expect(t, gc_gradcam(run, &o, &map, &err) == GRADCAM_E_NOT_FOUND && map == NULL, "unknown layer");
    expect(t, strstr(err.message, "nowhere") != NULL, "the message names the layer");
    o.layer = "c";
    expect(t, gc_cam(run, &o, &map, &err) == GRADCAM_E_UNSUPPORTED && map == NULL, "CAM needs its pattern");
    expect(t, gc_net_load_memory(ctx, "x", 1, NULL, &net, &err) == GRADCAM_E_FORMAT && net == NULL, "no model");
    expect(t, gc_net_load_file(ctx, "/nonexistent.onnx", NULL, &net, &err) == GRADCAM_E_IO, "no file");
    expect(t, gc_ctx_create(NULL, NULL, &err) == GRADCAM_E_INVALID, "no result pointer");
}

/* y = factor * x as an operator of the host. */
static gc_status scale_infer(void *user, gc_op_call *call)
{
    gc_tensor_desc d;
    (void)user;
    gc_tensor_describe(gc_op_input(call, 0), &d);
    return gc_op_declare_output(call, 0, d.dtype, d.ndim, d.shape);
}

static gc_status scale_pass(gc_op_call *call, const gc_tensor *from, gc_tensor *to)
{
    gc_attr factor;
    gc_tensor_desc a, b;
    if (gc_op_attr(call, "factor", &factor) != GRADCAM_OK) {
        return gc_op_error(call, GRADCAM_E_INVALID, "the attribute factor is missing");
    }
    gc_tensor_describe(from, &a);
    gc_tensor_describe(to, &b);
    for (int64_t i = 0; i < a.shape[0] * a.strides[0]; i++) {
        ((float *)b.data)[i] = *(const float *)factor.data * ((const float *)a.data)[i];
    }
    return GRADCAM_OK;
}

static gc_status scale_forward(void *user, gc_op_call *call)
{
    (void)user;
    return scale_pass(call, gc_op_input(call, 0), gc_op_output(call, 0));
}

static gc_status scale_backward(void *user, gc_op_call *call)
{
    (void)user;
    return scale_pass(call, gc_op_grad_output(call, 0), gc_op_grad_input(call, 0));
}

static void count_end(void *user)
{
    ++*(int *)user;
}

static gc_status scaled_net(gc_ctx *ctx, int with_factor, gc_net **net, gc_error *err)
{
    static const float factor = 3.0f;
    const gc_attr attr = {"factor", &factor, 1, GRADCAM_ATTR_FLOAT, 0};
    gc_tensor_desc d;
    gc_builder *b = NULL;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 4;
    d.shape[0] = d.shape[1] = 1;
    d.shape[2] = d.shape[3] = 2;
    gc_status s = gc_builder_create(ctx, 13, &b, err);
    s = s ? s : gc_builder_input(b, "x", &d, err);
    s = s ? s : one_node(b, "HostScale", "x", NULL, "m", with_factor ? &attr : NULL, err);
    s = s ? s : one_node(b, "GlobalAveragePool", "m", NULL, "g", NULL, err);
    s = s ? s : one_node(b, "Flatten", "g", NULL, "y", NULL, err);
    s = s ? s : gc_builder_output(b, "y", err);
    s = s ? s : gc_builder_finish(b, net, err);
    gc_builder_destroy(b);
    return s;
}

static gc_status explain_net(gc_ctx *ctx, gc_net *net, gc_tensor **map, gc_error *err)
{
    gc_tensor_desc d;
    gc_run *run = NULL;
    gc_tensor *x = NULL;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 4;
    d.shape[0] = d.shape[1] = 1;
    d.shape[2] = d.shape[3] = 2;
    d.data = (void *)(uintptr_t)image;
    gc_status s = gc_tensor_create(ctx, &d, &x, err);
    s = s ? s : gc_run_create(net, &run, err);
    s = s ? s : gc_run_set_input(run, NULL, x, err);
    s = s ? s : gc_guided_backprop(run, NULL, map, err);
    gc_run_destroy(run);
    gc_tensor_unref(x);
    return s;
}

static void test_custom(tally *t)
{
    static const float want[4] = {0.75f, 0.75f, 0.75f, 0.75f};
    int ended = 0;
    gc_op_def def;
    gc_error err;
    gc_ctx *ctx = NULL;
    gc_net *net = NULL;
    gc_tensor *map = NULL;
    memset(&def, 0, sizeof def);
    def.op = "HostScale";
    def.user = &ended;
    def.infer = scale_infer;
    def.forward = scale_forward;
    def.backward = scale_backward;
    def.destroy = count_end;
    expect(t, gc_ctx_create(NULL, &ctx, NULL) == GRADCAM_OK, "a context");
    expect(t, scaled_net(ctx, 1, &net, &err) == GRADCAM_E_UNSUPPORTED, "unknown before it is registered");
    expect(t, strstr(err.message, "HostScale") != NULL, "the message names the operator");
    expect(t, gc_ctx_register_op(ctx, &def, NULL) == GRADCAM_OK, "registering an operator");
    expect(t, scaled_net(ctx, 1, &net, &err) == GRADCAM_OK, "known afterwards");
    expect(t, explain_net(ctx, net, &map, &err) == GRADCAM_OK && near(map, want, 4), "gradient of a host's operator");
    gc_tensor_unref(map);
    gc_net_unref(net);
    net = NULL;
    map = NULL;
    expect(t, scaled_net(ctx, 0, &net, &err) == GRADCAM_OK, "a node without its attribute");
    expect(t, explain_net(ctx, net, &map, &err) == GRADCAM_E_INVALID && map == NULL, "the host's error travels");
    expect(t, strstr(err.message, "factor is missing") != NULL, "and its message");
    gc_net_unref(net);
    gc_ctx_unref(ctx);
    expect(t, ended == 1, "destroy is called once");
}

/* Sizes and bytes behind the struct that this version does not know. */
static void test_abi(tally *t)
{
    static const struct {
        uint32_t size;
        unsigned char tail;
        gc_status want;
    } cases[] = {
        {0, 0xff, GRADCAM_OK},
        {sizeof(gc_ctx_options), 0xff, GRADCAM_OK},
        {8, 0xff, GRADCAM_OK},
        {sizeof(gc_ctx_options) + 16, 0, GRADCAM_OK},
        {sizeof(gc_ctx_options) + 16, 1, GRADCAM_E_ABI},
        {3, 0, GRADCAM_E_ABI},
        {5000, 0, GRADCAM_E_ABI},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        union {
            gc_ctx_options o;
            unsigned char bytes[sizeof(gc_ctx_options) + 16];
        } u;
        gc_ctx *ctx = NULL;
        memset(&u, 0, sizeof u);
        memset(u.bytes + sizeof u.o, cases[i].tail, 16);
        u.o.struct_size = cases[i].size;
        expect(t, gc_ctx_create(&u.o, &ctx, NULL) == cases[i].want, "struct_size rule");
        gc_ctx_unref(ctx);
    }
}

static double sum_of(const gc_tensor *map)
{
    gc_tensor_desc d;
    double sum = 0.0;
    gc_tensor_describe(map, &d);
    for (int64_t i = 0; i < d.shape[0] * d.strides[0]; i++) {
        sum += (double)((const float *)d.data)[i] * (double)(i % 7 + 1);
    }
    return sum;
}

/* One method; when it failed its output must be untouched, and with memory
   again the same run must give what it gives otherwise. */
static gc_status method_and_again(gc_run *run, heap *h, int i, double *sum, gc_error *err)
{
    static const method methods[4] = {gc_cam, gc_gradcam, gc_guided_backprop, gc_guided_gradcam};
    gc_tensor *map = NULL;
    gc_status s = methods[i](run, NULL, &map, err);
    if (s != GRADCAM_OK) {
        int touched = map != NULL;
        h->fail_at = -1;
        if (touched || methods[i](run, NULL, &map, NULL) != GRADCAM_OK || sum_of(map) != *sum) {
            s = GRADCAM_E_INTERNAL;
        }
    } else if (h->fail_at < 0) {
        *sum = sum_of(map);
    }
    gc_tensor_unref(map);
    return s;
}

/* Everything once, with an allocator that fails from call n on (never: n < 0,
   and sums[] is filled). */
static gc_status everything(heap *h, double *sums, gc_error *err)
{
    gc_ctx *ctx = NULL;
    gc_run *run = NULL;
    gc_status s = heap_ctx(h, 0, &ctx, err);
    s = s ? s : make_run(ctx, &run, err);
    for (int i = 0; i < 4 && s == GRADCAM_OK; i++) {
        s = method_and_again(run, h, i, &sums[i], err);
    }
    gc_run_destroy(run);
    gc_ctx_unref(ctx);
    return s;
}

static void test_faults(tally *t)
{
    heap plenty = {-1, 0, 0, 0, 0};
    double sums[4] = {0.0, 0.0, 0.0, 0.0};
    expect(t, everything(&plenty, sums, NULL) == GRADCAM_OK && sums[1] > 0.0, "without faults");
    gc_status s = GRADCAM_E_NOMEM;
    int clean = 1;
    long n = 0;
    for (; s != GRADCAM_OK && n < 100000; n++) {
        heap h = {n, 0, 0, 0, 0};
        gc_error err;
        memset(&err, 0, sizeof err);
        s = everything(&h, sums, &err);
        clean = clean && h.live == 0 && (s == GRADCAM_OK || s == GRADCAM_E_NOMEM);
    }
    printf("fault loop: %ld allocations failed in turn\n", n - 1);
    expect(t, s == GRADCAM_OK && n > 20, "the fault loop reaches the end");
    expect(t, clean, "a failed allocation is a clean error, leaks nothing, and the run is usable again");
}

int main(void)
{
    tally t = {0, 0};
    gc_ctx *ctx = NULL;
    gc_run *run = NULL;
    gc_error err;
    memset(&err, 0, sizeof err);
    expect(&t, gc_ctx_create(NULL, &ctx, &err) == GRADCAM_OK, "a context");
    expect(&t, make_run(ctx, &run, &err) == GRADCAM_OK, err.message);
    if (run != NULL) {
        test_values(&t, run);
        test_hooks(&t, run);
        test_passing_hooks(&t, ctx);
        test_errors(&t, ctx, run);
    }
    gc_run_destroy(run);
    gc_ctx_unref(ctx);
    test_custom(&t);
    test_abi(&t);
    test_faults(&t);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
