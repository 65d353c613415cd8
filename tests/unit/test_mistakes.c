/* SPDX-License-Identifier: MIT */
/* What a host gets wrong first: each call is refused with the right status, a
   message that says what to do, and untouched outputs; then the run still works. */
#include <stdio.h>
#include <string.h>

#include "gradcam/gradcam.h"
#include "unit.h"

typedef struct host {
    gc_ctx *ctx;
    gc_net *net;
    gc_run *run;
    gc_tensor *image, *small; /* [1, 3, 112, 112] and [1, 3, 64, 64] */
    gc_tensor *out;           /* where a call may put its result: stays NULL */
    gc_error err;
} host;

/* The status, two things that the message must hold, and no result. */
static void refused(tally *t, host *h, gc_status got, gc_status want, const char *hint, const char *hint2)
{
    const int ok = got == want && strstr(h->err.message, hint) != NULL && strstr(h->err.message, hint2) != NULL &&
                   h->out == NULL && h->err.status == want;
    if (!ok) {
        printf("%s instead of %s, \"%s\" and \"%s\" in: %s\n", gc_status_name(got), gc_status_name(want), hint, hint2,
               h->err.message);
    }
    expect(t, ok, "a mistake is refused clearly");
    memset(&h->err, 0, sizeof h->err);
}

static gc_status picture(host *h, int64_t side, gc_tensor **out)
{
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 4;
    d.shape[0] = 1;
    d.shape[1] = 3;
    d.shape[2] = d.shape[3] = side;
    return gc_tensor_create(h->ctx, &d, out, &h->err);
}

static gc_status open_host(host *h)
{
    gc_status s = gc_ctx_create(NULL, &h->ctx, &h->err);
    s = s ? s : gc_net_load_file(h->ctx, "docs/demo/garments.onnx", NULL, &h->net, &h->err);
    s = s ? s : gc_run_create(h->net, &h->run, &h->err);
    s = s ? s : picture(h, 112, &h->image);
    return s ? s : picture(h, 64, &h->small);
}

static void close_host(host *h)
{
    gc_tensor_unref(h->small);
    gc_tensor_unref(h->image);
    gc_run_destroy(h->run);
    gc_net_unref(h->net);
    gc_ctx_unref(h->ctx);
}

static void test_order(tally *t, host *h)
{
    refused(t, h, gc_gradcam(h->run, NULL, &h->out, &h->err), GRADCAM_E_STATE, "gc_run_set_input", "image");
    refused(t, h, gc_run_set_input(h->run, NULL, h->small, &h->err), GRADCAM_E_SHAPE, "[?, 3, 112, 112]",
            "[1, 3, 64, 64]");
    refused(t, h, gc_run_set_input(h->run, "picture", h->image, &h->err), GRADCAM_E_NOT_FOUND, "picture", "image");
    expect(t, gc_run_set_input(h->run, NULL, h->image, &h->err) == GRADCAM_OK, h->err.message);
    refused(t, h, gc_run_value(h->run, NULL, &h->out, &h->err), GRADCAM_E_STATE, "gc_run_forward", "");
    expect(t, gc_run_forward(h->run, &h->err) == GRADCAM_OK, h->err.message);
    refused(t, h, gc_run_value(h->run, "relu6", &h->out, &h->err), GRADCAM_E_STATE, "relu6", "gc_run_watch");
    refused(t, h, gc_run_gradient(h->run, NULL, &h->out, &h->err), GRADCAM_E_STATE, "GRADCAM_WATCH_GRAD", "");
    refused(t, h, gc_run_backward(h->run, NULL, NULL, &h->err), GRADCAM_E_INVALID, "seed", "NULL");
    refused(t, h, gc_run_backward(h->run, NULL, h->small, &h->err), GRADCAM_E_SHAPE, "[1, 10]", "[1, 3, 64, 64]");
    expect(t,
           gc_run_watch(h->run, "image", GRADCAM_WATCH_GRAD, &h->err) == GRADCAM_OK &&
               gc_run_forward(h->run, &h->err) == GRADCAM_OK,
           h->err.message);
    refused(t, h, gc_run_gradient(h->run, "image", &h->out, &h->err), GRADCAM_E_NO_GRADIENT, "image",
            "gc_run_backward");
}

static void test_options(tally *t, host *h)
{
    gc_explain_options o;
    gc_target target;
    memset(&o, 0, sizeof o);
    memset(&target, 0, sizeof target);
    o.layer = "nowhere";
    refused(t, h, gc_gradcam(h->run, &o, &h->out, &h->err), GRADCAM_E_NOT_FOUND, "nowhere", "gradcam info");
    o.layer = "relu6";
    refused(t, h, gc_cam(h->run, &o, &h->out, &h->err), GRADCAM_E_UNSUPPORTED, "gc_gradcam", "Conv");
    o.layer = NULL;
    o.target = &target;
    target.kind = GRADCAM_TARGET_CLASS;
    target.index = 10;
    refused(t, h, gc_gradcam(h->run, &o, &h->out, &h->err), GRADCAM_E_INVALID, "class 10", "0 to 9");
    target.kind = GRADCAM_TARGET_SEED;
    refused(t, h, gc_gradcam(h->run, &o, &h->out, &h->err), GRADCAM_E_INVALID, "seed", "");
    target.kind = 77;
    refused(t, h, gc_gradcam(h->run, &o, &h->out, &h->err), GRADCAM_E_INVALID, "77", "target");
    o.target = NULL;
    o.into = h->small;
    refused(t, h, gc_gradcam(h->run, &o, &h->out, &h->err), GRADCAM_E_SHAPE, "into", "row-major");
    o.into = NULL;
    o.pool = -1;
    refused(t, h, gc_gradcam(h->run, &o, &h->out, &h->err), GRADCAM_E_INVALID, "pool", "");
    o.pool = 0;
    o.struct_size = 7777;
    refused(t, h, gc_gradcam(h->run, &o, &h->out, &h->err), GRADCAM_E_ABI, "struct_size", "7777");
    refused(t, h, gc_gradcam(NULL, NULL, &h->out, &h->err), GRADCAM_E_INVALID, "NULL", "");
}

static void test_models(tally *t, host *h)
{
    static const char *const in[] = {"x"}, *const out[] = {"y"};
    gc_net *net = NULL;
    gc_builder *b = NULL;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 1;
    d.shape[0] = 4;
    refused(t, h, gc_net_load_file(h->ctx, "missing.onnx", NULL, &net, &h->err), GRADCAM_E_IO, "missing.onnx", "");
    refused(t, h, gc_net_load_file(h->ctx, "README.md", NULL, &net, &h->err), GRADCAM_E_FORMAT, "ONNX", "");
    expect(t, gc_builder_create(h->ctx, 13, &b, &h->err) == GRADCAM_OK, h->err.message);
    refused(t, h, gc_builder_node(b, NULL, NULL, in, 1, out, 1, NULL, 0, &h->err), GRADCAM_E_INVALID, "operator", "");
    for (gc_attr_kind kind = GRADCAM_ATTR_INT; kind <= GRADCAM_ATTR_TENSOR; kind++) {
        const gc_attr empty = {"axis", NULL,
                               kind == GRADCAM_ATTR_STRING || kind == GRADCAM_ATTR_INTS || kind == GRADCAM_ATTR_FLOATS,
                               kind, 0};
        refused(t, h, gc_builder_node(b, "Relu", NULL, in, 1, out, 1, &empty, 1, &h->err), GRADCAM_E_INVALID, "axis",
                "no data");
    }
    expect(t, gc_builder_input(b, "x", &d, &h->err) == GRADCAM_OK, h->err.message);
    refused(t, h, gc_builder_input(b, "x", &d, &h->err), GRADCAM_E_FORMAT, "\"x\"", "twice");
    expect(t,
           gc_builder_node(b, "Magic", "wand", in, 1, out, 1, NULL, 0, &h->err) == GRADCAM_OK &&
               gc_builder_output(b, "y", &h->err) == GRADCAM_OK,
           h->err.message);
    refused(t, h, gc_builder_finish(b, &net, &h->err), GRADCAM_E_UNSUPPORTED, "Magic (node \"wand\")",
            "gc_ctx_register_op");
    gc_builder_destroy(b);
    expect(t, net == NULL, "no network came of it");
}

int main(void)
{
    tally t = {0, 0};
    host h;
    memset(&h, 0, sizeof h);
    expect(&t, open_host(&h) == GRADCAM_OK, h.err.message);
    if (h.small != NULL) {
        test_order(&t, &h);
        test_options(&t, &h);
        test_models(&t, &h);
        expect(&t, gc_gradcam(h.run, NULL, &h.out, &h.err) == GRADCAM_OK, "the run works after all this");
        gc_tensor_unref(h.out);
    }
    close_host(&h);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
