/* SPDX-License-Identifier: MIT */
/* The one option parser of the command, and its way to report. */
#ifndef GRADCAM_CLI_CMD_OPTS_H
#define GRADCAM_CLI_CMD_OPTS_H

#include <gradcam/gradcam.h>
#include <stdio.h>

enum { CLI_OK = 0, CLI_REFUSED = 1, CLI_USAGE = 2 };
enum { CMD_INFO = 1, CMD_RUN = 2, CMD_EXPLAIN = 4, CMD_PREDICT = 8, CMD_BENCH = 16 };

struct cli_list {
    const char **item;
    size_t count;
};

/* What the command line said; zero or NULL: not said. */
struct cli_args {
    const char *positional[2];
    int n_positional;
    struct cli_list input, shape, value, grad;
    const char *fill, *seed, *target, *out, *method, *labels, *layer;
    const char *preprocess, *output, *raw, *colormap, *kernels, *precision;
    int64_t threads, resize, crop, top, batch;
    double seconds;
    int json, help;
};

struct cli_command {
    const char *name;
    unsigned mask;
    int min_positional, max_positional;
    const char *synopsis;
    const char *about;
    int (*run)(const struct cli_args *args);
};

int cli_parse(const struct cli_command *cmd, int argc, char **argv, struct cli_args *args);
void cli_args_free(struct cli_args *args);
void cli_print_help(const struct cli_command *cmd);

/* Print "gradcam: ..." on stderr and return CLI_REFUSED or CLI_USAGE. */
#if defined(__GNUC__)
#define CLI_PRINTF __attribute__((format(printf, 1, 2)))
#else
#define CLI_PRINTF
#endif
int cli_fail(const char *format, ...) CLI_PRINTF;
int cli_usage(const char *format, ...) CLI_PRINTF;
int cli_fail_memory(void);

/* Whole-string numbers; 1 on success. */
int cli_parse_int(const char *text, int64_t min, int64_t max, int64_t *out);
int cli_parse_double(const char *text, double *out);

void cli_json_string(FILE *f, const char *s);
double cli_now(void);

int cmd_info(const struct cli_args *args);
int cmd_run(const struct cli_args *args);
int cmd_explain(const struct cli_args *args);
int cmd_predict(const struct cli_args *args);
int cmd_bench(const struct cli_args *args);

#endif
