/* SPDX-License-Identifier: MIT */
#include "run/pack.h"

#include <string.h>

#include "graph/packs.h"

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

static gc_status pack_one(gc_plan *p, gc_step *s, bool backward, const void **out, gc_error *err)
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
    GC_TRY(fill(s, backward, bytes, &block, err));
    if (!shareable(p, s)) {
        *(backward ? &s->own_back_pack : &s->own_pack) = block;
        *out = block;
        return GRADCAM_OK;
    }
    *out = gc_packs_add((gc_net *)(uintptr_t)p->net, &key, block);
    return *out == NULL ? GC_NOMEM(err) : GRADCAM_OK;
}

gc_status gc_plan_pack(gc_plan *p, gc_error *err)
{
    for (int32_t i = 0; i < p->n_steps; i++) {
        gc_step *s = &p->steps[i];
        if (s->call.pack == NULL) {
            continue;
        }
        if (s->call.pack_bytes > 0) {
            GC_TRY(pack_one(p, s, false, &s->call.packed, err));
        }
        if (s->call.back_pack_bytes > 0 && s->backward) {
            GC_TRY(pack_one(p, s, true, &s->call.back_packed, err));
        }
    }
    return GRADCAM_OK;
}
