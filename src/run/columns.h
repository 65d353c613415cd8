/* SPDX-License-Identifier: MIT */
#ifndef GC_RUN_COLUMNS_H
#define GC_RUN_COLUMNS_H

#include "ops/conv.h"
#include "run/plan.h"

/* A 1x1 convolution and the depthwise one behind it on small maps: a block of
   channels at a time, so that each thread reads only what it has made itself and no
   line is made twice.  Unlike strips (run/strips.h) they need no lines to cut, and the
   result may be anything's operand.  The depthwise step runs both; its result is that
   of the steps one by one, to the bit. */
bool gc_columns_fit(const gc_conv_pass *dense, const gc_conv_pass *depthwise);
/* Makes the work_bytes of the second step, which is `by_columns`, large enough. */
gc_status gc_columns_size(gc_plan *plan, gc_step *second, gc_error *err);
gc_status gc_columns_run(gc_plan *plan, gc_step *second);

#endif
