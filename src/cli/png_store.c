/* SPDX-License-Identifier: MIT */
#include "png_store.h"

#include "out_file.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define BLOCK_MAX 65535u

typedef struct writer {
    FILE *f;
    uint32_t crc;          /* of the chunk being written */
    uint32_t sum_a, sum_b; /* Adler-32 of the raw rows so far */
} writer;

static uint32_t crc_add(uint32_t crc, const unsigned char *p, size_t n)
{
    static const uint32_t nibble[16] = {0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u,
                                        0x4db26158u, 0x5005713cu, 0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu,
                                        0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
    while (n--) {
        crc ^= *p++;
        crc = (crc >> 4) ^ nibble[crc & 15u];
        crc = (crc >> 4) ^ nibble[crc & 15u];
    }
    return crc;
}

static void adler_add(writer *w, const unsigned char *p, size_t n)
{
    while (n--) {
        w->sum_a = (w->sum_a + *p++) % 65521u;
        w->sum_b = (w->sum_b + w->sum_a) % 65521u;
    }
}

static void put(writer *w, const unsigned char *p, size_t n)
{
    w->crc = crc_add(w->crc, p, n);
    fwrite(p, 1, n, w->f); /* errors stay in ferror, looked at once at the end */
}

static void put32(writer *w, uint32_t v)
{
    unsigned char b[4];
    b[0] = (unsigned char)(v >> 24);
    b[1] = (unsigned char)(v >> 16 & 255u);
    b[2] = (unsigned char)(v >> 8 & 255u);
    b[3] = (unsigned char)(v & 255u);
    put(w, b, 4);
}

static void chunk_begin(writer *w, const char *type, uint32_t size)
{
    put32(w, size);
    w->crc = 0xffffffffu;
    put(w, (const unsigned char *)type, 4);
}

static void chunk_end(writer *w)
{
    put32(w, w->crc ^ 0xffffffffu);
}

static void put_header(writer *w, int width, int height)
{
    static const unsigned char magic[8] = {137, 80, 78, 71, 13, 10, 26, 10};
    static const unsigned char rgb8[5] = {8, 2, 0, 0, 0};
    static const unsigned char zlib[2] = {0x78, 0x01};
    put(w, magic, 8);
    chunk_begin(w, "IHDR", 13);
    put32(w, (uint32_t)width);
    put32(w, (uint32_t)height);
    put(w, rgb8, 5);
    chunk_end(w);
    chunk_begin(w, "IDAT", 2);
    put(w, zlib, 2);
    chunk_end(w);
}

/* One stored block in an IDAT chunk of its own; `lead` counts filter bytes. */
static void put_block(writer *w, const unsigned char *p, uint32_t n, uint32_t lead)
{
    static const unsigned char no_filter = 0;
    uint32_t len = n + lead;
    unsigned char head[5];
    head[0] = 0;
    head[1] = (unsigned char)(len & 255u);
    head[2] = (unsigned char)(len >> 8);
    head[3] = (unsigned char)(head[1] ^ 255u);
    head[4] = (unsigned char)(head[2] ^ 255u);
    chunk_begin(w, "IDAT", 5 + len);
    put(w, head, 5);
    put(w, &no_filter, lead);
    put(w, p, n);
    chunk_end(w);
    adler_add(w, &no_filter, lead);
    adler_add(w, p, n);
}

static void put_row(writer *w, const unsigned char *row, uint32_t size)
{
    uint32_t lead = 1;
    while (size > 0) {
        uint32_t room = BLOCK_MAX - lead, n = size < room ? size : room;
        put_block(w, row, n, lead);
        row += n;
        size -= n;
        lead = 0;
    }
}

static void put_trailer(writer *w)
{
    static const unsigned char last[5] = {1, 0, 0, 255, 255};
    chunk_begin(w, "IDAT", 9);
    put(w, last, 5);
    put32(w, w->sum_b << 16 | w->sum_a);
    chunk_end(w);
    chunk_begin(w, "IEND", 0);
    chunk_end(w);
}

static int fail(char *msg, size_t msg_size, const char *path, const char *text)
{
    if (msg && msg_size)
        snprintf(msg, msg_size, "%s: the picture cannot be written: %s", path, text);
    return 1;
}

int png_store_write(const char *path, const unsigned char *rgb, int width, int height, char *msg, size_t msg_size)
{
    writer w = {NULL, 0, 1, 0};
    cli_out out;
    int y;
    if (!rgb || width < 1 || height < 1 || width > 32768 || height > 32768)
        return fail(msg, msg_size, path, "image sides must be 1 to 32768 pixels");
    if (cli_out_open(&out, path))
        return fail(msg, msg_size, path, strerror(errno));
    w.f = out.f;
    put_header(&w, width, height);
    for (y = 0; y < height; y++)
        put_row(&w, rgb + (size_t)y * (size_t)width * 3, (uint32_t)width * 3u);
    put_trailer(&w);
    if (!cli_out_close(&out, 0))
        return 0;
    return fail(msg, msg_size, path, "is the disk full?");
}
