/* SPDX-License-Identifier: MIT */
/* Building a network by hand. */
#include <string.h>

#include "base/abi.h"
#include "graph/net.h"

struct gc_builder {
    gc_ctx *ctx;
    gc_net *net; /* NULL after gc_builder_finish */
};

gc_status gc_builder_create(gc_ctx *ctx, int32_t opset, gc_builder **out, gc_error *err)
{
    if (ctx == NULL || out == NULL || opset < 6) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_builder_create: an argument is NULL or the opset is below 6");
    }
    gc_builder *b = gc_mem_alloc(ctx, 1, sizeof *b);
    if (b == NULL) {
        return GC_NOMEM(err);
    }
    gc_status s = gc_net_new(ctx, opset, &b->net, err);
    if (s != GRADCAM_OK) {
        gc_mem_free(ctx, b);
        return s;
    }
    b->ctx = gc_ctx_ref(ctx);
    *out = b;
    return GRADCAM_OK;
}

void gc_builder_destroy(gc_builder *b)
{
    if (b == NULL) {
        return;
    }
    gc_ctx *ctx = b->ctx;
    gc_net_unref(b->net);
    gc_mem_free(ctx, b);
    gc_ctx_unref(ctx);
}

static gc_status open_builder(const gc_builder *b, gc_error *err)
{
    if (b == NULL || b->net == NULL) {
        return gc_fail(err, GRADCAM_E_STATE, "the builder is NULL or already finished");
    }
    return GRADCAM_OK;
}

gc_status gc_builder_input(gc_builder *b, const char *name, const gc_tensor_desc *desc, gc_error *err)
{
    gc_tensor_desc d;
    GC_TRY(open_builder(b, err));
    if (desc == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_builder_input: desc is NULL");
    }
    GC_TRY(GC_ABI_IMPORT(desc, &d, err));
    if (gc_dtype_size(d.dtype) == 0) {
        return gc_fail(err, GRADCAM_E_DTYPE, "input \"%s\": unknown element type %d", name == NULL ? "" : name,
                       (int)d.dtype);
    }
    return gc_net_add_input(b->net, name, d.dtype, d.ndim, d.shape, err);
}

/* The engine computes on row-major float32; anything else is converted here. */
static gc_status plain_tensor(gc_ctx *ctx, gc_tensor *t, gc_tensor **out, gc_error *err)
{
    gc_tensor_desc desc;
    if ((t->dtype == GRADCAM_F32 || t->dtype >= GRADCAM_I64) && gc_is_row(t)) {
        *out = gc_tensor_ref(t);
        return GRADCAM_OK;
    }
    gc_tensor_describe(t, &desc);
    desc.dtype = t->dtype <= GRADCAM_BF16 ? GRADCAM_F32 : t->dtype;
    desc.data = NULL;
    gc_tensor *copy = NULL;
    GC_TRY(gc_tensor_create(ctx, &desc, &copy, err));
    gc_tensor_convert(t, copy);
    *out = copy;
    return GRADCAM_OK;
}

gc_status gc_builder_weight(gc_builder *b, const char *name, gc_tensor *t, gc_error *err)
{
    GC_TRY(open_builder(b, err));
    if (t == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_builder_weight: the tensor is NULL");
    }
    gc_tensor *plain = NULL;
    GC_TRY(plain_tensor(b->ctx, t, &plain, err));
    gc_status s = gc_net_add_weight(b->net, name, plain, err);
    gc_tensor_unref(plain);
    return s;
}

static gc_status read_attr(gc_ctx *ctx, const gc_attr *from, gc_attr_value *to, gc_error *err)
{
    memset(to, 0, sizeof *to);
    to->name = from->name;
    to->kind = from->kind;
    to->count = from->count;
    bool single = from->kind == GRADCAM_ATTR_INT || from->kind == GRADCAM_ATTR_FLOAT ||
                  from->kind == GRADCAM_ATTR_TENSOR;
    if (from->name == NULL || (from->data == NULL && (from->count > 0 || single))) {
        return gc_fail(err, GRADCAM_E_INVALID, "attribute \"%s\" has no name or no data",
                       from->name == NULL ? "" : from->name);
    }
    switch (from->kind) {
    case GRADCAM_ATTR_INT: to->i = *(const int64_t *)from->data; break;
    case GRADCAM_ATTR_FLOAT: to->f = *(const float *)from->data; break;
    case GRADCAM_ATTR_STRINGS:
    case GRADCAM_ATTR_STRING: to->string = from->data; break;
    case GRADCAM_ATTR_INTS: to->ints = from->data; break;
    case GRADCAM_ATTR_FLOATS: to->floats = from->data; break;
    case GRADCAM_ATTR_TENSOR: return plain_tensor(ctx, (gc_tensor *)(uintptr_t)from->data, &to->tensor, err);
    default: return gc_fail(err, GRADCAM_E_INVALID, "attribute \"%s\" has an unknown kind", from->name);
    }
    return GRADCAM_OK;
}

gc_status gc_builder_node(gc_builder *b, const char *op, const char *name, const char *const *inputs, size_t n_inputs,
                          const char *const *outputs, size_t n_outputs, const gc_attr *attrs, size_t n_attrs,
                          gc_error *err)
{
    GC_TRY(open_builder(b, err));
    if (op == NULL || outputs == NULL || n_outputs == 0 || (inputs == NULL && n_inputs > 0)) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_builder_node: operator, inputs or outputs are missing");
    }
    gc_attr_value *values = gc_mem_alloc(b->ctx, n_attrs + 1, sizeof *values);
    if (values == NULL) {
        return GC_NOMEM(err);
    }
    gc_status s = GRADCAM_OK;
    for (size_t i = 0; i < n_attrs && s == GRADCAM_OK; i++) {
        s = read_attr(b->ctx, &attrs[i], &values[i], err);
    }
    if (s == GRADCAM_OK) {
        s = gc_net_add_node(b->net, "", op, name, inputs, n_inputs, outputs, n_outputs, values, n_attrs, err);
    }
    for (size_t i = 0; i < n_attrs; i++) {
        gc_tensor_unref(values[i].tensor);
    }
    gc_mem_free(b->ctx, values);
    return s;
}

gc_status gc_builder_output(gc_builder *b, const char *name, gc_error *err)
{
    GC_TRY(open_builder(b, err));
    return gc_net_add_output(b->net, name, err);
}

gc_status gc_builder_finish(gc_builder *b, gc_net **out, gc_error *err)
{
    GC_TRY(open_builder(b, err));
    if (out == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_builder_finish: out is NULL");
    }
    GC_TRY(gc_net_finish(b->net, err));
    *out = b->net;
    b->net = NULL;
    return GRADCAM_OK;
}
