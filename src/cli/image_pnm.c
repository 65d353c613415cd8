/* SPDX-License-Identifier: MIT */
/* PNM and BMP: read without a library. */
#include "image_load.h"

#include <stdint.h>
#include <string.h>

/* ---- PNM ---- */

static int is_space(int c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void pnm_skip(img_bytes *b)
{
    while (b->pos < b->size) {
        if (b->data[b->pos] == '#') {
            while (b->pos < b->size && b->data[b->pos] != '\n')
                b->pos++;
        } else if (is_space(b->data[b->pos])) {
            b->pos++;
        } else {
            return;
        }
    }
}

/* Next decimal number, at most 999999; -1 where there is none. */
static long pnm_number(img_bytes *b)
{
    long v = 0;
    int digits = 0;
    pnm_skip(b);
    while (b->pos < b->size && b->data[b->pos] >= '0' && b->data[b->pos] <= '9') {
        v = v * 10 + (b->data[b->pos++] - '0');
        if (++digits > 6)
            return -1;
    }
    return digits ? v : -1;
}

static unsigned char pnm_scale(long v, long maxval)
{
    if (v > maxval)
        v = maxval;
    return (unsigned char)((v * 255 + maxval / 2) / maxval);
}

static int pnm_binary(img_bytes *b, cli_image *im, size_t channels, long maxval, img_sink s)
{
    size_t pixels = (size_t)im->width * (size_t)im->height, i, c;
    const unsigned char *p;
    if (b->pos >= b->size || !is_space(b->data[b->pos]))
        return img_fail(s, "PNM header is not followed by a blank");
    b->pos++;
    if ((b->size - b->pos) / channels < pixels)
        return img_fail(s, "PNM file is truncated: pixels are missing");
    p = b->data + b->pos;
    for (i = 0; i < pixels; i++)
        for (c = 0; c < 3; c++)
            im->rgb[i * 3 + c] = pnm_scale(p[i * channels + c % channels], maxval);
    return 0;
}

static int pnm_text(img_bytes *b, cli_image *im, size_t channels, long maxval, img_sink s)
{
    size_t n = (size_t)im->width * (size_t)im->height * channels, i;
    for (i = 0; i < n; i++) {
        long v = pnm_number(b);
        if (v < 0 || v > maxval)
            return img_fail(s, "PNM text pixels are missing or out of range");
        if (channels == 3)
            im->rgb[i] = pnm_scale(v, maxval);
        else
            memset(im->rgb + i * 3, pnm_scale(v, maxval), 3);
    }
    return 0;
}

int img_load_pnm(img_bytes *b, cli_image *out, img_sink s)
{
    int kind = b->data[1];
    size_t channels = (kind == '3' || kind == '6') ? 3 : 1;
    long w, h, maxval;
    b->pos = 2;
    w = pnm_number(b);
    h = pnm_number(b);
    maxval = pnm_number(b);
    if (w < 0 || h < 0 || maxval < 0)
        return img_fail(s, "PNM header is broken or truncated");
    if (maxval < 1 || maxval > 255)
        return img_fail(s, "PNM maxval must be 1 to 255; convert to 8 bits per sample");
    /* A text sample takes a byte or more: refuse before allocating. */
    if (b->size - b->pos < (size_t)h || b->size - b->pos < (size_t)w)
        return img_fail(s, "PNM file is truncated: pixels are missing");
    if (img_new(out, w, h, s))
        return 1;
    if (kind >= '5')
        return pnm_binary(b, out, channels, maxval, s);
    return pnm_text(b, out, channels, maxval, s);
}

/* ---- BMP ---- */

static uint32_t le32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static int64_t signed32(uint32_t v)
{
    return v > INT32_MAX ? (int64_t)v - ((int64_t)1 << 32) : (int64_t)v;
}

/* Plain BGR(X), or bit fields that say the same thing. */
static int bmp_layout_ok(const img_bytes *b, unsigned bits)
{
    uint32_t compression = le32(b->data + 30);
    if (b->data[29] != 0 || (bits != 24 && bits != 32))
        return 0;
    if (compression == 0)
        return 1;
    return compression == 3 && bits == 32 && b->size >= 66 && le32(b->data + 54) == 0xff0000u &&
           le32(b->data + 58) == 0xff00u && le32(b->data + 62) == 0xffu;
}

static void bmp_row(unsigned char *dst, const unsigned char *src, size_t width, size_t step)
{
    size_t x;
    for (x = 0; x < width; x++, src += step, dst += 3) {
        dst[0] = src[2];
        dst[1] = src[1];
        dst[2] = src[0];
    }
}

static int bmp_pixels(const img_bytes *b, cli_image *im, int top_down, img_sink s)
{
    size_t step = b->data[28] / 8u, h = (size_t)im->height, y;
    size_t stride = ((size_t)im->width * step + 3) / 4 * 4;
    size_t offset = le32(b->data + 10);
    if (offset < 54 || offset > b->size || (b->size - offset) / stride < h)
        return img_fail(s, "BMP file is truncated: pixels are missing");
    for (y = 0; y < h; y++) {
        size_t row = top_down ? y : h - 1 - y;
        bmp_row(im->rgb + y * img_row_bytes(im), b->data + offset + row * stride, (size_t)im->width, step);
    }
    return 0;
}

int img_load_bmp(img_bytes *b, cli_image *out, img_sink s)
{
    int64_t w, h;
    if (b->size < 54 || le32(b->data + 14) < 40)
        return img_fail(s, "BMP header is truncated or of a very old kind");
    if (!bmp_layout_ok(b, b->data[28]))
        return img_fail(s, "only uncompressed 24 or 32 bit BMP is read; convert the file");
    w = signed32(le32(b->data + 18));
    h = signed32(le32(b->data + 22));
    if (w < 1 || w > IMG_MAX_SIDE || h == 0 || h < -IMG_MAX_SIDE || h > IMG_MAX_SIDE)
        return img_fail(s, "image sides must be 1 to 32768 pixels");
    if (img_new(out, (long)w, (long)(h < 0 ? -h : h), s))
        return 1;
    return bmp_pixels(b, out, h < 0, s);
}
