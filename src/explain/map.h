/* SPDX-License-Identifier: MIT */
/* Maps: from activations and gradients to a map, and what is done to it. */
#ifndef GC_EXPLAIN_MAP_H
#define GC_EXPLAIN_MAP_H

#include <stdbool.h>

#include "gradcam/gradcam.h"

/* The working memory of the methods, see gc_run_scratch. */
enum {
    GC_SCRATCH_SEED = 8,
    GC_SCRATCH_MARKS, /* of the walk to the default layer */
    GC_SCRATCH_ACT,   /* a layer that lies across, and its gradient */
    GC_SCRATCH_GRAD,
    GC_SCRATCH_PARTS,   /* of pooled gradients */
    GC_SCRATCH_WEIGHTS, /* of channels */
    GC_SCRATCH_CAM,     /* Guided Grad-CAM: the map, and the same resized */
    GC_SCRATCH_RESIZED,
    GC_SCRATCH_MAPS = GC_SCRATCH_RESIZED /* of a sweep, until all are there */
};

/* map[n, p] = sum_k pool_p(grad[n, k, :]) * act[n, k, p]; see gc_gradcam.  is_mean: `grad` is
   the mean already, [n, k]. */
gc_status gc_map_weigh(gc_run *run, const gc_tensor *act, const gc_tensor *grad, bool is_mean,
                       const gc_explain_options *o, gc_tensor *map, gc_error *err);
/* GRADCAM_WARN_* of a float32 row-major map. */
uint32_t gc_map_warnings(const gc_tensor *map);
/* A float32 tensor of that shape: `into` referenced, or a new one. */
gc_status gc_map_make(gc_ctx *ctx, int32_t ndim, const int64_t *shape, gc_tensor *into, gc_tensor **out, gc_error *err);

#endif
