/* SPDX-License-Identifier: MIT */
/*
 * What does a score lose when something is hidden?  Two maps made of
 * gc_perturb_scores, written as PGM pictures of the size of the input:
 * occlusion (Zeiler 2014) and Ablation-CAM (Desai 2020).
 *
 *   cc perturb.c $(pkg-config --cflags --libs gradcam) -o perturb
 *   ./perturb network.onnx picture.ppm layer occlusion.pgm ablation.pgm
 *
 * The network takes the binary PPM as RGB in 0..1.  Errors end the program.
 */
#include <gradcam/gradcam.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOWS = 12 }; /* along each side; each is twice as wide as their distance */

static void need(gc_status status, const gc_error *err)
{
    if (status != GRADCAM_OK) {
        fprintf(stderr, "%s: %s\n", gc_status_name(status), err->message);
        exit(1);
    }
}

/* A float32 tensor of zeros and where its numbers are. */
static gc_tensor *tensor(gc_ctx *ctx, int32_t ndim, const int64_t *shape, float **data)
{
    gc_tensor_desc d = {0};
    gc_tensor *t = NULL;
    gc_error err = {0};
    d.dtype = GRADCAM_F32;
    d.ndim = ndim;
    memcpy(d.shape, shape, (size_t)ndim * sizeof *shape);
    need(gc_tensor_create(ctx, &d, &t, &err), &err);
    gc_tensor_describe(t, &d);
    *data = d.data;
    return t;
}

static gc_tensor *read_picture(gc_ctx *ctx, const char *path, int64_t shape[4])
{
    FILE *file = fopen(path, "rb");
    int width = 0, height = 0;
    if (file == NULL || fscanf(file, "P6 %d %d 255", &width, &height) != 2 || fgetc(file) == EOF || width < WINDOWS ||
        height < WINDOWS || width > 4096 || height > 4096) {
        fprintf(stderr, "%s: no binary PPM of a size that suits\n", path);
        exit(1);
    }
    float *planes;
    shape[0] = 1, shape[1] = 3, shape[2] = height, shape[3] = width;
    gc_tensor *image = tensor(ctx, 4, shape, &planes);
    for (int64_t k = 0; k < 3 * shape[2] * shape[3]; k++) {
        planes[k % 3 * shape[2] * shape[3] + k / 3] = (float)fgetc(file) / 255.0f;
    }
    fclose(file);
    return image;
}

/* In the map: for each pixel the mean drop of the score over the windows that hide it. */
static void occlusion(gc_run *run, const int64_t *shape, float *map)
{
    const int64_t count = (int64_t)WINDOWS * WINDOWS, height = shape[2], width = shape[3];
    const int64_t mask_shape[3] = {count, height, width};
    static float scores[WINDOWS * WINDOWS];
    float *hide;
    gc_tensor *masks = tensor(gc_run_ctx(run), 3, mask_shape, &hide);
    gc_perturb_options o = {0};
    gc_perturb_report report = {0};
    gc_error err = {0};
    for (int64_t i = 0; i < count * height * width; i++) {
        int64_t y = i / width % height, x = i % width, window = i / (height * width);
        int64_t row = y * WINDOWS / height - window / WINDOWS, column = x * WINDOWS / width - window % WINDOWS;
        hide[i] = row >= -1 && row <= 0 && column >= -1 && column <= 0 ? 0.0f : 1.0f;
    }
    o.count = count; /* GRADCAM_PERTURB_MASK of the first input, zero where it is hidden */
    o.masks = masks;
    o.report = &report;
    need(gc_perturb_scores(run, &o, NULL, scores, (size_t)count, &err), &err);
    for (int64_t p = 0; p < height * width; p++) {
        double drop = 0.0, hidden = 1e-9;
        for (const float *m = hide + p; m < hide + count * height * width; m += height * width) {
            hidden += 1.0 - (double)*m;
            drop += (1.0 - (double)*m) * (report.score - (double)scores[(m - hide) / (height * width)]);
        }
        map[p] = (float)(drop / hidden);
    }
    gc_tensor_unref(masks);
}

/* ReLU(sum_k w_k A_k), w_k = (y - y_k) / y, at the layer's resolution. */
static gc_tensor *ablation_cam(gc_run *run, const char *layer)
{
    gc_perturb_options o = {0};
    gc_perturb_report report = {0};
    gc_error err = {0};
    gc_tensor_desc d = {0};
    gc_tensor *activation;
    float *map;
    need(gc_run_prepare(run, &err), &err);
    need(gc_run_describe(run, layer, &d, &err), &err);
    if (d.ndim != 4) {
        fprintf(stderr, "layer \"%s\" is no feature map [1, C, H, W]\n", layer);
        exit(1);
    }
    float *scores = malloc((size_t)(d.shape[1] + 1) * sizeof *scores);
    gc_tensor *out = tensor(gc_run_ctx(run), 3, (int64_t[3]){1, d.shape[2], d.shape[3]}, &map);
    o.kind = GRADCAM_PERTURB_ABLATE; /* channel i in variant i */
    o.value = layer;
    o.count = d.shape[1];
    o.report = &report;
    if (scores == NULL) {
        exit(1);
    }
    need(gc_perturb_scores(run, &o, NULL, scores, (size_t)o.count, &err), &err);
    need(gc_run_value(run, layer, &activation, &err), &err); /* perturbed values stay watched */
    gc_tensor_describe(activation, &d);
    for (int64_t p = 0; p < d.shape[2] * d.shape[3]; p++) {
        const float *a = (const float *)d.data + p / d.shape[3] * d.strides[2] + p % d.shape[3] * d.strides[3];
        double sum = 0.0;
        for (int64_t k = 0; k < d.shape[1]; k++) {
            sum += (report.score - (double)scores[k]) / report.score * (double)a[k * d.strides[1]];
        }
        map[p] = sum > 0.0 ? (float)sum : 0.0f;
    }
    free(scores);
    return out;
}

/* The map at the picture's size, from black to white. */
static void write_map(gc_run *run, const char *path, const gc_tensor *map, const int64_t *shape)
{
    gc_error err = {0};
    float *large;
    gc_tensor *t = tensor(gc_run_ctx(run), 3, (int64_t[3]){1, shape[2], shape[3]}, &large);
    need(gc_map_resize(map, GRADCAM_RESIZE_BILINEAR, t, &err), &err);
    need(gc_map_normalize(t, &err), &err);
    FILE *file = fopen(path, "wb");
    if (file == NULL || fprintf(file, "P5 %d %d 255\n", (int)shape[3], (int)shape[2]) < 0) {
        perror(path);
        exit(1);
    }
    for (int64_t i = 0; i < shape[2] * shape[3]; i++) {
        fputc((int)(large[i] * 255.0f + 0.5f), file);
    }
    fclose(file);
    gc_tensor_unref(t);
}

int main(int argc, char **argv)
{
    gc_ctx_options threads = {0};
    gc_ctx *ctx = NULL;
    gc_net *net = NULL;
    gc_run *run = NULL;
    gc_error err = {0};
    int64_t shape[4];
    float *hidden;
    if (argc != 6) {
        fprintf(stderr, "usage: %s network.onnx picture.ppm layer occlusion.pgm ablation.pgm\n", argv[0]);
        return 2;
    }
    threads.n_threads = 2;
    need(gc_ctx_create(&threads, &ctx, &err), &err);
    need(gc_net_load_file(ctx, argv[1], NULL, &net, &err), &err);
    need(gc_run_create(net, &run, &err), &err);
    gc_tensor *image = read_picture(ctx, argv[2], shape);
    need(gc_run_set_input(run, NULL, image, &err), &err);

    gc_tensor *map = tensor(ctx, 3, (int64_t[3]){1, shape[2], shape[3]}, &hidden);
    occlusion(run, shape, hidden);
    write_map(run, argv[4], map, shape);
    gc_tensor *cam = ablation_cam(run, argv[3]);
    write_map(run, argv[5], cam, shape);

    gc_tensor_unref(cam);
    gc_tensor_unref(map);
    gc_tensor_unref(image);
    gc_run_destroy(run);
    gc_net_unref(net);
    gc_ctx_unref(ctx);
    return 0;
}
