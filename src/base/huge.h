/* SPDX-License-Identifier: MIT */
#ifndef GC_BASE_HUGE_H
#define GC_BASE_HUGE_H

#include <stddef.h>

/* Tells the system that a large block of fresh memory had better lie in large
   pages: far fewer page faults at its first use, fewer misses of the TLB at
   every other.  A hint; does nothing where there is no such thing. */
void gc_huge_advise(void *block, size_t size);

#endif
