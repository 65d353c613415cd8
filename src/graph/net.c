/* SPDX-License-Identifier: MIT */
/* Storage of the network: values by name, nodes, references. */
#include "graph/net.h"

#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "base/source.h"
#include "graph/packs.h"

gc_status gc_net_new(gc_ctx *ctx, int32_t opset, gc_net **out, gc_error *err)
{
    gc_net *net = gc_mem_alloc(ctx, 1, sizeof *net);
    if (net == NULL) {
        return GC_NOMEM(err);
    }
    net->ctx = gc_ctx_ref(ctx);
    net->opset = opset;
    net->max_nodes = GC_DEFAULT_MAX_NODES;
    net->max_bytes = GC_DEFAULT_MAX_BYTES;
    net->max_run_bytes = GC_DEFAULT_MAX_RUN_BYTES;
    net->refs = 1;
    *out = net;
    return GRADCAM_OK;
}

/* Grows an array of `count` elements so that one more fits. */
static bool grow(gc_ctx *ctx, void **array, int32_t count, int32_t *capacity, size_t size)
{
    if (count < *capacity) {
        return true;
    }
    if (count > INT32_MAX / 4) {
        return false;
    }
    int32_t wanted = count < 8 ? 16 : count * 2;
    void *bigger = gc_mem_alloc(ctx, (size_t)wanted, size);
    if (bigger == NULL) {
        return false;
    }
    if (count > 0) {
        memcpy(bigger, *array, (size_t)count * size);
    }
    gc_mem_free(ctx, *array);
    *array = bigger;
    *capacity = wanted;
    return true;
}

/* FNV-1a. */
static size_t hash(const char *name)
{
    uint64_t h = 14695981039346656037u;
    for (; *name != '\0'; name++) {
        h = (h ^ (unsigned char)*name) * 1099511628211u;
    }
    return (size_t)(h ^ h >> 32);
}

static gc_name_slot *find_slot(gc_name_slot *table, size_t size, const char *name)
{
    size_t i = hash(name) & (size - 1);
    while (table[i].name != NULL && strcmp(table[i].name, name) != 0) {
        i = (i + 1) & (size - 1);
    }
    return &table[i];
}

static bool grow_table(gc_net *net)
{
    if ((size_t)net->n_values * 2 < net->table_size) {
        return true;
    }
    size_t size = net->table_size == 0 ? 64 : net->table_size * 2;
    gc_name_slot *table = gc_mem_alloc(net->ctx, size, sizeof *table);
    if (table == NULL) {
        return false;
    }
    for (int32_t i = 0; i < net->n_values; i++) {
        gc_name_slot *slot = find_slot(table, size, net->values[i].name);
        slot->name = net->values[i].name;
        slot->id = i;
    }
    gc_mem_free(net->ctx, net->table);
    net->table = table;
    net->table_size = size;
    return true;
}

int32_t gc_net_find_value(const gc_net *net, const char *name)
{
    if (net->table_size == 0 || name == NULL) {
        return -1;
    }
    const gc_name_slot *slot = find_slot(net->table, net->table_size, name);
    return slot->name != NULL ? slot->id : -1;
}

int32_t gc_net_find_node_value(const gc_net *net, const char *name)
{
    for (int32_t i = 0; i < net->n_nodes; i++) {
        if (strcmp(net->nodes[i].name, name) == 0 && net->nodes[i].n_out > 0) {
            return net->nodes[i].out[0];
        }
    }
    return -1;
}

int32_t gc_net_find_any(const gc_net *net, const char *name)
{
    int32_t id = gc_net_find_value(net, name);
    return id >= 0 ? id : gc_net_find_node_value(net, name);
}

/* What follows "<node>/<turn>/", or NULL. */
static const char *after_turn(const gc_node *n, const char *name)
{
    size_t length = strlen(n->name), digits;
    if (n->body == NULL || strncmp(name, n->name, length) != 0 || name[length] != '/') {
        return NULL;
    }
    digits = strspn(name + length + 1, "0123456789");
    name += length + 1 + digits;
    return digits > 0 && name[0] == '/' ? name + 1 : NULL;
}

const char *gc_net_find_inner(const gc_net *net, const char *name, size_t *prefix)
{
    for (int32_t i = 0; i < net->n_nodes; i++) {
        const gc_net *body = net->nodes[i].body;
        const char *rest = after_turn(&net->nodes[i], name);
        int32_t id = rest == NULL ? -1 : gc_net_find_any(body, rest);
        size_t deeper = 0;
        const char *found = id >= 0        ? body->values[id].name
                            : rest != NULL ? gc_net_find_inner(body, rest, &deeper)
                                           : NULL;
        if (found != NULL) {
            *prefix = (size_t)(rest - name) + deeper;
            return found;
        }
    }
    return NULL;
}

int32_t gc_net_value(gc_net *net, const char *name)
{
    if (!grow_table(net) ||
        !grow(net->ctx, (void **)&net->values, net->n_values, &net->cap_values, sizeof *net->values)) {
        return -1;
    }
    gc_name_slot *slot = find_slot(net->table, net->table_size, name);
    if (slot->name != NULL) {
        return slot->id;
    }
    gc_value *v = &net->values[net->n_values];
    memset(v, 0, sizeof *v);
    v->name = gc_mem_strdup(net->ctx, name, strlen(name));
    if (v->name == NULL) {
        return -1;
    }
    v->producer = -1;
    v->ndim = -1;
    slot->name = v->name;
    slot->id = net->n_values;
    return net->n_values++;
}

/* A value that nothing gives a meaning yet. */
static gc_status fresh_value(gc_net *net, const char *name, int32_t *id, gc_error *err)
{
    if (name == NULL || name[0] == '\0') {
        return gc_fail(err, GRADCAM_E_INVALID, "a value needs a name");
    }
    *id = gc_net_value(net, name);
    if (*id < 0) {
        return GC_NOMEM(err);
    }
    const gc_value *v = &net->values[*id];
    if (v->weight != NULL || v->is_input || v->producer >= 0) {
        return gc_fail(err, GRADCAM_E_FORMAT, "value \"%s\" is defined twice; names must be unique", name);
    }
    return GRADCAM_OK;
}

gc_status gc_net_add_input(gc_net *net, const char *name, gc_dtype dtype, int32_t ndim, const int64_t *shape,
                           gc_error *err)
{
    int32_t id = -1;
    if (ndim > GRADCAM_MAX_DIMS) {
        return gc_fail(err, GRADCAM_E_SHAPE, "input \"%s\" has %d dimensions, at most %d", name, (int)ndim,
                       GRADCAM_MAX_DIMS);
    }
    GC_TRY(fresh_value(net, name, &id, err));
    if (!grow(net->ctx, (void **)&net->inputs, net->n_inputs, &net->cap_inputs, sizeof *net->inputs)) {
        return GC_NOMEM(err);
    }
    gc_value *v = &net->values[id];
    v->is_input = 1;
    v->dtype = dtype;
    v->ndim = ndim;
    for (int32_t i = 0; i < ndim; i++) {
        v->shape[i] = shape[i];
    }
    net->inputs[net->n_inputs++] = id;
    return GRADCAM_OK;
}

gc_status gc_net_add_weight(gc_net *net, const char *name, gc_tensor *t, gc_error *err)
{
    int32_t id = -1;
    GC_TRY(fresh_value(net, name, &id, err));
    net->values[id].weight = gc_tensor_ref(t);
    return GRADCAM_OK;
}

gc_status gc_net_add_output(gc_net *net, const char *name, gc_error *err)
{
    if (name == NULL || name[0] == '\0') {
        return gc_fail(err, GRADCAM_E_INVALID, "an output needs a name");
    }
    int32_t id = gc_net_value(net, name);
    if (id < 0 || !grow(net->ctx, (void **)&net->outputs, net->n_outputs, &net->cap_outputs, sizeof *net->outputs)) {
        return GC_NOMEM(err);
    }
    net->outputs[net->n_outputs++] = id;
    return GRADCAM_OK;
}

/* Copies what an attribute points to. */
static bool copy_attr(gc_ctx *ctx, const gc_attr_value *src, gc_attr_value *dst)
{
    *dst = *src;
    dst->tensor = NULL;
    dst->name = gc_mem_strdup(ctx, src->name, strlen(src->name));
    dst->ints = NULL;
    dst->floats = NULL;
    dst->string = NULL;
    bool ok = dst->name != NULL;
    if (src->kind == GRADCAM_ATTR_STRING || src->kind == GRADCAM_ATTR_STRINGS) {
        ok = (dst->string = gc_mem_strdup(ctx, src->string, src->count)) != NULL && ok;
    } else if (src->kind == GRADCAM_ATTR_INTS) {
        int64_t *ints = gc_mem_alloc(ctx, src->count + 1, sizeof *ints);
        if (ints != NULL && src->count > 0) {
            memcpy(ints, src->ints, src->count * sizeof *ints);
        }
        ok = (dst->ints = ints) != NULL && ok;
    } else if (src->kind == GRADCAM_ATTR_FLOATS) {
        float *floats = gc_mem_alloc(ctx, src->count + 1, sizeof *floats);
        if (floats != NULL && src->count > 0) {
            memcpy(floats, src->floats, src->count * sizeof *floats);
        }
        ok = (dst->floats = floats) != NULL && ok;
    } else if (src->kind == GRADCAM_ATTR_TENSOR) {
        dst->tensor = gc_tensor_ref(src->tensor);
    }
    return ok;
}

static void free_attr(gc_ctx *ctx, gc_attr_value *a)
{
    gc_mem_free(ctx, (void *)(uintptr_t)a->name);
    gc_mem_free(ctx, (void *)(uintptr_t)a->string);
    gc_mem_free(ctx, (void *)(uintptr_t)a->ints);
    gc_mem_free(ctx, (void *)(uintptr_t)a->floats);
    gc_tensor_unref(a->tensor);
}

static void free_node(gc_ctx *ctx, gc_node *n)
{
    for (size_t i = 0; i < n->n_attrs; i++) {
        free_attr(ctx, &n->attrs[i]);
    }
    gc_mem_free(ctx, n->attrs);
    gc_mem_free(ctx, n->in);
    gc_mem_free(ctx, n->out);
    gc_mem_free(ctx, n->name);
    gc_mem_free(ctx, n->op_name);
    gc_mem_free(ctx, n->domain);
    gc_net_unref(n->body);
}

static gc_status set_node_inputs(gc_net *net, gc_node *n, const char *const *names, size_t count, gc_error *err)
{
    for (size_t i = 0; i < count; i++) {
        bool absent = names[i] == NULL || names[i][0] == '\0';
        n->in[i] = absent ? -1 : gc_net_value(net, names[i]);
        if (!absent && n->in[i] < 0) {
            return GC_NOMEM(err);
        }
        n->n_in = (int32_t)i + 1;
    }
    while (n->n_in > 0 && n->in[n->n_in - 1] < 0) {
        n->n_in--; /* trailing absent inputs do not count */
    }
    return GRADCAM_OK;
}

static gc_status set_node_outputs(gc_net *net, gc_node *n, const char *const *names, size_t count, gc_error *err)
{
    for (size_t i = 0; i < count; i++) {
        n->out[i] = -1;
        n->n_out = (int32_t)i + 1;
        if (names[i] != NULL && names[i][0] != '\0') {
            int32_t id = -1;
            GC_TRY(fresh_value(net, names[i], &id, err));
            net->values[id].producer = net->n_nodes;
            n->out[i] = id;
        }
    }
    return GRADCAM_OK;
}

static bool set_node_texts(gc_net *net, gc_node *n, const char *domain, const char *op, const char *name)
{
    char made[96];
    if (name == NULL || name[0] == '\0') {
        snprintf(made, sizeof made, "%.60s_%d", op, (int)net->n_nodes);
        name = made;
    }
    n->name = gc_mem_strdup(net->ctx, name, strlen(name));
    n->op_name = gc_mem_strdup(net->ctx, op, strlen(op));
    n->domain = gc_mem_strdup(net->ctx, domain == NULL ? "" : domain, domain == NULL ? 0 : strlen(domain));
    return n->name != NULL && n->op_name != NULL && n->domain != NULL;
}

static gc_status fill_node(gc_net *net, gc_node *n, const char *const *inputs, size_t n_inputs,
                           const char *const *outputs, size_t n_outputs, const gc_attr_value *attrs, size_t n_attrs,
                           gc_error *err)
{
    n->in = gc_mem_alloc(net->ctx, n_inputs + 1, sizeof *n->in);
    n->out = gc_mem_alloc(net->ctx, n_outputs + 1, sizeof *n->out);
    n->attrs = gc_mem_alloc(net->ctx, n_attrs + 1, sizeof *n->attrs);
    if (n->in == NULL || n->out == NULL || n->attrs == NULL) {
        return GC_NOMEM(err);
    }
    for (size_t i = 0; i < n_attrs; i++) {
        n->n_attrs = i + 1;
        if (!copy_attr(net->ctx, &attrs[i], &n->attrs[i])) {
            return GC_NOMEM(err);
        }
    }
    GC_TRY(set_node_inputs(net, n, inputs, n_inputs, err));
    return set_node_outputs(net, n, outputs, n_outputs, err);
}

gc_status gc_net_add_node(gc_net *net, const char *domain, const char *op, const char *name, const char *const *inputs,
                          size_t n_inputs, const char *const *outputs, size_t n_outputs, const gc_attr_value *attrs,
                          size_t n_attrs, gc_error *err)
{
    if (n_inputs > INT32_MAX / 2 || n_outputs > INT32_MAX / 2) {
        return gc_fail(err, GRADCAM_E_LIMIT, "node \"%s\" has too many inputs or outputs", name == NULL ? "" : name);
    }
    if (!grow(net->ctx, (void **)&net->nodes, net->n_nodes, &net->cap_nodes, sizeof *net->nodes)) {
        return GC_NOMEM(err);
    }
    gc_node *n = &net->nodes[net->n_nodes];
    memset(n, 0, sizeof *n);
    gc_status s = set_node_texts(net, n, domain, op, name) ? GRADCAM_OK : GC_NOMEM(err);
    if (s == GRADCAM_OK) {
        s = fill_node(net, n, inputs, n_inputs, outputs, n_outputs, attrs, n_attrs, err);
    }
    /* A node that failed half way is kept, so that the network frees it; the
       network is of no use after an error anyway. */
    net->n_nodes++;
    return s;
}

gc_net *gc_net_ref(gc_net *net)
{
    if (net != NULL) {
        gc_atomic_add(&net->refs, 1);
    }
    return net;
}

void gc_net_unref(gc_net *net)
{
    if (net == NULL || gc_atomic_add(&net->refs, -1) > 0) {
        return;
    }
    gc_ctx *ctx = net->ctx;
    for (int32_t i = 0; i < net->n_nodes; i++) {
        free_node(ctx, &net->nodes[i]);
    }
    for (int32_t i = 0; i < net->n_values; i++) {
        gc_tensor_unref(net->values[i].weight);
        gc_mem_free(ctx, net->values[i].held);
        gc_mem_free(ctx, net->values[i].name);
    }
    gc_mem_free(ctx, net->nodes);
    gc_mem_free(ctx, net->values);
    gc_mem_free(ctx, net->inputs);
    gc_mem_free(ctx, net->outputs);
    gc_mem_free(ctx, net->table);
    gc_packs_free(net);
    gc_source_close(net->source);
    gc_mem_free(ctx, net);
    gc_ctx_unref(ctx);
}
