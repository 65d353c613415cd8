/* SPDX-License-Identifier: MIT */
#define _DEFAULT_SOURCE
#include "check.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BESIDE = 256, PATTERN = 0xa5, TOLD = 20 };

/* Two pages without access with `room` bytes between them. */
typedef struct slot {
    unsigned char *map, *begin;
    size_t room, bytes;
} slot;

static struct {
    uint64_t random;
    slot slots[CHECK_SLOTS];
    int used;
    bool case_failed;
    int passed, failed;
    char row[32], text[400], fault[600];
    int divide;
} state = {.divide = 1};

void check_few(void)
{
    state.divide = 8;
}

/* ---- random numbers ---- */

void check_seed(uint32_t seed)
{
    state.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

uint32_t check_random(void)
{
    state.random = state.random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    uint64_t x = state.random ^ state.random >> 29;
    return (uint32_t)((x * UINT64_C(0xbf58476d1ce4e5b9)) >> 32);
}

int64_t check_between(int64_t lo, int64_t hi)
{
    return lo + (int64_t)(check_random() % (uint64_t)(hi - lo + 1));
}

bool check_chance(int64_t one_in)
{
    return check_between(1, one_in) == 1;
}

float check_value(void)
{
    return (float)(int32_t)check_random() * (1.0f / 2147483648.0f);
}

int check_rounds(int n)
{
    return n / state.divide > 0 ? n / state.divide : 1;
}

/* ---- buffers ---- */

const float check_mark = -1.2345678e33f;

/* A read or write outside of a buffer ends the run, but not without a word. */
static void on_fault(int number)
{
    (void)number;
    size_t n = (size_t)snprintf(state.fault, sizeof state.fault,
                                "FAILED: %s: %s: access outside of a buffer\n%d passed, %d failed, 0 skipped\n",
                                state.row, state.text, state.passed, state.failed + 1);
    _exit(write(1, state.fault, n) == (ssize_t)n ? 1 : 2);
}

void check_case(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(state.text, sizeof state.text, format, args);
    va_end(args);
    state.used = 0;
    state.case_failed = false;
}

static void make_room(slot *s, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + 2 * BESIDE + page) / page * page;
    if (s->map != NULL && room <= s->room) {
        return;
    }
    if (s->map != NULL) {
        munmap(s->map, s->room + 2 * page);
    }
    s->room = room;
    s->map = mmap(NULL, room + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s->map == MAP_FAILED || mprotect(s->map, page, PROT_NONE) != 0 ||
        mprotect(s->map + page + room, page, PROT_NONE) != 0) {
        fprintf(stderr, "no memory between guard pages\n");
        exit(2);
    }
}

float *check_buffer(int64_t floats, int64_t align)
{
    static bool ready;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = (size_t)floats * sizeof(float);
    if (!ready) {
        signal(SIGSEGV, on_fault);
        signal(SIGBUS, on_fault);
        ready = true;
    }
    if (state.used == CHECK_SLOTS || floats < 0) {
        fprintf(stderr, "the checker wants a wrong buffer\n");
        exit(2);
    }
    slot *s = &state.slots[state.used++];
    make_room(s, bytes);
    s->bytes = bytes;
    s->begin = s->map + page;
    memset(s->begin, PATTERN, BESIDE);
    memset(s->begin + s->room - BESIDE, PATTERN, BESIDE);
    if (check_chance(2)) {
        size_t unit = (size_t)align * sizeof(float);
        s->begin += (s->room - bytes) / unit * unit;
    }
    memset(s->begin, PATTERN, bytes);
    /* what lies on the side without a page */
    size_t before = (size_t)(s->begin - (s->map + page)), after = s->room - bytes - before;
    memset(s->begin - (before < BESIDE ? before : BESIDE), PATTERN, before < BESIDE ? before : BESIDE);
    memset(s->begin + bytes, PATTERN, after < BESIDE ? after : BESIDE);
    return (float *)(void *)s->begin;
}

float *check_random_buffer(int64_t floats)
{
    float *p = check_buffer(floats, 1);
    for (int64_t i = 0; i < floats; i++) {
        p[i] = check_value();
    }
    return p;
}

float *check_marked_buffer(int64_t floats)
{
    float *p = check_buffer(floats, 1);
    for (int64_t i = 0; i < floats; i++) {
        p[i] = check_mark;
    }
    return p;
}

bool check_is_marked(float x)
{
    return memcmp(&x, &check_mark, sizeof x) == 0;
}

void check_intact(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    bool same = true;
    for (int i = 0; i < state.used; i++) {
        const slot *s = &state.slots[i];
        size_t before = (size_t)(s->begin - (s->map + page)), after = s->room - s->bytes - before;
        for (size_t k = 1; k <= before && k <= BESIDE; k++) {
            same = same && s->begin[-(ptrdiff_t)k] == PATTERN;
        }
        for (size_t k = 0; k < after && k < BESIDE; k++) {
            same = same && s->begin[s->bytes + k] == PATTERN;
        }
    }
    check_that(same, "something was written beside a buffer");
}

/* ---- verdicts ---- */

void check_row(const char *row)
{
    snprintf(state.row, sizeof state.row, "%s", row);
}

/* Once for a case. */
void check_fail(const char *format, ...)
{
    va_list args;
    state.failed += !state.case_failed;
    if (!state.case_failed && state.failed <= TOLD) {
        printf("FAILED: %s: %s: ", state.row, state.text);
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        printf("\n");
    }
    state.case_failed = true;
}

void check_that(bool ok, const char *what)
{
    if (!ok) {
        check_fail("%s", what);
    }
    state.passed += ok && !state.case_failed;
}

bool check_near(float got, double want, double n, double size)
{
    const double u = ldexp(1.0, -24);
    if (want != want) {
        return got != got;
    }
    if (isinf(want) || isinf(size)) { /* infinity that the clip may have cut: nothing is rounded */
        return (double)got == want;
    }
    return fabs((double)got - want) <= n * u / (1.0 - n * u) * size + n * ldexp(1.0, -149);
}

/* No slope but that of the exponential function is above 1.5. */
bool check_near_mapped(int kind, float got, double want, double n, double size)
{
    double y = check_function(kind, want), u = ldexp(1.0, -24);
    if (y != y || isinf(want) || isinf(size)) {
        return y != y ? got != got : fabs((double)got - y) <= 4e-7 * fabs(y) || (double)got == y;
    }
    double before = n * u / (1.0 - n * u) * size;
    return fabs((double)got - y) <= 1.5 * before + 4e-7 * (fabs(y) + fabs(want) + before) + ldexp(1.0, -119);
}

int check_end(void)
{
    printf("%d passed, %d failed, 0 skipped\n", state.passed, state.failed);
    return state.failed != 0;
}

/* ---- the epilogue ---- */

/* In some cases NaN or infinity is among the numbers, too. */
static float special(void)
{
    static const float values[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f};
    return values[check_between(0, 4)];
}

void check_epilogue(gc_epilogue *epi, int64_t bias, int64_t residual, float *in_place)
{
    memset(epi, 0, sizeof *epi);
    if (bias > 0 && check_chance(2)) {
        float *p = check_random_buffer(bias);
        if (check_chance(4)) {
            p[check_between(0, bias - 1)] = special();
        }
        epi->bias = p;
    }
    if (residual > 0 && check_chance(2)) {
        float *p = in_place != NULL ? in_place : check_buffer(residual, 1);
        for (int64_t i = 0; i < residual; i++) {
            p[i] = check_chance(50) ? special() : check_value();
        }
        epi->residual = p;
    }
    if (check_chance(2)) {
        epi->flags = GC_EPI_CLIP;
        epi->lo = check_chance(3) ? -INFINITY : check_value() * 0.2f;
        epi->hi = check_chance(3) ? INFINITY : epi->lo > -1.0f ? epi->lo + 0.3f : 0.1f;
    }
}

double check_finish(const gc_epilogue *epi, double sum, int64_t channel, int64_t at, double *size)
{
    double bias = epi->bias != NULL ? (double)epi->bias[channel] : 0.0;
    double residual = epi->residual != NULL ? (double)epi->residual[at] : 0.0;
    *size += fabs(bias) + fabs(residual);
    sum += bias;
    sum += residual;
    if ((epi->flags & GC_EPI_CLIP) != 0) {
        sum = sum < (double)epi->lo ? (double)epi->lo : sum > (double)epi->hi ? (double)epi->hi : sum;
    }
    return sum;
}
