/* SPDX-License-Identifier: MIT */
/* Resizing and cropping. */
#include "image_load.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

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
            w[i - first] = (int32_t)(0.5 + triangle((i + 0.5 - center) / wide) / total * (1 << WEIGHT_BITS));
        f->start[o] = first;
        f->count[o] = last - first;
    }
}

static unsigned char weigh(const unsigned char *p, size_t step, const int32_t *w, int n)
{
    int64_t sum = (int64_t)1 << (WEIGHT_BITS - 1);
    int k;
    for (k = 0; k < n; k++, p += step)
        sum += (int64_t)w[k] * *p;
    sum >>= WEIGHT_BITS;
    return (unsigned char)(sum > 255 ? 255 : sum);
}

static void filter_line(const filter *f, int out, const unsigned char *src, unsigned char *dst, size_t step)
{
    int o;
    size_t c;
    for (o = 0; o < out; o++)
        for (c = 0; c < 3; c++)
            dst[(size_t)o * step + c] = weigh(src + (size_t)f->start[o] * step + c, step,
                                              f->weight + (size_t)o * (size_t)f->taps, f->count[o]);
}

static int resize_axis(const unsigned char *src, unsigned char *dst, int in, int out, axis from, axis to)
{
    filter f = {0, NULL, NULL, NULL};
    int i, rc = filter_alloc(&f, in, out);
    if (!rc) {
        filter_fill(&f, in, out);
        for (i = 0; i < from.lines; i++)
            filter_line(&f, out, src + (size_t)i * from.line_step, dst + (size_t)i * to.line_step, from.step);
    }
    filter_free(&f);
    return rc;
}

static int resize_wide(const cli_image *src, cli_image *dst)
{
    axis from = {3, 0, 0}, to = {3, 0, 0};
    from.line_step = img_row_bytes(src);
    to.line_step = img_row_bytes(dst);
    from.lines = to.lines = src->height;
    return resize_axis(src->rgb, dst->rgb, src->width, dst->width, from, to);
}

static int resize_tall(const cli_image *src, cli_image *dst)
{
    axis both = {0, 3, 0};
    both.step = img_row_bytes(src);
    both.lines = src->width;
    return resize_axis(src->rgb, dst->rgb, src->height, dst->height, both, both);
}

static int usable(const cli_image *im)
{
    return im && im->rgb && im->width > 0 && im->height > 0 && im->width <= IMG_MAX_SIDE && im->height <= IMG_MAX_SIDE;
}

int cli_image_resize(const cli_image *src, int w, int h, cli_image *dst, char *msg, size_t msg_size)
{
    img_sink s = img_sink_of(msg, msg_size);
    cli_image middle = {0, 0, NULL};
    int rc;
    memset(dst, 0, sizeof *dst);
    if (!usable(src))
        return img_fail(s, "cannot resize an empty image");
    if (img_new(&middle, w, src->height, s))
        return 1;
    rc = img_new(dst, w, h, s);
    if (!rc && (resize_wide(src, &middle) || resize_tall(&middle, dst)))
        rc = img_fail(s, "out of memory resizing the image");
    cli_image_free(&middle);
    if (rc)
        cli_image_free(dst);
    return rc;
}

int cli_image_crop(const cli_image *src, int x, int y, int w, int h, cli_image *dst, char *msg, size_t msg_size)
{
    img_sink s = img_sink_of(msg, msg_size);
    int row;
    memset(dst, 0, sizeof *dst);
    if (!usable(src))
        return img_fail(s, "cannot crop an empty image");
    if (x < 0 || y < 0 || w < 1 || h < 1 || w > src->width || h > src->height || x > src->width - w ||
        y > src->height - h)
        return img_fail(s, "the crop rectangle reaches outside the image");
    if (img_new(dst, w, h, s))
        return 1;
    for (row = 0; row < h; row++)
        memcpy(dst->rgb + (size_t)row * img_row_bytes(dst),
               src->rgb + (size_t)(y + row) * img_row_bytes(src) + (size_t)x * 3, img_row_bytes(dst));
    return 0;
}
