/* SPDX-License-Identifier: MIT */
/* Whole files into memory. */
#ifndef GC_BASE_FILE_H
#define GC_BASE_FILE_H

#include "gradcam/gradcam.h"

/* *data is the caller's, for gc_mem_free; GRADCAM_E_LIMIT above max_bytes. */
gc_status gc_file_read(gc_ctx *ctx, const char *path, uint64_t max_bytes, void **data, size_t *size, gc_error *err);

#endif
