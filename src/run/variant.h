/* SPDX-License-Identifier: MIT */
/* Variants of a value, as gc_perturb_options says. */
#ifndef GC_RUN_VARIANT_H
#define GC_RUN_VARIANT_H

#include "base/status.h"
#include "tensor/tensor.h"

gc_status gc_variant_check(const gc_perturb_options *o, const gc_tensor *base, gc_error *err);
/* Writes variant `index` of `base` into a tensor of its shape. */
gc_status gc_variant_write(const gc_ctx *ctx, const gc_perturb_options *o, int64_t index, const gc_tensor *base,
                           gc_tensor *variant, gc_error *err);

/* Says that a callback returned `code`. */
gc_status gc_callback_failed(const char *what, int64_t index, int32_t code, gc_error *err);

#endif
