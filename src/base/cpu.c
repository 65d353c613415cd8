/* SPDX-License-Identifier: MIT */
#if defined(__linux__)
#define _DEFAULT_SOURCE
#include <sys/syscall.h>
#include <unistd.h>
#endif
#include "base/compiler.h"
#include "base/cpu.h"

#ifdef GC_HAVE_BF16
#include <cpuid.h>

/* CPUID leaf 7. */
enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, AVX512_BF16 = 1 << 5 };

bool gc_cpu_has_bf16(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    return GC_CPU_HAS_AVX512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & AVX512_BF16) != 0;
}

#if defined(__linux__) && defined(SYS_arch_prctl)
/* The kernel's ARCH_REQ_XCOMP_PERM of the state component "tile data"; it fails
   where the kernel does not keep the tiles of a thread. */
enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };

bool gc_cpu_ask_amx(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    bool has = gc_cpu_has_bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & AMX_BF16) != 0 &&
               (d & AMX_TILE) != 0;
    return has && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#else
bool gc_cpu_ask_amx(void)
{
    return false;
}
#endif

#else
bool gc_cpu_has_bf16(void)
{
    return false;
}

bool gc_cpu_ask_amx(void)
{
    return false;
}
#endif
