/* SPDX-License-Identifier: MIT */
/*
 * The demo's pictures: garments of Fashion-MNIST, tinted and strewn over a
 * textured ground.  scenes.txt says what is in each picture, garments.bin
 * holds the garments; scene_render draws the same bytes as scenes.py, because
 * both use whole numbers only.  README.md gives the steps.
 *
 * No globals, no messages: every function that can fail returns -1 then.
 */
#ifndef GC_DEMO_SCENE_H
#define GC_DEMO_SCENE_H

#include <stdint.h>
#include <stdio.h>

enum {
    SCENE_SIZE = 112,                          /* width and height of a picture */
    SCENE_BYTES = SCENE_SIZE * SCENE_SIZE * 3, /* of a picture, RGB interleaved */
    SCENE_SIDE = 28,                           /* width and height of a garment */
    SCENE_CLASSES = 10,
    SCENE_MAX_SHAPES = 8,
    SCENE_MAX_ITEMS = 4,
    SCENE_MAX_LINE = 1024 /* characters of a line of scenes.txt */
};

/* The garments: labels[count], pixels[count][28][28], grey on black. */
typedef struct scene_wardrobe {
    uint32_t count;
    unsigned char *labels;
    unsigned char *pixels; /* begins in the same block of memory as labels */
} scene_wardrobe;

/* A patch of clutter: kind 0 is an ellipse, kind 1 a rectangle. */
typedef struct scene_shape {
    int kind, x, y, w, h;
    int colour[3];
    int opacity;
} scene_shape;

/* A garment: its number in the wardrobe, its square, mirrored or not, tint. */
typedef struct scene_item {
    int garment, x, y, size, flip;
    int tint[3];
} scene_item;

typedef struct scene {
    uint32_t seed;         /* of the generator behind the texture */
    int cells[4];          /* coarse lattice's cell w, h; fine lattice's w, h */
    int mix;               /* weight of the coarse lattice, 0..256 */
    int grain;             /* amplitude of the grain */
    int dark[3], light[3]; /* RGB where the texture is 0 and 255 */
    int n_shapes, n_items;
    scene_shape shapes[SCENE_MAX_SHAPES];
    scene_item items[SCENE_MAX_ITEMS];
} scene;

/* Where a garment is: x0 <= x < x1, y0 <= y < y1, and its class 0..9. */
typedef struct scene_box {
    int x0, y0, x1, y1;
    int label;
} scene_box;

/* "T-shirt/top" and so on; NULL for a number that is no class. */
const char *scene_class_name(int label);

/* Reads garments.bin.  0, or -1: no such file, malformed, or no memory. */
int scene_wardrobe_load(const char *path, scene_wardrobe *out);
void scene_wardrobe_free(scene_wardrobe *w);

/* Reads one scene from a line and checks every number.  0 or -1. */
int scene_parse(const char *line, const scene_wardrobe *w, scene *out);

/* The next scene of an open scenes.txt; comments are skipped.
   1: a scene, 0: the end, -1: a malformed line or a read error. */
int scene_next(FILE *file, const scene_wardrobe *w, scene *out);

/* Draws a scene that scene_parse made: rgb has SCENE_BYTES bytes, boxes one
   entry for each of s->n_items. */
void scene_render(const scene *s, const scene_wardrobe *w, unsigned char *rgb, scene_box *boxes);

#endif
