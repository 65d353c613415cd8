/* SPDX-License-Identifier: MIT */
/* Inputs of a plan: data, or constants of this plan where shapes hang on them. */
#include <string.h>

#include "run/plan.h"

/* Small inputs that nobody watches: sizes, axes, scales rather than data. */
static bool freezable(const gc_plan *p, int32_t k, const gc_tensor *bound)
{
    bool small = bound->ndim <= 1 && gc_numel(bound) <= GC_FROZEN_MOST;
    return p->watch[p->net->inputs[k]] == 0 && (bound->dtype >= GRADCAM_I64 || small);
}

static gc_status freeze(gc_plan *p, gc_slot *s, const gc_tensor *bound, gc_error *err)
{
    s->owned = gc_mem_alloc(p->ctx, (size_t)gc_numel(bound) + 1, gc_dtype_size(s->value.dtype));
    if (s->owned == NULL) {
        return GC_NOMEM(err);
    }
    s->value.data = s->owned;
    s->constant = 1;
    gc_tensor_convert(bound, &s->value);
    return GRADCAM_OK;
}

bool gc_plan_is_stale(const gc_plan *p, gc_tensor *const *inputs)
{
    for (int32_t i = 0; i < p->net->n_inputs; i++) {
        const gc_slot *s = &p->slots[p->slot_of[p->net->inputs[i]]];
        if (s->constant &&
            (inputs[i]->dtype != s->value.dtype || !gc_is_row(inputs[i]) ||
             memcmp(inputs[i]->data, s->owned, (size_t)gc_numel(&s->value) * gc_dtype_size(s->value.dtype)) != 0)) {
            return true;
        }
    }
    return false;
}

gc_status gc_plan_add_input(gc_plan *p, int32_t k, const gc_tensor *bound, gc_error *err)
{
    const gc_value *v = &p->net->values[p->net->inputs[k]];
    if (bound == NULL) {
        return gc_fail(err, GRADCAM_E_STATE, "input \"%s\" is not bound; call gc_run_set_input", v->name);
    }
    gc_slot *s = &p->slots[gc_plan_add_slot(p, p->net->inputs[k])];
    gc_dtype dtype = v->dtype != 0 ? v->dtype : bound->dtype;
    s->value.dtype = dtype <= GRADCAM_BF16 ? GRADCAM_F32 : dtype;
    s->value.ndim = bound->ndim;
    memcpy(s->value.shape, bound->shape, sizeof s->value.shape);
    gc_row_strides(s->value.ndim, s->value.shape, s->value.strides);
    return p->frozen && freezable(p, k, bound) ? freeze(p, s, bound, err) : GRADCAM_OK;
}
