/* SPDX-License-Identifier: MIT */
/* Where the bytes of a model lie, to be read at any place and any time: a file
   that stays open, the host's reader, or memory.  Nothing is mapped: a file that
   shrinks while it is in use ends a read with an error, not the host. */
#ifndef GC_BASE_SOURCE_H
#define GC_BASE_SOURCE_H

#include <stdbool.h>

#include "gradcam/gradcam.h"

typedef struct gc_source gc_source;

/* The regular file at `path`.  *out is NULL where it is none, says no size, or the
   system cannot read files at a place by several threads. */
gc_status gc_source_file(gc_ctx *ctx, const char *path, gc_source **out, gc_error *err);
/* `reader` is copied; `size` is what it said of itself. */
gc_status gc_source_reader(gc_ctx *ctx, const gc_reader *reader, uint64_t size, gc_source **out, gc_error *err);
gc_status gc_source_memory(gc_ctx *ctx, const void *data, size_t size, gc_source **out, gc_error *err);
void gc_source_close(gc_source *s);

uint64_t gc_source_size(const gc_source *s);
/* All of memory, or NULL. */
const unsigned char *gc_source_bytes(const gc_source *s);
/* May be read by several threads at once. */
bool gc_source_shared(const gc_source *s);
/* `size` bytes at `offset`; fewer, and a file that was changed since it was
   opened, are an error. */
gc_status gc_source_read(const gc_source *s, uint64_t offset, void *dst, size_t size, gc_error *err);

#endif
