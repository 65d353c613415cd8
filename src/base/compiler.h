/* SPDX-License-Identifier: MIT */
/* Every compiler extension that the library uses, behind a name. */
#ifndef GC_BASE_COMPILER_H
#define GC_BASE_COMPILER_H

#if defined(__GNUC__)
#define GC_PRINTF(f, a) __attribute__((format(printf, f, a)))
/* Sequentially consistent add, gives the new value. */
#define GC_ATOMIC_ADD(p, d) __atomic_add_fetch((p), (d), __ATOMIC_SEQ_CST)
#define GC_ATOMIC_LOAD(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
#define GC_ATOMIC_STORE(p, x) __atomic_store_n((p), (x), __ATOMIC_SEQ_CST)
/* *p == *old: becomes `new` and the result is true, else *old is renewed. */
#define GC_ATOMIC_CAS(p, old, new) __atomic_compare_exchange_n((p), (old), (new), 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)
#else
#define GC_PRINTF(f, a)
#define GC_ATOMIC_ADD(p, d) (*(p) += (d)) /* without atomics: objects stay on one thread */
#define GC_ATOMIC_LOAD(p) (*(p))
#define GC_ATOMIC_STORE(p, x) (*(p) = (x))
#define GC_ATOMIC_CAS(p, old, new) ((void)(old), *(p) = (new), 1)
#endif

/* Kernels are one source, compiled for several instruction sets and chosen at
   run time: GC_TARGET_* marks their functions, GC_CPU_HAS_* asks the machine.
   GC_HAVE_VECTORS: arithmetic on vector types. */
#if defined(__GNUC__) && !defined(GC_NO_SIMD)
#define GC_HAVE_VECTORS 1
#if defined(__x86_64__)
#define GC_HAVE_X86 1
#define GC_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define GC_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define GC_CPU_HAS_AVX2() (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#define GC_CPU_HAS_AVX512()                                                                                            \
    (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&  \
     __builtin_cpu_supports("avx512vl") && GC_CPU_HAS_AVX2())
/* bfloat16 products: whether the machine has them, base/cpu.h says. */
#if defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11
#define GC_HAVE_BF16 1
#define GC_TARGET_BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")))
#define GC_TARGET_AMX                                                                                                  \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,amx-tile,amx-bf16")))
#endif
#endif
#endif

/* What was stored is in memory before what follows reads it behind the compiler's back. */
#if defined(__GNUC__)
#define GC_MEMORY_IS_READ() __asm__ volatile("" ::: "memory")
#else
#define GC_MEMORY_IS_READ() ((void)0)
#endif

#if defined(__GNUC__)
/* The value of a vector counts as used, and as a new one. */
#define GC_VECTOR_IS_USED(v) __asm__ volatile("" : "+v"(v))
#define GC_ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define GC_ALWAYS_INLINE inline
#endif

/* Tells the core that this is a waiting loop. */
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define GC_PAUSE() __builtin_ia32_pause()
#else
#define GC_PAUSE() ((void)0)
#endif

#if defined(__GNUC__)
#define GC_PREFETCH_WRITE(p) __builtin_prefetch((p), 1)
/* Into the second cache. */
#define GC_PREFETCH_AHEAD(p) __builtin_prefetch((p), 0, 2)
#else
#define GC_PREFETCH_WRITE(p) ((void)(p))
#define GC_PREFETCH_AHEAD(p) ((void)(p))
#endif

/* Unrolls the loop that follows wholly (at most n rounds), so that arrays of
   sums become registers; GC_KEEP_LOOP leaves it a loop. */
#define GC_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
/* Without vectors a loop may be gone before it is to be unrolled: no defect. */
#pragma clang diagnostic ignored "-Wpass-failed"
#define GC_UNROLL(n) GC_PRAGMA(clang loop unroll(full))
#define GC_KEEP_LOOP
#elif defined(__GNUC__)
#define GC_UNROLL(n) GC_PRAGMA(GCC unroll n)
#define GC_KEEP_LOOP GC_PRAGMA(GCC unroll 1)
#else
#define GC_UNROLL(n)
#define GC_KEEP_LOOP
#endif

#endif
