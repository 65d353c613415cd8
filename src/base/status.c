/* SPDX-License-Identifier: MIT */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

gc_status gc_fail(gc_error *err, gc_status status, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
        err->status = status;
        err->user_code = 0;
        err->node = -1;
        err->offset = 0;
    }
    return status;
}

const char *gc_status_name(gc_status status)
{
    static const char *const names[] = {
        "GRADCAM_OK",       "GRADCAM_E_INVALID",     "GRADCAM_E_NOMEM",       "GRADCAM_E_IO",
        "GRADCAM_E_FORMAT", "GRADCAM_E_UNSUPPORTED", "GRADCAM_E_NOT_FOUND",   "GRADCAM_E_SHAPE",
        "GRADCAM_E_DTYPE",  "GRADCAM_E_LIMIT",       "GRADCAM_E_NO_GRADIENT", "GRADCAM_E_STATE",
        "GRADCAM_E_ABI",    "GRADCAM_E_CANCELLED",   "GRADCAM_E_CALLBACK",    "GRADCAM_E_INTERNAL",
    };
    if (status > 0 || status < GRADCAM_E_INTERNAL) {
        return "unknown status";
    }
    return names[-status];
}

uint32_t gc_version(void)
{
    return GRADCAM_VERSION_MAJOR << 16 | GRADCAM_VERSION_MINOR << 8 | GRADCAM_VERSION_PATCH;
}

#define GC_TEXT2(x) #x
#define GC_TEXT(x) GC_TEXT2(x)

const char *gc_version_string(void)
{
    return GC_TEXT(GRADCAM_VERSION_MAJOR) "." GC_TEXT(GRADCAM_VERSION_MINOR) "." GC_TEXT(GRADCAM_VERSION_PATCH);
}
