/* SPDX-License-Identifier: MIT */
/* A network as plain data: nodes with shapes, and seeded random weights.  It is
   described once and built into a gc_net as often as wanted; the nets lend the
   same weights.  Shapes give the FLOPs.  Public header only. */
#ifndef GRADCAM_BENCH_MODEL_H
#define GRADCAM_BENCH_MODEL_H

#include <gradcam/gradcam.h>

enum { MODEL_MAX_IN = 32, MODEL_NAME = 40 };

/* A value is its index; channels x height x width of one sample. */
typedef struct model_value {
    char name[MODEL_NAME];
    int64_t channels, height, width;
    int flat;    /* [N, channels] */
    int feature; /* a layer of the sweep */
} model_value;

typedef struct model_weight {
    char name[MODEL_NAME];
    float *data;
    size_t count;
    int32_t ndim;
    int64_t shape[4];
} model_weight;

typedef struct model_node {
    const char *op; /* as in ONNX; inputs are in[], then weights[] */
    int in[MODEL_MAX_IN], weights[4];
    int n_in, n_weights, out;
    int64_t kernel, stride, pad, group, ceil_mode;
    double macs; /* multiply-adds of a convolution or matrix product, one sample */
} model_node;

typedef struct model {
    const char *name;
    int64_t size; /* of the square input image */
    model_value *values;
    model_node *nodes;
    model_weight *weights;
    size_t n_values, n_nodes, n_weights;
    size_t cap_values, cap_nodes, cap_weights;
    int classifier; /* node: the last product, of which a class needs one row */
    uint64_t random;
    int failed; /* no memory; every further call does nothing */
} model;

/* What a convolution is; kernel is square, gain / fan-in the variance of its weights. */
typedef struct model_conv {
    int64_t out, kernel, stride, pad, group;
    double gain;
    int bias;
} model_conv;

/* Values pass on about unit variance: 2 behind a ReLU (He 2015), 1 behind what is linear. */
#define MODEL_GAIN_RELU 2.0
#define MODEL_GAIN_LINEAR 1.0
#define MODEL_GAIN_SILU 2.8

/* Each adds a node and returns the value it makes. */
int model_input(model *m, int64_t channels);
int model_add_conv(model *m, int x, model_conv conv);
int model_add_norm(model *m, int x, double scale);
int model_add_unary(model *m, const char *op, int x);
int model_add_clip(model *m, int x, float low, float high);
int model_add_binary(model *m, const char *op, int a, int b);
int model_add_concat(model *m, const int *values, int n);
int model_add_pool(model *m, const char *op, int x, int64_t kernel, int64_t stride, int64_t pad, int64_t ceil_mode);
int model_add_global_pool(model *m, int x);
int model_add_flatten(model *m, int x);
int model_add_linear(model *m, int x, int64_t out, double gain);
/* Marks a value as a layer of the sweep; returns it. */
int model_feature(model *m, int x);

/* The networks by name, in the order of the report; NULL past the end. */
const char *model_net_name(size_t i);
/* Describes the network; 0, or -1: no such name or no memory.  Release with model_free. */
int model_make(model *m, const char *name, int64_t size);
void model_free(model *m);

/* Bytes lent to nets that still use them, and the most there were. */
typedef struct model_lent {
    void (*change)(void *user, int64_t bytes);
    void *user;
} model_lent;
/* `lent` is told when a weight is lent (+) and given back (-); it must outlive the net. */
gc_status model_build(const model *m, gc_ctx *ctx, int64_t batch, const model_lent *lent, gc_net **net, gc_error *err);
double model_weight_bytes(const model *m);

/* Multiply-adds of one sample. */
double model_forward_macs(const model *m);
/* Of a class score's gradient down to all marked values; marks has n_values
   entries and is spoilt.  A class needs one row of the classifier. */
double model_backward_macs(const model *m, char *marks);
/* The value of that name, or -1. */
int model_find(const model *m, const char *name);

#endif
