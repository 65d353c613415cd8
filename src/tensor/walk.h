/* SPDX-License-Identifier: MIT */
/* Walks N-dimensional operands of any strides in long inner runs, so that one
   inner loop serves every layout and every broadcast.  Allocates nothing. */
#ifndef GC_TENSOR_WALK_H
#define GC_TENSOR_WALK_H

#include "tensor/tensor.h"

enum { GC_WALK_MAX = 6 };

typedef struct gc_walk_operand {
    void *data;
    int64_t strides[GRADCAM_MAX_DIMS]; /* bytes, one for each walked dimension; 0 repeats */
} gc_walk_operand;

/* One run of n elements: p[k] is operand k, s[k] its stride in bytes. */
typedef void (*gc_walk_fn)(void *user, int64_t n, char *const *p, const int64_t *s);

/* Calls fn for runs that cover `shape` once.  The first operand's layout
   decides the order, so it should be the largest or the one written. */
void gc_walk(int32_t ndim, const int64_t *shape, int32_t n_ops, const gc_walk_operand *ops, gc_walk_fn fn, void *user);

/* Describes t seen from a shape of `ndim` dimensions; dimension 0 of t falls on
   dimension `lead` (ndim - t->ndim by numpy's rule).  Size 1 repeats. */
void gc_walk_bind(gc_walk_operand *op, const gc_tensor *t, int32_t ndim, int32_t lead);

/* gc_walk over the shape of ts[0], the others bound by numpy's rule. */
void gc_walk_tensors(int32_t n, const gc_tensor *const *ts, gc_walk_fn fn, void *user);

/* The same shared out over the executor, where every run writes its own
   elements of the first operand. */
gc_status gc_walk_on(const gc_ctx *ctx, int32_t ndim, const int64_t *shape, int32_t n_ops, const gc_walk_operand *ops,
                     gc_walk_fn fn, void *user);
gc_status gc_walk_tensors_on(const gc_ctx *ctx, int32_t n, const gc_tensor *const *ts, gc_walk_fn fn, void *user);

/* Gradient of a broadcast operand.  Operands of the loops: 0 is g, 1 the
   target, 2.. the `n` tensors of ts.  `set` writes float targets and is used
   where nothing repeats; `acc` adds to double targets in `work`, which has
   room for gc_numel(dst) doubles and is rounded into dst at the end.  With `add`
   dst holds a part already, to which the gradient is added. */
typedef struct gc_walk_grad {
    gc_walk_fn set;
    gc_walk_fn acc;
    void *user;
    double *work;
    int32_t n;
    const gc_tensor *ts[GC_WALK_MAX - 2];
    int32_t leads[GC_WALK_MAX - 2];
    const gc_ctx *ctx;
    bool add;
} gc_walk_grad;
gc_status gc_walk_gradient(const gc_walk_grad *w, const gc_tensor *g, gc_tensor *dst, int32_t lead);

/* Adds n floats to n that lie `stride` bytes apart. */
void gc_walk_add(int64_t n, const float *part, void *to, int64_t stride);

/* Fills with zeros, whatever the strides. */
void gc_walk_zero(gc_tensor *t);

/* Integers of any engine type as int64_t; storing wraps. */
int64_t gc_load_int(const void *p, gc_dtype dtype);
void gc_store_int(void *p, gc_dtype dtype, int64_t v);
/* Any engine type as a real number. */
double gc_load_real(const void *p, gc_dtype dtype);

#endif
