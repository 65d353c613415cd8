/* SPDX-License-Identifier: MIT */
#include "cmd_draw.h"
#include "cmd_photo.h"

#include <math.h>
#include <string.h>

/* value = (x / divide - mean) / std, x in 0..255, channels in RGB order */
struct preprocess {
    const char *name;
    int bgr;
    double divide, mean[3], std[3];
};
static const struct preprocess preprocesses[] = {
    {"imagenet", 0, 255, {.485, .456, .406}, {.229, .224, .225}},
    {"caffe", 1, 1, {123, 117, 104}, {1, 1, 1}},
    {"unit", 0, 127.5, {1, 1, 1}, {1, 1, 1}},
    {"zero-one", 0, 255, {0, 0, 0}, {1, 1, 1}},
    {"raw", 0, 1, {0, 0, 0}, {1, 1, 1}},
};
enum { N_PREPROCESSES = (int)(sizeof preprocesses / sizeof preprocesses[0]), DEFAULT_SIDE = 224 };

static const struct preprocess *find_preprocess(const char *name)
{
    for (int i = 0; i < N_PREPROCESSES; i++)
        if (!name || strcmp(name, preprocesses[i].name) == 0)
            return &preprocesses[i];
    return NULL;
}

void cli_photo_free(struct cli_photo *photo)
{
    cli_image_free(&photo->seen);
}

/* ---- geometry ---- */

static int replace(cli_image *image, cli_image *by, int bad, const char *msg)
{
    if (bad)
        return cli_fail("%s", msg);
    cli_image_free(image);
    *image = *by;
    return CLI_OK;
}

static int resize(cli_image *image, int w, int h)
{
    char msg[256];
    cli_image out;
    if (image->width == w && image->height == h)
        return CLI_OK;
    int bad = cli_image_resize(image, w, h, &out, msg, sizeof msg);
    return replace(image, &out, bad, msg);
}

static int crop_centre(cli_image *image, int w, int h)
{
    char msg[256];
    cli_image out;
    w = w < image->width ? w : image->width;
    h = h < image->height ? h : image->height;
    int bad = cli_image_crop(image, (image->width - w) / 2, (image->height - h) / 2, w, h, &out, msg, sizeof msg);
    return replace(image, &out, bad, msg);
}

static int scaled(int side, double scale)
{
    int v = (int)floor(side * scale + 0.5);
    return v < 1 ? 1 : v;
}

/* Scales by `scale`; a side shrinks to no less than `min`. */
static int resize_by(cli_image *image, double scale, int min_w, int min_h)
{
    int w = scaled(image->width, scale), h = scaled(image->height, scale);
    return resize(image, w < min_w ? min_w : w, h < min_h ? min_h : h);
}

/* --resize and --crop where given, then the whole of w x h by the centre. */
static int fit(cli_image *image, const struct cli_args *args, int w, int h)
{
    int rc = CLI_OK, side = image->width < image->height ? image->width : image->height;
    if (args->resize)
        rc = resize_by(image, (double)args->resize / side, 1, 1);
    if (!rc && args->crop)
        rc = crop_centre(image, (int)args->crop, (int)args->crop);
    if (!rc && (!args->resize || args->crop || image->width < w || image->height < h))
        rc = resize_by(image, fmax((double)w / image->width, (double)h / image->height), w, h);
    return rc ? rc : crop_centre(image, w, h);
}

/* ---- image to tensor ---- */

static void fill_planes(const cli_image *image, const struct preprocess *p, int channels, float *dst)
{
    size_t n = (size_t)image->width * (size_t)image->height;
    for (size_t i = 0; i < n; i++) {
        const unsigned char *x = image->rgb + 3 * i;
        double grey = 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2];
        for (int c = 0; c < channels; c++) {
            int from = channels == 1 ? 1 : p->bgr ? 2 - c : c;
            double v = channels == 1 ? grey : x[from];
            dst[(size_t)c * n + i] = (float)((v / p->divide - p->mean[from]) / p->std[from]);
        }
    }
}

/* [N, C, H, W] with open dimensions chosen; 1 if a picture fits. */
static int image_shape(const struct cli_net *cn, int32_t k, gc_tensor_desc *d)
{
    memset(d, 0, sizeof *d);
    if (gc_net_input_desc(cn->net, k, d) != GRADCAM_OK || (d->ndim != 4 && d->ndim >= 0))
        return 0;
    for (int i = 0; i < 4; i++)
        if (d->ndim < 0 || d->shape[i] < 0)
            d->shape[i] = i == 0 ? 1 : i == 1 ? 3 : DEFAULT_SIDE;
    d->ndim = 4;
    return d->shape[0] == 1 && (d->shape[1] == 1 || d->shape[1] == 3) && d->shape[2] > 0 && d->shape[2] <= 16384 &&
           d->shape[3] > 0 && d->shape[3] <= 16384;
}

static int bind_image(struct cli_net *cn, const struct preprocess *p, const gc_tensor_desc *want,
                      struct cli_photo *photo)
{
    gc_tensor *t = NULL;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    int rc = cli_tensor_new(cn->ctx, GRADCAM_F32, 4, want->shape, &t);
    if (rc)
        return rc;
    gc_tensor_describe(t, &d);
    fill_planes(&photo->seen, p, (int)want->shape[1], d.data);
    if (want->dtype == GRADCAM_F32 || !want->dtype)
        rc = cli_net_bind(cn, photo->input, t);
    else
        rc = cli_net_bind_as(cn, photo->input, t, want->dtype);
    gc_tensor_unref(t);
    return rc;
}

static int bind_photo(struct cli_net *cn, const struct cli_args *args, const char *path, const struct preprocess *p,
                      struct cli_photo *photo)
{
    char msg[512];
    gc_tensor_desc d;
    for (int32_t k = 0; k < gc_net_input_count(cn->net) && photo->input < 0; k++)
        if (!cn->bound[k] && image_shape(cn, k, &d))
            photo->input = k;
    if (photo->input < 0)
        return cli_fail("%s: no input is left that takes an image [1, 1 or 3, H, W]; use --input", cn->path);
    if (cli_image_load(path, &photo->seen, msg, sizeof msg))
        return cli_fail("%s", msg);
    photo->bgr = p->bgr;
    int rc = fit(&photo->seen, args, (int)d.shape[3], (int)d.shape[2]);
    return rc ? rc : bind_image(cn, p, &d, photo);
}

int cli_photo_bind(struct cli_net *cn, const struct cli_args *args, const char *image, struct cli_photo *photo)
{
    const struct preprocess *p = find_preprocess(args->preprocess);
    memset(photo, 0, sizeof *photo);
    photo->input = -1;
    if (!p)
        return cli_usage("--preprocess %s: wants caffe, unit, imagenet, zero-one or raw", args->preprocess);
    int rc = cli_net_bind_files(cn, args);
    if (!rc && image)
        rc = bind_photo(cn, args, image, p, photo);
    if (rc)
        return rc;
    int32_t k = cli_net_unbound(cn);
    return k < 0 ? CLI_OK
                 : cli_fail("input %s is not given; use --input %s=FILE.npy", gc_net_input_name(cn->net, k),
                            gc_net_input_name(cn->net, k));
}

/* ---- tensor to image ---- */

int cli_photo_watch(struct cli_net *cn, struct cli_photo *photo)
{
    for (int32_t k = 0; k < gc_net_input_count(cn->net) && photo->input < 0; k++) {
        gc_tensor_desc d;
        memset(&d, 0, sizeof d);
        if (gc_net_input_desc(cn->net, k, &d) == GRADCAM_OK && (d.ndim == 4 || d.ndim < 0))
            photo->input = k;
    }
    if (photo->input < 0)
        return CLI_OK;
    gc_error err = cli_error();
    gc_status st = gc_run_watch(cn->run, gc_net_input_name(cn->net, photo->input), GRADCAM_WATCH_VALUE, &err);
    return st ? cli_net_refuse("--output", st, &err) : CLI_OK;
}

static void fill_image(const float *x, int channels, cli_image *image)
{
    size_t n = (size_t)image->width * (size_t)image->height, all = n * (size_t)channels;
    float low = HUGE_VALF, high = -HUGE_VALF;
    for (size_t i = 0; i < all; i++) {
        low = isfinite(x[i]) && x[i] < low ? x[i] : low;
        high = isfinite(x[i]) && x[i] > high ? x[i] : high;
    }
    float scale = high > low ? 255.0f / (high - low) : 0;
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < 3; c++) {
            float v = x[(channels == 1 ? 0 : c) * n + i];
            image->rgb[3 * i + c] = (unsigned char)(isfinite(v) ? (v - low) * scale : 0);
        }
}

int cli_photo_from_input(struct cli_net *cn, struct cli_photo *photo)
{
    gc_error err = cli_error();
    gc_tensor *value = NULL, *dense = NULL;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    if (photo->input < 0)
        return CLI_OK;
    gc_status st = gc_run_value(cn->run, gc_net_input_name(cn->net, photo->input), &value, &err);
    if (st)
        return cli_net_refuse("--output", st, &err);
    int rc = cli_tensor_as(cn->ctx, value, GRADCAM_F32, &dense);
    if (rc)
        return rc;
    gc_tensor_describe(dense, &d);
    if (d.ndim == 4 && d.shape[0] > 0 && (d.shape[1] == 1 || d.shape[1] == 3) && d.shape[2] > 0 &&
        d.shape[2] <= 16384 && d.shape[3] > 0 && d.shape[3] <= 16384) {
        rc = cli_image_new(&photo->seen, (int)d.shape[3], (int)d.shape[2]);
        if (!rc)
            fill_image(d.data, (int)d.shape[1], &photo->seen);
    }
    gc_tensor_unref(dense);
    return rc;
}
