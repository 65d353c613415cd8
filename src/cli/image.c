/* SPDX-License-Identifier: MIT */
#include "image.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(GRADCAM_HAVE_PNG) || defined(GRADCAM_HAVE_JPEG)
#include <setjmp.h>
#endif
#ifdef GRADCAM_HAVE_PNG
#include <png.h>
#endif
#ifdef GRADCAM_HAVE_JPEG
#include <jpeglib.h>
#include <jerror.h>
#endif

#define MAX_SIDE 32768
#define MAX_BYTES ((size_t)512 * 1024 * 1024)

/* Where a message goes, passed around as one argument. */
typedef struct sink {
    char *msg;
    size_t size;
} sink;

/* A whole file in memory and a read position in it. */
typedef struct bytes {
    unsigned char *data;
    size_t size, pos;
} bytes;

static int fail(sink s, const char *text)
{
    if (s.msg && s.size)
        snprintf(s.msg, s.size, "%s", text);
    return 1;
}

static int fail2(sink s, const char *text, const char *detail)
{
    if (s.msg && s.size)
        snprintf(s.msg, s.size, "%s: %s", detail, text);
    return 1;
}

static sink make_sink(char *msg, size_t msg_size)
{
    sink s;
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

static int new_image(cli_image *out, long w, long h, sink s)
{
    size_t pixels;
    if (w < 1 || h < 1 || w > MAX_SIDE || h > MAX_SIDE)
        return fail(s, "image sides must be 1 to 32768 pixels");
    pixels = (size_t)w * (size_t)h; /* at most 2^30 */
    if (pixels > MAX_BYTES / 3)
        return fail(s, "image needs more than 512 MB; make it smaller");
    out->rgb = (unsigned char *)calloc(pixels, 3);
    if (!out->rgb)
        return fail(s, "out of memory for the image");
    out->width = (int)w;
    out->height = (int)h;
    return 0;
}

static size_t row_bytes(const cli_image *im)
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

static int read_open(FILE *f, bytes *b, sink s)
{
    if (file_size(f, &b->size))
        return fail(s, "cannot tell the file's size (is it a regular file?)");
    if (b->size == 0)
        return fail(s, "the file is empty");
    if (b->size > MAX_BYTES)
        return fail(s, "the file is larger than 512 MB");
    b->data = (unsigned char *)malloc(b->size);
    if (!b->data)
        return fail(s, "out of memory reading the file");
    if (fread(b->data, 1, b->size, f) != b->size)
        return fail(s, "the file could not be read to its end");
    return 0;
}

static int read_file(const char *path, bytes *b, sink s)
{
    int rc;
    FILE *f = fopen(path, "rb");
    if (!f)
        return fail(s, "cannot open the file (check the path and permissions)");
    rc = read_open(f, b, s);
    fclose(f);
    return rc;
}

/* ---- PNM ---- */

static int is_space(int c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void pnm_skip(bytes *b)
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
static long pnm_number(bytes *b)
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

static int pnm_binary(bytes *b, cli_image *im, size_t channels, long maxval, sink s)
{
    size_t pixels = (size_t)im->width * (size_t)im->height, i, c;
    const unsigned char *p;
    if (b->pos >= b->size || !is_space(b->data[b->pos]))
        return fail(s, "PNM header is not followed by a blank");
    b->pos++;
    if ((b->size - b->pos) / channels < pixels)
        return fail(s, "PNM file is truncated: pixels are missing");
    p = b->data + b->pos;
    for (i = 0; i < pixels; i++)
        for (c = 0; c < 3; c++)
            im->rgb[i * 3 + c] = pnm_scale(p[i * channels + c % channels], maxval);
    return 0;
}

static int pnm_text(bytes *b, cli_image *im, size_t channels, long maxval, sink s)
{
    size_t n = (size_t)im->width * (size_t)im->height * channels, i;
    for (i = 0; i < n; i++) {
        long v = pnm_number(b);
        if (v < 0 || v > maxval)
            return fail(s, "PNM text pixels are missing or out of range");
        if (channels == 3)
            im->rgb[i] = pnm_scale(v, maxval);
        else
            memset(im->rgb + i * 3, pnm_scale(v, maxval), 3);
    }
    return 0;
}

static int load_pnm(bytes *b, cli_image *out, sink s)
{
    int kind = b->data[1];
    size_t channels = (kind == '3' || kind == '6') ? 3 : 1;
    long w, h, maxval;
    b->pos = 2;
    w = pnm_number(b);
    h = pnm_number(b);
    maxval = pnm_number(b);
    if (w < 0 || h < 0 || maxval < 0)
        return fail(s, "PNM header is broken or truncated");
    if (maxval < 1 || maxval > 255)
        return fail(s, "PNM maxval must be 1 to 255; convert to 8 bits per sample");
    /* A text sample takes a byte or more: refuse before allocating. */
    if (b->size - b->pos < (size_t)h || b->size - b->pos < (size_t)w)
        return fail(s, "PNM file is truncated: pixels are missing");
    if (new_image(out, w, h, s))
        return 1;
    if (kind >= '5')
        return pnm_binary(b, out, channels, maxval, s);
    return pnm_text(b, out, channels, maxval, s);
}

/* ---- BMP ---- */

static uint32_t le32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24;
}

static int64_t signed32(uint32_t v)
{
    return v > INT32_MAX ? (int64_t)v - ((int64_t)1 << 32) : (int64_t)v;
}

/* Plain BGR(X), or bit fields that say the same thing. */
static int bmp_layout_ok(const bytes *b, unsigned bits)
{
    uint32_t compression = le32(b->data + 30);
    if (b->data[29] != 0 || (bits != 24 && bits != 32))
        return 0;
    if (compression == 0)
        return 1;
    return compression == 3 && bits == 32 && b->size >= 66 &&
           le32(b->data + 54) == 0xff0000u && le32(b->data + 58) == 0xff00u &&
           le32(b->data + 62) == 0xffu;
}

static void bmp_row(unsigned char *dst, const unsigned char *src, size_t width,
                    size_t step)
{
    size_t x;
    for (x = 0; x < width; x++, src += step, dst += 3) {
        dst[0] = src[2];
        dst[1] = src[1];
        dst[2] = src[0];
    }
}

static int bmp_pixels(const bytes *b, cli_image *im, int top_down, sink s)
{
    size_t step = b->data[28] / 8u, h = (size_t)im->height, y;
    size_t stride = ((size_t)im->width * step + 3) / 4 * 4;
    size_t offset = le32(b->data + 10);
    if (offset < 54 || offset > b->size || (b->size - offset) / stride < h)
        return fail(s, "BMP file is truncated: pixels are missing");
    for (y = 0; y < h; y++) {
        size_t row = top_down ? y : h - 1 - y;
        bmp_row(im->rgb + y * row_bytes(im), b->data + offset + row * stride,
                (size_t)im->width, step);
    }
    return 0;
}

static int load_bmp(bytes *b, cli_image *out, sink s)
{
    int64_t w, h;
    if (b->size < 54 || le32(b->data + 14) < 40)
        return fail(s, "BMP header is truncated or of a very old kind");
    if (!bmp_layout_ok(b, b->data[28]))
        return fail(s, "only uncompressed 24 or 32 bit BMP is read; convert the file");
    w = signed32(le32(b->data + 18));
    h = signed32(le32(b->data + 22));
    if (w < 1 || w > MAX_SIDE || h == 0 || h < -MAX_SIDE || h > MAX_SIDE)
        return fail(s, "image sides must be 1 to 32768 pixels");
    if (new_image(out, (long)w, (long)(h < 0 ? -h : h), s))
        return 1;
    return bmp_pixels(b, out, h < 0, s);
}

/* ---- PNG ---- */

#ifdef GRADCAM_HAVE_PNG
typedef struct png_job {
    bytes *in;
    cli_image *out;
    sink s;
    png_structp png;
    png_infop info;
} png_job;

static void png_on_error(png_structp png, png_const_charp text)
{
    png_job *job = (png_job *)png_get_error_ptr(png);
    fail2(job->s, text, "PNG file is damaged");
    png_longjmp(png, 1);
}

static void png_on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static void png_on_read(png_structp png, png_bytep dst, size_t n)
{
    png_job *job = (png_job *)png_get_io_ptr(png);
    if (n > job->in->size - job->in->pos)
        png_error(png, "the file is truncated");
    memcpy(dst, job->in->data + job->in->pos, n);
    job->in->pos += n;
}

/* Asks for 8-bit RGB whatever the file holds; returns the number of passes. */
static int png_ask_rgb(png_job *job)
{
    int passes;
    png_set_strip_16(job->png);
    png_set_expand(job->png);
    png_set_strip_alpha(job->png);
    png_set_gray_to_rgb(job->png);
    passes = png_set_interlace_handling(job->png);
    png_read_update_info(job->png, job->info);
    return passes;
}

static int png_body(png_job *job)
{
    int passes, p, y;
    png_set_user_limits(job->png, MAX_SIDE, MAX_SIDE);
    png_set_read_fn(job->png, job, png_on_read);
    png_read_info(job->png, job->info);
    if (new_image(job->out, (long)png_get_image_width(job->png, job->info),
                  (long)png_get_image_height(job->png, job->info), job->s))
        return 1;
    passes = png_ask_rgb(job);
    if (png_get_rowbytes(job->png, job->info) != row_bytes(job->out))
        return fail(job->s, "PNG of an unexpected layout; convert it to 8-bit RGB");
    for (p = 0; p < passes; p++)
        for (y = 0; y < job->out->height; y++)
            png_read_row(job->png, job->out->rgb + (size_t)y * row_bytes(job->out),
                         NULL);
    png_read_end(job->png, NULL);
    return 0;
}

static int png_guarded(png_job *job)
{
    if (setjmp(png_jmpbuf(job->png)))
        return 1;
    return png_body(job);
}

static int load_png(bytes *b, cli_image *out, sink s)
{
    png_job job;
    int rc = 1;
    job.in = b;
    job.out = out;
    job.s = s;
    job.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &job, png_on_error,
                                     png_on_warning);
    if (!job.png)
        return fail(s, "libpng could not start (out of memory or wrong version)");
    job.info = png_create_info_struct(job.png);
    if (job.info)
        rc = png_guarded(&job);
    else
        fail(s, "out of memory in libpng");
    png_destroy_read_struct(&job.png, &job.info, NULL);
    return rc;
}
#else
static int load_png(bytes *b, cli_image *out, sink s)
{
    (void)b;
    (void)out;
    return fail(s, "PNG support was not built in; install libpng-dev and rebuild, "
                   "or convert to PPM");
}
#endif

/* ---- JPEG ---- */

#ifdef GRADCAM_HAVE_JPEG
typedef struct jpeg_job {
    struct jpeg_error_mgr errors; /* first: libjpeg hands back its address */
    struct jpeg_decompress_struct d;
    jmp_buf back;
    bytes *in;
    cli_image *out;
    unsigned char *line; /* one row of CMYK */
    sink s;
} jpeg_job;

static void jpeg_on_error(j_common_ptr c)
{
    jpeg_job *job = (jpeg_job *)(void *)c->err;
    char text[JMSG_LENGTH_MAX];
    c->err->format_message(c, text);
    fail2(job->s, text, "JPEG file is damaged or of an unsupported kind");
    longjmp(job->back, 1);
}

/* Warnings are let pass, except that a picture must not end early. */
static void jpeg_on_message(j_common_ptr c, int level)
{
    if (level < 0 && c->err->msg_code == JWRN_JPEG_EOF)
        jpeg_on_error(c);
}

/* Inks as libjpeg gives them: Adobe files store them inverted. */
static void cmyk_row(unsigned char *dst, const unsigned char *src, int width,
                     int inverted)
{
    int x, c;
    for (x = 0; x < width; x++, src += 4)
        for (c = 0; c < 3; c++) {
            int ink = inverted ? src[c] : 255 - src[c];
            int black = inverted ? src[3] : 255 - src[3];
            *dst++ = (unsigned char)((ink * black + 127) / 255);
        }
}

static int jpeg_start(jpeg_job *job)
{
    int cmyk;
    jpeg_mem_src(&job->d, job->in->data, (unsigned long)job->in->size);
    jpeg_read_header(&job->d, TRUE);
    if (new_image(job->out, (long)job->d.image_width, (long)job->d.image_height,
                  job->s))
        return 1;
    cmyk = job->d.jpeg_color_space == JCS_CMYK || job->d.jpeg_color_space == JCS_YCCK;
    job->d.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    if (cmyk) {
        job->line = (unsigned char *)malloc((size_t)job->out->width * 4);
        if (!job->line)
            return fail(job->s, "out of memory for the image");
    }
    jpeg_start_decompress(&job->d);
    return 0;
}

static int jpeg_body(jpeg_job *job)
{
    if (jpeg_start(job))
        return 1;
    while (job->d.output_scanline < job->d.output_height) {
        unsigned char *dst =
            job->out->rgb + (size_t)job->d.output_scanline * row_bytes(job->out);
        JSAMPROW row = job->line ? job->line : dst;
        jpeg_read_scanlines(&job->d, &row, 1);
        if (job->line)
            cmyk_row(dst, job->line, job->out->width, job->d.saw_Adobe_marker);
    }
    jpeg_finish_decompress(&job->d);
    return 0;
}

static int jpeg_guarded(jpeg_job *job)
{
    if (setjmp(job->back))
        return 1;
    jpeg_create_decompress(&job->d);
    return jpeg_body(job);
}

static int load_jpeg(bytes *b, cli_image *out, sink s)
{
    jpeg_job *job = (jpeg_job *)calloc(1, sizeof *job);
    int rc;
    if (!job)
        return fail(s, "out of memory for the image");
    job->in = b;
    job->out = out;
    job->s = s;
    job->d.err = jpeg_std_error(&job->errors);
    job->errors.error_exit = jpeg_on_error;
    job->errors.emit_message = jpeg_on_message;
    rc = jpeg_guarded(job);
    jpeg_destroy_decompress(&job->d);
    free(job->line);
    free(job);
    return rc;
}
#else
static int load_jpeg(bytes *b, cli_image *out, sink s)
{
    (void)b;
    (void)out;
    return fail(s, "JPEG support was not built in; install libjpeg-dev and rebuild, "
                   "or convert to PPM");
}
#endif

/* ---- detection ---- */

static int has_magic(const bytes *b, const char *magic, size_t n)
{
    return b->size >= n && memcmp(b->data, magic, n) == 0;
}

static int load_bytes(bytes *b, cli_image *out, sink s)
{
    if (has_magic(b, "P2", 2) || has_magic(b, "P3", 2) || has_magic(b, "P5", 2) ||
        has_magic(b, "P6", 2))
        return load_pnm(b, out, s);
    if (has_magic(b, "BM", 2))
        return load_bmp(b, out, s);
    if (has_magic(b, "\x89PNG\r\n\x1a\n", 8))
        return load_png(b, out, s);
    if (has_magic(b, "\xff\xd8\xff", 3))
        return load_jpeg(b, out, s);
    return fail(s, "not a PNM (P2 P3 P5 P6), BMP, PNG or JPEG file; convert it to "
                   "one of these");
}

int cli_image_load(const char *path, cli_image *out, char *msg, size_t msg_size)
{
    char why[320] = "";
    bytes b = {NULL, 0, 0};
    int rc;
    memset(out, 0, sizeof *out);
    rc = read_file(path, &b, make_sink(why, sizeof why));
    if (!rc)
        rc = load_bytes(&b, out, make_sink(why, sizeof why));
    free(b.data);
    if (rc) {
        cli_image_free(out);
        fail2(make_sink(msg, msg_size), why, path);
    }
    return rc;
}

/* ---- resizing ---- */

#define WEIGHT_BITS 22

/* For each output position: which inputs it sums, with which weights. */
typedef struct filter {
    int taps;
    int *start, *count;
    int32_t *weight;
} filter;

/* One axis of a picture: how far apart its samples and its lines lie. */
typedef struct axis {
    size_t step, line_step;
    int lines;
} axis;

static void filter_free(filter *f)
{
    free(f->start);
    free(f->count);
    free(f->weight);
}

static int filter_alloc(filter *f, int in, int out)
{
    int ratio = in > out ? (in + out - 1) / out : 1;
    f->taps = ratio * 2 + 1;
    f->start = (int *)calloc((size_t)out, sizeof *f->start);
    f->count = (int *)calloc((size_t)out, sizeof *f->count);
    /* out * taps stays below 2 * in + 5 * out, so it cannot overflow. */
    f->weight = (int32_t *)calloc((size_t)out * (size_t)f->taps, sizeof *f->weight);
    return !f->start || !f->count || !f->weight;
}

static double triangle(double x)
{
    x = x < 0 ? -x : x;
    return x < 1 ? 1 - x : 0;
}

static void filter_fill(filter *f, int in, int out)
{
    double scale = (double)in / out, wide = scale > 1 ? scale : 1;
    int o, i;
    for (o = 0; o < out; o++) {
        double center = (o + 0.5) * scale, total = 0;
        double lo = center - wide + 0.5, hi = center + wide + 0.5;
        int first = lo < 0 ? 0 : (int)lo, last = hi > in ? in : (int)hi;
        int32_t *w = f->weight + (size_t)o * (size_t)f->taps;
        if (last - first > f->taps)
            last = first + f->taps;
        for (i = first; i < last; i++)
            total += triangle((i + 0.5 - center) / wide);
        for (i = first; i < last; i++)
            w[i - first] = (int32_t)(0.5 + triangle((i + 0.5 - center) / wide) /
                                               total * (1 << WEIGHT_BITS));
        f->start[o] = first;
        f->count[o] = last - first;
    }
}

static unsigned char weigh(const unsigned char *p, size_t step, const int32_t *w,
                           int n)
{
    int64_t sum = (int64_t)1 << (WEIGHT_BITS - 1);
    int k;
    for (k = 0; k < n; k++, p += step)
        sum += (int64_t)w[k] * *p;
    sum >>= WEIGHT_BITS;
    return (unsigned char)(sum > 255 ? 255 : sum);
}

static void filter_line(const filter *f, int out, const unsigned char *src,
                        unsigned char *dst, size_t step)
{
    int o;
    size_t c;
    for (o = 0; o < out; o++)
        for (c = 0; c < 3; c++)
            dst[(size_t)o * step + c] =
                weigh(src + (size_t)f->start[o] * step + c, step,
                      f->weight + (size_t)o * (size_t)f->taps, f->count[o]);
}

static int resize_axis(const unsigned char *src, unsigned char *dst, int in, int out,
                       axis from, axis to)
{
    filter f = {0, NULL, NULL, NULL};
    int i, rc = filter_alloc(&f, in, out);
    if (!rc) {
        filter_fill(&f, in, out);
        for (i = 0; i < from.lines; i++)
            filter_line(&f, out, src + (size_t)i * from.line_step,
                        dst + (size_t)i * to.line_step, from.step);
    }
    filter_free(&f);
    return rc;
}

static int resize_wide(const cli_image *src, cli_image *dst)
{
    axis from = {3, 0, 0}, to = {3, 0, 0};
    from.line_step = row_bytes(src);
    to.line_step = row_bytes(dst);
    from.lines = to.lines = src->height;
    return resize_axis(src->rgb, dst->rgb, src->width, dst->width, from, to);
}

static int resize_tall(const cli_image *src, cli_image *dst)
{
    axis both = {0, 3, 0};
    both.step = row_bytes(src);
    both.lines = src->width;
    return resize_axis(src->rgb, dst->rgb, src->height, dst->height, both, both);
}

static int usable(const cli_image *im)
{
    return im && im->rgb && im->width > 0 && im->height > 0 &&
           im->width <= MAX_SIDE && im->height <= MAX_SIDE;
}

int cli_image_resize(const cli_image *src, int w, int h, cli_image *dst, char *msg,
                     size_t msg_size)
{
    sink s = make_sink(msg, msg_size);
    cli_image middle = {0, 0, NULL};
    int rc;
    memset(dst, 0, sizeof *dst);
    if (!usable(src))
        return fail(s, "cannot resize an empty image");
    if (new_image(&middle, w, src->height, s))
        return 1;
    rc = new_image(dst, w, h, s);
    if (!rc && (resize_wide(src, &middle) || resize_tall(&middle, dst)))
        rc = fail(s, "out of memory resizing the image");
    cli_image_free(&middle);
    if (rc)
        cli_image_free(dst);
    return rc;
}

int cli_image_crop(const cli_image *src, int x, int y, int w, int h, cli_image *dst,
                   char *msg, size_t msg_size)
{
    sink s = make_sink(msg, msg_size);
    int row;
    memset(dst, 0, sizeof *dst);
    if (!usable(src))
        return fail(s, "cannot crop an empty image");
    if (x < 0 || y < 0 || w < 1 || h < 1 || w > src->width || h > src->height ||
        x > src->width - w || y > src->height - h)
        return fail(s, "the crop rectangle reaches outside the image");
    if (new_image(dst, w, h, s))
        return 1;
    for (row = 0; row < h; row++)
        memcpy(dst->rgb + (size_t)row * row_bytes(dst),
               src->rgb + (size_t)(y + row) * row_bytes(src) + (size_t)x * 3,
               row_bytes(dst));
    return 0;
}
