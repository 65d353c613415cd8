/* SPDX-License-Identifier: MIT */
/* Depthwise convolution: lines of places, one task each. */
#include <stdbool.h>
#include <string.h>

#include "kern/conv.h"

/* Kernels of more lines are summed in parts. */
enum { MAX_LINES = 32 };

typedef struct depth {
    const gc_gather *g;
    const float *in;
    const float *weights;
    const gc_epilogue *epi;
    float *out;
} depth;

/* Input lines of taps (z, y) first .. first + count, NULL in the padding. */
static void lines_at(const depth *j, int64_t image, int64_t z, int64_t y, int64_t first, int64_t count,
                     const float **lines)
{
    const gc_conv_dim *d = j->g->dim;
    for (int64_t i = 0; i < count; i++) {
        int64_t zz = z * d[0].stride + (first + i) / d[1].taps * d[0].dilation - d[0].pad;
        int64_t yy = y * d[1].stride + (first + i) % d[1].taps * d[1].dilation - d[1].pad;
        bool inside = zz >= 0 && zz < d[0].in && yy >= 0 && yy < d[1].in;
        lines[i] = inside ? j->in + ((image * d[0].in + zz) * d[1].in + yy) * d[2].in * j->g->in_pixel : NULL;
    }
}

/* Places x .. x + width, all with the taps lo .. hi of a line. */
static void span(const depth *j, const gc_depthwise *line, int64_t x, int64_t width, int64_t lo, int64_t hi)
{
    const gc_conv_dim *d = &j->g->dim[2];
    const float *moved[MAX_LINES];
    gc_depthwise part = *line;
    int64_t offset = (x * d->stride + lo * d->dilation - d->pad) * j->g->in_pixel;
    for (int32_t i = 0; i < line->taps_y; i++) {
        moved[i] = line->lines[i] != NULL && hi > lo ? line->lines[i] + offset : NULL;
    }
    part.lines = moved;
    part.weights = line->weights + lo * line->weights_step;
    part.taps_x = (int32_t)(hi - lo);
    part.width = width;
    part.to = line->to + x * line->to_pixel;
    if (part.epi.residual != NULL) {
        part.epi.residual += x * line->epi.residual_step;
    }
    j->g->kern->depthwise(&part);
}

/* Taps of place x that lie inside. */
static void taps_at(const gc_conv_dim *d, int64_t x, int64_t *lo, int64_t *hi)
{
    int64_t at = x * d->stride - d->pad;
    *lo = at < 0 ? (-at + d->dilation - 1) / d->dilation : 0;
    *lo = *lo < d->taps ? *lo : d->taps;
    *hi = at >= d->in ? 0 : (d->in - 1 - at) / d->dilation + 1;
    *hi = *hi < d->taps ? *hi : d->taps;
    *hi = *hi > *lo ? *hi : *lo;
}

/* Edges place by place, the inside at once. */
static void run_line(const depth *j, const gc_depthwise *line)
{
    const gc_conv_dim *d = &j->g->dim[2];
    int64_t x = 0, lo, hi;
    while (x < d->places) {
        int64_t width = 1;
        taps_at(d, x, &lo, &hi);
        if (lo == 0 && hi == d->taps) {
            int64_t last = (d->in - 1 - (d->taps - 1) * d->dilation + d->pad) / d->stride;
            width = (last < d->places ? last + 1 : d->places) - x;
        }
        span(j, line, x, width, lo, hi);
        x += width;
    }
}

static void line_task(void *task, uint32_t index)
{
    const depth *j = task;
    const gc_gather *g = j->g;
    const gc_conv_dim *d = g->dim;
    int64_t y = index % d[1].places, z = index / d[1].places % d[0].places, image = index / d[1].places / d[0].places;
    int64_t lines = d[0].taps * d[1].taps;
    int64_t pixel = ((image * d[0].out + d[0].out_first + z * d[0].out_step) * d[1].out + d[1].out_first +
                     y * d[1].out_step) *
                        d[2].out +
                    d[2].out_first;
    const float *at[MAX_LINES];
    gc_depthwise line;
    memset(&line, 0, sizeof line);
    line.lines = at;
    line.to = j->out + pixel * g->out_pixel;
    line.pixel = g->in_pixel;
    line.to_pixel = g->out_pixel * d[2].out_step;
    line.channels = g->groups;
    line.stride = d[2].stride;
    line.dilation = d[2].dilation;
    line.weights_step = g->weights_step > 0 ? g->weights_step : g->groups;
    line.weights_line = d[2].taps * line.weights_step;
    for (int64_t first = 0; first < lines; first += MAX_LINES) {
        bool begins = first == 0, ends = first + MAX_LINES >= lines;
        line.taps_y = (int32_t)(ends ? lines - first : MAX_LINES);
        line.weights = j->weights + first * line.weights_line;
        line.epi = *j->epi;
        line.epi.bias = begins ? j->epi->bias : NULL;
        line.epi.flags = ends ? j->epi->flags : 0;
        line.epi.residual_step = line.to_pixel;
        line.epi.residual = j->epi->residual != NULL ? j->epi->residual + pixel * g->out_pixel : NULL;
        line.epi.residual = begins ? line.epi.residual : line.to;
        lines_at(j, image, z, y, first, line.taps_y, at);
        run_line(j, &line);
    }
    if (line.to_pixel == line.channels) {
        gc_kern_map_rows(g->kern, j->epi, 1, d[2].places * line.channels, line.to, 0);
    } else {
        gc_kern_map_rows(g->kern, j->epi, d[2].places, line.channels, line.to, line.to_pixel);
    }
}

gc_status gc_depthwise_run(const gc_ctx *ctx, const gc_gather *g, const float *in, const float *weights,
                           const gc_epilogue *epi, float *out)
{
    depth j = {g, in, weights, epi, out};
    return gc_parallel(ctx, line_task, &j, (uint32_t)(g->images * g->dim[0].places * g->dim[1].places));
}
