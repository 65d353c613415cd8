/* SPDX-License-Identifier: MIT */
/* Models of the opsets 1 to 5.  Most operators had the rules of opset 6 already,
   plus an attribute `consumed_inputs` that says nothing about values. */
#include <string.h>

#include "onnx/import.h"

enum { FIRST_WITH_TODAYS_RULES = 6 };

/* Operators whose rules did not change until then; each name ends in a space. */
static const char unchanged_ops[] =
    "Abs Add And ArgMax ArgMin AveragePool Ceil Clip Constant Conv ConvTranspose DepthToSpace Div Elu "
    "Equal Exp Flatten Floor Gather Gemm GlobalAveragePool GlobalMaxPool Greater HardSigmoid Hardmax "
    "Identity InstanceNormalization LRN LeakyRelu Less Log LogSoftmax LpNormalization MatMul Max MaxPool "
    "Mean Min Mul Neg Not Or PRelu Pow Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp "
    "ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Shape Sigmoid Size "
    "Slice Softmax Softplus Softsign SpaceToDepth Sqrt Squeeze Sub Sum Tanh Transpose Unsqueeze Xor ";

static bool unchanged(const char *op)
{
    size_t n = strlen(op);
    for (const char *at = unchanged_ops; *at != '\0'; at += strcspn(at, " ") + 1) {
        if (strcspn(at, " ") == n && memcmp(at, op, n) == 0) {
            return true;
        }
    }
    return false;
}

gc_status gc_import_check_legacy(gc_import *im)
{
    for (size_t i = 0; im->opset < FIRST_WITH_TODAYS_RULES && i < im->n_nodes; i++) {
        const gc_pb_node *n = &im->nodes[i];
        if (n->domain[0] == '\0' && !unchanged(n->op)) {
            return gc_import_fail(
                im, n->at, GRADCAM_E_UNSUPPORTED,
                "the model uses ONNX opset %d, and %.80s (node \"%.80s\") had other rules before opset "
                "%d; convert the model with onnx.version_converter",
                (int)im->opset, n->op, n->name, FIRST_WITH_TODAYS_RULES);
        }
    }
    return GRADCAM_OK;
}
