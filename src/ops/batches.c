/* SPDX-License-Identifier: MIT */
#include "ops/batches.h"

#include <string.h>

/* Calls with more work than this are large enough to be shared out themselves. */
enum { MOST_EACH = 2 << 20, MOST_TASKS = 16 };

typedef struct batches_job {
    gc_op_call *c;
    gc_ctx serial;
    int64_t batches, tasks;
    size_t each;
    gc_batch_fn fn;
    const void *user;
    gc_status status[MOST_TASKS];
} batches_job;

int64_t gc_batch_tasks(const gc_op_call *c, int64_t batches, size_t each)
{
    int64_t workers = gc_workers(c->ctx), n = workers < MOST_TASKS ? workers : MOST_TASKS;
    return each > MOST_EACH ? 1 : n < batches ? n : batches;
}

static void task(void *user, uint32_t index)
{
    batches_job *j = user;
    gc_op_call c = *j->c;
    c.ctx = &j->serial;
    c.work = (char *)j->c->work + index * j->each;
    int64_t first = j->batches * index / j->tasks, last = j->batches * (index + 1) / j->tasks;
    for (int64_t i = first; i < last && j->status[index] == GRADCAM_OK; i++) {
        j->status[index] = j->fn(&c, j->user, i);
    }
}

gc_status gc_each_batch(gc_op_call *c, int64_t batches, size_t each, gc_batch_fn fn, const void *user)
{
    batches_job j;
    memset(&j, 0, sizeof j);
    j.tasks = gc_batch_tasks(c, batches, each);
    if (j.tasks <= 1) {
        for (int64_t i = 0; i < batches; i++) {
            GC_TRY(fn(c, user, i));
        }
        return GRADCAM_OK;
    }
    j.c = c;
    j.serial = gc_ctx_serial(c->ctx);
    j.batches = batches;
    j.each = each;
    j.fn = fn;
    j.user = user;
    GC_TRY(gc_parallel(c->ctx, task, &j, (uint32_t)j.tasks));
    for (int64_t i = 0; i < j.tasks; i++) {
        GC_TRY(j.status[i]);
    }
    return GRADCAM_OK;
}
