/* SPDX-License-Identifier: MIT */
/* Convolution in bfloat16: as kern/direct.c does it, by tiles of two parts of a
   line of places.  What is not bfloat16, has padding or an odd number of
   channels is first copied.
 *
 * Where lines are short, parts run on from line to line of the copy: what they sum
 * between the lines is not stored.  Strides are then in the copy, which has pixels
 * x, x + s, x + 2 s, ... of a line or column side by side. */
#include <string.h>

#include "base/status.h"
#include "kern/half_shape.h"

/* Weights, or a batch of their panels, that stay in the second cache while one tile
   after the other reads them; the same of the weights or the pixels alone; pixels of a span beside such
   weights; work of a task; pixels of a task that copies. */
enum {
    STAYS_BYTES = 512 << 10,
    BATCH_BYTES = 256 << 10,
    ALONE_BYTES = 1280 << 10,
    SPAN_BYTES = 384 << 10,
    ITEM_FLOPS = 32 << 20,
    COPY_PIXELS = 64,
    MANY_PLACES = 384
};

/* A dimension of the copy: pixels x with x % step = phase < phases, `size` of each phase. */
typedef struct axis {
    int64_t step, phases, size;
} axis;

typedef struct half_conv {
    const gc_gather *g;
    axis axis[3];
    const gc_bf16 *from;                      /* the copy, or the input */
    int64_t pixel, line, phase, plane, whole; /* its steps; `phase`: an image of one phase */
    int64_t image, images;                    /* the first one, and how many at once */
    int64_t width, lines;                     /* places of a line, lines of places */
    int64_t row;                              /* pixels from line to line where parts run on, else 0 */
    int64_t parts_line, tiles;                /* parts of a line; pairs of parts of all lines */
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

/* Elements from pixel to pixel of the copy: a cache line more than wide pixels have, whose chunks
   would fall into a few sets of the first cache. */
static int64_t copy_pixel(const gc_gather *g)
{
    return gc_half_channels(g) * g->groups + (gc_half_chunked(g) ? GC_HALF_DEPTH : 0);
}

static bool needs_copy(const gc_gather *g)
{
    bool gaps = gc_half_joined(g) && g->dim[2].taps > 1 && g->in_pixel != g->in_c;
    return !g->in_half || gc_half_channels(g) != g->in_c || gaps || needs_padding(g);
}

/* ---- the copy and its parts ---- */

static axis whole_axis(const gc_conv_dim *d)
{
    axis a = {1, 1, reach(d)};
    return a;
}

static axis phased_axis(const gc_conv_dim *d)
{
    int64_t last = (d->taps - 1) * d->dilation;
    axis a = {d->stride, min64(d->stride, last + 1), d->places + last / d->stride};
    return a;
}

static int64_t parts_of(int64_t places)
{
    return (places + GC_HALF_ROWS - 1) / GC_HALF_ROWS;
}

/* Places from the first to the last of a plane whose lines are `row` pixels apart. */
static int64_t run_length(const gc_gather *g, int64_t row)
{
    return (g->dim[1].places - 1) * row + g->dim[2].places;
}

/* Parts run on from line to line: where that makes fewer of them, or a quarter fewer if the
   pixels would else be read where they lie. */
static bool runs_on(const gc_gather *g)
{
    bool strided = false, fits = g->half->whole_parts && !is_flat(g);
    for (int i = 1; i < 3; i++) {
        const gc_conv_dim *d = &g->dim[i];
        fits = fits && d->out_step == 1 && d->out_first == 0 && d->places == d->out;
        strided = strided || d->stride > 1;
    }
    if (!fits || (gc_half_joined(g) && g->dim[2].taps > 1 && g->dim[2].stride > 1)) {
        return false;
    }
    int64_t by_lines = g->dim[1].places * parts_of(g->dim[2].places);
    int64_t parts = parts_of(run_length(g, phased_axis(&g->dim[2]).size));
    return needs_copy(g) ? parts < by_lines : strided && 4 * parts <= 3 * by_lines;
}

int64_t gc_half_column_floats(const gc_gather *g)
{
    return gc_half_column(g) / 2;
}

static int64_t panel_count(const gc_gather *g)
{
    return (g->out_c + GC_HALF_COLS - 1) / GC_HALF_COLS;
}

static bool is_copied(const gc_gather *g)
{
    return needs_copy(g) || runs_on(g);
}

/* Room for the table of segments, in whole cache lines. */
static int64_t table_floats(const gc_gather *g)
{
    return (gc_half_segments(g) * (int64_t)(sizeof(int64_t) / sizeof(float)) + 15) / 16 * 16;
}

/* Elements of the copy of one image, in either order of its pixels; -1: too many. */
static int64_t copy_size(const gc_gather *g)
{
    int64_t n = copy_pixel(g);
    for (int i = 0; i < 3; i++) {
        axis a = phased_axis(&g->dim[i]);
        if (!gc_mul_ok(n, max64(reach(&g->dim[i]), a.phases * a.size), &n)) {
            return -1;
        }
    }
    return n;
}

/* Images that are copied at once: where weights come from far, as many as have places enough for
   the time that takes, and stay near. */
static int64_t images_at_once(const gc_gather *g, int64_t size)
{
    int64_t weights = gc_half_column(g) * gc_half_columns(g) * g->groups * (int64_t)sizeof(gc_bf16);
    int64_t bytes = size * (int64_t)sizeof(gc_bf16), places = 1;
    for (int i = 0; i < 3; i++) {
        places *= min64(MANY_PLACES, g->dim[i].places);
    }
    int64_t most = min64(g->images,
                         min64(ALONE_BYTES / max64(1, bytes), (MANY_PLACES + places - 1) / max64(1, places)));
    return weights <= STAYS_BYTES ? 1 : max64(1, most);
}

int64_t gc_half_scratch(const gc_gather *g)
{
    int64_t n = 0, strides = g->dim[1].stride * g->dim[2].stride;
    if (needs_copy(g) || strides > 1) { /* with fewer lines it may be copied where this is not */
        n = copy_size(g);
        if (n < 0 || gc_half_packed(g) < 0) {
            return -1;
        }
        n *= images_at_once(g, n);
    }
    return gc_add_ok(n / 2 + 1, table_floats(g), &n) ? n : -1;
}

/* ---- the copy ---- */

/* Pixels of one line of the input, `step` from each other. */
static void copy_pixels(const half_conv *d, int64_t from, int64_t step, int64_t count, gc_bf16 *to)
{
    const gc_gather *g = d->g;
    int64_t channels = g->in_c * g->groups, pixel = d->pixel;
    int64_t run = step == 1 && g->in_pixel == channels && pixel == channels ? count * channels : channels;
    from *= g->in_pixel;
    if (step == 1 && !g->in_half && channels % 2 != 0 && g->in_pixel == channels && channels < GC_HALF_ROWS) {
        g->half->narrow_odd(count, channels, (const float *)d->source + from, to);
        return;
    }
    for (int64_t done = 0; done < count * channels; done += run, from += step * g->in_pixel, to += pixel) {
        if (g->in_half) {
            memcpy(to, (const gc_bf16 *)d->source + from, (size_t)run * sizeof *to);
        } else {
            g->half->narrow(run, (const float *)d->source + from, to);
        }
        if (channels % 2 != 0) {
            to[channels] = 0;
        }
    }
}

/* Pixels x of a phase whose pixels step * x + phase - pad of the input are there: lo .. hi. */
static void inside(const axis *a, const gc_conv_dim *d, int64_t phase, int64_t *lo, int64_t *hi)
{
    int64_t before = d->pad - phase, end = d->in + before;
    *lo = before > 0 ? (before + a->step - 1) / a->step : 0;
    *hi = end > 0 ? (end + a->step - 1) / a->step : 0;
}

/* Some pixels of one phase of one line of the copy. */
static void copy_task(void *task, uint32_t index)
{
    const half_conv *d = task;
    const gc_conv_dim *dim = d->g->dim;
    const axis *ax = d->axis;
    int64_t chunks = (ax[2].size + COPY_PIXELS - 1) / COPY_PIXELS, number = (int64_t)index / chunks;
    int64_t first = (int64_t)index % chunks * COPY_PIXELS, last = min64(ax[2].size, first + COPY_PIXELS), lo, hi;
    int64_t y = number % ax[1].size, phases = number / ax[1].size, z = phases / (ax[1].phases * ax[2].phases);
    int64_t px = phases % ax[2].phases, py = phases / ax[2].phases % ax[1].phases;
    inside(&ax[1], &dim[1], py, &lo, &hi);
    bool is_line = y >= lo && y < hi;
    int64_t image = d->image + z / ax[0].size, plane = z % ax[0].size - dim[0].pad;
    is_line = is_line && plane >= 0 && plane < dim[0].in;
    inside(&ax[2], &dim[2], px, &lo, &hi);
    lo = min64(last, max64(first, lo));
    hi = is_line ? max64(lo, min64(last, hi)) : lo;
    gc_bf16 *to = d->copy + number * d->line;
    memset(to + first * d->pixel, 0, (size_t)((lo - first) * d->pixel) * sizeof *to);
    if (hi > lo) {
        int64_t line = (image * dim[0].in + plane) * dim[1].in + y * ax[1].step + py - dim[1].pad;
        copy_pixels(d, line * dim[2].in + lo * ax[2].step + px - dim[2].pad, ax[2].step, hi - lo, to + lo * d->pixel);
    }
    memset(to + hi * d->pixel, 0, (size_t)((last - hi) * d->pixel) * sizeof *to);
}

/* ---- tiles ---- */

/* Bits of the rows that are places and not stored by the part before, and the first of these. */
static uint32_t kept_rows(const half_conv *d, int64_t first, int64_t rows, int64_t fresh, int64_t *place)
{
    int64_t width = d->g->dim[2].places, y = first / d->row, x = first % d->row;
    uint32_t keep = 0;
    for (int64_t i = 0; i < rows; i++) {
        if (x < width && first + i >= fresh) {
            *place = keep == 0 ? y * width + x : *place;
            keep |= UINT32_C(1) << i;
        }
        x++;
        if (x == d->row) {
            x = 0;
            y++;
        }
    }
    return keep;
}

/* Part q of the tile: where it reads and where it writes. */
static void aim_part(const half_conv *d, gc_half_tile *t, int q, int64_t part, int64_t group)
{
    const gc_gather *g = d->g;
    const gc_conv_dim *dim = g->dim;
    int64_t line = part / d->parts_line, i = part % d->parts_line, y = 0;
    int64_t base = d->width / d->parts_line, extra = d->width % d->parts_line;
    int64_t at = i * base + min64(i, extra), rows = base + (i < extra), place = at;
    t->keep[q] = (UINT32_C(1) << rows) - 1u;
    if (d->row > 0) { /* the last part begins where it is whole */
        int64_t fresh = i * GC_HALF_ROWS;
        rows = min64(GC_HALF_ROWS, d->width);
        at = min64(fresh, d->width - rows);
        t->keep[q] = kept_rows(d, at, rows, fresh, &place);
    } else if (!d->flat) {
        y = line % dim[1].places;
        line /= dim[1].places;
    }
    const gc_bf16 *from = d->from + group * gc_half_channels(g) + at * t->a_step;
    if (d->flat) {
        place += d->image * d->width;
    } else {
        int64_t z = line % dim[0].places, image = line / dim[0].places;
        from += image * d->whole + z * dim[0].stride * d->plane + y * dim[1].stride / d->axis[1].step * d->line;
        place = d->row > 0
                    ? place
                    : (dim[1].out_first + y * dim[1].out_step) * dim[2].out + dim[2].out_first + at * dim[2].out_step;
        place += (((d->image + image) * dim[0].out + dim[0].out_first + z * dim[0].out_step) * dim[1].out) * dim[2].out;
    }
    t->rows[q] = (int32_t)rows;
    t->a[q] = from;
    t->at[q] = place * g->out_pixel + group * g->out_c;
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

static void aim_tile(const half_conv *d, gc_half_tile *t, int64_t group, int64_t tile)
{
    t->rows[1] = 0;
    aim_part(d, t, 0, 2 * tile, group);
    if (2 * tile + 1 < d->parts_line * d->lines) {
        aim_part(d, t, 1, 2 * tile + 1, group);
    }
}

static void run_batch(const half_conv *d, gc_half_tile *t, int64_t group, int64_t span, int64_t batch)
{
    int64_t begin = span * d->tiles_item, end = min64(d->tiles, begin + d->tiles_item);
    int64_t first = batch * d->panels_item, last = min64(d->panels, first + d->panels_item);
    int64_t index = 0, count = (end - begin) * (last - first);
    const gc_bf16 *next = d->packed + group * d->group_halves + last * d->panel_halves;
    gc_half_state state;
    memset(&state, 0, sizeof state);
    for (int64_t tile = begin; tile < end; tile++) {
        aim_tile(d, t, group, tile);
        t->at[0] += first * GC_HALF_COLS;
        t->at[1] += first * GC_HALF_COLS;
        for (int64_t panel = first; panel < last; panel++, index++) {
            aim_panel(d, t, group, panel);
            look_ahead(d, t, next, index, count);
            d->g->half->tile(t, &state);
            t->at[0] += GC_HALF_COLS;
            t->at[1] += GC_HALF_COLS;
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
    t.a_step = d->pixel * (g->dim[2].stride / d->axis[2].step);
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
    const axis *ax = d->axis;
    int64_t n = 0, taps = gc_half_joined(d->g) ? 1 : dim[2].taps, round = dim[0].taps * dim[1].taps * taps;
    for (; n < d->n_segments; n++) {
        int64_t i = n % round, z = i / taps / dim[1].taps * dim[0].dilation;
        int64_t y = i / taps % dim[1].taps * dim[1].dilation, x = i % taps * dim[2].dilation;
        int64_t phase = y % ax[1].step * ax[2].phases + x % ax[2].step;
        d->segments[n] = z * d->plane + phase * d->phase + y / ax[1].step * d->line + x / ax[2].step * d->pixel +
                         n / round * d->length;
    }
}

/* How the work is cut; by sizes only, never by the number of workers. */
static gc_status run_items(const gc_ctx *ctx, half_conv *d)
{
    const gc_gather *g = d->g;
    int64_t depth = gc_half_column(g), weights = depth * gc_half_columns(g) * (int64_t)sizeof(gc_bf16);
    d->parts_line = parts_of(d->width);
    d->tiles = (d->parts_line * d->lines + 1) / 2;
    int64_t panel = d->panel_halves * (int64_t)sizeof(gc_bf16);
    d->panels_item = weights <= STAYS_BYTES ? d->panels : max64(1, min64(d->panels, BATCH_BYTES / panel));
    d->batches = (d->panels + d->panels_item - 1) / d->panels_item;
    if (d->batches == 1) {
        int64_t flops = 2 * depth * g->out_c * GC_HALF_PARTS * GC_HALF_ROWS;
        d->tiles_item = max64(1, min64(d->tiles, ITEM_FLOPS / max64(1, flops)));
    } else { /* all panels of a span of places, then the next span */
        int64_t bytes = (d->flat ? d->width * d->pixel : d->images * d->whole) * (int64_t)sizeof(gc_bf16);
        int64_t span = bytes > ALONE_BYTES && weights <= ALONE_BYTES ? SPAN_BYTES : ALONE_BYTES;
        d->tiles_item = max64(1, d->tiles / ((bytes + span - 1) / span));
    }
    d->spans = (d->tiles + d->tiles_item - 1) / d->tiles_item;
    fill_segments(d);
    return gc_parallel(ctx, item_task, d, (uint32_t)(g->groups * d->spans * d->batches));
}

/* The places of an image, or of a plane, are one line. */
static void merge_lines(half_conv *d)
{
    const gc_gather *g = d->g;
    d->flat = is_flat(g);
    if (d->flat) {
        d->width *= d->lines;
        d->lines = 1;
    } else if (runs_on(g)) {
        d->row = d->axis[2].size;
        d->width = run_length(g, d->row);
        d->lines = g->dim[0].places;
    }
}

static gc_status run_copied(const gc_ctx *ctx, half_conv *d, float *scratch)
{
    const gc_gather *g = d->g;
    bool runs = runs_on(g);
    d->copy = (gc_bf16 *)(void *)(scratch + table_floats(g));
    d->from = d->copy;
    d->pixel = copy_pixel(g);
    d->axis[1] = runs ? phased_axis(&g->dim[1]) : whole_axis(&g->dim[1]);
    d->axis[2] = runs ? phased_axis(&g->dim[2]) : whole_axis(&g->dim[2]);
    d->line = d->axis[2].size * d->pixel;
    d->phase = d->axis[1].size * d->line;
    d->plane = d->axis[1].phases * d->axis[2].phases * d->phase;
    d->whole = d->axis[0].size * d->plane;
    merge_lines(d);
    int64_t lines = d->lines, most = d->flat ? 1 : images_at_once(g, copy_size(g));
    int64_t chunks = (d->axis[2].size + COPY_PIXELS - 1) / COPY_PIXELS;
    for (d->image = 0; d->image < g->images; d->image += d->images) {
        d->images = min64(most, g->images - d->image);
        d->lines = d->images * lines;
        GC_TRY(gc_parallel(ctx, copy_task, d, (uint32_t)(d->images * (d->whole / d->line) * chunks)));
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
    d.n_segments = gc_half_segments(g);
    d.length = gc_half_length(g);
    d.panels = panel_count(g);
    d.panel_halves = gc_half_column(g) * GC_HALF_COLS;
    d.group_halves = gc_half_column(g) * gc_half_columns(g);
    d.width = g->dim[2].places;
    d.lines = g->dim[0].places * g->dim[1].places;
    for (int i = 0; i < 3; i++) {
        d.axis[i] = whole_axis(&g->dim[i]);
    }
    if (is_copied(g)) {
        return run_copied(ctx, &d, scratch);
    }
    d.pixel = g->in_pixel;
    d.line = g->dim[2].in * d.pixel;
    d.plane = g->dim[1].in * d.line;
    d.whole = g->dim[0].in * d.plane;
    d.images = g->images;
    merge_lines(&d);
    d.from = in;
    if (d.flat) {
        d.width *= g->images;
        return run_items(ctx, &d);
    }
    d.lines *= g->images;
    for (int i = 0; i < 3; i++) { /* a negative pad skips pixels */
        d.from -= g->dim[i].pad * (i == 0 ? d.plane : i == 1 ? d.line : d.pixel);
    }
    return run_items(ctx, &d);
}
