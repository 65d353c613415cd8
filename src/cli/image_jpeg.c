/* SPDX-License-Identifier: MIT */
/* JPEG through libjpeg, where the build found it. */
#include "image_load.h"

#ifdef GRADCAM_HAVE_JPEG
#include <stdio.h>
#include <jpeglib.h>
#include <jerror.h>
#include <setjmp.h>
#include <stdlib.h>

typedef struct jpeg_job {
    struct jpeg_error_mgr errors; /* first: libjpeg hands back its address */
    struct jpeg_decompress_struct d;
    jmp_buf back;
    img_bytes *in;
    cli_image *out;
    unsigned char *line; /* one row of CMYK */
    img_sink s;
} jpeg_job;

static void jpeg_on_error(j_common_ptr c)
{
    jpeg_job *job = (jpeg_job *)(void *)c->err;
    char text[JMSG_LENGTH_MAX];
    c->err->format_message(c, text);
    img_fail2(job->s, text, "JPEG file is damaged or of an unsupported kind");
    longjmp(job->back, 1);
}

/* Warnings are let pass, except that a picture must not end early. */
static void jpeg_on_message(j_common_ptr c, int level)
{
    if (level < 0 && c->err->msg_code == JWRN_JPEG_EOF)
        jpeg_on_error(c);
}

/* Inks as libjpeg gives them: Adobe files store them inverted. */
static void cmyk_row(unsigned char *dst, const unsigned char *src, int width, int inverted)
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
    if (img_new(job->out, (long)job->d.image_width, (long)job->d.image_height, job->s))
        return 1;
    cmyk = job->d.jpeg_color_space == JCS_CMYK || job->d.jpeg_color_space == JCS_YCCK;
    job->d.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    if (cmyk) {
        job->line = (unsigned char *)malloc((size_t)job->out->width * 4);
        if (!job->line)
            return img_fail(job->s, "out of memory for the image");
    }
    jpeg_start_decompress(&job->d);
    return 0;
}

static int jpeg_body(jpeg_job *job)
{
    if (jpeg_start(job))
        return 1;
    while (job->d.output_scanline < job->d.output_height) {
        unsigned char *dst = job->out->rgb + (size_t)job->d.output_scanline * img_row_bytes(job->out);
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

int img_load_jpeg(img_bytes *b, cli_image *out, img_sink s)
{
    jpeg_job *job = (jpeg_job *)calloc(1, sizeof *job);
    int rc;
    if (!job)
        return img_fail(s, "out of memory for the image");
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
int img_load_jpeg(img_bytes *b, cli_image *out, img_sink s)
{
    (void)b;
    (void)out;
    return img_fail(s, "JPEG support was not built in; install libjpeg-dev and rebuild, "
                       "or convert to PPM");
}
#endif
