/* SPDX-License-Identifier: MIT */
/* Depthwise convolution of bfloat16 images: a line of places a task. */
#include <string.h>

#include "kern/conv.h"

typedef struct depth {
    const gc_gather *g;
    const gc_bf16 *in;
    const float *weights;
    const gc_epilogue *epi;
    gc_bf16 *out;
} depth;

static int64_t taps_of(const gc_gather *g)
{
    return g->dim[0].taps * g->dim[1].taps * g->dim[2].taps;
}

bool gc_half_depthwise_fits(const gc_gather *g)
{
    return g->half != NULL && taps_of(g) <= GC_HALF_TAPS;
}

/* Input lines of the taps (z, y), NULL in the padding. */
static void lines_at(const depth *j, int64_t image, int64_t z, int64_t y, const gc_bf16 **lines)
{
    const gc_conv_dim *d = j->g->dim;
    for (int64_t i = 0; i < d[0].taps * d[1].taps; i++) {
        int64_t zz = z * d[0].stride + i / d[1].taps * d[0].dilation - d[0].pad;
        int64_t yy = y * d[1].stride + i % d[1].taps * d[1].dilation - d[1].pad;
        bool inside = zz >= 0 && zz < d[0].in && yy >= 0 && yy < d[1].in;
        lines[i] = inside ? j->in + ((image * d[0].in + zz) * d[1].in + yy) * d[2].in * j->g->in_pixel : NULL;
    }
}

/* Places first .. last, from the first on whose taps all lie inside. */
static void find_inside(const gc_conv_dim *d, int64_t *first, int64_t *last)
{
    int64_t spare = d->in - 1 - (d->taps - 1) * d->dilation + d->pad;
    *first = d->pad > 0 ? (d->pad + d->stride - 1) / d->stride : 0;
    *first = *first < d->places ? *first : d->places;
    *last = spare < 0 ? 0 : spare / d->stride + 1;
    *last = *last < d->places ? *last : d->places;
    *last = *last > *first ? *last : *first;
}

static void line_task(void *task, uint32_t index)
{
    const depth *j = task;
    const gc_gather *g = j->g;
    const gc_conv_dim *d = g->dim;
    int64_t y = index % d[1].places, z = index / d[1].places % d[0].places, image = index / d[1].places / d[0].places;
    int64_t pixel = ((image * d[0].out + d[0].out_first + z * d[0].out_step) * d[1].out + d[1].out_first +
                     y * d[1].out_step) *
                        d[2].out +
                    d[2].out_first;
    const gc_bf16 *lines[GC_HALF_TAPS];
    gc_half_line line;
    memset(&line, 0, sizeof line);
    lines_at(j, image, z, y, lines);
    find_inside(&d[2], &line.first_inside, &line.last_inside);
    line.lines = lines;
    line.weights = j->weights;
    line.to = j->out + pixel * g->out_pixel;
    line.residual = j->epi->residual == NULL ? NULL
                    : g->residual_half
                        ? (const void *)((const gc_bf16 *)(const void *)j->epi->residual + pixel * g->out_pixel)
                        : (const void *)(j->epi->residual + pixel * g->out_pixel);
    line.residual_half = g->residual_half;
    line.pixel = g->in_pixel;
    line.to_pixel = g->out_pixel * d[2].out_step;
    line.channels = g->groups;
    line.weights_step = g->weights_step > 0 ? g->weights_step : g->groups;
    line.pixels = d[2].in;
    line.places = d[2].places;
    line.stride = d[2].stride;
    line.dilation = d[2].dilation;
    line.pad = d[2].pad;
    line.taps_y = d[0].taps * d[1].taps;
    line.taps_x = d[2].taps;
    line.epi = *j->epi;
    line.kern = g->kern;
    g->half->depthwise(&line);
}

gc_status gc_half_depthwise_run(const gc_ctx *ctx, const gc_gather *g, const void *in, const float *weights,
                                const gc_epilogue *epi, void *out)
{
    depth j = {g, in, weights, epi, out};
    return gc_parallel(ctx, line_task, &j, (uint32_t)(g->images * g->dim[0].places * g->dim[1].places));
}
