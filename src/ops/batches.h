/* SPDX-License-Identifier: MIT */
/* Many small calls that have nothing to do with each other: each worker takes some,
   one after the other, instead of all sharing each. */
#ifndef GC_OPS_BATCHES_H
#define GC_OPS_BATCHES_H

#include "ops/op.h"

/* Batch `index` of a call: c->ctx shares nothing out, c->work belongs to the task. */
typedef gc_status (*gc_batch_fn)(gc_op_call *c, const void *user, int64_t index);

/* How many tasks `batches` calls with `each` bytes of work are worth; c->work needs so
   many times `each`.  1: each call is shared out as usual. */
int64_t gc_batch_tasks(const gc_op_call *c, int64_t batches, size_t each);
/* fn for all batches, in gc_batch_tasks tasks; the same bits for any number. */
gc_status gc_each_batch(gc_op_call *c, int64_t batches, size_t each, gc_batch_fn fn, const void *user);

#endif
