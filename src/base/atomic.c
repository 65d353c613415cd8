/* SPDX-License-Identifier: MIT */
#include "base/compiler.h"
#include "base/ctx.h"

int32_t gc_atomic_add(int32_t *counter, int32_t delta)
{
    return GC_ATOMIC_ADD(counter, delta);
}
