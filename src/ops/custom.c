/* SPDX-License-Identifier: MIT */
#include "ops/custom.h"

#include <string.h>

#include "base/abi.h"

const gc_custom_op *gc_custom_find(const gc_ctx *ctx, const char *domain, const char *op)
{
    const gc_custom_op *c = ctx->custom;
    while (c != NULL && (strcmp(c->def.op, op) != 0 || strcmp(c->def.domain, domain) != 0)) {
        c = c->next;
    }
    return c;
}

/* A host's own code travels through; success must be 0, errors negative. */
static gc_status checked(gc_op_call *c, gc_status status, const char *what)
{
    if (status > 0) {
        return gc_op_fail(c, GRADCAM_E_CALLBACK, "%s returned %d; it must return 0 or a negative status", what,
                          (int)status);
    }
    if (status < 0 && c->err != NULL && c->err->status != status) {
        gc_op_fail(c, status, "%s of the host's operator failed", what);
    }
    return status;
}

static void clear(gc_op_call *c)
{
    if (c->err != NULL) {
        c->err->status = GRADCAM_OK;
    }
}

static gc_status custom_infer(gc_op_call *c)
{
    clear(c);
    GC_TRY(checked(c, c->custom->infer(c->custom->user, c), "infer"));
    for (int32_t i = 0; i < c->n_out; i++) {
        if (c->out[i] != NULL && c->out[i]->dtype == 0) {
            return gc_op_fail(c, GRADCAM_E_CALLBACK, "infer did not declare output %d", (int)i);
        }
    }
    return GRADCAM_OK;
}

static gc_status custom_forward(gc_op_call *c)
{
    clear(c);
    return checked(c, c->custom->forward(c->custom->user, c), "forward");
}

static gc_status custom_backward(gc_op_call *c)
{
    clear(c);
    return checked(c, c->custom->backward(c->custom->user, c), "backward");
}

static void release_op(gc_ctx *ctx, gc_custom_op *c)
{
    gc_mem_free(ctx, (void *)(uintptr_t)c->def.domain);
    gc_mem_free(ctx, (void *)(uintptr_t)c->def.op);
    gc_mem_free(ctx, c);
}

static void release_all(gc_ctx *ctx)
{
    for (gc_custom_op *c = ctx->custom, *next; c != NULL; c = next) {
        next = c->next;
        if (c->def.destroy != NULL) {
            c->def.destroy(c->def.user);
        }
        release_op(ctx, c);
    }
}

static void make_row(gc_custom_op *c)
{
    bool stops = (c->def.flags & GRADCAM_OP_STOPS) != 0;
    c->row.name = c->def.op;
    c->row.infer = custom_infer;
    c->row.forward = custom_forward;
    c->row.backward = c->def.backward == NULL ? NULL : custom_backward;
    c->row.flags = (stops ? (uint32_t)GC_OP_STOPS : 0u) |
                   ((c->def.flags & GRADCAM_OP_ACTIVATION) != 0 ? (uint32_t)GC_OP_ACTIVATION : 0u);
    c->row.keep_in = c->row.keep_out = UINT32_MAX;
    c->row.max_in = c->row.max_out = -1;
}

gc_status gc_ctx_register_op(gc_ctx *ctx, const gc_op_def *def, gc_error *err)
{
    gc_op_def d;
    if (ctx == NULL || def == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_ctx_register_op: an argument is NULL");
    }
    GC_TRY(GC_ABI_IMPORT(def, &d, err));
    if (d.op == NULL || d.op[0] == '\0' || d.infer == NULL || d.forward == NULL || d.flags > 3) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_op_def: op, infer and forward must be given, flags be known");
    }
    gc_custom_op *c = gc_mem_alloc(ctx, 1, sizeof *c);
    if (c == NULL) {
        return GC_NOMEM(err);
    }
    c->def = d;
    c->def.op = gc_mem_strdup(ctx, d.op, strlen(d.op));
    c->def.domain = gc_mem_strdup(ctx, d.domain == NULL ? "" : d.domain, d.domain == NULL ? 0 : strlen(d.domain));
    if (c->def.op == NULL || c->def.domain == NULL) {
        release_op(ctx, c);
        return GC_NOMEM(err);
    }
    make_row(c);
    c->next = ctx->custom;
    ctx->custom = c;
    ctx->custom_release = release_all;
    return GRADCAM_OK;
}

/* ---- accessors ---- */

int32_t gc_op_input_count(const gc_op_call *c)
{
    return c->n_in;
}

int32_t gc_op_output_count(const gc_op_call *c)
{
    return c->n_out;
}

const gc_tensor *gc_op_input(const gc_op_call *c, int32_t i)
{
    return i < 0 || i >= c->n_in ? NULL : c->in[i];
}

gc_tensor *gc_op_output(const gc_op_call *c, int32_t i)
{
    return i < 0 || i >= c->n_out ? NULL : c->out[i];
}

const gc_tensor *gc_op_grad_output(const gc_op_call *c, int32_t i)
{
    return i < 0 || i >= c->n_out ? NULL : c->grad_out[i];
}

gc_tensor *gc_op_grad_input(const gc_op_call *c, int32_t i)
{
    return i < 0 || i >= c->n_in ? NULL : c->grad_in[i];
}

gc_status gc_op_declare_output(gc_op_call *c, int32_t i, gc_dtype dtype, int32_t ndim, const int64_t *shape)
{
    bool known = dtype == GRADCAM_F32 || (dtype >= GRADCAM_I64 && dtype <= GRADCAM_BOOL);
    if (i < 0 || !known || (shape == NULL && ndim > 0)) {
        return gc_op_fail(c, GRADCAM_E_INVALID, "gc_op_declare_output: output %d, type %d", (int)i, (int)dtype);
    }
    return gc_op_set_output(c, i, dtype, ndim, shape);
}

gc_status gc_op_attr(const gc_op_call *c, const char *name, gc_attr *attr)
{
    for (size_t i = 0; name != NULL && attr != NULL && i < c->attrs.count; i++) {
        const gc_attr_value *a = &c->attrs.items[i];
        if (strcmp(a->name, name) == 0) {
            memset(attr, 0, sizeof *attr);
            attr->name = a->name;
            attr->kind = a->kind;
            attr->count = a->kind == GRADCAM_ATTR_INT || a->kind == GRADCAM_ATTR_FLOAT || a->tensor != NULL ? 1
                                                                                                            : a->count;
            attr->data = a->kind == GRADCAM_ATTR_INT      ? (const void *)&a->i
                         : a->kind == GRADCAM_ATTR_FLOAT  ? (const void *)&a->f
                         : a->kind == GRADCAM_ATTR_INTS   ? (const void *)a->ints
                         : a->kind == GRADCAM_ATTR_FLOATS ? (const void *)a->floats
                         : a->kind == GRADCAM_ATTR_TENSOR ? (const void *)a->tensor
                                                          : (const void *)a->string;
            return GRADCAM_OK;
        }
    }
    return GRADCAM_E_NOT_FOUND;
}

gc_status gc_op_error(gc_op_call *c, gc_status status, const char *message)
{
    return gc_op_fail(c, status < 0 ? status : GRADCAM_E_CALLBACK, "%s", message == NULL ? "" : message);
}
