/* SPDX-License-Identifier: MIT */
/* Describing a network: nodes, shapes, weights. */
#include "model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The array with room for one more element behind `count`. */
static void *room(model *m, void *data, size_t count, size_t *cap, size_t element)
{
    if (m->failed || count < *cap) {
        return data;
    }
    size_t wanted = *cap ? *cap * 2 : 64;
    void *grown = realloc(data, wanted * element);
    if (grown == NULL) {
        m->failed = 1;
        return data;
    }
    *cap = wanted;
    return grown;
}

static int add_value(model *m, const char *what, int64_t channels, int64_t height, int64_t width)
{
    m->values = room(m, m->values, m->n_values, &m->cap_values, sizeof *m->values);
    if (m->failed) {
        return 0;
    }
    model_value *v = &m->values[m->n_values++];
    memset(v, 0, sizeof *v);
    snprintf(v->name, sizeof v->name, "%.24s%d", what, (int)m->n_values - 1);
    v->channels = channels;
    v->height = height;
    v->width = width;
    return (int)m->n_values - 1;
}

/* xorshift64*, uniform in [-1, 1). */
static float uniform(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (float)((*state * UINT64_C(2685821657736338717)) >> 40) / 8388608.0f - 1.0f;
}

/* A weight of uniform numbers in middle -+ radius. */
static int add_weight(model *m, int32_t ndim, const int64_t *shape, double middle, double radius)
{
    m->weights = room(m, m->weights, m->n_weights, &m->cap_weights, sizeof *m->weights);
    if (m->failed) {
        return 0;
    }
    model_weight *w = &m->weights[m->n_weights++];
    memset(w, 0, sizeof *w);
    snprintf(w->name, sizeof w->name, "w%d", (int)m->n_weights - 1);
    w->ndim = ndim;
    w->count = 1;
    for (int32_t i = 0; i < ndim; i++) {
        w->shape[i] = shape[i];
        w->count *= (size_t)shape[i];
    }
    w->data = malloc(w->count * sizeof *w->data);
    if (w->data == NULL) {
        m->failed = 1;
        return 0;
    }
    for (size_t i = 0; i < w->count; i++) {
        w->data[i] = (float)middle + (float)radius * uniform(&m->random);
    }
    return (int)m->n_weights - 1;
}

static int add_vector(model *m, int64_t count, double middle, double radius)
{
    return add_weight(m, 1, &count, middle, radius);
}

/* A node with its inputs, and the value it makes. */
static model_node *add_node(model *m, const char *op, const int *in, int n_in, const model_value *shape)
{
    int64_t c = shape->channels, h = shape->height, w = shape->width;
    int out = add_value(m, op, c, h, w);
    m->nodes = room(m, m->nodes, m->n_nodes, &m->cap_nodes, sizeof *m->nodes);
    if (m->failed) {
        return NULL;
    }
    model_node *node = &m->nodes[m->n_nodes++];
    memset(node, 0, sizeof *node);
    node->op = op;
    memcpy(node->in, in, (size_t)n_in * sizeof *in);
    node->n_in = n_in;
    node->out = out;
    return node;
}

static model_value shape_of(const model *m, int x)
{
    static const model_value none;
    return m->failed ? none : m->values[x];
}

int model_input(model *m, int64_t channels)
{
    return add_value(m, "input", channels, m->size, m->size);
}

static int64_t window_count(int64_t extent, int64_t kernel, int64_t stride, int64_t pad, int64_t ceil_mode)
{
    return (extent + 2 * pad - kernel + (ceil_mode ? stride - 1 : 0)) / stride + 1;
}

int model_add_conv(model *m, int x, model_conv conv)
{
    model_value y = shape_of(m, x);
    int64_t group = conv.group ? conv.group : 1, shape[4] = {conv.out, y.channels / group, conv.kernel, conv.kernel};
    double fan_in = (double)(shape[1] * conv.kernel * conv.kernel);
    y.channels = conv.out;
    y.height = window_count(y.height, conv.kernel, conv.stride, conv.pad, 0);
    y.width = window_count(y.width, conv.kernel, conv.stride, conv.pad, 0);
    model_node *node = add_node(m, "Conv", &x, 1, &y);
    if (node == NULL) {
        return 0;
    }
    node->kernel = conv.kernel;
    node->stride = conv.stride;
    node->pad = conv.pad;
    node->group = group;
    node->macs = (double)(y.channels * y.height * y.width) * fan_in;
    node->weights[node->n_weights++] = add_weight(m, 4, shape, 0, sqrt(3 * conv.gain / fan_in));
    if (conv.bias) {
        node->weights[node->n_weights++] = add_vector(m, conv.out, 0, 0.02);
    }
    m->classifier = (int)m->n_nodes - 1;
    return node->out;
}

int model_add_norm(model *m, int x, double scale)
{
    model_value y = shape_of(m, x);
    model_node *node = add_node(m, "BatchNormalization", &x, 1, &y);
    if (node == NULL) {
        return 0;
    }
    node->n_weights = 4; /* scale, bias, mean, variance */
    node->weights[0] = add_vector(m, y.channels, scale, 0.1 * scale);
    node->weights[1] = add_vector(m, y.channels, 0, 0.1);
    node->weights[2] = add_vector(m, y.channels, 0, 0.1);
    node->weights[3] = add_vector(m, y.channels, 1, 0.1);
    return node->out;
}

int model_add_unary(model *m, const char *op, int x)
{
    model_value y = shape_of(m, x);
    model_node *node = add_node(m, op, &x, 1, &y);
    return node == NULL ? 0 : node->out;
}

int model_add_clip(model *m, int x, float low, float high)
{
    model_value y = shape_of(m, x);
    model_node *node = add_node(m, "Clip", &x, 1, &y);
    if (node == NULL) {
        return 0;
    }
    node->n_weights = 2;
    node->weights[0] = add_weight(m, 0, NULL, (double)low, 0);
    node->weights[1] = add_weight(m, 0, NULL, (double)high, 0);
    return node->out;
}

int model_add_binary(model *m, const char *op, int a, int b)
{
    int in[2] = {a, b};
    model_value y = shape_of(m, a);
    model_node *node = add_node(m, op, in, 2, &y);
    return node == NULL ? 0 : node->out;
}

int model_add_concat(model *m, const int *values, int n)
{
    model_value y = shape_of(m, values[0]);
    if (n > MODEL_MAX_IN) {
        m->failed = 1;
    }
    for (int i = 1; i < n; i++) {
        y.channels += shape_of(m, values[i]).channels;
    }
    model_node *node = m->failed ? NULL : add_node(m, "Concat", values, n, &y);
    return node == NULL ? 0 : node->out;
}

int model_add_pool(model *m, const char *op, int x, int64_t kernel, int64_t stride, int64_t pad, int64_t ceil_mode)
{
    model_value y = shape_of(m, x);
    y.height = window_count(y.height, kernel, stride, pad, ceil_mode);
    y.width = window_count(y.width, kernel, stride, pad, ceil_mode);
    model_node *node = add_node(m, op, &x, 1, &y);
    if (node == NULL) {
        return 0;
    }
    node->kernel = kernel;
    node->stride = stride;
    node->pad = pad;
    node->ceil_mode = ceil_mode;
    return node->out;
}

int model_add_global_pool(model *m, int x)
{
    model_value y = shape_of(m, x);
    y.height = y.width = 1;
    model_node *node = add_node(m, "GlobalAveragePool", &x, 1, &y);
    return node == NULL ? 0 : node->out;
}

int model_add_flatten(model *m, int x)
{
    model_value y = shape_of(m, x);
    y.channels *= y.height * y.width;
    y.height = y.width = 1;
    model_node *node = add_node(m, "Flatten", &x, 1, &y);
    if (node == NULL) {
        return 0;
    }
    m->values[node->out].flat = 1;
    return node->out;
}

int model_add_linear(model *m, int x, int64_t out, double gain)
{
    model_value y = shape_of(m, x);
    int64_t shape[2] = {out, y.channels};
    double fan_in = (double)y.channels;
    y.channels = out;
    model_node *node = add_node(m, "Gemm", &x, 1, &y);
    if (node == NULL) {
        return 0;
    }
    m->values[node->out].flat = 1;
    node->macs = (double)out * fan_in;
    node->n_weights = 2;
    node->weights[0] = add_weight(m, 2, shape, 0, sqrt(3 * gain / fan_in));
    node->weights[1] = add_vector(m, out, 0, 0.02);
    m->classifier = (int)m->n_nodes - 1;
    return node->out;
}

int model_feature(model *m, int x)
{
    if (!m->failed) {
        m->values[x].feature = 1;
    }
    return x;
}

void model_free(model *m)
{
    for (size_t i = 0; i < m->n_weights; i++) {
        free(m->weights[i].data);
    }
    free(m->weights);
    free(m->nodes);
    free(m->values);
    memset(m, 0, sizeof *m);
}
