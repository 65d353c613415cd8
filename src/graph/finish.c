/* SPDX-License-Identifier: MIT */
/* Checks a network and brings its nodes into topological order. */
#include <stdio.h>
#include <string.h>

#include "graph/net.h"
#include "ops/custom.h"

static bool onnx_domain(const char *domain)
{
    return domain[0] == '\0' || strcmp(domain, "ai.onnx") == 0;
}

/* Appends "Op (node "x", domain "d")" while it fits. */
static void append_unknown(char *list, size_t size, const gc_node *n)
{
    size_t used = strlen(list);
    snprintf(list + used, size - used, "%s%.60s%s%.60s (node \"%.80s\")", used == 0 ? "" : ", ",
             onnx_domain(n->domain) ? "" : n->domain, onnx_domain(n->domain) ? "" : "::", n->op_name, n->name);
}

static gc_status resolve_operators(gc_net *net, gc_error *err)
{
    char list[400] = "";
    int32_t unknown = 0;
    for (int32_t i = 0; i < net->n_nodes; i++) {
        gc_node *n = &net->nodes[i];
        const gc_custom_op *custom = gc_custom_find(net->ctx, onnx_domain(n->domain) ? "" : n->domain, n->op_name);
        n->custom = custom == NULL ? NULL : &custom->def;
        n->op = custom != NULL ? &custom->row : onnx_domain(n->domain) ? gc_op_find(n->op_name) : NULL;
        if (n->op == NULL) {
            append_unknown(list, sizeof list, n);
            unknown++;
        }
    }
    if (unknown > 0) {
        return gc_fail(err, GRADCAM_E_UNSUPPORTED, "%d unsupported operator%s (gc_ctx_register_op adds one): %s",
                       (int)unknown, unknown == 1 ? "" : "s", list);
    }
    return GRADCAM_OK;
}

static gc_status check_arity(const gc_node *n, gc_error *err)
{
    const gc_op *op = n->op;
    if (n->n_in < op->min_in || (op->max_in >= 0 && n->n_in > op->max_in)) {
        return gc_fail(err, GRADCAM_E_FORMAT, "%s (node \"%s\"): %d inputs, expected %d to %d", n->op_name, n->name,
                       (int)n->n_in, (int)op->min_in, (int)op->max_in);
    }
    if (n->n_out < 1 || (op->max_out >= 0 && n->n_out > op->max_out)) {
        return gc_fail(err, GRADCAM_E_FORMAT, "%s (node \"%s\"): %d outputs, expected 1 to %d", n->op_name, n->name,
                       (int)n->n_out, (int)op->max_out);
    }
    return GRADCAM_OK;
}

static gc_status check_values(const gc_net *net, gc_error *err)
{
    for (int32_t i = 0; i < net->n_values; i++) {
        const gc_value *v = &net->values[i];
        if (v->producer < 0 && v->weight == NULL && !v->is_input) {
            return gc_fail(err, GRADCAM_E_FORMAT, "value \"%s\" is used but nothing produces it", v->name);
        }
    }
    if (net->n_outputs == 0) {
        return gc_fail(err, GRADCAM_E_FORMAT, "the network has no output");
    }
    for (int32_t i = 0; i < net->n_nodes; i++) {
        GC_TRY(check_arity(&net->nodes[i], err));
    }
    return GRADCAM_OK;
}

typedef struct sorter {
    int32_t *waiting;  /* per node: inputs whose producer is not placed */
    int32_t *first;    /* per node: head of its list of consumers */
    int32_t *next;     /* per edge */
    int32_t *consumer; /* per edge */
    int32_t *order;
} sorter;

static gc_status sorter_init(gc_net *net, sorter *s, gc_error *err)
{
    size_t edges = 1, nodes = (size_t)net->n_nodes + 1;
    for (int32_t i = 0; i < net->n_nodes; i++) {
        edges += (size_t)net->nodes[i].n_in;
    }
    s->waiting = gc_mem_alloc(net->ctx, nodes, sizeof(int32_t));
    s->first = gc_mem_alloc(net->ctx, nodes, sizeof(int32_t));
    s->order = gc_mem_alloc(net->ctx, nodes, sizeof(int32_t));
    s->next = gc_mem_alloc(net->ctx, edges, sizeof(int32_t));
    s->consumer = gc_mem_alloc(net->ctx, edges, sizeof(int32_t));
    if (!s->waiting || !s->first || !s->order || !s->next || !s->consumer) {
        return GC_NOMEM(err);
    }
    memset(s->first, 0xff, nodes * sizeof(int32_t));
    return GRADCAM_OK;
}

static void sorter_free(gc_ctx *ctx, sorter *s)
{
    gc_mem_free(ctx, s->waiting);
    gc_mem_free(ctx, s->first);
    gc_mem_free(ctx, s->order);
    gc_mem_free(ctx, s->next);
    gc_mem_free(ctx, s->consumer);
}

static void sorter_link(const gc_net *net, sorter *s)
{
    int32_t edge = 0;
    for (int32_t i = net->n_nodes - 1; i >= 0; i--) {
        const gc_node *n = &net->nodes[i];
        for (int32_t k = 0; k < n->n_in; k++) {
            int32_t producer = n->in[k] < 0 ? -1 : net->values[n->in[k]].producer;
            if (producer >= 0) {
                s->waiting[i]++;
                s->consumer[edge] = i;
                s->next[edge] = s->first[producer];
                s->first[producer] = edge++;
            }
        }
    }
}

/* Kahn's algorithm, in file order among the ready; the number of nodes placed. */
static int32_t sorter_run(const gc_net *net, sorter *s)
{
    int32_t placed = 0, read = 0;
    for (int32_t i = 0; i < net->n_nodes; i++) {
        if (s->waiting[i] == 0) {
            s->order[placed++] = i;
        }
    }
    while (read < placed) {
        for (int32_t e = s->first[s->order[read++]]; e >= 0; e = s->next[e]) {
            if (--s->waiting[s->consumer[e]] == 0) {
                s->order[placed++] = s->consumer[e];
            }
        }
    }
    return placed;
}

static gc_status reorder(gc_net *net, const int32_t *order, gc_error *err)
{
    gc_node *sorted = gc_mem_alloc(net->ctx, (size_t)net->cap_nodes + 1, sizeof *sorted);
    if (sorted == NULL) {
        return GC_NOMEM(err);
    }
    for (int32_t i = 0; i < net->n_nodes; i++) {
        sorted[i] = net->nodes[order[i]];
        for (int32_t k = 0; k < sorted[i].n_out; k++) {
            if (sorted[i].out[k] >= 0) {
                net->values[sorted[i].out[k]].producer = i;
            }
        }
    }
    gc_mem_free(net->ctx, net->nodes);
    net->nodes = sorted;
    return GRADCAM_OK;
}

gc_status gc_net_finish(gc_net *net, gc_error *err)
{
    sorter s;
    memset(&s, 0, sizeof s);
    GC_TRY(resolve_operators(net, err));
    GC_TRY(check_values(net, err));
    gc_status status = sorter_init(net, &s, err);
    if (status == GRADCAM_OK) {
        sorter_link(net, &s);
        status = sorter_run(net, &s) == net->n_nodes
                     ? reorder(net, s.order, err)
                     : gc_fail(err, GRADCAM_E_FORMAT, "the network has a cycle; it must be a directed acyclic graph");
    }
    sorter_free(net->ctx, &s);
    return status;
}
