/* SPDX-License-Identifier: MIT */
/* The two linear maps of ops/conv.h as passes of the convolution kernels. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "ops/conv.h"

static int64_t gcd64(int64_t x, int64_t y)
{
    return y == 0 ? x : gcd64(y, x % y);
}

/* ---- passes ---- */

static int64_t pass_count(const gc_conv *v, bool scatter)
{
    return scatter ? v->w.stride[0] * v->w.stride[1] * v->w.stride[2] : 1;
}

/* One dimension of the gather from the big image. */
static void gather_dim(const gc_window *w, int i, gc_conv_dim *d)
{
    memset(d, 0, sizeof *d);
    d->in = w->in[i];
    d->places = w->out[i];
    d->stride = w->stride[i];
    d->dilation = w->dilation[i];
    d->taps = w->kernel[i];
    d->pad = w->pad_begin[i];
    d->tap_step = 1;
    d->out = w->out[i];
    d->out_step = 1;
}

/* Pixels x = r + s q of the big image get small[o] w[k] for all taps k with
   s o = x + pad - k dilation.  With g = gcd(s, dilation) these are
   k0, k0 + s/g, ..., and o falls by dilation/g from tap to tap: a gather of
   stride 1 through the taps in reverse order. */
static void scatter_dim(const gc_window *w, int i, int64_t r, gc_conv_dim *d)
{
    int64_t s = w->stride[i], g = gcd64(s, w->dilation[i]), k0 = 0, at = r + w->pad_begin[i];
    while (k0 < w->kernel[i] && k0 < s && (at - k0 * w->dilation[i]) % s != 0) {
        k0++;
    }
    memset(d, 0, sizeof *d);
    d->in = w->out[i];
    d->out = w->in[i];
    d->out_first = r;
    d->out_step = s;
    d->places = r < w->in[i] ? (w->in[i] - 1 - r) / s + 1 : 0;
    d->stride = 1;
    d->dilation = w->dilation[i] / g;
    d->tap_step = -s / g;
    if (k0 < w->kernel[i] && (at - k0 * w->dilation[i]) % s == 0) {
        d->taps = (w->kernel[i] - 1 - k0) / (s / g) + 1;
        d->tap_first = k0 - (d->taps - 1) * d->tap_step;
        d->pad = (d->taps - 1) * d->dilation - (at - k0 * w->dilation[i]) / s;
    }
}

/* Pass `index`; false when it has no places or no taps. */
static bool pass_at(const gc_conv *v, bool scatter, int64_t index, gc_gather *g)
{
    const gc_window *w = &v->w;
    int64_t phase[3] = {index / (w->stride[2] * w->stride[1]), index / w->stride[2] % w->stride[1],
                        index % w->stride[2]};
    memset(g, 0, sizeof *g);
    g->kern = v->kern;
    g->half = v->half;
    g->in_half = v->in_half;
    g->out_half = v->out_half;
    g->residual_half = v->residual_half;
    g->images = w->images;
    g->groups = v->groups;
    g->in_c = scatter ? v->small_g : v->big_g;
    g->out_c = scatter ? v->big_g : v->small_g;
    g->in_pixel = v->from_pixel > 0 ? v->from_pixel : scatter ? v->small_c : v->big_c;
    g->out_pixel = v->to_pixel > 0 ? v->to_pixel : scatter ? v->big_c : v->small_c;
    bool any = true;
    for (int i = 0; i < 3; i++) {
        if (scatter) {
            scatter_dim(w, i, phase[i], &g->dim[i]);
        } else {
            gather_dim(w, i, &g->dim[i]);
        }
        any = any && g->dim[i].places > 0 && g->dim[i].taps > 0;
    }
    return any;
}

static void weights_of(const gc_conv *v, bool scatter, const float *data, gc_conv_weights *w)
{
    w->data = data;
    w->group = v->small_g * v->big_g * v->w.taps;
    w->column_step = scatter ? v->w.taps : v->big_g * v->w.taps;
    w->channel_step = scatter ? v->big_g * v->w.taps : v->w.taps;
    memcpy(w->kernel, v->w.kernel, sizeof w->kernel);
}

/* ---- both ways ---- */

bool gc_conv_gather(const gc_conv *v, gc_gather *g)
{
    return pass_at(v, false, 0, g);
}

/* The bias comes first, in whole panels. */
int64_t gc_conv_bias_block(const gc_conv *v, bool scatter)
{
    return ((scatter ? v->big_c : v->small_c) + v->kern->nr + 15) / 16 * 16;
}

static gc_status pass_sizes(const gc_conv *v, bool scatter, gc_conv_need *need)
{
    gc_gather g;
    for (int64_t i = 0; i < pass_count(v, scatter); i++) {
        need->variant *= 6;
        if (!pass_at(v, scatter, i, &g)) {
            continue;
        }
        gc_conv_method method = gc_conv_choose(&g, v->exact);
        int64_t floats = gc_conv_packed(&g, method), work = gc_conv_scratch(&g, method, v->workers);
        if (floats < 0 || work < 0 || !gc_add_ok(need->packed, floats + 15, &need->packed)) {
            return GRADCAM_E_LIMIT;
        }
        need->packed = need->packed / 16 * 16;
        need->scratch = max64(need->scratch, work);
        need->variant += (uint64_t)method + 1;
    }
    return GRADCAM_OK;
}

gc_status gc_conv_sizes(gc_op_call *c, const gc_conv *v, bool scatter, gc_conv_need *need)
{
    memset(need, 0, sizeof *need);
    gc_status status = gc_conv_by_columns(v, scatter) ? gc_conv_columns_sizes(v, need) : pass_sizes(v, scatter, need);
    if (status != GRADCAM_OK || !gc_add_ok(need->packed, gc_conv_bias_block(v, scatter) + 16, &need->packed)) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    return GRADCAM_OK;
}

gc_status gc_conv_pack_weights(gc_op_call *c, const gc_conv *v, bool scatter, bool with_bias, float *block)
{
    const float *data = c->in[1]->data;
    int64_t channels = scatter ? v->big_c : v->small_c;
    memset(block, 0, (size_t)gc_conv_bias_block(v, scatter) * sizeof(float));
    if (with_bias && c->n_in > 2 && c->in[2] != NULL) {
        memcpy(block, c->in[2]->data, (size_t)channels * sizeof(float));
    }
    block += gc_conv_bias_block(v, scatter);
    if (gc_conv_by_columns(v, scatter)) {
        gc_conv_columns_pack(v, data, block);
        return GRADCAM_OK;
    }
    gc_conv_weights w;
    gc_gather g;
    weights_of(v, scatter, data, &w);
    for (int64_t i = 0; i < pass_count(v, scatter); i++) {
        if (pass_at(v, scatter, i, &g)) {
            gc_conv_method method = gc_conv_choose(&g, v->exact);
            GC_TRY(gc_conv_pack(c->ctx, &g, method, &w, block));
            block += (gc_conv_packed(&g, method) + 15) / 16 * 16;
        }
    }
    return GRADCAM_OK;
}

static void fill_big(const gc_conv *v, const float *bias, float *to)
{
    int64_t pixels = v->w.images * v->w.pixels_in;
    if (bias == NULL) {
        memset(to, 0, (size_t)(pixels * v->big_c) * sizeof(float));
    }
    for (int64_t p = 0; bias != NULL && p < pixels; p++) {
        memcpy(to + p * v->big_c, bias, (size_t)v->big_c * sizeof(float));
    }
}

/* Bias in place of the sums of a pass without taps. */
static bool some_pass_is_empty(const gc_conv *v, bool scatter)
{
    gc_gather g;
    for (int64_t i = 0; i < pass_count(v, scatter); i++) {
        if (!pass_at(v, scatter, i, &g)) {
            return true;
        }
    }
    return false;
}

gc_epilogue gc_conv_epilogue(const gc_op_call *c, bool forward, const float *block)
{
    gc_epilogue epi;
    memset(&epi, 0, sizeof epi);
    if (!forward) {
        return epi;
    }
    epi.bias = c->n_in > 2 && c->in[2] != NULL ? block : NULL;
    epi.residual = c->fusion.residual != NULL ? c->fusion.residual->data : NULL;
    if (c->fusion.clip) {
        epi.flags = GC_EPI_CLIP;
        epi.lo = c->fusion.lo;
        epi.hi = c->fusion.hi;
    }
    if (c->fusion.map != 0) {
        epi.flags = GC_EPI_MAP;
        epi.map = c->fusion.map - 1;
    }
    return epi;
}

gc_status gc_conv_apply(gc_op_call *c, const gc_conv *v, bool scatter, bool forward, const float *from,
                        const float *block, float *to, float *scratch)
{
    const float *weights = block + gc_conv_bias_block(v, scatter);
    gc_epilogue epi = gc_conv_epilogue(c, forward, block);
    if (gc_conv_by_columns(v, scatter)) {
        return gc_conv_columns_run(c->ctx, v, from, weights, epi.bias, to, scratch);
    }
    if (some_pass_is_empty(v, scatter)) {
        fill_big(v, epi.bias, to);
    }
    gc_gather g;
    for (int64_t i = 0; i < pass_count(v, scatter); i++) {
        if (pass_at(v, scatter, i, &g)) {
            gc_conv_method method = gc_conv_choose(&g, v->exact);
            GC_TRY(gc_conv_run(c->ctx, &g, method, from, weights, &epi, to, scratch, v->workers));
            weights += (gc_conv_packed(&g, method) + 15) / 16 * 16;
        }
    }
    return GRADCAM_OK;
}
