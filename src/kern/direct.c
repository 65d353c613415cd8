/* SPDX-License-Identifier: MIT */
/* Implicit matrix product: tiles of neighbouring places of one line read their
   pixels where they lie.  Where taps reach into the padding, the image is
   first copied into a padded one, a strip of lines at a time that stays in the
   second cache. */
#include <string.h>

#include "base/size.h"
#include "base/status.h"
#include "kern/conv.h"

/* Slices of SLICE channels and BLOCK places take 1 MB. */
enum { ITEM_FLOPS = 512 << 10, OUTER_BYTES = 512 << 10, SLICE = 1024, BLOCK = 224, SLICE_PAD = 16 };
enum { PADDED_BYTES = 1 << 20, STRIP_WINDOWS = 4 };
/* Of a panel of weights larger than LARGE_PANEL, parts of its taps go one after the
   other through PART_PLACES: a cache keeps what was used again and again for longer
   than what was fetched for later, so there must be little of both. */
enum { LARGE_PANEL = 320 << 10, PART_BYTES = 200 << 10, PART_PLACES = 256 };

typedef struct direct {
    const gc_gather *g;
    const float *from;   /* the padded image, or the input */
    int64_t line, plane; /* floats from line to line, plane to plane of `from` */
    int64_t width;       /* places of a line */
    int64_t lines;       /* lines of places of this image (or of all) */
    int64_t row_step;    /* floats of `from` from place to place */
    const float *packed;
    const gc_epilogue *epi;
    float *out;
    int64_t image;
    int64_t depth, panels, panel_floats, group_floats;
    int64_t tiles_line;  /* tiles of a line */
    int64_t items_panel; /* runs of lines, times panels if not panels_inner */
    int64_t lines_item;
    int64_t n_segments, length;
    int64_t *segments;
    int64_t parts; /* of the segments; sums go on from what the part before has left in the output */
    int64_t slice_first, slice_length; /* channels; length 0: all at once */
    int32_t panels_inner;
    int32_t flat;                     /* all places are one line */
    int64_t strip_first, strip_lines; /* lines of places of a plane that are made, all but of padded images */
    /* for the padded copy */
    const float *source;
    float *padded;
} direct;

static int64_t reach(const gc_conv_dim *d)
{
    return (d->places - 1) * d->stride + (d->taps - 1) * d->dilation + 1;
}

/* Lines of places whose padded pixels are held at once; of a volume all. */
static int64_t most_lines(const gc_gather *g)
{
    const gc_conv_dim *d = &g->dim[1];
    int64_t line, window = (d->taps - 1) * d->dilation;
    if (g->dim[0].places != 1 || g->dim[0].taps != 1 || window > PADDED_BYTES ||
        !gc_mul_ok(reach(&g->dim[2]), g->in_c * g->groups, &line)) {
        return d->places;
    }
    int64_t pixels = max64(0, PADDED_BYTES / (int64_t)sizeof(float) / line - window - 1);
    return min64(d->places, max64(pixels / d->stride + 1, STRIP_WINDOWS * (window / d->stride + 1)));
}

/* Lines of pixels under `places` lines of places. */
static int64_t strip_reach(const gc_gather *g, int64_t places)
{
    return (places - 1) * g->dim[1].stride + (g->dim[1].taps - 1) * g->dim[1].dilation + 1;
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

/* Room for the table of segments. */
static int64_t table_floats(const gc_gather *g)
{
    return g->dim[0].taps * g->dim[1].taps * g->dim[2].taps * (int64_t)(sizeof(int64_t) / sizeof(float));
}

/* One tap at stride 1 everywhere: the places of all images are one line. */
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

/* Many channels: blocks of places are copied, a slice of the channels at a time,
   so that they stay in the second cache for all panels of weights, and their rows
   do not lie at multiples of 4 KB. */
static bool is_sliced(const gc_gather *g)
{
    bool far = g->in_pixel * (int64_t)sizeof(float) % 4096 == 0 || g->in_c >= SLICE + SLICE / 2;
    return is_flat(g) && g->groups == 1 && g->in_c >= SLICE / 2 && far && g->out_c >= 4 * g->kern->nr;
}

int64_t gc_direct_scratch(const gc_gather *g)
{
    int64_t n = needs_padding(g) ? g->in_c * g->groups : 0, table = table_floats(g);
    if (is_sliced(g)) {
        return table + BLOCK * (SLICE + 4 + SLICE_PAD); /* slices begin at multiples of 4: one may be 3 longer */
    }
    for (int i = 0; i < 3 && n > 0; i++) {
        if (!gc_mul_ok(n, i == 1 ? strip_reach(g, most_lines(g)) : reach(&g->dim[i]), &n)) {
            return -1;
        }
    }
    return gc_add_ok(n, table, &n) ? n : -1;
}

/* One line of the padded image. */
static void pad_task(void *task, uint32_t index)
{
    const direct *d = task;
    const gc_conv_dim *dim = d->g->dim;
    int64_t channels = d->g->in_c * d->g->groups, width = reach(&dim[2]);
    int64_t lines = strip_reach(d->g, d->strip_lines), z = (int64_t)index / lines - dim[0].pad;
    int64_t y = (int64_t)index % lines + d->strip_first * dim[1].stride - dim[1].pad;
    float *to = d->padded + (int64_t)index * width * channels;
    if (z < 0 || z >= dim[0].in || y < 0 || y >= dim[1].in) {
        memset(to, 0, (size_t)(width * channels) * sizeof(float));
        return;
    }
    int64_t lo = min64(width, max64(0, dim[2].pad)), hi = max64(lo, min64(width, dim[2].in + dim[2].pad));
    const float *from = d->source +
                        (((d->image * dim[0].in + z) * dim[1].in + y) * dim[2].in + lo - dim[2].pad) * d->g->in_pixel;
    memset(to, 0, (size_t)(lo * channels) * sizeof(float));
    if (d->g->in_pixel == channels) {
        memcpy(to + lo * channels, from, (size_t)((hi - lo) * channels) * sizeof(float));
    } else {
        for (int64_t x = lo; x < hi; x++) {
            memcpy(to + x * channels, from + (x - lo) * d->g->in_pixel, (size_t)channels * sizeof(float));
        }
    }
    memset(to + hi * channels, 0, (size_t)((width - hi) * channels) * sizeof(float));
}

/* Weights that do not stay in the cache: a tile fetches a part of the next panel.
   Else the first panel fetches the pixels of the next tile, too few in a row for
   the processor to see them coming, and the other panels what will be added there. */
static void look_ahead(const direct *d, gc_tile *t, int64_t panel, int64_t tile, int64_t end)
{
    if (!d->panels_inner) {
        int64_t lines = d->parts > 1 ? d->lines_item : d->lines, floats = t->n_segments * t->length * d->g->kern->nr;
        int64_t tiles = d->flat ? d->tiles_line : lines * d->tiles_line;
        gc_kern_look_ahead(t->b + (d->parts > 1 ? floats : d->panel_floats), floats * (int64_t)sizeof(float),
                           tile % tiles, tiles, t);
    } else if (d->flat && panel == 0) {
        int64_t floats = t->rows * d->row_step;
        gc_kern_look_ahead(t->a + floats, floats * (int64_t)sizeof(float), 0, 1, t);
    } else if (d->flat && d->epi->residual != NULL) {
        gc_kern_look_ahead(d->epi->residual + end * t->c_step, t->rows * t->c_step * (int64_t)sizeof(float), panel - 1,
                           d->panels - 1, t);
    } else {
        t->ahead_lines = 0;
    }
}

/* The weights of a run of tiles. */
typedef struct aim {
    int64_t group, panel, part;
} aim;

/* Tiles of one line. */
static void run_line(const direct *d, gc_tile *t, const aim *with, int64_t line, int64_t first, int64_t count)
{
    const gc_gather *g = d->g;
    const gc_conv_dim *dim = g->dim;
    int64_t y = line % d->strip_lines, z = line / d->strip_lines;
    int64_t column = with->group * g->out_c + with->panel * g->kern->nr, pixel;
    const float *from = d->from + with->group * g->in_c;
    if (d->flat) {
        pixel = 0;
    } else {
        from += z * dim[0].stride * d->plane + y * dim[1].stride * d->line;
        pixel = ((d->image * dim[0].out + dim[0].out_first + z * dim[0].out_step) * dim[1].out + dim[1].out_first +
                 (d->strip_first + y) * dim[1].out_step) *
                    dim[2].out +
                dim[2].out_first;
    }
    for (int64_t i = first; i < first + count; i++) {
        int64_t at = d->width * i / d->tiles_line, end = d->width * (i + 1) / d->tiles_line;
        int64_t place = pixel + at * dim[2].out_step;
        t->a = from + at * d->row_step;
        t->rows = (int32_t)(end - at);
        look_ahead(d, t, with->panel, d->flat ? i : line * d->tiles_line + i, end);
        t->c = d->out + place * g->out_pixel + column;
        if (with->part > 0) {
            t->epi.residual = t->c;
        } else if (d->epi->residual != NULL) {
            t->epi.residual = d->epi->residual + place * g->out_pixel + column;
        }
        g->kern->tile(t);
        gc_kern_map_rows(g->kern, &t->epi, t->rows, t->cols, t->c, t->c_step);
    }
}

static void aim_tile(const direct *d, const aim *with, gc_tile *t)
{
    const gc_kern *k = d->g->kern;
    int64_t columns = min64(k->nr, d->g->out_c - with->panel * k->nr), width = (columns + k->vl - 1) / k->vl * k->vl;
    int64_t first = d->n_segments * with->part / d->parts, end = d->n_segments * (with->part + 1) / d->parts;
    t->cols = (int32_t)columns;
    t->segments = d->segments + first;
    t->n_segments = end - first;
    t->b = d->packed + with->group * d->group_floats + with->panel * d->panel_floats +
           (d->slice_first + first * d->length) * width;
    t->epi = *d->epi;
    t->epi.residual_step = t->c_step;
    if (t->epi.bias != NULL) {
        t->epi.bias += with->group * d->g->out_c + with->panel * k->nr;
    }
    if (with->part > 0) {
        t->epi.bias = NULL;
    }
    if (with->part + 1 < d->parts) {
        t->epi.flags = 0;
    }
}

static void fill_segments(direct *d)
{
    const gc_conv_dim *dim = d->g->dim;
    bool joined = d->n_segments == dim[0].taps * dim[1].taps;
    int64_t n = 0;
    for (int64_t z = 0; z < dim[0].taps; z++) {
        for (int64_t y = 0; y < dim[1].taps; y++) {
            for (int64_t x = 0; x < (joined ? 1 : dim[2].taps); x++) {
                d->segments[n++] = z * dim[0].dilation * d->plane + y * dim[1].dilation * d->line +
                                   x * dim[2].dilation * (d->row_step / dim[2].stride);
            }
        }
    }
}

/* Lines from `at` to `end`, or tiles when there is one line. */
static void run_span(const direct *d, gc_tile *t, const aim *with, int64_t at, int64_t end)
{
    aim_tile(d, with, t);
    if (d->flat) {
        run_line(d, t, with, 0, at, end - at);
        return;
    }
    for (; at < end; at++) {
        run_line(d, t, with, at, 0, d->tiles_line);
    }
}

static void item_task(void *task, uint32_t index)
{
    const direct *d = task;
    int64_t spans = d->items_panel, group_items = spans * (d->panels_inner ? 1 : d->panels);
    int64_t rest = index % group_items, span = rest % spans, first = rest / spans;
    int64_t last = d->panels_inner ? d->panels : first + 1;
    gc_tile t;
    memset(&t, 0, sizeof t);
    t.a_step = d->row_step;
    t.length = d->length;
    t.c_step = d->g->out_pixel * (d->flat ? 1 : d->g->dim[2].out_step);
    int64_t total = d->flat ? d->tiles_line : d->lines;
    int64_t begin = span * d->lines_item, end = min64(total, begin + d->lines_item);
    int64_t unit = d->panels_inner && d->flat ? 1 : end - begin;
    for (int64_t at = begin; at < end; at += unit) {
        for (aim with = {index / group_items, first, 0}; with.panel < last; with.panel++) {
            for (with.part = 0; with.part < d->parts; with.part++) {
                run_span(d, &t, &with, at, at + unit);
            }
        }
    }
}

/* How the work is cut; by sizes only, never by the number of workers. */
static void cut(direct *d)
{
    const gc_gather *g = d->g;
    const gc_conv_dim *dim = g->dim;
    int64_t taps = dim[0].taps * dim[1].taps * dim[2].taps;
    bool joined = dim[2].dilation == 1 && d->row_step / dim[2].stride == g->in_c;
    d->depth = taps * g->in_c;
    d->n_segments = joined ? dim[0].taps * dim[1].taps : taps;
    d->length = d->depth / d->n_segments;
    d->panels = (g->out_c + g->kern->nr - 1) / g->kern->nr;
    d->panel_floats = d->depth * g->kern->nr;
    int64_t rows = gc_kern_tile_rows(g->kern, d->row_step);
    d->tiles_line = (d->width + rows - 1) / rows;
    d->panels_inner = d->depth * g->out_c * (int64_t)sizeof(float) <= OUTER_BYTES;
    int64_t total = d->flat ? d->tiles_line : d->lines;
    int64_t flops = 2 * d->depth * (d->panels_inner ? g->out_c : min64(g->kern->nr, g->out_c)) *
                    (d->flat ? g->kern->mr : d->width);
    d->lines_item = max64(1, min64(total, ITEM_FLOPS / max64(1, flops)));
    if (!d->flat && d->panels_inner) {
        d->lines_item = 1; /* the panels of a line one after the other */
    }
    int64_t panel_bytes = d->panel_floats * (int64_t)sizeof(float);
    d->parts = 1;
    if (!d->panels_inner && panel_bytes > LARGE_PANEL) {
        d->parts = min64(d->n_segments, panel_bytes / PART_BYTES + 1);
    }
    if (d->parts > 1) {
        d->lines_item = min64(total, max64(d->lines_item, PART_PLACES / d->width));
    }
    d->items_panel = (total + d->lines_item - 1) / d->lines_item;
}

static gc_status run_items(const gc_ctx *ctx, direct *d)
{
    cut(d);
    fill_segments(d);
    d->length = d->slice_length > 0 ? d->slice_length : d->length;
    int64_t items = d->g->groups * d->items_panel * (d->panels_inner ? 1 : d->panels);
    return gc_parallel(ctx, item_task, d, (uint32_t)items);
}

static gc_status run_padded(const gc_ctx *ctx, direct *d, const float *in, float *scratch)
{
    const gc_gather *g = d->g;
    d->source = in;
    d->padded = scratch + table_floats(g);
    d->from = d->padded;
    int64_t channels = g->in_c * g->groups;
    d->line = reach(&g->dim[2]) * channels;
    d->row_step = g->dim[2].stride * channels;
    int64_t places = g->dim[1].places, most = most_lines(g), strips = (places + most - 1) / most;
    for (int64_t i = 0; i < g->images * strips; i++) {
        d->image = i / strips;
        d->strip_first = places * (i % strips) / strips;
        d->strip_lines = places * (i % strips + 1) / strips - d->strip_first;
        d->lines = g->dim[0].places * d->strip_lines;
        int64_t lines = strip_reach(g, d->strip_lines);
        d->plane = lines * d->line;
        GC_TRY(gc_parallel(ctx, pad_task, d, (uint32_t)(reach(&g->dim[0]) * lines)));
        GC_TRY(run_items(ctx, d));
    }
    return GRADCAM_OK;
}

typedef struct slice_copy {
    const float *from;
    float *to;
    int64_t from_step, to_step, length, rows;
} slice_copy;

enum { COPY_ROWS = 16 };

static void slice_task(void *task, uint32_t index)
{
    const slice_copy *j = task;
    int64_t first = (int64_t)index * COPY_ROWS, last = min64(first + COPY_ROWS, j->rows);
    for (int64_t r = first; r < last; r++) {
        memcpy(j->to + r * j->to_step, j->from + r * j->from_step, (size_t)j->length * sizeof(float));
    }
}

/* Slice `index` of `slices` for the places of a block: sums go on from what the
   slices before have left in the output. */
static gc_status run_slice(const gc_ctx *ctx, direct *d, const float *in, float *copy, int64_t index, int64_t slices)
{
    const gc_gather *g = d->g;
    const gc_epilogue *whole = d->epi;
    gc_epilogue epi = *whole;
    d->slice_first = g->in_c * index / slices / 4 * 4;
    d->slice_length = (index + 1 < slices ? g->in_c * (index + 1) / slices / 4 * 4 : g->in_c) - d->slice_first;
    d->row_step = d->slice_length + SLICE_PAD;
    d->from = copy;
    slice_copy j = {in + d->slice_first, copy, g->in_pixel, d->row_step, d->slice_length, d->width};
    GC_TRY(gc_parallel(ctx, slice_task, &j, (uint32_t)((d->width + COPY_ROWS - 1) / COPY_ROWS)));
    if (index > 0) {
        epi.bias = NULL;
        epi.residual = d->out;
    }
    if (index + 1 < slices) {
        epi.flags = 0;
    }
    d->epi = &epi;
    gc_status status = run_items(ctx, d);
    d->epi = whole;
    return status;
}

static gc_status run_sliced(const gc_ctx *ctx, direct *d, const float *in, float *scratch)
{
    const gc_gather *g = d->g;
    gc_epilogue epi = *d->epi;
    int64_t places = g->images * d->lines * d->width, blocks = (places + BLOCK - 1) / BLOCK;
    int64_t slices = (g->in_c + SLICE - 1) / SLICE;
    float *out = d->out;
    d->flat = 1;
    for (int64_t b = 0; b < blocks; b++) {
        int64_t first = places * b / blocks, at = first * g->out_pixel;
        d->width = places * (b + 1) / blocks - first;
        d->out = out + at;
        epi.residual = d->epi->residual == NULL ? NULL : d->epi->residual + at;
        const gc_epilogue *whole = d->epi;
        d->epi = &epi;
        for (int64_t s = 0; s < slices; s++) {
            GC_TRY(run_slice(ctx, d, in + first * g->in_pixel, scratch + table_floats(g), s, slices));
        }
        d->epi = whole;
    }
    return GRADCAM_OK;
}

gc_status gc_direct_run(const gc_ctx *ctx, const gc_gather *g, const float *in, const float *packed,
                        const gc_epilogue *epi, float *out, float *scratch)
{
    direct d;
    memset(&d, 0, sizeof d);
    d.g = g;
    d.packed = packed;
    d.epi = epi;
    d.out = out;
    d.segments = (int64_t *)(void *)scratch;
    d.group_floats = gc_conv_packed(g, GC_CONV_DIRECT) / g->groups;
    d.width = g->dim[2].places;
    d.strip_lines = g->dim[1].places;
    d.lines = g->dim[0].places * d.strip_lines;
    if (needs_padding(g)) {
        return run_padded(ctx, &d, in, scratch);
    }
    d.row_step = g->dim[2].stride * g->in_pixel;
    d.line = g->dim[2].in * g->in_pixel;
    d.plane = g->dim[1].in * d.line;
    d.flat = is_flat(g);
    if (is_sliced(g)) {
        return run_sliced(ctx, &d, in, scratch);
    }
    if (d.flat) {
        d.from = in;
        d.width = g->images * d.lines * d.width;
        return run_items(ctx, &d);
    }
    for (d.image = 0; d.image < g->images; d.image++) {
        d.from = in + d.image * g->dim[0].in * d.plane;
        for (int i = 0; i < 3; i++) { /* a negative pad skips pixels */
            d.from -= g->dim[i].pad * (i == 0 ? d.plane : i == 1 ? d.line : g->in_pixel);
        }
        GC_TRY(run_items(ctx, &d));
    }
    return GRADCAM_OK;
}
