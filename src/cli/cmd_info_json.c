/* SPDX-License-Identifier: MIT */
/* gradcam info --json: one object. */
#include "cmd_info.h"

#include <string.h>

static void key_string(const char *before, const char *key, const char *value)
{
    printf("%s\"%s\": ", before, key);
    if (value && *value)
        cli_json_string(stdout, value);
    else
        fputs("null", stdout);
}

/* An array with null for open dimensions; null where nothing is known. */
static void key_dims(const char *key, const gc_tensor_desc *d)
{
    printf(", \"%s\": ", key);
    if (!d || d->ndim < 0) {
        fputs("null", stdout);
        return;
    }
    putchar('[');
    for (int i = 0; i < d->ndim; i++) {
        fputs(i ? ", " : "", stdout);
        if (d->shape[i] < 0)
            fputs("null", stdout);
        else
            printf("%lld", (long long)d->shape[i]);
    }
    putchar(']');
}

/* name and shape of a value, as members of an object that is open. */
static void value_members(const struct info *in, const char *name)
{
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    int known = in->ready && name && *name && gc_run_describe(in->cn.run, name, &d, NULL) == GRADCAM_OK;
    key_string("", "name", name);
    key_dims("shape", known ? &d : NULL);
    key_string(", ", "dtype", known ? info_dtype(d.dtype) : NULL);
}

static void print_inputs(const struct info *in)
{
    const gc_net *net = in->cn.net;
    fputs(",\n \"inputs\": [", stdout);
    for (int32_t k = 0; k < gc_net_input_count(net); k++) {
        gc_tensor_desc d;
        memset(&d, 0, sizeof d);
        gc_net_input_desc(net, k, &d);
        fputs(k ? ", {" : "{", stdout);
        value_members(in, gc_net_input_name(net, k));
        key_string(", ", "declared_dtype", info_dtype(d.dtype));
        key_dims("declared_shape", &d);
        putchar('}');
    }
    fputs("],\n \"outputs\": [", stdout);
    for (int32_t k = 0; k < gc_net_output_count(net); k++) {
        fputs(k ? ", {" : "{", stdout);
        value_members(in, gc_net_output_name(net, k));
        putchar('}');
    }
    putchar(']');
}

static void print_node(const struct info *in, int32_t k)
{
    const gc_net *net = in->cn.net;
    key_string(k ? ",\n  {" : "\n  {", "op", gc_net_node_op(net, k));
    key_string(", ", "name", gc_net_node_name(net, k));
    if (in->ready)
        printf(", \"flops\": %lld", (long long)gc_run_node_flops(in->cn.run, k));
    fputs(", \"inputs\": [", stdout);
    for (int32_t i = 0; i < gc_net_node_input_count(net, k); i++) {
        fputs(i ? ", " : "", stdout);
        cli_json_string(stdout, gc_net_node_input(net, k, i));
    }
    fputs("], \"outputs\": [", stdout);
    for (int32_t i = 0; i < gc_net_node_output_count(net, k); i++) {
        fputs(i ? ", {" : "{", stdout);
        value_members(in, gc_net_node_output(net, k, i));
        putchar('}');
    }
    fputs("]}", stdout);
}

static void print_layers(const struct info *in)
{
    fputs(",\n \"layers\": [", stdout);
    for (size_t i = 0; i < in->n_layers; i++) {
        fputs(i ? ", {" : "{", stdout);
        value_members(in, in->layers[i]);
        printf(", \"default\": %s}", i ? "false" : "true");
    }
    fputs("],\n \"operators\": {", stdout);
    for (size_t i = 0, n; (n = info_same_ops(in, i)) > 0; i += n) {
        fputs(i ? ", " : "", stdout);
        cli_json_string(stdout, in->ops[i]);
        printf(": %zu", n);
    }
    putchar('}');
}

void info_print_json(const struct info *in)
{
    key_string("{", "model", in->cn.path);
    printf(",\n \"parameters\": %lld", (long long)gc_net_parameter_count(in->cn.net));
    if (in->ready)
        printf(",\n \"flops\": %lld,\n \"arena_bytes\": %zu", (long long)in->flops, gc_run_arena_bytes(in->cn.run));
    else
        key_string(",\n ", "note", in->note);
    print_inputs(in);
    fputs(",\n \"nodes\": [", stdout);
    for (int32_t k = 0; k < gc_net_node_count(in->cn.net); k++)
        print_node(in, k);
    putchar(']');
    print_layers(in);
    fputs("}\n", stdout);
}
