/* SPDX-License-Identifier: MIT */
/* Lifetimes of all blocks, and their places in one arena. */
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "run/fuse.h"
#include "run/join.h"
#include "run/mean.h"
#include "run/narrow.h"
#include "run/pass.h"
#include "run/strips.h"

static gc_tensor *slot_value(gc_plan *p, int32_t slot)
{
    return slot < 0 ? NULL : &p->slots[slot].value;
}

void gc_plan_mark_active(gc_plan *p)
{
    for (int32_t i = 0; i < p->n_slots; i++) {
        p->slots[i].active = p->slots[i].want_grad || p->slots[i].passing || p->slots[i].sums.whole;
    }
    for (int32_t s = 0; s < p->n_steps; s++) {
        gc_step *step = &p->steps[s];
        bool stops = step->op != NULL && (step->op->flags & GC_OP_STOPS) != 0;
        for (int32_t i = 0; i < step->call.n_in && !stops; i++) {
            if (step->in[i] >= 0 && p->slots[step->in[i]].active) {
                step->backward = 1;
            }
        }
        for (int32_t i = 0; i < step->call.n_out && step->backward; i++) {
            if (step->out[i] >= 0 && p->slots[step->out[i]].value.dtype == GRADCAM_F32) {
                p->slots[step->out[i]].active = 1;
            }
        }
    }
}

/* Where a slot is stored. */
static gc_block *home(gc_plan *p, gc_slot *s)
{
    return s->root >= 0 ? &p->slots[s->root].memory : &s->memory;
}

static gc_block *grad_home(gc_plan *p, gc_slot *s)
{
    return &(s->grad_root >= 0 ? &p->slots[s->grad_root] : s)->grad_memory;
}

static void extend(gc_block *b, int32_t time)
{
    b->first = time < b->first ? time : b->first;
    b->last = time > b->last ? time : b->last;
}

/* What one run may hold; sums of two such sizes do not overflow. */
static size_t run_limit(const gc_plan *p)
{
    return p->net->max_run_bytes < SIZE_MAX / 4 ? (size_t)p->net->max_run_bytes : SIZE_MAX / 4;
}

static gc_status over_limit(const gc_plan *p, gc_error *err)
{
    return gc_fail(err, GRADCAM_E_LIMIT,
                   "activations and gradients for these inputs need more than max_run_bytes = %llu; raise "
                   "gc_load_options.max_run_bytes if the model is trusted",
                   (unsigned long long)p->net->max_run_bytes);
}

static gc_status size_block(const gc_plan *p, gc_block *b, const gc_tensor *t, gc_error *err)
{
    int64_t bytes;
    if (!gc_mul_ok(gc_numel(t), (int64_t)gc_dtype_size(t->dtype), &bytes) || (uint64_t)bytes > run_limit(p)) {
        return over_limit(p, err);
    }
    b->bytes = (size_t)bytes + 64; /* vector loads may pass the end */
    return GRADCAM_OK;
}

static gc_status slot_blocks(gc_plan *p, gc_slot *s, gc_error *err)
{
    int32_t end = 2 * p->n_steps;
    if (s->fault != 0 || s->sequence || s->unused) {
        return GRADCAM_OK;
    }
    if (!s->constant && !s->hidden && s->root < 0) {
        GC_TRY(size_block(p, &s->memory, &s->value, err));
        s->memory.first = s->memory.last = s->producer < 0 ? 0 : s->producer;
    }
    gc_plan_sums_blocks(p, s);
    bool has_grad = s->active || (s->sums.used && s->kept);
    if (has_grad) {
        s->grad = s->value;
        s->grad.data = NULL;
    }
    if (has_grad && s->grad_root < 0) {
        GC_TRY(size_block(p, &s->grad_memory, &s->grad, err));
        s->grad_memory.first = s->grad_memory.last = s->producer < 0 ? end : end - 1 - s->producer;
        /* A seed may be put here before the pass.  For many slots that gradients pass
           only, that would be much memory, and what lies there before its time is
           made by steps that a pass from this slot does not run. */
        if (s->kept && (s->want_grad || !(s->passing || s->sums.used))) {
            s->grad_memory.first = p->n_steps;
        }
        if (s->want_grad) {
            s->grad_memory.last = end;
        }
    }
    if ((s->kept || s->sums.counts) && !s->constant) {
        s->memory.last = end;
    }
    return GRADCAM_OK;
}

gc_status gc_plan_windows(gc_plan *p, gc_step *s, int64_t bytes, gc_error *err)
{
    int32_t index = (int32_t)(s - p->steps);
    int64_t task = max64((int64_t)p->window_bytes, bytes), all;
    if (bytes < 0 || !gc_mul_ok(task, (int64_t)gc_workers(p->ctx), &all) || (uint64_t)all > run_limit(p)) {
        return gc_fail(err, GRADCAM_E_LIMIT, "%s (node \"%s\"): too large", s->call.op_name, s->call.node_name);
    }
    if (p->windows.bytes == 0) {
        p->windows.first = p->windows.last = index;
    }
    extend(&p->windows, index);
    p->windows.bytes = (size_t)all;
    p->window_bytes = (size_t)task;
    return GRADCAM_OK;
}

/* Operators may reckon with addresses in blocks that turn out to be empty. */
static size_t at_least_one(size_t bytes)
{
    return bytes > 0 ? bytes : 1;
}

static gc_status step_blocks(gc_plan *p, int32_t index, gc_error *err)
{
    gc_step *s = &p->steps[index];
    int32_t end = 2 * p->n_steps, back = end - 1 - index;
    if (s->result >= 0) {
        extend(home(p, &p->slots[s->result]), index);
    }
    for (int32_t i = 0; i < s->call.n_in; i++) {
        gc_slot *slot = s->in[i] < 0 ? NULL : &p->slots[s->in[i]];
        if (slot == NULL || slot->constant) {
            continue;
        }
        bool kept = s->backward && s->op != NULL && i < 32 && ((s->op->keep_in | s->call.keep_in) >> i & 1u) != 0;
        extend(home(p, slot), kept ? end : s->runs_at);
        if (slot->active && s->backward) {
            extend(grad_home(p, slot), back);
            s->temp[i] = slot->grad;
            GC_TRY(size_block(p, &s->temp_memory[i], &s->temp[i], err));
            s->temp_memory[i].first = s->temp_memory[i].last = back;
        }
    }
    for (int32_t i = 0; i < s->call.n_out; i++) {
        if (s->out[i] >= 0 && p->slots[s->out[i]].active) {
            extend(grad_home(p, &p->slots[s->out[i]]), back);
        }
    }
    for (int32_t i = 0; i < s->call.n_out && s->backward && s->op != NULL; i++) {
        if (s->out[i] >= 0 && i < 32 && ((s->op->keep_out | s->call.keep_out) >> i & 1u) != 0) {
            extend(&p->slots[s->out[i]].memory, end);
        }
    }
    GC_TRY(gc_strips_size(p, s, err));
    s->call.differentiated = s->backward;
    bool lean = s->call.lean && !s->backward;
    s->aux_memory.bytes = at_least_one(lean ? 0 : s->call.aux_bytes);
    s->aux_memory.first = index;
    s->aux_memory.last = s->backward ? end : index;
    bool idle = s->fused || s->before >= 0; /* another step does its work, or the windows serve */
    s->work_memory.bytes = at_least_one(idle ? 0 : lean ? s->call.lean_bytes : s->call.work_bytes);
    s->work_memory.first = s->work_memory.last = index;
    s->back_work_memory.bytes = s->backward ? at_least_one(s->call.work_bytes) : 0;
    s->back_work_memory.first = s->back_work_memory.last = back;
    return GRADCAM_OK;
}

/* Keep in step with the order of enumeration in count and list. */
static size_t list_blocks(gc_plan *p, gc_block **list)
{
    size_t n = 0;
    list[n++] = &p->windows;
    for (int32_t i = 0; i < p->n_slots; i++) {
        list[n++] = &p->slots[i].memory;
        list[n++] = &p->slots[i].grad_memory;
        list[n++] = &p->slots[i].sums.memory;
    }
    for (int32_t i = 0; i < p->n_steps; i++) {
        gc_step *s = &p->steps[i];
        list[n++] = &s->aux_memory;
        list[n++] = &s->work_memory;
        list[n++] = &s->back_work_memory;
        for (int32_t k = 0; k < s->call.n_in; k++) {
            list[n++] = &s->temp_memory[k];
        }
    }
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (list[i]->bytes > 0) {
            list[used++] = list[i];
        }
    }
    return used;
}

static int by_first(const void *a, const void *b)
{
    const gc_block *x = *(gc_block *const *)a, *y = *(gc_block *const *)b;
    if (x->first != y->first) {
        return x->first < y->first ? -1 : 1;
    }
    return x->bytes != y->bytes ? (x->bytes > y->bytes ? -1 : 1) : 0;
}

static int by_last(const void *a, const void *b)
{
    const gc_block *x = *(gc_block *const *)a, *y = *(gc_block *const *)b;
    return x->last != y->last ? (x->last < y->last ? -1 : 1) : 0;
}

/* The blocks in use by offset; the first `solid` of them lie without a gap from 0
   on, where nothing can be placed: loops make many blocks that stay. */
typedef struct placer {
    gc_block **live;
    size_t n, solid;
} placer;

static void take_out(placer *l, const gc_block *b)
{
    size_t low = 0, high = l->n;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (l->live[middle]->offset <= b->offset) {
            low = middle;
        } else {
            high = middle;
        }
    }
    l->n--;
    memmove(&l->live[low], &l->live[low + 1], (l->n - low) * sizeof *l->live);
    l->solid = l->solid < low ? l->solid : low;
}

static size_t end_of(const placer *l, size_t i)
{
    return i == 0 ? 0 : l->live[i - 1]->offset + l->live[i - 1]->bytes;
}

/* First fit. */
static size_t place(placer *l, gc_block *b)
{
    size_t i = l->solid, at = end_of(l, i);
    for (; i < l->n; i++) {
        if (l->live[i]->offset >= at && l->live[i]->offset - at >= b->bytes) {
            break;
        }
        at = end_of(l, i + 1);
    }
    memmove(&l->live[i + 1], &l->live[i], (l->n - i) * sizeof *l->live);
    l->live[i] = b;
    l->n++;
    b->offset = at;
    while (l->solid < l->n && l->live[l->solid]->offset == end_of(l, l->solid)) {
        l->solid++;
    }
    return at + b->bytes;
}

/* The size of the whole, or a size above `limit` as soon as it is passed.
   `list` is sorted by first, `ends` by last. */
static size_t place_all(gc_block **list, gc_block **ends, size_t n, gc_block **live, size_t limit)
{
    placer l = {live, 0, 0};
    size_t total = 0, ended = 0;
    for (size_t i = 0; i < n && total <= limit; i++) {
        if (list[i]->bytes > limit) {
            return list[i]->bytes;
        }
        while (ends[ended]->last < list[i]->first) {
            take_out(&l, ends[ended++]);
        }
        list[i]->bytes = (list[i]->bytes + 63) / 64 * 64;
        size_t top = place(&l, list[i]);
        total = top > total ? top : total;
    }
    return total;
}

static void *at(const gc_plan *p, const gc_block *b)
{
    return b->bytes > 0 ? p->arena + b->offset : NULL;
}

static void set_pointers(gc_plan *p)
{
    for (int32_t i = 0; i < p->n_slots; i++) {
        gc_slot *s = &p->slots[i];
        if (!s->constant) {
            s->value.data = at(p, home(p, s));
            if (s->root >= 0) {
                s->value.data = (char *)s->value.data + s->offset * (int64_t)gc_dtype_size(s->value.dtype);
            }
        }
        s->grad.data = at(p, grad_home(p, s));
        s->sums.tensor.data = at(p, &s->sums.memory);
    }
    for (int32_t i = 0; i < p->n_steps; i++) {
        gc_step *s = &p->steps[i];
        s->call.aux = at(p, &s->aux_memory);
        for (int32_t k = 0; k < s->call.n_in; k++) {
            s->temp[k].data = at(p, &s->temp_memory[k]);
            s->call.in[k] = slot_value(p, s->in[k]);
        }
        for (int32_t k = 0; k < s->call.n_out; k++) {
            s->call.out[k] = slot_value(p, k == 0 ? s->result : s->out[k]);
        }
        s->call.fusion.residual = slot_value(p, s->residual);
        s->call.fusion.bias = slot_value(p, s->bias);
    }
}

gc_status gc_plan_memory(gc_plan *p, gc_error *err)
{
    size_t most = 3 * (size_t)p->n_slots + 2;
    gc_plan_fuse(p);
    gc_plan_strips(p);
    gc_plan_join(p);
    gc_plan_narrow(p);
    gc_plan_pass(p);
    for (int32_t i = 0; i < p->n_slots; i++) {
        GC_TRY(slot_blocks(p, &p->slots[i], err));
    }
    for (int32_t i = 0; i < p->n_steps; i++) {
        GC_TRY(step_blocks(p, i, err));
        most += 3 + (size_t)p->steps[i].call.n_in;
    }
    gc_block **list = gc_mem_alloc(p->ctx, 3 * most, sizeof(gc_block *));
    if (list == NULL) {
        return GC_NOMEM(err);
    }
    size_t n = list_blocks(p, list);
    memcpy(list + most, list, n * sizeof *list);
    qsort(list, n, sizeof *list, by_first);
    qsort(list + most, n, sizeof *list, by_last);
    p->arena_bytes = place_all(list, list + most, n, list + 2 * most, run_limit(p));
    gc_mem_free(p->ctx, list);
    if (p->arena_bytes > run_limit(p)) {
        return over_limit(p, err);
    }
    p->arena = gc_mem_alloc(p->ctx, p->arena_bytes + 64, 1);
    if (p->arena == NULL) {
        return gc_fail(err, GRADCAM_E_NOMEM, "out of memory: %zu bytes for activations", p->arena_bytes);
    }
    set_pointers(p);
    return GRADCAM_OK;
}
