/* SPDX-License-Identifier: MIT */
#include "graph/packs.h"

#include <string.h>

#include "base/compiler.h"

typedef struct gc_pack {
    gc_pack_key key;
    const void *block;
    struct gc_pack *next;
} gc_pack;

/* The first pack begins ALIGN bytes behind the slab. */
enum { ALIGN = 64 };

size_t gc_slab_need(size_t bytes)
{
    return bytes > SIZE_MAX - 2 * ALIGN ? 0 : (bytes + 2 * ALIGN - 1) / ALIGN * ALIGN;
}

gc_slab *gc_slab_new(gc_net *net, size_t bytes)
{
    gc_slab *slab = bytes > SIZE_MAX - ALIGN ? NULL : gc_mem_alloc_raw(net->ctx, 1, ALIGN + bytes);
    if (slab != NULL) {
        memset(slab, 0, sizeof *slab);
        slab->size = bytes;
    }
    return slab;
}

void *gc_slab_take(gc_slab *slab, size_t bytes)
{
    size_t need = gc_slab_need(bytes);
    unsigned char *block = (unsigned char *)slab + ALIGN + slab->used;
    if (need == 0 || need > slab->size - slab->used) {
        return NULL;
    }
    slab->used += need;
    memset(block + bytes, 0, need - bytes);
    return block;
}

void gc_slab_drop(gc_net *net, gc_slab *slab)
{
    if (slab != NULL && !slab->kept) {
        gc_mem_free(net->ctx, slab);
    }
}

static void keep(gc_net *net, gc_slab *slab)
{
    void *head = GC_ATOMIC_LOAD(&net->slabs);
    slab->kept = 1;
    do {
        slab->next = head;
    } while (!GC_ATOMIC_CAS(&net->slabs, &head, (void *)slab));
}

static const void *find_from(const gc_pack *p, const gc_pack_key *key)
{
    for (; p != NULL; p = p->next) {
        if (memcmp(&p->key, key, sizeof *key) == 0) {
            return p->block;
        }
    }
    return NULL;
}

const void *gc_packs_find(const gc_net *net, const gc_pack_key *key)
{
    return find_from(GC_ATOMIC_LOAD(&net->packs), key);
}

const void *gc_packs_add(gc_net *net, const gc_pack_key *key, gc_slab *slab, const void *block)
{
    gc_pack *p = gc_mem_alloc(net->ctx, 1, sizeof *p);
    if (p == NULL) {
        return NULL;
    }
    if (!slab->kept) {
        keep(net, slab);
    }
    p->key = *key;
    p->block = block;
    for (;;) {
        void *head = GC_ATOMIC_LOAD(&net->packs);
        const void *there = find_from(head, key);
        if (there != NULL) {
            gc_mem_free(net->ctx, p);
            return there;
        }
        p->next = head;
        if (GC_ATOMIC_CAS(&net->packs, &head, (void *)p)) {
            return block;
        }
    }
}

void gc_packs_free(gc_net *net)
{
    for (gc_pack *p = net->packs; p != NULL;) {
        gc_pack *next = p->next;
        gc_mem_free(net->ctx, p);
        p = next;
    }
    for (gc_slab *slab = net->slabs; slab != NULL;) {
        gc_slab *next = slab->next;
        gc_mem_free(net->ctx, slab);
        slab = next;
    }
}
