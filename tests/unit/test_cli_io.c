/* SPDX-License-Identifier: MIT */
/* Round trips and damaged files of the command line's readers and writers.
 * Usage: test_cli_io DIRECTORY-FOR-TEMPORARY-FILES */
#include "../../src/cli/colormap.h"
#include "../../src/cli/font.h"
#include "../../src/cli/image.h"
#include "../../src/cli/npy.h"
#include "../../src/cli/png_store.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct tally {
    int passed, failed;
    char path[1024];
    char msg[512];
} tally;

static void check(tally *t, int ok, const char *what)
{
    if (ok) {
        t->passed++;
        return;
    }
    t->failed++;
    printf("FAIL: %s (last message: %s)\n", what, t->msg);
}

static int spill(const tally *t, const void *data, size_t n)
{
    FILE *f = fopen(t->path, "wb");
    size_t put;
    if (!f)
        return 1;
    put = n ? fwrite(data, 1, n, f) : 0;
    return fclose(f) != 0 || put != n;
}

static size_t slurp(const tally *t, unsigned char *buf, size_t room)
{
    FILE *f = fopen(t->path, "rb");
    size_t n;
    if (!f)
        return 0;
    n = fread(buf, 1, room, f);
    fclose(f);
    return n;
}

/* Loads `data` as a picture; 1 if it gives exactly the w*h*3 bytes of `want`. */
static int image_is(tally *t, const void *data, size_t n, int w, int h, const unsigned char *want)
{
    cli_image im;
    int same;
    if (spill(t, data, n) || cli_image_load(t->path, &im, t->msg, sizeof t->msg))
        return 0;
    same = im.width == w && im.height == h && memcmp(im.rgb, want, (size_t)w * (size_t)h * 3) == 0;
    cli_image_free(&im);
    return same;
}

static int image_refused(tally *t, const void *data, size_t n)
{
    cli_image im;
    int rc;
    t->msg[0] = '\0';
    if (spill(t, data, n))
        return 0;
    rc = cli_image_load(t->path, &im, t->msg, sizeof t->msg);
    if (rc == 0)
        cli_image_free(&im);
    return rc != 0 && t->msg[0] != '\0' && im.rgb == NULL;
}

static int npy_refused(tally *t, const void *data, size_t n)
{
    cli_npy a;
    int rc;
    t->msg[0] = '\0';
    if (spill(t, data, n))
        return 0;
    rc = cli_npy_load(t->path, &a, t->msg, sizeof t->msg);
    if (rc == 0)
        cli_npy_free(&a);
    return rc != 0 && t->msg[0] != '\0' && a.data == NULL;
}

static int prefixes_refused(tally *t, const unsigned char *data, size_t n,
                            int (*refused)(tally *, const void *, size_t))
{
    size_t k;
    for (k = 0; k < n; k++)
        if (!refused(t, data, k))
            return 0;
    return 1;
}

static void test_pnm(tally *t)
{
    static const char p6[] = "P6 # note\n2 2\n255\nABCDEFGHIJKL";
    static const char p5[] = "P5 2 1 15\n\x0f\x00";
    static const char p3[] = "P3\n1 2\n255\n1 2 3\n# x\n40 50 60\n";
    static const char p2[] = "P2 2 1 1 1 0";
    static const unsigned char two[] = {255, 255, 255, 0, 0, 0};
    static const unsigned char six[] = {1, 2, 3, 40, 50, 60};
    const unsigned char *bytes = (const unsigned char *)p6;
    check(t, image_is(t, p6, sizeof p6 - 1, 2, 2, (const unsigned char *)"ABCDEFGHIJKL"), "P6");
    check(t, image_is(t, p5, sizeof p5 - 1, 2, 1, two), "P5");
    check(t, image_is(t, p3, sizeof p3 - 1, 1, 2, six), "P3");
    check(t, image_is(t, p2, sizeof p2 - 1, 2, 1, two), "P2");
    check(t, prefixes_refused(t, bytes, sizeof p6 - 1, image_refused), "P6 prefixes");
    check(t, prefixes_refused(t, (const unsigned char *)p3, sizeof p3 - 3, image_refused), "P3 prefixes");
}

static void test_bad_pictures(tally *t)
{
    static const char *const bad[] = {"P6 0 1 255\n",
                                      "P6 99999 1 255\nabc",
                                      "P6 32768 32768 255\nabc",
                                      "P6 1 1 65535\nabcdef",
                                      "P6 1 1 0\nabc",
                                      "P6 -1 1 255\nabc",
                                      "P6 9999999999 1 255\nabc",
                                      "P3 1 1 9 1 2 10",
                                      "GIF89a",
                                      "P1 1 1 0",
                                      "x"};
    size_t i;
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++)
        check(t, image_refused(t, bad[i], strlen(bad[i])), bad[i]);
    check(t, image_refused(t, "\x89PNG\r\n\x1a\n", 8), "PNG of its signature only");
    check(t, image_refused(t, "\xff\xd8\xff\xe0", 4), "JPEG of its signature only");
}

/* A 2x2 BMP of `bits` per pixel; returns its size. */
static size_t make_bmp(unsigned char *out, unsigned bits, int top_down)
{
    static const unsigned char pixels[2][6] = {{3, 2, 1, 6, 5, 4}, {9, 8, 7, 12, 11, 10}};
    size_t step = bits / 8, stride = bits == 24 ? 8 : step * 2, y, x;
    memset(out, 0, 128);
    memcpy(out, "BM", 2);
    out[10] = 54;
    out[14] = 40;
    out[18] = 2;
    out[22] = 2;
    if (top_down) {
        out[22] = 254;
        memset(out + 23, 255, 3);
    }
    out[26] = 1;
    out[28] = (unsigned char)bits;
    for (y = 0; y < 2; y++)
        for (x = 0; x < 2; x++)
            memcpy(out + 54 + (top_down ? y : 1 - y) * stride + x * step, pixels[y] + x * 3, 3);
    return 54 + stride * 2;
}

static void test_bmp(tally *t)
{
    static const unsigned char want[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    unsigned char bmp[128];
    int i;
    for (i = 0; i < 4; i++) {
        size_t n = make_bmp(bmp, i & 1 ? 32 : 24, i >> 1);
        check(t, image_is(t, bmp, n, 2, 2, want), "BMP");
        check(t, prefixes_refused(t, bmp, n, image_refused), "BMP prefixes");
    }
    bmp[30] = 1;
    check(t, image_refused(t, bmp, sizeof bmp), "compressed BMP");
    bmp[30] = 0;
    memset(bmp + 10, 255, 4);
    check(t, image_refused(t, bmp, sizeof bmp), "BMP offset past its end");
}

static uint32_t be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t crc32_slow(const unsigned char *p, size_t n)
{
    uint32_t crc = 0xffffffffu;
    int k;
    while (n--) {
        crc ^= *p++;
        for (k = 0; k < 8; k++)
            crc = (crc >> 1) ^ (crc & 1u ? 0xedb88320u : 0u);
    }
    return crc ^ 0xffffffffu;
}

/* Walks the chunks: every CRC right, IEND the last. */
static int chunks_ok(const unsigned char *p, size_t n)
{
    size_t at = 8;
    while (n - at >= 12) {
        size_t len = be32(p + at);
        if (len > n - at - 12 || crc32_slow(p + at + 4, len + 4) != be32(p + at + 8 + len))
            return 0;
        at += 12 + len;
        if (!memcmp(p + at - 8, "IEND", 4))
            return at == n;
    }
    return 0;
}

static void check_png(tally *t, int w, int h)
{
    size_t pixels = (size_t)w * (size_t)h * 3, room = pixels + 65536, n, i;
    unsigned char *rgb = (unsigned char *)malloc(pixels);
    unsigned char *file = (unsigned char *)malloc(room);
    if (!rgb || !file) {
        check(t, 0, "memory for the PNG test");
    } else {
        for (i = 0; i < pixels; i++)
            rgb[i] = (unsigned char)(i * 31 % 251);
        check(t, !png_store_write(t->path, rgb, w, h, t->msg, sizeof t->msg), "PNG write");
        n = slurp(t, file, room);
        check(t, n > 33 && !memcmp(file, "\x89PNG\r\n\x1a\n", 8), "PNG signature");
        check(t, n > 33 && be32(file + 16) == (uint32_t)w && be32(file + 20) == (uint32_t)h, "PNG size");
        check(t, n > 33 && chunks_ok(file, n), "PNG chunks");
#ifdef GRADCAM_HAVE_PNG
        check(t, image_is(t, file, n, w, h, rgb), "PNG read back");
        check(t, image_refused(t, file, n / 2), "half a PNG");
        check(t, w > 9 || prefixes_refused(t, file, n, image_refused), "PNG prefixes");
#endif
    }
    free(rgb);
    free(file);
}

static void test_npy_types(tally *t)
{
    static const char *const types = "f2f4f8i1i2i4i8u1u2b1";
    static const long long shape[3] = {2, 3, 4};
    unsigned char data[24 * 8];
    const char *p;
    size_t i;
    for (i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 7 + 1);
    for (p = types; *p; p += 2) {
        cli_npy a;
        int size = p[1] - '0';
        int rc = cli_npy_save(t->path, p[0], size, data, 3, shape, t->msg, sizeof t->msg);
        check(t, !rc, "npy save");
        rc = cli_npy_load(t->path, &a, t->msg, sizeof t->msg);
        check(t,
              !rc && a.kind == p[0] && a.item_size == size && a.ndim == 3 && !memcmp(a.shape, shape, sizeof shape) &&
                  a.bytes == (size_t)(24 * size) && !memcmp(a.data, data, a.bytes),
              "npy load");
        cli_npy_free(&a);
    }
}

static void test_npy_shapes(tally *t)
{
    static const long long shape[8] = {1, 1, 3, 1, 1, 1, 2, 1}, empty[2] = {0, 5};
    static const float data[6] = {1, 2, 3, 4, 5, 6};
    unsigned char file[512];
    cli_npy a;
    int nd;
    for (nd = 0; nd <= 8; nd++) {
        int rc = cli_npy_save_f32(t->path, data, nd, shape, t->msg, sizeof t->msg);
        rc = rc || cli_npy_load(t->path, &a, t->msg, sizeof t->msg);
        check(t, !rc && a.ndim == nd && !memcmp(a.data, data, a.bytes), "npy dimensions");
        if (!rc)
            cli_npy_free(&a);
    }
    check(t, prefixes_refused(t, file, slurp(t, file, sizeof file), npy_refused), "npy prefixes");
    check(t,
          !cli_npy_save_f32(t->path, NULL, 2, empty, t->msg, sizeof t->msg) &&
              !cli_npy_load(t->path, &a, t->msg, sizeof t->msg) && a.bytes == 0,
          "empty npy");
    cli_npy_free(&a);
}

/* A .npy file from its dictionary and data; returns its size. */
static size_t make_npy(unsigned char *out, const char *dict, const void *data, size_t n)
{
    size_t len = strlen(dict);
    memcpy(out, "\x93NUMPY\x02\x00", 8);
    memset(out + 8, 0, 4);
    out[8] = (unsigned char)len;
    memcpy(out + 12, dict, len);
    memcpy(out + 12 + len, data, n);
    return 12 + len + n;
}

static void test_npy_fortran(tally *t)
{
    static const unsigned char want[6] = {1, 3, 5, 2, 4, 6};
    unsigned char file[512];
    cli_npy a;
    size_t n = make_npy(file, "{'shape':(2,3),'fortran_order':True,\"descr\":'|u1'}\n", "\1\2\3\4\5\6", 6);
    int rc = spill(t, file, n) || cli_npy_load(t->path, &a, t->msg, sizeof t->msg);
    check(t, !rc && a.ndim == 2 && a.shape[1] == 3 && !memcmp(a.data, want, 6), "Fortran order");
    if (!rc)
        cli_npy_free(&a);
    file[6] = 9;
    check(t, npy_refused(t, file, n), "unknown npy version");
    file[6] = 2;
    file[11] = 255;
    check(t, npy_refused(t, file, n), "npy header of 4 GB");
}

#define HEAD "{'descr': '<f4', 'fortran_order': False, 'shape': "

static void test_npy_hostile(tally *t)
{
    static const char *const bad[] = {HEAD "(-1,), }",
                                      HEAD "(99999999999999999999999,), }",
                                      HEAD "(4294967296, 4294967296, 4294967296), }",
                                      HEAD "(0, 9223372036854775807, 9223372036854775807), }",
                                      HEAD "(9223372036854775807,), }",
                                      HEAD "(1,1,1,1,1,1,1,1,1), }",
                                      HEAD "(1,",
                                      HEAD "1, }",
                                      HEAD "(1,), } junk",
                                      HEAD "(1,), 'shape': (1,)}",
                                      HEAD "(1,), 'evil': 1}",
                                      HEAD "(), 'descr",
                                      "{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}",
                                      "{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}",
                                      "{'descr': '|O8', 'fortran_order': False, 'shape': (1,)}",
                                      "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
                                      "{'fortran_order': False, 'shape': (1,)}",
                                      "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
                                      "{",
                                      ""};
    unsigned char file[512];
    size_t i;
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++)
        check(t, npy_refused(t, file, make_npy(file, bad[i], "abcd", 4)), bad[i]);
}

static void test_resize(tally *t)
{
    static const int sizes[][2] = {{1, 1}, {7, 5}, {37, 23}, {224, 224}, {3, 300}};
    cli_image src, dst;
    size_t i, k, n;
    src.width = 37;
    src.height = 23;
    src.rgb = (unsigned char *)malloc(37 * 23 * 3);
    if (!src.rgb)
        return;
    memset(src.rgb, 201, 37 * 23 * 3);
    for (i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        int rc = cli_image_resize(&src, sizes[i][0], sizes[i][1], &dst, t->msg, sizeof t->msg);
        n = rc ? 0 : (size_t)dst.width * (size_t)dst.height * 3;
        for (k = 0; k < n && dst.rgb[k] == 201; k++)
            ;
        check(t, !rc && dst.width == sizes[i][0] && k == n, "constant stays constant");
        cli_image_free(&dst);
    }
    check(t, cli_image_resize(&src, 0, 5, &dst, t->msg, sizeof t->msg), "resize to 0");
    check(t, cli_image_resize(&src, 32769, 5, &dst, t->msg, sizeof t->msg), "resize huge");
    cli_image_free(&src);
}

static void test_crop(tally *t)
{
    unsigned char rgb[4 * 3 * 3];
    cli_image src, dst;
    size_t i;
    for (i = 0; i < sizeof rgb; i++)
        rgb[i] = (unsigned char)i;
    src.width = 4;
    src.height = 3;
    src.rgb = rgb;
    check(t,
          !cli_image_crop(&src, 1, 1, 2, 2, &dst, t->msg, sizeof t->msg) && dst.rgb[0] == 15 && dst.rgb[6] == 27 &&
              dst.rgb[11] == 32,
          "crop");
    cli_image_free(&dst);
    check(t, cli_image_crop(&src, 3, 0, 2, 1, &dst, t->msg, sizeof t->msg), "crop outside");
    check(t, cli_image_crop(&src, -1, 0, 2, 1, &dst, t->msg, sizeof t->msg), "crop left of 0");
}

static void test_drawing(tally *t)
{
    static const unsigned char white[3] = {255, 255, 255};
    unsigned char rgb[20 * 10 * 3] = {0}, c[3], d[3];
    volatile float zero = 0.0f;
    colormap_lookup(CLI_VIRIDIS, -5.0f, c);
    colormap_lookup(CLI_VIRIDIS, 0.0f, d);
    check(t, !memcmp(c, d, 3) && c[0] == 68, "viridis clamps");
    colormap_lookup(CLI_JET, 1.0f / zero, c);
    check(t, c[0] == 128 && c[1] == 0 && c[2] == 0, "jet clamps");
    colormap_lookup(CLI_TURBO, zero / zero, c);
    check(t, c[0] == 128 && c[1] == 128 && c[2] == 128, "NaN is grey");
    font_draw(rgb, 20, 10, 0, 0, 1, white, "I");
    check(t, rgb[2 * 3] == 255 && rgb[0] == 0 && rgb[(7 * 20 + 2) * 3] == 0, "letter I");
    font_draw(rgb, 20, 10, -7, -3, 3, white, "clip\x80\xff");
    font_draw(rgb, 20, 10, 2147483647, 2147483647, 2147483647, white, "far");
    font_draw(rgb, 20, 10, -2147483647 - 1, 0, 1, white, "far");
    check(t, font_width("abc", 2) == 34 && font_width("", 2) == 0, "text width");
}

int main(int argc, char **argv)
{
    static tally t;
    if (argc < 2 || strlen(argv[1]) > 900) {
        puts("usage: test_cli_io DIRECTORY");
        return 1;
    }
    snprintf(t.path, sizeof t.path, "%s/test_cli_io.tmp", argv[1]);
    test_pnm(&t);
    test_bad_pictures(&t);
    test_bmp(&t);
    check_png(&t, 5, 3);
    check_png(&t, 30000, 4);
    test_npy_types(&t);
    test_npy_shapes(&t);
    test_npy_fortran(&t);
    test_npy_hostile(&t);
    test_resize(&t);
    test_crop(&t);
    test_drawing(&t);
    remove(t.path);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
