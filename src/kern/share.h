/* SPDX-License-Identifier: MIT */
/* Work shared by threads each of which has memory of its own, a slot. */
#ifndef GC_KERN_SHARE_H
#define GC_KERN_SHARE_H

#include "base/ctx.h"

/* Two cache lines, which are fetched together, in front of every slot. */
enum { GC_SHARE_FLOATS = 32 };

/* `kept` belongs to the function: -1 before the first item of a slot. */
typedef void (*gc_share_fn)(const void *task, int64_t item, float *slot, int64_t *kept);

typedef struct gc_share {
    gc_share_fn fn;
    const void *task;
    float *slots;
    int64_t slot_floats; /* with the GC_SHARE_FLOATS */
    int64_t items;
    int32_t workers; /* slots that there are */
    int32_t reserved0;
} gc_share;

/* Each worker does its own run of the items and then what others have left, so
   that it meets the same part of a picture in every layer. */
gc_status gc_share_run(const gc_ctx *ctx, gc_share *s);

#endif
