/* SPDX-License-Identifier: MIT */
/* What the picture readers share: messages, memory, bounds. */
#ifndef GRADCAM_CLI_IMAGE_LOAD_H
#define GRADCAM_CLI_IMAGE_LOAD_H

#include "image.h"

#define IMG_MAX_SIDE 32768
#define IMG_MAX_BYTES ((size_t)512 * 1024 * 1024)

/* Where a message goes, passed around as one argument. */
typedef struct img_sink {
    char *msg;
    size_t size;
} img_sink;

/* A whole file in memory and a read position in it. */
typedef struct img_bytes {
    unsigned char *data;
    size_t size, pos;
} img_bytes;

img_sink img_sink_of(char *msg, size_t msg_size);
/* Both return 1; the second writes "detail: text". */
int img_fail(img_sink s, const char *text);
int img_fail2(img_sink s, const char *text, const char *detail);

/* A black picture; refuses sides and sizes beyond the bounds above. */
int img_new(cli_image *out, long w, long h, img_sink s);
size_t img_row_bytes(const cli_image *im);

/* One reader for each format; the magic bytes are checked already. */
int img_load_pnm(img_bytes *b, cli_image *out, img_sink s);
int img_load_bmp(img_bytes *b, cli_image *out, img_sink s);
int img_load_png(img_bytes *b, cli_image *out, img_sink s);
int img_load_jpeg(img_bytes *b, cli_image *out, img_sink s);

#endif
