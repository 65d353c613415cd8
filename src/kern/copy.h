/* SPDX-License-Identifier: MIT */
/* Copies and sums of N-dimensional blocks between any strides. */
#ifndef GC_KERN_COPY_H
#define GC_KERN_COPY_H

#include <stddef.h>
#include <stdint.h>

/* Twice the rank of a tensor: Tile splits every dimension in two. */
enum { GC_COPY_DIMS = 16 };

/* dst = src.  Strides in elements, of either sign; 0 in src repeats, 0 in dst
   is allowed only for dimensions of length 1.  `size` is 1, 2, 4 or 8 bytes. */
void gc_copy_nd(int32_t ndim, const int64_t *shape, void *dst, const int64_t *dst_strides, const void *src,
                const int64_t *src_strides, size_t size);
/* dst += src; a dst stride of 0 sums over that dimension. */
void gc_add_nd(int32_t ndim, const int64_t *shape, float *dst, const int64_t *dst_strides, const float *src,
               const int64_t *src_strides);
/* Every element of the block becomes *value (`size` bytes). */
void gc_fill_nd(int32_t ndim, const int64_t *shape, void *dst, const int64_t *dst_strides, const void *value,
                size_t size);

#endif
