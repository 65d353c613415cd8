/* SPDX-License-Identifier: MIT */
/* What is explained, and where: targets and layers.  Like all of explain/, it
   uses the public interface only, and could have been written by a user. */
#ifndef GC_EXPLAIN_TARGET_H
#define GC_EXPLAIN_TARGET_H

#include "gradcam/gradcam.h"

typedef struct gc_aim {
    gc_run *run;
    gc_ctx *ctx;
    gc_target target;
    const char *output; /* the value that the backward pass starts from */
    int64_t index;
    double score;
} gc_aim;

/* Chooses the value to start from (before a trailing softmax) and watches it. */
gc_status gc_aim_init(gc_aim *aim, gc_ctx *ctx, gc_run *run, const gc_target *target, gc_error *err);
/* After a forward pass: the gradient of the score with respect to the output, row-major;
   borrowed until the next seed.  The score is the sum of seed times output. */
gc_status gc_aim_seed(gc_aim *aim, gc_tensor **seed, gc_error *err);
/* After a forward pass: makes the seed and runs the backward pass. */
gc_status gc_aim_backward(gc_aim *aim, gc_error *err);
/* The default layer: the deepest value with spatial extent on the way to the
   target that is not a pooling's output.  Prepares the run. */
gc_status gc_aim_layer(gc_aim *aim, const char **layer, gc_error *err);

#endif
