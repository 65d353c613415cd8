/* SPDX-License-Identifier: MIT */
#include "sheet.h"

#include <stdlib.h>
#include <string.h>

int sheet_create(sheet *s, int width, int height)
{
    const size_t bytes = (size_t)width * (size_t)height * 3;
    s->width = width;
    s->height = height;
    s->rgb = malloc(bytes);
    if (s->rgb == NULL) {
        return -1;
    }
    memset(s->rgb, 255, bytes);
    return 0;
}

void sheet_free(sheet *s)
{
    free(s->rgb);
    s->rgb = NULL;
}

/* The dot at (x, y), or NULL outside. */
static unsigned char *dot(const sheet *s, int x, int y)
{
    const int inside = x >= 0 && x < s->width && y >= 0 && y < s->height;
    return inside ? s->rgb + 3 * ((size_t)y * (size_t)s->width + (size_t)x) : NULL;
}

static void fill(sheet *s, int x, int y, int w, int h, const unsigned char colour[3])
{
    for (int row = y; row < y + h; row++) {
        for (int col = x; col < x + w; col++) {
            unsigned char *p = dot(s, col, row);
            if (p != NULL) {
                memcpy(p, colour, 3);
            }
        }
    }
}

/* ---- text: 5 dots wide, 7 high and 2 below the line; bit 4 is the left dot --- */

typedef struct glyph {
    char c;
    unsigned char rows[SHEET_CHAR_H];
} glyph;

/* clang-format off */
static const glyph font[] = {
    {' ', {0}},
    {'0', {0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e}}, {'1', {0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e}},
    {'2', {0x0e, 0x11, 0x01, 0x06, 0x08, 0x10, 0x1f}}, {'3', {0x0e, 0x11, 0x01, 0x06, 0x01, 0x11, 0x0e}},
    {'4', {0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02}}, {'5', {0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e}},
    {'6', {0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e}}, {'7', {0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08}},
    {'8', {0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e}}, {'9', {0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c}},
    {'-', {0x00, 0x00, 0x00, 0x1f, 0x00, 0x00, 0x00}}, {'+', {0x00, 0x04, 0x04, 0x1f, 0x04, 0x04, 0x00}},
    {'.', {0x00, 0x00, 0x00, 0x00, 0x00, 0x0c, 0x0c}}, {'/', {0x01, 0x01, 0x02, 0x04, 0x08, 0x10, 0x10}},
    {'%', {0x18, 0x19, 0x02, 0x04, 0x08, 0x13, 0x03}}, {'=', {0x00, 0x00, 0x1f, 0x00, 0x1f, 0x00, 0x00}},
    {'A', {0x0e, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11}}, {'B', {0x1e, 0x11, 0x11, 0x1e, 0x11, 0x11, 0x1e}},
    {'C', {0x0e, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0e}}, {'D', {0x1e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x1e}},
    {'G', {0x0e, 0x11, 0x10, 0x17, 0x11, 0x11, 0x0f}}, {'M', {0x11, 0x1b, 0x15, 0x15, 0x11, 0x11, 0x11}},
    {'P', {0x1e, 0x11, 0x11, 0x1e, 0x10, 0x10, 0x10}}, {'S', {0x0f, 0x10, 0x10, 0x0e, 0x01, 0x01, 0x1e}},
    {'T', {0x1f, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04}}, {'a', {0x00, 0x00, 0x0e, 0x01, 0x0f, 0x11, 0x0f}},
    {'b', {0x10, 0x10, 0x1e, 0x11, 0x11, 0x11, 0x1e}}, {'c', {0x00, 0x00, 0x0e, 0x11, 0x10, 0x11, 0x0e}},
    {'d', {0x01, 0x01, 0x0f, 0x11, 0x11, 0x11, 0x0f}}, {'e', {0x00, 0x00, 0x0e, 0x11, 0x1f, 0x10, 0x0e}},
    {'f', {0x06, 0x08, 0x1c, 0x08, 0x08, 0x08, 0x08}}, {'h', {0x10, 0x10, 0x1e, 0x11, 0x11, 0x11, 0x11}},
    {'g', {0x00, 0x00, 0x0f, 0x11, 0x11, 0x11, 0x0f, 0x01, 0x0e}}, {'i', {0x04, 0x00, 0x0c, 0x04, 0x04, 0x04, 0x0e}},
    {'j', {0x02, 0x00, 0x06, 0x02, 0x02, 0x02, 0x02, 0x12, 0x0c}}, {'k', {0x10, 0x10, 0x12, 0x14, 0x18, 0x14, 0x12}},
    {'l', {0x0c, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0e}}, {'m', {0x00, 0x00, 0x1a, 0x15, 0x15, 0x15, 0x15}},
    {'n', {0x00, 0x00, 0x1e, 0x11, 0x11, 0x11, 0x11}}, {'o', {0x00, 0x00, 0x0e, 0x11, 0x11, 0x11, 0x0e}},
    {'p', {0x00, 0x00, 0x1e, 0x11, 0x11, 0x11, 0x1e, 0x10, 0x10}}, {'r', {0x00, 0x00, 0x16, 0x19, 0x10, 0x10, 0x10}},
    {'q', {0x00, 0x00, 0x0f, 0x11, 0x11, 0x11, 0x0f, 0x01, 0x01}}, {'s', {0x00, 0x00, 0x0f, 0x10, 0x0e, 0x01, 0x1e}},
    {'t', {0x08, 0x08, 0x1c, 0x08, 0x08, 0x09, 0x06}}, {'u', {0x00, 0x00, 0x11, 0x11, 0x11, 0x11, 0x0f}},
    {'v', {0x00, 0x00, 0x11, 0x11, 0x11, 0x0a, 0x04}}, {'w', {0x00, 0x00, 0x11, 0x11, 0x15, 0x15, 0x0a}},
    {'y', {0x00, 0x00, 0x11, 0x11, 0x11, 0x11, 0x0f, 0x01, 0x0e}}, {'x', {0x00, 0x00, 0x11, 0x0a, 0x04, 0x0a, 0x11}},
    {'z', {0x00, 0x00, 0x1f, 0x02, 0x04, 0x08, 0x1f}},
};
/* clang-format on */

/* The glyph of a character; an empty one if the font lacks it. */
static const glyph *find_glyph(char c)
{
    for (size_t k = 0; k < sizeof font / sizeof font[0]; k++) {
        if (font[k].c == c) {
            return &font[k];
        }
    }
    return &font[0];
}

void sheet_text(sheet *s, int x, int y, int zoom, const char *text)
{
    static const unsigned char ink[3] = {38, 38, 46};
    for (; *text != '\0'; text++, x += SHEET_CHAR_W * zoom) {
        const glyph *g = find_glyph(*text);
        for (int k = 0; k < SHEET_CHAR_H * 5; k++) {
            const int row = k / 5, col = k % 5;
            if (g->rows[row] >> (4 - col) & 1) {
                fill(s, x + col * zoom, y + row * zoom, zoom, zoom, ink);
            }
        }
    }
}

/* ---- pictures and marks --------------------------------------------------------- */

void sheet_picture(sheet *s, int x, int y, int w, int h, int zoom, const unsigned char *rgb)
{
    for (int k = 0; k < w * h; k++) {
        fill(s, x + k % w * zoom, y + k / w * zoom, zoom, zoom, rgb + 3 * k);
    }
}

static const unsigned char black[3] = {0, 0, 0}, white[3] = {255, 255, 255};

/* The outline of a rectangle, one dot wide. */
static void outline(sheet *s, int x0, int y0, int x1, int y1, const unsigned char colour[3])
{
    fill(s, x0, y0, x1 - x0, 1, colour);
    fill(s, x0, y1 - 1, x1 - x0, 1, colour);
    fill(s, x0, y0, 1, y1 - y0, colour);
    fill(s, x1 - 1, y0, 1, y1 - y0, colour);
}

void sheet_frame(sheet *s, int x0, int y0, int x1, int y1)
{
    outline(s, x0 - 2, y0 - 2, x1 + 2, y1 + 2, black);
    outline(s, x0 - 1, y0 - 1, x1 + 1, y1 + 1, white);
}

void sheet_cross(sheet *s, int x, int y)
{
    fill(s, x - 7, y - 2, 15, 5, black);
    fill(s, x - 2, y - 7, 5, 15, black);
    fill(s, x - 6, y - 1, 13, 3, white);
    fill(s, x - 1, y - 6, 3, 13, white);
}

/* ---- heat maps -------------------------------------------------------------------- */

enum { STOPS = 9 };

/* Colours at even steps of lightness, so that equal steps of the value look
   equal; the hue only helps.  Between the stops they are blended. */
static const unsigned char heat[STOPS][3] = {{22, 0, 71},    {64, 0, 100},   {113, 1, 112},
                                             {166, 0, 107},  {220, 1, 81},   {254, 72, 24},
                                             {255, 142, 41}, {255, 193, 87}, {253, 237, 142}};
/* Blue to white to red, equally light at equal distances from the middle. */
static const unsigned char signed_heat[STOPS][3] = {{0, 96, 166},    {46, 137, 219},  {123, 177, 234},
                                                    {185, 213, 242}, {238, 238, 238}, {240, 198, 190},
                                                    {229, 148, 135}, {208, 92, 76},   {176, 12, 1}};

/* The colour at t in 0..1; a value outside, or not a number, counts as 0 or 1. */
static void colour_at(const unsigned char stops[STOPS][3], float t, float colour[3])
{
    const float place = (t > 0 ? t < 1 ? t : 1 : 0) * (STOPS - 1);
    const int k = place < STOPS - 2 ? (int)place : STOPS - 2;
    for (int c = 0; c < 3; c++) {
        const float a = stops[k][c], b = stops[k + 1][c];
        colour[c] = a + (b - a) * (place - (float)k);
    }
}

/* Lets a colour shine through the picture: half of its hue goes, then the
   colour covers `cover` of it. */
static void tint(unsigned char *p, const float colour[3], float cover)
{
    const float grey = 0.30F * (float)p[0] + 0.59F * (float)p[1] + 0.11F * (float)p[2];
    for (int c = 0; c < 3; c++) {
        const float under = 0.5F * grey + 0.5F * (float)p[c];
        p[c] = (unsigned char)(under * (1 - cover) + colour[c] * cover + 0.5F);
    }
}

static void lay_over(sheet *s, int x, int y, int size, const float *map, int is_signed)
{
    for (int k = 0; k < size * size; k++) {
        unsigned char *p = dot(s, x + k % size, y + k / size);
        const float v = map[k], strength = v < 0 ? -v : v;
        float colour[3];
        if (p != NULL) {
            colour_at(is_signed ? signed_heat : heat, is_signed ? 0.5F + 0.5F * v : v, colour);
            tint(p, colour, is_signed ? 0.9F * (strength < 1 ? strength : 1) : 0.35F + 0.4F * strength);
        }
    }
}

void sheet_heat(sheet *s, int x, int y, int size, const float *map)
{
    lay_over(s, x, y, size, map, 0);
}

void sheet_signed_heat(sheet *s, int x, int y, int size, const float *map)
{
    lay_over(s, x, y, size, map, 1);
}
