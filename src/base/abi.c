/* SPDX-License-Identifier: MIT */
#include "base/abi.h"

#include <string.h>

#include "base/status.h"

/* No struct is anywhere near this; more is an uninitialised field. */
#define GC_ABI_MOST ((size_t)4096)

gc_status gc_abi_import(const void *src, size_t first, void *dst, size_t known, const char *name, gc_error *err)
{
    uint32_t said;
    memcpy(&said, src, sizeof said);
    size_t size = said == 0 ? first : said;
    if (size < sizeof said || size > GC_ABI_MOST) {
        return gc_fail(err, GRADCAM_E_ABI, "%s: struct_size is %lu; set it to 0 or to sizeof the struct", name,
                       (unsigned long)said);
    }
    for (size_t i = known; i < size; i++) {
        if (((const unsigned char *)src)[i] != 0) {
            return gc_fail(err, GRADCAM_E_ABI,
                           "%s: byte %lu is not zero, but this version knows only %lu bytes; "
                           "the program was built for a newer library",
                           name, (unsigned long)i, (unsigned long)known);
        }
    }
    memset(dst, 0, known);
    memcpy(dst, src, size < known ? size : known);
    return GRADCAM_OK;
}

void gc_abi_export(const void *src, size_t known, void *dst, size_t first)
{
    uint32_t said;
    memcpy(&said, dst, sizeof said);
    size_t size = said == 0 || said > GC_ABI_MOST ? first : said;
    size = size < known ? size : known;
    if (size > sizeof said) {
        memcpy((unsigned char *)dst + sizeof said, (const unsigned char *)src + sizeof said, size - sizeof said);
    }
}
