/* SPDX-License-Identifier: MIT */
/* Tensors: shape, element type, strides, ownership, views. */
#ifndef GC_TENSOR_TENSOR_H
#define GC_TENSOR_TENSOR_H

#include <stdbool.h>

#include "gradcam/gradcam.h"

struct gc_tensor {
    gc_ctx *ctx;
    void *data;
    void (*release)(void *user, void *data); /* NULL: borrowed, or owned by ctx */
    void *user;
    int32_t refs; /* atomic; 0: embedded in another object, never freed */
    int32_t ndim;
    gc_dtype dtype;
    int32_t owned; /* data came from gc_mem_alloc */
    int64_t shape[GRADCAM_MAX_DIMS];
    int64_t strides[GRADCAM_MAX_DIMS]; /* elements */
    /* A constant whose data are NULL until somebody needs them, see run/weights.h.  Of a
       weight, the float32 numbers lie row-major at source_at of the network's source. */
    int32_t absent;
    int32_t reserved0;
    uint64_t source_at;
    const struct gc_source *source;
};

/* What data points to in a tensor that is made. */
typedef enum gc_tensor_data {
    GC_DATA_GIVEN, /* the descriptor's, or zeros */
    GC_DATA_RAW,   /* memory to be filled */
    GC_DATA_ABSENT /* nothing, see `source` */
} gc_tensor_data;
/* gc_tensor_create of a descriptor that was imported. */
gc_status gc_tensor_new(gc_ctx *ctx, const gc_tensor_desc *desc, gc_tensor_data data, gc_tensor **out, gc_error *err);

/* Its numbers are known when a plan is made, though they may not be in memory. */
bool gc_is_constant(const gc_tensor *t);
/* Number of elements (checked when the tensor was made). */
int64_t gc_numel(const gc_tensor *t);
/* Number of elements of a shape, or -1 when negative or too large. */
int64_t gc_shape_numel(int32_t ndim, const int64_t *shape);
/* Row-major strides of the shape. */
void gc_row_strides(int32_t ndim, const int64_t *shape, int64_t *strides);
/* Strides of channels-last storage: dimension 1 moves fastest.  ndim >= 2. */
void gc_cl_strides(int32_t ndim, const int64_t *shape, int64_t *strides);
/* True when the elements lie in row-major (or channels-last) order without gaps. */
bool gc_is_row(const gc_tensor *t);
bool gc_is_cl(const gc_tensor *t);
/* Elements from pixel to pixel of a tensor that lies channels-last, maybe with gaps. */
int64_t gc_cl_pixel(const gc_tensor *t);
bool gc_same_shape(const gc_tensor *a, const gc_tensor *b);
/* "[1, 3, ?, 224]" for messages, ? for -1, cut off where it does not fit; returns text. */
enum { GC_SHAPE_TEXT = 96 };
const char *gc_shape_text(int32_t ndim, const int64_t *shape, char text[GC_SHAPE_TEXT]);

/* The same elements, borrowed, to be cut by whoever asks.  Other threads may count
   references of t at the same time, so a tensor of the host is never copied whole. */
gc_tensor gc_tensor_alias(const gc_tensor *t);
/* Copies element by element between any strides and types; equal shapes. */
void gc_tensor_convert(const gc_tensor *src, gc_tensor *dst);

#endif
