/* SPDX-License-Identifier: MIT */
#include "kern/half.h"

#include <string.h>

#include "base/compiler.h"
#include "base/cpu.h"
#include "kern/isa.h"

int64_t gc_half_steps(int64_t length)
{
    return (length + GC_HALF_DEPTH - 1) / GC_HALF_DEPTH;
}

/* Even, as products come in pairs; at most `length`, as that is even. */
int64_t gc_half_depth(int64_t length)
{
    int64_t steps = gc_half_steps(length);
    return steps == 0 ? 0 : (length + 2 * steps - 1) / (2 * steps) * 2;
}

int64_t gc_half_begin(int64_t length, int64_t index)
{
    int64_t depth = gc_half_depth(length), begin = index * depth;
    return begin + depth <= length ? begin : length - depth;
}

const gc_half *gc_half_at(int32_t index, int32_t *supported)
{
#ifdef GC_HAVE_BF16
    if (index == 0) {
        *supported = gc_cpu_ask_amx() ? 1 : 0;
        return &gc_half_amx;
    }
    if (index == 1) {
        *supported = gc_cpu_has_bf16() ? 1 : 0;
        return &gc_half_avx512;
    }
    index -= 2;
#endif
    *supported = 1;
    return index == 0 ? &gc_half_plain : NULL;
}

const gc_half *gc_half_of(const gc_kern *kern)
{
    int32_t supported = 0;
    if (kern == &gc_kern_plain) {
        return &gc_half_plain;
    }
#ifdef GC_HAVE_BF16
    for (int32_t i = 0; kern == &gc_kern_avx512; i++) {
        const gc_half *half = gc_half_at(i, &supported);
        if (half == &gc_half_plain || supported) {
            return half == &gc_half_plain ? NULL : half;
        }
    }
#endif
    (void)supported;
    return NULL;
}
