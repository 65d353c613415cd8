/* SPDX-License-Identifier: MIT */
/* gc_perturb_scores: a target's score for every variant of a value. */
#include <stdbool.h>
#include <string.h>

#include "base/abi.h"
#include "base/status.h"
#include "explain/target.h"

typedef struct scoring {
    gc_aim aim;
    const float *seed; /* of the output, row-major; NULL before the first variant */
    float *scores;
    size_t n_scores;
    int64_t count, samples;
    gc_status status; /* why the callback stopped the run, and what it has to say */
    gc_error why;
} scoring;

/* The class is chosen and the number of samples known once the run's own forward
   pass is over, which is before the first variant. */
static gc_status aim_at_run(scoring *s)
{
    gc_tensor *seed = NULL;
    gc_tensor_desc d;
    GC_TRY(gc_aim_seed(&s->aim, &seed, &s->why));
    gc_tensor_describe(seed, &d);
    s->samples = d.ndim >= 2 ? d.shape[0] : 1;
    if (s->n_scores % (size_t)s->samples != 0 || s->n_scores / (size_t)s->samples != (size_t)s->count) {
        return gc_fail(&s->why, GRADCAM_E_SHAPE, "%lld variants of %lld samples have so many scores, not %zu",
                       (long long)s->count, (long long)s->samples, s->n_scores);
    }
    s->seed = d.data;
    return GRADCAM_OK;
}

static int64_t offset_of(const gc_tensor_desc *d, int64_t flat)
{
    int64_t offset = 0;
    for (int32_t i = d->ndim - 1; i >= 0; i--) {
        offset += flat % d->shape[i] * d->strides[i];
        flat /= d->shape[i];
    }
    return offset;
}

/* sum of seed times output over each sample; most of the seed is zero. */
static void score(const scoring *s, const gc_tensor_desc *d, float *scores)
{
    int64_t n = 1;
    for (int32_t i = 0; i < d->ndim; i++) {
        n *= d->shape[i];
    }
    int64_t each = n / s->samples;
    for (int64_t k = 0; k < s->samples; k++) {
        double sum = 0.0;
        for (int64_t i = k * each; i < (k + 1) * each; i++) {
            if (s->seed[i] < 0.0f || s->seed[i] > 0.0f) {
                sum += (double)s->seed[i] * (double)((const float *)d->data)[offset_of(d, i)];
            }
        }
        scores[k] = (float)sum;
    }
}

static int32_t take(void *user, int64_t index, const gc_tensor *output)
{
    scoring *s = user;
    gc_tensor_desc d;
    s->status = s->seed == NULL ? aim_at_run(s) : GRADCAM_OK;
    if (s->status != GRADCAM_OK) {
        return 1;
    }
    gc_tensor_describe(output, &d);
    score(s, &d, s->scores + index * s->samples);
    return 0;
}

typedef struct both_users {
    scoring *scoring;
    gc_perturb_write_fn write;
    void *user;
} both_users;

static int32_t pass_write(void *user, int64_t index, gc_tensor *variant)
{
    const both_users *b = user;
    return b->write(b->user, index, variant);
}

static int32_t pass_each(void *user, int64_t index, const gc_tensor *output)
{
    return take(((const both_users *)user)->scoring, index, output);
}

static void report(const scoring *s, const gc_perturb_options *o, gc_perturb_report *r)
{
    if (o->report != NULL) {
        r->index = s->aim.index;
        r->score = s->aim.score;
        gc_abi_export(r, sizeof *r, o->report, sizeof *r);
    }
}

gc_status gc_perturb_scores(gc_run *run, const gc_perturb_options *options, const gc_target *target, float *scores,
                            size_t n_scores, gc_error *err)
{
    gc_perturb_options o, own;
    gc_perturb_report made;
    scoring s;
    memset(&o, 0, sizeof o);
    memset(&s, 0, sizeof s);
    memset(&made, 0, sizeof made);
    if (run == NULL || options == NULL || scores == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_perturb_scores: an argument is NULL");
    }
    GC_TRY(GC_ABI_IMPORT(options, &o, err));
    if (o.output != NULL || o.each != NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_perturb_scores: output and each must be NULL; the target has them");
    }
    GC_TRY(gc_aim_init(&s.aim, gc_run_ctx(run), run, target, err));
    s.scores = scores;
    s.n_scores = n_scores;
    s.count = o.count;
    both_users users = {&s, o.write, o.user};
    own = o;
    own.struct_size = (uint32_t)sizeof own;
    own.output = s.aim.output;
    own.write = o.write == NULL ? NULL : pass_write;
    own.each = pass_each;
    own.user = &users;
    own.report = &made;
    gc_status status = gc_run_perturb(run, &own, err);
    if (s.status != GRADCAM_OK) {
        if (err != NULL) {
            gc_abi_export(&s.why, sizeof s.why, err, sizeof s.why);
        }
        return s.status;
    }
    GC_TRY(status);
    report(&s, &o, &made);
    return GRADCAM_OK;
}
