/* SPDX-License-Identifier: MIT */
/* gradcam explain: the four methods, their report and their picture. */
#include "cmd_draw.h"
#include "cmd_photo.h"
#include "png_store.h"

#include <math.h>
#include <string.h>

typedef gc_status (*method_fn)(gc_run *run, const gc_explain_options *options, gc_tensor **map, gc_error *err);
struct method {
    const char *name, *title;
    method_fn fn;
    int is_gradient; /* the map has the input's shape */
};
static const struct method methods[] = {
    {"cam", "CAM", gc_cam, 0},
    {"gradcam", "Grad-CAM", gc_gradcam, 0},
    {"guided-backprop", "Guided backprop", gc_guided_backprop, 1},
    {"guided-gradcam", "Guided Grad-CAM", gc_guided_gradcam, 1},
};
enum { N_METHODS = (int)(sizeof methods / sizeof methods[0]), MAX_PANELS = N_METHODS + 1 };

struct result {
    const struct method *method;
    gc_tensor *map; /* NULL: this network has no such map; see why.message */
    gc_report report;
    gc_error why;
};

struct job {
    const struct cli_args *args;
    struct cli_net cn;
    struct cli_photo photo;
    struct cli_labels labels;
    struct result results[N_METHODS];
    int n_results;
    int colors;
};

/* ---- running ---- */

static int run_method(struct job *job, struct result *r, const gc_explain_options *base, int may_lack)
{
    gc_explain_options options = *base;
    r->why = cli_error();
    options.report = &r->report;
    gc_status st = r->method->fn(job->cn.run, &options, &r->map, &r->why);
    if (st == GRADCAM_OK || (may_lack && st == GRADCAM_E_UNSUPPORTED))
        return CLI_OK;
    return cli_net_refuse(may_lack ? r->method->name : NULL, st, &r->why);
}

static int run_methods(struct job *job)
{
    gc_explain_options options;
    gc_target target;
    memset(&options, 0, sizeof options);
    memset(&target, 0, sizeof target);
    options.layer = job->args->layer;
    if (job->photo.input >= 0)
        options.input = gc_net_input_name(job->cn.net, job->photo.input);
    if (job->args->target) {
        int rc = cli_labels_target(&job->labels, job->args->target, &target.index);
        if (rc)
            return rc;
        target.kind = GRADCAM_TARGET_CLASS;
        options.target = &target;
    }
    int rc = CLI_OK;
    for (int i = 0; i < job->n_results && !rc; i++)
        rc = run_method(job, &job->results[i], &options, job->n_results > 1);
    return rc;
}

/* ---- reporting ---- */

static const struct {
    uint32_t bit;
    const char *id, *text;
} warnings[] = {
    {GRADCAM_WARN_EMPTY, "empty", "the map is zero everywhere"},
    {GRADCAM_WARN_CONSTANT, "constant", "the map has one value"},
    {GRADCAM_WARN_NAN, "nan", "the map holds NaN or infinity"},
    {GRADCAM_WARN_NOT_CONNECTED, "not-connected", "no gradient path from the target to the layer"},
    {GRADCAM_WARN_NO_SPATIAL, "no-spatial", "the layer has no spatial extent"},
};
enum { N_WARNINGS = (int)(sizeof warnings / sizeof warnings[0]) };

static void print_text(const struct job *job, const struct result *r)
{
    const char *label = cli_labels_name(&job->labels, r->report.index);
    printf("method  %s\n", r->method->name);
    if (!r->map) {
        printf("note    left out: %s\n", r->why.message);
        return;
    }
    printf("layer   %s\nclass   %lld%s%s\nscore   %.6g\n", r->report.layer ? r->report.layer : "-",
           (long long)r->report.index, label ? " " : "", label ? label : "", r->report.score);
    for (int i = 0; i < N_WARNINGS; i++)
        if (r->report.warnings & warnings[i].bit)
            printf("warning %s\n", warnings[i].text);
}

static void print_string(const char *key, const char *value)
{
    printf(", \"%s\": ", key);
    if (value)
        cli_json_string(stdout, value);
    else
        fputs("null", stdout);
}

static void print_json(const struct job *job, const struct result *r)
{
    const char *comma = "";
    printf("{\"method\": \"%s\"", r->method->name);
    if (!r->map) {
        print_string("unsupported", r->why.message);
        putchar('}');
        return;
    }
    print_string("layer", r->report.layer);
    print_string("output", r->report.output);
    printf(", \"class\": %lld", (long long)r->report.index);
    print_string("label", cli_labels_name(&job->labels, r->report.index));
    if (isfinite(r->report.score))
        printf(", \"score\": %.9g", r->report.score);
    else
        print_string("score", NULL);
    fputs(", \"warnings\": [", stdout);
    for (int i = 0; i < N_WARNINGS; i++)
        if (r->report.warnings & warnings[i].bit) {
            printf("%s\"%s\"", comma, warnings[i].id);
            comma = ", ";
        }
    fputs("]}", stdout);
}

static void print_results(const struct job *job)
{
    int json = job->args->json;
    fputs(json ? "[" : "", stdout);
    for (int i = 0; i < job->n_results; i++) {
        fputs(!i ? "" : json ? ",\n " : "\n", stdout);
        (json ? print_json : print_text)(job, &job->results[i]);
    }
    fputs(json ? "]\n" : "", stdout);
}

/* ---- drawing ---- */

/* The first sample of `map` at the photo's size, in 0..1. */
static int spread_map(struct job *job, gc_tensor *map, gc_tensor **out)
{
    gc_error err = cli_error();
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    gc_tensor_describe(map, &d);
    if (d.ndim != 3)
        return cli_fail("the map has %d spatial dimensions; a picture wants 2; use --raw", (int)d.ndim - 1);
    int64_t shape[3] = {d.shape[0], job->photo.seen.height, job->photo.seen.width};
    int rc = cli_tensor_new(job->cn.ctx, GRADCAM_F32, 3, shape, out);
    if (rc)
        return rc;
    gc_status st = gc_map_resize(map, GRADCAM_RESIZE_BILINEAR, *out, &err);
    if (!st)
        st = gc_map_normalize(*out, &err);
    return st ? cli_net_refuse("picture", st, &err) : CLI_OK;
}

static int draw_map(struct job *job, const struct result *r, cli_image *panel)
{
    gc_tensor *wide = NULL;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    int rc = spread_map(job, r->map, &wide);
    if (!rc) {
        gc_tensor_describe(wide, &d);
        rc = cli_draw_overlay(&job->photo.seen, d.data, job->colors, panel);
    }
    if (wide)
        gc_tensor_unref(wide);
    return rc;
}

static int draw_gradient(struct job *job, const struct result *r, cli_image *panel)
{
    gc_tensor *dense = NULL;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    int rc = cli_tensor_as(job->cn.ctx, r->map, GRADCAM_F32, &dense);
    if (rc)
        return rc;
    gc_tensor_describe(dense, &d);
    if (d.ndim == 4 && d.shape[2] == job->photo.seen.height && d.shape[3] == job->photo.seen.width)
        rc = cli_draw_gradient(d.data, (int)d.shape[1], job->photo.seen.width, job->photo.seen.height, job->photo.bgr,
                               panel);
    else
        rc = cli_fail("the gradient is no picture; use --raw");
    gc_tensor_unref(dense);
    return rc;
}

static int draw_result(struct job *job, const struct result *r, cli_image *image)
{
    return r->method->is_gradient ? draw_gradient(job, r, image) : draw_map(job, r, image);
}

static int write_image(const cli_image *image, const char *path)
{
    char msg[512];
    if (png_store_write(path, image->rgb, image->width, image->height, msg, sizeof msg))
        return cli_fail("%s", msg);
    return CLI_OK;
}

static int write_single(struct job *job, const char *path)
{
    cli_image image = {0, 0, NULL};
    int rc = draw_result(job, &job->results[0], &image);
    if (!rc)
        rc = write_image(&image, path);
    cli_image_free(&image);
    return rc;
}

static int write_sheet(struct job *job, const char *path)
{
    struct cli_panel panels[MAX_PANELS];
    cli_image sheet = {0, 0, NULL};
    int rc = CLI_OK, count = 1;
    memset(panels, 0, sizeof panels);
    panels[0].image = job->photo.seen; /* lent */
    panels[0].title = "Input";
    for (int i = 0; i < job->n_results && !rc; i++)
        if (job->results[i].map) {
            panels[count].title = job->results[i].method->title;
            rc = draw_result(job, &job->results[i], &panels[count++].image);
        }
    if (!rc)
        rc = cli_draw_sheet(panels, count, &sheet);
    if (!rc)
        rc = write_image(&sheet, path);
    cli_image_free(&sheet);
    for (int i = 1; i < count; i++)
        cli_image_free(&panels[i].image);
    return rc;
}

static int write_picture(struct job *job, const char *path)
{
    if (!job->photo.seen.rgb)
        return cli_fail("--output: the network's input is no picture [N, 1 or 3, H, W]; use --raw");
    return job->n_results > 1 ? write_sheet(job, path) : write_single(job, path);
}

/* ---- the command ---- */

static int choose_methods(struct job *job)
{
    const char *name = job->args->method ? job->args->method : "gradcam";
    for (int i = 0; i < N_METHODS; i++)
        if (strcmp(name, "all") == 0 || strcmp(name, methods[i].name) == 0)
            job->results[job->n_results++].method = &methods[i];
    job->colors = cli_colormap_find(job->args->colormap);
    if (!job->n_results)
        return cli_usage("--method %s: wants cam, gradcam, guided-backprop, guided-gradcam or all", name);
    if (job->colors < 0)
        return cli_usage("--colormap %s: wants viridis, turbo or jet", job->args->colormap);
    if (job->args->raw && job->n_results > 1)
        return cli_usage("--raw wants one method, not all");
    if (!job->args->positional[1] && !job->args->input.count)
        return cli_usage("explain wants an IMAGE or --input FILE.npy");
    return CLI_OK;
}

static void compare_labels(struct job *job)
{
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    if (job->args->labels && !gc_run_describe(job->cn.run, gc_net_output_name(job->cn.net, 0), &d, NULL) && d.ndim > 1)
        cli_labels_compare(&job->labels, job->args->labels, d.shape[1]);
}

static int explain(struct job *job)
{
    const char *image = job->args->positional[1];
    const char *output = job->args->output ? job->args->output : image ? "explain.png" : NULL;
    int rc = cli_labels_load(&job->labels, job->args->labels);
    if (!rc)
        rc = cli_net_open(&job->cn, job->args);
    if (!rc)
        rc = cli_photo_bind(&job->cn, job->args, image, &job->photo);
    if (!rc && !image && output)
        rc = cli_photo_watch(&job->cn, &job->photo);
    if (!rc)
        rc = run_methods(job);
    if (!rc && job->args->raw)
        rc = cli_tensor_save(job->cn.ctx, job->args->raw, job->results[0].map);
    if (!rc && !image && output)
        rc = cli_photo_from_input(&job->cn, &job->photo);
    if (!rc && output)
        rc = write_picture(job, output);
    if (!rc) {
        compare_labels(job);
        print_results(job);
    }
    return rc;
}

int cmd_explain(const struct cli_args *args)
{
    struct job job;
    memset(&job, 0, sizeof job);
    job.args = args;
    int rc = choose_methods(&job);
    if (!rc)
        rc = explain(&job);
    for (int i = 0; i < job.n_results; i++)
        if (job.results[i].map)
            gc_tensor_unref(job.results[i].map);
    cli_photo_free(&job.photo);
    cli_labels_free(&job.labels);
    cli_net_close(&job.cn);
    return rc;
}
