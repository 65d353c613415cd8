/* SPDX-License-Identifier: MIT */
/* Attributes of a node, as ONNX names them. */
#ifndef GC_OPS_ATTR_H
#define GC_OPS_ATTR_H

#include <stddef.h>

#include "gradcam/gradcam.h"

typedef struct gc_attr_value {
    const char *name;
    gc_attr_kind kind; /* GRADCAM_ATTR_* */
    float f;
    int64_t i;
    size_t count; /* of ints, floats or bytes */
    const int64_t *ints;
    const float *floats;
    const char *string; /* NUL-terminated, count bytes; of STRINGS one a line */
    gc_tensor *tensor;
} gc_attr_value;

typedef struct gc_attr_list {
    const gc_attr_value *items;
    size_t count;
} gc_attr_list;

/* NULL when there is no attribute of that name and kind. */
const gc_attr_value *gc_attr_find(const gc_attr_list *list, const char *name, gc_attr_kind kind);
int64_t gc_attr_int(const gc_attr_list *list, const char *name, int64_t fallback);
float gc_attr_float(const gc_attr_list *list, const char *name, float fallback);
/* `fallback` when absent. */
const char *gc_attr_string(const gc_attr_list *list, const char *name, const char *fallback);

#endif
