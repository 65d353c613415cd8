/* SPDX-License-Identifier: MIT */
/* Errors: one function fills gc_error and returns the status, two macros. */
#ifndef GC_BASE_STATUS_H
#define GC_BASE_STATUS_H

#include "base/compiler.h"
#include "gradcam/gradcam.h"

/* Fills *err (may be NULL) with a formatted message and returns `status`. */
gc_status gc_fail(gc_error *err, gc_status status, const char *format, ...) GC_PRINTF(3, 4);

#define GC_TRY(expression)                                                                                             \
    do {                                                                                                               \
        gc_status try_status_ = (expression);                                                                          \
        if (try_status_ != GRADCAM_OK) {                                                                               \
            return try_status_;                                                                                        \
        }                                                                                                              \
    } while (0)

#define GC_NOMEM(err) gc_fail((err), GRADCAM_E_NOMEM, "out of memory")

#endif
