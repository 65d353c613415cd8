/* SPDX-License-Identifier: MIT */
/* Files beneath the folder in which a model lies.  Neither a symbolic link nor
   ".." leads out of it, and only regular files are read. */
#ifndef GC_BASE_BESIDE_H
#define GC_BASE_BESIDE_H

#include "gradcam/gradcam.h"

typedef struct gc_beside gc_beside;

/* The folder of the file at `path`. */
gc_status gc_beside_open(gc_ctx *ctx, const char *path, gc_beside **out, gc_error *err);
void gc_beside_close(gc_beside *folder);

/* Opens `location`, components separated by '/', and says its size; it stays
   open until another location is asked for. */
gc_status gc_beside_find(gc_beside *folder, const char *location, uint64_t *size, gc_error *err);
/* Reads from the file that was found last; fewer bytes are an error. */
gc_status gc_beside_read(gc_beside *folder, uint64_t offset, void *dst, size_t size, gc_error *err);

#endif
