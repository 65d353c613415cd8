/* SPDX-License-Identifier: MIT */
/* The demo network on the scenes that lie as pictures in docs/demo/scenes: the
   pictures are what scene.c draws, every garment's map peaks in its box, and
   Grad-CAM is ReLU(CAM) / Z, as Selvaraju 2017 shows for such networks. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gradcam/gradcam.h"
#include "scene.h"

enum { PLANE = SCENE_SIZE * SCENE_SIZE };

typedef struct demo {
    int passed, failed;
    gc_ctx *ctx;
    gc_net *net;
    gc_run *run;
    gc_tensor *image; /* [1, 3, 112, 112] */
    gc_tensor *large; /* [1, 112, 112] */
    scene_wardrobe wardrobe;
    gc_error err;
    unsigned char rgb[SCENE_BYTES], kept[SCENE_BYTES];
} demo;

static void expect(demo *d, int ok, const char *what)
{
    if (ok) {
        d->passed++;
    } else {
        d->failed++;
        printf("FAILED: %s\n", what);
    }
}

static float *elements(const gc_tensor *t)
{
    gc_tensor_desc desc;
    memset(&desc, 0, sizeof desc);
    gc_tensor_describe(t, &desc);
    return desc.data;
}

static gc_status open_network(demo *d)
{
    gc_tensor_desc image, large;
    memset(&image, 0, sizeof image);
    memset(&large, 0, sizeof large);
    image.dtype = large.dtype = GRADCAM_F32;
    image.ndim = 4;
    large.ndim = 3;
    image.shape[0] = large.shape[0] = 1;
    image.shape[1] = 3;
    image.shape[2] = image.shape[3] = large.shape[1] = large.shape[2] = SCENE_SIZE;
    gc_status s = gc_ctx_create(NULL, &d->ctx, &d->err);
    s = s ? s : gc_net_load_file(d->ctx, "docs/demo/garments.onnx", NULL, &d->net, &d->err);
    s = s ? s : gc_run_create(d->net, &d->run, &d->err);
    s = s ? s : gc_tensor_create(d->ctx, &image, &d->image, &d->err);
    s = s ? s : gc_tensor_create(d->ctx, &large, &d->large, &d->err);
    return s ? s : gc_run_set_input(d->run, NULL, d->image, &d->err);
}

static void close_network(demo *d)
{
    scene_wardrobe_free(&d->wardrobe);
    gc_tensor_unref(d->large);
    gc_tensor_unref(d->image);
    gc_run_destroy(d->run);
    gc_net_unref(d->net);
    gc_ctx_unref(d->ctx);
}

static int same_picture(demo *d, int number)
{
    char path[64], header[16];
    static const char want[] = "P6\n112 112\n255\n";
    snprintf(path, sizeof path, "docs/demo/scenes/%03d.ppm", number);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return 0;
    }
    size_t got = fread(header, 1, strlen(want), file);
    got += fread(d->kept, 1, SCENE_BYTES, file);
    fclose(file);
    return got == strlen(want) + SCENE_BYTES && memcmp(header, want, strlen(want)) == 0 &&
           memcmp(d->kept, d->rgb, SCENE_BYTES) == 0;
}

/* Grad-CAM against CAM, both at the layer. */
static int proportional(const gc_tensor *gradcam, const gc_tensor *cam)
{
    gc_tensor_desc c;
    gc_tensor_describe(cam, &c);
    const int64_t positions = c.shape[1] * c.shape[2];
    const float *g = elements(gradcam), *m = c.data;
    for (int64_t i = 0; i < positions; i++) {
        const float want = m[i] > 0.0f ? m[i] / (float)positions : 0.0f;
        if (!(fabsf(g[i] - want) <= 1e-6f)) {
            return 0;
        }
    }
    return 1;
}

static int peak_in(const demo *d, const scene_box *box)
{
    const float *map = elements(d->large);
    int best = 0;
    for (int i = 1; i < PLANE; i++) {
        best = map[i] > map[best] ? i : best;
    }
    const int x = best % SCENE_SIZE, y = best / SCENE_SIZE;
    return x >= box->x0 && x < box->x1 && y >= box->y0 && y < box->y1;
}

static void ask(demo *d, const scene_box *box)
{
    gc_target target;
    gc_explain_options o;
    gc_tensor *cam = NULL, *gradcam = NULL;
    memset(&target, 0, sizeof target);
    memset(&o, 0, sizeof o);
    target.kind = GRADCAM_TARGET_CLASS;
    target.index = box->label;
    o.target = &target;
    gc_status s = gc_cam(d->run, &o, &cam, &d->err);
    s = s ? s : gc_gradcam(d->run, &o, &gradcam, &d->err);
    s = s ? s : gc_map_resize(gradcam, GRADCAM_RESIZE_BILINEAR, d->large, &d->err);
    expect(d, s == GRADCAM_OK, d->err.message);
    expect(d, s == GRADCAM_OK && proportional(gradcam, cam), "Grad-CAM is ReLU(CAM) / Z");
    expect(d, s == GRADCAM_OK && peak_in(d, box), "the peak lies on the garment");
    gc_tensor_unref(cam);
    gc_tensor_unref(gradcam);
}

static void look_at(demo *d, const scene *what, int number)
{
    scene_box boxes[SCENE_MAX_ITEMS];
    scene_render(what, &d->wardrobe, d->rgb, boxes);
    expect(d, same_picture(d, number), "the picture in docs/demo/scenes");
    float *image = elements(d->image);
    for (int i = 0; i < SCENE_BYTES; i++) {
        image[i % 3 * PLANE + i / 3] = (float)d->rgb[i] / 255.0f;
    }
    for (int i = 0; i < what->n_items; i++) {
        ask(d, &boxes[i]);
    }
}

int main(void)
{
    static demo d;
    static const int shown[] = {1, 2, 3, 5};
    const int n_shown = (int)(sizeof shown / sizeof *shown);
    scene what;
    int number = 0, next = 0;
    FILE *file = fopen("docs/demo/scenes.txt", "r");
    expect(&d, file != NULL && scene_wardrobe_load("docs/demo/garments.bin", &d.wardrobe) == 0, "the demo's files");
    expect(&d, open_network(&d) == GRADCAM_OK, d.err.message);
    while (d.failed == 0 && next < n_shown && scene_next(file, &d.wardrobe, &what) == 1) {
        if (number++ == shown[next]) {
            look_at(&d, &what, shown[next++]);
        }
    }
    expect(&d, next == n_shown, "all scenes were seen");
    if (file != NULL) {
        fclose(file);
    }
    close_network(&d);
    printf("%d passed, %d failed, 0 skipped\n", d.passed, d.failed);
    return d.failed != 0;
}
