/* SPDX-License-Identifier: MIT */
#include "explain/target.h"

#include <stdbool.h>
#include <string.h>

#include "base/abi.h"
#include "base/status.h"
#include "explain/map.h"

/* The input of a Softmax or LogSoftmax that ends the network. */
static const char *before_softmax(const gc_net *net, const char *output)
{
    int32_t node = gc_net_producer(net, output);
    const char *op = gc_net_node_op(net, node);
    if (op != NULL && (strcmp(op, "Softmax") == 0 || strcmp(op, "LogSoftmax") == 0)) {
        return gc_net_node_input(net, node, 0);
    }
    return output;
}

gc_status gc_aim_init(gc_aim *aim, gc_ctx *ctx, gc_run *run, const gc_target *target, gc_error *err)
{
    const gc_net *net = gc_run_net(run);
    memset(aim, 0, sizeof *aim);
    aim->run = run;
    aim->ctx = ctx;
    if (target != NULL) {
        GC_TRY(GC_ABI_IMPORT(target, &aim->target, err));
    }
    aim->output = aim->target.output != NULL ? aim->target.output : gc_net_output_name(net, 0);
    if (aim->target.kind < GRADCAM_TARGET_ARGMAX || aim->target.kind > GRADCAM_TARGET_SEED) {
        return gc_fail(err, GRADCAM_E_INVALID, "unknown kind of target %d", (int)aim->target.kind);
    }
    bool classes = aim->target.kind == GRADCAM_TARGET_ARGMAX || aim->target.kind == GRADCAM_TARGET_CLASS;
    if (classes && !aim->target.keep_softmax) {
        aim->output = before_softmax(net, aim->output);
    }
    return gc_run_watch(run, aim->output, GRADCAM_WATCH_VALUE, err);
}

/* Scores as [n, classes, positions] through strides. */
typedef struct scores {
    gc_tensor_desc d;
    int64_t samples, classes, positions;
    bool row; /* flat indices are offsets */
} scores;

static int64_t offset_of(const gc_tensor_desc *d, int64_t flat)
{
    int64_t offset = 0;
    for (int32_t i = d->ndim - 1; i >= 0; i--) {
        offset += flat % d->shape[i] * d->strides[i];
        flat /= d->shape[i];
    }
    return offset;
}

static float score_at(const scores *s, int64_t flat)
{
    return ((const float *)s->d.data)[s->row ? flat : offset_of(&s->d, flat)];
}

static double class_score(const scores *s, int64_t sample, int64_t class_index)
{
    double sum = 0.0;
    for (int64_t i = 0; i < s->positions; i++) {
        sum += (double)score_at(s, (sample * s->classes + class_index) * s->positions + i);
    }
    return sum;
}

static int64_t best_class(const scores *s, int64_t sample)
{
    int64_t best = 0;
    double most = class_score(s, sample, 0);
    for (int64_t c = 1; c < s->classes; c++) {
        double score = class_score(s, sample, c);
        if (score > most) {
            most = score;
            best = c;
        }
    }
    return best;
}

/* Rank 1 is one sample of classes. */
static gc_status read_scores(gc_aim *aim, scores *s, gc_error *err)
{
    gc_tensor *t;
    GC_TRY(gc_run_value(aim->run, aim->output, &t, err));
    gc_tensor_describe(t, &s->d);
    if (s->d.dtype != GRADCAM_F32) {
        return gc_fail(err, GRADCAM_E_DTYPE, "target \"%s\" holds no floating numbers", aim->output);
    }
    int32_t axis = s->d.ndim >= 2 ? 1 : 0;
    s->samples = s->d.ndim >= 2 ? s->d.shape[0] : 1;
    s->classes = s->d.ndim >= 1 ? s->d.shape[axis] : 1;
    s->positions = 1;
    for (int32_t i = axis + 1; i < s->d.ndim; i++) {
        s->positions *= s->d.shape[i];
    }
    s->row = true;
    for (int64_t i = s->d.ndim - 1, step = 1; i >= 0; step *= s->d.shape[i--]) {
        s->row = s->row && (s->d.shape[i] == 1 || s->d.strides[i] == step);
    }
    if (s->samples * s->classes * s->positions == 0) {
        return gc_fail(err, GRADCAM_E_SHAPE, "target \"%s\" is empty", aim->output);
    }
    return GRADCAM_OK;
}

static gc_status seed_classes(gc_aim *aim, const scores *s, float *seed, float one, gc_error *err)
{
    bool argmax = aim->target.kind == GRADCAM_TARGET_ARGMAX;
    if (!argmax && (aim->target.index < 0 || aim->target.index >= s->classes)) {
        return gc_fail(err, GRADCAM_E_INVALID, "there is no class %lld: \"%s\" has the classes 0 to %lld",
                       (long long)aim->target.index, aim->output, (long long)s->classes - 1);
    }
    for (int64_t n = 0; n < s->samples; n++) {
        int64_t c = argmax ? best_class(s, n) : aim->target.index;
        for (int64_t i = 0; i < s->positions; i++) {
            seed[(n * s->classes + c) * s->positions + i] = one;
        }
        if (n == 0) {
            aim->index = c;
            aim->score = class_score(s, 0, c);
        }
    }
    return GRADCAM_OK;
}

static gc_status seed_element(gc_aim *aim, const scores *s, float *seed, float one, gc_error *err)
{
    int64_t n = s->samples * s->classes * s->positions;
    if (aim->target.index < 0 || aim->target.index >= n) {
        return gc_fail(err, GRADCAM_E_INVALID, "there is no element %lld: \"%s\" has the elements 0 to %lld",
                       (long long)aim->target.index, aim->output, (long long)n - 1);
    }
    seed[aim->target.index] = one;
    aim->index = aim->target.index;
    aim->score = (double)score_at(s, aim->index);
    return GRADCAM_OK;
}

static gc_status fill_seed(gc_aim *aim, const scores *s, gc_tensor *seed, gc_error *err)
{
    gc_tensor_desc d;
    gc_tensor_describe(seed, &d);
    float *data = d.data;
    float one = aim->target.negate ? -1.0f : 1.0f;
    int64_t n = s->samples * s->classes * s->positions;
    memset(data, 0, (size_t)n * sizeof *data);
    aim->score = 0.0; /* Guided Grad-CAM seeds twice */
    switch (aim->target.kind) {
    case GRADCAM_TARGET_ELEMENT: return seed_element(aim, s, data, one, err);
    case GRADCAM_TARGET_SEED:
        if (aim->target.seed == NULL) {
            return gc_fail(err, GRADCAM_E_INVALID, "the target asks for a seed but has none");
        }
        GC_TRY(gc_tensor_copy(aim->target.seed, seed, err));
        for (int64_t i = 0; i < n; i++) {
            aim->score += (double)score_at(s, i) * (double)data[i];
            data[i] *= one;
        }
        return GRADCAM_OK;
    default: return seed_classes(aim, s, data, one, err);
    }
}

gc_status gc_aim_seed(gc_aim *aim, gc_tensor **seed, gc_error *err)
{
    scores s;
    memset(&s, 0, sizeof s);
    GC_TRY(read_scores(aim, &s, err));
    GC_TRY(gc_run_scratch(aim->run, GC_SCRATCH_SEED, &s.d, seed, err));
    return fill_seed(aim, &s, *seed, err);
}

gc_status gc_aim_backward(gc_aim *aim, gc_error *err)
{
    gc_tensor *seed = NULL;
    GC_TRY(gc_aim_seed(aim, &seed, err));
    return gc_run_backward(aim->run, aim->output, seed, err);
}
