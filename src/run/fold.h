/* SPDX-License-Identifier: MIT */
#ifndef GC_RUN_FOLD_H
#define GC_RUN_FOLD_H

#include "run/plan.h"

/* If node n is a BatchNormalization that can become part of the convolution
   before it, unseen by anybody, does that and sets *folded. */
gc_status gc_fold_batch_norm(gc_plan *plan, const gc_node *n, bool *folded, gc_error *err);

#endif
