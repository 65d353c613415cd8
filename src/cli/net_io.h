/* SPDX-License-Identifier: MIT */
/* A loaded network with its run; arrays in and out of it. */
#ifndef GRADCAM_CLI_NET_IO_H
#define GRADCAM_CLI_NET_IO_H

#include "cmd_opts.h"

struct cli_net {
    gc_ctx *ctx;
    gc_net *net;
    gc_run *run;
    char *bound; /* per input: 1 once a tensor was bound */
    const char *path;
    int open_side; /* what cli_net_bind_rest takes for the open height and width of pictures; 0: 1 */
};

/* Each returns CLI_OK or prints a message and returns CLI_REFUSED. */
int cli_net_open(struct cli_net *cn, const struct cli_args *args);
void cli_net_close(struct cli_net *cn);

/* Prints what the library said. */
int cli_net_refuse(const char *what, gc_status status, const gc_error *err);
gc_error cli_error(void);

/* Index of the input called name[0..length), or -1. */
int32_t cli_net_find_input(const struct cli_net *cn, const char *name, size_t length);
int cli_net_bind(struct cli_net *cn, int32_t k, gc_tensor *t);
/* The same through a copy of the given type. */
int cli_net_bind_as(struct cli_net *cn, int32_t k, gc_tensor *t, gc_dtype dtype);
/* Every --input of the command line. */
int cli_net_bind_files(struct cli_net *cn, const struct cli_args *args);
/* Every input not bound yet: from --shape, symbolic dimensions 1 (the first
   one `batch` if that is not 0), filled by `fill`. */
typedef void (*cli_fill_fn)(void *user, float *dst, size_t count);
int cli_net_bind_rest(struct cli_net *cn, const struct cli_args *args, int64_t batch, cli_fill_fn fill, void *user);
/* The first input that is not bound, or -1. */
int32_t cli_net_unbound(const struct cli_net *cn);

/* A new row-major tensor of the type and shape. */
int cli_tensor_new(gc_ctx *ctx, gc_dtype dtype, int ndim, const int64_t *shape, gc_tensor **out);
/* A row-major copy of t as `dtype`. */
int cli_tensor_as(gc_ctx *ctx, gc_tensor *t, gc_dtype dtype, gc_tensor **out);
size_t cli_tensor_count(const gc_tensor_desc *d);

int cli_tensor_load(gc_ctx *ctx, const char *path, gc_tensor **out);
int cli_tensor_save(gc_ctx *ctx, const char *path, gc_tensor *t);

#endif
