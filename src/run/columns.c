/* SPDX-License-Identifier: MIT */
#include "run/columns.h"

#include <string.h>

#include "base/size.h"
#include "kern/share.h"

/* Bytes of a block of channels of the map between the two, and of one panel of it. */
enum { BLOCK_BYTES = 128 << 10, PANEL_BYTES = 128 << 10 };

typedef struct columns {
    gc_conv_pass dense, depthwise;
    int64_t channels, unit, panels;
    int64_t blocks; /* of the panels */
    int64_t window; /* floats of the widest block */
    int64_t slot_floats;
    int64_t pixels_in, pixels; /* of an image in front of and behind the 1x1 convolution */
    int64_t pixels_out;
    float *slots;
    gc_ctx serial; /* a block does not share its work */
    int32_t ready; /* with the addresses */
    int32_t reserved0;
} columns;

static int64_t pixels_of(const gc_gather *g, bool out)
{
    const gc_conv_dim *d = g->dim;
    return out ? d[0].out * d[1].out * d[2].out : d[0].in * d[1].in * d[2].in;
}

static bool is_flat(const gc_gather *g)
{
    bool flat = true;
    for (int i = 0; i < 3; i++) {
        const gc_conv_dim *d = &g->dim[i];
        flat = flat && d->taps == 1 && d->stride == 1 && d->pad == 0 && d->places == d->in && d->out_step == 1;
    }
    return flat;
}

bool gc_columns_fit(const gc_conv_pass *dense, const gc_conv_pass *depthwise)
{
    const gc_gather *g = &dense->gather;
    int64_t unit = gc_conv_unit(g, dense->method), rest = g->out_c % unit;
    return (dense->method == GC_CONV_DIRECT || dense->method == GC_CONV_HALF) && g->groups == 1 && is_flat(g) &&
           depthwise->method == GC_CONV_DEPTHWISE && g->out_c >= 2 * unit && (rest == 0 || rest >= g->kern->vl) &&
           pixels_of(g, true) <= PANEL_BYTES / (int64_t)sizeof(float) / unit;
}

/* Several blocks a worker where one would not stay in the cache.  What is computed
   does not depend on how the channels are cut. */
static void cut(columns *c, int64_t workers)
{
    int64_t bytes = c->pixels * c->unit * (int64_t)sizeof(float);
    int64_t share = (c->panels + workers - 1) / workers * bytes;
    c->blocks = min64(c->panels, workers * ((share + BLOCK_BYTES - 1) / BLOCK_BYTES));
    c->window = (c->panels + c->blocks - 1) / c->blocks * c->unit * c->pixels;
}

static bool measure(gc_plan *p, gc_step *second, columns *c)
{
    gc_step *first = &p->steps[second->before];
    memset(c, 0, sizeof *c);
    if (!gc_conv_pass_of(&first->call, &c->dense) || !gc_conv_pass_of(&second->call, &c->depthwise)) {
        return false;
    }
    const gc_gather *g = &c->dense.gather;
    c->channels = g->out_c;
    c->unit = gc_conv_unit(g, c->dense.method);
    c->panels = (c->channels + c->unit - 1) / c->unit;
    c->pixels_in = pixels_of(g, false);
    c->pixels = pixels_of(g, true);
    c->pixels_out = pixels_of(&c->depthwise.gather, true);
    cut(c, (int64_t)gc_workers(p->ctx));
    int64_t scratch = gc_conv_scratch(g, c->dense.method, 1);
    c->slot_floats = GC_SHARE_FLOATS + (c->window + 15) / 16 * 16 + (scratch + 31) / 16 * 16;
    return scratch >= 0 && scratch < INT32_MAX;
}

gc_status gc_columns_size(gc_plan *p, gc_step *second, gc_error *err)
{
    columns *c = gc_mem_alloc(p->ctx, 1, sizeof *c);
    second->chain = c;
    if (c == NULL) {
        return GC_NOMEM(err);
    }
    return gc_plan_windows(p, second, measure(p, second, c) ? c->slot_floats * (int64_t)sizeof(float) : -1, err);
}

/* Channels first .. last of both convolutions of one image; the window holds the
   map between them. */
static void run_block(const columns *c, int64_t image, int64_t first, int64_t last, float *window, float *scratch)
{
    gc_gather a = c->dense.gather, b = c->depthwise.gather;
    gc_epilogue of_a = c->dense.epi, of_b = c->depthwise.epi;
    a.images = b.images = 1;
    a.out_c = a.out_pixel = b.groups = b.in_pixel = last - first;
    b.weights_step = c->channels;
    of_a.bias = of_a.bias == NULL ? NULL : of_a.bias + first;
    of_b.bias = of_b.bias == NULL ? NULL : of_b.bias + first;
    const float *packed = gc_conv_columns(&c->dense.gather, c->dense.method, c->dense.packed, first);
    gc_conv_run(&c->serial, &a, c->dense.method, gc_conv_at(c->dense.in, image * c->pixels_in * a.in_pixel, a.in_half),
                packed, &of_a, window, scratch, 1);
    gc_conv_run(&c->serial, &b, c->depthwise.method, window, c->depthwise.packed + first, &of_b,
                gc_conv_at(c->depthwise.out, image * c->pixels_out * b.out_pixel + first, b.out_half), scratch, 1);
}

static void block(const void *task, int64_t item, float *slot, int64_t *kept)
{
    const columns *c = task;
    int64_t image = item / c->blocks, i = item % c->blocks;
    int64_t first = c->panels * i / c->blocks * c->unit, last = c->panels * (i + 1) / c->blocks * c->unit;
    (void)kept;
    run_block(c, image, first, min64(last, c->channels), slot, slot + (c->window + 15) / 16 * 16);
}

gc_status gc_columns_run(gc_plan *p, gc_step *second)
{
    columns *c = second->chain;
    if (!c->ready && !measure(p, second, c)) {
        return gc_fail(second->call.err, GRADCAM_E_INTERNAL, "a chain of columns has changed");
    }
    if (!c->ready) {
        c->ready = 1;
        c->slots = (float *)(void *)(p->arena + p->windows.offset);
        c->slot_floats = (int64_t)(p->window_bytes / sizeof(float));
        c->serial = gc_ctx_serial(p->ctx);
    }
    gc_share share = {
        block, c, c->slots, c->slot_floats, c->dense.gather.images * c->blocks, (int32_t)gc_workers(p->ctx), 0};
    return gc_share_run(p->ctx, &share);
}
