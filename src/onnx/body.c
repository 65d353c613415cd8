/* SPDX-License-Identifier: MIT */
/* Graphs inside nodes; Loop and Scan.
 *
 * The body of a loop becomes a network of its own whose inputs are its formals
 * and, after them, whatever it takes from the graphs around it.  Those names
 * end the list of the node's inputs, so that nothing reaches a body unseen. */
#include <string.h>

#include "onnx/import.h"

enum { MAX_GRAPH_DEPTH = 16 };

gc_status gc_import_descend(gc_import *im, const gc_pb_node *node)
{
    if (im->graph_depth >= MAX_GRAPH_DEPTH) {
        return gc_import_fail(im, node->at, GRADCAM_E_LIMIT, "%.80s (node '%.150s'): graphs are nested deeper than %d",
                              node->op, node->name, MAX_GRAPH_DEPTH);
    }
    im->graph_depth++;
    return GRADCAM_OK;
}

/* ---- reading ---- */

static gc_status one_name(gc_import *im, const gc_field *f, uint32_t number, const char **out)
{
    const char **names;
    size_t count;
    GC_TRY(gc_import_strings(im, gc_wire_make(f->p, f->n), number, "a name in a graph inside a node", &names, &count));
    if (count != 1 || names[0][0] == '\0') {
        return gc_import_fail(im, f->at, GRADCAM_E_FORMAT,
                              "an initializer, input or output of a graph inside a node has no name");
    }
    *out = names[0];
    return GRADCAM_OK;
}

static gc_status read_weight(gc_import *im, const gc_field *f, const char *name, bool weight, gc_tensor **out)
{
    gc_tensor_link *link = gc_arena_alloc(&im->arena, 1, sizeof *link);
    if (link == NULL) {
        return gc_import_nomem(im);
    }
    GC_TRY(gc_import_tensor(im, f, name, weight, &link->tensor));
    link->next = im->tensors;
    im->tensors = link;
    *out = link->tensor;
    return GRADCAM_OK;
}

static bool sub_message(gc_wire w, uint32_t number, gc_wire *out)
{
    gc_field f;
    while (gc_wire_next(&w, &f) > 0) {
        if (f.number == number && f.type == GC_WIRE_BYTES) {
            *out = gc_wire_make(f.p, f.n);
            return true;
        }
    }
    return false;
}

/* The rank that a ValueInfoProto declares, -1 if it does not. */
static int32_t declared_rank(const gc_field *f)
{
    gc_wire w = gc_wire_make(f->p, f->n);
    size_t rank = 0;
    bool shaped = sub_message(w, 2, &w) && sub_message(w, 1, &w) && sub_message(w, 2, &w);
    return shaped && gc_wire_count(w, 1, GC_WIRE_BYTES, &rank) && rank <= GRADCAM_MAX_DIMS ? (int32_t)rank : -1;
}

static gc_status read_parts(gc_import *im, gc_wire graph, bool weights, gc_pb_body *b)
{
    size_t weight = 0, formal = 0, result = 0;
    gc_field f;
    while (gc_wire_next(&graph, &f) > 0) {
        if (f.type != GC_WIRE_BYTES) {
            continue;
        }
        if (f.number == 5) {
            GC_TRY(one_name(im, &f, 8, &b->weight_names[weight]));
            GC_TRY(read_weight(im, &f, b->weight_names[weight], weights, &b->weights[weight]));
            weight++;
        } else if (f.number == 11) {
            GC_TRY(one_name(im, &f, 1, &b->in[formal]));
            b->ranks[formal++] = declared_rank(&f);
        } else if (f.number == 12) {
            GC_TRY(one_name(im, &f, 1, &b->out[result++]));
        } else if (f.number == 15) {
            return gc_import_fail(im, f.at, GRADCAM_E_UNSUPPORTED,
                                  "a graph inside a node has a sparse_initializer; convert it to a dense initializer");
        }
    }
    return GRADCAM_OK;
}

gc_status gc_import_graph(gc_import *im, const gc_pb_node *node, gc_wire graph, bool weights, gc_pb_body *b)
{
    if (!gc_wire_count(graph, 5, GC_WIRE_BYTES, &b->n_weights) ||
        !gc_wire_count(graph, 11, GC_WIRE_BYTES, &b->n_formals) ||
        !gc_wire_count(graph, 12, GC_WIRE_BYTES, &b->n_out)) {
        return gc_import_fail(im, graph.p, GRADCAM_E_FORMAT, "%.80s (node '%.150s'): a graph inside is malformed",
                              node->op, node->name);
    }
    b->weights = gc_arena_alloc(&im->arena, b->n_weights, sizeof(gc_tensor *));
    b->weight_names = gc_arena_alloc(&im->arena, b->n_weights, sizeof *b->weight_names);
    b->in = gc_arena_alloc(&im->arena, b->n_formals, sizeof *b->in);
    b->ranks = gc_arena_alloc(&im->arena, b->n_formals, sizeof *b->ranks);
    b->out = gc_arena_alloc(&im->arena, b->n_out, sizeof *b->out);
    if (!b->weights || !b->weight_names || !b->in || !b->ranks || !b->out) {
        return gc_import_nomem(im);
    }
    b->n_in = b->n_formals;
    GC_TRY(read_parts(im, graph, weights, b));
    GC_TRY(gc_import_descend(im, node));
    gc_status s = gc_import_nodes(im, graph, 1, &b->nodes, &b->n_nodes);
    im->graph_depth--;
    return s;
}

/* ---- what a body takes from outside ---- */

typedef struct finder {
    gc_names known;
    const char **found;
    size_t n_found;
} finder;

static gc_status finder_init(gc_import *im, const gc_pb_body *b, finder *f)
{
    size_t defined = b->n_formals + b->n_weights, used = b->n_out;
    for (size_t k = 0; k < b->n_nodes; k++) {
        defined += b->nodes[k].n_out;
        used += b->nodes[k].n_in;
    }
    f->n_found = 0;
    f->found = gc_arena_alloc(&im->arena, used, sizeof *f->found);
    if (f->found == NULL || !gc_names_make(&im->arena, defined + used, &f->known)) {
        return gc_import_nomem(im);
    }
    return GRADCAM_OK;
}

static void know(finder *f, const char *const *names, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        (void)gc_names_add(&f->known, names[k], 0); /* what is defined twice is refused later */
    }
}

static void look(finder *f, const char *const *names, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        if (names[k][0] != '\0' && gc_names_add(&f->known, names[k], 0)) {
            f->found[f->n_found++] = names[k];
        }
    }
}

static const char **joined(gc_import *im, const char *const *a, size_t n, const finder *f)
{
    const char **list = gc_arena_alloc(&im->arena, n + f->n_found, sizeof *list);
    if (list != NULL) {
        memcpy(list, a, n * sizeof *list);
        memcpy(list + n, f->found, f->n_found * sizeof *list);
    }
    return list;
}

static gc_status add_captures(gc_import *im, gc_pb_node *node, gc_pb_body *b)
{
    finder f;
    GC_TRY(finder_init(im, b, &f));
    know(&f, b->in, b->n_formals);
    know(&f, b->weight_names, b->n_weights);
    for (size_t k = 0; k < b->n_nodes; k++) {
        know(&f, b->nodes[k].out, b->nodes[k].n_out);
    }
    for (size_t k = 0; k < b->n_nodes; k++) {
        look(&f, b->nodes[k].in, b->nodes[k].n_in);
    }
    look(&f, b->out, b->n_out);
    b->in = joined(im, b->in, b->n_formals, &f);
    node->in = joined(im, node->in, node->n_in, &f);
    if (b->in == NULL || node->in == NULL) {
        return gc_import_nomem(im);
    }
    b->n_in += f.n_found;
    node->n_in += f.n_found;
    return GRADCAM_OK;
}

static const gc_pb_attr *body_of(const gc_pb_node *n)
{
    bool loops = n->domain[0] == '\0' && (strcmp(n->op, "Loop") == 0 || strcmp(n->op, "Scan") == 0);
    for (size_t k = 0; loops && k < n->n_attrs; k++) {
        if (strcmp(n->attrs[k].v.name, "body") == 0 && n->attrs[k].graph.p != NULL) {
            return &n->attrs[k];
        }
    }
    return NULL;
}

gc_status gc_import_bodies(gc_import *im, gc_pb_node *nodes, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        gc_pb_node *n = &nodes[k];
        const gc_pb_attr *attr = body_of(n);
        if (attr == NULL) {
            continue;
        }
        n->body = gc_arena_alloc(&im->arena, 1, sizeof *n->body);
        if (n->body == NULL) {
            return gc_import_nomem(im);
        }
        GC_TRY(gc_import_graph(im, n, attr->graph, true, n->body));
        GC_TRY(add_captures(im, n, n->body));
    }
    return GRADCAM_OK;
}

/* ---- the counts ---- */

gc_status gc_import_check_body(gc_import *im, const gc_pb_node *node, const char *name, const gc_attr_list *attrs)
{
    const gc_pb_body *b = node->body;
    size_t given = node->n_in - (b->n_in - b->n_formals), most;
    bool fits;
    if (strcmp(node->op, "Loop") == 0) { /* iteration, condition, states -> condition, states, stacked */
        fits = b->n_formals >= 2 && given == b->n_formals && b->n_out >= b->n_formals - 1;
        most = b->n_out - 1;
    } else { /* states, slices -> states, stacked; up to opset 8 lengths come first */
        int64_t slices = gc_attr_int(attrs, "num_scan_inputs", 0);
        fits = slices >= 1 && (uint64_t)slices <= b->n_formals && given == b->n_formals + (im->opset < 9) &&
               b->n_out >= b->n_formals - (size_t)slices;
        most = b->n_out;
    }
    if (!fits || node->n_out > most) {
        return gc_import_fail(im, node->at, GRADCAM_E_FORMAT,
                              "%s (node '%.150s') has %lu inputs and %lu outputs, its body %lu and %lu; they do not "
                              "fit",
                              node->op, name, (unsigned long)given, (unsigned long)node->n_out,
                              (unsigned long)b->n_formals, (unsigned long)b->n_out);
    }
    return GRADCAM_OK;
}
