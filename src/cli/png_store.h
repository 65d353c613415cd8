/* SPDX-License-Identifier: MIT */
/* A PNG writer without compression and without libpng. */
#ifndef GRADCAM_CLI_PNG_STORE_H
#define GRADCAM_CLI_PNG_STORE_H

#include <stddef.h>

/* Writes 8-bit RGB, top row first. Returns 0, or nonzero with the reason in
 * msg; see out_file.h for
 * one that could not be finished. */
int png_store_write(const char *path, const unsigned char *rgb, int width, int height, char *msg, size_t msg_size);

#endif
