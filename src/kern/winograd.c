/* SPDX-License-Identifier: MIT */
/* 3x3 convolutions at stride 1 by Winograd's F(4x4, 3x3) and F(2x2, 3x3), see
   Lavin and Gray 2016: tiles of (m + 2)^2 pixels are transformed, multiplied
   for each of the (m + 2)^2 planes as [tiles][in] x [in][out], and transformed
   back.  Tiles go in blocks that stay in the cache. */
#include <string.h>

#include "base/size.h"
#include "base/status.h"
#include "kern/conv.h"

enum { BLOCK_FEW = 42, BLOCK_MANY = 56, BLOCK_CHANNELS = 256, PLANE_PAD = 32, MAX_PLANES = 36, MAX_NR = 32 };

typedef struct wino {
    const gc_gather *g;
    const float *in;
    const float *packed;
    const gc_epilogue *epi;
    float *out;
    float *scratch;
    int64_t m, size, planes;
    int64_t tiles_y, tiles_x, tiles;
    int64_t block; /* tiles of a block, at most */
    int64_t blocks;
    int64_t slot_floats;
    int64_t first, count; /* the tiles of the block, when one is shared by all workers */
    int32_t next;         /* the next block that nobody has claimed */
    int32_t reserved0;
} wino;

static void measure(const gc_gather *g, int32_t m, wino *w)
{
    memset(w, 0, sizeof *w);
    w->g = g;
    w->m = m;
    w->size = m + 2;
    w->planes = w->size * w->size;
    w->tiles_y = (g->dim[1].places + m - 1) / m;
    w->tiles_x = (g->dim[2].places + m - 1) / m;
    w->tiles = g->images * w->tiles_y * w->tiles_x;
    int64_t most = g->in_c + g->out_c <= BLOCK_CHANNELS ? BLOCK_FEW : BLOCK_MANY;
    w->blocks = (w->tiles + most - 1) / most;
    w->block = (w->tiles + w->blocks - 1) / w->blocks;
}

static int64_t in_plane(const wino *w)
{
    return w->block * w->g->in_c + PLANE_PAD;
}

static int64_t out_plane(const wino *w)
{
    return w->block * w->g->out_c + PLANE_PAD;
}

/* Both sets of planes and one tile with its padding for each worker. */
static int64_t slot_floats(const wino *w)
{
    return w->planes * (in_plane(w) + out_plane(w) + w->g->in_c);
}

int64_t gc_wino_scratch(const gc_gather *g, int32_t m, int32_t workers)
{
    wino w;
    int64_t n;
    measure(g, m, &w);
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

static void transform_out(const wino *w, int64_t index, int64_t at, const float *planes)
{
    const gc_gather *g = w->g;
    int64_t x = index % w->tiles_x * w->m, y = index / w->tiles_x % w->tiles_y * w->m;
    int64_t image = index / (w->tiles_x * w->tiles_y);
    int64_t offset = ((image * g->dim[1].out + y) * g->dim[2].out + x) * g->out_pixel;
    int64_t rows = g->dim[1].places - y, cols = g->dim[2].places - x;
    gc_wino_tile t;
    memset(&t, 0, sizeof t);
    t.from = planes + at * g->out_c;
    t.to = w->out + offset;
    t.plane = out_plane(w);
    t.channels = g->out_c;
    t.pixel = t.residual_pixel = g->out_pixel;
    t.line = t.residual_line = g->dim[2].out * g->out_pixel;
    t.rows = (int32_t)(rows < w->m ? rows : w->m);
    t.cols = (int32_t)(cols < w->m ? cols : w->m);
    t.epi = *w->epi;
    if (t.epi.residual != NULL) {
        t.epi.residual += offset;
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

/* The product of one plane: [count][in] x [in][out]. */
static void multiply(const wino *w, int64_t plane, int64_t count, const float *from, float *to)
{
    const gc_gather *g = w->g;
    const gc_kern *k = g->kern;
    int64_t rows = gc_kern_tile_rows(k, g->in_c), tiles = (count + rows - 1) / rows;
    const float *weights = w->packed + plane * g->in_c * g->out_c;
    gc_tile t;
    memset(&t, 0, sizeof t);
    t.a_step = g->in_c;
    t.n_segments = 1;
    t.length = g->in_c;
    t.c_step = g->out_c;
    for (int64_t column = 0; column < g->out_c; column += k->nr) {
        t.cols = (int32_t)(g->out_c - column < k->nr ? g->out_c - column : k->nr);
        t.b = weights + column * g->in_c;
        for (int64_t i = 0; i < tiles; i++) {
            int64_t first = count * i / tiles;
            t.rows = (int32_t)(count * (i + 1) / tiles - first);
            t.a = from + plane * in_plane(w) + first * g->in_c;
            t.c = to + plane * out_plane(w) + first * g->out_c + column;
            gc_kern_look_ahead(t.b + g->in_c * t.cols, g->in_c * k->nr * (int64_t)sizeof(float), i, tiles, &t);
            k->tile(&t);
        }
    }
}

/* Claims blocks until none is left; each worker has its own planes. */
static void blocks_task(void *task, uint32_t index)
{
    wino *w = task;
    float *in = w->scratch + (int64_t)index * w->slot_floats, *out = in + w->planes * in_plane(w);
    float *patch = out + w->planes * out_plane(w);
    for (int64_t b = gc_atomic_add(&w->next, 1) - 1; b < w->blocks; b = gc_atomic_add(&w->next, 1) - 1) {
        int64_t first = w->tiles * b / w->blocks, count = w->tiles * (b + 1) / w->blocks - first;
        for (int64_t i = 0; i < count; i++) {
            transform_in(w, first + i, i, in, patch);
        }
        for (int64_t plane = 0; plane < w->planes; plane++) {
            multiply(w, plane, count, in, out);
        }
        for (int64_t i = 0; i < count; i++) {
            transform_out(w, first + i, i, out);
        }
    }
}

/* ---- one block after the other, each shared by all workers ---- */

/* Each task has its own rows of tiles, so the patch of its worker is that of
   the first tile's place in the block. */
static void in_task(void *task, uint32_t index)
{
    const wino *w = task;
    float *out = w->scratch + w->planes * in_plane(w);
    float *patch = out + (int64_t)index * w->planes * w->g->in_c; /* the product is not there yet */
    transform_in(w, w->first + index, index, w->scratch, patch);
}

static void multiply_task(void *task, uint32_t index)
{
    const wino *w = task;
    multiply(w, index, w->count, w->scratch, w->scratch + w->planes * in_plane(w));
}

static void out_task(void *task, uint32_t index)
{
    const wino *w = task;
    transform_out(w, w->first + index, index, w->scratch + w->planes * in_plane(w));
}

static gc_status run_shared(const gc_ctx *ctx, wino *w)
{
    for (int64_t b = 0; b < w->blocks; b++) {
        w->first = w->tiles * b / w->blocks;
        w->count = w->tiles * (b + 1) / w->blocks - w->first;
        GC_TRY(gc_parallel(ctx, in_task, w, (uint32_t)w->count));
        GC_TRY(gc_parallel(ctx, multiply_task, w, (uint32_t)w->planes));
        GC_TRY(gc_parallel(ctx, out_task, w, (uint32_t)w->count));
    }
    return GRADCAM_OK;
}

gc_status gc_wino_run(const gc_ctx *ctx, const gc_gather *g, int32_t m, const float *in, const float *packed,
                      const gc_epilogue *epi, float *out, float *scratch, int32_t workers)
{
    wino w;
    measure(g, m, &w);
    w.in = in;
    w.packed = packed;
    w.epi = epi;
    w.out = out;
    w.scratch = scratch;
    w.slot_floats = slot_floats(&w);
    /* The patches of a shared block lie in the planes of the product. */
    if (workers > 1 && w.blocks < 4 * workers && g->in_c <= g->out_c) {
        return run_shared(ctx, &w);
    }
    return gc_parallel(ctx, blocks_task, &w, (uint32_t)(w.blocks < workers ? w.blocks : workers));
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
