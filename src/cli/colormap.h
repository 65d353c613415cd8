/* SPDX-License-Identifier: MIT */
#ifndef GRADCAM_CLI_COLORMAP_H
#define GRADCAM_CLI_COLORMAP_H

enum { CLI_VIRIDIS = 0, CLI_TURBO = 1, CLI_JET = 2 };

/* Colour for t in 0..1 (clamped). NaN gives grey; an unknown map, viridis. */
void colormap_lookup(int which, float t, unsigned char rgb[3]);

#endif
