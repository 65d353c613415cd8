/* SPDX-License-Identifier: MIT */
/* The most multiply-adds that the cores can do: the yardstick of the shares. */
#ifndef GRADCAM_BENCH_PEAK_H
#define GRADCAM_BENCH_PEAK_H

/* GFLOP/s (2 per multiply-add) of that many threads over about `seconds`, or 0
   when a thread could not be started. */
double peak_gflops(int threads, double seconds);
/* What the loop uses here: "AVX-512 FMA" and so on. */
const char *peak_level(void);

#endif
