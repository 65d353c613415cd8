/* SPDX-License-Identifier: MIT */
/* Packed weights, made at the first plan that needs them and shared by all
   runs of a network.  Entries are only added, without locks, and live as long
   as the network. */
#ifndef GC_GRAPH_PACKS_H
#define GC_GRAPH_PACKS_H

#include "graph/net.h"

typedef struct gc_pack_key {
    int32_t node;
    int32_t folded; /* weights changed by a BatchNormalization */
    int32_t backward;
    int32_t reserved0;
    uint64_t variant; /* the operator's own */
    uint64_t bytes;
} gc_pack_key;

/* The block of that key, or NULL. */
const void *gc_packs_find(const gc_net *net, const gc_pack_key *key);
/* Takes `block` (of gc_mem_alloc) and returns it, or frees it and returns the
   one another thread has put in meanwhile; NULL without memory (block freed). */
const void *gc_packs_add(gc_net *net, const gc_pack_key *key, void *block);
void gc_packs_free(gc_net *net);

#endif
