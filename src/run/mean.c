/* SPDX-License-Identifier: MIT */
#include "run/mean.h"

#include <string.h>

void gc_plan_want_mean(gc_slot *slot, uint32_t watch)
{
    const gc_tensor *t = &slot->value;
    gc_places *p = &slot->sums.places;
    bool last = (watch & GC_WATCH_MEAN_LAST) != 0;
    slot->sums.written = (watch & GC_WATCH_WRITTEN) != 0;
    if ((watch & GC_WATCH_MEAN) == 0 || slot->constant || t->dtype != GRADCAM_F32 || t->ndim < 2 || gc_numel(t) == 0) {
        return;
    }
    memset(p, 0, sizeof *p);
    p->samples = t->shape[0];
    p->channels = t->shape[last ? t->ndim - 1 : 1];
    p->places = gc_numel(t) / p->samples / p->channels;
    p->skip = watch >> GC_WATCH_SKIP_SHIFT;
    p->last = last;
    slot->sums.wanted = p->skip < p->places;
    slot->sums.used = slot->sums.wanted;
}

/* ---- planning ---- */

/* Its sums are taken from the whole gradient, because a hook may change that or because it
   is no more.  That it flows in any case is no reason: the same numbers whatever else is watched. */
static bool ends(const gc_slot *s)
{
    return s->sums.written || s->sums.places.places == 1;
}

/* Nothing but a mean over all places reads what Relu makes, and nobody sees it. */
static bool is_averaged(const gc_plan *p, int32_t index, const gc_places *places)
{
    gc_places out;
    int32_t slot = p->steps[index].out[0], reader = -1;
    for (int32_t i = index + 1; i < p->n_steps; i++) {
        for (int32_t k = 0; k < p->steps[i].call.n_in; k++) {
            if (p->steps[i].in[k] == slot && (reader >= 0 || k > 0)) {
                return false;
            }
            reader = p->steps[i].in[k] == slot ? i : reader;
        }
    }
    if (reader < 0 || p->slots[slot].kept || p->steps[reader].op == NULL) {
        return false;
    }
    const char *op = p->steps[reader].call.op_name;
    bool mean = strcmp(op, "ReduceMean") == 0 || strcmp(op, "GlobalAveragePool") == 0;
    return mean && gc_sums_way_of(&p->steps[reader].call, 0, places, &out) == GC_SUMS_SAME && out.places == 1;
}

static gc_sums_way way_of(gc_plan *p, int32_t index, int32_t k, gc_places *out)
{
    gc_step *s = &p->steps[index];
    const gc_places *in = &p->slots[s->in[k]].sums.places;
    if (s->op == NULL) {
        *out = *in;
        return GC_SUMS_SAME;
    }
    if (s->out[0] < 0 || k >= 32 || p->slots[s->out[0]].value.dtype != GRADCAM_F32) {
        return GC_SUMS_NONE;
    }
    s->call.err = NULL;
    gc_sums_way way = gc_sums_way_of(&s->call, k, in, out);
    bool fits = way == GC_SUMS_PRODUCT ? gc_sums_packed(&s->call, in, out) >= 0
                                       : way != GC_SUMS_COUNT || is_averaged(p, index, out);
    return fits ? way : GC_SUMS_NONE;
}

/* How the elements of slots behind the watched ones are samples, channels and places;
   slots that some reader has no way for become `whole`. */
static void spread(gc_plan *p, int32_t index)
{
    gc_step *s = &p->steps[index];
    bool stops = s->op != NULL && (s->op->flags & GC_OP_STOPS) != 0;
    for (int32_t k = 0; k < s->call.n_in && !stops; k++) {
        gc_slot *in = s->in[k] < 0 ? NULL : &p->slots[s->in[k]];
        gc_places places;
        if (in == NULL || in->sums.places.places == 0 || in->sums.whole || ends(in)) {
            continue;
        }
        gc_slot *out = way_of(p, index, k, &places) == GC_SUMS_NONE ? NULL : &p->slots[s->out[0]];
        if (out == NULL || (out->sums.places.places != 0 && !gc_same_places(&out->sums.places, &places))) {
            in->sums.whole = 1;
        } else {
            out->sums.places = places;
        }
    }
}

/* Which of them are needed: all that a needed one comes of. */
static void choose(gc_plan *p, int32_t index)
{
    gc_step *s = &p->steps[index];
    for (int32_t k = 0; k < s->call.n_in; k++) {
        gc_slot *in = s->in[k] < 0 ? NULL : &p->slots[s->in[k]];
        gc_places places;
        bool stops = s->op != NULL && (s->op->flags & GC_OP_STOPS) != 0;
        if (in == NULL || stops || !in->sums.used || in->sums.whole || ends(in)) {
            continue;
        }
        s->sums |= UINT32_C(1) << k;
        s->sums_way = way_of(p, index, k, &places);
        p->slots[s->out[0]].sums.used = 1;
        p->slots[s->out[0]].sums.counts = s->sums_way == GC_SUMS_COUNT;
    }
}

void gc_plan_sums(gc_plan *p)
{
    for (int32_t i = 0; i < p->n_steps; i++) {
        spread(p, i);
    }
    for (int32_t i = 0; i < p->n_steps; i++) {
        choose(p, i);
    }
    for (int32_t i = 0; i < p->n_slots; i++) {
        gc_slot_sums *s = &p->slots[i].sums;
        s->whole = s->used && (s->whole || ends(&p->slots[i]));
    }
}

void gc_plan_sums_blocks(gc_plan *p, gc_slot *s)
{
    const gc_places *places = &s->sums.places;
    gc_tensor *t = &s->sums.tensor;
    if (!s->sums.used) {
        return;
    }
    t->ctx = p->ctx;
    t->dtype = GRADCAM_F32;
    t->ndim = 2;
    t->shape[0] = places->samples;
    t->shape[1] = places->channels;
    gc_row_strides(t->ndim, t->shape, t->strides);
    s->sums.memory.bytes = (size_t)(places->samples * places->channels) * sizeof(float) + 64;
    s->sums.memory.first = p->n_steps;
    s->sums.memory.last = 2 * p->n_steps;
}

/* ---- backward passes ---- */

gc_status gc_exec_own_sums(gc_run *run, gc_slot *s, gc_error *err)
{
    if (s->sums.has || !s->has_grad) {
        return GRADCAM_OK;
    }
    s->sums.has = 1;
    gc_status status = gc_sums_of(run->ctx, &s->sums.places, &s->grad, s->sums.tensor.data);
    return status == GRADCAM_OK ? status : gc_fail(err, status, "the executor failed in a backward pass");
}

static void add(int64_t n, const float *from, float *to)
{
    for (int64_t i = 0; i < n; i++) {
        to[i] += from[i];
    }
}

/* Sums of in[k]'s gradient, or a part of them where several steps read it. */
static gc_status pass_on(gc_run *run, gc_step *s, int32_t k, gc_error *err)
{
    gc_plan *p = run->plan;
    gc_slot *in = &p->slots[s->in[k]], *out = &p->slots[s->out[0]];
    const gc_places *to = &in->sums.places, *from = &out->sums.places;
    float *sums = in->sums.tensor.data;
    int64_t n = to->samples * to->channels;
    gc_status status = GRADCAM_OK;
    if (!in->sums.has) {
        memset(sums, 0, (size_t)n * sizeof *sums);
        in->sums.has = 1;
    }
    if (s->sums_way == GC_SUMS_SAME) {
        add(n, out->sums.tensor.data, sums);
    } else if (s->sums_way == GC_SUMS_COUNT) {
        gc_sums_count(from, run->rule, &out->value, out->sums.tensor.data, sums);
    } else {
        const float *w = s->sums_packed != NULL ? s->sums_packed : p->slots[s->in[1]].value.data;
        status = gc_sums_product(run->ctx, to, from, w, out->sums.tensor.data, sums);
    }
    return status == GRADCAM_OK ? status : gc_fail(err, status, "the executor failed in a backward pass");
}

gc_status gc_exec_sums(gc_run *run, gc_step *s, gc_error *err)
{
    gc_slot *out = &run->plan->slots[s->out[0]];
    GC_TRY(gc_exec_own_sums(run, out, err));
    for (int32_t k = 0; k < s->call.n_in && k < 32 && out->sums.has; k++) {
        if ((s->sums >> k & 1u) != 0) {
            GC_TRY(pass_on(run, s, k, err));
        }
    }
    if (out->sums.has && s->sums_way == GC_SUMS_COUNT && run->rule != GRADCAM_RULE_PLAIN) {
        gc_exec_note_rule(run, s);
    }
    return GRADCAM_OK;
}

gc_status gc_exec_means(gc_run *run, gc_error *err)
{
    for (int32_t i = 0; i < run->plan->n_slots; i++) {
        gc_slot *s = &run->plan->slots[i];
        const gc_places *p = &s->sums.places;
        if (!s->sums.wanted) {
            continue;
        }
        GC_TRY(gc_exec_own_sums(run, s, err));
        float *sums = s->sums.tensor.data;
        for (int64_t k = 0; s->sums.has && k < p->samples * p->channels; k++) {
            sums[k] /= (float)(p->places - p->skip);
        }
    }
    return GRADCAM_OK;
}
