/* SPDX-License-Identifier: MIT */
#include "scene.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SHADOW = 2, GARMENT_BYTES = SCENE_SIDE * SCENE_SIDE, HEADER_BYTES = 12, MAX_GARMENTS = 70000 };

const char *scene_class_name(int label)
{
    static const char *const names[SCENE_CLASSES] = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                                     "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};
    return label >= 0 && label < SCENE_CLASSES ? names[label] : NULL;
}

/* ---- garments.bin: magic, count (32 bits, little-endian), labels, pixels --- */

/* The count of garments, or 0 if the header is not one. */
static uint32_t read_header(FILE *file)
{
    unsigned char head[HEADER_BYTES];
    if (fread(head, 1, sizeof head, file) != sizeof head || memcmp(head, "GARMENT1", 8) != 0) {
        return 0;
    }
    const uint32_t count = (uint32_t)head[8] | (uint32_t)head[9] << 8 | (uint32_t)head[10] << 16 |
                           (uint32_t)head[11] << 24;
    return count <= MAX_GARMENTS ? count : 0;
}

/* Reads labels and pixels into one block and checks the labels. */
static int read_garments(FILE *file, scene_wardrobe *w)
{
    const size_t bytes = (size_t)w->count * (GARMENT_BYTES + 1);
    if (fread(w->labels, 1, bytes, file) != bytes) {
        return -1;
    }
    for (uint32_t i = 0; i < w->count; i++) {
        if (w->labels[i] >= SCENE_CLASSES) {
            return -1;
        }
    }
    return 0;
}

static int read_wardrobe(FILE *file, scene_wardrobe *out)
{
    scene_wardrobe w = {0, NULL, NULL};
    w.count = read_header(file);
    if (w.count == 0) {
        return -1;
    }
    w.labels = malloc((size_t)w.count * (GARMENT_BYTES + 1));
    if (w.labels == NULL) {
        return -1;
    }
    w.pixels = w.labels + w.count;
    if (read_garments(file, &w) != 0) {
        free(w.labels);
        return -1;
    }
    *out = w;
    return 0;
}

int scene_wardrobe_load(const char *path, scene_wardrobe *out)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return -1;
    }
    const int status = read_wardrobe(file, out);
    fclose(file);
    return status;
}

void scene_wardrobe_free(scene_wardrobe *w)
{
    free(w->labels);
    w->labels = NULL;
    w->pixels = NULL;
    w->count = 0;
}

/* ---- scenes.txt: numbers, "|", clutter, "|", garments ----------------------- */

/* The text still to be read; `bad` is set by the first thing that is wrong. */
typedef struct cursor {
    const char *at;
    int bad;
} cursor;

/* The next number, which must lie in low..high; 0 once something was wrong. */
static int take(cursor *c, long low, long high)
{
    char *end = NULL;
    const long value = c->bad ? 0 : strtol(c->at, &end, 10);
    if (c->bad || end == c->at || value < low || value > high) {
        c->bad = 1;
        return 0;
    }
    c->at = end;
    return (int)value;
}

static void take_colour(cursor *c, int colour[3])
{
    for (int k = 0; k < 3; k++) {
        colour[k] = take(c, 0, 255);
    }
}

static void take_bar(cursor *c)
{
    c->at += strspn(c->at, " ");
    if (*c->at != '|') {
        c->bad = 1;
    } else {
        c->at++;
    }
}

/* The seed uses all 32 bits, more than a long is sure to hold. */
static uint32_t take_seed(cursor *c)
{
    char *end = NULL;
    errno = 0;
    const unsigned long value = strtoul(c->at, &end, 10);
    if (end == c->at || errno != 0 || *c->at == '-' || value > 0xffffffffu) {
        c->bad = 1;
    }
    c->at = end;
    return (uint32_t)value;
}

static void take_background(cursor *c, scene *s)
{
    s->seed = take_seed(c);
    for (int k = 0; k < 4; k++) {
        s->cells[k] = take(c, 2, SCENE_SIZE);
    }
    s->mix = take(c, 0, 256);
    s->grain = take(c, 0, 255);
    take_colour(c, s->dark);
    take_colour(c, s->light);
}

static void take_shape(cursor *c, scene_shape *shape)
{
    shape->kind = take(c, 0, 1);
    shape->x = take(c, -SCENE_SIZE, SCENE_SIZE);
    shape->y = take(c, -SCENE_SIZE, SCENE_SIZE);
    shape->w = take(c, 1, SCENE_SIZE);
    shape->h = take(c, 1, SCENE_SIZE);
    take_colour(c, shape->colour);
    shape->opacity = take(c, 0, 255);
}

static void take_item(cursor *c, const scene_wardrobe *w, scene_item *item)
{
    item->garment = take(c, 0, (long)w->count - 1);
    item->x = take(c, 0, SCENE_SIZE);
    item->y = take(c, 0, SCENE_SIZE);
    item->size = take(c, 1, SCENE_SIZE);
    item->flip = take(c, 0, 1);
    take_colour(c, item->tint);
    if (item->x + item->size > SCENE_SIZE || item->y + item->size > SCENE_SIZE) {
        c->bad = 1;
    }
}

int scene_parse(const char *line, const scene_wardrobe *w, scene *out)
{
    cursor c = {line, 0};
    scene s;
    memset(&s, 0, sizeof s);
    take_background(&c, &s);
    take_bar(&c);
    s.n_shapes = take(&c, 0, SCENE_MAX_SHAPES);
    for (int k = 0; k < s.n_shapes; k++) {
        take_shape(&c, &s.shapes[k]);
    }
    take_bar(&c);
    s.n_items = take(&c, 1, SCENE_MAX_ITEMS);
    for (int k = 0; k < s.n_items; k++) {
        take_item(&c, w, &s.items[k]);
    }
    if (c.bad || c.at[strspn(c.at, " \r\n")] != '\0') {
        return -1;
    }
    *out = s;
    return 0;
}

int scene_next(FILE *file, const scene_wardrobe *w, scene *out)
{
    char line[SCENE_MAX_LINE];
    while (fgets(line, sizeof line, file) != NULL) {
        if (line[0] != '#') {
            return scene_parse(line, w, out) == 0 ? 1 : -1;
        }
    }
    return ferror(file) ? -1 : 0;
}

/* ---- the background ---------------------------------------------------------- */

/* One byte of a linear congruential generator: the top one of the new state. */
static unsigned char next_byte(uint32_t *state)
{
    *state = *state * UINT32_C(1664525) + UINT32_C(1013904223);
    return (unsigned char)(*state >> 24);
}

static int clamp(int value, int low, int high)
{
    return value < low ? low : value > high ? high : value;
}

static unsigned char blend(int under, int over, int alpha)
{
    return (unsigned char)((under * (255 - alpha) + over * alpha + 127) / 255);
}

/* Value noise: random bytes on a lattice of cw x ch cells, bilinear between. */
static void add_noise(uint32_t *state, int cw, int ch, int weight, int *sum)
{
    unsigned char grid[(SCENE_SIZE / 2 + 2) * (SCENE_SIZE / 2 + 2)];
    const int cols = SCENE_SIZE / cw + 2, rows = SCENE_SIZE / ch + 2;
    for (int k = 0; k < cols * rows; k++) {
        grid[k] = next_byte(state);
    }
    for (int y = 0; y < SCENE_SIZE; y++) {
        for (int x = 0; x < SCENE_SIZE; x++) {
            const unsigned char *p = grid + y / ch * cols + x / cw;
            const int fx = x % cw, fy = y % ch;
            const int left = p[0] * (ch - fy) + p[cols] * fy;
            const int right = p[1] * (ch - fy) + p[cols + 1] * fy;
            sum[y * SCENE_SIZE + x] += weight * ((left * (cw - fx) + right * fx) / (cw * ch));
        }
    }
}

/* Two layers of noise, mixed: texture[y * SCENE_SIZE + x] in 0..255.  What is
   left of the generator goes into the grain. */
static void make_texture(const scene *s, uint32_t *state, int *texture)
{
    memset(texture, 0, SCENE_SIZE * SCENE_SIZE * sizeof *texture);
    add_noise(state, s->cells[0], s->cells[1], s->mix, texture);
    add_noise(state, s->cells[2], s->cells[3], 256 - s->mix, texture);
    for (int k = 0; k < SCENE_SIZE * SCENE_SIZE; k++) {
        texture[k] /= 256;
    }
}

/* Whether the centre of pixel (x, y) lies in the ellipse that fills w x h. */
static int in_ellipse(const scene_shape *shape, int x, int y)
{
    const int dx = 2 * (x - shape->x) + 1 - shape->w, dy = 2 * (y - shape->y) + 1 - shape->h;
    const int w2 = shape->w * shape->w, h2 = shape->h * shape->h;
    return dx * dx * h2 + dy * dy * w2 <= w2 * h2;
}

static void draw_shape(const scene_shape *shape, const int *texture, unsigned char *rgb)
{
    const int x1 = clamp(shape->x + shape->w, 0, SCENE_SIZE), y1 = clamp(shape->y + shape->h, 0, SCENE_SIZE);
    for (int y = clamp(shape->y, 0, SCENE_SIZE); y < y1; y++) {
        for (int x = clamp(shape->x, 0, SCENE_SIZE); x < x1; x++) {
            if (shape->kind == 0 && !in_ellipse(shape, x, y)) {
                continue;
            }
            const int at = y * SCENE_SIZE + x;
            const int alpha = shape->opacity * (192 + texture[at] / 4) / 255;
            for (int c = 0; c < 3; c++) {
                rgb[3 * at + c] = blend(rgb[3 * at + c], shape->colour[c], alpha);
            }
        }
    }
}

static void draw_grain(int amplitude, uint32_t *state, unsigned char *rgb)
{
    for (int k = 0; k < SCENE_SIZE * SCENE_SIZE; k++) {
        const int speck = next_byte(state) * amplitude / 256 - amplitude / 2;
        for (int c = 0; c < 3; c++) {
            rgb[3 * k + c] = (unsigned char)clamp(rgb[3 * k + c] + speck, 0, 255);
        }
    }
}

static void draw_background(const scene *s, unsigned char *rgb)
{
    int texture[SCENE_SIZE * SCENE_SIZE];
    uint32_t state = s->seed;
    make_texture(s, &state, texture);
    for (int k = 0; k < SCENE_BYTES; k++) {
        rgb[k] = blend(s->dark[k % 3], s->light[k % 3], texture[k / 3]);
    }
    for (int k = 0; k < s->n_shapes; k++) {
        draw_shape(&s->shapes[k], texture, rgb);
    }
    draw_grain(s->grain, &state, rgb);
}

/* ---- the garments ------------------------------------------------------------- */

/* Where pixel i of `size` falls in the garment, in 1/256 of its pixels. */
static int source(int i, int size)
{
    return clamp((2 * i + 1) * (SCENE_SIDE * 128) / size - 128, 0, (SCENE_SIDE - 1) * 256);
}

/* The grey value of the garment at pixel (x, y) of its square, bilinear. */
static int sample_grey(const unsigned char *pixels, const scene_item *item, int x, int y)
{
    const int u = source(item->flip ? item->size - 1 - x : x, item->size), v = source(y, item->size);
    const int x0 = clamp(u / 256, 0, SCENE_SIDE - 2), y0 = clamp(v / 256, 0, SCENE_SIDE - 2);
    const int fx = u - x0 * 256, fy = v - y0 * 256;
    const unsigned char *p = pixels + y0 * SCENE_SIDE + x0;
    const int left = p[0] * (256 - fy) + p[SCENE_SIDE] * fy;
    const int right = p[1] * (256 - fy) + p[SCENE_SIDE + 1] * fy;
    return (left * (256 - fx) + right * fx + 32768) / 65536;
}

/* How opaque a garment is where its grey value is `grey`. */
static int coverage(int grey)
{
    return clamp((grey - 16) * 6, 0, 255);
}

static void draw_shadow(const scene_item *item, const unsigned char *grey, unsigned char *rgb)
{
    for (int y = 0; y < item->size && item->y + y + SHADOW < SCENE_SIZE; y++) {
        for (int x = 0; x < item->size && item->x + x + SHADOW < SCENE_SIZE; x++) {
            const int alpha = coverage(grey[y * item->size + x]);
            unsigned char *p = rgb + 3 * ((item->y + y + SHADOW) * SCENE_SIZE + item->x + x + SHADOW);
            for (int c = 0; c < 3; c++) {
                p[c] = (unsigned char)(p[c] * (510 - alpha) / 510);
            }
        }
    }
}

static void draw_cloth(const scene_item *item, const unsigned char *grey, unsigned char *rgb)
{
    for (int y = 0; y < item->size; y++) {
        for (int x = 0; x < item->size; x++) {
            const int value = grey[y * item->size + x];
            unsigned char *p = rgb + 3 * ((item->y + y) * SCENE_SIZE + item->x + x);
            for (int c = 0; c < 3; c++) {
                p[c] = blend(p[c], item->tint[c] * (64 + value * 191 / 255) / 255, coverage(value));
            }
        }
    }
}

/* The box around all that is at least half opaque; the square if nothing is. */
static scene_box tight_box(const scene_item *item, const unsigned char *grey, int label)
{
    scene_box box = {SCENE_SIZE, SCENE_SIZE, 0, 0, label};
    for (int k = 0; k < item->size * item->size; k++) {
        if (coverage(grey[k]) >= 128) {
            const int x = item->x + k % item->size, y = item->y + k / item->size;
            box.x0 = x < box.x0 ? x : box.x0;
            box.y0 = y < box.y0 ? y : box.y0;
            box.x1 = x >= box.x1 ? x + 1 : box.x1;
            box.y1 = y >= box.y1 ? y + 1 : box.y1;
        }
    }
    if (box.x1 == 0) {
        const scene_box square = {item->x, item->y, item->x + item->size, item->y + item->size, label};
        return square;
    }
    return box;
}

static scene_box draw_item(const scene_item *item, const scene_wardrobe *w, unsigned char *rgb)
{
    unsigned char grey[SCENE_SIZE * SCENE_SIZE];
    const unsigned char *pixels = w->pixels + (size_t)item->garment * GARMENT_BYTES;
    for (int k = 0; k < item->size * item->size; k++) {
        grey[k] = (unsigned char)sample_grey(pixels, item, k % item->size, k / item->size);
    }
    draw_shadow(item, grey, rgb);
    draw_cloth(item, grey, rgb);
    return tight_box(item, grey, w->labels[item->garment]);
}

void scene_render(const scene *s, const scene_wardrobe *w, unsigned char *rgb, scene_box *boxes)
{
    draw_background(s, rgb);
    for (int k = 0; k < s->n_items; k++) {
        boxes[k] = draw_item(&s->items[k], w, rgb);
    }
}
