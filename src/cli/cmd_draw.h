/* SPDX-License-Identifier: MIT */
/* Maps into pictures. */
#ifndef GRADCAM_CLI_CMD_DRAW_H
#define GRADCAM_CLI_CMD_DRAW_H

#include "image.h"

struct cli_panel {
    cli_image image;
    const char *title;
};

/* The CLI_* of colormap.h; NULL: turbo; -1 for an unknown name. */
int cli_colormap_find(const char *name);

/* Each makes `out` and returns CLI_OK, or prints a message. */
int cli_image_new(cli_image *out, int w, int h);
/* map: one value in 0..1 for each pixel of the photo. */
int cli_draw_overlay(const cli_image *photo, const float *map, int colors, cli_image *out);
/* Planes of a gradient (1 or 3), grey where it is zero. */
int cli_draw_gradient(const float *g, int channels, int w, int h, int bgr, cli_image *out);
/* Panels of one size side by side, under their titles. */
int cli_draw_sheet(const struct cli_panel *panels, int count, cli_image *out);

#endif
