/* SPDX-License-Identifier: MIT */
#include "run/restart.h"

#include <math.h>
#include <string.h>

#include "base/abi.h"
#include "run/stretch.h"
#include "tensor/walk.h"

/* Where the host does not say.  Up to some eight, variants share the reading of
   weights and fill the threads; more take no less time each. */
enum { MOST_BYTES = 128 << 20, MOST_VARIANTS = 8 };

void gc_restart_free(gc_run *run)
{
    gc_restart *r = run->restart;
    if (r == NULL) {
        return;
    }
    gc_plan_free(r->plan);
    gc_mem_free(run->ctx, r->watch);
    gc_mem_free(run->ctx, r->base.data);
    gc_mem_free(run->ctx, r);
    run->restart = NULL;
}

size_t gc_restart_bytes(const gc_run *run)
{
    const gc_restart *r = run->restart;
    return r == NULL || r->plan == NULL ? 0 : r->plan->arena_bytes;
}

static gc_slot *slot_of(const gc_plan *p, int32_t value)
{
    return &p->slots[p->slot_of[value]];
}

/* A value of the run: kept by its plan, or a bound input. */
static const gc_tensor *source(const gc_run *run, int32_t value)
{
    const gc_slot *s = slot_of(run->plan, value);
    for (int32_t i = 0; i < run->net->n_inputs && !s->kept && !s->constant; i++) {
        if (run->net->inputs[i] == value) {
            return run->inputs[i];
        }
    }
    return &s->value;
}

/* The axis along which the variants of a slot follow each other, -1: it is the same
   for all of them, or there is one variant; -2: they do not lie in one piece. */
static int32_t variants_axis(const gc_run *run, const gc_restart *r, const gc_slot *s)
{
    if (r->batch == 1) {
        return -1;
    }
    int32_t axis = gc_stretch_axis(source(run, s->net_value), &s->value, r->batch);
    return s->major == 1 ? axis : -2;
}

static gc_tensor part_of(const gc_slot *s, int32_t axis, int64_t batch, int64_t b)
{
    gc_tensor t = s->value;
    if (axis >= 0) {
        t.shape[axis] /= batch;
        int64_t offset = b * t.shape[axis] * t.strides[axis];
        t.data = (char *)t.data + (size_t)offset * gc_dtype_size(t.dtype);
    }
    return t;
}

gc_tensor gc_restart_part(const gc_restart *r, int32_t value, int64_t b)
{
    const gc_slot *s = slot_of(r->plan, value);
    return part_of(s, value == r->from ? r->from_axis : r->output_axis, r->batch, b);
}

/* ---- planning ---- */

static int64_t samples_of(const gc_run *run)
{
    for (int32_t i = 0; i < run->net->n_inputs; i++) {
        if (run->inputs[i] != NULL && run->inputs[i]->ndim >= 2) {
            return run->inputs[i]->shape[0];
        }
    }
    return 1;
}

static gc_status plan_for(gc_run *run, gc_restart *r, gc_tensor *const *inputs, const gc_plan *ref, gc_plan **out,
                          gc_error *err)
{
    gc_cut cut = {r->from, r->output, r->batch, r->samples, ref};
    gc_wish wish;
    memset(&wish, 0, sizeof wish);
    wish.watch = r->watch;
    wish.inputs = inputs;
    wish.exact = run->exact;
    wish.half = run->half;
    wish.cut = &cut;
    return gc_plan_build(run->net, &wish, out, err);
}

/* Inputs of which nothing but type and shape is looked at: those whose leading
   dimension is the number of samples have r->batch times as many. */
static gc_status plan_batch(gc_run *run, gc_restart *r, const gc_plan *ref, gc_plan **out, gc_error *err)
{
    size_t n = (size_t)run->net->n_inputs;
    gc_tensor *shapes = gc_mem_alloc(run->ctx, n + 1, sizeof *shapes);
    gc_tensor **inputs = gc_mem_alloc(run->ctx, n + 1, sizeof *inputs);
    gc_status status = shapes == NULL || inputs == NULL ? GC_NOMEM(err) : GRADCAM_OK;
    for (size_t i = 0; i < n && status == GRADCAM_OK; i++) {
        shapes[i] = *run->inputs[i];
        shapes[i].data = NULL;
        inputs[i] = &shapes[i];
        if (shapes[i].ndim >= 2 && shapes[i].shape[0] == r->samples) {
            shapes[i].shape[0] *= r->batch;
        }
        if (gc_shape_numel(shapes[i].ndim, shapes[i].shape) < 0) {
            status = gc_fail(err, GRADCAM_E_LIMIT, "a batch of %lld variants is too large", (long long)r->batch);
        }
    }
    if (status == GRADCAM_OK) {
        status = plan_for(run, r, inputs, ref, out, err);
    }
    gc_mem_free(run->ctx, inputs);
    gc_mem_free(run->ctx, shapes);
    return status;
}

/* Every value that goes in or out has a place for each variant. */
static bool fits(const gc_run *run, gc_restart *r, const gc_plan *p)
{
    for (int32_t i = 0; i < p->n_slots; i++) {
        if (p->slots[i].imported && variants_axis(run, r, &p->slots[i]) < -1) {
            return false;
        }
    }
    r->from_axis = variants_axis(run, r, slot_of(p, r->from));
    r->output_axis = variants_axis(run, r, slot_of(p, r->output));
    return r->from_axis >= 0 && r->output_axis >= 0;
}

static void go_one_by_one(gc_restart *r)
{
    r->batch = 1;
    r->from_axis = r->output_axis = -1;
    r->checked = 1;
}

/* The even share of the variants in the fewest batches. */
static int64_t choose_batch(const gc_restart *r)
{
    size_t bytes = r->plan->arena_bytes + 1;
    int64_t most = bytes < MOST_BYTES / MOST_VARIANTS ? MOST_VARIANTS : (int64_t)(MOST_BYTES / bytes);
    if (r->asked > 0 || most <= 1 || r->count <= 1) {
        return r->asked > 0 ? r->asked : 1;
    }
    int64_t batches = (r->count - 1) / most + 1;
    return (r->count - 1) / batches + 1;
}

/* Puts a plan for a batch in the place of the one for a single variant. */
static gc_status widen(gc_run *run, gc_restart *r, gc_error *err)
{
    gc_plan *many = NULL;
    gc_error why;
    gc_status status = GRADCAM_E_LIMIT;
    memset(&why, 0, sizeof why);
    r->batch = choose_batch(r);
    for (; status == GRADCAM_E_LIMIT && r->batch > 1; r->batch = r->asked > 0 ? 1 : r->batch / 2) {
        status = plan_batch(run, r, r->plan, &many, &why);
        if (status == GRADCAM_OK && fits(run, r, many)) {
            gc_plan_free(r->plan);
            r->plan = many;
            return GRADCAM_OK;
        }
        gc_plan_free(many);
        many = NULL;
    }
    go_one_by_one(r);
    if (status == GRADCAM_E_NOMEM || (status == GRADCAM_E_LIMIT && r->asked > 1)) {
        if (err != NULL) {
            gc_abi_export(&why, sizeof why, err, sizeof why);
        }
        return status;
    }
    return GRADCAM_OK;
}

static void watch(gc_run *run, int32_t value)
{
    if ((run->watch[value] & GRADCAM_WATCH_VALUE) == 0) {
        run->watch[value] |= GRADCAM_WATCH_VALUE;
        run->stale = 1;
    }
}

/* Inputs need no watching: they stay bound, and small ones may be constants. */
static void watch_imports(gc_run *run, const gc_restart *r)
{
    for (int32_t i = 0; i < r->plan->n_slots; i++) {
        const gc_slot *s = &r->plan->slots[i];
        if (s->imported && !run->net->values[s->net_value].is_input) {
            watch(run, s->net_value);
        }
    }
    watch(run, r->output);
}

static gc_status make_base(gc_run *run, gc_restart *r, gc_error *err)
{
    gc_tensor like = gc_restart_part(r, r->from, 0);
    if (slot_of(r->plan, r->output)->value.dtype != GRADCAM_F32) {
        return gc_fail(err, GRADCAM_E_DTYPE, "output \"%s\" holds no floating numbers",
                       run->net->values[r->output].name);
    }
    r->base = like;
    if (like.ndim >= 3 && gc_is_cl(&slot_of(r->plan, r->from)->value)) {
        gc_cl_strides(like.ndim, like.shape, r->base.strides);
    } else {
        gc_row_strides(like.ndim, like.shape, r->base.strides);
    }
    r->base.data = gc_mem_alloc(run->ctx, (size_t)gc_numel(&like) + 16, gc_dtype_size(like.dtype));
    return r->base.data == NULL ? GC_NOMEM(err) : GRADCAM_OK;
}

static gc_status make(gc_run *run, gc_restart *r, gc_error *err)
{
    r->watch = gc_mem_alloc(run->ctx, (size_t)run->net->n_values + 1, sizeof *r->watch);
    if (r->watch == NULL) {
        return GC_NOMEM(err);
    }
    r->watch[r->from] = GRADCAM_WATCH_VALUE;
    r->watch[r->output] = GRADCAM_WATCH_VALUE;
    GC_TRY(plan_for(run, r, run->inputs, NULL, &r->plan, err));
    watch_imports(run, r);
    GC_TRY(gc_run_prepare(run, err));
    GC_TRY(widen(run, r, err));
    return make_base(run, r, err);
}

gc_status gc_restart_prepare(gc_run *run, int32_t from, int32_t output, int64_t batch, int64_t count, gc_error *err)
{
    if (run->restart != NULL) {
        GC_TRY(gc_run_prepare(run, err));
    }
    gc_restart *r = run->restart;
    if (r != NULL && r->from == from && r->output == output && r->asked == batch && (batch > 0 || r->count == count)) {
        return GRADCAM_OK;
    }
    gc_restart_free(run);
    r = gc_mem_alloc(run->ctx, 1, sizeof *r);
    if (r == NULL) {
        return GC_NOMEM(err);
    }
    r->from = from;
    r->output = output;
    r->asked = batch;
    r->count = count;
    r->batch = 1;
    r->samples = samples_of(run);
    gc_status status = make(run, r, err);
    run->restart = r;
    if (status != GRADCAM_OK) {
        gc_restart_free(run);
    }
    return status;
}

/* ---- running ---- */

static void take_imports(gc_run *run, gc_restart *r)
{
    for (int32_t i = 0; i < r->plan->n_slots; i++) {
        const gc_slot *s = &r->plan->slots[i];
        if (!s->imported) {
            continue;
        }
        const gc_tensor *from = source(run, s->net_value);
        if (s->net_value == r->from) {
            gc_tensor_convert(from, &r->base);
            continue;
        }
        int32_t axis = variants_axis(run, r, s);
        for (int64_t b = 0; b < (axis < 0 ? 1 : r->batch); b++) {
            gc_tensor part = part_of(s, axis, r->batch, b);
            gc_tensor_convert(from, &part);
        }
    }
}

/* Outputs of variants that are not perturbed. */
typedef struct beside {
    double most, error; /* against the run's own */
    uint64_t bits;      /* FNV-1a over all of them */
} beside;

static void beside_run(void *user, int64_t n, char *const *p, const int64_t *s)
{
    beside *d = user;
    for (int64_t i = 0; i < n; i++) {
        float own, got;
        uint32_t bits;
        memcpy(&own, p[0] + i * s[0], sizeof own);
        memcpy(&got, p[1] + i * s[1], sizeof got);
        memcpy(&bits, &got, sizeof bits);
        bool both = isfinite(own) && isfinite(got);
        double error = both                                           ? fabs((double)own - (double)got)
                       : (isfinite(own) != 0) == (isfinite(got) != 0) ? 0.0
                                                                      : INFINITY;
        d->error = error > d->error ? error : d->error;
        d->most = isfinite(own) && fabs((double)own) > d->most ? fabs((double)own) : d->most;
        d->bits = (d->bits ^ bits) * 0x100000001b3u;
    }
}

/* Runs a batch whose first variant is the value or zero, the others the value. */
static gc_status look_beside(gc_run *run, gc_restart *r, bool zero, beside *d, gc_error *err)
{
    for (int64_t b = 0; b < r->batch; b++) {
        gc_tensor part = gc_restart_part(r, r->from, b);
        if (b == 0 && zero) {
            gc_walk_zero(&part);
        } else {
            gc_tensor_convert(&r->base, &part);
        }
    }
    GC_TRY(gc_exec_part(run, r->plan, 0, r->count, err));
    memset(d, 0, sizeof *d);
    for (int64_t b = 1; b < r->batch; b++) {
        gc_tensor part = gc_restart_part(r, r->output, b);
        const gc_tensor *both[2] = {source(run, r->output), &part};
        gc_walk_tensors(2, both, beside_run, d);
    }
    return GRADCAM_OK;
}

/* What becomes of the first variant must not change a bit of the others, and these
   must be the run's own but for rounding; else the network mixes or misplaces its samples. */
static gc_status check(gc_run *run, gc_restart *r, bool *right, gc_error *err)
{
    beside with, without;
    GC_TRY(look_beside(run, r, false, &with, err));
    GC_TRY(look_beside(run, r, true, &without, err));
    double bound = run->half != NULL ? 0.25 : 1e-3;
    *right = with.bits == without.bits && with.error <= bound * with.most;
    return GRADCAM_OK;
}

gc_status gc_restart_begin(gc_run *run, gc_error *err)
{
    gc_restart *r = run->restart;
    bool right = true;
    take_imports(run, r);
    if (r->checked) {
        return GRADCAM_OK;
    }
    GC_TRY(check(run, r, &right, err));
    r->checked = 1;
    if (right) {
        return GRADCAM_OK;
    }
    gc_plan *one = NULL;
    go_one_by_one(r);
    r->checked = 0; /* until the plan is there */
    GC_TRY(plan_for(run, r, run->inputs, NULL, &one, err));
    r->checked = 1;
    gc_plan_free(r->plan);
    r->plan = one;
    take_imports(run, r);
    return GRADCAM_OK;
}
