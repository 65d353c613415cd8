/* SPDX-License-Identifier: MIT */
/* If.  The importer makes both branches part of the network and gives the node
   the inputs condition, results of then, results of else; a plan with a
   constant condition takes the branch's values for the node's own.  What
   remains is the condition that is not constant. */
#include "ops/op.h"

static gc_status if_infer(gc_op_call *c)
{
    if (c->n_in != 1 + 2 * c->n_out) {
        return gc_op_fail(c, GRADCAM_E_FORMAT, "the branches must give %d results each", (int)c->n_out);
    }
    return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "the condition is data-dependent");
}

const gc_op gc_ops_select[] = {
    {"If", if_infer, if_infer, NULL, GC_OP_SELECT, 0, 0, 1, -1, -1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
