/* SPDX-License-Identifier: MIT */
/* gradcam: the library at the command line. */
#include "cmd_opts.h"

#include <string.h>

static const struct cli_command commands[] = {
    {"explain", CMD_EXPLAIN, 1, 2, "MODEL [IMAGE] [options]",
     "Shows where a network looked: CAM, Grad-CAM, guided backprop, Guided Grad-CAM.", cmd_explain},
    {"predict", CMD_PREDICT, 2, 2, "MODEL IMAGE [options]", "Prints the best classes of an image.", cmd_predict},
    {"info", CMD_INFO, 1, 1, "MODEL [options]", "Prints a network's shapes, costs, nodes and layers.", cmd_info},
    {"run", CMD_RUN, 1, 1, "MODEL --out DIR [options]",
     "Runs a network forward and, with --seed or --target, backward; writes arrays.", cmd_run},
    {"bench", CMD_BENCH, 1, 1, "MODEL [options]", "Measures a network on random inputs.", cmd_bench},
};
enum { N_COMMANDS = (int)(sizeof commands / sizeof commands[0]) };

static void print_commands(void)
{
    puts("usage: gradcam COMMAND MODEL ...\n\nAsk a neural network (ONNX) why.\n");
    for (int i = 0; i < N_COMMANDS; i++)
        printf("  %-8s %s\n", commands[i].name, commands[i].about);
    puts("\ngradcam COMMAND --help tells more; gradcam --version prints the version.\n"
         "Exit status: 0 done, 1 refused (one message on stderr), 2 wrong usage.");
}

static int dispatch(const struct cli_command *cmd, int argc, char **argv)
{
    struct cli_args args;
    memset(&args, 0, sizeof args);
    int rc = cli_parse(cmd, argc, argv, &args);
    if (!rc && args.help)
        cli_print_help(cmd);
    else if (!rc)
        rc = cmd->run(&args);
    cli_args_free(&args);
    if (!rc && (fflush(stdout) != 0 || ferror(stdout)))
        rc = cli_fail("cannot write to standard output");
    return rc;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "--version") == 0) {
        printf("gradcam %s\n", gc_version_string());
        return CLI_OK;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_commands();
        return CLI_OK;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0)
            return dispatch(&commands[i], argc - 2, argv + 2);
    return *name ? cli_usage("unknown command '%s'; see gradcam --help", name)
                 : cli_usage("usage: gradcam explain|predict|info|run|bench MODEL ...; see gradcam --help");
}
