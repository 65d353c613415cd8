/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
/* Perturbation and its host: a call made again allocates nothing, each allocation of
   a first one may fail, callbacks may stop it, mistakes are named. */
#include <stdio.h>
#include <string.h>

#include "perturb.h"

static void test_allocations(tally *t)
{
    static float y[MOST * CLASSES], scores[MOST];
    for (int which = 0; which < CASES; which++) {
        fixture f;
        gc_perturb_options o;
        set_up(&f, make_net, 1, 2, 0);
        options_of(&f, which, &o);
        const int64_t shape[3] = {o.count, 1, CLASSES};
        gc_tensor *outputs = lent(f.ctx, 3, shape, y);
        o.outputs = outputs;
        expect(t, gc_run_perturb(f.run, &o, NULL) == GRADCAM_OK, "a first call");
        long before = f.host.allocs;
        expect(t, gc_run_perturb(f.run, &o, NULL) == GRADCAM_OK && f.host.allocs == before,
               "the next allocates nothing");
        o.outputs = NULL;
        o.output = NULL;
        o.batch = 4;
        expect(t, gc_perturb_scores(f.run, &o, NULL, scores, (size_t)o.count, NULL) == GRADCAM_OK, "scores");
        before = f.host.allocs;
        expect(t,
               gc_perturb_scores(f.run, &o, NULL, scores, (size_t)o.count, NULL) == GRADCAM_OK &&
                   f.host.allocs == before,
               "again without an allocation");
        gc_tensor_unref(outputs);
        tear_down(&f);
    }
}

/* Every allocation of a first call fails in turn; then the same run does it. */
static void test_faults(tally *t)
{
    static float right[MOST * CLASSES], y[MOST * CLASSES];
    fixture f;
    gc_perturb_options o;
    gc_error err;
    set_up(&f, make_net, 1, 1, 0);
    options_of(&f, MASK_LAYER, &o);
    perturb(&f, &o, 1, right, NULL);
    tear_down(&f);
    int failed = 0, clean = 1, restored = 1;
    for (long k = 1;; k++) {
        memset(&err, 0, sizeof err);
        set_up(&f, make_net, 1, 1, 0);
        options_of(&f, MASK_LAYER, &o);
        const int64_t shape[3] = {o.count, 1, CLASSES};
        gc_tensor *outputs = lent(f.ctx, 3, shape, y);
        o.outputs = outputs;
        f.host.allocs = 0;
        f.host.fail_at = k;
        gc_status s = gc_run_perturb(f.run, &o, &err);
        f.host.fail_at = 0;
        failed += s != GRADCAM_OK;
        clean = clean && (s == GRADCAM_OK || (s == GRADCAM_E_NOMEM && err.message[0] != 0));
        restored = restored && gc_run_perturb(f.run, &o, NULL) == GRADCAM_OK && memcmp(y, right, sizeof y) == 0;
        gc_tensor_unref(outputs);
        tear_down(&f);
        if (s == GRADCAM_OK) {
            break;
        }
    }
    expect(t, failed > 50 && clean, "each failed allocation is said");
    expect(t, restored, "and the run is as good as before");
}

/* ---- progress, callbacks ---- */

typedef struct watcher {
    int stop_at, calls, wrong;
    uint32_t last;
} watcher;

static int32_t on_progress(void *user, const gc_progress *p)
{
    watcher *w = user;
    if (p->phase != GRADCAM_PROGRESS_VARIANTS) {
        return 0;
    }
    w->wrong += p->total != MOST || p->done < w->last || p->done > p->total;
    w->last = p->done;
    return ++w->calls == w->stop_at ? 77 : 0;
}

static void test_progress(tally *t)
{
    static float right[MOST * CLASSES], y[MOST * CLASSES];
    fixture f;
    gc_perturb_options o;
    gc_error err;
    watcher w = {0, 0, 0, 0};
    set_up(&f, make_net, 1, 1, 0);
    options_of(&f, MASK_LAYER, &o);
    gc_run_set_progress(f.run, on_progress, &w, NULL);
    expect(t, perturb(&f, &o, 1, right, NULL) == GRADCAM_OK && w.last == MOST && w.wrong == 0,
           "progress counts variants");
    int all = w.calls;
    for (int at = 1; at <= all; at += 3) {
        memset(&err, 0, sizeof err);
        w = (watcher){at, 0, 0, 0};
        gc_status s = perturb(&f, &o, 1, y, &err);
        expect(t, (s == GRADCAM_E_CANCELLED && err.user_code == 77) || (s == GRADCAM_OK && w.calls < at),
               "it may stop");
    }
    gc_run_set_progress(f.run, NULL, NULL, NULL);
    expect(t, perturb(&f, &o, 1, y, NULL) == GRADCAM_OK && memcmp(y, right, sizeof y) == 0, "and begin anew");
    tear_down(&f);
}

typedef struct order {
    int64_t next, stop;
    int wrong;
} order;

static int32_t in_order(void *user, int64_t index, const gc_tensor *output)
{
    order *o = user;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    gc_tensor_describe(output, &d);
    o->wrong += index != o->next++ || d.ndim != 2 || d.shape[0] != 1 || d.shape[1] != CLASSES;
    return index == o->stop ? 5 : 0;
}

static int32_t refuse_write(void *user, int64_t index, gc_tensor *variant)
{
    (void)user;
    (void)variant;
    return index == 4 ? 6 : 0;
}

static void test_callbacks(tally *t)
{
    fixture f;
    gc_perturb_options o;
    gc_error err;
    order seen = {0, -1, 0};
    memset(&err, 0, sizeof err);
    set_up(&f, make_net, 1, 1, 0);
    options_of(&f, MASK_LAYER, &o);
    o.batch = 5;
    o.each = in_order;
    o.user = &seen;
    expect(t, gc_run_perturb(f.run, &o, NULL) == GRADCAM_OK && seen.next == MOST && seen.wrong == 0,
           "in order, in shape");
    seen = (order){0, 7, 0};
    expect(t, gc_run_perturb(f.run, &o, &err) == GRADCAM_E_CALLBACK && err.user_code == 5 && seen.next == 8,
           "`each` may stop");
    options_of(&f, WRITE, &o);
    o.write = refuse_write;
    expect(t, gc_run_perturb(f.run, &o, &err) == GRADCAM_E_CALLBACK && err.user_code == 6, "`write` may stop");
    tear_down(&f);
}

/* ---- mistakes ---- */

static void expect_error(tally *t, fixture *f, const gc_perturb_options *o, gc_status wanted, const char *says)
{
    gc_error err;
    memset(&err, 0, sizeof err);
    gc_status s = gc_run_perturb(f->run, o, &err);
    if (s != wanted || strstr(err.message, says) == NULL) {
        printf("%s: \"%s\"\n", gc_status_name(s), err.message);
    }
    expect(t, s == wanted && strstr(err.message, says) != NULL, says);
}

static int32_t nothing(void *user, const gc_hook_event *event)
{
    (void)user;
    (void)event;
    return 0;
}

static void test_mistakes_of_value(tally *t)
{
    fixture f;
    gc_perturb_options o;
    int32_t hook = -1;
    set_up(&f, make_net, 1, 1, 0);
    options_of(&f, MASK_LAYER, &o);
    o.value = "nobody";
    expect_error(t, &f, &o, GRADCAM_E_NOT_FOUND, "\"nobody\"");
    o.value = "cw";
    expect_error(t, &f, &o, GRADCAM_E_INVALID, "\"cw\" is a constant");
    o.value = "s";
    o.output = "k";
    expect_error(t, &f, &o, GRADCAM_E_INVALID, "\"k\" does not depend on \"s\"");
    options_of(&f, MASK_LAYER, &o);
    o.keep_forward = 1;
    expect_error(t, &f, &o, GRADCAM_E_STATE, "no forward pass");
    o.keep_forward = 0;
    gc_run_add_hook(f.run, "t", GRADCAM_HOOK_FORWARD | GRADCAM_HOOK_WRITE, nothing, NULL, &hook, NULL);
    expect_error(t, &f, &o, GRADCAM_E_STATE, "a hook writes \"t\"");
    gc_run_remove_hook(f.run, hook);
    gc_run_add_hook(f.run, "c", GRADCAM_HOOK_FORWARD | GRADCAM_HOOK_WRITE, nothing, NULL, &hook, NULL);
    expect(t, gc_run_perturb(f.run, &o, NULL) == GRADCAM_OK, "a hook in front of the value is let be");
    tear_down(&f);
}

static void test_mistakes_of_options(tally *t)
{
    static float numbers_of_masks[MOST * 7];
    const int64_t odd[2] = {MOST, 7}, bad[2] = {0, 99}, falling[3] = {0, 2, 1};
    fixture f;
    gc_perturb_options o;
    set_up(&f, make_net, 1, 1, 0);
    gc_tensor *misfit = lent(f.ctx, 2, odd, numbers_of_masks);
    options_of(&f, MASK_LAYER, &o);
    expect(t, gc_run_perturb(NULL, &o, NULL) == GRADCAM_E_INVALID && gc_run_perturb(f.run, NULL, NULL) < 0, "NULL");
    o.count = 0;
    expect_error(t, &f, &o, GRADCAM_E_INVALID, "count is 0");
    o.count = MOST - 1;
    expect_error(t, &f, &o, GRADCAM_E_SHAPE, "leading dimension");
    o.count = MOST;
    o.batch = -1;
    expect_error(t, &f, &o, GRADCAM_E_INVALID, "batch is -1");
    o.batch = 0;
    o.masks = misfit;
    expect_error(t, &f, &o, GRADCAM_E_SHAPE, "masks of shape [32, 7]");
    o.masks = NULL;
    expect_error(t, &f, &o, GRADCAM_E_INVALID, "masks is NULL");
    options_of(&f, MASK_LAYER, &o);
    o.baseline = misfit;
    expect_error(t, &f, &o, GRADCAM_E_SHAPE, "baseline");
    o.baseline = NULL;
    o.outputs = misfit;
    expect_error(t, &f, &o, GRADCAM_E_SHAPE, "outputs");
    o.outputs = NULL;
    o.kind = 3;
    expect_error(t, &f, &o, GRADCAM_E_INVALID, "kind");
    options_of(&f, ABLATE, &o);
    o.count = CHANNELS + 1;
    expect_error(t, &f, &o, GRADCAM_E_INVALID, "no channel 8");
    o.count = 2;
    o.channels = bad;
    expect_error(t, &f, &o, GRADCAM_E_INVALID, "no channel 99");
    o.channels = few;
    o.groups = falling;
    expect_error(t, &f, &o, GRADCAM_E_INVALID, "ascend");
    o.groups = NULL;
    o.axis = 4;
    expect_error(t, &f, &o, GRADCAM_E_INVALID, "axis 4");
    options_of(&f, WRITE, &o);
    o.write = NULL;
    expect_error(t, &f, &o, GRADCAM_E_INVALID, "write is NULL");
    gc_tensor_unref(misfit);
    tear_down(&f);
}

int main(void)
{
    tally t = {0, 0};
    test_allocations(&t);
    test_faults(&t);
    test_progress(&t);
    test_callbacks(&t);
    test_mistakes_of_value(&t);
    test_mistakes_of_options(&t);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
