/* SPDX-License-Identifier: MIT */
/* Drawing for the demo: a page of 8-bit RGB, text, tiles, colour maps. */
#ifndef GC_DEMO_SHEET_H
#define GC_DEMO_SHEET_H

enum {
    SHEET_CHAR_W = 6, /* a character with the gap beside it, at zoom 1 */
    SHEET_CHAR_H = 9  /* with the part below the line */
};

/* Rows from the top, RGB interleaved.  Whatever falls outside is cut off. */
typedef struct sheet {
    int width, height;
    unsigned char *rgb;
} sheet;

/* A white page.  0, or -1: no memory. */
int sheet_create(sheet *s, int width, int height);
void sheet_free(sheet *s);

/* Text in dark grey, left upper corner at (x, y), each dot zoom x zoom. */
void sheet_text(sheet *s, int x, int y, int zoom, const char *text);

/* A picture of w x h pixels, each zoom x zoom dots. */
void sheet_picture(sheet *s, int x, int y, int w, int h, int zoom, const unsigned char *rgb);

/* The outline of the rectangle x0 <= x < x1, y0 <= y < y1, white on black. */
void sheet_frame(sheet *s, int x0, int y0, int x1, int y1);

/* A small cross, white on black, centred at (x, y). */
void sheet_cross(sheet *s, int x, int y);

/* Lays a size x size map over the square at (x, y); values in -1..1.  From 0
   to 1 the colours run from dark violet to light yellow. */
void sheet_heat(sheet *s, int x, int y, int size, const float *map);
/* The same with two ends: blue below zero, red above. */
void sheet_signed_heat(sheet *s, int x, int y, int size, const float *map);

#endif
