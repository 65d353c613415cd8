/* SPDX-License-Identifier: MIT */
/* Weights in the order the tiles read them: panels of nr columns, the last one
   as wide as its columns rounded up to a vector, [panel][tap][channel][width],
   padded with zeros.  Depthwise: [tap][group]. */
#include <string.h>

#include "base/size.h"
#include "kern/conv.h"

typedef struct pack_job {
    const gc_gather *g;
    const gc_conv_weights *w;
    float *packed;
    int64_t panels, depth, group_floats;
} pack_job;

static int64_t round_up(int64_t x, int64_t unit)
{
    return (x + unit - 1) / unit * unit;
}

static int64_t taps_of(const gc_gather *g)
{
    return g->dim[0].taps * g->dim[1].taps * g->dim[2].taps;
}

int64_t gc_conv_whole_tap(const gc_gather *g, const gc_conv_weights *w, int64_t t)
{
    const gc_conv_dim *d = g->dim;
    int64_t x = t % d[2].taps, y = t / d[2].taps % d[1].taps, z = t / d[2].taps / d[1].taps;
    x = d[2].tap_first + x * d[2].tap_step;
    y = d[1].tap_first + y * d[1].tap_step;
    z = d[0].tap_first + z * d[0].tap_step;
    return (z * w->kernel[1] + y) * w->kernel[2] + x;
}

static void pack_dense_task(void *task, uint32_t index)
{
    const pack_job *j = task;
    const gc_gather *g = j->g;
    int64_t group = index / j->panels, panel = index % j->panels, nr = g->kern->nr, taps = taps_of(g);
    int64_t columns = g->out_c - panel * nr < nr ? g->out_c - panel * nr : nr;
    int64_t width = round_up(columns, g->kern->vl), step = j->w->column_step;
    float *to = j->packed + group * j->group_floats + panel * nr * j->depth;
    const float *from = j->w->data + group * j->w->group + panel * nr * step;
    for (int64_t c = 0; c < g->in_c; c++) {
        for (int64_t t = 0; t < taps; t++) {
            const float *column = from + c * j->w->channel_step + gc_conv_whole_tap(g, j->w, t);
            float *row = to + (t * g->in_c + c) * width;
            for (int64_t k = 0; k < columns; k++) {
                row[k] = column[k * step];
            }
            memset(row + columns, 0, (size_t)(width - columns) * sizeof(float));
        }
    }
}

static void pack_depthwise(const gc_gather *g, const gc_conv_weights *w, float *to)
{
    for (int64_t t = 0; t < taps_of(g); t++) {
        int64_t tap = gc_conv_whole_tap(g, w, t);
        for (int64_t k = 0; k < g->groups; k++) {
            *to++ = w->data[k * w->group + tap];
        }
    }
}

static bool is_wino(gc_conv_method method)
{
    return method == GC_CONV_WINO4 || method == GC_CONV_WINO2;
}

static int32_t wino_m(gc_conv_method method)
{
    return method == GC_CONV_WINO4 ? 4 : 2;
}

int64_t gc_conv_packed(const gc_gather *g, gc_conv_method method)
{
    int64_t n;
    if (method == GC_CONV_DEPTHWISE) {
        return gc_mul_ok(g->groups, taps_of(g), &n) ? n : -1;
    }
    if (method == GC_CONV_HALF) {
        return gc_half_packed(g);
    }
    int64_t planes = is_wino(method) ? (wino_m(method) + 2) * (wino_m(method) + 2) : taps_of(g);
    bool fits = gc_mul_ok(round_up(g->out_c, g->kern->vl), g->in_c, &n) && gc_mul_ok(n, planes, &n) &&
                gc_mul_ok(n, g->groups, &n);
    return fits ? n : -1;
}

int64_t gc_conv_unit(const gc_gather *g, gc_conv_method method)
{
    return method == GC_CONV_HALF ? GC_HALF_COLS : g->kern->nr;
}

const float *gc_conv_columns(const gc_gather *g, gc_conv_method method, const float *packed, int64_t first)
{
    return packed + first * (method == GC_CONV_HALF ? gc_half_column_floats(g) : taps_of(g) * g->in_c);
}

int64_t gc_conv_scratch(const gc_gather *g, gc_conv_method method, int32_t workers)
{
    return is_wino(method)               ? gc_wino_scratch(g, wino_m(method), workers)
           : method == GC_CONV_DEPTHWISE ? 0
           : method == GC_CONV_HALF      ? gc_half_scratch(g)
                                         : gc_direct_scratch(g);
}

int64_t gc_conv_bias_floats(const gc_gather *g)
{
    return g->groups * g->out_c + g->kern->nr;
}

gc_status gc_conv_pack(const gc_ctx *ctx, const gc_gather *g, gc_conv_method method, const gc_conv_weights *w,
                       float *packed)
{
    pack_job j = {g, w, packed, (g->out_c + g->kern->nr - 1) / g->kern->nr, taps_of(g) * g->in_c, 0};
    if (method == GC_CONV_DEPTHWISE) {
        pack_depthwise(g, w, packed);
        return GRADCAM_OK;
    }
    if (method == GC_CONV_HALF) {
        return gc_half_pack(ctx, g, w, packed);
    }
    if (is_wino(method)) {
        return gc_wino_pack(ctx, g, wino_m(method), w, packed);
    }
    j.group_floats = gc_conv_packed(g, method) / g->groups;
    return gc_parallel(ctx, pack_dense_task, &j, (uint32_t)(g->groups * j.panels));
}

/* Winograd wants whole vectors of channels and one kernel of 3x3 taps. */
static bool wino_fits(const gc_gather *g)
{
    const gc_conv_dim *d = g->dim;
    bool square = d[0].taps == 1 && d[0].places == 1 && d[0].in == 1 && d[0].out == 1 && d[0].pad == 0 &&
                  d[1].taps == 3 && d[2].taps == 3;
    for (int i = 1; i < 3; i++) {
        square = square && d[i].stride == 1 && d[i].dilation == 1 && d[i].out_step == 1 && d[i].out_first == 0 &&
                 d[i].places == d[i].out;
    }
    return square && g->groups == 1 && g->kern->vl > 1 && g->in_c % g->kern->vl == 0 && g->out_c % g->kern->vl == 0 &&
           g->in_c >= 16 && g->out_c >= 32;
}

/* Nominal cost: multiplications, and reading the weights once at READ multiplications a
   float, what a core does while a float comes from memory at 15 GB/s. */
enum { READ = 32 };

static double cost(const gc_gather *g, int64_t m)
{
    double ty = (double)((g->dim[1].places + m - 1) / m), tx = (double)((g->dim[2].places + m - 1) / m);
    double planes = m == 1 ? 9.0 : (double)((m + 2) * (m + 2)), pairs = (double)g->in_c * (double)g->out_c;
    double transforms = m == 1 ? 0.0 : 3.0 * planes * (double)(g->in_c + g->out_c);
    return (double)g->images * ty * tx * (planes * pairs + 2.0 * transforms) + (double)READ * planes * pairs;
}

gc_conv_method gc_conv_choose(const gc_gather *g, int32_t exact)
{
    if (g->in_c == 1 && g->out_c == 1 && g->groups >= g->kern->vl) {
        return GC_CONV_DEPTHWISE;
    }
    gc_conv_method plain = gc_half_fits(g) ? GC_CONV_HALF : GC_CONV_DIRECT;
    if (exact || !wino_fits(g)) {
        return plain;
    }
    double direct = cost(g, 1) / (plain == GC_CONV_HALF ? g->half->speed : 1.0), two = cost(g, 2), four = cost(g, 4);
    if (four <= two && four < direct) {
        return GC_CONV_WINO4;
    }
    return two < direct ? GC_CONV_WINO2 : plain;
}

gc_status gc_conv_run(const gc_ctx *ctx, const gc_gather *g, gc_conv_method method, const float *in,
                      const float *packed, const gc_epilogue *epi, float *out, float *scratch, int32_t workers)
{
    if (method == GC_CONV_DEPTHWISE && g->in_half) {
        return gc_half_depthwise_run(ctx, g, in, packed, epi, out);
    }
    if (method == GC_CONV_DEPTHWISE) {
        return gc_depthwise_run(ctx, g, in, packed, epi, out);
    }
    if (method == GC_CONV_HALF) {
        return gc_half_run(ctx, g, in, packed, epi, out, scratch);
    }
    if (is_wino(method)) {
        return gc_wino_run(ctx, g, wino_m(method), in, packed, epi, out, scratch, workers);
    }
    return gc_direct_run(ctx, g, in, packed, epi, out, scratch);
}
