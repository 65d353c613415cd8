/* SPDX-License-Identifier: MIT */
/* BitwiseAnd, BitwiseOr, BitwiseXor, BitwiseNot, BitShift, BitCast. */
#include <string.h>

#include "ops/op.h"
#include "tensor/walk.h"

enum { BIT_AND, BIT_OR, BIT_XOR, BIT_NOT, BIT_LEFT, BIT_RIGHT };

typedef struct bits {
    gc_dtype dtype;
    int32_t op;
} bits;

static gc_status read_op(gc_op_call *c, bits *b)
{
    static const char *const names[] = {"BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"};
    const char *direction = gc_attr_string(&c->attrs, "direction", "");
    b->dtype = c->in[0]->dtype;
    for (b->op = 0; b->op < 4; b->op++) {
        if (strcmp(c->op_name, names[b->op]) == 0) {
            return GRADCAM_OK;
        }
    }
    b->op = strcmp(direction, "LEFT") == 0 ? BIT_LEFT : BIT_RIGHT;
    if (b->op == BIT_RIGHT && strcmp(direction, "RIGHT") != 0) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "unknown direction '%.40s'", direction);
    }
    return GRADCAM_OK;
}

static gc_status bits_infer(gc_op_call *c)
{
    bits b;
    int32_t n = 0;
    int64_t shape[GRADCAM_MAX_DIMS];
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(read_op(c, &b));
    const gc_tensor *x = c->in[0];
    if (x->dtype < GRADCAM_I64 || x->dtype == GRADCAM_BOOL) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "the inputs must be integers");
    }
    if (b.op == BIT_NOT) {
        return gc_op_set_output(c, 0, x->dtype, x->ndim, x->shape);
    }
    GC_TRY(gc_op_need(c, 1));
    if (c->in[1]->dtype != x->dtype) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "the inputs have different types");
    }
    GC_TRY(gc_op_broadcast(c, x->ndim, x->shape, c->in[1]->ndim, c->in[1]->shape, &n, shape));
    return gc_op_set_output(c, 0, x->dtype, n, shape);
}

/* Shifts fill with zeros; all bits may leave. */
static uint64_t combine(const bits *b, uint64_t x, uint64_t y)
{
    unsigned width = 8 * (unsigned)gc_dtype_size(b->dtype);
    uint64_t mask = width == 64 ? UINT64_MAX : (UINT64_C(1) << width) - 1;
    switch (b->op) {
    case BIT_AND: return x & y;
    case BIT_OR: return x | y;
    case BIT_XOR: return x ^ y;
    case BIT_NOT: return ~x;
    case BIT_LEFT: return y < width ? x << y : 0;
    default: return y < width ? (x & mask) >> y : 0;
    }
}

static void bits_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    const bits *b = user;
    for (int64_t i = 0; i < n; i++) {
        uint64_t x = (uint64_t)gc_load_int(p[1] + i * s[1], b->dtype);
        uint64_t y = b->op == BIT_NOT ? 0 : (uint64_t)gc_load_int(p[2] + i * s[2], b->dtype);
        uint64_t r = combine(b, x, y);
        int64_t value;
        memcpy(&value, &r, sizeof value);
        gc_store_int(p[0] + i * s[0], b->dtype, value);
    }
}

static gc_status bits_forward(gc_op_call *c)
{
    bits b;
    GC_TRY(read_op(c, &b));
    const gc_tensor *ts[3] = {c->out[0], c->in[0], b.op == BIT_NOT ? NULL : c->in[1]};
    if (c->out[0] != NULL) {
        gc_walk_tensors(b.op == BIT_NOT ? 2 : 3, ts, bits_run, &b);
    }
    return GRADCAM_OK;
}

/* ---- BitCast: the same bytes under another type.  A float of 8 bytes is a double,
   which the engine holds as float32: its bits are those of the rounded number ---- */

static gc_status cast_infer(gc_op_call *c)
{
    gc_dtype dtype = 0;
    GC_TRY(gc_op_need(c, 0));
    const gc_tensor *x = c->in[0];
    int64_t to = gc_attr_int(&c->attrs, "to", 0);
    if ((to == 11 && x->dtype == GRADCAM_I64) || (to == 7 && x->dtype == GRADCAM_F32)) {
        return gc_op_set_output(c, 0, to == 7 ? GRADCAM_I64 : GRADCAM_F32, x->ndim, x->shape);
    }
    switch (to) { /* numbers of TensorProto.DataType */
    case 1: dtype = GRADCAM_F32; break;
    case 2: dtype = GRADCAM_U8; break;
    case 6: dtype = GRADCAM_I32; break;
    case 7: dtype = GRADCAM_I64; break;
    default: break;
    }
    if (dtype == 0 || gc_dtype_size(dtype) != gc_dtype_size(x->dtype)) {
        return gc_op_fail(c, GRADCAM_E_UNSUPPORTED, "only between float, double, int32, int64 and uint8 of one size");
    }
    return gc_op_set_output(c, 0, dtype, x->ndim, x->shape);
}

static void cast_doubles(const gc_tensor *x, gc_tensor *y)
{
    for (int64_t i = 0; i < gc_numel(x); i++) {
        double value = 0.0;
        if (x->dtype == GRADCAM_F32) {
            value = (double)((const float *)x->data)[i];
            memcpy((int64_t *)y->data + i, &value, sizeof value);
        } else {
            memcpy(&value, (const int64_t *)x->data + i, sizeof value);
            ((float *)y->data)[i] = (float)value;
        }
    }
}

static gc_status cast_forward(gc_op_call *c)
{
    gc_tensor *y = c->out[0];
    if (y != NULL && gc_dtype_size(y->dtype) != gc_dtype_size(c->in[0]->dtype)) {
        cast_doubles(c->in[0], y);
    } else if (y != NULL && gc_numel(y) > 0) {
        memcpy(y->data, c->in[0]->data, (size_t)gc_numel(y) * gc_dtype_size(y->dtype));
    }
    return GRADCAM_OK;
}

#define BITS(name, inputs)                                                                                             \
    {                                                                                                                  \
        name, bits_infer, bits_forward, NULL, GC_OP_SAME | GC_OP_STOPS, 0, 0, inputs, inputs, 1                        \
    }
const gc_op gc_ops_bitwise[] = {
    BITS("BitwiseAnd", 2),
    BITS("BitwiseOr", 2),
    BITS("BitwiseXor", 2),
    BITS("BitwiseNot", 1),
    BITS("BitShift", 2),
    {"BitCast", cast_infer, cast_forward, NULL, GC_OP_STOPS, 0, 0, 1, 1, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
