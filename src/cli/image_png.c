/* SPDX-License-Identifier: MIT */
/* PNG through libpng, where the build found it. */
#include "image_load.h"

#ifdef GRADCAM_HAVE_PNG
#include <png.h>
#include <setjmp.h>
#include <string.h>

typedef struct png_job {
    img_bytes *in;
    cli_image *out;
    img_sink s;
    png_structp png;
    png_infop info;
} png_job;

static void png_on_error(png_structp png, png_const_charp text)
{
    png_job *job = (png_job *)png_get_error_ptr(png);
    img_fail2(job->s, text, "PNG file is damaged");
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
    png_set_user_limits(job->png, IMG_MAX_SIDE, IMG_MAX_SIDE);
    png_set_read_fn(job->png, job, png_on_read);
    png_read_info(job->png, job->info);
    if (img_new(job->out, (long)png_get_image_width(job->png, job->info),
                (long)png_get_image_height(job->png, job->info), job->s))
        return 1;
    passes = png_ask_rgb(job);
    if (png_get_rowbytes(job->png, job->info) != img_row_bytes(job->out))
        return img_fail(job->s, "PNG of an unexpected layout; convert it to 8-bit RGB");
    for (p = 0; p < passes; p++)
        for (y = 0; y < job->out->height; y++)
            png_read_row(job->png, job->out->rgb + (size_t)y * img_row_bytes(job->out), NULL);
    png_read_end(job->png, NULL);
    return 0;
}

static int png_guarded(png_job *job)
{
    if (setjmp(png_jmpbuf(job->png)))
        return 1;
    return png_body(job);
}

int img_load_png(img_bytes *b, cli_image *out, img_sink s)
{
    png_job job;
    int rc = 1;
    job.in = b;
    job.out = out;
    job.s = s;
    job.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &job, png_on_error, png_on_warning);
    if (!job.png)
        return img_fail(s, "libpng could not start (out of memory or wrong version)");
    job.info = png_create_info_struct(job.png);
    if (job.info)
        rc = png_guarded(&job);
    else
        img_fail(s, "out of memory in libpng");
    png_destroy_read_struct(&job.png, &job.info, NULL);
    return rc;
}
#else
int img_load_png(img_bytes *b, cli_image *out, img_sink s)
{
    (void)b;
    (void)out;
    return img_fail(s, "PNG support was not built in; install libpng-dev and rebuild, "
                       "or convert to PPM");
}
#endif
