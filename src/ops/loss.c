/* SPDX-License-Identifier: MIT */
/* NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss.  With p the logarithm of
   the probabilities (the input of the first, log softmax of the second's),
     loss = -w[t] p[t],  0 where t is ignore_index;  mean divides by the sum of w[t].
   Gradient: dp[t] = -w[t] dloss and the gradient of the output log_prob;
   through log softmax dx = dp - exp(p) sum(dp). */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "ops/op.h"
#include "tensor/walk.h"

enum { L_INPUT, L_TARGET, L_WEIGHT };
enum { L_NONE, L_SUM, L_MEAN };

typedef struct loss {
    int64_t samples, classes, inner; /* [samples, classes, inner] and [samples, inner] */
    int64_t ignored;
    bool ignores;
    int32_t reduction;
    const float *weight;
} loss;

static gc_status read_reduction(gc_op_call *c, loss *l)
{
    const char *name = gc_attr_string(&c->attrs, "reduction", "mean");
    static const char *const names[] = {"none", "sum", "mean"};
    const gc_attr_value *ignored = gc_attr_find(&c->attrs, "ignore_index", GRADCAM_ATTR_INT);
    l->ignores = ignored != NULL;
    l->ignored = ignored != NULL ? ignored->i : 0;
    for (l->reduction = L_NONE; l->reduction <= L_MEAN; l->reduction++) {
        if (strcmp(name, names[l->reduction]) == 0) {
            return GRADCAM_OK;
        }
    }
    return gc_op_fail(c, GRADCAM_E_INVALID, "reduction \"%.40s\"", name);
}

static gc_status setup(gc_op_call *c, loss *l)
{
    memset(l, 0, sizeof *l);
    GC_TRY(gc_op_need(c, L_INPUT));
    GC_TRY(gc_op_need(c, L_TARGET));
    const gc_tensor *x = c->in[L_INPUT], *t = c->in[L_TARGET], *w = c->n_in > L_WEIGHT ? c->in[L_WEIGHT] : NULL;
    if (x->dtype != GRADCAM_F32 || (t->dtype != GRADCAM_I64 && t->dtype != GRADCAM_I32) ||
        (w != NULL && w->dtype != GRADCAM_F32)) {
        return gc_op_fail(c, GRADCAM_E_DTYPE, "scores and weights must be float, labels int32 or int64");
    }
    bool fits = x->ndim >= 2 && t->ndim == x->ndim - 1 && t->shape[0] == x->shape[0];
    for (int32_t d = 2; fits && d < x->ndim; d++) {
        fits = t->shape[d - 1] == x->shape[d];
    }
    if (!fits || (w != NULL && (w->ndim != 1 || w->shape[0] != x->shape[1]))) {
        return gc_op_fail(c, GRADCAM_E_SHAPE, "scores [N, C, ...], labels [N, ...] and weights [C] do not fit");
    }
    l->samples = x->shape[0];
    l->classes = x->shape[1];
    l->inner = gc_shape_numel(x->ndim - 2, x->shape + 2);
    l->weight = w != NULL ? w->data : NULL;
    return read_reduction(c, l);
}

static gc_status infer(gc_op_call *c)
{
    loss l;
    GC_TRY(setup(c, &l));
    const gc_tensor *t = c->in[L_TARGET];
    c->work_bytes = c->n_in > L_WEIGHT && c->in[L_WEIGHT] != NULL ? (size_t)l.classes * sizeof(double) : 0;
    return gc_op_set_output(c, 0, GRADCAM_F32, l.reduction == L_NONE ? t->ndim : 0, t->shape);
}

/* Class of position k, -1 when it is ignored. */
static gc_status class_at(gc_op_call *c, const loss *l, int64_t k, int64_t *out)
{
    const gc_tensor *t = c->in[L_TARGET];
    *out = gc_load_int((const char *)t->data + (size_t)k * gc_dtype_size(t->dtype), t->dtype);
    if (l->ignores && *out == l->ignored) {
        *out = -1;
        return GRADCAM_OK;
    }
    return *out >= 0 && *out < l->classes
               ? GRADCAM_OK
               : gc_op_fail(c, GRADCAM_E_INVALID, "label %lld of %lld classes", (long long)*out, (long long)l->classes);
}

static int64_t score_at(const loss *l, int64_t k, int64_t label)
{
    return (k / l->inner * l->classes + label) * l->inner + k % l->inner;
}

static double weight_of(const loss *l, int64_t label)
{
    return l->weight == NULL ? 1.0 : (double)l->weight[label];
}

/* The loss from log probabilities p. */
static gc_status sum_up(gc_op_call *c, const loss *l, const float *p, float *y)
{
    double sum = 0.0, weights = 0.0;
    for (int64_t k = 0; k < l->samples * l->inner; k++) {
        int64_t label;
        GC_TRY(class_at(c, l, k, &label));
        double w = label < 0 ? 0.0 : weight_of(l, label);
        double part = label < 0 ? 0.0 : -w * (double)p[score_at(l, k, label)];
        if (l->reduction == L_NONE) {
            y[k] = (float)part;
        }
        sum += part;
        weights += w;
    }
    if (l->reduction != L_NONE) {
        *y = (float)(l->reduction == L_MEAN ? sum / weights : sum);
    }
    return GRADCAM_OK;
}

/* dp[t] -= w[t] g for every position. */
static gc_status spread(gc_op_call *c, const loss *l, const float *g, float *dp)
{
    double weights = 0.0;
    for (int64_t pass = l->reduction == L_MEAN ? 0 : 1; pass < 2; pass++) {
        for (int64_t k = 0; k < l->samples * l->inner; k++) {
            int64_t label;
            GC_TRY(class_at(c, l, k, &label));
            if (label >= 0 && pass == 0) {
                weights += weight_of(l, label);
            } else if (label >= 0) {
                double part = weight_of(l, label) * (double)g[l->reduction == L_NONE ? k : 0];
                dp[score_at(l, k, label)] -= (float)(l->reduction == L_MEAN ? part / weights : part);
            }
        }
    }
    return GRADCAM_OK;
}

/* Gradient of the weights, d loss / d w[t] = -p[t]; of a mean L = S / W it is
   (-p[t] - L) / W.  `p` as in sum_up. */
static gc_status weight_gradient(gc_op_call *c, const loss *l, const float *p)
{
    const float *g = c->grad_out[0] != NULL ? c->grad_out[0]->data : NULL;
    float *dw = c->grad_in[L_WEIGHT]->data;
    double *sums = c->work, weights = 0.0, mean = 0.0;
    memset(sums, 0, (size_t)l->classes * sizeof *sums);
    for (int32_t pass = l->reduction == L_MEAN ? 0 : 1; g != NULL && pass < 2; pass++) {
        for (int64_t k = 0; k < l->samples * l->inner; k++) {
            int64_t label;
            GC_TRY(class_at(c, l, k, &label));
            double part = label < 0 ? 0.0 : -(double)p[score_at(l, k, label)];
            if (label >= 0 && pass == 0) {
                weights += weight_of(l, label);
                mean += weight_of(l, label) * part;
            } else if (label >= 0) {
                double slope = l->reduction == L_MEAN ? (part - mean / weights) / weights : part;
                sums[label] += slope * (double)g[l->reduction == L_NONE ? k : 0];
            }
        }
    }
    for (int64_t i = 0; i < l->classes; i++) {
        dw[i] = (float)sums[i];
    }
    return GRADCAM_OK;
}

static bool wants(const gc_op_call *c, int32_t i)
{
    return i < c->n_in && c->grad_in[i] != NULL;
}

/* ---- NegativeLogLikelihoodLoss ---- */

static gc_status nll_forward(gc_op_call *c)
{
    loss l;
    GC_TRY(setup(c, &l));
    return c->out[0] == NULL ? GRADCAM_OK : sum_up(c, &l, c->in[L_INPUT]->data, c->out[0]->data);
}

static gc_status nll_backward(gc_op_call *c)
{
    loss l;
    GC_TRY(setup(c, &l));
    if (wants(c, L_WEIGHT)) {
        GC_TRY(weight_gradient(c, &l, c->in[L_INPUT]->data));
    }
    if (!wants(c, L_INPUT)) {
        return GRADCAM_OK;
    }
    gc_walk_zero(c->grad_in[L_INPUT]);
    return spread(c, &l, c->grad_out[0]->data, c->grad_in[L_INPUT]->data);
}

/* ---- SoftmaxCrossEntropyLoss: aux holds the log probabilities ---- */

static gc_status cross_infer(gc_op_call *c)
{
    int64_t bytes;
    GC_TRY(infer(c));
    const gc_tensor *x = c->in[L_INPUT];
    if (!gc_mul_ok(gc_shape_numel(x->ndim, x->shape), sizeof(float), &bytes)) {
        return gc_op_fail(c, GRADCAM_E_LIMIT, "too large");
    }
    c->aux_bytes = (size_t)bytes;
    return gc_op_set_output(c, 1, GRADCAM_F32, x->ndim, x->shape);
}

static void log_softmax(const loss *l, const float *x, float *p)
{
    for (int64_t k = 0; k < l->samples * l->inner; k++) {
        int64_t first = score_at(l, k, 0);
        float top = -HUGE_VALF;
        double sum = 0.0;
        for (int64_t i = 0; i < l->classes; i++) {
            float v = x[first + i * l->inner];
            top = v > top || v != v ? v : top;
        }
        for (int64_t i = 0; i < l->classes; i++) {
            sum += exp((double)x[first + i * l->inner] - (double)top);
        }
        for (int64_t i = 0; i < l->classes; i++) {
            p[first + i * l->inner] = (float)((double)x[first + i * l->inner] - (double)top - log(sum));
        }
    }
}

static gc_status cross_forward(gc_op_call *c)
{
    loss l;
    GC_TRY(setup(c, &l));
    log_softmax(&l, c->in[L_INPUT]->data, c->aux);
    if (c->n_out > 1 && c->out[1] != NULL) {
        memcpy(c->out[1]->data, c->aux, (size_t)gc_numel(c->out[1]) * sizeof(float));
    }
    return c->out[0] == NULL ? GRADCAM_OK : sum_up(c, &l, c->aux, c->out[0]->data);
}

static gc_status cross_backward(gc_op_call *c)
{
    loss l;
    GC_TRY(setup(c, &l));
    if (wants(c, L_WEIGHT)) {
        GC_TRY(weight_gradient(c, &l, c->aux));
    }
    if (!wants(c, L_INPUT)) {
        return GRADCAM_OK;
    }
    float *d = c->grad_in[L_INPUT]->data;
    const float *p = c->aux;
    gc_walk_zero(c->grad_in[L_INPUT]);
    if (c->n_out > 1 && c->grad_out[1] != NULL) {
        memcpy(d, c->grad_out[1]->data, (size_t)gc_numel(c->grad_out[1]) * sizeof(float));
    }
    if (c->grad_out[0] != NULL) {
        GC_TRY(spread(c, &l, c->grad_out[0]->data, d));
    }
    for (int64_t k = 0; k < l.samples * l.inner; k++) {
        int64_t first = score_at(&l, k, 0);
        double sum = 0.0;
        for (int64_t i = 0; i < l.classes; i++) {
            sum += (double)d[first + i * l.inner];
        }
        for (int64_t i = 0; i < l.classes; i++) {
            d[first + i * l.inner] -= (float)(exp((double)p[first + i * l.inner]) * sum);
        }
    }
    return GRADCAM_OK;
}

const gc_op gc_ops_loss[] = {
    {"NegativeLogLikelihoodLoss", infer, nll_forward, nll_backward, 0, 7, 0, 2, 3, 1},
    {"SoftmaxCrossEntropyLoss", cross_infer, cross_forward, cross_backward, 0, 6, 0, 2, 3, 2},
    {NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0},
};
