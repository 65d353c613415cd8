/* SPDX-License-Identifier: MIT */
/* From the description to a gc_net, and what it costs on paper. */
#include "model.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- weights, lent ---- */

typedef struct loan {
    const model_lent *lent;
    int64_t bytes;
} loan;

static void give_back(void *user, void *data)
{
    loan *l = user;
    (void)data;
    l->lent->change(l->lent->user, -l->bytes);
    free(l);
}

static gc_status lend_weight(const model_weight *w, gc_ctx *ctx, gc_builder *b, const model_lent *lent, gc_error *err)
{
    gc_tensor_desc d;
    gc_tensor *t = NULL;
    loan *l = malloc(sizeof *l);
    if (l == NULL) {
        return GRADCAM_E_NOMEM;
    }
    l->lent = lent;
    l->bytes = (int64_t)(w->count * sizeof *w->data);
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = w->ndim;
    memcpy(d.shape, w->shape, sizeof w->shape);
    d.data = w->data;
    d.release = give_back;
    d.user = l;
    gc_status s = gc_tensor_create(ctx, &d, &t, err);
    if (s != GRADCAM_OK) {
        free(l);
        return s;
    }
    lent->change(lent->user, l->bytes);
    s = gc_builder_weight(b, w->name, t, err);
    gc_tensor_unref(t);
    return s;
}

/* ---- nodes ---- */

typedef struct attrs {
    int64_t kernel[2], strides[2], pads[4], group, one;
    gc_attr list[5];
    size_t n;
} attrs;

static void add_attr(attrs *a, const char *name, const int64_t *data, size_t count)
{
    gc_attr attr = {name, data, count, count == 1 ? GRADCAM_ATTR_INT : GRADCAM_ATTR_INTS, 0};
    a->list[a->n++] = attr;
}

static void attrs_of(const model_node *node, attrs *a)
{
    memset(a, 0, sizeof *a);
    a->one = 1;
    if (node->kernel > 0) {
        a->kernel[0] = a->kernel[1] = node->kernel;
        a->strides[0] = a->strides[1] = node->stride;
        a->pads[0] = a->pads[1] = a->pads[2] = a->pads[3] = node->pad;
        a->group = node->group;
        add_attr(a, "kernel_shape", a->kernel, 2);
        add_attr(a, "strides", a->strides, 2);
        add_attr(a, "pads", a->pads, 4);
    }
    if (strcmp(node->op, "Conv") == 0) {
        add_attr(a, "group", &a->group, 1);
    } else if (node->ceil_mode) {
        add_attr(a, "ceil_mode", &a->one, 1);
    } else if (strcmp(node->op, "Gemm") == 0) {
        add_attr(a, "transB", &a->one, 1);
    } else if (strcmp(node->op, "Concat") == 0) {
        add_attr(a, "axis", &a->one, 1);
    }
}

static gc_status build_node(const model *m, const model_node *node, gc_builder *b, gc_error *err)
{
    const char *in[MODEL_MAX_IN + 4], *out = m->values[node->out].name;
    size_t n = 0;
    attrs a;
    attrs_of(node, &a);
    for (int i = 0; i < node->n_in; i++) {
        in[n++] = m->values[node->in[i]].name;
    }
    for (int i = 0; i < node->n_weights; i++) {
        in[n++] = m->weights[node->weights[i]].name;
    }
    return gc_builder_node(b, node->op, out, in, n, &out, 1, a.list, a.n, err);
}

static gc_status fill(const model *m, gc_ctx *ctx, gc_builder *b, int64_t batch, const model_lent *lent, gc_error *err)
{
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_F32;
    d.ndim = 4;
    d.shape[0] = batch;
    d.shape[1] = m->values[0].channels;
    d.shape[2] = m->values[0].height;
    d.shape[3] = m->values[0].width;
    gc_status s = gc_builder_input(b, m->values[0].name, &d, err);
    for (size_t i = 0; !s && i < m->n_weights; i++) {
        s = lend_weight(&m->weights[i], ctx, b, lent, err);
    }
    for (size_t i = 0; !s && i < m->n_nodes; i++) {
        s = build_node(m, &m->nodes[i], b, err);
    }
    return s ? s : gc_builder_output(b, m->values[m->n_values - 1].name, err);
}

gc_status model_build(const model *m, gc_ctx *ctx, int64_t batch, const model_lent *lent, gc_net **net, gc_error *err)
{
    gc_builder *b = NULL;
    gc_status s = gc_builder_create(ctx, 17, &b, err);
    s = s ? s : fill(m, ctx, b, batch, lent, err);
    s = s ? s : gc_builder_finish(b, net, err);
    gc_builder_destroy(b);
    return s;
}

/* ---- what it costs ---- */

double model_weight_bytes(const model *m)
{
    double bytes = 0;
    for (size_t i = 0; i < m->n_weights; i++) {
        bytes += (double)(m->weights[i].count * sizeof(float));
    }
    return bytes;
}

double model_forward_macs(const model *m)
{
    double macs = 0;
    for (size_t i = 0; i < m->n_nodes; i++) {
        macs += m->nodes[i].macs;
    }
    return macs;
}

/* A node takes part if a marked value lies above it: then the gradient of its
   input is wanted, which costs as many multiply-adds as its forward pass. */
double model_backward_macs(const model *m, char *marks)
{
    double macs = 0;
    for (size_t i = 0; i < m->n_nodes; i++) {
        const model_node *node = &m->nodes[i];
        int wanted = 0;
        for (int k = 0; k < node->n_in; k++) {
            wanted |= marks[node->in[k]];
        }
        if (wanted) {
            marks[node->out] = 1;
            macs += (int)i == m->classifier ? node->macs / (double)m->values[node->out].channels : node->macs;
        }
    }
    return macs;
}

int model_find(const model *m, const char *name)
{
    for (size_t i = 0; i < m->n_values; i++) {
        if (strcmp(m->values[i].name, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}
