/* SPDX-License-Identifier: MIT */
/* Structs that cross the boundary between versions of the library. */
#ifndef GC_BASE_ABI_H
#define GC_BASE_ABI_H

#include <stddef.h>

#include "gradcam/gradcam.h"

/* Copies a host's struct, whose first field is uint32_t struct_size, into dst,
   `known` bytes as this version has it.  struct_size 0 means `first` bytes, the
   size when the struct was first published; a shorter struct is filled up with
   zeros; what a longer one has beyond `known` must be zero. */
gc_status gc_abi_import(const void *src, size_t first, void *dst, size_t known, const char *name, gc_error *err);
/* The way out: copies at most what the host's struct can hold, struct_size kept. */
void gc_abi_export(const void *src, size_t known, void *dst, size_t first);

/* All structs are in their first version; the first that grows gets a constant here. */
#define GC_ABI_IMPORT(src, dst, err) gc_abi_import((src), sizeof *(dst), (dst), sizeof *(dst), #dst, (err))

#endif
