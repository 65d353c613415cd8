/* SPDX-License-Identifier: MIT */
/* Frames of operators that map one value at a time: unary.c, activation.c. */
#ifndef GC_OPS_UNARY_H
#define GC_OPS_UNARY_H

#include "ops/op.h"
#include "tensor/walk.h"

/* What integers do; floating point values have a loop of their own. */
enum { U_COPY, U_RELU, U_ABS, U_NEG, U_SIGN, U_CLIP };

typedef struct unary_run {
    float a;
    float b;
    int64_t low;
    int64_t high;
    int32_t op;
    int32_t strict; /* Clip as ReLU6: no gradient at the bounds */
    gc_dtype from;
    gc_dtype to;
} unary_run;

/* Element i of operand k of a walk. */
#define F(k, i) (*(float *)(void *)(p[k] + (i)*s[k]))

/* out, x.  Without strides the compiler can vectorise. */
#define FORWARD_LOOP(name, expr)                                                                                       \
    static void name##_f(void *user, int64_t n, char *const *p, const int64_t *s)                                      \
    {                                                                                                                  \
        const unary_run r = *(const unary_run *)user;                                                                  \
        (void)r;                                                                                                       \
        if (s[0] == 4 && s[1] == 4) {                                                                                  \
            float *y = (float *)(void *)p[0];                                                                          \
            const float *in = (const float *)(const void *)p[1];                                                       \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                const float x = in[i];                                                                                 \
                y[i] = (expr);                                                                                         \
            }                                                                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const float x = F(1, i);                                                                                   \
            F(0, i) = (expr);                                                                                          \
        }                                                                                                              \
    }

/* grad_in, grad_out g, and v: x or y as the row of the operator says. */
#define BACKWARD_LOOP(name, expr)                                                                                      \
    static void name##_b(void *user, int64_t n, char *const *p, const int64_t *s)                                      \
    {                                                                                                                  \
        const unary_run r = *(const unary_run *)user;                                                                  \
        (void)r;                                                                                                       \
        if (s[0] == 4 && s[1] == 4 && s[2] == 4) {                                                                     \
            float *d = (float *)(void *)p[0];                                                                          \
            const float *go = (const float *)(const void *)p[1];                                                       \
            const float *in = (const float *)(const void *)p[2];                                                       \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                const float g = go[i], v = in[i];                                                                      \
                (void)v;                                                                                               \
                d[i] = (expr);                                                                                         \
            }                                                                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const float g = F(1, i), v = F(2, i);                                                                      \
            (void)v;                                                                                                   \
            F(0, i) = (expr);                                                                                          \
        }                                                                                                              \
    }

/* The output has the type and shape of the input, which is anything, floating
   point, or a number. */
gc_status gc_unary_infer_any(gc_op_call *c);
gc_status gc_unary_infer_float(gc_op_call *c);
gc_status gc_unary_infer_number(gc_op_call *c);
/* `fn` over output and input; integers as r->op says. */
gc_status gc_unary_forward(gc_op_call *c, gc_walk_fn fn, unary_run *r);
/* out[0] = f(in[0]), f being GC_MAP_*. */
gc_status gc_unary_map(gc_op_call *c, int32_t kind);
/* `fn` over grad_in, grad_out and v; zero where there is nothing to hand on. */
gc_status gc_unary_backward(gc_op_call *c, gc_walk_fn fn, void *user, const gc_tensor *v);
/* grad_in[0] = grad_out[0] f'(in[0]), f being GC_MAP_* from ERF on. */
gc_status gc_unary_slope(gc_op_call *c, int32_t kind);
unary_run gc_unary_attrs(const gc_op_call *c, const char *name_a, float a, const char *name_b, float b);

/* An operator: forward from x, derivative from v, which is in[0] or out[0]. */
#define UNARY(name, code, value, na, da, nb, db, f, d)                                                                 \
    FORWARD_LOOP(name, f)                                                                                              \
    BACKWARD_LOOP(name, d)                                                                                             \
    static gc_status name##_forward(gc_op_call *c)                                                                     \
    {                                                                                                                  \
        unary_run r = gc_unary_attrs(c, na, da, nb, db);                                                               \
        r.op = (code);                                                                                                 \
        return gc_unary_forward(c, name##_f, &r);                                                                      \
    }                                                                                                                  \
    static gc_status name##_backward(gc_op_call *c)                                                                    \
    {                                                                                                                  \
        unary_run r = gc_unary_attrs(c, na, da, nb, db);                                                               \
        return gc_unary_backward(c, name##_b, &r, c->value);                                                           \
    }

#define SIMPLE(name, value, f, d) UNARY(name, U_COPY, value, "alpha", 0.0f, "beta", 0.0f, f, d)

/* Both by the kernels: f has a derivative there. */
#define KERNEL(name, kind)                                                                                             \
    static gc_status name##_forward(gc_op_call *c)                                                                     \
    {                                                                                                                  \
        return gc_unary_map(c, kind);                                                                                  \
    }                                                                                                                  \
    static gc_status name##_backward(gc_op_call *c)                                                                    \
    {                                                                                                                  \
        return gc_unary_slope(c, kind);                                                                                \
    }

/* A forward function of the kernels, the derivative an expression of its value. */
#define MAPPED(name, kind, d)                                                                                          \
    BACKWARD_LOOP(name, d)                                                                                             \
    static gc_status name##_forward(gc_op_call *c)                                                                     \
    {                                                                                                                  \
        return gc_unary_map(c, kind);                                                                                  \
    }                                                                                                                  \
    static gc_status name##_backward(gc_op_call *c)                                                                    \
    {                                                                                                                  \
        unary_run r = gc_unary_attrs(c, "alpha", 0.0f, "beta", 0.0f);                                                  \
        return gc_unary_backward(c, name##_b, &r, c->out[0]);                                                          \
    }

#define FROM_X(op, id, kind, flags)                                                                                    \
    {                                                                                                                  \
        op, kind, id##_forward, id##_backward, flags, 1, 0, 1, 1, 1                                                    \
    }
#define FROM_Y(op, id, kind, flags)                                                                                    \
    {                                                                                                                  \
        op, kind, id##_forward, id##_backward, flags, 0, 1, 1, 1, 1                                                    \
    }

#endif
