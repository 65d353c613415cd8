/* SPDX-License-Identifier: MIT */
/* Resize along one axis: where an output lies in the input, and with which
   weights it sums its neighbours. */
#ifndef GC_OPS_RESIZE_MAP_H
#define GC_OPS_RESIZE_MAP_H

#include "kern/resample.h"
#include "ops/op.h"

typedef enum gc_resize_mode { GC_RESIZE_NEAREST, GC_RESIZE_LINEAR, GC_RESIZE_CUBIC } gc_resize_mode;

/* In the order of their names in resize.c. */
typedef enum gc_resize_grid {
    GC_GRID_HALF_PIXEL,
    GC_GRID_PYTORCH_HALF_PIXEL,
    GC_GRID_ALIGN_CORNERS,
    GC_GRID_ASYMMETRIC,
    GC_GRID_HALF_PIXEL_SYMMETRIC,
    GC_GRID_TF_CROP_AND_RESIZE,
    GC_GRID_TF_HALF_PIXEL_FOR_NN
} gc_resize_grid;

typedef enum gc_resize_round {
    GC_ROUND_PREFER_FLOOR,
    GC_ROUND_PREFER_CEIL,
    GC_ROUND_FLOOR,
    GC_ROUND_CEIL,
    GC_ROUND_OPSET_10 /* floor, but ceil when the axis shrinks */
} gc_resize_round;

typedef struct gc_resize_axis {
    double num, den; /* scale = num / den, kept apart so that sizes stay exact */
    double roi_begin, roi_end;
    int64_t in, out;
    int64_t taps;   /* at most so many for one output */
    int64_t first;  /* the first tap, counted from floor(position) */
    double stretch; /* antialias: the filter is wider by 1 / stretch */
    bool same;      /* the axis is copied */
} gc_resize_axis;

typedef struct gc_resize_rule {
    gc_resize_mode mode;
    gc_resize_grid grid;
    gc_resize_round round;
    bool exclude_outside;
    bool antialias;
    double cubic_a;
} gc_resize_rule;

/* Fills taps, first, stretch and same from in, out, num and den (all above 0). */
void gc_resize_prepare(const gc_resize_rule *rule, gc_resize_axis *axis);
/* The matrix of the axis; m has room for out + 1 starts and out * taps taps. */
void gc_resize_matrix(const gc_resize_rule *rule, const gc_resize_axis *axis, gc_resample *m);
/* True when output o lies outside the input and becomes extrapolation_value. */
bool gc_resize_outside(const gc_resize_rule *rule, const gc_resize_axis *axis, int64_t o);

#endif
