/* SPDX-License-Identifier: MIT */
/* What the unit tests share: the tally, and numbers that look random. */
#ifndef TESTS_UNIT_UNIT_H
#define TESTS_UNIT_UNIT_H

#include <stdint.h>
#include <stdio.h>

typedef struct tally {
    int passed, failed;
} tally;

static inline void expect(tally *t, int ok, const char *what)
{
    if (ok) {
        t->passed++;
    } else {
        t->failed++;
        printf("FAILED: %s\n", what);
    }
}

/* In [-1, 1), the same everywhere. */
static inline float noise(uint32_t i)
{
    i = (i ^ i >> 15) * 0x2c1b3c6du;
    i = (i ^ i >> 12) * 0x297a2d39u;
    return (float)((i ^ i >> 15) & 0xffffu) / 32768.0f - 1.0f;
}

#endif
