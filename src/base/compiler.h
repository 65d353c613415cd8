/* SPDX-License-Identifier: MIT */
/* Every compiler extension that the library uses, behind a name. */
#ifndef GC_BASE_COMPILER_H
#define GC_BASE_COMPILER_H

#if defined(__GNUC__)
#define GC_PRINTF(f, a) __attribute__((format(printf, f, a)))
/* Sequentially consistent add, gives the new value. */
#define GC_ATOMIC_ADD(p, d) __atomic_add_fetch((p), (d), __ATOMIC_SEQ_CST)
#else
#define GC_PRINTF(f, a)
#define GC_ATOMIC_ADD(p, d) (*(p) += (d)) /* without atomics: objects stay on one thread */
#endif

/* One function compiled for AVX2 and FMA beside its portable twin, chosen at
   run time.  gc_v8: eight floats. */
#if defined(__GNUC__) && defined(__x86_64__) && !defined(GC_NO_SIMD)
#define GC_HAVE_AVX2 1
#define GC_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define GC_CPU_HAS_AVX2() (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
typedef float gc_v8 __attribute__((vector_size(32)));
#endif

#endif
