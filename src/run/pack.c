/* SPDX-License-Identifier: MIT */
#include "run/pack.h"

#include <string.h>

#include "graph/packs.h"
#include "run/weights.h"

/* Weights of the network itself, or those with a BatchNormalization in them,
   are the same in every plan; what hangs on frozen inputs is not. */
static bool shareable(const gc_plan *p, const gc_step *s)
{
    return s->node >= 0 && !p->frozen;
}

static gc_status fill(gc_step *s, bool backward, size_t bytes, void **out, gc_error *err)
{
    unsigned char *block = gc_mem_alloc_raw(s->call.ctx, bytes + 64, 1);
    if (block == NULL) {
        return gc_fail(err, GRADCAM_E_NOMEM, "out of memory: %zu bytes for packed weights", bytes);
    }
    memset(block + bytes, 0, 64); /* vector loads may pass the end */
    s->call.err = err;
    gc_status status = s->call.pack(&s->call, backward, block);
    if (status != GRADCAM_OK) {
        gc_mem_free(s->call.ctx, block);
        return status;
    }
    *out = block;
    return GRADCAM_OK;
}

/* Memory in which absent weights are until they are packed. */
typedef struct loan {
    void *block;
    size_t bytes;
} loan;

static gc_status lend(gc_plan *p, int32_t slot, loan *l, gc_error *err)
{
    gc_tensor *w = &p->slots[slot].value;
    size_t bytes = ((size_t)gc_numel(w) + 1) * sizeof(float);
    if (bytes > l->bytes) {
        gc_mem_free(p->ctx, l->block);
        l->block = gc_mem_alloc_raw(p->ctx, bytes, 1);
        l->bytes = l->block == NULL ? 0 : bytes;
    }
    if (l->block == NULL) {
        return gc_fail(err, GRADCAM_E_NOMEM, "out of memory: %zu bytes for weights", bytes);
    }
    GC_TRY(gc_plan_fetch(p, slot, l->block, err));
    w->data = l->block;
    return GRADCAM_OK;
}

/* fill, with the weights there. */
static gc_status fill_lent(gc_plan *p, gc_step *s, bool backward, size_t bytes, loan *l, void **out, gc_error *err)
{
    gc_tensor *w = &p->slots[s->in[1]].value;
    bool lent = w->data == NULL;
    if (lent) {
        GC_TRY(lend(p, s->in[1], l, err));
    }
    gc_status status = fill(s, backward, bytes, out, err);
    w->data = lent ? NULL : w->data;
    return status;
}

static gc_status pack_one(gc_plan *p, gc_step *s, bool backward, loan *l, const void **out, gc_error *err)
{
    gc_pack_key key;
    void *block = NULL;
    size_t bytes = backward ? s->call.back_pack_bytes : s->call.pack_bytes;
    memset(&key, 0, sizeof key);
    key.node = s->node;
    key.folded = p->slots[s->in[1]].net_value < 0;
    key.backward = backward;
    key.variant = backward ? s->call.back_pack_variant : s->call.pack_variant;
    key.bytes = bytes;
    *out = shareable(p, s) ? gc_packs_find(p->net, &key) : NULL;
    if (*out != NULL) {
        return GRADCAM_OK;
    }
    GC_TRY(fill_lent(p, s, backward, bytes, l, &block, err));
    if (!shareable(p, s)) {
        *(backward ? &s->own_back_pack : &s->own_pack) = block;
        *out = block;
        return GRADCAM_OK;
    }
    *out = gc_packs_add((gc_net *)(uintptr_t)p->net, &key, block);
    return *out == NULL ? GC_NOMEM(err) : GRADCAM_OK;
}

static gc_status pack_step(gc_plan *p, gc_step *s, loan *l, gc_error *err)
{
    if (s->call.pack != NULL && s->call.pack_bytes > 0) {
        GC_TRY(pack_one(p, s, false, l, &s->call.packed, err));
    }
    if (s->call.pack != NULL && s->call.back_pack_bytes > 0 && s->backward) {
        GC_TRY(pack_one(p, s, true, l, &s->call.back_packed, err));
    }
    return GRADCAM_OK;
}

/* Nobody reads in[1] of the step but those who pack it. */
static bool packs_serve(const gc_step *s)
{
    uint32_t passes = GC_PACK_FORWARD | (s->backward ? GC_PACK_BACKWARD : 0u);
    return s->call.pack != NULL && s->call.pack_bytes > 0 && (s->call.pack_serves & passes) == passes;
}

static gc_status hold_operands(gc_plan *p, const gc_step *s, gc_error *err)
{
    for (int32_t i = 0; i < s->call.n_in; i++) {
        if (i != 1 || !packs_serve(s)) {
            GC_TRY(gc_plan_hold(p, s->in[i], err));
        }
    }
    return gc_plan_hold(p, s->bias, err);
}

gc_status gc_plan_pack(gc_plan *p, gc_error *err)
{
    loan l = {NULL, 0};
    gc_status status = GRADCAM_OK;
    for (int32_t i = 0; i < p->n_steps && status == GRADCAM_OK; i++) {
        status = hold_operands(p, &p->steps[i], err);
    }
    for (int32_t i = 0; i < p->n_steps && status == GRADCAM_OK; i++) {
        status = pack_step(p, &p->steps[i], &l, err);
    }
    gc_mem_free(p->ctx, l.block);
    return status;
}
