/* SPDX-License-Identifier: MIT */
/* The contract between an operator and whoever runs it.
 *
 * An operator is a shape rule, a forward and a backward function and one row
 * in the registry (registry.c).  The functions see tensors, attributes and
 * memory, never graphs or files, and keep no state of their own.
 *
 * infer:    in[] have shapes; data is NULL unless the value is a constant (and see
 *           GC_OP_PACKS).
 *           Calls gc_op_set_output for every output that exists (out[i] may be
 *           NULL when the graph does not want output i; set_output ignores
 *           that) and may set aux_bytes and work_bytes.  Untrusted: every size
 *           is checked here.
 * forward:  writes every element of every out[i] that is not NULL.
 * backward: for every i with grad_in[i] != NULL overwrites (see adds) grad_in[i] wholly
 *           with sum_k (d out_k / d in_i)^T grad_out[k]; a NULL grad_out[k]
 *           means zero (at least one is not NULL).  in[]/out[] are readable
 *           only where keep_in/keep_out say so, constants always.
 * aux:      written by forward, read by backward (indices, masks).
 * work:     scratch, valid during one call, forward or backward.  Neither is
 *           NULL in a call, also when no bytes were asked for.
 *
 * Types: floating values are float32 inside the engine; I64, I32, U8, BOOL
 * (one byte, 0 or 1) are kept as they are.
 *
 * Layout of the tensors, by flag (none: all row-major without gaps):
 *   GC_OP_CL    in[0], out[0] and their gradients have rank >= 3 and lie
 *               channels-last (see gc_is_cl), everything else row-major
 *   GC_OP_SAME  any strides, mixed; element-wise and copying operators.  out[]
 *               is channels-last when an input of its rank is
 */
#ifndef GC_OPS_OP_H
#define GC_OPS_OP_H

#include "base/ctx.h"
#include "base/status.h"
#include "ops/attr.h"
#include "tensor/tensor.h"

/* Bits of gc_op_call.pack_serves. */
enum { GC_PACK_FORWARD = 1, GC_PACK_BACKWARD = 2 };

/* What the plan lets an operator do at once with its result:
   out[0] = clip(result + bias + residual, lo, hi), or map(result + bias + residual). */
typedef struct gc_fusion {
    const gc_tensor *residual; /* laid out like out[0], or NULL */
    const gc_tensor *bias;     /* one for each element of the last dimension, or NULL */
    int32_t clip;
    float lo, hi;
    int32_t map; /* 1 + GC_MAP_* of kern/kern.h in place of the clip, or 0 */
} gc_fusion;

enum { GC_VIEW_FLAT = 1, GC_VIEW_STRIDED = 2 };

/* Bits of gc_op_call.fuses: what forward honours. */
enum {
    GC_FUSE_ADD = 1,
    GC_FUSE_CLIP = 2,
    GC_FUSE_MAP = 4,
    GC_FUSE_BIAS = 8,
    GC_FUSE_FLAT = 16 /* of out[0] and the residual only the order of the elements counts: it is row-major */
};

/* Bits of gc_op_call.half_able: what forward takes as bfloat16 in the place of
   float32, each by itself: inputs by their numbers, out[0], the residual; SAME: all
   inputs and out[0], but all of them or none. */
enum { GC_HALF_INPUTS = 8, GC_HALF_OUT = 1 << 8, GC_HALF_RESIDUAL = 1 << 9, GC_HALF_SAME = 1 << 10 };

struct gc_op_call {
    gc_ctx *ctx;
    gc_error *err;
    const char *node_name; /* for messages */
    const char *op_name;
    gc_attr_list attrs;
    int32_t opset;
    int32_t n_in;
    int32_t n_out;
    int32_t reserved0;
    const gc_tensor **in; /* NULL: optional input is absent */
    gc_tensor **out;
    gc_tensor **grad_out;
    gc_tensor **grad_in;
    void *aux;
    void *work;
    size_t aux_bytes;
    size_t work_bytes;
    const gc_op_def *custom; /* of the host, or NULL */
    /* Set by infer where an operator prepares its constant inputs: called once,
       before the first forward or backward, to fill blocks of these sizes. */
    gc_status (*pack)(gc_op_call *call, bool backward, void *block);
    size_t pack_bytes, back_pack_bytes;
    uint64_t pack_variant, back_pack_variant; /* tells blocks of the same node apart */
    const void *packed, *back_packed;
    /* Set by infer: without a backward pass after it forward takes no aux and lean_bytes of work. */
    int32_t lean;
    size_t lean_bytes;
    uint32_t pack_serves; /* set by infer with pack: GC_PACK_*, passes that do not read in[1] itself */
    gc_fusion fusion;
    int32_t fuses; /* set by infer: GC_FUSE_* */
    /* Set by infer: out[0] holds the elements of in[0] as they lie in memory: both
       row-major (GC_VIEW_FLAT), or out[0] with these strides. */
    int32_t view;
    int64_t view_strides[GRADCAM_MAX_DIMS];
    uint32_t half_able;         /* set by infer where `half` is: GC_HALF_* */
    int32_t wide;               /* set by infer: forward takes in[0] and out[0] with gaps between pixels */
    int32_t channels_last;      /* set by infer: this call is as if its operator had GC_OP_CL */
    uint32_t keep_in, keep_out; /* set by infer: what backward reads besides that of the row */
    int32_t differentiated;     /* set before forward: a backward pass may follow */
    int32_t some_rows;          /* of a value with more of them: the algorithm, and so the bits, are as for those */
    int32_t exact;              /* no algorithm that rounds differently than a plain sum */
    const struct gc_half *half; /* kern/half.h: products in bfloat16, or NULL */
    uint32_t adds;              /* set before backward for GC_OP_FINISHES: bit i: grad_in[i] holds a part, add to it */
    gc_rule rule;               /* likewise: how the gradient of an activation passes */
};

typedef gc_status (*gc_op_fn)(gc_op_call *call);

enum {
    GC_OP_CL = 1,
    GC_OP_SAME = 2,
    GC_OP_STOPS = 4,       /* no gradient by nature (integers, comparisons, Floor) */
    GC_OP_SHAPE_ONLY = 8,  /* the result depends on input shapes only: Shape, Size */
    GC_OP_ACTIVATION = 16, /* guided and deconvnet rules apply; one input, same shape */
    GC_OP_SELECT = 64,     /* If: see ops/select.c */
    GC_OP_POOLING = 32,    /* not chosen as a layer by default */
    GC_OP_FINISHES = 128,  /* backward honours `adds` and `rule`, which saves passes over memory */
    GC_OP_PACKS = 256,     /* infer asks of in[1] only whether it is constant: gc_is_constant */
    GC_OP_PLANNED = 512    /* Loop, Scan, sequences: see ops/select.c */
};

typedef struct gc_op {
    const char *name;
    gc_op_fn infer;
    gc_op_fn forward;
    gc_op_fn backward; /* NULL: no gradient */
    uint32_t flags;
    uint32_t keep_in;  /* bit i: backward reads in[i] */
    uint32_t keep_out; /* bit i: backward reads out[i] */
    int32_t min_in;
    int32_t max_in;  /* -1: any number */
    int32_t max_out; /* -1: any number */
} gc_op;

/* Rows of one family file, ended by a row whose name is NULL. */
extern const gc_op gc_ops_layernorm[], gc_ops_rownorm[], gc_ops_einsum[], gc_ops_attention[];
extern const gc_op gc_ops_rotary[], gc_ops_loss[], gc_ops_swiglu[], gc_ops_cumulative[], gc_ops_det[];
extern const gc_op gc_ops_conv[], gc_ops_pool[], gc_ops_norm[], gc_ops_linear[], gc_ops_activation[], gc_ops_unary[],
    gc_ops_binary[], gc_ops_logic[], gc_ops_softmax[], gc_ops_reduce[], gc_ops_shape[], gc_ops_move[], gc_ops_const[],
    gc_ops_rnn[], gc_ops_select[];
extern const gc_op gc_ops_gridsample[], gc_ops_lppool[], gc_ops_unpool[], gc_ops_col2im[], gc_ops_roi[];
extern const gc_op gc_ops_linear_attention[], gc_ops_causal_conv[], gc_ops_deform[], gc_ops_tensor_scatter[];
extern const gc_op gc_ops_sequence[], gc_ops_bitwise[], gc_ops_unique[], gc_ops_signal[];
extern const gc_op gc_ops_index[], gc_ops_gather[], gc_ops_scatter[], gc_ops_topk[];
extern const gc_op gc_ops_resize[], gc_ops_depth_space[], gc_ops_pad[], gc_ops_pieces[];

/* x Sigmoid(x), in no registry. */
extern const gc_op gc_op_gate;

/* NULL when there is no such operator in domain "". */
const gc_op *gc_op_find(const char *name);
/* The k-th row of the registry, NULL past the end. */
const gc_op *gc_op_at(int32_t k);

/* ---- for operators ---- */

/* Declares output i (ignored if the graph does not want it); checks the shape. */
gc_status gc_op_set_output(gc_op_call *c, int32_t i, gc_dtype dtype, int32_t ndim, const int64_t *shape);
/* gc_fail with node and operator named first. */
gc_status gc_op_fail(gc_op_call *c, gc_status status, const char *format, ...) GC_PRINTF(3, 4);
/* Input i is present, else E_INVALID. */
gc_status gc_op_need(gc_op_call *c, int32_t i);
/* The plan stores the tensor (NULL: none) as bfloat16. */
bool gc_op_is_half(const gc_op_call *c, const gc_tensor *t);
/* Input i has no gradient from this call: zeros, or nothing is added. */
void gc_op_no_gradient(gc_op_call *c, int32_t i);
/* The rule of an activation, on n elements: dx is what its derivative gave. */
void gc_op_rule(gc_rule rule, int64_t n, const void *grad_output, int64_t stride, float *dx);
/* Input i must be a constant holding integers (any int type): copies up to
   `capacity` of them to `dst`, the count to *count.  E_UNSUPPORTED with
   "data-dependent" in the message when it is not constant. */
gc_status gc_op_const_ints(gc_op_call *c, int32_t i, int64_t *dst, int32_t capacity, int32_t *count);
/* The attribute `name`, else the constant input i (none if i < 0): copies up to
   `capacity` integers to `dst`; *count is -1 when there is neither. */
gc_status gc_op_ints(gc_op_call *c, const char *name, int32_t i, int64_t *dst, int32_t capacity, int32_t *count);
/* Normalises an axis: -ndim..ndim-1 to 0..ndim-1, else E_INVALID. */
gc_status gc_op_axis(gc_op_call *c, int64_t axis, int32_t ndim, int32_t *out);
/* Broadcast of two shapes by numpy's rule, else E_SHAPE. */
gc_status gc_op_broadcast(gc_op_call *c, int32_t na, const int64_t *a, int32_t nb, const int64_t *b, int32_t *n,
                          int64_t *shape);

#endif
