/* SPDX-License-Identifier: MIT */
/* State of one import, and the parts of a model in memory. */
#ifndef GC_ONNX_IMPORT_H
#define GC_ONNX_IMPORT_H

#include "base/status.h"
#include "graph/net.h"
#include "onnx/arena.h"
#include "onnx/external.h"
#include "onnx/wire.h"

typedef struct gc_pb_attr {
    gc_attr_value v; /* v.kind 0: of a type that is left out */
    const char *ref; /* attribute of the calling node that is meant, or NULL */
    uint64_t type;   /* AttributeProto.AttributeType, 0 unknown */
    gc_wire graph;   /* the bytes of a graph, p NULL if there is none */
} gc_pb_attr;

typedef struct gc_pb_node {
    const char *domain, *op, *overload, *name; /* never NULL */
    const char **in;
    const char **out;
    int32_t *in_slot; /* in functions: formal name, see gc_pb_function; else NULL */
    int32_t *out_slot;
    gc_pb_attr *attrs;
    size_t n_in, n_out, n_attrs;
    const unsigned char *at;
    struct gc_pb_body *body; /* of Loop and Scan; what it captures ends the list `in` */
    int32_t callee;          /* function, or -1 */
    int32_t reserved0;
} gc_pb_node;

/* A graph inside a node. */
typedef struct gc_pb_body {
    gc_pb_node *nodes;
    gc_tensor **weights; /* unreferenced with gc_import.tensors */
    const char **weight_names;
    const char **in;  /* bodies of loops: the formals, then the names taken from outside */
    const char **out; /* results */
    int32_t *ranks;   /* of the formals, as declared, or -1 */
    size_t n_nodes, n_weights, n_in, n_formals, n_out;
} gc_pb_body;

/* What a list of nodes has with the bodies inside. */
typedef struct gc_pb_calls {
    size_t nodes;
    int32_t *callees;
    size_t n_callees;
} gc_pb_calls;

/* Formal k < n_in is input k, otherwise output k - n_in; -1 is local. */
typedef struct gc_pb_function {
    const char *domain, *name, *overload;
    const char **in;
    const char **out;
    gc_pb_node *nodes;
    gc_pb_attr *defaults;
    size_t n_in, n_out, n_nodes, n_defaults;
    gc_pb_calls calls;
    const unsigned char *at;
    uint64_t expanded; /* nodes after inlining, saturating */
    uint64_t opset;    /* of the ONNX operators; 0: not said */
    uint32_t depth;
    int32_t colour; /* 0 new, 1 being visited, 2 done */
} gc_pb_function;

typedef struct gc_tensor_link {
    gc_tensor *tensor;
    struct gc_tensor_link *next;
} gc_tensor_link;

typedef struct gc_import {
    gc_ctx *ctx;
    gc_net *net;
    gc_error *err;
    const unsigned char *base;
    gc_external external;
    gc_arena arena;
    gc_tensor_link *tensors; /* of attributes: unreferenced at the end */
    uint64_t max_nodes;
    uint64_t max_bytes;
    uint64_t max_run_bytes;
    uint64_t tensor_bytes;
    uint64_t opset;
    uint64_t ir_version;
    gc_pb_node *nodes;
    gc_pb_function *functions;
    size_t n_nodes, n_functions, node_total; /* node_total: as they stand in the file */
    gc_names initializers;
    uint32_t expansions;
    uint32_t graph_depth; /* of graphs inside nodes, while reading and while adding */
} gc_import;

/* gc_fail with the offset of `at` (may be NULL). */
gc_status gc_import_fail(gc_import *im, const unsigned char *at, gc_status status, const char *format, ...)
    GC_PRINTF(4, 5);
/* Out of arena memory: the limit or the allocator. */
gc_status gc_import_nomem(gc_import *im);

/* The content as a string; refuses a NUL inside. */
gc_status gc_import_string(gc_import *im, const gc_field *f, const char *what, const char **out);
/* All string fields of that number in the message. */
gc_status gc_import_strings(gc_import *im, gc_wire w, uint32_t number, const char *what, const char ***out,
                            size_t *count);
/* A TensorProto, its bytes counted against the limit.  `name`: for messages.  Only a
   weight may stay in the source: attributes are read like any other memory. */
gc_status gc_import_tensor(gc_import *im, const gc_field *f, const char *name, bool weight, gc_tensor **out);

gc_status gc_import_attr(gc_import *im, const gc_field *f, const char *node, gc_pb_attr *attr);
/* All attributes (field `number`) of a node, or defaults of a function. */
gc_status gc_import_attrs(gc_import *im, gc_wire w, uint32_t number, const char *node, gc_pb_attr **out, size_t *count);
/* All nodes (field `number`) of a graph or function. */
gc_status gc_import_nodes(gc_import *im, gc_wire w, uint32_t number, gc_pb_node **out, size_t *count);

/* Enters a graph inside a node, unless it lies too deep; leaving is graph_depth--. */
gc_status gc_import_descend(gc_import *im, const gc_pb_node *node);
/* Nodes, initializers and results of a graph inside a node; `weights`: these stay initializers. */
gc_status gc_import_graph(gc_import *im, const gc_pb_node *node, gc_wire graph, bool weights, gc_pb_body *body);
/* Reads the bodies of the Loop and Scan nodes among these, see body.c. */
gc_status gc_import_bodies(gc_import *im, gc_pb_node *nodes, size_t count);
/* The counts of a Loop or Scan and of its body fit. */
gc_status gc_import_check_body(gc_import *im, const gc_pb_node *node, const char *name, const gc_attr_list *attrs);

/* Replaces If nodes by their branches, see branch.c. */
gc_status gc_import_flatten(gc_import *im, gc_pb_node **nodes, size_t *count);

/* Refuses operators that changed their rules up to opset 6, see legacy.c. */
gc_status gc_import_check_legacy(gc_import *im);

/* ModelProto.functions, and which node calls which. */
gc_status gc_import_functions(gc_import *im, gc_wire model);
/* Counts, refuses recursion, then adds all nodes to the network. */
gc_status gc_import_expand(gc_import *im);

/* "" for "ai.onnx". */
const char *gc_import_domain(const char *domain);
/* opset_import (field `number`): the version of the ONNX operators, 0 if absent. */
gc_status gc_import_opset(gc_import *im, gc_wire w, uint32_t number, uint64_t *version);

#endif
