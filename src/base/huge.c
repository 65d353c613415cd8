/* SPDX-License-Identifier: MIT */
#if defined(__linux__)
#define _DEFAULT_SOURCE
#include <sys/mman.h>
#endif
#include "base/huge.h"

#include <stdint.h>

/* Two large pages at least, or nothing whole may lie inside. */
enum { LARGE_PAGE = 2 << 20 };

void gc_huge_advise(void *block, size_t size)
{
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (size >= 2 * (size_t)LARGE_PAGE) {
        size_t skip = (LARGE_PAGE - (uintptr_t)block % LARGE_PAGE) % LARGE_PAGE;
        (void)madvise((unsigned char *)block + skip, (size - skip) / LARGE_PAGE * LARGE_PAGE, MADV_HUGEPAGE);
    }
#else
    (void)block;
    (void)size;
#endif
}
