/* SPDX-License-Identifier: MIT */
#include "run/weights.h"

#include <string.h>

/* Channels that a task scales. */
enum { CHANNELS = 16 };

typedef struct scale_job {
    float *w;
    const double *scale;
    int64_t channels, each;
} scale_job;

static void scale_task(void *task, uint32_t index)
{
    const scale_job *j = task;
    int64_t first = (int64_t)index * CHANNELS;
    for (int64_t c = first; c < j->channels && c < first + CHANNELS; c++) {
        for (int64_t i = c * j->each; i < (c + 1) * j->each; i++) {
            j->w[i] = (float)(j->scale[c] * (double)j->w[i]);
        }
    }
}

static gc_status read_numbers(const gc_plan *p, const gc_slot *s, void *dst, gc_error *err)
{
    if (s->value.data == NULL) {
        return gc_net_fetch(p->net, &s->value, dst, err);
    }
    memcpy(dst, s->value.data, (size_t)gc_numel(&s->value) * gc_dtype_size(s->value.dtype));
    return GRADCAM_OK;
}

gc_status gc_plan_fetch(const gc_plan *p, int32_t slot, void *dst, gc_error *err)
{
    const gc_slot *s = &p->slots[slot];
    if (s->scale == NULL) {
        return read_numbers(p, s, dst, err);
    }
    int64_t channels = s->value.shape[0];
    scale_job j = {dst, s->scale, channels, channels > 0 ? gc_numel(&s->value) / channels : 0};
    GC_TRY(read_numbers(p, &p->slots[s->unscaled], dst, err));
    gc_status status = gc_parallel(p->ctx, scale_task, &j, (uint32_t)((channels + CHANNELS - 1) / CHANNELS));
    return status == GRADCAM_OK ? status : gc_fail(err, status, "the executor failed while weights were prepared");
}

gc_status gc_plan_hold(gc_plan *p, int32_t slot, gc_error *err)
{
    gc_slot *s = slot < 0 ? NULL : &p->slots[slot];
    if (s == NULL || !s->constant || s->value.data != NULL || s->fault != 0) {
        return GRADCAM_OK;
    }
    if (s->scale == NULL) {
        return gc_net_hold(s->weight_net, s->weight, &s->value.data, err);
    }
    s->owned = gc_mem_alloc_raw(p->ctx, (size_t)gc_numel(&s->value) + 1, sizeof(float));
    if (s->owned == NULL) {
        return GC_NOMEM(err);
    }
    s->value.data = s->owned;
    return gc_plan_fetch(p, slot, s->owned, err);
}
