/* SPDX-License-Identifier: MIT */
/* Contexts: the host's services and the kernels. */
#include "base/ctx.h"

#include <stdio.h>
#include <string.h>

#include "base/abi.h"
#include "base/status.h"
#include "kern/blas.h"
#include "kern/kern.h"

const char *gc_kernels(int32_t index)
{
    int32_t supported = 0, ignored = 0;
    for (int32_t i = 0; index >= 0; i++) {
        const gc_kern *k = gc_kern_at(i, &supported);
        if (k == NULL) {
            return NULL;
        }
        bool last = gc_kern_at(i + 1, &ignored) == NULL;
        if (last && gc_blas_built() && index-- == 0) {
            return GC_BLAS_NAME; /* the plain set comes last */
        }
        if (supported && index-- == 0) {
            return k->name;
        }
    }
    return NULL;
}

static gc_status no_such_kernels(const char *name, gc_error *err)
{
    char list[128];
    size_t used = 0;
    for (int32_t i = 0; gc_kernels(i) != NULL && used < sizeof list; i++) {
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", gc_kernels(i));
    }
    return gc_fail(err, GRADCAM_E_NOT_FOUND, "kernels \"%s\" are not there; this machine has %s", name, list);
}

gc_status gc_ctx_create(const gc_ctx_options *options, gc_ctx **out, gc_error *err)
{
    gc_ctx_options o;
    memset(&o, 0, sizeof o);
    if (out == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_ctx_create: out is NULL");
    }
    if (options != NULL) {
        GC_TRY(GC_ABI_IMPORT(options, &o, err));
    }
    bool blas = o.kernels != NULL && gc_blas_built() && strcmp(o.kernels, GC_BLAS_NAME) == 0;
    const gc_kern *kern = gc_kern_find(blas ? NULL : o.kernels);
    if (kern == NULL) {
        return no_such_kernels(o.kernels, err);
    }
    GC_TRY(gc_ctx_open(&o, kern, out, err));
    (*out)->blas = blas;
    return GRADCAM_OK;
}
