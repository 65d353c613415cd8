/* SPDX-License-Identifier: MIT */
/* Conv and ConvTranspose, channels-last: shapes and the choice of the map. */
#include "ops/conv.h"

#include <string.h>

#include "base/size.h"

/* ---- shapes ---- */

static gc_status check_operands(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    for (int32_t i = 0; i < c->n_in && i < 3; i++) {
        if (c->in[i] && c->in[i]->dtype != GRADCAM_F32 && !(i == 0 && gc_op_is_half(c, c->in[0]))) {
            return gc_op_fail(c, GRADCAM_E_DTYPE, "input %d is not float", (int)i);
        }
    }
    if (c->in[0]->ndim < 3 || c->in[0]->ndim > 5) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "input of rank %d (3, 4 or 5 are possible)", (int)c->in[0]->ndim);
    }
    if (c->in[1]->ndim != c->in[0]->ndim) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "weights of rank %d for an input of rank %d", (int)c->in[1]->ndim,
                          (int)c->in[0]->ndim);
    }
    return GRADCAM_OK;
}

/* Channels of both images from the weights and the input. */
static gc_status read_channels(gc_op_call *c, bool transposed, gc_conv *v)
{
    const gc_tensor *x = c->in[0], *w = c->in[1];
    v->groups = gc_attr_int(&c->attrs, "group", 1);
    v->small_c = w->shape[0];
    v->big_g = w->shape[1];
    if (v->groups < 1 || v->small_c < 1 || v->big_g < 1 || v->small_c % v->groups != 0 ||
        !gc_mul_ok(v->big_g, v->groups, &v->big_c)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "weights [%lld, %lld, ...] do not fit %lld groups", (long long)v->small_c,
                          (long long)v->big_g, (long long)v->groups);
    }
    v->small_g = v->small_c / v->groups;
    if (x->shape[1] != (transposed ? v->small_c : v->big_c)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "input has %lld channels, the weights want %lld", (long long)x->shape[1],
                          (long long)(transposed ? v->small_c : v->big_c));
    }
    const gc_tensor *bias = c->n_in > 2 ? c->in[2] : NULL;
    if (bias && (bias->ndim != 1 || bias->shape[0] != (transposed ? v->big_c : v->small_c))) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the bias does not have one value per output channel");
    }
    return GRADCAM_OK;
}

/* What the kernels need to know besides the shapes. */
static gc_status plan(gc_op_call *c, gc_conv *v)
{
    const gc_window *w = &v->w;
    int64_t depth, rows;
    bool fits = gc_mul_ok(w->taps, v->big_g, &depth) && gc_mul_ok(w->images, w->pixels_out, &rows);
    if (!fits || depth > INT32_MAX || rows > INT64_C(1) << 32) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    v->kern = gc_kern_of(c->ctx);
    v->workers = (int32_t)gc_workers(c->ctx);
    v->exact = c->exact;
    v->half = c->half;
    return GRADCAM_OK;
}

static gc_status setup_conv(gc_op_call *c, gc_conv *v)
{
    const gc_tensor *x = c->in[0];
    memset(v, 0, sizeof *v);
    GC_TRY(check_operands(c));
    GC_TRY(read_channels(c, false, v));
    GC_TRY(gc_window_read(c, x->ndim - 2, c->in[1]->shape + 2, &v->w));
    GC_TRY(gc_window_sizes(c, x->ndim, x->shape, v->w.in));
    GC_TRY(gc_window_places(c, false, &v->w));
    GC_TRY(gc_window_count(c, x->shape[0], &v->w));
    return plan(c, v);
}

/* The size of the big image and the pads, ONNX ConvTranspose. */
static gc_status transposed_sizes(gc_op_call *c, gc_window *w)
{
    const gc_attr_value *extra = gc_attr_find(&c->attrs, "output_padding", GRADCAM_ATTR_INTS);
    const gc_attr_value *wanted = gc_attr_find(&c->attrs, "output_shape", GRADCAM_ATTR_INTS);
    size_t spatial = (size_t)(3 - w->first);
    extra = extra && extra->count ? extra : NULL;
    wanted = wanted && wanted->count ? wanted : NULL;
    /* Some exporters write output_shape with batch and channels in front. */
    size_t skip = wanted && wanted->count == spatial + 2 ? 2 : 0;
    if ((extra && extra->count != spatial) || (wanted && wanted->count != spatial + skip)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "output_padding or output_shape has the wrong length");
    }
    bool same = w->auto_pad == GC_PAD_SAME_UPPER || w->auto_pad == GC_PAD_SAME_LOWER;
    for (int i = w->first; i < 3; i++) {
        int64_t add = extra ? extra->ints[i - w->first] : 0, s = w->stride[i];
        if (add < 0 || add > INT32_MAX) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "output_padding is out of range");
        }
        /* At most 2^62 + 2^62 - 2^32: no overflow. */
        int64_t full = s * (w->out[i] - 1) + add + w->dilation[i] * (w->kernel[i] - 1) + 1;
        if (wanted || same) {
            w->in[i] = wanted ? wanted->ints[skip + (size_t)(i - w->first)] : w->out[i] * s;
            int64_t total = w->in[i] < 1 ? 0 : max64(0, full - w->in[i]);
            w->pad_begin[i] = w->auto_pad == GC_PAD_SAME_UPPER ? total / 2 : total - total / 2;
            w->pad_end[i] = total - w->pad_begin[i];
        } else {
            w->in[i] = full - w->pad_begin[i] - w->pad_end[i];
        }
        if (w->in[i] < 1 || w->in[i] > INT32_MAX) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "output size %lld", (long long)w->in[i]);
        }
    }
    return GRADCAM_OK;
}

static gc_status setup_transposed(gc_op_call *c, gc_conv *v)
{
    const gc_tensor *x = c->in[0];
    memset(v, 0, sizeof *v);
    GC_TRY(check_operands(c));
    GC_TRY(read_channels(c, true, v));
    GC_TRY(gc_window_read(c, x->ndim - 2, c->in[1]->shape + 2, &v->w));
    GC_TRY(gc_window_sizes(c, x->ndim, x->shape, v->w.out));
    GC_TRY(transposed_sizes(c, &v->w));
    GC_TRY(gc_window_count(c, x->shape[0], &v->w));
    return plan(c, v);
}

static gc_status pack_call(gc_op_call *c, bool backward, void *block);

/* Constant weights are packed once, others at every call, in front of the
   scratch. */
static gc_status declare_memory(gc_op_call *c, const gc_conv *v, bool scatter)
{
    gc_conv_need there, back;
    GC_TRY(gc_conv_sizes(c, v, scatter, &there));
    GC_TRY(gc_conv_sizes(c, v, !scatter, &back));
    bool constant = gc_is_constant(c->in[1]) && (c->n_in < 3 || c->in[2] == NULL || c->in[2]->data != NULL);
    int64_t most = max64(there.scratch, back.scratch), packed = max64(there.packed, back.packed);
    if (!gc_is_constant(c->in[1])) { /* a gradient to the weights reads the input */
        int64_t weights = 0;
        GC_TRY(gc_conv_weight_scratch(c, v, &weights));
        most = max64(most, weights);
        c->keep_in = 1;
    }
    if ((!constant && !gc_add_ok(most, packed, &most)) || most > INT64_MAX / 8 || packed > INT64_MAX / 8 ||
        (uint64_t)most > SIZE_MAX / sizeof(float) || (uint64_t)packed > SIZE_MAX / sizeof(float)) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    c->work_bytes = (size_t)most * sizeof(float);
    c->pack = constant ? pack_call : NULL;
    c->pack_serves = GC_PACK_FORWARD | (scatter || !gc_conv_may_be_sparse(v) ? GC_PACK_BACKWARD : 0);
    c->pack_bytes = (size_t)there.packed * sizeof(float);
    c->pack_variant = there.variant;
    c->back_pack_bytes = (size_t)back.packed * sizeof(float);
    c->back_pack_variant = back.variant;
    return GRADCAM_OK;
}

/* Output [N, channels, sizes...]. */
static gc_status set_output(gc_op_call *c, const gc_conv *v, bool transposed)
{
    const int64_t *sizes = transposed ? v->w.in : v->w.out;
    int64_t shape[GRADCAM_MAX_DIMS] = {v->w.images, transposed ? v->big_c : v->small_c};
    for (int i = v->w.first; i < 3; i++) {
        shape[2 + i - v->w.first] = sizes[i];
    }
    GC_TRY(declare_memory(c, v, transposed));
    c->wide = !transposed;
    gc_gather g;
    if (!transposed && gc_conv_gather(v, &g) && gc_conv_choose(&g, v->exact) == GC_CONV_HALF) {
        c->half_able = 1u | GC_HALF_OUT | GC_HALF_RESIDUAL;
    } else if (!transposed && gc_conv_choose(&g, v->exact) == GC_CONV_DEPTHWISE && gc_half_depthwise_fits(&g)) {
        c->half_able = GC_HALF_SAME | GC_HALF_RESIDUAL;
    }
    c->fuses = transposed ? 0 : GC_FUSE_ADD | GC_FUSE_CLIP | GC_FUSE_MAP;
    return gc_op_set_output(c, 0, GRADCAM_F32, c->in[0]->ndim, shape);
}

static gc_status setup(gc_op_call *c, gc_conv *v)
{
    return strcmp(c->op_name, "ConvTranspose") == 0 ? setup_transposed(c, v) : setup_conv(c, v);
}

static bool is_transposed(const gc_op_call *c)
{
    return strcmp(c->op_name, "ConvTranspose") == 0;
}

static gc_status pack_call(gc_op_call *c, bool backward, void *block)
{
    gc_conv v;
    GC_TRY(setup(c, &v));
    return gc_conv_pack_weights(c, &v, is_transposed(c) != backward, !backward, block);
}

static gc_status infer(gc_op_call *c)
{
    gc_conv v;
    GC_TRY(setup(c, &v));
    return set_output(c, &v, is_transposed(c));
}

/* One direction, with weights packed now where they are not constant. */
static gc_status apply(gc_op_call *c, bool backward, const float *from, float *to)
{
    gc_conv v;
    float *work = c->work;
    const float *block = backward ? c->back_packed : c->packed;
    GC_TRY(setup(c, &v));
    bool scatter = is_transposed(c) != backward;
    if (c->wide && !backward) {
        v.from_pixel = gc_cl_pixel(c->in[0]);
        v.to_pixel = gc_cl_pixel(c->out[0]);
        v.in_half = gc_op_is_half(c, c->in[0]);
        v.out_half = gc_op_is_half(c, c->out[0]);
        v.residual_half = gc_op_is_half(c, c->fusion.residual);
    }
    if (block == NULL) {
        gc_conv_need need;
        GC_TRY(gc_conv_sizes(c, &v, scatter, &need));
        GC_TRY(gc_conv_pack_weights(c, &v, scatter, !backward, work));
        block = work;
        work += need.packed;
    }
    return gc_conv_apply(c, &v, scatter, !backward, from, block, to, work);
}

bool gc_conv_pass_of(gc_op_call *c, gc_conv_pass *pass)
{
    gc_conv v;
    memset(pass, 0, sizeof *pass);
    if (strcmp(c->op_name, "Conv") != 0 || c->pack == NULL || setup(c, &v) != GRADCAM_OK) {
        return false;
    }
    v.from_pixel = gc_cl_pixel(c->in[0]);
    v.to_pixel = gc_cl_pixel(c->out[0]);
    v.in_half = gc_op_is_half(c, c->in[0]);
    v.out_half = gc_op_is_half(c, c->out[0]);
    v.residual_half = gc_op_is_half(c, c->fusion.residual);
    if (!gc_conv_gather(&v, &pass->gather)) {
        return false;
    }
    pass->method = gc_conv_choose(&pass->gather, v.exact);
    pass->epi = gc_conv_epilogue(c, true, c->packed);
    pass->in = c->in[0]->data;
    pass->out = c->out[0]->data;
    pass->packed = c->packed == NULL ? NULL : (const float *)c->packed + gc_conv_bias_block(&v, false);
    return true;
}

static gc_status forward(gc_op_call *c)
{
    return c->out[0] ? apply(c, false, c->in[0]->data, c->out[0]->data) : GRADCAM_OK;
}

static gc_status backward(gc_op_call *c)
{
    gc_conv v;
    GC_TRY(setup(c, &v));
    if (c->grad_in[0]) {
        bool sparse = false;
        GC_TRY(is_transposed(c) ? GRADCAM_OK : gc_conv_is_sparse(c, &v, &sparse));
        GC_TRY(sparse ? gc_conv_sparse_backward(c, &v) : apply(c, true, c->grad_out[0]->data, c->grad_in[0]->data));
    }
    if (c->grad_in[1]) {
        const float *x = c->in[0]->data, *dy = c->grad_out[0]->data;
        GC_TRY(is_transposed(c) ? gc_conv_weight_gradient(c, &v, dy, x) : gc_conv_weight_gradient(c, &v, x, dy));
    }
    if (c->n_in > 2 && c->grad_in[2]) {
        gc_conv_bias_gradient(c);
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_conv[] = {
    {"Conv", infer, forward, backward, GC_OP_CL | GC_OP_PACKS, 2, 0, 2, 3, 1},
    {"ConvTranspose", infer, forward, backward, GC_OP_CL | GC_OP_PACKS, 2, 0, 2, 3, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
