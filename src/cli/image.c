/* SPDX-License-Identifier: MIT */
/* Pictures: memory, reading a file, which format it is. */
#include "image_load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int img_fail(img_sink s, const char *text)
{
    if (s.msg && s.size)
        snprintf(s.msg, s.size, "%s", text);
    return 1;
}

int img_fail2(img_sink s, const char *text, const char *detail)
{
    if (s.msg && s.size)
        snprintf(s.msg, s.size, "%s: %s", detail, text);
    return 1;
}

img_sink img_sink_of(char *msg, size_t msg_size)
{
    img_sink s;
    s.msg = msg;
    s.size = msg_size;
    return s;
}

void cli_image_free(cli_image *image)
{
    if (!image)
        return;
    free(image->rgb);
    image->rgb = NULL;
    image->width = image->height = 0;
}

int img_new(cli_image *out, long w, long h, img_sink s)
{
    size_t pixels;
    if (w < 1 || h < 1 || w > IMG_MAX_SIDE || h > IMG_MAX_SIDE)
        return img_fail(s, "image sides must be 1 to 32768 pixels");
    pixels = (size_t)w * (size_t)h; /* at most 2^30 */
    if (pixels > IMG_MAX_BYTES / 3)
        return img_fail(s, "image needs more than 512 MB; make it smaller");
    out->rgb = (unsigned char *)calloc(pixels, 3);
    if (!out->rgb)
        return img_fail(s, "out of memory for the image");
    out->width = (int)w;
    out->height = (int)h;
    return 0;
}

size_t img_row_bytes(const cli_image *im)
{
    return (size_t)im->width * 3;
}

/* ---- reading the file ---- */

static int file_size(FILE *f, size_t *size)
{
    long n;
    if (fseek(f, 0, SEEK_END) != 0)
        return 1;
    n = ftell(f);
    if (n < 0 || fseek(f, 0, SEEK_SET) != 0)
        return 1;
    *size = (size_t)n;
    return 0;
}

static int read_open(FILE *f, img_bytes *b, img_sink s)
{
    if (fgetc(f) == EOF && ferror(f)) /* a folder opens, too */
        return img_fail2(s, strerror(errno), "cannot read an image from it");
    if (file_size(f, &b->size))
        return img_fail(s, "cannot tell the file's size (is it a regular file?)");
    if (b->size == 0)
        return img_fail(s, "the file is empty");
    if (b->size > IMG_MAX_BYTES)
        return img_fail(s, "the file is larger than 512 MB");
    b->data = (unsigned char *)malloc(b->size);
    if (!b->data)
        return img_fail(s, "out of memory reading the file");
    if (fread(b->data, 1, b->size, f) != b->size)
        return img_fail(s, "the file could not be read to its end");
    return 0;
}

static int read_file(const char *path, img_bytes *b, img_sink s)
{
    int rc;
    FILE *f = fopen(path, "rb");
    if (!f)
        return img_fail2(s, strerror(errno), "cannot open the image");
    rc = read_open(f, b, s);
    fclose(f);
    return rc;
}

/* ---- detection ---- */

static int has_magic(const img_bytes *b, const char *magic, size_t n)
{
    return b->size >= n && memcmp(b->data, magic, n) == 0;
}

static int load_bytes(img_bytes *b, cli_image *out, img_sink s)
{
    if (has_magic(b, "P2", 2) || has_magic(b, "P3", 2) || has_magic(b, "P5", 2) || has_magic(b, "P6", 2))
        return img_load_pnm(b, out, s);
    if (has_magic(b, "BM", 2))
        return img_load_bmp(b, out, s);
    if (has_magic(b, "\x89PNG\r\n\x1a\n", 8))
        return img_load_png(b, out, s);
    if (has_magic(b, "\xff\xd8\xff", 3))
        return img_load_jpeg(b, out, s);
    return img_fail(s, "not a PNM (P2 P3 P5 P6), BMP, PNG or JPEG file; convert it to "
                       "one of these");
}

int cli_image_load(const char *path, cli_image *out, char *msg, size_t msg_size)
{
    char why[320] = "";
    img_bytes b = {NULL, 0, 0};
    int rc;
    memset(out, 0, sizeof *out);
    rc = read_file(path, &b, img_sink_of(why, sizeof why));
    if (!rc)
        rc = load_bytes(&b, out, img_sink_of(why, sizeof why));
    free(b.data);
    if (rc) {
        cli_image_free(out);
        img_fail2(img_sink_of(msg, msg_size), why, path);
    }
    return rc;
}
