/* SPDX-License-Identifier: MIT */
/* CausalConvWithState: a depthwise convolution over time that sees only the
 * past, and the state it leaves for the next call.  With p = [past | input],
 * z[t] = bias + sum_k w[k] p[t + k], output = z or silu(z), and the present state
 * is the end of p.  Row-major. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "ops/op.h"

typedef struct causal {
    int64_t batches, channels, length, taps;
    bool silu;
    const float *x, *w, *bias, *past; /* bias and past may be NULL */
    float *y, *present;
    const float *dy, *dpresent; /* may be NULL */
    float *dx, *dw, *dbias, *dpast;
    float *dz; /* [channels][length], scratch */
} causal;

static gc_status setup(gc_op_call *c, causal *s)
{
    const char *activation = gc_attr_string(&c->attrs, "activation", "none");
    memset(s, 0, sizeof *s);
    GC_TRY(gc_op_need(c, 0));
    GC_TRY(gc_op_need(c, 1));
    const gc_tensor *x = c->in[0], *w = c->in[1], *bias = c->n_in > 2 ? c->in[2] : NULL,
                    *past = c->n_in > 3 ? c->in[3] : NULL;
    s->silu = strcmp(activation, "silu") == 0 || strcmp(activation, "swish") == 0;
    if (!s->silu && strcmp(activation, "none") != 0 && activation[0] != '\0') {
        return gc_op_fail(c, GRADCAM_E_INVALID, "unknown activation '%.40s'", activation);
    }
    if (x->dtype != GRADCAM_F32 || w->dtype != GRADCAM_F32 || x->ndim != 3 || w->ndim != 3 || w->shape[1] != 1 ||
        w->shape[0] != x->shape[1] || w->shape[2] < 1) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "needs float [N, C, L] and weights [C, 1, k]");
    }
    s->batches = x->shape[0];
    s->channels = x->shape[1];
    s->length = x->shape[2];
    s->taps = w->shape[2];
    if (bias != NULL && (bias->dtype != GRADCAM_F32 || bias->ndim != 1 || bias->shape[0] != s->channels)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the bias does not have one value per channel");
    }
    if (past != NULL && (past->dtype != GRADCAM_F32 || past->ndim != 3 || past->shape[0] != s->batches ||
                         past->shape[1] != s->channels || past->shape[2] != s->taps - 1)) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "the past state must be float [N, C, k - 1]");
    }
    if (s->channels > INT32_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too many channels");
    }
    s->x = x->data;
    s->w = w->data;
    s->bias = bias != NULL ? bias->data : NULL;
    s->past = past != NULL ? past->data : NULL;
    return GRADCAM_OK;
}

static gc_status causal_infer(gc_op_call *c)
{
    causal s;
    int64_t bytes = 0;
    GC_TRY(setup(c, &s));
    if (!gc_mul_ok(s.channels, s.length, &bytes) || !gc_mul_ok(bytes, (int64_t)sizeof(float), &bytes) ||
        (uint64_t)bytes > SIZE_MAX) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    c->work_bytes = (size_t)bytes;
    int64_t state[3] = {s.batches, s.channels, s.taps - 1};
    GC_TRY(gc_op_set_output(c, 0, GRADCAM_F32, 3, c->in[0]->shape));
    return gc_op_set_output(c, 1, GRADCAM_F32, 3, state);
}

/* Element `at` of p for one sequence (batch and channel). */
static float element(const causal *s, int64_t sequence, int64_t at)
{
    int64_t held = s->taps - 1;
    if (at >= held) {
        return s->x[sequence * s->length + at - held];
    }
    return s->past != NULL ? s->past[sequence * held + at] : 0.0f;
}

static double linear(const causal *s, int64_t sequence, int64_t channel, int64_t t)
{
    double z = s->bias != NULL ? (double)s->bias[channel] : 0.0;
    for (int64_t k = 0; k < s->taps; k++) {
        z += (double)s->w[channel * s->taps + k] * (double)element(s, sequence, t + k);
    }
    return z;
}

static double sigmoid(double z)
{
    return 1.0 / (1.0 + exp(-z));
}

static void forward_task(void *task, uint32_t channel)
{
    const causal *s = task;
    for (int64_t b = 0; b < s->batches; b++) {
        int64_t sequence = b * s->channels + channel;
        for (int64_t t = 0; s->y != NULL && t < s->length; t++) {
            double z = linear(s, sequence, channel, t);
            s->y[sequence * s->length + t] = (float)(s->silu ? z * sigmoid(z) : z);
        }
        for (int64_t k = 0; s->present != NULL && k < s->taps - 1; k++) {
            s->present[sequence * (s->taps - 1) + k] = element(s, sequence, s->length + k);
        }
    }
}

static gc_status causal_forward(gc_op_call *c)
{
    causal s;
    GC_TRY(setup(c, &s));
    s.y = c->out[0] != NULL ? c->out[0]->data : NULL;
    s.present = c->n_out > 1 && c->out[1] != NULL ? c->out[1]->data : NULL;
    return gc_parallel(c->ctx, forward_task, &s, (uint32_t)s.channels);
}

/* Gradient of the linear part of one sequence. */
static void fill_dz(const causal *s, int64_t sequence, int64_t channel, float *dz)
{
    for (int64_t t = 0; t < s->length; t++) {
        double g = s->dy != NULL ? (double)s->dy[sequence * s->length + t] : 0.0;
        if (s->silu && g != 0.0) {
            double z = linear(s, sequence, channel, t), f = sigmoid(z);
            g *= f * (1.0 + z * (1.0 - f));
        }
        dz[t] = (float)g;
    }
}

/* d p[at] = sum_k w[k] dz[at - k], and what the present state hands back. */
static float element_gradient(const causal *s, int64_t sequence, int64_t channel, const float *dz, int64_t at)
{
    double g = 0.0;
    for (int64_t k = 0; k < s->taps; k++) {
        if (at - k >= 0 && at - k < s->length) {
            g += (double)s->w[channel * s->taps + k] * (double)dz[at - k];
        }
    }
    if (s->dpresent != NULL && at >= s->length) {
        g += (double)s->dpresent[sequence * (s->taps - 1) + at - s->length];
    }
    return (float)g;
}

/* One channel of all sequences: its weights belong to no other task. */
static void backward_task(void *task, uint32_t channel)
{
    const causal *s = task;
    float *dz = s->dz + channel * s->length;
    int64_t held = s->taps - 1;
    for (int64_t b = 0; b < s->batches; b++) {
        int64_t sequence = b * s->channels + channel;
        fill_dz(s, sequence, channel, dz);
        for (int64_t at = 0; s->dpast != NULL && at < held; at++) {
            s->dpast[sequence * held + at] = element_gradient(s, sequence, channel, dz, at);
        }
        for (int64_t t = 0; s->dx != NULL && t < s->length; t++) {
            s->dx[sequence * s->length + t] = element_gradient(s, sequence, channel, dz, held + t);
        }
        for (int64_t k = -1; k < s->taps; k++) { /* -1: the bias */
            double sum = 0.0;
            for (int64_t t = 0; t < s->length; t++) {
                sum += (double)dz[t] * (k < 0 ? 1.0 : (double)element(s, sequence, t + k));
            }
            float *to = k < 0 ? s->dbias : s->dw;
            if (to != NULL) {
                to += k < 0 ? channel : channel * s->taps + k;
                *to = (b == 0 ? 0.0f : *to) + (float)sum;
            }
        }
    }
}

static float *gradient(const gc_op_call *c, int32_t i)
{
    return i < c->n_in && c->grad_in[i] != NULL ? c->grad_in[i]->data : NULL;
}

static gc_status causal_backward(gc_op_call *c)
{
    causal s;
    GC_TRY(setup(c, &s));
    s.dy = c->grad_out[0] != NULL ? c->grad_out[0]->data : NULL;
    s.dpresent = c->n_out > 1 && c->grad_out[1] != NULL ? c->grad_out[1]->data : NULL;
    s.dx = gradient(c, 0);
    s.dw = gradient(c, 1);
    s.dbias = gradient(c, 2);
    s.dpast = gradient(c, 3);
    s.dz = c->work;
    for (int32_t i = 1; s.batches == 0 && i < 3; i++) { /* nobody else writes them */
        if (gradient(c, i) != NULL && gc_numel(c->grad_in[i]) > 0) {
            memset(gradient(c, i), 0, (size_t)gc_numel(c->grad_in[i]) * sizeof(float));
        }
    }
    return gc_parallel(c->ctx, backward_task, &s, (uint32_t)s.channels);
}

const gc_op gc_ops_causal_conv[] = {
    {"CausalConvWithState", causal_infer, causal_forward, causal_backward, 0, 15, 0, 2, 4, 2},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
