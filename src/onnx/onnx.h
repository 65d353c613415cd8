/* SPDX-License-Identifier: MIT */
/* ONNX ModelProto -> gc_net. */
#ifndef GC_ONNX_ONNX_H
#define GC_ONNX_ONNX_H

#include "gradcam/gradcam.h"

/* The bytes are untrusted and are not needed afterwards.  `opts` may be NULL.
   `path`: the file they came from, beside which external data are looked for; NULL: none. */
gc_status gc_onnx_import(gc_ctx *ctx, const void *data, size_t size, const char *path, const gc_load_options *opts,
                         gc_net **out, gc_error *err);

#endif
