/* SPDX-License-Identifier: MIT */
/* How much arithmetic an operator is. */
#ifndef GC_OPS_FLOPS_H
#define GC_OPS_FLOPS_H

#include "ops/attr.h"
#include "tensor/tensor.h"

enum { GC_FLOPS_INPUTS = 8 };

/* What the count looks at: shapes only; NULL where an input is absent. */
typedef struct gc_flops_query {
    const char *op;
    gc_attr_list attrs;
    const gc_tensor *in[GC_FLOPS_INPUTS];
    const gc_tensor *out;
    int32_t n_in; /* all of them; no more than GC_FLOPS_INPUTS are in in[] */
    int32_t reserved0;
} gc_flops_query;

/* Two for each multiply-add of convolutions, matrix products and recurrent
   cells; 0 for every other operator.  INT64_MAX when it overflows. */
int64_t gc_op_flops(const gc_flops_query *q);

#endif
