/* SPDX-License-Identifier: MIT */
/* The network: values, nodes, inputs, outputs.  Immutable once finished. */
#ifndef GC_GRAPH_NET_H
#define GC_GRAPH_NET_H

#include "ops/op.h"

typedef struct gc_value {
    char *name;
    gc_tensor *weight;               /* constant data, or NULL */
    void *held;                      /* atomic: numbers of a weight that was read on demand; see gc_net_hold */
    int32_t producer;                /* node, or -1 */
    int32_t is_input;                /* a graph input (weight may be its default, old IR) */
    gc_dtype dtype;                  /* declared, 0 if not */
    int32_t ndim;                    /* declared, -1 if not */
    int64_t shape[GRADCAM_MAX_DIMS]; /* -1: symbolic */
} gc_value;

typedef struct gc_node {
    char *name; /* never empty: made from the operator and index if absent */
    char *op_name;
    char *domain;            /* "" for the ONNX operators */
    const gc_op_def *custom; /* the host's operator, or NULL */
    const gc_op *op;         /* NULL only before gc_net_finish */
    int32_t *in;             /* value ids, -1 absent */
    int32_t *out;            /* value ids, -1 not wanted */
    gc_attr_value *attrs;
    size_t n_attrs;
    int32_t n_in, n_out;
    gc_net *body;       /* of Loop and Scan, or NULL: inputs are the formals, then what it captures */
    int32_t n_captured; /* the last inputs of the node; the body's inputs are the values 0, 1, ... */
    int32_t reserved0;
} gc_node;

typedef struct gc_name_slot {
    const char *name;
    int32_t id;
    int32_t reserved0;
} gc_name_slot;

struct gc_net {
    gc_ctx *ctx;
    gc_value *values;
    gc_node *nodes; /* in topological order after gc_net_finish */
    int32_t *inputs;
    int32_t *outputs;
    gc_name_slot *table; /* value names -> ids, open addressing */
    size_t table_size;
    int32_t n_values, n_nodes, n_inputs, n_outputs;
    int32_t cap_values, cap_nodes, cap_inputs, cap_outputs;
    uint64_t max_nodes; /* gc_load_options */
    uint64_t max_bytes;
    uint64_t max_run_bytes;
    void *packs;              /* atomic; see graph/packs.h */
    void *slabs;              /* atomic; likewise */
    struct gc_source *source; /* of weights that are read on demand, or NULL */
    int32_t opset;
    int32_t refs; /* atomic */
};

/* Where the host sets no limit. */
#define GC_DEFAULT_MAX_NODES 200000u
#define GC_DEFAULT_MAX_BYTES ((uint64_t)4 << 30)
#define GC_DEFAULT_MAX_RUN_BYTES ((uint64_t)8 << 30)

/* ---- making (importers and the public builder) ---- */

gc_status gc_net_new(gc_ctx *ctx, int32_t opset, gc_net **out, gc_error *err);
/* The id of the value called `name`, made if there is none; -1: no memory. */
int32_t gc_net_value(gc_net *net, const char *name);
/* The id or -1. */
int32_t gc_net_find_value(const gc_net *net, const char *name);
/* The first output of the node of that name, or -1. */
int32_t gc_net_find_node_value(const gc_net *net, const char *name);
/* A value, or the first output of a node, of that name, or -1. */
int32_t gc_net_find_any(const gc_net *net, const char *name);
/* A turn of a loop may have a value "<node>/<turn>/<name in the body>": the value's own
   name and, in *prefix, the length of what is before it; else NULL. */
const char *gc_net_find_inner(const gc_net *net, const char *name, size_t *prefix);
gc_status gc_net_add_input(gc_net *net, const char *name, gc_dtype dtype, int32_t ndim, const int64_t *shape,
                           gc_error *err);
/* References the tensor. */
gc_status gc_net_add_weight(gc_net *net, const char *name, gc_tensor *t, gc_error *err);
gc_status gc_net_add_output(gc_net *net, const char *name, gc_error *err);
/* Copies names and attributes (tensors referenced).  Names "" or NULL: absent. */
gc_status gc_net_add_node(gc_net *net, const char *domain, const char *op, const char *name, const char *const *inputs,
                          size_t n_inputs, const char *const *outputs, size_t n_outputs, const gc_attr_value *attrs,
                          size_t n_attrs, gc_error *err);
/* Resolves operators (all unknown ones in one message), checks that every value
   has one producer, sorts the nodes; after it the network may be run. */
gc_status gc_net_finish(gc_net *net, gc_error *err);

/* ---- weights that are read on demand ---- */

/* Writes the numbers of a weight without data, by all threads where the source allows. */
gc_status gc_net_fetch(const gc_net *net, const gc_tensor *weight, void *dst, gc_error *err);
/* The numbers of such a weight, the value `id`, for as long as the network lives. */
gc_status gc_net_hold(const gc_net *net, int32_t id, void **data, gc_error *err);

#endif
