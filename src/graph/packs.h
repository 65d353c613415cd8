/* SPDX-License-Identifier: MIT */
/* Packed weights, made at the first plan that needs them and shared by all
   runs of a network.  Entries are only added, without locks, and live as long
   as the network. */
#ifndef GC_GRAPH_PACKS_H
#define GC_GRAPH_PACKS_H

#include "graph/net.h"

typedef struct gc_pack_key {
    const gc_net *net; /* the network, or the body of a loop in it */
    int32_t node;
    int32_t folded;  /* weights changed by a BatchNormalization */
    int32_t purpose; /* run/pack.c's */
    int32_t reserved0;
    uint64_t variant; /* the operator's own */
    uint64_t bytes;
} gc_pack_key;

/* Memory for the packs of one plan, so that they lie in few large pages. */
typedef struct gc_slab {
    struct gc_slab *next;
    size_t used, size;
    int32_t kept; /* a pack in it is the network's, and so is the slab */
    int32_t reserved0;
} gc_slab;

/* Room for packs of `bytes` bytes together; NULL without memory. */
gc_slab *gc_slab_new(gc_net *net, size_t bytes);
/* What one pack takes there: it is aligned, and vector loads may pass its end.  0: too much. */
size_t gc_slab_need(size_t bytes);
void *gc_slab_take(gc_slab *slab, size_t bytes);
/* Frees a slab that is not kept.  NULL is allowed. */
void gc_slab_drop(gc_net *net, gc_slab *slab);

/* The block of that key, or NULL. */
const void *gc_packs_find(const gc_net *net, const gc_pack_key *key);
/* Puts `block` of the slab in and returns it, or the one that another thread has
   put in meanwhile; NULL without memory. */
const void *gc_packs_add(gc_net *net, const gc_pack_key *key, gc_slab *slab, const void *block);
void gc_packs_free(gc_net *net);

#endif
