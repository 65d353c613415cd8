/* SPDX-License-Identifier: MIT */
/* SwiGLU (opset 28): y = a q b with q = sigmoid(alpha a); a and b have one shape.
   da = g b q (1 + alpha a (1 - q)), db = g a q. */
#include <math.h>

#include "ops/op.h"
#include "tensor/walk.h"

#define F(k, i) (*(float *)(void *)(p[k] + (i)*s[k]))

static gc_status swiglu_infer(gc_op_call *c)
{
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    if (c->in[0]->dtype != GRADCAM_F32 || c->in[1]->dtype != GRADCAM_F32) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "the inputs must be floating point");
    }
    if (!gc_same_shape(c->in[0], c->in[1])) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the inputs must have the same shape");
    }
    return gc_op_set_output(c, 0, GRADCAM_F32, c->in[0]->ndim, c->in[0]->shape);
}

static float gate(float a, float alpha)
{
    return 1.0f / (1.0f + expf(-alpha * a)); /* exp overflows to inf, which gives 0 */
}

/* y, a, b */
static void value_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    float alpha = *(const float *)user;
    for (int64_t i = 0; i < n; i++) {
        F(0, i) = F(1, i) * gate(F(1, i), alpha) * F(2, i);
    }
}

/* da, g, a, b */
static void gate_gradient_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    float alpha = *(const float *)user;
    for (int64_t i = 0; i < n; i++) {
        float a = F(2, i), q = gate(a, alpha);
        F(0, i) = F(1, i) * F(3, i) * q * (1.0f + alpha * a * (1.0f - q));
    }
}

static gc_status swiglu_forward(gc_op_call *c)
{
    float alpha = gc_attr_float(&c->attrs, "alpha", 1.0f);
    const gc_tensor *ts[3] = {c->out[0], c->in[0], c->in[1]};
    if (ts[0] != NULL) {
        gc_walk_tensors(3, ts, value_run, &alpha);
    }
    return GRADCAM_OK;
}

/* db is the value with g in place of b. */
static gc_status swiglu_backward(gc_op_call *c)
{
    float alpha = gc_attr_float(&c->attrs, "alpha", 1.0f);
    const gc_tensor *da[4] = {c->grad_in[0], c->grad_out[0], c->in[0], c->in[1]};
    const gc_tensor *db[3] = {c->grad_in[1], c->in[0], c->grad_out[0]};
    if (da[0] != NULL) {
        gc_walk_tensors(4, da, gate_gradient_run, &alpha);
    }
    if (db[0] != NULL) {
        gc_walk_tensors(3, db, value_run, &alpha);
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_swiglu[] = {
    {"SwiGLU", swiglu_infer, swiglu_forward, swiglu_backward, GC_OP_SAME, 3, 0, 2, 2, 1},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
