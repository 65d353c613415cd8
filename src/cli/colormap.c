/* SPDX-License-Identifier: MIT */
#include "colormap.h"

/* Evenly spaced control points, joined by straight lines: least-squares fits
 * of our own, within 4 of 255 levels of the published maps. */
static const unsigned char viridis[][3] = {
    {68, 1, 84},    {72, 24, 107},  {71, 45, 124},  {66, 64, 134},  {59, 82, 139},  {51, 99, 142},
    {44, 114, 142}, {38, 129, 142}, {32, 144, 141}, {30, 159, 137}, {38, 174, 129}, {61, 188, 116},
    {92, 201, 99},  {129, 212, 77}, {171, 220, 50}, {213, 226, 23}, {254, 231, 33}};

static const unsigned char turbo[][3] = {{49, 18, 60},   {60, 49, 133},  {68, 79, 189},  {71, 107, 228}, {71, 134, 252},
                                         {60, 161, 255}, {41, 187, 237}, {25, 211, 209}, {24, 229, 183}, {48, 242, 154},
                                         {86, 251, 117}, {129, 255, 83}, {163, 253, 59}, {191, 244, 51}, {217, 229, 53},
                                         {238, 209, 58}, {251, 187, 57}, {255, 160, 47}, {252, 128, 34}, {243, 96, 20},
                                         {229, 69, 10},  {210, 48, 5},   {186, 30, 2},   {157, 15, 1},   {123, 4, 3}};

/* Jet is made of straight lines to begin with. */
static const unsigned char jet[][3] = {{0, 0, 128},   {0, 0, 255},   {0, 128, 255}, {0, 255, 255}, {128, 255, 128},
                                       {255, 255, 0}, {255, 128, 0}, {255, 0, 0},   {128, 0, 0}};

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

static void interpolate(const unsigned char (*points)[3], int count, float t, unsigned char rgb[3])
{
    float at = t * (float)(count - 1);
    int i = (int)at, c;
    if (i > count - 2)
        i = count - 2;
    at -= (float)i;
    for (c = 0; c < 3; c++) {
        float a = points[i][c], b = points[i + 1][c];
        rgb[c] = (unsigned char)(a + (b - a) * at + 0.5f);
    }
}

void colormap_lookup(int which, float t, unsigned char rgb[3])
{
    if (t != t) {
        rgb[0] = rgb[1] = rgb[2] = 128;
        return;
    }
    t = t < 0.0f ? 0.0f : t > 1.0f ? 1.0f : t;
    if (which == CLI_TURBO)
        interpolate(turbo, COUNT(turbo), t, rgb);
    else if (which == CLI_JET)
        interpolate(jet, COUNT(jet), t, rgb);
    else
        interpolate(viridis, COUNT(viridis), t, rgb);
}
