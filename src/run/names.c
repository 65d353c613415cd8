/* SPDX-License-Identifier: MIT */
/* From names to values.  A value in a turn of a loop, "<node>/<turn>/<value>",
   has no number in the network; it gets one when somebody wants to look at it. */
#include <string.h>

#include "run/run.h"

/* The number of a value in a loop: `name` up to `prefix`, and the value's own name. */
static int32_t find_inner(const gc_run *run, const char *name, size_t prefix, const char *value)
{
    for (int32_t k = 0; k < run->n_inner; k++) {
        if (strncmp(run->inner[k], name, prefix) == 0 && strcmp(run->inner[k] + prefix, value) == 0) {
            return run->net->n_values + k;
        }
    }
    return -1;
}

gc_status gc_run_find_value(const gc_run *run, const char *name, int32_t *out, gc_error *err)
{
    size_t prefix = 0;
    if (name == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "the name of a value is NULL");
    }
    *out = gc_net_find_any(run->net, name);
    const char *value = *out < 0 ? gc_net_find_inner(run->net, name, &prefix) : NULL;
    if (value != NULL) {
        *out = find_inner(run, name, prefix, value);
    }
    if (*out < 0 && value != NULL) {
        return gc_fail(err, GRADCAM_E_STATE, "value \"%s\" in a loop was not kept; call gc_run_watch first", name);
    }
    if (*out < 0) {
        return gc_fail(err, GRADCAM_E_NOT_FOUND,
                       "the network has no value or node \"%s\"; gc_net_node_output and "
                       "gradcam info list them",
                       name);
    }
    return GRADCAM_OK;
}

static bool grow(gc_run *run)
{
    if (run->n_inner < run->cap_inner) {
        return true;
    }
    int32_t capacity = run->cap_inner * 2 + 8;
    size_t values = (size_t)run->net->n_values;
    char **names = gc_mem_alloc(run->ctx, (size_t)capacity, sizeof *names);
    uint32_t *watch = gc_mem_alloc(run->ctx, values + (size_t)capacity + 1, sizeof *watch);
    if (names == NULL || watch == NULL) {
        gc_mem_free(run->ctx, names);
        gc_mem_free(run->ctx, watch);
        return false;
    }
    memcpy(watch, run->watch, (values + (size_t)run->n_inner) * sizeof *watch);
    if (run->n_inner > 0) {
        memcpy(names, run->inner, (size_t)run->n_inner * sizeof *names);
    }
    gc_mem_free(run->ctx, run->inner);
    gc_mem_free(run->ctx, run->watch);
    run->inner = names;
    run->watch = watch;
    run->cap_inner = capacity;
    return true;
}

static char *join(gc_run *run, const char *name, size_t prefix, const char *value)
{
    size_t length = strlen(value);
    char *s = gc_mem_alloc(run->ctx, prefix + length + 1, 1);
    if (s != NULL) {
        memcpy(s, name, prefix);
        memcpy(s + prefix, value, length);
    }
    return s;
}

gc_status gc_run_enter_value(gc_run *run, const char *name, int32_t *out, gc_error *err)
{
    size_t prefix = 0;
    bool known = name == NULL || gc_net_find_any(run->net, name) >= 0;
    const char *value = known ? NULL : gc_net_find_inner(run->net, name, &prefix);
    if (value == NULL || find_inner(run, name, prefix, value) >= 0) {
        return gc_run_find_value(run, name, out, err);
    }
    char *whole = join(run, name, prefix, value);
    if (whole == NULL || !grow(run)) {
        gc_mem_free(run->ctx, whole);
        return GC_NOMEM(err);
    }
    run->inner[run->n_inner] = whole;
    *out = run->net->n_values + run->n_inner++;
    return GRADCAM_OK;
}

const char *gc_run_value_name(const gc_run *run, int32_t value)
{
    return value < run->net->n_values ? run->net->values[value].name : run->inner[value - run->net->n_values];
}

void gc_run_free_names(gc_run *run)
{
    for (int32_t k = 0; k < run->n_inner; k++) {
        gc_mem_free(run->ctx, run->inner[k]);
    }
    gc_mem_free(run->ctx, run->inner);
    gc_mem_free(run->ctx, run->watch);
}
