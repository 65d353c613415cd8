/* SPDX-License-Identifier: MIT */
/* Zhou 2015 holds where the score is linear in the pooled features. */
#include "explain/cam_pattern.h"

#include <stdbool.h>
#include <string.h>

#include "base/status.h"

static bool one_of(const char *op, const char *const *names)
{
    while (*names != NULL && strcmp(op, *names) != 0) {
        names++;
    }
    return *names != NULL;
}

/* The only node that reads `value`, or -1. */
static int32_t only_reader(const gc_net *net, const char *value)
{
    int32_t found = -1;
    for (int32_t i = 0; i < gc_net_node_count(net); i++) {
        for (int32_t k = 0; k < gc_net_node_input_count(net, i); k++) {
            if (strcmp(gc_net_node_input(net, i, k), value) == 0) {
                if (found >= 0 && found != i) {
                    return -1;
                }
                found = i;
            }
        }
    }
    return found;
}

static bool one_position(gc_run *run, const char *value)
{
    gc_tensor_desc d;
    bool one = gc_run_describe(run, value, &d, NULL) == GRADCAM_OK;
    for (int32_t i = 2; one && i < d.ndim; i++) {
        one = d.shape[i] == 1;
    }
    return one;
}

gc_status gc_cam_pattern(gc_run *run, const char *layer, const char *output, gc_error *err)
{
    static const char *const pools[] = {"GlobalAveragePool", "AveragePool", "ReduceMean", NULL};
    static const char *const moves[] = {"Flatten", "Reshape", "Squeeze", "Identity", "Dropout", "Unsqueeze", NULL};
    static const char *const linear[] = {"Gemm", "MatMul", "Conv", NULL};
    const gc_net *net = gc_run_net(run);
    for (int32_t node = only_reader(net, layer); node >= 0; node = only_reader(net, gc_net_node_output(net, node, 0))) {
        const char *op = gc_net_node_op(net, node), *out = gc_net_node_output(net, node, 0);
        bool pooled = one_position(run, gc_net_node_input(net, node, 0));
        bool fits = one_of(op, moves) || (one_of(op, pools) && one_position(run, out)) ||
                    (pooled && (one_of(op, linear) || strcmp(op, "Add") == 0));
        if (!fits) {
            return gc_fail(err, GRADCAM_E_UNSUPPORTED,
                           "CAM needs global average pooling and a linear layer after \"%s\"; node \"%s\" (%s) "
                           "breaks the pattern; use Grad-CAM (gc_gradcam)",
                           layer, gc_net_node_name(net, node), op);
        }
        if (strcmp(out, output) == 0) {
            return GRADCAM_OK;
        }
    }
    return gc_fail(err, GRADCAM_E_UNSUPPORTED,
                   "CAM: \"%s\" does not lead to \"%s\" in a single chain; use "
                   "Grad-CAM (gc_gradcam)",
                   layer, output);
}
