/* SPDX-License-Identifier: MIT */
#ifndef GC_RUN_PACK_H
#define GC_RUN_PACK_H

#include "run/plan.h"

/* Packs constant operands of all steps, or finds them with the network. */
gc_status gc_plan_pack(gc_plan *plan, gc_error *err);

#endif
