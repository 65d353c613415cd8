/* SPDX-License-Identifier: MIT */
/* One loop of twelve independent multiply-add chains: enough to hide a latency
   of four cycles on two pipes, few enough for sixteen registers.
   Included once per level with PEAK_NAME, PEAK_TYPE and PEAK_TARGET defined. */
PEAK_TARGET static double PEAK_NAME(long rounds)
{
    volatile float factor = 0.9995f, addend = 0.0005f; /* tends to 1 */
    const PEAK_TYPE zero = {0};
    const PEAK_TYPE m = zero + factor, b = zero + addend;
    PEAK_TYPE a0 = zero, a1 = m, a2 = b, a3 = m + b, a4 = m - b, a5 = b - m;
    PEAK_TYPE a6 = m + m, a7 = b + b, a8 = m * m, a9 = b * b, a10 = m * b, a11 = -b;
    for (long i = 0; i < rounds; i++) {
        a0 = a0 * m + b;
        a1 = a1 * m + b;
        a2 = a2 * m + b;
        a3 = a3 * m + b;
        a4 = a4 * m + b;
        a5 = a5 * m + b;
        a6 = a6 * m + b;
        a7 = a7 * m + b;
        a8 = a8 * m + b;
        a9 = a9 * m + b;
        a10 = a10 * m + b;
        a11 = a11 * m + b;
    }
    PEAK_TYPE sum = ((a0 + a1) + (a2 + a3)) + ((a4 + a5) + (a6 + a7)) + ((a8 + a9) + (a10 + a11));
    volatile float used = 0;
    for (size_t i = 0; i < sizeof sum / sizeof(float); i++) {
        used = used + ((const float *)&sum)[i];
    }
    return 2.0 * 12.0 * (double)(sizeof sum / sizeof(float)) * (double)rounds;
}
#undef PEAK_NAME
#undef PEAK_TYPE
#undef PEAK_TARGET
