/* SPDX-License-Identifier: MIT */
/* gradcam info: what a network is made of. */
#include "net_io.h"

#include <stdlib.h>
#include <string.h>

static const char *const dtype_names[] = {"?", "f32", "f64", "f16", "bf16", "i64", "i32", "u8", "bool"};

static void print_input(const gc_net *net, int32_t k)
{
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    printf("input  %s", gc_net_input_name(net, k));
    if (gc_net_input_desc(net, k, &d) != GRADCAM_OK) {
        putchar('\n');
        return;
    }
    printf("  %s [", d.dtype >= 1 && d.dtype <= GRADCAM_BOOL ? dtype_names[d.dtype] : "?");
    if (d.ndim < 0)
        fputs("unknown rank", stdout);
    for (int i = 0; i < d.ndim; i++) {
        fputs(i ? ", " : "", stdout);
        if (d.shape[i] < 0)
            putchar('?');
        else
            printf("%lld", (long long)d.shape[i]);
    }
    puts("]");
}

static void print_node(const gc_net *net, int32_t k)
{
    const char *name = gc_net_node_name(net, k);
    printf("%5d  %-20s %s ->", (int)k, gc_net_node_op(net, k), name && *name ? name : "-");
    for (int32_t i = 0; i < gc_net_node_output_count(net, k); i++) {
        const char *out = gc_net_node_output(net, k, i);
        printf(" %s", out && *out ? out : "-");
    }
    putchar('\n');
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int print_operators(const gc_net *net)
{
    size_t n = (size_t)gc_net_node_count(net);
    const char **ops = malloc((n + 1) * sizeof *ops);
    if (!ops)
        return cli_fail_memory();
    for (size_t i = 0; i < n; i++)
        ops[i] = gc_net_node_op(net, (int32_t)i);
    qsort(ops, n, sizeof *ops, by_name);
    puts("\noperators");
    for (size_t i = 0, j; i < n; i = j) {
        for (j = i; j < n && strcmp(ops[i], ops[j]) == 0; j++)
            continue;
        printf("%5zu  %s\n", j - i, ops[i]);
    }
    free(ops);
    return CLI_OK;
}

static int print_net(const gc_net *net)
{
    for (int32_t k = 0; k < gc_net_input_count(net); k++)
        print_input(net, k);
    for (int32_t k = 0; k < gc_net_output_count(net); k++)
        printf("output %s\n", gc_net_output_name(net, k));
    printf("\nnodes  %d\n", (int)gc_net_node_count(net));
    for (int32_t k = 0; k < gc_net_node_count(net); k++)
        print_node(net, k);
    return print_operators(net);
}

int cmd_info(const struct cli_args *args)
{
    struct cli_net cn;
    int rc = cli_net_open(&cn, args);
    if (!rc)
        rc = print_net(cn.net);
    cli_net_close(&cn);
    return rc;
}
