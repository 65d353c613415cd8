/* SPDX-License-Identifier: MIT */
/* MaxUnpool: puts each value where the Indices of a MaxPool say.  Indices count
 * through the whole tensor that MaxPool had; a larger output_shape holds that
 * tensor in its first corner. */
#include <string.h>

#include "ops/op.h"
#include "ops/window.h"

/* The shape the indices count through: MaxPool's input. */
static gc_status inner_shape(gc_op_call *c, int64_t *shape)
{
    gc_window w;
    const gc_tensor *x = c->in[0];
    GC_TRY(gc_window_read(c, x->ndim - 2, NULL, &w));
    shape[0] = x->shape[0];
    shape[1] = x->shape[1];
    for (int32_t i = 2; i < x->ndim; i++) {
        int k = w.first + i - 2;
        if (x->shape[i] < 1 || x->shape[i] > INT32_MAX) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "dimension %d has size %lld", (int)i, (long long)x->shape[i]);
        }
        shape[i] = (x->shape[i] - 1) * w.stride[k] + w.kernel[k] - w.pad_begin[k] - w.pad_end[k];
    }
    if (gc_shape_numel(x->ndim, shape) < 0) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the size before the pooling is not possible");
    }
    return GRADCAM_OK;
}

static gc_status unpool_infer(gc_op_call *c)
{
    int64_t inner[GRADCAM_MAX_DIMS], wanted[GRADCAM_MAX_DIMS];
    int32_t n = -1;
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    const gc_tensor *x = c->in[0], *index = c->in[1];
    if (x->dtype != GRADCAM_F32 || index->dtype != GRADCAM_I64 || !gc_same_shape(x, index)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the values must be float, the indices int64 of the same shape");
    }
    GC_TRY(inner_shape(c, inner));
    GC_TRY(gc_op_ints(c, "", 2, wanted, GRADCAM_MAX_DIMS, &n));
    for (int32_t i = 0; n >= 0 && i < x->ndim; i++) {
        if (n != x->ndim || wanted[i] < inner[i]) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "output_shape does not hold what was pooled");
        }
    }
    return gc_op_set_output(c, 0, GRADCAM_F32, x->ndim, n >= 0 ? wanted : inner);
}

/* Where index k of the inner shape lies in the outer one. */
static int64_t place(int32_t ndim, const int64_t *inner, const gc_tensor *outer, int64_t k)
{
    int64_t at = 0;
    for (int32_t d = ndim - 1; d >= 0; d--) {
        at += k % inner[d] * outer->strides[d];
        k /= inner[d];
    }
    return at;
}

/* wide[place] = narrow, or back: narrow = wide[place]. */
static gc_status move(gc_op_call *c, gc_tensor *narrow, gc_tensor *wide, bool back)
{
    int64_t inner[GRADCAM_MAX_DIMS];
    GC_TRY(inner_shape(c, inner));
    int64_t n = gc_numel(narrow), total = gc_shape_numel(narrow->ndim, inner);
    const int64_t *index = c->in[1]->data;
    float *small = narrow->data, *large = wide->data;
    for (int64_t i = 0; i < n; i++) {
        if (index[i] < 0 || index[i] >= total) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "index %lld is outside %lld elements", (long long)index[i],
                              (long long)total);
        }
        int64_t at = place(narrow->ndim, inner, wide, index[i]);
        if (back) {
            small[i] = large[at];
        } else {
            large[at] = small[i];
        }
    }
    return GRADCAM_OK;
}

static gc_status unpool_forward(gc_op_call *c)
{
    gc_tensor *y = c->out[0], x = *c->in[0];
    if (y == NULL || gc_numel(y) == 0) {
        return GRADCAM_OK;
    }
    memset(y->data, 0, (size_t)gc_numel(y) * sizeof(float));
    return move(c, &x, y, false);
}

static gc_status unpool_backward(gc_op_call *c)
{
    gc_tensor *gx = c->grad_in[0];
    return gx != NULL && gc_numel(gx) > 0 ? move(c, gx, c->grad_out[0], true) : GRADCAM_OK;
}

const gc_op gc_ops_unpool[] = {
    {"MaxUnpool", unpool_infer, unpool_forward, unpool_backward, 0, 2, 0, 2, 3, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
