/* SPDX-License-Identifier: MIT */
/*
 * The demo: asks a small network why it sees a garment in a picture.
 *
 *   demo [folder [sheet.png]]
 *
 * The folder (docs/demo if not given) holds garments.onnx, garments.bin and
 * scenes.txt.  Draws a sheet: for two garments in each of four scenes a row
 * with the photo, CAM, Grad-CAM, guided backpropagation and Guided Grad-CAM.
 * Then plays the pointing game: for every garment in every scene, does the
 * peak of its Grad-CAM map lie in the box around that garment?
 */
#include "cli/png_store.h"
#include "gradcam/gradcam.h"
#include "scene.h"
#include "sheet.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ZOOM = 2, /* dots of the sheet for a pixel of a scene */
    TILE = SCENE_SIZE * ZOOM,
    GAP = 8,
    LABELS = 148, /* width of the column with the class names */
    HEAD = 34,    /* height of the line with the methods' names */
    TILES = 5,
    SHOWN = 4, /* scenes on the sheet */
    ASKED = 2, /* garments asked for in each */
    ROWS = SHOWN * ASKED,
    PLANE = SCENE_SIZE * SCENE_SIZE,
    MAX_PATH = 1024
};

/* The scenes on the sheet, and the garments in them that are asked for. */
typedef struct choice {
    int scene;
    int items[ASKED];
} choice;
static const choice choices[SHOWN] = {{2, {0, 1}}, {3, {0, 1}}, {1, {0, 1}}, {5, {0, 1}}};

/* Everything that lives through the whole run; all zero at first. */
typedef struct demo {
    gc_ctx *ctx;
    gc_net *net;
    gc_run *run;
    gc_tensor *image; /* [1, 3, 112, 112], the network's input */
    gc_tensor *large; /* [1, TILE, TILE], a map resized for the sheet */
    gc_tensor *small; /* [1, 112, 112], a map resized for pointing */
    scene_wardrobe wardrobe;
    sheet page;
    gc_error err;
} demo;

/* A picture with what is known about it. */
typedef struct photo {
    scene what;
    scene_box boxes[SCENE_MAX_ITEMS];
    unsigned char rgb[SCENE_BYTES];
} photo;

typedef gc_status (*method)(gc_run *run, const gc_explain_options *options, gc_tensor **map, gc_error *err);

/* ---- messages ------------------------------------------------------------------- */

/* Says what failed; gives -1 to return. */
static int complain(const char *what, const char *why)
{
    fprintf(stderr, "demo: %s: %s\n", what, why);
    return -1;
}

/* 0 if the library's call went well, else a message and -1. */
static int check(const demo *d, const char *what, gc_status status)
{
    return status == GRADCAM_OK ? 0 : complain(what, d->err.message);
}

/* ---- the network ------------------------------------------------------------------ */

static float *elements(const gc_tensor *t)
{
    gc_tensor_desc desc = {0};
    return gc_tensor_describe(t, &desc) == GRADCAM_OK ? desc.data : NULL;
}

/* A float tensor of 1 x shape. */
static gc_status new_tensor(demo *d, int32_t ndim, int64_t depth, int64_t side, gc_tensor **out)
{
    gc_tensor_desc desc = {0};
    desc.dtype = GRADCAM_F32;
    desc.ndim = ndim;
    desc.shape[0] = 1;
    desc.shape[1] = ndim == 4 ? depth : side;
    desc.shape[2] = side;
    desc.shape[3] = ndim == 4 ? side : 0;
    return gc_tensor_create(d->ctx, &desc, out, &d->err);
}

static int open_network(demo *d, const char *path)
{
    gc_ctx_options options = {0};
    options.n_threads = 2;
    if (check(d, "context", gc_ctx_create(&options, &d->ctx, &d->err)) != 0 ||
        check(d, path, gc_net_load_file(d->ctx, path, NULL, &d->net, &d->err)) != 0 ||
        check(d, "run", gc_run_create(d->net, &d->run, &d->err)) != 0 ||
        check(d, "image", new_tensor(d, 4, 3, SCENE_SIZE, &d->image)) != 0 ||
        check(d, "map", new_tensor(d, 3, 0, TILE, &d->large)) != 0 ||
        check(d, "map", new_tensor(d, 3, 0, SCENE_SIZE, &d->small)) != 0) {
        return -1;
    }
    return check(d, "input", gc_run_set_input(d->run, NULL, d->image, &d->err));
}

/* Draws the scene and hands it to the network: RGB / 255, planes. */
static void show(const demo *d, photo *p)
{
    float *image = elements(d->image);
    scene_render(&p->what, &d->wardrobe, p->rgb, p->boxes);
    for (int k = 0; k < SCENE_BYTES; k++) {
        image[k % 3 * PLANE + k / 3] = (float)p->rgb[k] / 255.0F;
    }
}

/* Runs one of the four methods for a class; *map is the caller's to unref. */
static int explain(demo *d, method ask, int label, gc_report *report, gc_tensor **map)
{
    gc_target target = {0};
    gc_explain_options options = {0};
    target.kind = GRADCAM_TARGET_CLASS;
    target.index = label;
    options.target = &target;
    options.report = report;
    return check(d, "explanation", ask(d->run, &options, map, &d->err));
}

/* The same, resized bilinearly into `into`. */
static int explain_resized(demo *d, method ask, int label, gc_report *report, gc_tensor *into)
{
    gc_tensor *map = NULL;
    if (explain(d, ask, label, report, &map) != 0) {
        return -1;
    }
    const int status = check(d, "resizing", gc_map_resize(map, GRADCAM_RESIZE_BILINEAR, into, &d->err));
    gc_tensor_unref(map);
    return status;
}

/* ---- the sheet -------------------------------------------------------------------- */

static int column_x(int column)
{
    return LABELS + column * (TILE + GAP);
}

static int row_y(int row)
{
    return HEAD + row * (TILE + GAP) + row / ASKED * GAP;
}

static float largest(const float *v, int n)
{
    float best = 0;
    for (int k = 0; k < n; k++) {
        best = fabsf(v[k]) > best ? fabsf(v[k]) : best;
    }
    return best;
}

/* Where the first largest element is. */
static int peak(const float *v, int n)
{
    int best = 0;
    for (int k = 1; k < n; k++) {
        best = v[k] > v[best] ? k : best;
    }
    return best;
}

/* Divides by the largest magnitude, if there is one. */
static void scale(float *v, int n)
{
    const float most = largest(v, n);
    for (int k = 0; k < n && most > 0; k++) {
        v[k] /= most;
    }
}

/* Class name and the network's belief, sigmoid(score). */
static void draw_label(demo *d, int row, int label, double score)
{
    char text[32];
    const int y = row_y(row) + TILE / 2 - 2 * SHEET_CHAR_H;
    snprintf(text, sizeof text, "%.1f %%", 100.0 / (1.0 + exp(-score)));
    sheet_text(&d->page, GAP, y, 2, scene_class_name(label));
    sheet_text(&d->page, GAP, y + 2 * (SHEET_CHAR_H + 2), 2, text);
}

/* The photo, with the garment asked for in a frame. */
static void draw_photo(demo *d, const photo *p, int item, int row)
{
    const int x = column_x(0), y = row_y(row);
    const scene_box *b = &p->boxes[item];
    sheet_picture(&d->page, x, y, SCENE_SIZE, SCENE_SIZE, ZOOM, p->rgb);
    sheet_frame(&d->page, x + ZOOM * b->x0, y + ZOOM * b->y0, x + ZOOM * b->x1, y + ZOOM * b->y1);
}

/* CAM: signed evidence, red for the class and blue against it. */
static int draw_cam(demo *d, const photo *p, int label, int row)
{
    const int x = column_x(1), y = row_y(row);
    if (explain_resized(d, gc_cam, label, NULL, d->large) != 0) {
        return -1;
    }
    float *map = elements(d->large);
    scale(map, TILE * TILE);
    sheet_picture(&d->page, x, y, SCENE_SIZE, SCENE_SIZE, ZOOM, p->rgb);
    sheet_signed_heat(&d->page, x, y, TILE, map);
    return 0;
}

/* Grad-CAM with a cross at its peak. */
static int draw_gradcam(demo *d, const photo *p, int label, int row)
{
    const int x = column_x(2), y = row_y(row);
    gc_report report = {0};
    if (explain_resized(d, gc_gradcam, label, &report, d->large) != 0) {
        return -1;
    }
    float *map = elements(d->large);
    scale(map, TILE * TILE);
    const int at = peak(map, TILE * TILE);
    sheet_picture(&d->page, x, y, SCENE_SIZE, SCENE_SIZE, ZOOM, p->rgb);
    sheet_heat(&d->page, x, y, TILE, map);
    sheet_cross(&d->page, x + at % TILE, y + at / TILE);
    draw_label(d, row, label, report.score);
    return 0;
}

/* The root of the mean square; never 0. */
static float spread(const float *v, int n)
{
    double sum = 1e-60;
    for (int k = 0; k < n; k++) {
        sum += (double)v[k] * (double)v[k];
    }
    return (float)sqrt(sum / n);
}

/* A gradient as a picture: grey is 0, five times the spread is full colour. */
static int draw_gradient(demo *d, method ask, int label, int column, int row)
{
    unsigned char rgb[SCENE_BYTES];
    gc_tensor *map = NULL;
    if (explain(d, ask, label, NULL, &map) != 0) {
        return -1;
    }
    const float *g = elements(map);
    const float full = 5 * spread(g, SCENE_BYTES);
    for (int k = 0; k < SCENE_BYTES; k++) {
        const float v = g[k % 3 * PLANE + k / 3] / full;
        rgb[k] = (unsigned char)(127.5F + 127.5F * (v < -1 ? -1 : v > 1 ? 1 : v));
    }
    gc_tensor_unref(map);
    sheet_picture(&d->page, column_x(column), row_y(row), SCENE_SIZE, SCENE_SIZE, ZOOM, rgb);
    return 0;
}

static int draw_row(demo *d, photo *p, int item, int row)
{
    const int label = p->boxes[item].label;
    draw_photo(d, p, item, row);
    return draw_cam(d, p, label, row) != 0 || draw_gradcam(d, p, label, row) != 0 ||
                   draw_gradient(d, gc_guided_backprop, label, 3, row) != 0 ||
                   draw_gradient(d, gc_guided_gradcam, label, 4, row) != 0
               ? -1
               : 0;
}

/* Draws the rows of this scene if it is one of those on the sheet. */
static int draw_if_chosen(demo *d, photo *p, int number)
{
    for (int k = 0; k < ROWS; k++) {
        const choice *c = &choices[k / ASKED];
        const int item = c->items[k % ASKED];
        if (c->scene == number && item < p->what.n_items && draw_row(d, p, item, k) != 0) {
            return -1;
        }
    }
    return 0;
}

static int start_page(demo *d)
{
    static const char *const heads[TILES] = {"photo", "CAM", "Grad-CAM", "guided backprop", "Guided Grad-CAM"};
    if (sheet_create(&d->page, column_x(TILES), row_y(ROWS)) != 0) {
        return complain("sheet", "out of memory");
    }
    for (int k = 0; k < TILES; k++) {
        const int width = (int)strlen(heads[k]) * SHEET_CHAR_W * 2;
        sheet_text(&d->page, column_x(k) + (TILE - width) / 2, GAP, 2, heads[k]);
    }
    return 0;
}

/* ---- the pointing game -------------------------------------------------------------- */

/* 1 if the peak of the class's map lies in the box, 0 if not, -1 on failure. */
static int point(demo *d, const scene_box *box)
{
    if (explain_resized(d, gc_gradcam, box->label, NULL, d->small) != 0) {
        return -1;
    }
    const int at = peak(elements(d->small), PLANE), x = at % SCENE_SIZE, y = at / SCENE_SIZE;
    return x >= box->x0 && x < box->x1 && y >= box->y0 && y < box->y1;
}

typedef struct tally {
    int asked[SCENE_CLASSES], hit[SCENE_CLASSES];
} tally;

static int play_scene(demo *d, const photo *p, tally *t)
{
    for (int k = 0; k < p->what.n_items; k++) {
        const int hit = point(d, &p->boxes[k]);
        if (hit < 0) {
            return -1;
        }
        t->asked[p->boxes[k].label]++;
        t->hit[p->boxes[k].label] += hit;
    }
    return 0;
}

/* One line for each class, then the sum. */
static int print_tally(const tally *t)
{
    int asked = 0, hit = 0;
    for (int k = 0; k < SCENE_CLASSES; k++) {
        asked += t->asked[k];
        hit += t->hit[k];
        if (t->asked[k] > 0) {
            printf("%-12s %5.1f %% (%d of %d)\n", scene_class_name(k), 100.0 * t->hit[k] / t->asked[k], t->hit[k],
                   t->asked[k]);
        }
    }
    if (asked == 0) {
        return complain("scenes.txt", "holds no scene");
    }
    printf("pointing game: %.1f %% (%d of %d)\n", 100.0 * hit / asked, hit, asked);
    return fflush(stdout) == 0 ? 0 : complain("standard output", "cannot be written");
}

/* ---- putting it together -------------------------------------------------------------- */

/* All scenes, once: drawn, perhaps put on the sheet, asked about. */
static int play(demo *d, FILE *file, tally *t)
{
    photo p;
    int number = 0, more;
    while ((more = scene_next(file, &d->wardrobe, &p.what)) == 1) {
        show(d, &p);
        if (draw_if_chosen(d, &p, number++) != 0 || play_scene(d, &p, t) != 0) {
            return -1;
        }
    }
    return more == 0 ? 0 : complain("scenes.txt", "malformed or unreadable");
}

static int play_file(demo *d, const char *path, tally *t)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return complain(path, "cannot be opened");
    }
    const int status = play(d, file, t);
    fclose(file);
    return status;
}

static int load(demo *d, const char *folder)
{
    char path[MAX_PATH];
    snprintf(path, sizeof path, "%s/garments.bin", folder);
    if (scene_wardrobe_load(path, &d->wardrobe) != 0) {
        return complain(path, "missing or malformed");
    }
    snprintf(path, sizeof path, "%s/garments.onnx", folder);
    return open_network(d, path);
}

static int write_page(const demo *d, const char *path)
{
    char why[256] = "";
    if (png_store_write(path, d->page.rgb, d->page.width, d->page.height, why, sizeof why) != 0) {
        return complain("sheet", why);
    }
    printf("wrote %s\n", path);
    return 0;
}

static int work(demo *d, const char *folder, const char *png)
{
    char path[MAX_PATH];
    tally t = {{0}, {0}};
    snprintf(path, sizeof path, "%s/scenes.txt", folder);
    if (load(d, folder) != 0 || start_page(d) != 0 || play_file(d, path, &t) != 0 || write_page(d, png) != 0) {
        return -1;
    }
    return print_tally(&t);
}

static void close_demo(demo *d)
{
    sheet_free(&d->page);
    scene_wardrobe_free(&d->wardrobe);
    gc_tensor_unref(d->small);
    gc_tensor_unref(d->large);
    gc_tensor_unref(d->image);
    gc_run_destroy(d->run);
    gc_net_unref(d->net);
    gc_ctx_unref(d->ctx);
}

int main(int argc, char **argv)
{
    demo d;
    memset(&d, 0, sizeof d);
    if (argc > 3) {
        fprintf(stderr, "usage: demo [folder [sheet.png]]\n");
        return EXIT_FAILURE;
    }
    const int status = work(&d, argc > 1 ? argv[1] : "docs/demo", argc > 2 ? argv[2] : "build/demo/scenes.png");
    close_demo(&d);
    return status == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
