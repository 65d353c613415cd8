/* SPDX-License-Identifier: MIT */
/* DepthToSpace and SpaceToDepth: the same copy in both directions. */
#include <string.h>

#include "kern/copy.h"
#include "ops/op.h"

static gc_status depth_infer(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *x = c->in[0];
    int64_t b = gc_attr_int(&c->attrs, "blocksize", 0);
    bool to_space = strcmp(c->op_name, "DepthToSpace") == 0;
    if (x->ndim != 4 || b < 1 || b > 32768) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "needs rank 4 and a blocksize of 1 to 32768");
    }
    if (to_space ? x->shape[1] % (b * b) != 0 || x->shape[2] > INT64_MAX / b || x->shape[3] > INT64_MAX / b
                 : x->shape[2] % b != 0 || x->shape[3] % b != 0 || x->shape[1] > INT64_MAX / (b * b)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "blocksize %lld does not fit the shape", (long long)b);
    }
    int64_t deep[4] = {x->shape[0], x->shape[1] * (to_space ? 1 : b * b), 0, 0};
    if (to_space) {
        deep[1] /= b * b;
    }
    deep[2] = to_space ? x->shape[2] * b : x->shape[2] / b;
    deep[3] = to_space ? x->shape[3] * b : x->shape[3] / b;
    return gc_op_set_output(c, 0, x->dtype, 4, deep);
}

/* Copies between the deep and the wide form; every element moves once. */
static void depth_copy(const gc_op_call *c, const gc_tensor *src, gc_tensor *dst, bool to_wide)
{
    const gc_tensor *wide = to_wide ? dst : src;
    int64_t b = gc_attr_int(&c->attrs, "blocksize", 1);
    int64_t ch = wide->shape[1], h = wide->shape[2] / b, w = wide->shape[3] / b;
    bool crd = strcmp(c->op_name, "DepthToSpace") == 0 && strcmp(gc_attr_string(&c->attrs, "mode", "DCR"), "CRD") == 0;
    if (gc_numel(src) == 0) {
        return;
    }
    int64_t step = crd ? h * w : ch * h * w;
    int64_t shape[6] = {wide->shape[0], ch, h, b, w, b}, flat[6];
    int64_t deep[6] = {ch * b * b * h * w, crd ? b * b * h * w : h * w, w, b * step, 1, step};
    gc_row_strides(6, shape, flat);
    gc_copy_nd(6, shape, dst->data, to_wide ? flat : deep, src->data, to_wide ? deep : flat, gc_dtype_size(dst->dtype));
}

static gc_status depth_forward(gc_op_call *c)
{
    if (c->out[0] != NULL) {
        depth_copy(c, c->in[0], c->out[0], strcmp(c->op_name, "DepthToSpace") == 0);
    }
    return GRADCAM_OK;
}

static gc_status depth_backward(gc_op_call *c)
{
    if (c->grad_in[0] != NULL && c->grad_out[0] != NULL) {
        depth_copy(c, c->grad_out[0], c->grad_in[0], strcmp(c->op_name, "DepthToSpace") != 0);
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_depth_space[] = {
    {"DepthToSpace", depth_infer, depth_forward, depth_backward, 0, 0, 0, 1, 1, 1},
    {"SpaceToDepth", depth_infer, depth_forward, depth_backward, 0, 0, 0, 1, 1, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
