/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
/* gc_run_perturb and gc_perturb_scores: a restart gives what a whole pass over a
   network with the variant in it gives, bit for bit; what the value does not reach
   is computed once; networks that mix samples are found out. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "perturb.h"

static bool loses(int which, int64_t index, int64_t channel)
{
    if (which == ABLATE) {
        return index == channel;
    }
    for (int64_t k = ends[index]; k < ends[index + 1]; k++) {
        if (few[k] == channel) {
            return true;
        }
    }
    return false;
}

/* The same done by a hook on the value. */
typedef struct by_hook {
    const fixture *f;
    int which;
    int64_t index;
} by_hook;

static int32_t on_value(void *user, const gc_hook_event *event)
{
    const by_hook *h = user;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    gc_tensor_describe(event->tensor, &d);
    if (h->which == WRITE) {
        write_all(event->tensor, h->index);
        return 0;
    }
    for (int64_t n = 0; n < d.shape[0]; n++) {
        for (int64_t c = 0; c < d.shape[1]; c++) {
            for (int64_t p = 0; p < SIDE * SIDE; p++) {
                float *v = (float *)d.data + n * d.strides[0] + c * d.strides[1] + p / SIDE * d.strides[2] +
                           p % SIDE * d.strides[3];
                if (h->which <= MASK_LAYER) {
                    *v *= h->f->masks[h->index * SIDE * SIDE + p];
                } else if (loses(h->which, h->index, c)) {
                    *v = 0.0f;
                }
            }
        }
    }
    return 0;
}

/* y of a whole forward pass with variant `index` in it. */
static void whole_pass(fixture *f, int which, int64_t index, float *y)
{
    by_hook h = {f, which, index};
    gc_tensor *t = NULL;
    int32_t hook = -1;
    int64_t n = 0;
    const char *value = which == MASK_INPUT ? "x" : which == WRITE ? "c" : "r";
    gc_run_add_hook(f->run, value, GRADCAM_HOOK_FORWARD | GRADCAM_HOOK_WRITE, on_value, &h, &hook, NULL);
    gc_run_watch(f->run, "y", GRADCAM_WATCH_VALUE, NULL);
    gc_run_watch(f->run, "k", GRADCAM_WATCH_VALUE, NULL);
    gc_run_forward(f->run, NULL);
    gc_run_value(f->run, "y", &t, NULL);
    const float *data = numbers(t, &n);
    memcpy(y, data, (size_t)n * sizeof *y);
    gc_run_remove_hook(f->run, hook);
}

static bool close_to(const float *a, const float *b, int64_t n)
{
    double most = 0.0, error = 0.0;
    for (int64_t i = 0; i < n; i++) {
        most = fabs((double)b[i]) > most ? fabs((double)b[i]) : most;
        error = fabs((double)a[i] - (double)b[i]) > error ? fabs((double)a[i] - (double)b[i]) : error;
    }
    return error <= 2e-5 * most && most > 0.0;
}

/* ---- the tests ---- */

static void test_restart(tally *t, int which, int64_t samples)
{
    static float whole[MOST * 2 * CLASSES], y[MOST * 2 * CLASSES], again[MOST * 2 * CLASSES];
    static const int64_t batches[4] = {1, 3, 8, 0};
    fixture f;
    gc_perturb_options o;
    gc_perturb_report r;
    gc_error err;
    memset(&err, 0, sizeof err);
    memset(&r, 0, sizeof r);
    set_up(&f, make_net, samples, 2, 0);
    options_of(&f, which, &o);
    o.report = &r;
    int64_t each = samples * CLASSES;
    size_t bytes = (size_t)(o.count * each) * sizeof(float);
    for (int64_t i = 0; i < o.count; i++) {
        whole_pass(&f, which, i, whole + i * each);
    }
    for (int b = 0; b < 4; b++) {
        o.batch = batches[b];
        memset(y, 0, sizeof y);
        expect(t, perturb(&f, &o, samples, y, &err) == GRADCAM_OK, err.message);
        expect(t, close_to(y, whole, o.count * each), "variants are those of a whole pass");
        expect(t, o.batch != 1 || memcmp(y, whole, bytes) == 0, "bit for bit when there is one at a time");
        expect(t, r.batch == (o.batch > 0 ? o.batch : o.count < 8 ? o.count : 8), "the batch is that asked for");
        expect(t, perturb(&f, &o, samples, again, NULL) == GRADCAM_OK && memcmp(y, again, bytes) == 0, "again");
    }
    tear_down(&f);
}

/* A variant's place in its batch, and who computes it, do not matter. */
static void test_places(tally *t)
{
    static float y[MOST * CLASSES], swapped[MOST * CLASSES], other[MOST * CLASSES];
    static float turned[MOST * SIDE * SIDE];
    const int64_t shape[3] = {MOST, SIDE, SIDE};
    fixture f, g;
    gc_perturb_options o;
    set_up(&f, make_net, 1, 1, 0);
    set_up(&g, make_net, 1, 3, 0);
    options_of(&f, MASK_INPUT, &o);
    o.batch = 5; /* does not divide the count */
    expect(t, perturb(&f, &o, 1, y, NULL) == GRADCAM_OK && perturb(&g, &o, 1, other, NULL) == GRADCAM_OK, "two runs");
    expect(t, memcmp(y, other, sizeof y) == 0, "the same bits for any number of threads");
    for (int i = 0; i < MOST; i++) {
        memcpy(turned + (MOST - 1 - i) * SIDE * SIDE, f.masks + i * SIDE * SIDE, SIDE * SIDE * sizeof(float));
    }
    gc_tensor *backwards = lent(f.ctx, 3, shape, turned);
    o.masks = backwards;
    expect(t, perturb(&f, &o, 1, swapped, NULL) == GRADCAM_OK, "variants backwards");
    bool same = true;
    for (int i = 0; i < MOST; i++) {
        same = same && memcmp(swapped + (MOST - 1 - i) * CLASSES, y + i * CLASSES, CLASSES * sizeof(float)) == 0;
    }
    expect(t, same, "the same bits in any place");
    gc_tensor_unref(backwards);
    tear_down(&g);
    tear_down(&f);
}

/* What the value does not reach is computed once a call. */
static void test_once(tally *t)
{
    static float y[MOST * CLASSES];
    fixture f;
    gc_perturb_options o;
    set_up(&f, make_net, 1, 1, 0);
    options_of(&f, MASK_LAYER, &o);
    o.batch = 4;
    perturb(&f, &o, 1, y, NULL);
    f.host.before = f.host.after = 0;
    expect(t, perturb(&f, &o, 1, y, NULL) == GRADCAM_OK, "a second call");
    expect(t, f.host.before == 1 && f.host.after == 1 + MOST / 4, "a pass, then batches of what comes after");
    f.host.before = f.host.after = 0;
    o.keep_forward = 1;
    o.count = MOST;
    expect(t, perturb(&f, &o, 1, y, NULL) == GRADCAM_OK && f.host.before == 0 && f.host.after == MOST / 4,
           "the forward pass is kept");
    tear_down(&f);
}

static void test_mixing(tally *t)
{
    static float y[4 * LAYER_SIZE], one[4 * LAYER_SIZE];
    const int64_t shape[5] = {4, 1, CHANNELS, SIDE, SIDE}, masks[3] = {4, SIDE, SIDE};
    fixture f;
    gc_perturb_options o;
    gc_perturb_report r;
    memset(&r, 0, sizeof r);
    set_up(&f, mixing, 1, 1, 0);
    options_of(&f, MASK_INPUT, &o);
    gc_tensor *outputs = lent(f.ctx, 5, shape, one), *others = lent(f.ctx, 5, shape, y);
    gc_tensor *m = lent(f.ctx, 3, masks, f.masks);
    o.masks = m;
    o.count = 4;
    o.report = &r;
    o.outputs = outputs;
    o.batch = 1;
    expect(t, gc_run_perturb(f.run, &o, NULL) == GRADCAM_OK && r.batch == 1, "one by one");
    o.outputs = others;
    o.batch = 4;
    expect(t, gc_run_perturb(f.run, &o, NULL) == GRADCAM_OK && r.batch == 1, "samples that mix are found out");
    expect(t, memcmp(y, one, sizeof y) == 0, "and run one by one");
    r.batch = 0;
    expect(t, gc_run_perturb(f.run, &o, NULL) == GRADCAM_OK && r.batch == 1, "also from then on");
    gc_tensor_unref(m);
    gc_tensor_unref(others);
    gc_tensor_unref(outputs);
    tear_down(&f);
}

/* ---- scores ---- */

static void test_scores(tally *t)
{
    static float y[CHANNELS * 2 * CLASSES], scores[CHANNELS * 2];
    static float seed[2 * CLASSES];
    const int64_t shape[2] = {2, CLASSES};
    fixture f;
    gc_perturb_options o;
    gc_perturb_report r;
    gc_target target;
    set_up(&f, make_net, 2, 1, 0);
    options_of(&f, ABLATE, &o);
    perturb(&f, &o, 2, y, NULL);
    o.output = NULL;
    o.report = &r;
    memset(&target, 0, sizeof target);
    memset(&r, 0, sizeof r);
    target.kind = GRADCAM_TARGET_CLASS;
    target.index = 3;
    target.negate = 1;
    expect(t, gc_perturb_scores(f.run, &o, &target, scores, CHANNELS * 2, NULL) == GRADCAM_OK, "scores of a class");
    bool same = true;
    for (int i = 0; i < CHANNELS * 2; i++) {
        same = same && scores[i] == -y[i * CLASSES + 3];
    }
    expect(t, same && r.index == 3, "are the outputs before the softmax, negated");
    gc_tensor *base = NULL;
    int64_t n = 0;
    gc_run_value(f.run, "y", &base, NULL);
    expect(t, (float)r.score == numbers(base, &n)[3], "the report has the unperturbed score");
    for (int i = 0; i < 2 * CLASSES; i++) {
        seed[i] = noise((uint32_t)i);
    }
    memset(&target, 0, sizeof target);
    target.kind = GRADCAM_TARGET_SEED;
    gc_tensor *weights = lent(f.ctx, 2, shape, seed);
    target.seed = weights;
    target.output = "y";
    expect(t, gc_perturb_scores(f.run, &o, &target, scores, CHANNELS * 2, NULL) == GRADCAM_OK, "weighted scores");
    for (int i = 0; i < CHANNELS * 2; i++) {
        double sum = 0.0;
        for (int c = 0; c < CLASSES; c++) {
            sum += (double)seed[i % 2 * CLASSES + c] * (double)y[i * CLASSES + c];
        }
        same = same && scores[i] == (float)sum;
    }
    expect(t, same, "are sums over each sample");
    gc_tensor_unref(weights);
    expect(t, gc_perturb_scores(f.run, &o, NULL, scores, CHANNELS, NULL) == GRADCAM_E_SHAPE, "too few scores");
    tear_down(&f);
}

/* A baseline falls where numpy's rule puts it, on masked and on ablated values. */
static void test_baseline(tally *t)
{
    static float y[CHANNELS * CLASSES], z[CHANNELS * CLASSES], base[CHANNELS], holes[CHANNELS * CHANNELS];
    const int64_t per_channel[3] = {CHANNELS, 1, 1}, whole[4] = {CHANNELS, CHANNELS, 1, 1};
    fixture f;
    gc_perturb_options o;
    set_up(&f, make_net, 1, 1, 0);
    for (int i = 0; i < CHANNELS; i++) {
        base[i] = noise((uint32_t)i + 31u);
        for (int k = 0; k < CHANNELS; k++) {
            holes[i * CHANNELS + k] = i == k ? 0.0f : 1.0f;
        }
    }
    gc_tensor *b = lent(f.ctx, 3, per_channel, base), *m = lent(f.ctx, 4, whole, holes);
    options_of(&f, ABLATE, &o);
    o.baseline = b;
    o.axis = -3;
    expect(t, perturb(&f, &o, 1, y, NULL) == GRADCAM_OK, "channels become a baseline");
    options_of(&f, MASK_LAYER, &o);
    o.count = CHANNELS;
    o.masks = m;
    o.baseline = b;
    expect(t, perturb(&f, &o, 1, z, NULL) == GRADCAM_OK && memcmp(y, z, sizeof y) == 0, "as masks of channels have it");
    o.baseline = NULL;
    expect(t, perturb(&f, &o, 1, z, NULL) == GRADCAM_OK && memcmp(y, z, sizeof y) != 0, "which is not zero");
    gc_tensor_unref(m);
    gc_tensor_unref(b);
    tear_down(&f);
}

int main(void)
{
    tally t = {0, 0};
    for (int which = 0; which < CASES; which++) {
        test_restart(&t, which, 1);
        test_restart(&t, which, 2);
    }
    test_places(&t);
    test_once(&t);
    test_mixing(&t);
    test_scores(&t);
    test_baseline(&t);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
