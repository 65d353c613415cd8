/* SPDX-License-Identifier: MIT */
#include "onnx/arena.h"

#include <string.h>

#include "base/ctx.h"

#define BLOCK_BYTES ((size_t)32768)
#define ALIGN ((size_t)16)

struct gc_arena_block {
    gc_arena_block *next;
    size_t used;
    size_t size; /* of the payload */
    size_t reserved0;
};

static gc_arena_block *add_block(gc_arena *a, size_t size)
{
    gc_arena_block *b;
    if (size > SIZE_MAX - sizeof *b) {
        return NULL;
    }
    b = gc_mem_alloc(a->ctx, 1, sizeof *b + size);
    if (!b) {
        return NULL;
    }
    b->size = size;
    /* a large block goes behind the one that small items are taken from */
    if (a->blocks && size > BLOCK_BYTES) {
        b->next = a->blocks->next;
        a->blocks->next = b;
    } else {
        b->next = a->blocks;
        a->blocks = b;
    }
    return b;
}

void *gc_arena_alloc(gc_arena *a, size_t count, size_t size)
{
    gc_arena_block *b = a->blocks;
    size_t bytes;
    void *p;
    if (size != 0 && count > (SIZE_MAX / 2) / size) {
        return NULL;
    }
    bytes = (count * size + ALIGN) & ~(ALIGN - 1); /* at least one unit */
    if (bytes > a->limit - a->used) {
        a->over = 1;
        return NULL;
    }
    if (!b || b->size - b->used < bytes) {
        b = add_block(a, bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES);
        if (!b) {
            return NULL;
        }
    }
    p = (unsigned char *)(b + 1) + b->used;
    b->used += bytes;
    a->used += bytes;
    return p;
}

void gc_arena_free(gc_arena *a)
{
    while (a->blocks) {
        gc_arena_block *next = a->blocks->next;
        gc_mem_free(a->ctx, a->blocks);
        a->blocks = next;
    }
}

static size_t hash(const char *name)
{
    uint64_t h = 1469598103934665603u;
    for (; *name; ++name) {
        h = (h ^ (unsigned char)*name) * 1099511628211u;
    }
    return (size_t)(h ^ (h >> 32));
}

bool gc_names_make(gc_arena *a, size_t count, gc_names *names)
{
    size_t size = 4;
    while (size / 2 < count && size <= SIZE_MAX / 4) {
        size *= 2;
    }
    names->slots = gc_arena_alloc(a, size, sizeof *names->slots);
    names->mask = size - 1;
    names->left = count;
    return names->slots != NULL;
}

bool gc_names_add(gc_names *names, const char *name, int32_t id)
{
    size_t k = hash(name) & names->mask;
    while (names->slots[k].name) {
        if (strcmp(names->slots[k].name, name) == 0) {
            return false;
        }
        k = (k + 1) & names->mask;
    }
    if (names->left == 0) {
        return false;
    }
    --names->left;
    names->slots[k].name = name;
    names->slots[k].id = id;
    return true;
}

int32_t gc_names_find(const gc_names *names, const char *name)
{
    size_t k = hash(name) & names->mask;
    while (names->slots[k].name) {
        if (strcmp(names->slots[k].name, name) == 0) {
            return names->slots[k].id;
        }
        k = (k + 1) & names->mask;
    }
    return -1;
}
