/* SPDX-License-Identifier: MIT */
/* What a plan resolves, so that nothing of it is left in a pass.
 *
 * If: the importer makes both branches part of the network and gives the node
 * the inputs condition, results of then, results of else; a plan with a
 * constant condition takes the branch's values for the node's own.
 * Loop and Scan: run/loop.c plans the body once for each turn.
 * Sequences: lists of values, see run/sequence.c.
 *
 * The shape rules here say why that was not possible. */
#include "ops/op.h"

static gc_status if_infer(gc_op_call *c)
{
    if (c->n_in != 1 + 2 * c->n_out) {
        return gc_op_fail(c, GRADCAM_E_FORMAT, "the branches must give %d results each", (int)c->n_out);
    }
    return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "the condition is data-dependent");
}

static gc_status loop_infer(gc_op_call *c)
{
    return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "the node has no body; ONNX files bring it");
}

const gc_op gc_ops_select[] = {
    {"If", if_infer, if_infer, NULL, GC_OP_SELECT, 0, 0, 1, -1, -1},
    {"Loop", loop_infer, NULL, NULL, GC_OP_PLANNED, 0, 0, 0, -1, -1},
    {"Scan", loop_infer, NULL, NULL, GC_OP_PLANNED, 0, 0, 1, -1, -1},
    {"SequenceAt", NULL, NULL, NULL, GC_OP_PLANNED, 0, 0, 2, 2, 1},
    {"SequenceConstruct", NULL, NULL, NULL, GC_OP_PLANNED, 0, 0, 1, -1, 1},
    {"SequenceEmpty", NULL, NULL, NULL, GC_OP_PLANNED, 0, 0, 0, 0, 1},
    {"SequenceErase", NULL, NULL, NULL, GC_OP_PLANNED, 0, 0, 1, 2, 1},
    {"SequenceInsert", NULL, NULL, NULL, GC_OP_PLANNED, 0, 0, 2, 3, 1},
    {"SequenceLength", NULL, NULL, NULL, GC_OP_PLANNED | GC_OP_STOPS, 0, 0, 1, 1, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
