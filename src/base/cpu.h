/* SPDX-License-Identifier: MIT */
/* Instructions that the compiler's own question does not cover. */
#ifndef GC_BASE_CPU_H
#define GC_BASE_CPU_H

#include <stdbool.h>

/* AVX512-BF16, usable besides AVX-512. */
bool gc_cpu_has_bf16(void);
/* AMX with bfloat16 tiles.  The system hands out the registers on request only,
   for the whole process and for good: this is the request. */
bool gc_cpu_ask_amx(void);

#endif
