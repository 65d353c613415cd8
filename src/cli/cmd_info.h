/* SPDX-License-Identifier: MIT */
/* What gradcam info knows of a network, for its two ways to print it. */
#ifndef GRADCAM_CLI_CMD_INFO_H
#define GRADCAM_CLI_CMD_INFO_H

#include "net_io.h"

enum { INFO_TEXT = 256 };

struct info {
    const struct cli_args *args;
    struct cli_net cn;
    const char **layers; /* deepest first; n_layers of them */
    const char **ops;    /* of all nodes, sorted */
    size_t n_layers;
    int64_t flops;
    int ready;      /* the run is prepared: shapes and flops are known */
    char note[640]; /* why not */
};

/* "[1, 3, ?, 224]" */
const char *info_dims(const gc_tensor_desc *d, char *text, size_t size);
/* The same of a value; NULL where its shape is not known. */
const char *info_shape(const struct info *in, const char *value, char *text, size_t size);
const char *info_dtype(gc_dtype dtype);
/* How many of ops[first...] are alike; 0 at the end. */
size_t info_same_ops(const struct info *in, size_t first);

void info_print_json(const struct info *in);

#endif
