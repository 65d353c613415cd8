/* SPDX-License-Identifier: MIT */
/* libFuzzer entry: the input is a model.  It is loaded under tight limits, its
   weights at once or on demand, run forward, backward and, where it is a
   convolutional network, explained; in float32, then in bfloat16 where the
   machine can.  Build and run with `make fuzz`; see tests/fuzz/README.md. */
#include <stdlib.h>
#include <string.h>

#include "gradcam/gradcam.h"

enum { MOST_BYTES = 1 << 24, MOST_INPUT = 1 << 14 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An input of the declared shape, open dimensions 2; NULL: it would be large. */
static gc_tensor *make_input(gc_ctx *ctx, const gc_net *net, int32_t k)
{
    gc_tensor_desc d;
    gc_tensor *t = NULL;
    int64_t n = 1;
    memset(&d, 0, sizeof d);
    if (gc_net_input_desc(net, k, &d) != GRADCAM_OK) {
        return NULL;
    }
    d.ndim = d.ndim < 0 ? 2 : d.ndim;
    for (int32_t i = 0; i < d.ndim; i++) {
        d.shape[i] = d.shape[i] < 0 ? 2 : d.shape[i];
        if (d.shape[i] > MOST_INPUT || (n *= d.shape[i]) > MOST_INPUT) {
            return NULL;
        }
    }
    d.dtype = d.dtype == 0 ? GRADCAM_F32 : d.dtype;
    d.data = NULL;
    memset(d.strides, 0, sizeof d.strides);
    if (gc_tensor_create(ctx, &d, &t, NULL) != GRADCAM_OK) {
        return NULL;
    }
    gc_tensor_describe(t, &d);
    for (int64_t i = 0; i < n; i++) {
        switch (d.dtype) {
        case GRADCAM_F32: ((float *)d.data)[i] = 0.1f * (float)(i % 17) - 0.5f; break;
        case GRADCAM_I64: ((int64_t *)d.data)[i] = 1 + i % 3; break;
        case GRADCAM_I32: ((int32_t *)d.data)[i] = (int32_t)(1 + i % 3); break;
        case GRADCAM_U8:
        case GRADCAM_BOOL: ((uint8_t *)d.data)[i] = (uint8_t)(i & 1); break;
        default: break;
        }
    }
    return t;
}

static int bind(gc_ctx *ctx, gc_net *net, gc_run *run)
{
    for (int32_t k = 0; k < gc_net_input_count(net); k++) {
        gc_tensor *t = make_input(ctx, net, k);
        gc_status s = t == NULL ? GRADCAM_E_LIMIT : gc_run_set_input(run, gc_net_input_name(net, k), t, NULL);
        gc_tensor_unref(t);
        if (s != GRADCAM_OK) {
            return 0;
        }
    }
    return 1;
}

/* Its own values are as good a seed as any. */
static void run_backward(gc_net *net, gc_run *run)
{
    for (int32_t k = 0; k < gc_net_output_count(net); k++) {
        gc_tensor *y = NULL, *g = NULL;
        const char *name = gc_net_output_name(net, k);
        if (gc_run_value(run, name, &y, NULL) == GRADCAM_OK && gc_run_backward(run, name, y, NULL) == GRADCAM_OK) {
            for (int32_t i = 0; i < gc_net_input_count(net); i++) {
                (void)gc_run_gradient(run, gc_net_input_name(net, i), &g, NULL);
            }
        }
    }
}

/* Grad-CAM, then gradients of all inputs from all outputs. */
static void explain(gc_net *net, gc_run *run)
{
    gc_tensor *map = NULL;
    gc_error err;
    memset(&err, 0, sizeof err);
    if (gc_gradcam(run, NULL, &map, &err) != GRADCAM_OK && err.status == GRADCAM_E_INTERNAL) {
        abort(); /* the library's own word for a defect */
    }
    gc_tensor_unref(map);
    for (int32_t k = 0; k < gc_net_input_count(net); k++) {
        (void)gc_run_watch(run, gc_net_input_name(net, k), GRADCAM_WATCH_GRAD, NULL);
    }
    if (gc_run_forward(run, &err) == GRADCAM_OK) {
        run_backward(net, run);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    gc_load_options options;
    gc_ctx *ctx = NULL;
    gc_net *net = NULL;
    gc_run *run = NULL;
    memset(&options, 0, sizeof options);
    options.max_bytes = options.max_run_bytes = MOST_BYTES;
    options.max_nodes = 1000;
    options.weights = size % 2 ? GRADCAM_WEIGHTS_ON_DEMAND : 0;
    if (gc_ctx_create(NULL, &ctx, NULL) == GRADCAM_OK &&
        gc_net_load_memory(ctx, data, size, &options, &net, NULL) == GRADCAM_OK &&
        gc_run_create(net, &run, NULL) == GRADCAM_OK && bind(ctx, net, run)) {
        explain(net, run);
        if (gc_run_set_precision(run, GRADCAM_BF16, NULL) == GRADCAM_OK) {
            explain(net, run);
        }
    }
    gc_run_destroy(run);
    gc_net_unref(net);
    gc_ctx_unref(ctx);
    return 0;
}
