/* SPDX-License-Identifier: MIT */
/*
 * Where did the network look?  Prints the best class of a picture and the
 * place that speaks most for it.
 *
 *   cc peak.c $(pkg-config --cflags --libs gradcam) -o peak
 *   ./peak network.onnx picture.ppm
 *
 * The picture is a binary PPM of the size that the network takes; it is handed
 * over as RGB in 0..1.  Networks trained on other ranges want other numbers.
 */
#include <gradcam/gradcam.h>

#include <stdio.h>
#include <stdlib.h>

/* Everything that lives through main; zero at first, so that it can be released at any time. */
typedef struct program {
    gc_ctx *ctx;
    gc_net *net;
    gc_run *run;
    gc_tensor *image; /* [1, 3, height, width] */
    gc_tensor *map;   /* Grad-CAM at the layer's resolution, [1, h, w] */
    gc_tensor *large; /* the same at the picture's, [1, height, width] */
    gc_report report;
    gc_error err;
} program;

static gc_status new_tensor(program *p, int32_t ndim, int64_t channels, int64_t height, int64_t width, gc_tensor **out)
{
    gc_tensor_desc desc = {0}; /* data is NULL: the library allocates it, zeroed */
    int32_t i = 0;
    desc.dtype = GRADCAM_F32;
    desc.ndim = ndim;
    desc.shape[i++] = 1;
    if (ndim == 4) {
        desc.shape[i++] = channels;
    }
    desc.shape[i++] = height;
    desc.shape[i] = width;
    return gc_tensor_create(p->ctx, &desc, out, &p->err);
}

/* Planes of red, green and blue from interleaved bytes. */
static int read_pixels(FILE *file, const gc_tensor *image)
{
    gc_tensor_desc d = {0};
    gc_tensor_describe(image, &d);
    float *planes = d.data;
    const int64_t plane = d.shape[2] * d.shape[3];
    for (int64_t k = 0; k < 3 * plane; k++) {
        const int byte = fgetc(file);
        if (byte == EOF) {
            return -1;
        }
        planes[k % 3 * plane + k / 3] = (float)byte / 255.0f;
    }
    return 0;
}

static gc_status read_picture(program *p, const char *path)
{
    int width = 0, height = 0;
    gc_status status = GRADCAM_E_IO;
    FILE *file = fopen(path, "rb");
    if (file != NULL && fscanf(file, "P6 %d %d 255", &width, &height) == 2 && fgetc(file) != EOF) {
        status = new_tensor(p, 4, 3, height, width, &p->image);
        if (status == GRADCAM_OK && read_pixels(file, p->image) != 0) {
            status = GRADCAM_E_IO;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    if (status == GRADCAM_E_IO) {
        snprintf(p->err.message, sizeof p->err.message, "%s: not a binary PPM with 8 bits a sample", path);
    }
    return status;
}

/* Grad-CAM of the best class at the layer that the library finds, then enlarged. */
static gc_status explain(program *p)
{
    gc_explain_options options = {0};
    gc_tensor_desc d = {0};
    options.report = &p->report;
    gc_tensor_describe(p->image, &d);
    gc_status status = gc_gradcam(p->run, &options, &p->map, &p->err);
    if (status == GRADCAM_OK) {
        status = new_tensor(p, 3, 0, d.shape[2], d.shape[3], &p->large);
    }
    return status == GRADCAM_OK ? gc_map_resize(p->map, GRADCAM_RESIZE_BILINEAR, p->large, &p->err) : status;
}

static void print_peak(const program *p)
{
    gc_tensor_desc d = {0};
    gc_tensor_describe(p->large, &d);
    const float *map = d.data;
    int64_t best = 0;
    for (int64_t k = 1; k < d.shape[1] * d.shape[2]; k++) {
        best = map[k] > map[best] ? k : best;
    }
    printf("class %lld, score %.3f, layer %s, peak at x %lld, y %lld\n", (long long)p->report.index, p->report.score,
           p->report.layer, (long long)(best % d.shape[2]), (long long)(best / d.shape[2]));
    if (p->report.warnings & GRADCAM_WARN_EMPTY) {
        puts("the map is empty: nothing speaks for this class");
    }
}

static gc_status work(program *p, const char *model, const char *picture)
{
    gc_status status = gc_ctx_create(NULL, &p->ctx, &p->err);
    if (status == GRADCAM_OK) {
        status = gc_net_load_file(p->ctx, model, NULL, &p->net, &p->err);
    }
    if (status == GRADCAM_OK) {
        status = gc_run_create(p->net, &p->run, &p->err);
    }
    if (status == GRADCAM_OK) {
        status = read_picture(p, picture);
    }
    if (status == GRADCAM_OK) {
        status = gc_run_set_input(p->run, NULL, p->image, &p->err);
    }
    return status == GRADCAM_OK ? explain(p) : status;
}

int main(int argc, char **argv)
{
    static program p;
    if (argc != 3) {
        fprintf(stderr, "usage: peak network.onnx picture.ppm\n");
        return 2;
    }
    const gc_status status = work(&p, argv[1], argv[2]);
    if (status == GRADCAM_OK) {
        print_peak(&p);
    } else {
        fprintf(stderr, "peak: %s: %s\n", gc_status_name(status), p.err.message);
    }
    gc_tensor_unref(p.large);
    gc_tensor_unref(p.map);
    gc_tensor_unref(p.image);
    gc_run_destroy(p.run);
    gc_net_unref(p.net);
    gc_ctx_unref(p.ctx);
    return status == GRADCAM_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
