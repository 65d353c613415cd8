/* SPDX-License-Identifier: MIT */
#include "graph/packs.h"

#include <string.h>

#include "base/compiler.h"

typedef struct gc_pack {
    gc_pack_key key;
    void *block;
    struct gc_pack *next;
} gc_pack;

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

const void *gc_packs_add(gc_net *net, const gc_pack_key *key, void *block)
{
    gc_pack *p = gc_mem_alloc(net->ctx, 1, sizeof *p);
    if (p == NULL) {
        gc_mem_free(net->ctx, block);
        return NULL;
    }
    p->key = *key;
    p->block = block;
    for (;;) {
        void *head = GC_ATOMIC_LOAD(&net->packs);
        const void *there = find_from(head, key);
        if (there != NULL) {
            gc_mem_free(net->ctx, block);
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
        gc_mem_free(net->ctx, p->block);
        gc_mem_free(net->ctx, p);
        p = next;
    }
}
