/* SPDX-License-Identifier: MIT */
/* In which segments a convolution in bfloat16 reads its pixels: what packing and
   running agree on. */
#ifndef GC_KERN_HALF_SHAPE_H
#define GC_KERN_HALF_SHAPE_H

#include "base/size.h"
#include "kern/conv.h"

enum { GC_HALF_CHUNK = 64, GC_HALF_WIDE = 512 };

/* Channels of a group as the tiles read them. */
static inline int64_t gc_half_channels(const gc_gather *g)
{
    return g->in_c + g->in_c % 2;
}

static inline int64_t gc_half_taps(const gc_gather *g)
{
    return g->dim[0].taps * g->dim[1].taps * g->dim[2].taps;
}

/* Wide pixels go by chunks of channels, all taps of a chunk before the next one, so that it comes
   into the first cache once. */
static inline bool gc_half_chunked(const gc_gather *g)
{
    return gc_half_taps(g) > 1 && gc_half_channels(g) >= GC_HALF_WIDE && gc_half_channels(g) % GC_HALF_CHUNK == 0;
}

/* The taps of a line are neighbours and make one segment. */
static inline bool gc_half_joined(const gc_gather *g)
{
    return g->groups == 1 && g->dim[2].dilation == 1 && !gc_half_chunked(g);
}

/* Channels of a segment of one tap. */
static inline int64_t gc_half_chunk(const gc_gather *g)
{
    return gc_half_chunked(g) ? GC_HALF_CHUNK : gc_half_channels(g);
}

static inline int64_t gc_half_segments(const gc_gather *g)
{
    return gc_half_joined(g) ? g->dim[0].taps * g->dim[1].taps
                             : gc_half_taps(g) * (gc_half_channels(g) / gc_half_chunk(g));
}

static inline int64_t gc_half_length(const gc_gather *g)
{
    return gc_half_joined(g) ? gc_half_channels(g) * g->dim[2].taps : gc_half_chunk(g);
}

/* Products of one column with the zeros between them. */
static inline int64_t gc_half_column(const gc_gather *g)
{
    return gc_half_segments(g) * gc_half_steps(gc_half_length(g)) * gc_half_depth(gc_half_length(g));
}

static inline int64_t gc_half_columns(const gc_gather *g)
{
    return (g->out_c + GC_HALF_BLOCK - 1) / GC_HALF_BLOCK * GC_HALF_BLOCK;
}

#endif
