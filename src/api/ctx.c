/* SPDX-License-Identifier: MIT */
/* Contexts: the host's services and the kernels. */
#include "base/ctx.h"

#include <stdio.h>
#include <string.h>

#include "base/abi.h"
#include "base/status.h"
#include "kern/kern.h"

const char *gc_kernels(int32_t index)
{
    int32_t supported = 0;
    for (int32_t i = 0; index >= 0; i++) {
        const gc_kern *k = gc_kern_at(i, &supported);
        if (k == NULL) {
            return NULL;
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
    const gc_kern *kern = gc_kern_find(o.kernels);
    return kern == NULL ? no_such_kernels(o.kernels, err) : gc_ctx_open(&o, kern, out, err);
}
