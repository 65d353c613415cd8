/* SPDX-License-Identifier: MIT */
/* Maps: from activations and gradients to a map, and what is done to it. */
#ifndef GC_EXPLAIN_MAP_H
#define GC_EXPLAIN_MAP_H

#include "gradcam/gradcam.h"

/* map[n, p] = sum_k pool_p(grad[n, k, :]) * act[n, k, p]; see gc_gradcam. */
gc_status gc_map_weigh(gc_ctx *ctx, const gc_tensor *act, const gc_tensor *grad, const gc_explain_options *o,
                       gc_tensor *map, gc_error *err);
/* GRADCAM_WARN_* of a float32 row-major map. */
uint32_t gc_map_warnings(const gc_tensor *map);
/* A float32 tensor of that shape: `into` referenced, or a new one. */
gc_status gc_map_make(gc_ctx *ctx, int32_t ndim, const int64_t *shape, gc_tensor *into, gc_tensor **out, gc_error *err);

#endif
