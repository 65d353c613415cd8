/* SPDX-License-Identifier: MIT */
#ifndef GC_KERN_HALF_ATTEND_H
#define GC_KERN_HALF_ATTEND_H

#include "kern/attend.h"

/* As gc_attend_work and gc_attend_run, where gc_attend_in_half is true. */
int64_t gc_half_attend_work(const gc_attend *a);
gc_status gc_half_attend_run(const gc_ctx *ctx, const gc_attend *a, float *work);

#endif
