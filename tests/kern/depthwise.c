/* SPDX-License-Identifier: MIT */
/* One line of a depthwise convolution. */
#include "check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TAPS_Y = 5 };

static double expected(const gc_depthwise *d, const gc_epilogue *epi, int64_t x, int64_t c, double *size)
{
    double sum = 0.0;
    *size = 0.0;
    for (int32_t r = 0; r < d->taps_y; r++) {
        for (int32_t k = 0; k < d->taps_x && d->lines[r] != NULL; k++) {
            double term = (double)d->lines[r][(x * d->stride + k * d->dilation) * d->pixel + c] *
                          (double)d->weights[r * d->weights_line + k * d->weights_step + c];
            sum += term;
            *size += fabs(term);
        }
    }
    return check_finish(epi, sum, c, x * epi->residual_step + c, size);
}

static void choose(const gc_kern *k, gc_depthwise *d)
{
    memset(d, 0, sizeof *d);
    d->channels = check_chance(4) ? k->vl * check_between(4, 9) + check_between(0, k->vl - 1)
                                  : check_between(k->vl, 3 * k->vl + 1);
    d->width = check_chance(3) ? 1 : check_between(1, 13);
    d->pixel = d->channels + check_between(0, 9);
    d->to_pixel = d->channels + check_between(0, 9);
    d->taps_y = (int32_t)check_between(1, TAPS_Y);
    d->taps_x = (int32_t)(check_chance(2) ? 1 + 2 * check_between(1, 3) : check_between(1, 8));
    bool dense = check_chance(2);
    d->stride = dense ? 1 : check_between(1, 3);
    d->dilation = dense ? 1 : check_between(1, 3);
    d->weights_step = d->channels + check_between(0, 9);
    d->weights_line = d->taps_x * d->weights_step + check_between(0, 9);
}

static void one(const gc_kern *k)
{
    const float *lines[TAPS_Y] = {NULL};
    gc_depthwise d;
    gc_epilogue before;
    int wrong = 0;
    choose(k, &d);
    check_case("depthwise %dx%d taps, %d places, %d channels, stride %d, dilation %d", (int)d.taps_y, (int)d.taps_x,
               (int)d.width, (int)d.channels, (int)d.stride, (int)d.dilation);
    for (int32_t r = 0; r < d.taps_y; r++) {
        lines[r] = check_chance(5)
                       ? NULL
                       : check_random_buffer(((d.width - 1) * d.stride + (d.taps_x - 1) * d.dilation) * d.pixel +
                                             d.channels);
    }
    d.lines = lines;
    d.weights = check_random_buffer((d.taps_y - 1) * d.weights_line + (d.taps_x - 1) * d.weights_step + d.channels);
    int64_t floats = (d.width - 1) * d.to_pixel + d.channels;
    d.to = check_marked_buffer(floats);
    /* Kernels of many lines are summed in parts: the residual is the result. */
    bool same = check_chance(4);
    int64_t step = same ? d.to_pixel : d.channels + check_between(0, 9);
    check_epilogue(&d.epi, d.channels, (d.width - 1) * step + d.channels, same ? d.to : NULL);
    d.epi.residual_step = step;
    before = d.epi;
    same = same && d.epi.residual != NULL;
    if (same) {
        float *copy = check_buffer(floats, 1);
        memcpy(copy, d.to, (size_t)floats * sizeof *copy);
        before.residual = copy;
    }
    k->depthwise(&d);
    for (int64_t at = 0; at < floats; at++) {
        int64_t x = at / d.to_pixel, c = at % d.to_pixel;
        if (c >= d.channels) {
            wrong += same ? memcmp(&d.to[at], &before.residual[at], sizeof *d.to) != 0 : !check_is_marked(d.to[at]);
            continue;
        }
        double size, want = expected(&d, &before, x, c, &size);
        wrong += !check_near(d.to[at], want, (double)(d.taps_y * d.taps_x + 2), size);
    }
    check_that(wrong == 0, "wrong numbers");
    check_intact();
}

void check_depthwise(const gc_kern *k)
{
    for (int i = 0; i < check_rounds(800); i++) {
        one(k);
    }
}
