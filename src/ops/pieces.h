/* SPDX-License-Identifier: MIT */
#ifndef GC_OPS_PIECES_H
#define GC_OPS_PIECES_H

#include "ops/op.h"

/* How many pieces SplitToSequence makes of in[0] (in[1]: their lengths), at most `most`. */
gc_status gc_pieces_count(gc_op_call *c, int64_t most, int32_t *count);

#endif
