/* SPDX-License-Identifier: MIT */
/* 3x3 convolutions at stride 1 by Winograd's F(4x4, 3x3) and F(2x2, 3x3), see
   Lavin and Gray 2016: tiles of (m + 2)^2 pixels are transformed, multiplied
   for each of the (m + 2)^2 planes as [tiles][in] x [in][out], and transformed
   back.  Tiles go in blocks that stay in the cache. */
#include <string.h>

#include "base/size.h"
#include "base/status.h"
#include "kern/conv.h"
#include "kern/share.h"

enum { BLOCK = 56, PLANE_PAD = 32, MAX_PLANES = 36, MAX_NR = 32 };

/* The work is cut into items: a block of tiles and a group of panels of output
   channels.  A worker has a slot of scratch: the transformed tiles of the block
   that it has last seen, their products with one group, and a padded tile. */
typedef struct wino {
    const gc_gather *g;
    const float *in;
    const float *packed;
    const gc_epilogue *epi;
    float *out;
    int64_t m, size, planes;
    int64_t tiles_y, tiles_x, tiles;
    int64_t block; /* tiles of a block, at most */
    int64_t blocks;
    int64_t panels, groups;
    int64_t columns; /* output channels of a group, at most */
    int32_t workers;
    int32_t reserved0;
} wino;

static int64_t ceil_div(int64_t x, int64_t y)
{
    return (x + y - 1) / y;
}

/* Nominal time of the busiest worker in multiplications of one vector element, for
   `blocks` of tiles and `groups` of panels: the products; reading the group's
   weights, which come from afar but are fetched ahead; the transforms.  Pixels
   that several workers read come from another core's cache. */
static double busiest(const wino *w, int64_t blocks, int64_t groups)
{
    enum { READ = 8, TRANSFORM = 8, ELSEWHERE = 8 };
    double tiles = (double)ceil_div(w->tiles, blocks), in = (double)w->g->in_c;
    double columns = (double)(ceil_div(w->panels, groups) * w->g->kern->nr);
    int64_t items = ceil_div(blocks * groups, w->workers);
    double pixels = (double)ceil_div(items, groups) * tiles * in * (groups > 1 ? TRANSFORM + ELSEWHERE : TRANSFORM);
    return (double)items * ((tiles + READ) * in * columns + TRANSFORM * tiles * columns) + pixels;
}

/* With one worker blocks of the usual size; else the best of that, as many blocks
   for each worker, and a share of the panels for each. */
static void cut(wino *w)
{
    int64_t usual = w->blocks, each = min64(w->tiles, ceil_div(usual, w->workers) * w->workers);
    int64_t shares = min64(w->panels, w->workers);
    double best = busiest(w, usual, 1);
    w->groups = 1;
    if (busiest(w, each, 1) < best) {
        best = busiest(w, each, 1);
        w->blocks = each;
    }
    if (busiest(w, usual, shares) < best) {
        w->blocks = usual;
        w->groups = shares;
    }
}

static void measure(const gc_gather *g, int32_t m, int32_t workers, wino *w)
{
    memset(w, 0, sizeof *w);
    w->g = g;
    w->m = m;
    w->size = m + 2;
    w->planes = w->size * w->size;
    w->workers = workers;
    w->tiles_y = ceil_div(g->dim[1].places, m);
    w->tiles_x = ceil_div(g->dim[2].places, m);
    w->tiles = g->images * w->tiles_y * w->tiles_x;
    w->panels = ceil_div(g->out_c, g->kern->nr);
    w->blocks = ceil_div(w->tiles, BLOCK);
    cut(w);
    w->block = ceil_div(w->tiles, w->blocks);
    w->columns = ceil_div(w->panels, w->groups) * g->kern->nr;
}

static int64_t in_plane(const wino *w)
{
    return w->block * w->g->in_c + PLANE_PAD;
}

static int64_t out_plane(const wino *w)
{
    return w->block * w->columns + PLANE_PAD;
}

/* Both sets of planes and one tile with its padding for each worker. */
static int64_t slot_floats(const wino *w)
{
    return GC_SHARE_FLOATS + w->planes * (in_plane(w) + out_plane(w) + w->g->in_c);
}

int64_t gc_wino_scratch(const gc_gather *g, int32_t m, int32_t workers)
{
    wino w;
    int64_t n;
    measure(g, m, workers, &w);
    return gc_mul_ok(slot_floats(&w), workers, &n) ? n : -1;
}

/* A tile that reaches over the border, with zeros there. */
static const float *patched(const wino *w, const float *image, int64_t y, int64_t x, float *patch)
{
    const gc_gather *g = w->g;
    for (int64_t i = 0; i < w->size; i++) {
        for (int64_t k = 0; k < w->size; k++) {
            float *to = patch + (i * w->size + k) * g->in_c;
            int64_t yy = y + i, xx = x + k;
            if (yy < 0 || yy >= g->dim[1].in || xx < 0 || xx >= g->dim[2].in) {
                memset(to, 0, (size_t)g->in_c * sizeof(float));
            } else {
                memcpy(to, image + (yy * g->dim[2].in + xx) * g->in_pixel, (size_t)g->in_c * sizeof(float));
            }
        }
    }
    return patch;
}

/* Tile `index` of all into column `at` of the planes. */
static void transform_in(const wino *w, int64_t index, int64_t at, float *planes, float *patch)
{
    const gc_gather *g = w->g;
    int64_t x = index % w->tiles_x * w->m - g->dim[2].pad, y = index / w->tiles_x % w->tiles_y * w->m - g->dim[1].pad;
    const float *image = w->in + index / (w->tiles_x * w->tiles_y) * g->dim[1].in * g->dim[2].in * g->in_pixel;
    gc_wino_tile t;
    memset(&t, 0, sizeof t);
    t.to = planes + at * g->in_c;
    t.plane = in_plane(w);
    t.channels = g->in_c;
    if (y >= 0 && y + w->size <= g->dim[1].in && x >= 0 && x + w->size <= g->dim[2].in) {
        t.from = image + (y * g->dim[2].in + x) * g->in_pixel;
        t.pixel = g->in_pixel;
        t.line = g->dim[2].in * g->in_pixel;
    } else {
        t.from = patched(w, image, y, x, patch);
        t.pixel = g->in_c;
        t.line = w->size * g->in_c;
    }
    if (w->m == 4) {
        g->kern->wino4_in(&t);
    } else {
        g->kern->wino2_in(&t);
    }
}

static void transform_out(const wino *w, int64_t index, int64_t at, int64_t column, int64_t columns,
                          const float *planes)
{
    const gc_gather *g = w->g;
    int64_t x = index % w->tiles_x * w->m, y = index / w->tiles_x % w->tiles_y * w->m;
    int64_t image = index / (w->tiles_x * w->tiles_y);
    int64_t offset = ((image * g->dim[1].out + y) * g->dim[2].out + x) * g->out_pixel + column;
    int64_t rows = g->dim[1].places - y, cols = g->dim[2].places - x;
    gc_wino_tile t;
    memset(&t, 0, sizeof t);
    t.from = planes + at * columns;
    t.to = w->out + offset;
    t.plane = out_plane(w);
    t.channels = columns;
    t.pixel = t.residual_pixel = g->out_pixel;
    t.line = t.residual_line = g->dim[2].out * g->out_pixel;
    t.rows = (int32_t)(rows < w->m ? rows : w->m);
    t.cols = (int32_t)(cols < w->m ? cols : w->m);
    t.epi = *w->epi;
    if (t.epi.residual != NULL) {
        t.epi.residual += offset;
    }
    if (t.epi.bias != NULL) {
        t.epi.bias += column;
    }
    if (w->m == 4) {
        g->kern->wino4_out(&t);
    } else {
        g->kern->wino2_out(&t);
    }
    for (int64_t i = 0; i < t.rows; i++) {
        gc_kern_map_rows(g->kern, w->epi, t.cols, t.channels, t.to + i * t.line, t.pixel);
    }
}

/* The product of one plane with a group of panels: [count][in] x [in][columns]. */
static void multiply(const wino *w, int64_t plane, int64_t count, int64_t column, int64_t columns, const float *from,
                     float *to)
{
    const gc_gather *g = w->g;
    const gc_kern *k = g->kern;
    int64_t rows = gc_kern_tile_rows(k, g->in_c), tiles = ceil_div(count, rows);
    const float *weights = w->packed + (plane * g->out_c + column) * g->in_c;
    gc_tile t;
    memset(&t, 0, sizeof t);
    t.a_step = g->in_c;
    t.n_segments = 1;
    t.length = g->in_c;
    t.c_step = columns;
    for (int64_t at = 0; at < columns; at += k->nr) {
        t.cols = (int32_t)min64(columns - at, k->nr);
        t.b = weights + at * g->in_c;
        const float *next = at + k->nr < columns ? t.b + g->in_c * t.cols : weights + g->out_c * g->in_c;
        for (int64_t i = 0; i < tiles; i++) {
            int64_t first = count * i / tiles;
            t.rows = (int32_t)(count * (i + 1) / tiles - first);
            t.a = from + plane * in_plane(w) + first * g->in_c;
            t.c = to + plane * out_plane(w) + first * columns + at;
            gc_kern_look_ahead(next, g->in_c * k->nr * (int64_t)sizeof(float), i, tiles, &t);
            k->tile(&t);
        }
    }
}

/* `held` is the block whose transformed tiles lie in the slot. */
static void run_item(const void *task, int64_t item, float *slot, int64_t *held)
{
    const wino *w = task;
    int64_t block = item / w->groups, group = item % w->groups, nr = w->g->kern->nr;
    int64_t first = w->tiles * block / w->blocks, count = w->tiles * (block + 1) / w->blocks - first;
    int64_t column = w->panels * group / w->groups * nr;
    int64_t columns = min64(w->panels * (group + 1) / w->groups * nr, w->g->out_c) - column;
    float *out = slot + w->planes * in_plane(w), *patch = out + w->planes * out_plane(w);
    for (int64_t i = 0; i < count && *held != block; i++) {
        transform_in(w, first + i, i, slot, patch);
    }
    *held = block;
    for (int64_t plane = 0; plane < w->planes; plane++) {
        multiply(w, plane, count, column, columns, slot, out);
    }
    for (int64_t i = 0; i < count; i++) {
        transform_out(w, first + i, i, column, columns, out);
    }
}

gc_status gc_wino_run(const gc_ctx *ctx, const gc_gather *g, int32_t m, const float *in, const float *packed,
                      const gc_epilogue *epi, float *out, float *scratch, int32_t workers)
{
    wino w;
    measure(g, m, workers, &w);
    w.in = in;
    w.packed = packed;
    w.epi = epi;
    w.out = out;
    gc_share share = {run_item, &w, scratch, slot_floats(&w), w.blocks * w.groups, workers, 0};
    return gc_share_run(ctx, &share);
}

/* ---- weights ---- */

/* The rows 1, p, p^2 of each point over the product of its distances to the
   others; infinity takes the highest power. */
static const float G4[6][3] = {
    {64.0f / 81.0f, 0.0f, 0.0f},
    {-128.0f / 243.0f, -32.0f / 81.0f, -8.0f / 27.0f},
    {-128.0f / 243.0f, 32.0f / 81.0f, -8.0f / 27.0f},
    {32.0f / 243.0f, 16.0f / 81.0f, 8.0f / 27.0f},
    {32.0f / 243.0f, -16.0f / 81.0f, 8.0f / 27.0f},
    {0.0f, 0.0f, 1.0f},
};
static const float G2[4][3] = {{1.0f, 0.0f, 0.0f}, {0.5f, 0.5f, 0.5f}, {0.5f, -0.5f, 0.5f}, {0.0f, 0.0f, 1.0f}};

typedef struct wino_pack {
    const gc_gather *g;
    const gc_conv_weights *w;
    float *packed;
    int64_t size;
} wino_pack;

/* G g G^T of `width` kernels side by side. */
static void transform_weights(int64_t size, const float (*factor)[3], float (*kernel)[MAX_NR], float (*out)[MAX_NR])
{
    float half[6][3][MAX_NR];
    for (int64_t i = 0; i < size; i++) {
        for (int64_t x = 0; x < 3; x++) {
            for (int64_t k = 0; k < MAX_NR; k++) {
                half[i][x][k] = factor[i][0] * kernel[x][k] + factor[i][1] * kernel[3 + x][k] +
                                factor[i][2] * kernel[6 + x][k];
            }
        }
    }
    for (int64_t i = 0; i < size; i++) {
        for (int64_t j = 0; j < size; j++) {
            for (int64_t k = 0; k < MAX_NR; k++) {
                out[i * size + j][k] = factor[j][0] * half[i][0][k] + factor[j][1] * half[i][1][k] +
                                       factor[j][2] * half[i][2][k];
            }
        }
    }
}

static void pack_task(void *task, uint32_t index)
{
    const wino_pack *p = task;
    const gc_gather *g = p->g;
    const gc_conv_dim *d = g->dim;
    int64_t nr = g->kern->nr, first = (int64_t)index * nr, width = g->out_c - first < nr ? g->out_c - first : nr;
    float kernel[9][MAX_NR], out[MAX_PLANES][MAX_NR];
    memset(kernel, 0, sizeof kernel);
    for (int64_t c = 0; c < g->in_c; c++) {
        const float *from = p->w->data + first * p->w->column_step + c * p->w->channel_step;
        for (int64_t k = 0; k < width; k++) {
            for (int64_t t = 0; t < 9; t++) {
                int64_t tap = (d[1].tap_first + t / 3 * d[1].tap_step) * 3 + d[2].tap_first + t % 3 * d[2].tap_step;
                kernel[t][k] = from[k * p->w->column_step + tap];
            }
        }
        transform_weights(p->size, p->size == 6 ? G4 : G2, kernel, out);
        for (int64_t plane = 0; plane < p->size * p->size; plane++) {
            memcpy(p->packed + plane * g->in_c * g->out_c + first * g->in_c + c * width, out[plane],
                   (size_t)width * sizeof(float));
        }
    }
}

gc_status gc_wino_pack(const gc_ctx *ctx, const gc_gather *g, int32_t m, const gc_conv_weights *w, float *packed)
{
    wino_pack p = {g, w, packed, m + 2};
    return gc_parallel(ctx, pack_task, &p, (uint32_t)((g->out_c + g->kern->nr - 1) / g->kern->nr));
}
