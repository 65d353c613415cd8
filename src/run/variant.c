/* SPDX-License-Identifier: MIT */
#include "run/variant.h"

#include "tensor/walk.h"

/* t's dimensions from `first` on, seen from the value's last ones. */
static bool broadcasts(const gc_tensor *t, int32_t first, const gc_tensor *value)
{
    int32_t n = t->ndim - first;
    bool fits = n <= value->ndim;
    for (int32_t i = 0; i < n && fits; i++) {
        int64_t size = t->shape[first + i];
        fits = size == 1 || size == value->shape[value->ndim - n + i];
    }
    return fits;
}

static gc_status check_tensor(const char *what, const gc_tensor *t, int32_t first, const gc_tensor *value,
                              gc_error *err)
{
    if (t->dtype != GRADCAM_F32) {
        return gc_fail(err, GRADCAM_E_DTYPE, "gc_perturb_options.%s must be float32", what);
    }
    if (!broadcasts(t, first, value)) {
        char wants[GC_SHAPE_TEXT], got[GC_SHAPE_TEXT];
        return gc_fail(err, GRADCAM_E_SHAPE, "gc_perturb_options.%s of shape %s does not broadcast to the value's %s",
                       what, gc_shape_text(t->ndim, t->shape, got), gc_shape_text(value->ndim, value->shape, wants));
    }
    return GRADCAM_OK;
}

static gc_status check_masks(const gc_perturb_options *o, const gc_tensor *base, gc_error *err)
{
    if (o->masks == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_perturb_options.masks is NULL");
    }
    if (o->masks->ndim < 1 || o->masks->shape[0] != o->count) {
        return gc_fail(err, GRADCAM_E_SHAPE, "gc_perturb_options.masks needs a leading dimension of count, %lld",
                       (long long)o->count);
    }
    return check_tensor("masks", o->masks, 1, base, err);
}

static int32_t channel_axis(const gc_perturb_options *o, const gc_tensor *base)
{
    return o->axis == 0 ? 1 : o->axis < 0 ? o->axis + base->ndim : o->axis;
}

/* The channels of variant i are list[*first] to list[*end - 1]; a NULL list counts. */
static void channels_of(const gc_perturb_options *o, int64_t i, int64_t *first, int64_t *end)
{
    *first = o->groups == NULL ? i : o->groups[i];
    *end = o->groups == NULL ? i + 1 : o->groups[i + 1];
}

static gc_status check_channels(const gc_perturb_options *o, const gc_tensor *base, gc_error *err)
{
    int32_t axis = channel_axis(o, base);
    if (axis < 0 || axis >= base->ndim) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_perturb_options.axis %d is outside the value's rank %d",
                       (int)o->axis, (int)base->ndim);
    }
    for (int64_t i = 0; i < o->count; i++) {
        int64_t first, end;
        channels_of(o, i, &first, &end);
        if (first < 0 || end < first || (i == 0 && first != 0)) {
            return gc_fail(err, GRADCAM_E_INVALID, "gc_perturb_options.groups must ascend from 0");
        }
        for (int64_t k = first; k < end; k++) {
            int64_t channel = o->channels == NULL ? k : o->channels[k];
            if (channel < 0 || channel >= base->shape[axis]) {
                return gc_fail(err, GRADCAM_E_INVALID, "variant %lld: there is no channel %lld, the value has %lld",
                               (long long)i, (long long)channel, (long long)base->shape[axis]);
            }
        }
    }
    return GRADCAM_OK;
}

gc_status gc_variant_check(const gc_perturb_options *o, const gc_tensor *base, gc_error *err)
{
    if (o->kind == GRADCAM_PERTURB_WRITE) {
        return o->write != NULL ? GRADCAM_OK : gc_fail(err, GRADCAM_E_INVALID, "gc_perturb_options.write is NULL");
    }
    if (base->dtype != GRADCAM_F32) {
        return gc_fail(err, GRADCAM_E_DTYPE, "the value holds integers, which GRADCAM_PERTURB_WRITE alone can perturb");
    }
    if (o->baseline != NULL) {
        GC_TRY(check_tensor("baseline", o->baseline, 0, base, err));
    }
    return o->kind == GRADCAM_PERTURB_MASK ? check_masks(o, base, err) : check_channels(o, base, err);
}

/* ---- writing: operand 0 is the variant ---- */

static float *at(char *p, int64_t offset)
{
    return (float *)(void *)(p + offset);
}

static bool dense(int32_t n, const int64_t *s)
{
    bool all = true;
    for (int32_t k = 0; k < n; k++) {
        all = all && s[k] == (int64_t)sizeof(float);
    }
    return all;
}

static void copy_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    float *restrict to = at(p[0], 0);
    const float *restrict from = at(p[1], 0);
    (void)user;
    if (dense(2, s)) {
        for (int64_t i = 0; i < n; i++) {
            to[i] = from[i];
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        *at(p[0], i * s[0]) = *at(p[1], i * s[1]);
    }
}

/* m x */
static void mask_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    float *restrict to = at(p[0], 0);
    const float *restrict x = at(p[1], 0), *restrict m = at(p[2], 0);
    (void)user;
    if (dense(3, s)) {
        for (int64_t i = 0; i < n; i++) {
            to[i] = m[i] * x[i];
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        *at(p[0], i * s[0]) = *at(p[2], i * s[2]) * *at(p[1], i * s[1]);
    }
}

/* m x + (1 - m) baseline */
static void blend_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    (void)user;
    for (int64_t i = 0; i < n; i++) {
        float m = *at(p[2], i * s[2]);
        *at(p[0], i * s[0]) = m * *at(p[1], i * s[1]) + (1.0f - m) * *at(p[3], i * s[3]);
    }
}

static gc_status write_masked(const gc_ctx *ctx, const gc_perturb_options *o, int64_t index, const gc_tensor *base,
                              gc_tensor *variant)
{
    gc_tensor mask = gc_tensor_alias(o->masks);
    mask.ndim--;
    mask.data = (float *)mask.data + index * mask.strides[0];
    for (int32_t i = 0; i < mask.ndim; i++) {
        mask.shape[i] = o->masks->shape[i + 1];
        mask.strides[i] = o->masks->strides[i + 1];
    }
    const gc_tensor *ts[4] = {variant, base, &mask, o->baseline};
    return o->baseline == NULL ? gc_walk_tensors_on(ctx, 3, ts, mask_run, NULL)
                               : gc_walk_tensors_on(ctx, 4, ts, blend_run, NULL);
}

static gc_status copy(const gc_ctx *ctx, const gc_tensor *from, gc_tensor *to)
{
    const gc_tensor *ts[2] = {to, from};
    if (from->dtype != GRADCAM_F32) {
        gc_tensor_convert(from, to);
        return GRADCAM_OK;
    }
    return gc_walk_tensors_on(ctx, 2, ts, copy_run, NULL);
}

/* One channel of a tensor. */
static gc_tensor slice(const gc_tensor *t, int32_t axis, int64_t channel)
{
    gc_tensor part = gc_tensor_alias(t);
    part.shape[axis] = 1;
    part.data = (float *)part.data + channel * part.strides[axis];
    return part;
}

/* The baseline where it falls on that channel. */
static gc_tensor slice_baseline(const gc_tensor *baseline, const gc_tensor *value, int32_t axis, int64_t channel)
{
    int32_t own = axis - (value->ndim - baseline->ndim);
    return own < 0 || baseline->shape[own] == 1 ? gc_tensor_alias(baseline) : slice(baseline, own, channel);
}

static gc_status write_ablated(const gc_ctx *ctx, const gc_perturb_options *o, int64_t index, const gc_tensor *base,
                               gc_tensor *variant)
{
    int32_t axis = channel_axis(o, base);
    int64_t first, end;
    channels_of(o, index, &first, &end);
    GC_TRY(copy(ctx, base, variant));
    for (int64_t k = first; k < end; k++) {
        int64_t channel = o->channels == NULL ? k : o->channels[k];
        gc_tensor part = slice(variant, axis, channel);
        if (o->baseline == NULL) {
            gc_walk_zero(&part);
            continue;
        }
        gc_tensor with = slice_baseline(o->baseline, base, axis, channel);
        const gc_tensor *ts[2] = {&part, &with};
        gc_walk_tensors(2, ts, copy_run, NULL);
    }
    return GRADCAM_OK;
}

gc_status gc_callback_failed(const char *what, int64_t index, int32_t code, gc_error *err)
{
    gc_fail(err, GRADCAM_E_CALLBACK, "gc_perturb_options.%s returned %d for variant %lld", what, (int)code,
            (long long)index);
    if (err != NULL) {
        err->user_code = code;
    }
    return GRADCAM_E_CALLBACK;
}

gc_status gc_variant_write(const gc_ctx *ctx, const gc_perturb_options *o, int64_t index, const gc_tensor *base,
                           gc_tensor *variant, gc_error *err)
{
    switch (o->kind) {
    case GRADCAM_PERTURB_MASK: return write_masked(ctx, o, index, base, variant);
    case GRADCAM_PERTURB_ABLATE: return write_ablated(ctx, o, index, base, variant);
    default: {
        GC_TRY(copy(ctx, base, variant));
        int32_t code = o->write(o->user, index, variant);
        return code == 0 ? GRADCAM_OK : gc_callback_failed("write", index, code, err);
    }
    }
}
