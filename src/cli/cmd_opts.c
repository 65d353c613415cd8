/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "cmd_opts.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum kind { K_FLAG, K_TEXT, K_LIST, K_INT, K_SECONDS };
struct option {
    const char *name;
    const char *arg; /* NULL for a flag */
    const char *help;
    size_t offset;
    unsigned mask;
    enum kind kind;
    int64_t min, max; /* of K_INT */
};

#define AT(field) offsetof(struct cli_args, field)
#define PHOTO (CMD_EXPLAIN | CMD_PREDICT)
#define ALL (CMD_INFO | CMD_RUN | CMD_EXPLAIN | CMD_PREDICT | CMD_BENCH)
static const struct option options[] = {
    {"--input", "[NAME=]FILE.npy", "an input; the name may be left out where there is one", AT(input),
     CMD_RUN | CMD_EXPLAIN, K_LIST, 0, 0},
    {"--shape", "NAME=1x3x224x224", "shape of an input that is filled", AT(shape), CMD_RUN | CMD_BENCH | CMD_INFO,
     K_LIST, 0, 0},
    {"--fill", "V", "fill every input that is not given with V", AT(fill), CMD_RUN, K_TEXT, 0, 0},
    {"--seed", "OUTPUT=FILE.npy", "backward from this gradient at an output or inner value", AT(seed), CMD_RUN, K_TEXT,
     0, 0},
    {"--target", "OUTPUT:INDEX", "backward from one element of an output or inner value", AT(target), CMD_RUN, K_TEXT,
     0, 0},
    {"--value", "NAME", "write this value too", AT(value), CMD_RUN, K_LIST, 0, 0},
    {"--grad", "NAME", "write the gradient at this value", AT(grad), CMD_RUN, K_LIST, 0, 0},
    {"--out", "DIR", "where the arrays and index.json go", AT(out), CMD_RUN, K_TEXT, 0, 0},
    {"--method", "METHOD", "cam, gradcam, guided-backprop, guided-gradcam or all (gradcam)", AT(method), CMD_EXPLAIN,
     K_TEXT, 0, 0},
    {"--method", "METHOD", "forward, gradcam or guided-backprop (forward)", AT(method), CMD_BENCH, K_TEXT, 0, 0},
    {"--target", "INDEX|LABEL", "the class to explain (the best one)", AT(target), CMD_EXPLAIN, K_TEXT, 0, 0},
    {"--labels", "FILE", "names of the classes, one a line", AT(labels), PHOTO, K_TEXT, 0, 0},
    {"--layer", "NAME", "value or node (the deepest spatial map)", AT(layer), CMD_EXPLAIN, K_TEXT, 0, 0},
    {"--preprocess", "KIND", "caffe, unit, imagenet, zero-one or raw (imagenet)", AT(preprocess), PHOTO, K_TEXT, 0, 0},
    {"--resize", "N", "resize the short side to N first (the crop's side)", AT(resize), PHOTO, K_INT, 1, 16384},
    {"--crop", "N", "cut the centre N x N out, then fit it to the network", AT(crop), PHOTO, K_INT, 1, 16384},
    {"--output", "PNG", "the picture (explain.png for an image)", AT(output), CMD_EXPLAIN, K_TEXT, 0, 0},
    {"--raw", "NPY", "write the raw map as float32 .npy", AT(raw), CMD_EXPLAIN, K_TEXT, 0, 0},
    {"--colormap", "NAME", "viridis, turbo or jet (turbo)", AT(colormap), CMD_EXPLAIN, K_TEXT, 0, 0},
    {"--top", "N", "how many classes to print (5)", AT(top), CMD_PREDICT, K_INT, 1, 100000},
    {"--seconds", "S", "how long to measure (2)", AT(seconds), CMD_BENCH, K_SECONDS, 0, 0},
    {"--batch", "N", "samples per pass, where the network leaves it open (1)", AT(batch), CMD_BENCH, K_INT, 1, 65536},
    {"--threads", "N", "threads (as many as there are processors)", AT(threads), ALL, K_INT, 1, 256},
    {"--kernels", "NAME", "avx512, avx2, v4 or plain (the best that the machine can run)", AT(kernels), ALL, K_TEXT, 0,
     0},
    {"--precision", "NAME", "f32 or bf16, where the machine can (f32)", AT(precision),
     CMD_RUN | CMD_EXPLAIN | CMD_PREDICT | CMD_BENCH, K_TEXT, 0, 0},
    {"--json", NULL, "print JSON", AT(json), CMD_EXPLAIN | CMD_BENCH | CMD_INFO, K_FLAG, 0, 0},
    {"--help", NULL, "print this", AT(help), ALL, K_FLAG, 0, 0},
};
enum { N_OPTIONS = (int)(sizeof options / sizeof options[0]) };

static int report(int status, const char *format, va_list ap)
{
    fputs("gradcam: ", stderr);
    vfprintf(stderr, format, ap);
    fputc('\n', stderr);
    return status;
}

int cli_fail(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    report(CLI_REFUSED, format, ap);
    va_end(ap);
    return CLI_REFUSED;
}

int cli_usage(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    report(CLI_USAGE, format, ap);
    va_end(ap);
    return CLI_USAGE;
}

int cli_fail_memory(void)
{
    return cli_fail("out of memory");
}

int cli_parse_int(const char *text, int64_t min, int64_t max, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || errno || v < min || v > max)
        return 0;
    *out = (int64_t)v;
    return 1;
}

int cli_parse_double(const char *text, double *out)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end)
        return 0;
    *out = v;
    return 1;
}

static const struct option *find_option(const char *arg, size_t length, unsigned mask)
{
    for (int i = 0; i < N_OPTIONS; i++) {
        const struct option *o = &options[i];
        if ((o->mask & mask) && strlen(o->name) == length && strncmp(o->name, arg, length) == 0)
            return o;
    }
    return NULL;
}

static int store_seconds(double *slot, const char *text)
{
    double v;
    if (!cli_parse_double(text, &v) || !isfinite(v) || v <= 0 || v > 86400)
        return cli_usage("--seconds wants a positive number, not '%s'", text);
    *slot = v;
    return CLI_OK;
}

static int store_int(const struct option *o, int64_t *slot, const char *text)
{
    if (!cli_parse_int(text, o->min, o->max, slot))
        return cli_usage("%s wants a number from %lld to %lld, not '%s'", o->name, (long long)o->min, (long long)o->max,
                         text);
    return CLI_OK;
}

static int store(const struct option *o, struct cli_args *args, const char *text)
{
    void *slot = (char *)args + o->offset;
    if (o->kind == K_FLAG)
        *(int *)slot = 1;
    else if (o->kind == K_TEXT)
        *(const char **)slot = text;
    else if (o->kind == K_INT)
        return store_int(o, slot, text);
    else if (o->kind == K_SECONDS)
        return store_seconds(slot, text);
    else {
        struct cli_list *list = slot;
        list->item[list->count++] = text;
    }
    return CLI_OK;
}

/* Takes argv[*i], and argv[*i + 1] where the option's argument is there. */
static int take_option(const struct cli_command *cmd, int argc, char **argv, int *i, struct cli_args *args)
{
    const char *arg = argv[*i];
    const char *eq = strchr(arg, '=');
    const struct option *o = find_option(arg, eq ? (size_t)(eq - arg) : strlen(arg), cmd->mask);
    if (!o)
        return cli_usage("%s: unknown option '%s'; see gradcam %s --help", cmd->name, arg, cmd->name);
    if (o->kind == K_FLAG)
        return eq ? cli_usage("%s takes no argument", o->name) : store(o, args, NULL);
    if (eq)
        return store(o, args, eq + 1);
    if (*i + 1 >= argc)
        return cli_usage("%s wants an argument: %s", o->name, o->arg);
    return store(o, args, argv[++*i]);
}

static int take_positional(const struct cli_command *cmd, struct cli_args *args, const char *text)
{
    if (args->n_positional >= cmd->max_positional)
        return cli_usage("%s: unexpected argument '%s'", cmd->name, text);
    args->positional[args->n_positional++] = text;
    return CLI_OK;
}

static int alloc_lists(struct cli_args *args, int argc)
{
    struct cli_list *lists[] = {&args->input, &args->shape, &args->value, &args->grad};
    for (int i = 0; i < 4; i++) {
        lists[i]->item = calloc((size_t)argc + 1, sizeof *lists[i]->item);
        if (!lists[i]->item)
            return cli_fail_memory();
    }
    return CLI_OK;
}

int cli_parse(const struct cli_command *cmd, int argc, char **argv, struct cli_args *args)
{
    int rc = alloc_lists(args, argc);
    int only_positional = 0;
    for (int i = 0; i < argc && !rc; i++) {
        if (!only_positional && strcmp(argv[i], "--") == 0)
            only_positional = 1;
        else if (!only_positional && (strncmp(argv[i], "--", 2) == 0 || strcmp(argv[i], "-h") == 0))
            rc = strcmp(argv[i], "-h") == 0 ? (args->help = 1, CLI_OK) : take_option(cmd, argc, argv, &i, args);
        else
            rc = take_positional(cmd, args, argv[i]);
    }
    if (!rc && !args->help && args->n_positional < cmd->min_positional)
        rc = cli_usage("usage: gradcam %s %s", cmd->name, cmd->synopsis);
    return rc;
}

void cli_args_free(struct cli_args *args)
{
    free(args->input.item);
    free(args->shape.item);
    free(args->value.item);
    free(args->grad.item);
}

void cli_print_help(const struct cli_command *cmd)
{
    printf("usage: gradcam %s %s\n\n%s\n\n", cmd->name, cmd->synopsis, cmd->about);
    for (int i = 0; i < N_OPTIONS; i++) {
        const struct option *o = &options[i];
        if (!(o->mask & cmd->mask))
            continue;
        char head[64];
        snprintf(head, sizeof head, "%s %s", o->name, o->arg ? o->arg : "");
        printf("  %-26s %s\n", head, o->help);
    }
}

void cli_json_string(FILE *f, const char *s)
{
    fputc('"', f);
    for (; s && *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            fprintf(f, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            fprintf(f, "\\u%04x", c);
        else
            fputc(c, f);
    }
    fputc('"', f);
}

double cli_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
