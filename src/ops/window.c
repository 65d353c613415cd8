/* SPDX-License-Identifier: MIT */
#include "ops/window.h"

#include <string.h>

#include "base/size.h"

/* Reads `count` integers of an attribute, each low .. INT32_MAX, into dst;
   leaves dst alone when there is no such attribute. */
static gc_status read_ints(gc_op_call *c, const char *name, int32_t count, int64_t low, int64_t *dst, bool *found)
{
    const gc_attr_value *v = gc_attr_find(&c->attrs, name, GRADCAM_ATTR_INTS);
    *found = v != NULL && v->count > 0;
    if (!*found) {
        return GRADCAM_OK;
    }
    if (v->count != (size_t)count) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "%s has %zu values, expected %d", name, v->count, (int)count);
    }
    for (int32_t i = 0; i < count; i++) {
        if (v->ints[i] < low || v->ints[i] > INT32_MAX) {
            return gc_op_fail(c, GRADCAM_E_INVALID, "%s[%d] = %lld is out of range", name, (int)i,
                              (long long)v->ints[i]);
        }
        dst[i] = v->ints[i];
    }
    return GRADCAM_OK;
}

static gc_status read_auto_pad(gc_op_call *c, gc_window *w)
{
    static const char *const names[] = {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"};
    const char *name = gc_attr_string(&c->attrs, "auto_pad", "NOTSET");
    for (int i = 0; i < 4; i++) {
        if (strcmp(name, names[i]) == 0 || (i == 0 && name[0] == '\0')) {
            w->auto_pad = (gc_auto_pad)i;
            return GRADCAM_OK;
        }
    }
    return gc_op_fail(c, GRADCAM_E_INVALID, "unknown auto_pad \"%.32s\"", name);
}

static gc_status read_kernel(gc_op_call *c, int32_t spatial, const int64_t *kernel, gc_window *w)
{
    bool found;
    int32_t at = 3 - spatial;
    GC_TRY(read_ints(c, "kernel_shape", spatial, 1, w->kernel + at, &found));
    if (!found && !kernel) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "kernel_shape is missing");
    }
    for (int32_t i = 0; kernel && i < spatial; i++) {
        if (found && w->kernel[at + i] != kernel[i]) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "kernel_shape differs from the weights");
        }
        if (kernel[i] < 1 || kernel[i] > INT32_MAX) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "kernel size %lld", (long long)kernel[i]);
        }
        w->kernel[at + i] = kernel[i];
    }
    return GRADCAM_OK;
}

gc_status gc_window_read(gc_op_call *c, int32_t spatial, const int64_t *kernel, gc_window *w)
{
    int64_t pads[6] = {0};
    bool found;
    memset(w, 0, sizeof *w);
    if (spatial < 1 || spatial > 3) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "%d spatial dimensions (1, 2 or 3 are possible)", (int)spatial);
    }
    w->first = 3 - spatial;
    for (int i = 0; i < 3; i++) {
        w->in[i] = w->out[i] = w->kernel[i] = w->stride[i] = w->dilation[i] = 1;
    }
    GC_TRY(read_auto_pad(c, w));
    GC_TRY(read_kernel(c, spatial, kernel, w));
    GC_TRY(read_ints(c, "strides", spatial, 1, w->stride + w->first, &found));
    GC_TRY(read_ints(c, "dilations", spatial, 1, w->dilation + w->first, &found));
    GC_TRY(read_ints(c, "pads", 2 * spatial, 0, pads, &found));
    for (int32_t i = 0; i < spatial && w->auto_pad == GC_PAD_NOTSET; i++) {
        w->pad_begin[w->first + i] = pads[i];
        w->pad_end[w->first + i] = pads[spatial + i];
    }
    return GRADCAM_OK;
}

/* One dimension; all terms are below 2^63: sizes <= INT32_MAX each. */
static gc_status places(gc_op_call *c, bool ceil_mode, gc_window *w, int i)
{
    int64_t in = w->in[i], s = w->stride[i], reach = w->dilation[i] * (w->kernel[i] - 1) + 1;
    if (w->auto_pad == GC_PAD_SAME_UPPER || w->auto_pad == GC_PAD_SAME_LOWER) {
        int64_t out = (in - 1) / s + 1, total = (out - 1) * s + reach - in;
        total = total < 0 ? 0 : total;
        w->pad_begin[i] = w->auto_pad == GC_PAD_SAME_UPPER ? total / 2 : total - total / 2;
        w->pad_end[i] = total - w->pad_begin[i];
        w->out[i] = out;
        return GRADCAM_OK;
    }
    int64_t room = in + w->pad_begin[i] + w->pad_end[i] - reach;
    if (ceil_mode && room < 0 && room > -s && in + w->pad_begin[i] > 0) {
        w->out[i] = 1; /* the extra window is the only one */
        return GRADCAM_OK;
    }
    if (room < 0) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the window (%lld) is larger than the padded input (%lld)",
                          (long long)reach, (long long)(room + reach));
    }
    w->out[i] = room / s + 1;
    /* The extra window must start inside the input or the left padding. */
    if (ceil_mode && room % s != 0 && w->out[i] * s < in + w->pad_begin[i]) {
        w->out[i]++;
    }
    return GRADCAM_OK;
}

gc_status gc_window_places(gc_op_call *c, bool ceil_mode, gc_window *w)
{
    for (int i = w->first; i < 3; i++) {
        GC_TRY(places(c, ceil_mode, w, i));
    }
    return GRADCAM_OK;
}

gc_status gc_window_sizes(gc_op_call *c, int32_t ndim, const int64_t *shape, int64_t *dst)
{
    for (int32_t i = 2; i < ndim && ndim <= 5; i++) {
        if (shape[i] < 1 || shape[i] > INT32_MAX) {
            return gc_op_fail(c, GRADCAM_E_SHAPE, "dimension %d has size %lld", (int)i, (long long)shape[i]);
        }
        dst[5 - ndim + i - 2] = shape[i];
    }
    return GRADCAM_OK;
}

gc_status gc_window_count(gc_op_call *c, int64_t images, gc_window *w)
{
    w->images = images;
    w->pixels_in = gc_shape_numel(3, w->in);
    w->pixels_out = gc_shape_numel(3, w->out);
    w->taps = gc_shape_numel(3, w->kernel);
    int64_t all;
    if (w->pixels_in < 0 || w->pixels_out < 0 || w->taps < 0 || !gc_mul_ok(images, w->pixels_in, &all) ||
        !gc_mul_ok(images, w->pixels_out, &all)) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "sizes overflow");
    }
    return GRADCAM_OK;
}

int64_t gc_window_split(const int64_t *size, int64_t index, int64_t *zyx)
{
    zyx[2] = index % size[2];
    index /= size[2];
    zyx[1] = index % size[1];
    index /= size[1];
    zyx[0] = index % size[0];
    return index / size[0];
}

int64_t gc_window_pixel(const gc_window *w, const int64_t *place, int64_t tap)
{
    int64_t at[3], pixel = 0;
    (void)gc_window_split(w->kernel, tap, at);
    for (int i = 0; i < 3; i++) {
        int64_t p = place[i] * w->stride[i] - w->pad_begin[i] + at[i] * w->dilation[i];
        if (p < 0 || p >= w->in[i]) {
            return -1;
        }
        pixel = pixel * w->in[i] + p;
    }
    return pixel;
}
