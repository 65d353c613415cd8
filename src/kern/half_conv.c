/* SPDX-License-Identifier: MIT */
/* Convolution in bfloat16: as kern/direct.c does it, by tiles of two parts of a
   line of places.  What is not bfloat16, has padding or an odd number of
   channels is first copied. */
#include <string.h>

#include "base/size.h"
#include "base/status.h"
#include "kern/conv.h"

/* Weights, or a batch of their panels, that stay in the second cache while one tile
   after the other reads them; the same of the weights or the pixels alone; pixels of a span beside such
   weights; work of a task; pixels of a task that copies. */
enum {
    STAYS_BYTES = 512 << 10,
    BATCH_BYTES = 256 << 10,
    ALONE_BYTES = 1280 << 10,
    SPAN_BYTES = 384 << 10,
    ITEM_FLOPS = 32 << 20,
    COPY_PIXELS = 64
};

typedef struct half_conv {
    const gc_gather *g;
    const gc_bf16 *from;        /* the copy, or the input */
    int64_t pixel, line, plane; /* its steps */
    int64_t image;              /* of the output */
    int64_t width, lines;       /* places of a line, lines of places */
    int64_t parts_line, tiles;  /* parts of a line; pairs of parts of all lines */
    int64_t n_segments, length;
    int64_t *segments;
    const gc_bf16 *packed;
    int64_t panels, panel_halves, group_halves;
    int64_t tiles_item, spans;    /* of the tiles */
    int64_t panels_item, batches; /* of the panels */
    int32_t flat;
    const gc_epilogue *epi;
    void *out;
    const void *source; /* for the copy */
    gc_bf16 *copy;
} half_conv;

static int64_t reach(const gc_conv_dim *d)
{
    return (d->places - 1) * d->stride + (d->taps - 1) * d->dilation + 1;
}

static bool needs_padding(const gc_gather *g)
{
    for (int i = 0; i < 3; i++) {
        const gc_conv_dim *d = &g->dim[i];
        if (d->pad > 0 || reach(d) - d->pad > d->in) {
            return true;
        }
    }
    return false;
}

static bool is_flat(const gc_gather *g)
{
    for (int i = 0; i < 3; i++) {
        const gc_conv_dim *d = &g->dim[i];
        if (d->taps != 1 || d->stride != 1 || d->pad != 0 || d->places != d->in || d->places != d->out ||
            d->out_step != 1) {
            return false;
        }
    }
    return true;
}

/* ---- sizes ---- */

/* Products come in pairs. */
bool gc_half_fits(const gc_gather *g)
{
    return g->half != NULL && (g->groups == 1 || g->in_c % 2 == 0);
}

/* Channels of a group as the tiles read them. */
static int64_t even_channels(const gc_gather *g)
{
    return g->in_c + g->in_c % 2;
}

static int64_t taps_of(const gc_gather *g)
{
    return g->dim[0].taps * g->dim[1].taps * g->dim[2].taps;
}

/* The taps of a line are neighbours and make one segment. */
static bool is_joined(const gc_gather *g)
{
    return g->groups == 1 && g->dim[2].dilation == 1;
}

static int64_t segment_count(const gc_gather *g)
{
    return is_joined(g) ? g->dim[0].taps * g->dim[1].taps : taps_of(g);
}

static int64_t segment_length(const gc_gather *g)
{
    return even_channels(g) * (is_joined(g) ? g->dim[2].taps : 1);
}

static bool needs_copy(const gc_gather *g)
{
    bool gaps = is_joined(g) && g->dim[2].taps > 1 && g->in_pixel != g->in_c;
    return !g->in_half || even_channels(g) != g->in_c || gaps || needs_padding(g);
}

/* Products of one column with the zeros between them. */
static int64_t column_halves(const gc_gather *g)
{
    return segment_count(g) * gc_half_steps(segment_length(g)) * gc_half_depth(segment_length(g));
}

int64_t gc_half_column_floats(const gc_gather *g)
{
    return column_halves(g) / 2;
}

static int64_t panel_count(const gc_gather *g)
{
    return (g->out_c + GC_HALF_COLS - 1) / GC_HALF_COLS;
}

static int64_t group_columns(const gc_gather *g)
{
    return (g->out_c + GC_HALF_BLOCK - 1) / GC_HALF_BLOCK * GC_HALF_BLOCK;
}

int64_t gc_half_packed(const gc_gather *g)
{
    int64_t taps, n;
    bool fits = gc_mul_ok(taps_of(g), 2 * GC_HALF_DEPTH, &taps) && gc_mul_ok(taps, g->in_c, &n) &&
                gc_mul_ok(n, group_columns(g), &n) && gc_mul_ok(n, g->groups, &n);
    return fits ? column_halves(g) * group_columns(g) * g->groups / 2 : -1;
}

/* Room for the table of segments, in whole cache lines. */
static int64_t table_floats(const gc_gather *g)
{
    return (segment_count(g) * (int64_t)(sizeof(int64_t) / sizeof(float)) + 15) / 16 * 16;
}

int64_t gc_half_scratch(const gc_gather *g)
{
    int64_t n = needs_copy(g) ? even_channels(g) * g->groups : 0;
    for (int i = 0; i < 3 && n > 0; i++) {
        if (!gc_mul_ok(n, reach(&g->dim[i]), &n)) {
            return -1;
        }
    }
    return gc_add_ok(n / 2 + 1, table_floats(g), &n) ? n : -1;
}

/* ---- packing ---- */

typedef struct half_pack {
    const gc_gather *g;
    const gc_conv_weights *w;
    gc_bf16 *packed;
} half_pack;

/* Product p of segment `segment` for 16 columns, those past the last zero. */
static void weights_of(const half_pack *j, const float *from, int64_t columns, int64_t segment, int64_t p, float *to)
{
    const gc_gather *g = j->g;
    int64_t channels = even_channels(g), channel = p % channels;
    int64_t tap = is_joined(g) ? segment * g->dim[2].taps + p / channels : segment;
    for (int64_t k = 0; k < GC_HALF_BLOCK; k++) {
        to[2 * k] = 0.0f;
    }
    from += channel * j->w->channel_step + gc_conv_whole_tap(g, j->w, tap);
    for (int64_t k = 0; k < columns && channel < g->in_c; k++) {
        to[2 * k] = from[k * j->w->column_step];
    }
}

/* One block of columns. */
static void pack_block_task(void *task, uint32_t index)
{
    const half_pack *j = task;
    const gc_gather *g = j->g;
    int64_t blocks = group_columns(g) / GC_HALF_BLOCK, group = index / blocks, first = index % blocks * GC_HALF_BLOCK;
    int64_t length = segment_length(g), steps = gc_half_steps(length), depth = gc_half_depth(length);
    int64_t columns = min64(GC_HALF_BLOCK, g->out_c - first);
    gc_bf16 *to = j->packed + (group * group_columns(g) + first) * column_halves(g);
    const float *from = j->w->data + group * j->w->group + first * j->w->column_step;
    for (int64_t k = 0; k < segment_count(g) * steps; k++) {
        int64_t begin = gc_half_begin(length, k % steps), fresh = k % steps * depth;
        for (int64_t p = begin; p < begin + depth; p += 2, to += 2 * GC_HALF_BLOCK) {
            float row[2 * GC_HALF_BLOCK] = {0.0f};
            for (int64_t i = 0; i < 2; i++) {
                if (p + i >= fresh) {
                    weights_of(j, from, columns, k / steps, p + i, row + i);
                }
            }
            g->half->narrow(2 * GC_HALF_BLOCK, row, to);
        }
    }
}

gc_status gc_half_pack(const gc_ctx *ctx, const gc_gather *g, const gc_conv_weights *w, float *packed)
{
    half_pack j = {g, w, (gc_bf16 *)(void *)packed};
    return gc_parallel(ctx, pack_block_task, &j, (uint32_t)(g->groups * group_columns(g) / GC_HALF_BLOCK));
}

/* ---- the copy ---- */

/* Pixels of one line of the input, from its pixel x on. */
static void copy_pixels(const half_conv *d, int64_t from, int64_t count, gc_bf16 *to)
{
    const gc_gather *g = d->g;
    int64_t channels = g->in_c * g->groups, pixel = even_channels(g) * g->groups;
    int64_t run = g->in_pixel == channels && pixel == channels ? count * channels : channels;
    from *= g->in_pixel;
    if (!g->in_half && pixel > channels && g->in_pixel == channels && channels < GC_HALF_ROWS) {
        g->half->narrow_odd(count, channels, (const float *)d->source + from, to);
        return;
    }
    for (int64_t done = 0; done < count * channels; done += run, from += g->in_pixel, to += pixel) {
        if (g->in_half) {
            memcpy(to, (const gc_bf16 *)d->source + from, (size_t)run * sizeof *to);
        } else {
            g->half->narrow(run, (const float *)d->source + from, to);
        }
        if (pixel > channels) {
            to[channels] = 0;
        }
    }
}

/* Some pixels of one line of the padded image. */
static void copy_task(void *task, uint32_t index)
{
    const half_conv *d = task;
    const gc_conv_dim *dim = d->g->dim;
    int64_t width = reach(&dim[2]), chunks = (width + COPY_PIXELS - 1) / COPY_PIXELS;
    int64_t number = (int64_t)index / chunks, first = (int64_t)index % chunks * COPY_PIXELS;
    int64_t last = min64(width, first + COPY_PIXELS);
    int64_t z = number / reach(&dim[1]) - dim[0].pad, y = number % reach(&dim[1]) - dim[1].pad;
    bool inside = z >= 0 && z < dim[0].in && y >= 0 && y < dim[1].in;
    int64_t lo = min64(last, max64(first, dim[2].pad));
    int64_t hi = inside ? max64(lo, min64(last, dim[2].in + dim[2].pad)) : lo;
    gc_bf16 *to = d->copy + number * width * d->pixel;
    memset(to + first * d->pixel, 0, (size_t)((lo - first) * d->pixel) * sizeof *to);
    if (hi > lo) {
        copy_pixels(d, ((d->image * dim[0].in + z) * dim[1].in + y) * dim[2].in + lo - dim[2].pad, hi - lo,
                    to + lo * d->pixel);
    }
    memset(to + hi * d->pixel, 0, (size_t)((last - hi) * d->pixel) * sizeof *to);
}

/* ---- tiles ---- */

/* Part q of the tile: where it reads and where it writes. */
static void aim_part(const half_conv *d, gc_half_tile *t, int q, int64_t part, int64_t group, int64_t column)
{
    const gc_gather *g = d->g;
    const gc_conv_dim *dim = g->dim;
    int64_t line = part / d->parts_line, i = part % d->parts_line;
    int64_t base = d->width / d->parts_line, extra = d->width % d->parts_line;
    int64_t at = i * base + min64(i, extra), place = d->image * d->width + at;
    const gc_bf16 *from = d->from + group * even_channels(g) + at * t->a_step;
    if (!d->flat) {
        int64_t y = line % dim[1].places, z = line / dim[1].places;
        from += z * dim[0].stride * d->plane + y * dim[1].stride * d->line;
        place = ((d->image * dim[0].out + dim[0].out_first + z * dim[0].out_step) * dim[1].out + dim[1].out_first +
                 y * dim[1].out_step) *
                    dim[2].out +
                dim[2].out_first + at * dim[2].out_step;
    }
    t->rows[q] = (int32_t)(base + (i < extra));
    t->a[q] = from;
    t->at[q] = place * g->out_pixel + column;
}

static void aim_panel(const half_conv *d, gc_half_tile *t, int64_t group, int64_t panel)
{
    const gc_gather *g = d->g;
    t->cols = (int32_t)min64(GC_HALF_COLS, g->out_c - panel * GC_HALF_COLS);
    t->b = d->packed + group * d->group_halves + panel * d->panel_halves;
    if (d->epi->bias != NULL) {
        t->epi.bias = d->epi->bias + group * g->out_c + panel * GC_HALF_COLS;
    }
}

/* Tile `index` of `count` fetches its share of the next batch of panels, which comes
   from far. */
static void look_ahead(const half_conv *d, gc_half_tile *t, const gc_bf16 *next, int64_t index, int64_t count)
{
    int64_t steps = d->n_segments * gc_half_steps(d->length);
    int64_t lines = d->panels_item * d->panel_halves * (int64_t)sizeof(gc_bf16) / 64;
    t->ahead_lines = 0;
    if (d->batches > 1 && index * steps < lines) {
        t->ahead_lines = (lines + steps * count - 1) / (steps * count);
        t->ahead = (const char *)next + 64 * index * steps * t->ahead_lines;
    }
}

static void run_tile(const half_conv *d, gc_half_tile *t, gc_half_state *state, int64_t group, int64_t panel,
                     int64_t tile)
{
    int64_t parts = d->parts_line * d->lines, column = group * d->g->out_c + panel * GC_HALF_COLS;
    aim_part(d, t, 0, 2 * tile, group, column);
    t->rows[1] = 0;
    if (2 * tile + 1 < parts) {
        aim_part(d, t, 1, 2 * tile + 1, group, column);
    }
    d->g->half->tile(t, state);
}

static void run_batch(const half_conv *d, gc_half_tile *t, int64_t group, int64_t span, int64_t batch)
{
    int64_t begin = span * d->tiles_item, end = min64(d->tiles, begin + d->tiles_item);
    int64_t first = batch * d->panels_item, last = min64(d->panels, first + d->panels_item);
    const gc_bf16 *next = d->packed + group * d->group_halves + last * d->panel_halves;
    gc_half_state state;
    memset(&state, 0, sizeof state);
    for (int64_t tile = begin; tile < end; tile++) {
        for (int64_t panel = first; panel < last; panel++) {
            aim_panel(d, t, group, panel);
            look_ahead(d, t, next, (tile - begin) * (last - first) + panel - first, (end - begin) * (last - first));
            run_tile(d, t, &state, group, panel, tile);
        }
    }
    d->g->half->end(&state);
}

/* A batch of panels with a span of tiles: neighbouring items share the span. */
static void item_task(void *task, uint32_t index)
{
    const half_conv *d = task;
    const gc_gather *g = d->g;
    int64_t rest = index % (d->spans * d->batches);
    gc_half_tile t;
    memset(&t, 0, sizeof t);
    t.a_step = d->pixel * g->dim[2].stride;
    t.c_step = g->out_pixel * (d->flat ? 1 : g->dim[2].out_step);
    t.segments = d->segments;
    t.n_segments = d->n_segments;
    t.length = d->length;
    t.c = d->out;
    t.residual = d->epi->residual;
    t.c_half = g->out_half;
    t.residual_half = g->residual_half;
    t.epi = *d->epi;
    t.kern = g->kern;
    run_batch(d, &t, index / (d->spans * d->batches), rest / d->batches, rest % d->batches);
}

static void fill_segments(half_conv *d)
{
    const gc_conv_dim *dim = d->g->dim;
    int64_t n = 0, taps = is_joined(d->g) ? 1 : dim[2].taps;
    for (int64_t i = 0; i < dim[0].taps * dim[1].taps * taps; i++) {
        int64_t z = i / taps / dim[1].taps, y = i / taps % dim[1].taps, x = i % taps;
        d->segments[n++] = z * dim[0].dilation * d->plane + y * dim[1].dilation * d->line +
                           x * dim[2].dilation * d->pixel;
    }
}

/* How the work is cut; by sizes only, never by the number of workers. */
static gc_status run_items(const gc_ctx *ctx, half_conv *d)
{
    const gc_gather *g = d->g;
    int64_t depth = column_halves(g), weights = depth * group_columns(g) * (int64_t)sizeof(gc_bf16);
    d->parts_line = (d->width + GC_HALF_ROWS - 1) / GC_HALF_ROWS;
    d->tiles = (d->parts_line * d->lines + 1) / 2;
    int64_t panel = d->panel_halves * (int64_t)sizeof(gc_bf16);
    d->panels_item = weights <= STAYS_BYTES ? d->panels : max64(1, min64(d->panels, BATCH_BYTES / panel));
    d->batches = (d->panels + d->panels_item - 1) / d->panels_item;
    if (d->batches == 1) {
        int64_t flops = 2 * depth * g->out_c * GC_HALF_PARTS * GC_HALF_ROWS;
        d->tiles_item = max64(1, min64(d->tiles, ITEM_FLOPS / max64(1, flops)));
    } else { /* all panels of a span of places, then the next span */
        int64_t bytes = (d->flat ? d->width * d->pixel : reach(&g->dim[0]) * d->plane) * (int64_t)sizeof(gc_bf16);
        int64_t span = bytes > ALONE_BYTES && weights <= ALONE_BYTES ? SPAN_BYTES : ALONE_BYTES;
        d->tiles_item = max64(1, d->tiles / ((bytes + span - 1) / span));
    }
    d->spans = (d->tiles + d->tiles_item - 1) / d->tiles_item;
    fill_segments(d);
    return gc_parallel(ctx, item_task, d, (uint32_t)(g->groups * d->spans * d->batches));
}

/* The places of an image are one line. */
static void merge_lines(half_conv *d)
{
    d->flat = is_flat(d->g);
    if (d->flat) {
        d->width *= d->lines;
        d->lines = 1;
    }
}

static gc_status run_copied(const gc_ctx *ctx, half_conv *d, float *scratch)
{
    const gc_gather *g = d->g;
    d->copy = (gc_bf16 *)(void *)(scratch + table_floats(g));
    d->from = d->copy;
    d->pixel = even_channels(g) * g->groups;
    d->line = reach(&g->dim[2]) * d->pixel;
    d->plane = reach(&g->dim[1]) * d->line;
    int64_t chunks = (reach(&g->dim[2]) + COPY_PIXELS - 1) / COPY_PIXELS;
    merge_lines(d);
    for (d->image = 0; d->image < g->images; d->image++) {
        GC_TRY(gc_parallel(ctx, copy_task, d, (uint32_t)(reach(&g->dim[0]) * reach(&g->dim[1]) * chunks)));
        GC_TRY(run_items(ctx, d));
    }
    return GRADCAM_OK;
}

gc_status gc_half_run(const gc_ctx *ctx, const gc_gather *g, const void *in, const float *packed,
                      const gc_epilogue *epi, void *out, float *scratch)
{
    half_conv d;
    memset(&d, 0, sizeof d);
    d.g = g;
    d.epi = epi;
    d.out = out;
    d.source = in;
    d.packed = (const gc_bf16 *)(const void *)packed;
    d.segments = (int64_t *)(void *)scratch;
    d.n_segments = segment_count(g);
    d.length = segment_length(g);
    d.panels = panel_count(g);
    d.panel_halves = column_halves(g) * GC_HALF_COLS;
    d.group_halves = column_halves(g) * group_columns(g);
    d.width = g->dim[2].places;
    d.lines = g->dim[0].places * g->dim[1].places;
    if (needs_copy(g)) {
        return run_copied(ctx, &d, scratch);
    }
    d.pixel = g->in_pixel;
    d.line = g->dim[2].in * d.pixel;
    d.plane = g->dim[1].in * d.line;
    merge_lines(&d);
    if (d.flat) {
        d.from = in;
        d.width *= g->images;
        return run_items(ctx, &d);
    }
    for (d.image = 0; d.image < g->images; d.image++) {
        d.from = (const gc_bf16 *)in + d.image * g->dim[0].in * d.plane;
        for (int i = 0; i < 3; i++) { /* a negative pad skips pixels */
            d.from -= g->dim[i].pad * (i == 0 ? d.plane : i == 1 ? d.line : d.pixel);
        }
        GC_TRY(run_items(ctx, &d));
    }
    return GRADCAM_OK;
}
