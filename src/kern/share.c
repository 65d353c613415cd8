/* SPDX-License-Identifier: MIT */
#include "kern/share.h"

/* How many items of the run of slot `index` are claimed. */
static int32_t *claimed(const gc_share *s, int64_t index)
{
    return (int32_t *)(void *)(s->slots + index * s->slot_floats);
}

static void slot_task(void *task, uint32_t index)
{
    const gc_share *s = task;
    int64_t kept = -1;
    float *slot = s->slots + (int64_t)index * s->slot_floats + GC_SHARE_FLOATS;
    for (int64_t i = 0; i < s->workers; i++) {
        int64_t run = (index + i) % s->workers, begin = s->items * run / s->workers;
        int64_t end = s->items * (run + 1) / s->workers;
        for (int64_t at = begin; at < end;) {
            at = begin + gc_atomic_add(claimed(s, run), 1) - 1;
            if (at < end) {
                s->fn(s->task, at, slot, &kept);
            }
        }
    }
}

gc_status gc_share_run(const gc_ctx *ctx, gc_share *s)
{
    for (int32_t i = 0; i < s->workers; i++) {
        *claimed(s, i) = 0;
    }
    return gc_parallel(ctx, slot_task, s, (uint32_t)s->workers);
}
