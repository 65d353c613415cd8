/* SPDX-License-Identifier: MIT */
/* gc_run_perturb: one output for each of many variants of a value. */
#include <string.h>

#include "base/abi.h"
#include "run/restart.h"
#include "run/variant.h"

enum { MOST_BATCH = 4096 };

static gc_status begin(const gc_run *run, const gc_perturb_options *host, gc_perturb_options *o, gc_error *err)
{
    memset(o, 0, sizeof *o);
    if (run == NULL || host == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_run_perturb: run or options are NULL");
    }
    GC_TRY(GC_ABI_IMPORT(host, o, err));
    if (o->kind < GRADCAM_PERTURB_MASK || o->kind > GRADCAM_PERTURB_WRITE || o->keep_forward > 1) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_perturb_options: kind or keep_forward is out of range");
    }
    if (o->count < 1 || o->count > INT32_MAX || o->batch < 0 || o->batch > MOST_BATCH) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_perturb_options: count is %lld, batch is %lld", (long long)o->count,
                       (long long)o->batch);
    }
    return GRADCAM_OK;
}

static gc_status find_ends(gc_run *run, const gc_perturb_options *o, int32_t *from, int32_t *output, gc_error *err)
{
    const gc_net *net = run->net;
    if ((o->value == NULL && net->n_inputs == 0) || (o->output == NULL && net->n_outputs == 0)) {
        return gc_fail(err, GRADCAM_E_NOT_FOUND, "the network has no input or no output; name the values");
    }
    *from = o->value == NULL ? net->inputs[0] : -1;
    *output = o->output == NULL ? net->outputs[0] : -1;
    if (*from < 0) {
        GC_TRY(gc_run_find_value(run, o->value, from, err));
    }
    if (*output < 0) {
        GC_TRY(gc_run_find_value(run, o->output, output, err));
    }
    return *from < net->n_values && *output < net->n_values
               ? GRADCAM_OK
               : gc_fail(err, GRADCAM_E_UNSUPPORTED, "values inside a loop cannot be perturbed, nor be the output");
}

/* A hook that replaces numbers behind the value would be passed over. */
static gc_status refuse_hooks(const gc_run *run, gc_error *err)
{
    const gc_plan *p = run->restart->plan;
    const uint32_t writes = GRADCAM_HOOK_FORWARD | GRADCAM_HOOK_WRITE;
    for (int32_t i = 0; i < run->n_hooks; i++) {
        const gc_hook *h = &run->hooks[i];
        if (h->fn == NULL || (h->flags & writes) != writes) {
            continue;
        }
        const gc_slot *s = h->value < p->n_values && p->slot_of[h->value] >= 0 ? &p->slots[p->slot_of[h->value]] : NULL;
        bool inner = h->value >= p->n_values; /* in a loop: who knows where */
        if (inner || (s != NULL && !s->imported && !s->unused && !s->constant)) {
            return gc_fail(err, GRADCAM_E_STATE,
                           "a hook writes \"%s\", which depends on the perturbed value; remove it",
                           gc_run_value_name(run, h->value));
        }
    }
    return GRADCAM_OK;
}

static gc_status check_outputs(const gc_run *run, const gc_perturb_options *o, gc_error *err)
{
    const gc_tensor one = gc_restart_part(run->restart, run->restart->output, 0), *all = o->outputs;
    if (all == NULL) {
        return GRADCAM_OK;
    }
    bool fits = all->ndim == one.ndim + 1 && all->shape[0] == o->count &&
                memcmp(all->shape + 1, one.shape, (size_t)one.ndim * sizeof *one.shape) == 0;
    if (!fits) {
        char wants[GC_SHAPE_TEXT], got[GC_SHAPE_TEXT];
        return gc_fail(err, GRADCAM_E_SHAPE, "gc_perturb_options.outputs has the shape %s instead of [%lld] and %s",
                       gc_shape_text(all->ndim, all->shape, got), (long long)o->count,
                       gc_shape_text(one.ndim, one.shape, wants));
    }
    return all->dtype <= GRADCAM_BF16
               ? GRADCAM_OK
               : gc_fail(err, GRADCAM_E_DTYPE, "gc_perturb_options.outputs holds no floating numbers");
}

static void store(const gc_perturb_options *o, int64_t index, const gc_tensor *output)
{
    gc_tensor to = gc_tensor_alias(o->outputs);
    to.ndim--;
    to.data = (char *)to.data + (size_t)(index * to.strides[0]) * gc_dtype_size(to.dtype);
    memmove(to.shape, to.shape + 1, (size_t)to.ndim * sizeof *to.shape);
    memmove(to.strides, to.strides + 1, (size_t)to.ndim * sizeof *to.strides);
    gc_tensor_convert(output, &to);
}

static gc_status hand_out(const gc_run *run, const gc_perturb_options *o, int64_t first, int64_t n, gc_error *err)
{
    for (int64_t b = 0; b < n; b++) {
        gc_tensor output = gc_restart_part(run->restart, run->restart->output, b);
        if (o->outputs != NULL) {
            store(o, first + b, &output);
        }
        int32_t code = o->each == NULL ? 0 : o->each(o->user, first + b, &output);
        if (code != 0) {
            return gc_callback_failed("each", first + b, code, err);
        }
    }
    return GRADCAM_OK;
}

/* Places beyond the last variant are not read; they hold the value as it is. */
static gc_status fill(gc_run *run, const gc_perturb_options *o, int64_t first, gc_error *err)
{
    gc_restart *r = run->restart;
    for (int64_t b = 0; b < r->batch; b++) {
        gc_tensor part = gc_restart_part(r, r->from, b);
        if (first + b < o->count) {
            GC_TRY(gc_variant_write(run->ctx, o, first + b, &r->base, &part, err));
        } else {
            gc_tensor_convert(&r->base, &part);
        }
    }
    return GRADCAM_OK;
}

static gc_status all_batches(gc_run *run, const gc_perturb_options *o, gc_error *err)
{
    gc_restart *r = run->restart;
    for (int64_t first = 0; first < o->count; first += r->batch) {
        int64_t left = o->count - first;
        GC_TRY(fill(run, o, first, err));
        GC_TRY(gc_exec_part(run, r->plan, first, o->count, err));
        GC_TRY(hand_out(run, o, first, left < r->batch ? left : r->batch, err));
    }
    return gc_run_report_progress(run, GRADCAM_PROGRESS_VARIANTS, o->count, o->count, err);
}

static void report(const gc_run *run, const gc_perturb_options *o)
{
    gc_perturb_report r;
    if (o->report == NULL) {
        return;
    }
    memset(&r, 0, sizeof r);
    r.n_steps = (uint32_t)run->restart->plan->n_steps;
    r.batch = run->restart->batch;
    gc_abi_export(&r, sizeof r, o->report, sizeof r);
}

gc_status gc_run_perturb(gc_run *run, const gc_perturb_options *options, gc_error *err)
{
    gc_perturb_options o;
    int32_t from, output;
    GC_TRY(begin(run, options, &o, err));
    GC_TRY(find_ends(run, &o, &from, &output, err));
    GC_TRY(gc_restart_prepare(run, from, output, o.batch, o.count, err));
    GC_TRY(refuse_hooks(run, err));
    GC_TRY(gc_variant_check(&o, &run->restart->base, err));
    GC_TRY(check_outputs(run, &o, err));
    if (!o.keep_forward) {
        GC_TRY(gc_run_forward(run, err));
    } else if (!run->forwarded) {
        return gc_fail(err, GRADCAM_E_STATE, "keep_forward: no forward pass since the run prepared");
    }
    GC_TRY(gc_restart_begin(run, err));
    GC_TRY(all_batches(run, &o, err));
    report(run, &o);
    return GRADCAM_OK;
}
