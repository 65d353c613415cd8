/* SPDX-License-Identifier: MIT */
/* gradcam run: forward, backward, and every asked array as a file. */
#define _POSIX_C_SOURCE 200809L
#include "net_io.h"
#include "out_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct sink {
    cli_out index;
    const char *dir;
    char *index_path;
    char *path; /* room for dir/number.npy, behind index_path */
    size_t path_size;
    int count;
};

static void fill_constant(void *user, float *dst, size_t count)
{
    float v = (float)*(double *)user;
    for (size_t i = 0; i < count; i++)
        dst[i] = v;
}

static int bind_inputs(struct cli_net *cn, const struct cli_args *args)
{
    double v = 0;
    int rc = cli_net_bind_files(cn, args);
    if (rc)
        return rc;
    if (args->fill) {
        cli_parse_double(args->fill, &v);
        return cli_net_bind_rest(cn, args, 0, fill_constant, &v);
    }
    int32_t k = cli_net_unbound(cn);
    if (k >= 0)
        return cli_fail("input %s is not given; use --input %s=FILE.npy or --fill V", gc_net_input_name(cn->net, k),
                        gc_net_input_name(cn->net, k));
    return CLI_OK;
}

static int watch(struct cli_net *cn, const struct cli_list *names, uint32_t what, const char *option)
{
    for (size_t i = 0; i < names->count; i++) {
        gc_error err = cli_error();
        gc_status st = gc_run_watch(cn->run, names->item[i], what, &err);
        if (st)
            return cli_net_refuse(option, st, &err);
    }
    return CLI_OK;
}

/* ---- the backward pass ---- */

static char *copy_text(const char *s, size_t n)
{
    char *t = malloc(n + 1);
    if (t) {
        memcpy(t, s, n);
        t[n] = 0;
    }
    return t;
}

/* Splits NAME=FILE at the first '=' whose left part is an output's name (or,
   for inner values, at the last). */
static const char *split_seed(const gc_net *net, const char *spec)
{
    for (const char *eq = strchr(spec, '='); eq; eq = strchr(eq + 1, '='))
        for (int32_t k = 0; k < gc_net_output_count(net); k++) {
            const char *s = gc_net_output_name(net, k);
            if (strlen(s) == (size_t)(eq - spec) && memcmp(s, spec, (size_t)(eq - spec)) == 0)
                return eq;
        }
    return strrchr(spec, '=');
}

static int one_hot(struct cli_net *cn, const char *name, const char *index_text, gc_tensor **seed)
{
    gc_error err = cli_error();
    gc_tensor *value = NULL;
    gc_tensor_desc d;
    int64_t index = 0;
    memset(&d, 0, sizeof d);
    gc_status st = gc_run_value(cn->run, name, &value, &err);
    if (st)
        return cli_net_refuse("--target", st, &err);
    gc_tensor_describe(value, &d);
    size_t count = cli_tensor_count(&d);
    if (!cli_parse_int(index_text, 0, INT64_MAX, &index) || (uint64_t)index >= count)
        return cli_fail("--target %s:%s: the output has the elements 0 to %lld", name, index_text,
                        (long long)count - 1);
    int rc = cli_tensor_new(cn->ctx, GRADCAM_F32, d.ndim, d.shape, seed);
    if (rc)
        return rc;
    gc_tensor_describe(*seed, &d);
    ((float *)d.data)[index] = 1.0f;
    return CLI_OK;
}

static int backward_from(struct cli_net *cn, const char *name, const char *rest, int is_file)
{
    gc_tensor *seed = NULL;
    int rc = is_file ? cli_tensor_load(cn->ctx, rest, &seed) : one_hot(cn, name, rest, &seed);
    if (!rc) {
        gc_error err = cli_error();
        gc_status st = gc_run_backward(cn->run, name, seed, &err);
        if (st)
            rc = cli_net_refuse("backward", st, &err);
    }
    if (seed)
        gc_tensor_unref(seed);
    return rc;
}

static int forward(struct cli_net *cn)
{
    gc_error err = cli_error();
    gc_status st = gc_run_forward(cn->run, &err);
    return st ? cli_net_refuse("forward", st, &err) : CLI_OK;
}

/* An inner value may start the backward pass, too, if it was kept. */
static int passes_from(struct cli_net *cn, const struct cli_args *args)
{
    gc_error err = cli_error();
    const char *spec = args->seed ? args->seed : args->target;
    const char *cut = args->seed ? split_seed(cn->net, spec) : strrchr(spec, ':');
    char *name = copy_text(spec, (size_t)(cut - spec));
    if (!name)
        return cli_fail_memory();
    gc_status st = gc_run_watch(cn->run, name, GRADCAM_WATCH_VALUE, &err);
    int rc = st ? cli_net_refuse(args->seed ? "--seed" : "--target", st, &err) : forward(cn);
    if (!rc)
        rc = backward_from(cn, name, cut + 1, args->seed != NULL);
    free(name);
    return rc;
}

/* ---- writing ---- */

static int make_dir(const char *dir)
{
    struct stat st;
    if (mkdir(dir, 0777) == 0)
        return CLI_OK;
    int why = errno;
    if (why == EEXIST && stat(dir, &st) == 0 && S_ISDIR(st.st_mode))
        return CLI_OK;
    return cli_fail("--out %s: %s", dir, strerror(why));
}

static int sink_open(struct sink *s, const char *dir)
{
    memset(s, 0, sizeof *s);
    int rc = make_dir(dir);
    if (rc)
        return rc;
    s->dir = dir;
    s->path_size = strlen(dir) + 32;
    s->index_path = malloc(2 * s->path_size);
    if (!s->index_path)
        return cli_fail_memory();
    s->path = s->index_path + s->path_size;
    snprintf(s->index_path, s->path_size, "%s/index.json", dir);
    if (cli_out_open(&s->index, s->index_path))
        return cli_fail("%s: %s", s->index_path, strerror(errno));
    fputc('[', s->index.f);
    return CLI_OK;
}

static int sink_close(struct sink *s, int rc)
{
    if (s->index.f) {
        fputs("\n]\n", s->index.f);
        if (cli_out_close(&s->index, rc) && !rc)
            rc = cli_fail("%s: cannot write", s->index_path);
    }
    free(s->index_path);
    return rc;
}

static void write_entry(struct sink *s, const char *kind, const char *name, const gc_tensor_desc *d)
{
    fprintf(s->index.f, "%s\n{\"kind\": \"%s\", \"name\": ", s->count ? "," : "", kind);
    cli_json_string(s->index.f, name);
    fprintf(s->index.f, ", \"file\": \"%d.npy\", \"shape\": [", s->count);
    for (int i = 0; i < d->ndim; i++)
        fprintf(s->index.f, "%s%lld", i ? ", " : "", (long long)d->shape[i]);
    fputs("]}", s->index.f);
}

typedef gc_status (*read_fn)(gc_run *run, const char *name, gc_tensor **out, gc_error *err);

static int write_one(struct sink *s, struct cli_net *cn, const char *kind, const char *name, read_fn read)
{
    gc_error err = cli_error();
    gc_tensor *t = NULL;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    gc_status st = read(cn->run, name, &t, &err);
    if (st)
        return cli_net_refuse(name, st, &err);
    gc_tensor_describe(t, &d);
    snprintf(s->path, s->path_size, "%s/%d.npy", s->dir, s->count);
    int rc = cli_tensor_save(cn->ctx, s->path, t);
    if (rc)
        return rc;
    write_entry(s, kind, name, &d);
    s->count++;
    return CLI_OK;
}

static int write_list(struct sink *s, struct cli_net *cn, const char *kind, const struct cli_list *names, read_fn read)
{
    int rc = CLI_OK;
    for (size_t i = 0; i < names->count && !rc; i++)
        rc = write_one(s, cn, kind, names->item[i], read);
    return rc;
}

static int write_all(struct cli_net *cn, const struct cli_args *args)
{
    struct sink s;
    int rc = sink_open(&s, args->out);
    for (int32_t k = 0; k < gc_net_output_count(cn->net) && !rc; k++)
        rc = write_one(&s, cn, "output", gc_net_output_name(cn->net, k), gc_run_value);
    if (!rc)
        rc = write_list(&s, cn, "value", &args->value, gc_run_value);
    if (!rc)
        rc = write_list(&s, cn, "grad", &args->grad, gc_run_gradient);
    return sink_close(&s, rc);
}

/* ---- the command ---- */

static int check_usage(const struct cli_args *args)
{
    double v;
    if (!args->out)
        return cli_usage("run wants --out DIR");
    if (args->seed && args->target)
        return cli_usage("give --seed or --target, not both");
    if (args->grad.count && !args->seed && !args->target)
        return cli_usage("--grad wants --seed or --target");
    if (args->seed && !strchr(args->seed, '='))
        return cli_usage("--seed wants OUTPUT=FILE.npy, not '%s'", args->seed);
    if (args->target && !strrchr(args->target, ':'))
        return cli_usage("--target wants OUTPUT:INDEX, not '%s'", args->target);
    if (args->fill && !cli_parse_double(args->fill, &v))
        return cli_usage("--fill wants a number, not '%s'", args->fill);
    return CLI_OK;
}

static int run_net(struct cli_net *cn, const struct cli_args *args)
{
    int rc = bind_inputs(cn, args);
    if (!rc)
        rc = watch(cn, &args->value, GRADCAM_WATCH_VALUE, "--value");
    if (!rc)
        rc = watch(cn, &args->grad, GRADCAM_WATCH_GRAD, "--grad");
    if (!rc)
        rc = args->seed || args->target ? passes_from(cn, args) : forward(cn);
    return rc ? rc : write_all(cn, args);
}

int cmd_run(const struct cli_args *args)
{
    struct cli_net cn;
    int rc = check_usage(args);
    if (rc)
        return rc;
    rc = cli_net_open(&cn, args);
    if (!rc)
        rc = run_net(&cn, args);
    cli_net_close(&cn);
    return rc;
}
