/* SPDX-License-Identifier: MIT */
/* ONNX ModelProto -> gc_net. */
#ifndef GC_ONNX_ONNX_H
#define GC_ONNX_ONNX_H

#include "onnx/outline.h"

/* A model's bytes, untrusted: all of them in `data`, or an outline of them. */
typedef struct gc_model {
    const void *data;
    size_t size;
    const gc_outline *outline; /* what `data` is; NULL: the whole */
    const gc_source *source;   /* of the whole; with neither outline nor opts->weights it may be NULL */
    const char *path;          /* beside which external data are looked for; NULL: nowhere */
} gc_model;

/* The data are not needed afterwards; the source is where the network has weights
   that are read on demand.  `opts` may be NULL. */
gc_status gc_onnx_import(gc_ctx *ctx, const gc_model *model, const gc_load_options *opts, gc_net **out, gc_error *err);

#endif
