/* SPDX-License-Identifier: MIT */
/* x Sigmoid(x), which exporters write as two nodes, in one pass over memory.  No
   node has this operator: a plan puts it in the place of a Sigmoid whose result
   nobody else reads (run/fuse.c). */
#include "kern/kern.h"
#include "ops/unary.h"

enum { BLOCK = 256 };

typedef struct gate_job {
    const gc_kern *kern;
    gc_rule rule;
} gate_job;

/* A rule is the Sigmoid's, so it lets through or cuts off what reaches it, g x, and
   not what passes it by. */
static void ruled_slope(gc_rule rule, int64_t n, const float *restrict g, const float *restrict x,
                        const float *restrict gate, float *restrict dx)
{
    const bool guided = rule == GRADCAM_RULE_GUIDED;
    for (int64_t i = 0; i < n && guided; i++) {
        float inner = g[i] * x[i];
        dx[i] = g[i] * gate[i] + (inner > 0.0f ? inner : 0.0f) * (gate[i] * (1.0f - gate[i]));
    }
    for (int64_t i = 0; i < n && !guided; i++) {
        float inner = g[i] * x[i];
        dx[i] = g[i] * gate[i] + (inner > 0.0f ? inner : 0.0f);
    }
}

static const float *gather(const char *p, int64_t stride, int64_t n, float *buffer)
{
    if (stride == (int64_t)sizeof *buffer) {
        return (const float *)(const void *)p;
    }
    for (int64_t i = 0; i < n; i++) {
        buffer[i] = *(const float *)(const void *)(p + i * stride);
    }
    return buffer;
}

/* grad_in, grad_out, x. */
static void ruled_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    const gate_job *j = user;
    float x[BLOCK], g[BLOCK], gate[BLOCK], dx[BLOCK];
    for (int64_t first = 0; first < n; first += BLOCK) {
        int64_t count = n - first < BLOCK ? n - first : BLOCK;
        const float *gs = gather(p[1] + first * s[1], s[1], count, g);
        const float *xs = gather(p[2] + first * s[2], s[2], count, x);
        j->kern->map(GC_MAP_SIGMOID, 1, count, xs, gate, 0);
        bool direct = s[0] == (int64_t)sizeof *dx;
        ruled_slope(j->rule, count, gs, xs, gate, direct ? (float *)(void *)p[0] + first : dx);
        for (int64_t i = 0; i < count && !direct; i++) {
            F(0, first + i) = dx[i];
        }
    }
}

static gc_status gate_forward(gc_op_call *c)
{
    return gc_unary_map(c, GC_MAP_SILU);
}

static gc_status gate_backward(gc_op_call *c)
{
    gate_job j = {gc_kern_of(c->ctx), c->rule};
    if (j.rule == GRADCAM_RULE_PLAIN) {
        return gc_unary_slope(c, GC_MAP_SILU);
    }
    c->rule = GRADCAM_RULE_PLAIN; /* it is in the numbers already */
    gc_status status = gc_unary_backward(c, ruled_run, &j, c->in[0]);
    c->rule = j.rule;
    return status;
}

const gc_op gc_op_gate = FROM_X("Gate", gate, gc_unary_infer_float, GC_OP_SAME | GC_OP_ACTIVATION | GC_OP_FINISHES);
