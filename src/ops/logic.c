/* SPDX-License-Identifier: MIT */
/* Comparisons, logic and Where. */
#include <string.h>

#include "base/size.h"
#include "tensor/walk.h"
#include "ops/op.h"

#define F(k, i) (*(float *)(void *)(p[k] + (i)*s[k]))

/* Before opset 7 an attribute says where the second input begins. */
static int32_t lead_of(const gc_op_call *c, int32_t i, int32_t ndim)
{
    int32_t lead = ndim - c->in[i]->ndim;
    if (i == 1 && c->opset < 7 && gc_attr_int(&c->attrs, "broadcast", 0) != 0) {
        int64_t axis = gc_attr_int(&c->attrs, "axis", lead);
        return axis >= 0 && axis <= lead ? (int32_t)axis : lead;
    }
    return lead;
}

static gc_status infer_logic(gc_op_call *c)
{
    int32_t n = 0;
    int64_t shape[GRADCAM_MAX_DIMS] = {0};
    int64_t second[GRADCAM_MAX_DIMS];
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    const gc_tensor *a = c->in[0];
    const gc_tensor *b = c->in[1];
    int32_t lead = lead_of(c, 1, a->ndim);
    if (a->dtype != b->dtype) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "the inputs have different types");
    }
    if (lead <= 0 || lead + b->ndim == a->ndim) {
        GC_TRY(gc_op_broadcast(c, a->ndim, a->shape, b->ndim, b->shape, &n, shape));
    } else {
        for (int32_t d = 0; d < a->ndim; d++) {
            second[d] = d >= lead && d < lead + b->ndim ? b->shape[d - lead] : 1;
        }
        GC_TRY(gc_op_broadcast(c, a->ndim, a->shape, a->ndim, second, &n, shape));
    }
    return gc_op_set_output(c, 0, GRADCAM_BOOL, n, shape);
}

#define COMPARE(name, expr)                                                                                            \
    static void name##_run(void *user, int64_t n, char *const *p, const int64_t *s)                                    \
    {                                                                                                                  \
        gc_dtype type = *(const gc_dtype *)user;                                                                       \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            uint8_t *y = (uint8_t *)(void *)(p[0] + i * s[0]);                                                         \
            if (type == GRADCAM_F32) {                                                                                 \
                const float a = F(1, i), b = F(2, i);                                                                  \
                *y = (expr) ? 1 : 0;                                                                                   \
            } else {                                                                                                   \
                const int64_t a = gc_load_int(p[1] + i * s[1], type);                                                  \
                const int64_t b = gc_load_int(p[2] + i * s[2], type);                                                  \
                *y = (expr) ? 1 : 0;                                                                                   \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    static gc_status name##_forward(gc_op_call *c)                                                                     \
    {                                                                                                                  \
        return compare(c, name##_run);                                                                                 \
    }

static gc_status compare(gc_op_call *c, gc_walk_fn fn)
{
    gc_walk_operand ops[3];
    const gc_tensor *y = c->out[0];
    gc_dtype type = c->in[0]->dtype;
    if (y != NULL) {
        gc_walk_bind(&ops[0], y, y->ndim, 0);
        gc_walk_bind(&ops[1], c->in[0], y->ndim, lead_of(c, 0, y->ndim));
        gc_walk_bind(&ops[2], c->in[1], y->ndim, lead_of(c, 1, y->ndim));
        gc_walk(y->ndim, y->shape, 3, ops, fn, &type);
    }
    return GRADCAM_OK;
}

COMPARE(equal, a == b)
COMPARE(greater, a > b)
COMPARE(less, a < b)
COMPARE(greater_equal, a >= b)
COMPARE(less_equal, a <= b)
COMPARE(and, a != 0 && b != 0)
COMPARE(or, a != 0 || b != 0)
COMPARE(xor, (a != 0) != (b != 0))

/* ---- Where ---- */

static gc_status infer_where(gc_op_call *c)
{
    int32_t n = 0;
    int32_t all = 0;
    int64_t part[GRADCAM_MAX_DIMS] = {0};
    int64_t shape[GRADCAM_MAX_DIMS] = {0};
    int64_t bytes = 0;
    for (int32_t i = 0; i < 3; i++) {
        GC_TRY(gc_op_need(c, i));
    }
    const gc_tensor *x = c->in[1];
    const gc_tensor *z = c->in[2];
    if (c->in[0]->dtype != GRADCAM_BOOL || x->dtype != z->dtype) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "the condition must be bool, the others of one type");
    }
    GC_TRY(gc_op_broadcast(c, x->ndim, x->shape, z->ndim, z->shape, &n, part));
    GC_TRY(gc_op_broadcast(c, n, part, c->in[0]->ndim, c->in[0]->shape, &all, shape));
    GC_TRY(gc_op_set_output(c, 0, x->dtype, all, shape));
    int64_t nx = gc_shape_numel(x->ndim, x->shape);
    int64_t nz = gc_shape_numel(z->ndim, z->shape);
    if (!gc_mul_ok(nx > nz ? nx : nz, 8, &bytes)) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "the tensors are too large");
    }
    c->work_bytes = (size_t)bytes;
    return GRADCAM_OK;
}

static void where_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    size_t size = *(const size_t *)user;
    for (int64_t i = 0; i < n; i++) {
        const char *from = p[1][i * s[1]] != 0 ? p[2] + i * s[2] : p[3] + i * s[3];
        memcpy(p[0] + i * s[0], from, size);
    }
}

static gc_status where_forward(gc_op_call *c)
{
    const gc_tensor *ts[4] = {c->out[0], c->in[0], c->in[1], c->in[2]};
    if (ts[0] != NULL) {
        size_t size = gc_dtype_size(ts[0]->dtype);
        return gc_walk_tensors_on(c->ctx, 4, ts, where_run, &size);
    }
    return GRADCAM_OK;
}

/* Operands g, target, condition.  Selects: 0 * inf would make a NaN. */
static void pick_set(void *user, int64_t n, char *const *p, const int64_t *s)
{
    bool want = *(const bool *)user;
    for (int64_t i = 0; i < n; i++) {
        F(1, i) = (p[2][i * s[2]] != 0) == want ? F(0, i) : 0.0f;
    }
}

static void pick_acc(void *user, int64_t n, char *const *p, const int64_t *s)
{
    bool want = *(const bool *)user;
    for (int64_t i = 0; i < n; i++) {
        if ((p[2][i * s[2]] != 0) == want) {
            *(double *)(void *)(p[1] + i * s[1]) += (double)F(0, i);
        }
    }
}

static gc_status where_backward(gc_op_call *c)
{
    const gc_tensor *g = c->grad_out[0];
    for (int32_t i = 0; i < 3; i++) {
        bool want = i == 1;
        if (c->grad_in[i] == NULL) {
            continue;
        }
        if (i == 0 || g == NULL || c->in[i]->dtype != GRADCAM_F32) {
            gc_walk_zero(c->grad_in[i]);
            continue;
        }
        gc_walk_grad w = {pick_set, pick_acc, &want, c->work, 1, {c->in[0]}, {g->ndim - c->in[0]->ndim}, c->ctx, false};
        GC_TRY(gc_walk_gradient(&w, g, c->grad_in[i], g->ndim - c->in[i]->ndim));
    }
    return GRADCAM_OK;
}

#define TEST(op, id)                                                                                                   \
    {                                                                                                                  \
        op, infer_logic, id##_forward, NULL, GC_OP_SAME | GC_OP_STOPS, 0, 0, 2, 2, 1                                   \
    }
const gc_op gc_ops_logic[] = {
    TEST("Equal", equal),
    TEST("Greater", greater),
    TEST("Less", less),
    TEST("GreaterOrEqual", greater_equal),
    TEST("LessOrEqual", less_equal),
    TEST("And", and),
    TEST("Or", or),
    TEST("Xor", xor),
    {"Where", infer_where, where_forward, where_backward, GC_OP_SAME, 1, 0, 3, 3, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
