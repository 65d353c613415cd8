/* SPDX-License-Identifier: MIT */
/* Tensor data that is not in the message: in other files (TensorProto.external_data),
   or cut out of the model's outline. */
#ifndef GC_ONNX_EXTERNAL_H
#define GC_ONNX_EXTERNAL_H

#include "onnx/outline.h"
#include "onnx/wire.h"

#include "gradcam/gradcam.h"

struct gc_beside;

/* How this import reaches other files: the host's callback if it gave one, else
   the folder of the model's file, opened at first need, else not at all. */
typedef struct gc_external {
    gc_ctx *ctx;
    const gc_load_options *options; /* may be NULL */
    const char *path;               /* of the model, or NULL */
    struct gc_beside *folder;
    const gc_source *source; /* of the model itself */
    const gc_outline *outline;
    bool on_demand; /* large weights stay in the source */
} gc_external;

void gc_external_end(gc_external *x);

/* Where one tensor's data lie. */
typedef struct gc_external_ref {
    const unsigned char *location; /* not terminated */
    size_t n_location;
    uint64_t offset, length;
    uint32_t seen; /* bits of the keys that were given */
    uint32_t reserved0;
} gc_external_ref;

/* Takes one entry (StringStringEntryProto) over; unknown keys are left out. */
gc_status gc_external_entry(gc_external_ref *ref, const gc_field *f, const char *tensor, gc_error *err);
/* Before memory is taken: may `bytes` bytes, all that the tensor has, be there? */
gc_status gc_external_check(gc_external *x, const gc_external_ref *ref, uint64_t bytes, const char *tensor,
                            gc_error *err);
gc_status gc_external_read(gc_external *x, const gc_external_ref *ref, void *dst, size_t bytes, const char *tensor,
                           gc_error *err);

#endif
