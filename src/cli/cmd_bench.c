/* SPDX-License-Identifier: MIT */
/* gradcam bench: how long a pass takes on random inputs. */
#include "net_io.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_SAMPLES = 100000 };
typedef gc_status (*pass_fn)(gc_run *run, gc_error *err);

static gc_status pass_gradcam(gc_run *run, gc_error *err)
{
    gc_tensor *map = NULL;
    gc_status st = gc_gradcam(run, NULL, &map, err);
    if (!st)
        gc_tensor_unref(map);
    return st;
}

static gc_status pass_guided(gc_run *run, gc_error *err)
{
    gc_tensor *map = NULL;
    gc_status st = gc_guided_backprop(run, NULL, &map, err);
    if (!st)
        gc_tensor_unref(map);
    return st;
}

static pass_fn find_pass(const char *method)
{
    if (!method || strcmp(method, "forward") == 0)
        return gc_run_forward;
    if (strcmp(method, "gradcam") == 0)
        return pass_gradcam;
    return strcmp(method, "guided-backprop") == 0 ? pass_guided : NULL;
}

/* xorshift32 from a fixed seed, uniform in [0, 1). */
static void fill_random(void *user, float *dst, size_t count)
{
    uint32_t *state = user;
    for (size_t i = 0; i < count; i++) {
        *state ^= *state << 13;
        *state ^= *state >> 17;
        *state ^= *state << 5;
        dst[i] = (float)(*state >> 8) / 16777216.0f;
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_times(const struct cli_args *args, double *ms, size_t n, double prepare, size_t peak)
{
    qsort(ms, n, sizeof *ms, by_value);
    double median = n % 2 ? ms[n / 2] : (ms[n / 2 - 1] + ms[n / 2]) / 2;
    if (args->json)
        printf("{\"median_ms\": %.6g, \"min_ms\": %.6g, \"prepare_ms\": %.6g, \"peak_bytes\": %zu, \"passes\": %zu}\n",
               median, ms[0], prepare, peak, n);
    else
        printf("median  %.3f ms\nminimum %.3f ms\nprepare %.3f ms\npeak    %zu bytes\npasses  %zu\n", median, ms[0],
               prepare, peak, n);
}

static int measure(struct cli_net *cn, const struct cli_args *args, pass_fn pass, double *ms)
{
    gc_error err = cli_error();
    double limit = args->seconds > 0 ? args->seconds : 2.0, start = cli_now(), prepare;
    size_t n = 0;
    gc_status st = gc_run_prepare(cn->run, &err);
    prepare = (cli_now() - start) * 1e3;
    if (!st)
        st = pass(cn->run, &err); /* warm-up */
    start = cli_now();
    while (!st && n < MAX_SAMPLES && (n < 3 || cli_now() - start < limit)) {
        double t = cli_now();
        st = pass(cn->run, &err);
        ms[n++] = (cli_now() - t) * 1e3;
    }
    if (st)
        return cli_net_refuse(cn->path, st, &err);
    print_times(args, ms, n, prepare, gc_run_arena_bytes(cn->run));
    return CLI_OK;
}

int cmd_bench(const struct cli_args *args)
{
    struct cli_net cn;
    uint32_t random = 2463534242u;
    pass_fn pass = find_pass(args->method);
    if (!pass)
        return cli_usage("--method %s: wants forward, gradcam or guided-backprop", args->method);
    double *ms = malloc(MAX_SAMPLES * sizeof *ms);
    if (!ms)
        return cli_fail_memory();
    int rc = cli_net_open(&cn, args);
    if (!rc)
        rc = cli_net_bind_rest(&cn, args, args->batch, fill_random, &random);
    if (!rc)
        rc = measure(&cn, args, pass, ms);
    cli_net_close(&cn);
    free(ms);
    return rc;
}
