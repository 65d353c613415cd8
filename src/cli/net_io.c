/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "net_io.h"
#include "npy.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

gc_error cli_error(void)
{
    gc_error err;
    memset(&err, 0, sizeof err);
    err.struct_size = (uint32_t)sizeof err;
    return err;
}

int cli_net_refuse(const char *what, gc_status status, const gc_error *err)
{
    const char *text = err && err->message[0] ? err->message : gc_status_name(status);
    return what ? cli_fail("%s: %s", what, text) : cli_fail("%s", text);
}

static uint32_t thread_count(const struct cli_args *args)
{
    if (args->threads)
        return (uint32_t)args->threads;
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1u : n > 64 ? 64u : (uint32_t)n;
}

int cli_net_open(struct cli_net *cn, const struct cli_args *args)
{
    gc_error err = cli_error();
    gc_ctx_options options;
    gc_load_options load;
    memset(&options, 0, sizeof options);
    memset(&load, 0, sizeof load);
    memset(cn, 0, sizeof *cn);
    options.n_threads = thread_count(args);
    options.kernels = args->kernels;
    cn->path = args->positional[0];
    if (args->precision && strcmp(args->precision, "f32") != 0 && strcmp(args->precision, "bf16") != 0)
        return cli_usage("--precision %s: wants f32 or bf16", args->precision);
    gc_status st = gc_ctx_create(&options, &cn->ctx, &err);
    if (st)
        return cli_net_refuse(st == GRADCAM_E_NOT_FOUND ? "--kernels" : NULL, st, &err);
    load.weights = GRADCAM_WEIGHTS_ON_DEMAND;
    st = gc_net_load_file(cn->ctx, cn->path, &load, &cn->net, &err);
    if (!st)
        st = gc_run_create(cn->net, &cn->run, &err);
    if (st)
        return cli_net_refuse(cn->path, st, &err);
    if (args->precision && strcmp(args->precision, "bf16") == 0)
        st = gc_run_set_precision(cn->run, GRADCAM_BF16, &err);
    if (st)
        return cli_net_refuse("--precision", st, &err);
    cn->bound = calloc((size_t)gc_net_input_count(cn->net) + 1, 1);
    return cn->bound ? CLI_OK : cli_fail_memory();
}

void cli_net_close(struct cli_net *cn)
{
    if (cn->run)
        gc_run_destroy(cn->run);
    if (cn->net)
        gc_net_unref(cn->net);
    if (cn->ctx)
        gc_ctx_unref(cn->ctx);
    free(cn->bound);
    memset(cn, 0, sizeof *cn);
}

int32_t cli_net_find_input(const struct cli_net *cn, const char *name, size_t length)
{
    for (int32_t k = 0; k < gc_net_input_count(cn->net); k++) {
        const char *s = gc_net_input_name(cn->net, k);
        if (strlen(s) == length && memcmp(s, name, length) == 0)
            return k;
    }
    return -1;
}

int32_t cli_net_unbound(const struct cli_net *cn)
{
    for (int32_t k = 0; k < gc_net_input_count(cn->net); k++)
        if (!cn->bound[k])
            return k;
    return -1;
}

int cli_net_bind(struct cli_net *cn, int32_t k, gc_tensor *t)
{
    gc_error err = cli_error();
    gc_status st = gc_run_set_input(cn->run, gc_net_input_name(cn->net, k), t, &err);
    if (st)
        return cli_net_refuse(NULL, st, &err);
    cn->bound[k] = 1;
    return CLI_OK;
}

/* ---- tensors ---- */

size_t cli_tensor_count(const gc_tensor_desc *d)
{
    size_t n = 1;
    for (int i = 0; i < d->ndim; i++)
        n *= (size_t)d->shape[i];
    return n;
}

int cli_tensor_new(gc_ctx *ctx, gc_dtype dtype, int ndim, const int64_t *shape, gc_tensor **out)
{
    gc_error err = cli_error();
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    d.dtype = dtype;
    d.ndim = ndim;
    for (int i = 0; i < ndim; i++)
        d.shape[i] = shape[i];
    gc_status st = gc_tensor_create(ctx, &d, out, &err);
    return st ? cli_net_refuse("tensor", st, &err) : CLI_OK;
}

int cli_tensor_as(gc_ctx *ctx, gc_tensor *t, gc_dtype dtype, gc_tensor **out)
{
    gc_error err = cli_error();
    gc_tensor_desc d;
    gc_tensor *copy = NULL;
    memset(&d, 0, sizeof d);
    gc_tensor_describe(t, &d);
    int rc = cli_tensor_new(ctx, dtype, d.ndim, d.shape, &copy);
    if (rc)
        return rc;
    gc_status st = gc_tensor_copy(t, copy, &err);
    if (st) {
        gc_tensor_unref(copy);
        return cli_net_refuse("tensor", st, &err);
    }
    *out = copy;
    return CLI_OK;
}

static int is_float(gc_dtype dtype)
{
    return dtype >= GRADCAM_F32 && dtype <= GRADCAM_BF16;
}

/* Replaces *t by a copy of the declared type where that loses no meaning. */
static int fit_type(gc_ctx *ctx, gc_dtype declared, gc_tensor **t)
{
    gc_tensor_desc d;
    gc_tensor *copy = NULL;
    memset(&d, 0, sizeof d);
    gc_tensor_describe(*t, &d);
    if (d.dtype == declared || !declared || (is_float(d.dtype) && !is_float(declared)))
        return CLI_OK;
    int rc = cli_tensor_as(ctx, *t, declared, &copy);
    if (rc)
        return rc;
    gc_tensor_unref(*t);
    *t = copy;
    return CLI_OK;
}

int cli_net_bind_as(struct cli_net *cn, int32_t k, gc_tensor *t, gc_dtype dtype)
{
    gc_tensor *typed = NULL;
    int rc = cli_tensor_as(cn->ctx, t, dtype, &typed);
    if (rc)
        return rc;
    rc = cli_net_bind(cn, k, typed);
    gc_tensor_unref(typed);
    return rc;
}

/* ---- inputs from files ---- */

/* Splits NAME=FILE at the first '=' whose left part is an input's name. */
static int split_input(const struct cli_net *cn, const char *spec, int32_t *k, const char **file)
{
    for (const char *eq = strchr(spec, '='); eq; eq = strchr(eq + 1, '=')) {
        *k = cli_net_find_input(cn, spec, (size_t)(eq - spec));
        *file = eq + 1;
        if (*k >= 0)
            return CLI_OK;
    }
    if (gc_net_input_count(cn->net) == 1 && (!strchr(spec, '=') || access(spec, R_OK) == 0)) {
        *k = 0;
        *file = spec;
        return CLI_OK;
    }
    if (!strchr(spec, '='))
        return cli_fail("--input %s: the network has %d inputs; say which: NAME=FILE.npy", spec,
                        (int)gc_net_input_count(cn->net));
    return cli_fail("--input %s: the network has no such input; see gradcam info", spec);
}

static int bind_file(struct cli_net *cn, const char *spec)
{
    int32_t k = 0;
    const char *file = NULL;
    gc_tensor *t = NULL;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    int rc = split_input(cn, spec, &k, &file);
    if (!rc)
        rc = cli_tensor_load(cn->ctx, file, &t);
    if (rc)
        return rc;
    if (gc_net_input_desc(cn->net, k, &d) == GRADCAM_OK)
        rc = fit_type(cn->ctx, d.dtype, &t);
    if (!rc)
        rc = cli_net_bind(cn, k, t);
    gc_tensor_unref(t);
    return rc;
}

int cli_net_bind_files(struct cli_net *cn, const struct cli_args *args)
{
    int rc = CLI_OK;
    for (size_t i = 0; i < args->input.count && !rc; i++)
        rc = bind_file(cn, args->input.item[i]);
    return rc;
}

/* ---- inputs made up ---- */

/* Reads 1x3x224x224 (or nothing, a scalar) into shape. */
static int parse_shape(const char *text, gc_tensor_desc *d)
{
    int n = 0;
    const char *p = text;
    while (*p) {
        char *end;
        if (n == GRADCAM_MAX_DIMS || *p < '0' || *p > '9')
            return 0;
        long long v = strtoll(p, &end, 10);
        if (v > INT32_MAX || (*end && *end != 'x' && *end != ',') || (*end && !end[1]))
            return 0;
        d->shape[n++] = v;
        p = *end ? end + 1 : end;
    }
    d->ndim = n;
    return 1;
}

/* Applies the --shape of input k; *found says whether there was one. */
static int apply_shape(const struct cli_net *cn, const struct cli_args *args, int32_t k, gc_tensor_desc *d, int *found)
{
    const char *name = gc_net_input_name(cn->net, k);
    size_t length = strlen(name);
    for (size_t i = 0; i < args->shape.count; i++) {
        const char *spec = args->shape.item[i];
        if (strncmp(spec, name, length) != 0 || spec[length] != '=')
            continue;
        if (!parse_shape(spec + length + 1, d))
            return cli_fail("--shape %s: wants NAME=1x3x224x224", spec);
        *found = 1;
    }
    return CLI_OK;
}

static int check_shape_names(const struct cli_net *cn, const struct cli_args *args)
{
    for (size_t i = 0; i < args->shape.count; i++) {
        const char *spec = args->shape.item[i];
        int known = 0;
        for (const char *eq = strchr(spec, '='); eq && !known; eq = strchr(eq + 1, '='))
            known = cli_net_find_input(cn, spec, (size_t)(eq - spec)) >= 0;
        if (!known)
            return cli_fail("--shape %s: the network has no such input; see gradcam info", spec);
    }
    return CLI_OK;
}

static int settle_shape(const struct cli_net *cn, const struct cli_args *args, int32_t k, int64_t batch,
                        gc_tensor_desc *d)
{
    int given = 0;
    gc_status st = gc_net_input_desc(cn->net, k, d);
    if (st)
        return cli_net_refuse(gc_net_input_name(cn->net, k), st, NULL);
    int rc = apply_shape(cn, args, k, d, &given);
    if (rc || given)
        return rc;
    if (d->ndim < 0)
        return cli_fail("input %s declares no shape; give --shape %s=1x3x224x224", gc_net_input_name(cn->net, k),
                        gc_net_input_name(cn->net, k));
    int picture = cn->open_side && d->ndim == 4 && is_float(d->dtype);
    for (int i = 0; i < d->ndim; i++)
        if (d->shape[i] < 0)
            d->shape[i] = i == 0 ? (batch ? batch : 1) : !picture ? 1 : i == 1 ? 3 : cn->open_side;
    return CLI_OK;
}

/* Makes a float32 tensor, fills it, converts it to the input's type. */
static int bind_filled(struct cli_net *cn, int32_t k, const gc_tensor_desc *want, cli_fill_fn fill, void *user)
{
    gc_tensor *t = NULL;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    int rc = cli_tensor_new(cn->ctx, GRADCAM_F32, want->ndim, want->shape, &t);
    if (rc)
        return rc;
    gc_tensor_describe(t, &d);
    if (d.data)
        fill(user, d.data, cli_tensor_count(&d));
    if (want->dtype && want->dtype != GRADCAM_F32)
        rc = cli_net_bind_as(cn, k, t, want->dtype);
    else
        rc = cli_net_bind(cn, k, t);
    gc_tensor_unref(t);
    return rc;
}

int cli_net_bind_rest(struct cli_net *cn, const struct cli_args *args, int64_t batch, cli_fill_fn fill, void *user)
{
    int rc = check_shape_names(cn, args);
    for (int32_t k = 0; k < gc_net_input_count(cn->net) && !rc; k++) {
        gc_tensor_desc d;
        memset(&d, 0, sizeof d);
        if (cn->bound[k])
            continue;
        rc = settle_shape(cn, args, k, batch, &d);
        if (!rc)
            rc = bind_filled(cn, k, &d, fill, user);
    }
    return rc;
}

/* ---- files ---- */

/* The library's type of an array's elements; small integers are widened. */
static gc_dtype npy_dtype(const cli_npy *a)
{
    if (a->kind == 'f')
        return a->item_size == 8 ? GRADCAM_F64 : a->item_size == 4 ? GRADCAM_F32 : GRADCAM_F16;
    if (a->kind == 'b')
        return GRADCAM_BOOL;
    if (a->kind == 'u' && a->item_size == 1)
        return GRADCAM_U8;
    return a->item_size == 8 ? GRADCAM_I64 : GRADCAM_I32;
}

static void copy_elements(const cli_npy *a, gc_dtype dtype, void *dst)
{
    size_t item = gc_dtype_size(dtype), n = a->bytes / (size_t)a->item_size;
    if (item == (size_t)a->item_size) {
        memcpy(dst, a->data, a->bytes);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const unsigned char *p = (const unsigned char *)a->data + i * (size_t)a->item_size;
        int16_t v = (int16_t)(signed char)p[0];
        if (a->item_size == 2)
            memcpy(&v, p, 2);
        ((int32_t *)dst)[i] = a->kind == 'u' ? (int32_t)(uint16_t)v : (int32_t)v;
    }
}

static int from_npy(gc_ctx *ctx, const cli_npy *a, gc_tensor **out)
{
    gc_dtype dtype = npy_dtype(a);
    gc_tensor_desc d;
    int64_t shape[GRADCAM_MAX_DIMS] = {0};
    memset(&d, 0, sizeof d);
    for (int i = 0; i < a->ndim; i++)
        shape[i] = a->shape[i];
    int rc = cli_tensor_new(ctx, dtype, a->ndim, shape, out);
    if (rc)
        return rc;
    gc_tensor_describe(*out, &d);
    if (a->bytes)
        copy_elements(a, dtype, d.data);
    return CLI_OK;
}

int cli_tensor_load(gc_ctx *ctx, const char *path, gc_tensor **out)
{
    cli_npy a;
    char msg[512];
    if (cli_npy_load(path, &a, msg, sizeof msg))
        return cli_fail("%s", msg);
    int rc = from_npy(ctx, &a, out);
    cli_npy_free(&a);
    return rc;
}

static int save_dense(const char *path, const gc_tensor_desc *d)
{
    char msg[512], kind = 'f';
    long long shape[GRADCAM_MAX_DIMS] = {0};
    if (d->dtype >= GRADCAM_I64)
        kind = d->dtype == GRADCAM_BOOL ? 'b' : d->dtype == GRADCAM_U8 ? 'u' : 'i';
    for (int i = 0; i < d->ndim; i++)
        shape[i] = d->shape[i];
    if (cli_npy_save(path, kind, (int)gc_dtype_size(d->dtype), d->data, d->ndim, shape, msg, sizeof msg))
        return cli_fail("%s", msg);
    return CLI_OK;
}

int cli_tensor_save(gc_ctx *ctx, const char *path, gc_tensor *t)
{
    gc_tensor *dense = NULL;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    gc_tensor_describe(t, &d);
    int rc = cli_tensor_as(ctx, t, is_float(d.dtype) ? GRADCAM_F32 : d.dtype, &dense);
    if (rc)
        return rc;
    gc_tensor_describe(dense, &d);
    rc = save_dense(path, &d);
    gc_tensor_unref(dense);
    return rc;
}
