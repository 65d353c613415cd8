/* SPDX-License-Identifier: MIT */
#include "cmd_draw.h"
#include "cmd_opts.h"
#include "colormap.h"
#include "font.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int cli_colormap_find(const char *name)
{
    if (!name || strcmp(name, "turbo") == 0)
        return CLI_TURBO;
    if (strcmp(name, "viridis") == 0)
        return CLI_VIRIDIS;
    return strcmp(name, "jet") == 0 ? CLI_JET : -1;
}

int cli_image_new(cli_image *out, int w, int h)
{
    out->width = w;
    out->height = h;
    out->rgb = calloc((size_t)w * (size_t)h, 3);
    return out->rgb ? CLI_OK : cli_fail_memory();
}

static unsigned char to_byte(double v)
{
    return (unsigned char)(v <= 0 ? 0 : v >= 1 ? 255 : v * 255 + 0.5);
}

int cli_draw_overlay(const cli_image *photo, const float *map, int colors, cli_image *out)
{
    size_t n = (size_t)photo->width * (size_t)photo->height;
    int rc = cli_image_new(out, photo->width, photo->height);
    for (size_t i = 0; !rc && i < n; i++) {
        unsigned char rgb[3];
        colormap_lookup(colors, map[i], rgb);
        for (size_t c = 0; c < 3; c++)
            out->rgb[3 * i + c] = (unsigned char)((rgb[c] + photo->rgb[3 * i + c] + 1) / 2);
    }
    return rc;
}

/* Standard deviation of the finite elements around zero. */
static double spread(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        if (isfinite(x[i]))
            sum += (double)x[i] * (double)x[i];
    return sqrt(sum / (double)n);
}

int cli_draw_gradient(const float *g, int channels, int w, int h, int bgr, cli_image *out)
{
    size_t plane = (size_t)w * (size_t)h;
    double scale = spread(g, plane * (size_t)channels);
    int rc = cli_image_new(out, w, h);
    scale = scale > 0 ? 0.15 / scale : 0;
    for (size_t i = 0; !rc && i < plane; i++)
        for (size_t c = 0; c < 3; c++) {
            size_t from = channels == 1 ? 0 : bgr ? 2 - c : c;
            float v = g[from * plane + i];
            out->rgb[3 * i + c] = to_byte(0.5 + (isfinite(v) ? (double)v : 0) * scale);
        }
    return rc;
}

/* The largest scale at which the title is no wider than the panel; 0: none. */
static int title_scale(const char *title, int w)
{
    return font_width(title, 2) <= w ? 2 : font_width(title, 1) <= w ? 1 : 0;
}

int cli_draw_sheet(const struct cli_panel *panels, int count, cli_image *out)
{
    enum { GAP = 4, BAND = 2 * FONT_HEIGHT + 8 };
    static const unsigned char black[3] = {0, 0, 0};
    int w = panels[0].image.width, h = panels[0].image.height;
    int rc = cli_image_new(out, count * (w + GAP) - GAP, h + BAND);
    if (rc)
        return rc;
    memset(out->rgb, 255, (size_t)out->width * (size_t)out->height * 3);
    for (int k = 0; k < count; k++) {
        int x = k * (w + GAP), scale = title_scale(panels[k].title, w);
        if (scale)
            font_draw(out->rgb, out->width, out->height, x + (w - font_width(panels[k].title, scale)) / 2,
                      (BAND - scale * FONT_HEIGHT) / 2, scale, black, panels[k].title);
        for (int y = 0; y < h; y++)
            memcpy(out->rgb + ((size_t)(y + BAND) * (size_t)out->width + (size_t)x) * 3,
                   panels[k].image.rgb + (size_t)y * (size_t)w * 3, (size_t)w * 3);
    }
    return CLI_OK;
}
