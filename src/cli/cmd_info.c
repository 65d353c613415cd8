/* SPDX-License-Identifier: MIT */
/* gradcam info: what a network is made of, what it costs, where to look. */
#include "cmd_info.h"

#include <stdlib.h>
#include <string.h>

/* ---- gathering ---- */

static void fill_zero(void *user, float *dst, size_t count)
{
    (void)user;
    memset(dst, 0, count * sizeof *dst);
}

/* The first input that declares no rank and has no --shape, or -1. */
static int32_t shapeless(const struct info *in)
{
    for (int32_t k = 0; k < gc_net_input_count(in->cn.net); k++) {
        gc_tensor_desc d;
        const char *name = gc_net_input_name(in->cn.net, k);
        size_t length = strlen(name);
        int given = 0;
        memset(&d, 0, sizeof d);
        for (size_t i = 0; i < in->args->shape.count; i++) {
            const char *spec = in->args->shape.item[i];
            given = given || (strncmp(spec, name, length) == 0 && spec[length] == '=');
        }
        if (!given && gc_net_input_desc(in->cn.net, k, &d) == GRADCAM_OK && d.ndim < 0)
            return k;
    }
    return -1;
}

static int list_layers(struct info *in)
{
    gc_error err = cli_error();
    size_t room = (size_t)gc_net_node_count(in->cn.net) + 1;
    in->layers = malloc(room * sizeof *in->layers);
    if (!in->layers)
        return cli_fail_memory();
    gc_status st = gc_candidate_layers(in->cn.run, NULL, in->layers, room, &in->n_layers, &err);
    if (st)
        in->n_layers = 0; /* a network without floating outputs has no layers */
    return CLI_OK;
}

/* Shapes want a prepared run.  A network that cannot be prepared at these
   shapes is described without them, with a note why. */
static int prepare(struct info *in)
{
    gc_error err = cli_error();
    int32_t k = shapeless(in);
    if (k >= 0) {
        snprintf(in->note, sizeof in->note, "input %s declares no shape; give --shape %s=1x3x224x224",
                 gc_net_input_name(in->cn.net, k), gc_net_input_name(in->cn.net, k));
        return CLI_OK;
    }
    in->cn.open_side = 224;
    int rc = cli_net_bind_rest(&in->cn, in->args, 0, fill_zero, NULL);
    if (rc)
        return rc;
    if (gc_run_prepare(in->cn.run, &err)) {
        snprintf(in->note, sizeof in->note, "%s; give other shapes with --shape", err.message);
        return CLI_OK;
    }
    in->ready = 1;
    for (int32_t i = 0; i < gc_net_node_count(in->cn.net); i++) {
        int64_t flops = gc_run_node_flops(in->cn.run, i);
        in->flops += flops > 0 ? flops : 0;
    }
    return list_layers(in);
}

const char *info_shape(const struct info *in, const char *value, char *text, size_t size)
{
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    if (!in->ready || !value || !*value || gc_run_describe(in->cn.run, value, &d, NULL) != GRADCAM_OK)
        return NULL;
    return info_dims(&d, text, size);
}

const char *info_dims(const gc_tensor_desc *d, char *text, size_t size)
{
    size_t used = 1;
    snprintf(text, size, "[");
    for (int i = 0; i < d->ndim && used + 24 < size; i++) {
        int n = d->shape[i] < 0 ? snprintf(text + used, size - used, "%s?", i ? ", " : "")
                                : snprintf(text + used, size - used, "%s%lld", i ? ", " : "", (long long)d->shape[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    snprintf(text + used, size - used, "]");
    return text;
}

const char *info_dtype(gc_dtype dtype)
{
    static const char *const names[] = {"?", "f32", "f64", "f16", "bf16", "i64", "i32", "u8", "bool"};
    return dtype >= GRADCAM_F32 && dtype <= GRADCAM_BOOL ? names[dtype] : "?";
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int count_operators(struct info *in)
{
    size_t n = (size_t)gc_net_node_count(in->cn.net);
    in->ops = malloc((n + 1) * sizeof *in->ops);
    if (!in->ops)
        return cli_fail_memory();
    for (size_t i = 0; i < n; i++)
        in->ops[i] = gc_net_node_op(in->cn.net, (int32_t)i);
    qsort(in->ops, n, sizeof *in->ops, by_name);
    return CLI_OK;
}

size_t info_same_ops(const struct info *in, size_t first)
{
    size_t n = (size_t)gc_net_node_count(in->cn.net), i = first;
    while (i < n && strcmp(in->ops[i], in->ops[first]) == 0)
        i++;
    return i - first;
}

/* ---- as text ---- */

/* 1234567 -> 1.23 M */
static const char *scaled(int64_t v, char *text, size_t size)
{
    static const char *const units[] = {"", " k", " M", " G", " T", " P"};
    double x = (double)v;
    size_t unit = 0;
    while (x >= 1000 && unit + 1 < sizeof units / sizeof *units) {
        x /= 1000;
        unit++;
    }
    snprintf(text, size, unit ? "%.3g%s" : "%.0f%s", x, units[unit]);
    return text;
}

static void print_values(const struct info *in)
{
    const gc_net *net = in->cn.net;
    char text[INFO_TEXT];
    for (int32_t k = 0; k < gc_net_input_count(net); k++) {
        gc_tensor_desc d;
        memset(&d, 0, sizeof d);
        gc_net_input_desc(net, k, &d);
        printf("input   %s  %s %s", gc_net_input_name(net, k), info_dtype(d.dtype),
               d.ndim < 0 ? "of unknown rank" : info_dims(&d, text, sizeof text));
        const char *shape = info_shape(in, gc_net_input_name(net, k), text, sizeof text);
        printf("%s%s\n", shape ? ", here " : "", shape ? shape : "");
    }
    for (int32_t k = 0; k < gc_net_output_count(net); k++) {
        const char *shape = info_shape(in, gc_net_output_name(net, k), text, sizeof text);
        printf("output  %s%s%s\n", gc_net_output_name(net, k), shape ? "  " : "", shape ? shape : "");
    }
}

static void print_costs(const struct info *in)
{
    char text[INFO_TEXT];
    printf("weights %s\n", scaled(gc_net_parameter_count(in->cn.net), text, sizeof text));
    if (in->ready) {
        printf("flops   %s (2 a multiply-add, forward)\n", scaled(in->flops, text, sizeof text));
        printf("memory  %sB of activations in a forward pass\n",
               scaled((int64_t)gc_run_arena_bytes(in->cn.run), text, sizeof text));
    } else {
        printf("note    %s\n", in->note);
    }
}

static void print_node(const struct info *in, int32_t k)
{
    const gc_net *net = in->cn.net;
    const char *name = gc_net_node_name(net, k);
    char text[INFO_TEXT];
    int64_t flops = gc_run_node_flops(in->cn.run, k);
    printf("%5d  %-20s %8s  %s ->", (int)k, gc_net_node_op(net, k), flops > 0 ? scaled(flops, text, sizeof text) : "-",
           name && *name ? name : "-");
    for (int32_t i = 0; i < gc_net_node_output_count(net, k); i++) {
        const char *out = gc_net_node_output(net, k, i), *shape = info_shape(in, out, text, sizeof text);
        printf(" %s%s%s", out && *out ? out : "-", shape ? " " : "", shape ? shape : "");
    }
    putchar('\n');
}

static void print_text(const struct info *in)
{
    const gc_net *net = in->cn.net;
    char text[INFO_TEXT];
    print_values(in);
    print_costs(in);
    printf("\nnodes   %d: number, operator, flops, name -> outputs\n", (int)gc_net_node_count(net));
    for (int32_t k = 0; k < gc_net_node_count(net); k++)
        print_node(in, k);
    if (in->ready) {
        printf("\nlayers  %zu that a map can be drawn on, the deepest first; * is the default\n", in->n_layers);
        for (size_t i = 0; i < in->n_layers; i++)
            printf("    %c  %-20s %s %s\n", i ? ' ' : '*', gc_net_node_op(net, gc_net_producer(net, in->layers[i])),
                   in->layers[i], info_shape(in, in->layers[i], text, sizeof text));
    }
    puts("\noperators");
    for (size_t i = 0, n; (n = info_same_ops(in, i)) > 0; i += n)
        printf("%5zu  %s\n", n, in->ops[i]);
}

/* ---- the command ---- */

int cmd_info(const struct cli_args *args)
{
    struct info in;
    memset(&in, 0, sizeof in);
    in.args = args;
    int rc = cli_net_open(&in.cn, args);
    if (!rc)
        rc = prepare(&in);
    if (!rc)
        rc = count_operators(&in);
    if (!rc)
        (args->json ? info_print_json : print_text)(&in);
    free(in.layers);
    free(in.ops);
    cli_net_close(&in.cn);
    return rc;
}
