/* SPDX-License-Identifier: MIT */
/* Sliding windows of convolutions and pooling: attributes, sizes, padding. */
#ifndef GC_OPS_WINDOW_H
#define GC_OPS_WINDOW_H

#include "ops/op.h"

typedef enum gc_auto_pad { GC_PAD_NOTSET, GC_PAD_SAME_UPPER, GC_PAD_SAME_LOWER, GC_PAD_VALID } gc_auto_pad;

/* Always three dimensions, the missing ones in front (size, kernel, stride 1).
   `in` is the image the window slides over, `out` the grid of window places. */
typedef struct gc_window {
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3];
    int64_t pad_begin[3], pad_end[3];
    int64_t images, pixels_in, pixels_out, taps;
    gc_auto_pad auto_pad;
    int32_t first; /* index of the first real dimension: 3 - spatial rank */
} gc_window;

/* Reads and checks strides, dilations, pads, auto_pad and kernel_shape.
   `kernel`: the sizes from the weights, or NULL when kernel_shape must exist. */
gc_status gc_window_read(gc_op_call *c, int32_t spatial, const int64_t *kernel, gc_window *w);
/* Number of places per dimension and the pads of auto_pad, from w->in. */
gc_status gc_window_places(gc_op_call *c, bool ceil_mode, gc_window *w);
/* Copies sizes from dimensions 2.. of a shape into dst[3] of a window; each
   must be 1 .. INT32_MAX. */
gc_status gc_window_sizes(gc_op_call *c, int32_t ndim, const int64_t *shape, int64_t *dst);
/* Fills images, pixels_in, pixels_out and taps; checks the products. */
gc_status gc_window_count(gc_op_call *c, int64_t images, gc_window *w);
/* Splits a linear place (image, z, y, x) of the grid `size`; returns the image. */
int64_t gc_window_split(const int64_t *size, int64_t index, int64_t *zyx);
/* The input pixel (z, y, x linear) under tap `tap` of the window at `place`, or
   -1 in the padding.  taps are numbered row-major. */
int64_t gc_window_pixel(const gc_window *w, const int64_t *place, int64_t tap);

#endif
