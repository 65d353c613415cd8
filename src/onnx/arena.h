/* SPDX-License-Identifier: MIT */
/* Memory of one import, released at once; and name -> number tables in it. */
#ifndef GC_ONNX_ARENA_H
#define GC_ONNX_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gradcam/gradcam.h"

typedef struct gc_arena_block gc_arena_block;
typedef struct gc_arena {
    gc_ctx *ctx;
    gc_arena_block *blocks;
    uint64_t used;
    uint64_t limit; /* bytes in all; above it alloc returns NULL and `over` is set */
    int32_t over;
    int32_t reserved0;
} gc_arena;

/* Zeroed memory, or NULL; a count of 0 gives a valid pointer. */
void *gc_arena_alloc(gc_arena *a, size_t count, size_t size);
void gc_arena_free(gc_arena *a);

typedef struct gc_names_slot {
    const char *name;
    int32_t id;
    int32_t reserved0;
} gc_names_slot;

typedef struct gc_names {
    gc_names_slot *slots;
    size_t mask;
    size_t left; /* names that may still be added */
} gc_names;

/* A table for at most `count` names. */
bool gc_names_make(gc_arena *a, size_t count, gc_names *names);
/* Adds; false when the name is there already.  The string must live on. */
bool gc_names_add(gc_names *names, const char *name, int32_t id);
/* The number, or -1. */
int32_t gc_names_find(const gc_names *names, const char *name);

#endif
