/* SPDX-License-Identifier: MIT */
/* The rows of the table; those of other machines do not exist. */
#ifndef GC_KERN_ISA_H
#define GC_KERN_ISA_H

#include "kern/kern.h"

extern const gc_kern gc_kern_avx512, gc_kern_avx2, gc_kern_v4, gc_kern_plain;

#endif
