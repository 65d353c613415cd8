/* SPDX-License-Identifier: MIT */
/* gradcam predict: the best classes of an image. */
#include "cmd_photo.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct rank {
    float score;
    int64_t index;
};

/* Best first; NaN last; equal scores by index. */
static int by_score(const void *a, const void *b)
{
    const struct rank *x = a, *y = b;
    double p = isnan(x->score) ? -HUGE_VAL : (double)x->score, q = isnan(y->score) ? -HUGE_VAL : (double)y->score;
    return p != q ? (p < q) - (p > q) : (x->index > y->index) - (x->index < y->index);
}

static int print_top(const float *scores, size_t n, int64_t top, const struct cli_labels *labels)
{
    struct rank *ranks = malloc((n + 1) * sizeof *ranks);
    if (!ranks)
        return cli_fail_memory();
    for (size_t i = 0; i < n; i++) {
        ranks[i].score = scores[i];
        ranks[i].index = (int64_t)i;
    }
    qsort(ranks, n, sizeof *ranks, by_score);
    for (size_t i = 0; i < n && i < (size_t)top; i++) {
        const char *label = cli_labels_name(labels, ranks[i].index);
        printf("%10.6f  %5lld  %s\n", (double)ranks[i].score, (long long)ranks[i].index, label ? label : "");
    }
    free(ranks);
    return CLI_OK;
}

/* Class scores [1, K, 1...]; anything else is no classifier. */
static int check_classes(const char *name, const gc_tensor_desc *d, size_t count)
{
    int axis = d->ndim > 1 ? 1 : 0;
    if (d->ndim >= 1 && count > 0 && (size_t)d->shape[axis] == count)
        return CLI_OK;
    return cli_fail("output %s is not one score for each class; use gradcam run", name);
}

static int print_output(struct cli_net *cn, const struct cli_args *args, const struct cli_labels *labels)
{
    gc_error err = cli_error();
    gc_tensor *value = NULL, *dense = NULL;
    gc_tensor_desc d;
    const char *name = gc_net_output_name(cn->net, 0);
    memset(&d, 0, sizeof d);
    gc_status st = gc_run_forward(cn->run, &err);
    if (!st)
        st = gc_run_value(cn->run, name, &value, &err);
    if (st)
        return cli_net_refuse(cn->path, st, &err);
    int rc = cli_tensor_as(cn->ctx, value, GRADCAM_F32, &dense);
    if (rc)
        return rc;
    gc_tensor_describe(dense, &d);
    rc = check_classes(name, &d, cli_tensor_count(&d));
    if (!rc) {
        cli_labels_compare(labels, args->labels, (int64_t)cli_tensor_count(&d));
        rc = print_top(d.data, cli_tensor_count(&d), args->top ? args->top : 5, labels);
    }
    gc_tensor_unref(dense);
    return rc;
}

int cmd_predict(const struct cli_args *args)
{
    struct cli_net cn;
    struct cli_photo photo;
    struct cli_labels labels;
    memset(&cn, 0, sizeof cn);
    memset(&photo, 0, sizeof photo);
    int rc = cli_labels_load(&labels, args->labels);
    if (!rc)
        rc = cli_net_open(&cn, args);
    if (!rc)
        rc = cli_photo_bind(&cn, args, args->positional[1], &photo);
    if (!rc)
        rc = print_output(&cn, args, &labels);
    cli_photo_free(&photo);
    cli_labels_free(&labels);
    cli_net_close(&cn);
    return rc;
}
