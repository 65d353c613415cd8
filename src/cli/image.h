/* SPDX-License-Identifier: MIT */
/* Loading, resizing and cropping of 8-bit RGB pictures for the command line. */
#ifndef GRADCAM_CLI_IMAGE_H
#define GRADCAM_CLI_IMAGE_H

#include <stddef.h>

/* RGB interleaved, top row first, no padding between rows. */
typedef struct cli_image {
    int width, height;
    unsigned char *rgb;
} cli_image;

/* Each function returns 0 on success. On failure it returns nonzero, leaves
 * the output empty and writes the reason to msg. */

/* Detects PNM (P2 P3 P5 P6), BMP, PNG and JPEG by content. Alpha is dropped,
 * 16-bit PNG samples keep their high byte, EXIF rotation is not applied. */
int cli_image_load(const char *path, cli_image *out, char *msg, size_t msg_size);

void cli_image_free(cli_image *image);

/* Half-pixel bilinear; a wider triangle filter (antialiasing) when shrinking. */
int cli_image_resize(const cli_image *src, int w, int h, cli_image *dst, char *msg, size_t msg_size);

int cli_image_crop(const cli_image *src, int x, int y, int w, int h, cli_image *dst, char *msg, size_t msg_size);

#endif
