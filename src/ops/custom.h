/* SPDX-License-Identifier: MIT */
/* Operators of the host, kept by the context. */
#ifndef GC_OPS_CUSTOM_H
#define GC_OPS_CUSTOM_H

#include "ops/op.h"

typedef struct gc_custom_op {
    gc_op_def def; /* strings are copies */
    gc_op row;     /* calls def's functions */
    struct gc_custom_op *next;
} gc_custom_op;

/* NULL when the host registered none of that name; the newest wins. */
const gc_custom_op *gc_custom_find(const gc_ctx *ctx, const char *domain, const char *op);

#endif
