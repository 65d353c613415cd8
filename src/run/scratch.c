/* SPDX-License-Identifier: MIT */
/* Working memory that a run lends to whatever is written on top of it, so that
   a method that is called again allocates nothing. */
#include <string.h>

#include "base/size.h"
#include "run/run.h"

static gc_status describe_scratch(gc_tensor *t, const gc_tensor_desc *desc, size_t *bytes, gc_error *err)
{
    int64_t size;
    bool known = desc->ndim >= 0 && desc->ndim <= GRADCAM_MAX_DIMS && gc_dtype_size(desc->dtype) > 0;
    int64_t n = known ? gc_shape_numel(desc->ndim, desc->shape) : -1;
    if (n < 0 || !gc_mul_ok(n, (int64_t)gc_dtype_size(desc->dtype), &size) || (uint64_t)size > SIZE_MAX / 4) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_run_scratch: the type or the shape is not that of a tensor");
    }
    t->dtype = desc->dtype;
    t->ndim = desc->ndim;
    memcpy(t->shape, desc->shape, sizeof t->shape);
    gc_row_strides(t->ndim, t->shape, t->strides);
    *bytes = (size_t)size;
    return GRADCAM_OK;
}

gc_status gc_run_scratch(gc_run *run, int32_t which, const gc_tensor_desc *desc, gc_tensor **out, gc_error *err)
{
    gc_tensor shaped;
    size_t bytes = 0;
    if (run == NULL || desc == NULL || out == NULL || which < 0 || which >= GRADCAM_SCRATCH_COUNT) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_run_scratch: an argument is NULL, or the number is not 0 to %d",
                       GRADCAM_SCRATCH_COUNT - 1);
    }
    memset(&shaped, 0, sizeof shaped);
    shaped.ctx = run->ctx;
    GC_TRY(describe_scratch(&shaped, desc, &bytes, err));
    gc_scratch *s = &run->scratch[which];
    if (s->tensor.data == NULL || s->bytes < bytes) {
        void *block = gc_mem_alloc(run->ctx, bytes + 1, 1);
        if (block == NULL) {
            return gc_fail(err, GRADCAM_E_NOMEM, "out of memory: %zu bytes of working memory", bytes);
        }
        gc_mem_free(run->ctx, s->tensor.data);
        s->tensor.data = block;
        s->bytes = bytes;
    }
    shaped.data = s->tensor.data;
    s->tensor = shaped;
    *out = &s->tensor;
    return GRADCAM_OK;
}

void gc_run_free_scratch(gc_run *run)
{
    for (int32_t i = 0; i < GRADCAM_SCRATCH_COUNT; i++) {
        gc_mem_free(run->ctx, run->scratch[i].tensor.data);
    }
}
