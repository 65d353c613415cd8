/* SPDX-License-Identifier: MIT */
/* Numbers of weights that the model keeps. */
#include <string.h>

#include "base/compiler.h"
#include "base/source.h"
#include "graph/net.h"

/* Bytes a task reads: small beside a weight, large beside a call of the system. */
enum { PART = 1 << 20 };

typedef struct fetch_job {
    const gc_source *source;
    gc_error *err; /* of the part that failed first */
    unsigned char *dst;
    uint64_t at;
    size_t bytes;
    int32_t failed; /* atomic: parts */
    gc_status status;
} fetch_job;

static void fetch_part(void *task, uint32_t index)
{
    fetch_job *j = task;
    gc_error why;
    size_t first = (size_t)index * PART, n = j->bytes - first < PART ? j->bytes - first : PART;
    memset(&why, 0, sizeof why);
    gc_status status = gc_source_read(j->source, j->at + first, j->dst + first, n, &why);
    if (status != GRADCAM_OK && gc_atomic_add(&j->failed, 1) == 1) {
        j->status = gc_fail(j->err, status, "%s", why.message);
    }
}

gc_status gc_net_fetch(const gc_net *net, const gc_tensor *weight, void *dst, gc_error *err)
{
    size_t bytes = (size_t)gc_numel(weight) * gc_dtype_size(weight->dtype), parts = (bytes + PART - 1) / PART;
    fetch_job j = {weight->source, err, dst, weight->source_at, bytes, 0, GRADCAM_OK};
    if (!gc_source_shared(weight->source) || parts > UINT32_MAX) {
        return gc_source_read(weight->source, weight->source_at, dst, bytes, err);
    }
    gc_status status = gc_parallel(net->ctx, fetch_part, &j, (uint32_t)parts);
    return j.failed > 0 ? j.status : status;
}

/* Where the model is in memory and the numbers happen to be aligned. */
static void *in_place(const gc_tensor *weight)
{
    const unsigned char *bytes = gc_source_bytes(weight->source);
    bytes = bytes == NULL ? NULL : bytes + weight->source_at;
    return (uintptr_t)bytes % sizeof(float) == 0 ? (void *)(uintptr_t)bytes : NULL;
}

gc_status gc_net_hold(const gc_net *net, int32_t id, void **data, gc_error *err)
{
    gc_value *v = &net->values[id];
    size_t count = (size_t)gc_numel(v->weight), size = gc_dtype_size(v->weight->dtype);
    void *there = in_place(v->weight);
    there = there != NULL ? there : GC_ATOMIC_LOAD(&v->held);
    if (there != NULL) {
        *data = there;
        return GRADCAM_OK;
    }
    void *mine = gc_mem_alloc_raw(net->ctx, count + 1, size);
    if (mine == NULL) {
        return gc_fail(err, GRADCAM_E_NOMEM, "out of memory: %zu bytes for weights", count * size);
    }
    gc_status status = gc_net_fetch(net, v->weight, mine, err);
    if (status != GRADCAM_OK) {
        gc_mem_free(net->ctx, mine);
        return status;
    }
    if (GC_ATOMIC_CAS(&v->held, &there, mine)) {
        there = mine;
    } else { /* another run was faster */
        gc_mem_free(net->ctx, mine);
    }
    *data = there;
    return GRADCAM_OK;
}
