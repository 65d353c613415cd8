/* SPDX-License-Identifier: MIT */
/* Captions in a 5x7 bitmap font: one cell is 6 wide, 7 tall, times scale. */
#ifndef GRADCAM_CLI_FONT_H
#define GRADCAM_CLI_FONT_H

#define FONT_HEIGHT 7

/* Draws one line with its top left corner at (x, y), clipped to the picture.
 * Characters outside ASCII 32..126 appear as '?'. */
void font_draw(unsigned char *rgb, int width, int height, int x, int y, int scale, const unsigned char color[3],
               const char *text);

/* Width in pixels, without a gap after the last character. */
int font_width(const char *text, int scale);

#endif
