/* SPDX-License-Identifier: MIT */
#include "kern/kern.h"

#include <string.h>

#include "base/compiler.h"
#include "kern/isa.h"

const gc_kern *gc_kern_at(int32_t index, int32_t *supported)
{
#ifdef GC_HAVE_X86
    if (index == 0) {
        *supported = GC_CPU_HAS_AVX512() ? 1 : 0;
        return &gc_kern_avx512;
    }
    if (index == 1) {
        *supported = GC_CPU_HAS_AVX2() ? 1 : 0;
        return &gc_kern_avx2;
    }
    index -= 2;
#endif
    *supported = 1;
#ifdef GC_HAVE_VECTORS
    if (index == 0) {
        return &gc_kern_v4;
    }
    index--;
#endif
    return index == 0 ? &gc_kern_plain : NULL;
}

const gc_kern *gc_kern_find(const char *name)
{
    int32_t supported = 0;
    for (int32_t i = 0;; i++) {
        const gc_kern *k = gc_kern_at(i, &supported);
        if (k == NULL || (supported && (name == NULL || strcmp(name, k->name) == 0))) {
            return k;
        }
    }
}

const gc_kern *gc_kern_of(const gc_ctx *ctx)
{
    return ctx->kern;
}

enum { CACHE_WAY = 1024, FEW_ROWS = 7 };

int32_t gc_kern_tile_rows(const gc_kern *kern, int64_t a_step)
{
    return a_step % CACHE_WAY == 0 && kern->mr > FEW_ROWS ? FEW_ROWS : kern->mr;
}

void gc_kern_map_rows(const gc_kern *kern, const gc_epilogue *epi, int64_t rows, int64_t n, float *y, int64_t step)
{
    if ((epi->flags & GC_EPI_MAP) != 0) {
        kern->map(epi->map, rows, n, y, y, step);
    }
}

/* Evenly: a fetch holds one of few buffers until the line is there, and those that come
   in bursts keep the tile's own loads waiting. */
void gc_kern_look_ahead(const float *next, int64_t bytes, int64_t index, int64_t count, gc_tile *t)
{
    int64_t blocks = t->n_segments * (t->length / 4), first = bytes * index / count;
    int64_t share = bytes * (index + 1) / count - first;
    t->ahead = (const char *)next + first;
    t->ahead_step = blocks > 0 ? (share + blocks - 1) / blocks : 0;
    t->ahead_lines = (t->ahead_step + 63) / 64;
}
