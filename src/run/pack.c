/* SPDX-License-Identifier: MIT */
#include "run/pack.h"

#include <string.h>

#include "graph/packs.h"
#include "run/weights.h"

/* Weights of the network itself, or those with a BatchNormalization in them,
   are the same in every plan; what hangs on shapes or on frozen inputs is not. */
static bool shareable(const gc_plan *p, const gc_step *s)
{
    return s->pack_net != NULL && p->slots[s->in[1]].lasting && !p->frozen;
}

/* Where things are while the steps of a plan are packed. */
typedef struct packer {
    gc_plan *p;
    gc_net *net;
    gc_slab *slab; /* for what the network gets */
    void *loan;    /* absent weights, one at a time */
    size_t loan_bytes;
} packer;

static gc_status out_of_memory(size_t bytes, gc_error *err)
{
    return gc_fail(err, GRADCAM_E_NOMEM, "out of memory: %zu bytes for weights", bytes);
}

static gc_status lend(packer *k, int32_t slot, gc_error *err)
{
    gc_tensor *w = &k->p->slots[slot].value;
    size_t bytes = ((size_t)gc_numel(w) + 1) * sizeof(float);
    if (bytes > k->loan_bytes) {
        gc_mem_free(k->p->ctx, k->loan);
        k->loan = gc_mem_alloc_raw(k->p->ctx, bytes, 1);
        k->loan_bytes = k->loan == NULL ? 0 : bytes;
    }
    if (k->loan == NULL) {
        return out_of_memory(bytes, err);
    }
    GC_TRY(gc_plan_fetch(k->p, slot, k->loan, err));
    w->data = k->loan;
    return GRADCAM_OK;
}

/* What a step's weights are packed for: see run/mean.h for the last. */
typedef enum purpose { FORWARD, BACKWARD, SUMS, PURPOSES } purpose;

static size_t bytes_for(const gc_plan *p, const gc_step *s, purpose what)
{
    if (what == SUMS) {
        return sizeof(float) *
               (size_t)gc_sums_packed(&s->call, &p->slots[s->in[0]].sums.places, &p->slots[s->out[0]].sums.places);
    }
    return what == BACKWARD ? s->call.back_pack_bytes : s->call.pack_bytes;
}

static bool wants_pack(const gc_plan *p, const gc_step *s, purpose what)
{
    if (what == SUMS) {
        return s->sums != 0 && s->sums_way == GC_SUMS_PRODUCT && bytes_for(p, s, what) > 0;
    }
    return s->call.pack != NULL && (what == FORWARD || s->backward) && bytes_for(p, s, what) > 0;
}

static gc_status pack(gc_plan *p, gc_step *s, purpose what, void *block)
{
    if (what == SUMS) {
        return gc_sums_pack(&s->call, &p->slots[s->in[0]].sums.places, &p->slots[s->out[0]].sums.places, block);
    }
    return s->call.pack(&s->call, what == BACKWARD, block);
}

static void set_packed(gc_step *s, purpose what, const void *block)
{
    *(what == SUMS ? &s->sums_packed : what == BACKWARD ? &s->call.back_packed : &s->call.packed) = block;
}

/* The operator packs, with its weights there. */
static gc_status fill(packer *k, gc_step *s, purpose what, void *block, gc_error *err)
{
    gc_tensor *w = &k->p->slots[s->in[1]].value;
    bool absent = w->data == NULL;
    if (absent) {
        GC_TRY(lend(k, s->in[1], err));
    }
    s->call.err = err;
    gc_status status = pack(k->p, s, what, block);
    w->data = absent ? NULL : w->data;
    return status;
}

static gc_pack_key key_of(const gc_plan *p, const gc_step *s, purpose what)
{
    gc_pack_key key;
    memset(&key, 0, sizeof key);
    key.net = s->pack_net;
    key.node = s->pack_node;
    key.folded = p->slots[s->in[1]].net_value < 0;
    key.purpose = (int32_t)what;
    key.variant = what == SUMS ? 0 : what == BACKWARD ? s->call.back_pack_variant : s->call.pack_variant;
    key.bytes = bytes_for(p, s, what);
    return key;
}

/* A pack of this plan alone. */
static gc_status pack_own(packer *k, gc_step *s, purpose what, gc_error *err)
{
    size_t bytes = bytes_for(k->p, s, what);
    unsigned char *block = gc_mem_alloc_raw(k->p->ctx, bytes + 64, 1);
    if (block == NULL) {
        return out_of_memory(bytes, err);
    }
    memset(block + bytes, 0, 64); /* vector loads may pass the end */
    *(what == SUMS ? &s->own_sums_pack : what == BACKWARD ? &s->own_back_pack : &s->own_pack) = block;
    set_packed(s, what, block);
    return fill(k, s, what, block, err);
}

static gc_status pack_shared(packer *k, gc_step *s, purpose what, gc_error *err)
{
    gc_pack_key key = key_of(k->p, s, what);
    const void *there = gc_packs_find(k->net, &key);
    if (there == NULL) {
        void *block = k->slab == NULL ? NULL : gc_slab_take(k->slab, (size_t)key.bytes);
        if (block == NULL) { /* a later turn packs in another form than the first */
            return pack_own(k, s, what, err);
        }
        GC_TRY(fill(k, s, what, block, err));
        there = gc_packs_add(k->net, &key, k->slab, block);
    }
    set_packed(s, what, there);
    return there == NULL ? GC_NOMEM(err) : GRADCAM_OK;
}

static gc_status pack_step(packer *k, gc_step *s, gc_error *err)
{
    for (purpose what = FORWARD; what < PURPOSES; what++) {
        if (wants_pack(k->p, s, what)) {
            GC_TRY(shareable(k->p, s) ? pack_shared(k, s, what, err) : pack_own(k, s, what, err));
        }
    }
    return GRADCAM_OK;
}

/* Room for all that the network does not have yet. */
static gc_status make_room(packer *k, gc_error *err)
{
    size_t total = 0;
    for (int32_t i = 0; i < PURPOSES * k->p->n_steps; i++) {
        const gc_step *s = &k->p->steps[i / PURPOSES];
        purpose what = (purpose)(i % PURPOSES);
        if (wants_pack(k->p, s, what) && shareable(k->p, s) && !s->later_turn) {
            gc_pack_key key = key_of(k->p, s, what);
            size_t need = gc_packs_find(k->net, &key) != NULL ? 0 : gc_slab_need((size_t)key.bytes);
            if (need > SIZE_MAX - total) {
                return out_of_memory(total, err);
            }
            total += need;
        }
    }
    k->slab = total > 0 ? gc_slab_new(k->net, total) : NULL;
    return total > 0 && k->slab == NULL ? out_of_memory(total, err) : GRADCAM_OK;
}

/* Nobody reads in[1] of the step but those who pack it. */
static bool packs_serve(const gc_plan *p, const gc_step *s)
{
    uint32_t passes = GC_PACK_FORWARD | (s->backward ? GC_PACK_BACKWARD : 0u);
    bool summed = s->sums != 0 && s->sums_way == GC_SUMS_PRODUCT && !wants_pack(p, s, SUMS);
    return !summed && s->call.pack != NULL && s->call.pack_bytes > 0 && (s->call.pack_serves & passes) == passes;
}

static gc_status hold_operands(gc_plan *p, const gc_step *s, gc_error *err)
{
    for (int32_t i = 0; i < s->call.n_in; i++) {
        if (i != 1 || !packs_serve(p, s)) {
            GC_TRY(gc_plan_hold(p, s->in[i], err));
        }
    }
    return gc_plan_hold(p, s->bias, err);
}

gc_status gc_plan_pack(gc_plan *p, gc_error *err)
{
    packer k = {p, (gc_net *)(uintptr_t)p->net, NULL, NULL, 0};
    for (int32_t i = 0; i < p->n_steps; i++) {
        GC_TRY(hold_operands(p, &p->steps[i], err));
    }
    gc_status status = make_room(&k, err);
    for (int32_t i = 0; i < p->n_steps && status == GRADCAM_OK; i++) {
        status = pack_step(&k, &p->steps[i], err);
    }
    gc_slab_drop(k.net, k.slab);
    gc_mem_free(p->ctx, k.loan);
    return status;
}
