/* SPDX-License-Identifier: MIT */
/* If: both branches become part of the graph around them.
 *
 * A value that a branch defines is renamed to <node>/<branch>/<value>, so that
 * nothing clashes; names that it takes from outside stay.  The node gets the
 * inputs condition, results of then_branch, results of else_branch, and no
 * graph attributes; the plan takes one side (see ops/select.c).  Inner nodes
 * come first: a branch is flat before it is taken in. */
#include <string.h>

#include "onnx/import.h"

enum { MAX_BRANCH_DEPTH = 16 };

typedef struct branch {
    gc_pb_node *nodes; /* constants for the initializers, then the branch's nodes */
    const char **results;
    size_t n_nodes, n_results;
} branch;

static const char *inner_name(gc_import *im, const char *node, const char *side, const char *name)
{
    size_t a = strlen(node), b = strlen(side), c = strlen(name);
    char *s = gc_arena_alloc(&im->arena, a + b + c + 3, 1);
    if (s != NULL) {
        memcpy(s, node, a);
        s[a] = '/';
        memcpy(s + a + 1, side, b);
        s[a + b + 1] = '/';
        memcpy(s + a + b + 2, name, c);
    }
    return s;
}

/* Makes a Constant node of each initializer. */
static gc_status read_constants(gc_import *im, gc_wire graph, gc_pb_node *nodes)
{
    gc_field f;
    for (size_t k = 0; gc_wire_next(&graph, &f) > 0;) {
        if (f.number != 5 || f.type != GC_WIRE_BYTES) {
            continue;
        }
        gc_pb_node *n = &nodes[k++];
        const char **names;
        size_t count;
        GC_TRY(gc_import_strings(im, gc_wire_make(f.p, f.n), 8, "the name of an initializer", &names, &count));
        if (count != 1 || names[0][0] == '\0') {
            return gc_import_fail(im, f.at, GRADCAM_E_FORMAT, "an initializer of a branch has no name");
        }
        gc_tensor_link *link = gc_arena_alloc(&im->arena, 1, sizeof *link);
        n->attrs = gc_arena_alloc(&im->arena, 1, sizeof *n->attrs);
        if (link == NULL || n->attrs == NULL) {
            return gc_import_nomem(im);
        }
        GC_TRY(gc_import_tensor(im, &f, names[0], &link->tensor));
        link->next = im->tensors;
        im->tensors = link;
        n->domain = n->overload = n->name = "";
        n->op = "Constant";
        n->at = f.at;
        n->callee = -1;
        n->out = names;
        n->n_out = 1;
        n->n_attrs = 1;
        n->attrs[0].v.name = "value";
        n->attrs[0].v.kind = GRADCAM_ATTR_TENSOR;
        n->attrs[0].v.tensor = link->tensor;
    }
    return GRADCAM_OK;
}

static gc_status read_results(gc_import *im, gc_wire graph, branch *b)
{
    gc_field f;
    size_t k = 0;
    b->results = gc_arena_alloc(&im->arena, b->n_results, sizeof *b->results);
    if (b->results == NULL) {
        return gc_import_nomem(im);
    }
    while (k < b->n_results && gc_wire_next(&graph, &f) > 0) {
        if (f.number == 12 && f.type == GC_WIRE_BYTES) {
            const char **names;
            size_t count;
            GC_TRY(gc_import_strings(im, gc_wire_make(f.p, f.n), 1, "the name of a branch's output", &names, &count));
            if (count != 1) {
                return gc_import_fail(im, f.at, GRADCAM_E_FORMAT, "an output of a branch has no name");
            }
            b->results[k++] = names[0];
        }
    }
    return GRADCAM_OK;
}

/* Renames what the branch defines, where it is defined and where it is read. */
static gc_status rename_inner(gc_import *im, branch *b, const char *node, const char *side)
{
    gc_names names;
    size_t defined = 0;
    for (size_t k = 0; k < b->n_nodes; k++) {
        defined += b->nodes[k].n_out;
    }
    if (!gc_names_make(&im->arena, defined, &names)) {
        return gc_import_nomem(im);
    }
    for (size_t k = 0; k < b->n_nodes; k++) {
        for (size_t i = 0; i < b->nodes[k].n_out; i++) {
            const char *name = b->nodes[k].out[i];
            if (name[0] != '\0' && !gc_names_add(&names, name, 0)) {
                return gc_import_fail(im, b->nodes[k].at, GRADCAM_E_FORMAT,
                                      "value '%.200s' is defined twice in a branch; names must be unique", name);
            }
        }
    }
    for (size_t k = 0; k <= b->n_nodes; k++) {
        bool last = k == b->n_nodes;
        const char **lists[2] = {last ? b->results : b->nodes[k].in, last ? NULL : b->nodes[k].out};
        size_t counts[2] = {last ? b->n_results : b->nodes[k].n_in, last ? 0 : b->nodes[k].n_out};
        for (int l = 0; l < 2; l++) {
            for (size_t i = 0; i < counts[l]; i++) {
                if (gc_names_find(&names, lists[l][i]) >= 0) {
                    lists[l][i] = inner_name(im, node, side, lists[l][i]);
                    if (lists[l][i] == NULL) {
                        return gc_import_nomem(im);
                    }
                }
            }
        }
    }
    return GRADCAM_OK;
}

static gc_status read_branch(gc_import *im, const gc_pb_node *n, const char *side, branch *b)
{
    const gc_pb_attr *attr = NULL;
    size_t constants = 0, count = 0;
    gc_pb_node *inner;
    for (size_t k = 0; k < n->n_attrs; k++) {
        attr = strcmp(n->attrs[k].v.name, side) == 0 ? &n->attrs[k] : attr;
    }
    if (attr == NULL || attr->graph.p == NULL || !gc_wire_count(attr->graph, 5, GC_WIRE_BYTES, &constants) ||
        !gc_wire_count(attr->graph, 12, GC_WIRE_BYTES, &b->n_results) || b->n_results != n->n_out) {
        return gc_import_fail(im, n->at, GRADCAM_E_FORMAT,
                              "If (node '%.150s'): %s is missing, malformed or does not give %lu results", n->name,
                              side, (unsigned long)n->n_out);
    }
    GC_TRY(gc_import_nodes(im, attr->graph, 1, &inner, &count));
    b->n_nodes = constants + count;
    b->nodes = gc_arena_alloc(&im->arena, b->n_nodes, sizeof *b->nodes);
    if (b->nodes == NULL) {
        return gc_import_nomem(im);
    }
    GC_TRY(read_constants(im, attr->graph, b->nodes));
    if (count > 0) {
        memcpy(b->nodes + constants, inner, count * sizeof *inner);
    }
    GC_TRY(read_results(im, attr->graph, b));
    const char *label = n->name[0] != '\0' ? n->name : n->out[0];
    return rename_inner(im, b, label, side);
}

/* The If node with the results of both sides as inputs. */
static gc_status rewire(gc_import *im, gc_pb_node *n, const branch *sides)
{
    size_t each = n->n_out;
    const char **in = gc_arena_alloc(&im->arena, 1 + 2 * each, sizeof *in);
    if (in == NULL) {
        return gc_import_nomem(im);
    }
    in[0] = n->in[0];
    memcpy(in + 1, sides[0].results, each * sizeof *in);
    memcpy(in + 1 + each, sides[1].results, each * sizeof *in);
    n->in = in;
    n->n_in = 1 + 2 * each;
    n->n_attrs = 0;
    return GRADCAM_OK;
}

static bool is_if(const gc_pb_node *n)
{
    return n->domain[0] == '\0' && strcmp(n->op, "If") == 0 && n->n_in == 1 && n->n_out > 0;
}

static gc_status flatten_one(gc_import *im, gc_pb_node *n, branch *sides, size_t *total)
{
    if (im->branch_depth >= MAX_BRANCH_DEPTH) {
        return gc_import_fail(im, n->at, GRADCAM_E_LIMIT, "If nodes are nested deeper than %d", MAX_BRANCH_DEPTH);
    }
    im->branch_depth++;
    gc_status s = read_branch(im, n, "then_branch", &sides[0]);
    s = s != GRADCAM_OK ? s : read_branch(im, n, "else_branch", &sides[1]);
    im->branch_depth--;
    *total += sides[0].n_nodes + sides[1].n_nodes;
    return s != GRADCAM_OK ? s : rewire(im, n, sides);
}

gc_status gc_import_flatten(gc_import *im, gc_pb_node **nodes, size_t *count)
{
    size_t n = *count, total = n, ifs = 0, done = 0, at = 0;
    for (size_t k = 0; k < n; k++) {
        ifs += is_if(&(*nodes)[k]);
    }
    if (ifs == 0) {
        return GRADCAM_OK;
    }
    branch *sides = gc_arena_alloc(&im->arena, 2 * ifs, sizeof *sides);
    if (sides == NULL) {
        return gc_import_nomem(im);
    }
    for (size_t k = 0; k < n; k++) {
        if (is_if(&(*nodes)[k])) {
            GC_TRY(flatten_one(im, &(*nodes)[k], &sides[2 * done++], &total));
        }
    }
    gc_pb_node *flat = gc_arena_alloc(&im->arena, total, sizeof *flat);
    if (flat == NULL) {
        return gc_import_nomem(im);
    }
    for (size_t k = 0; k < 2 * done; k++) {
        if (sides[k].n_nodes > 0) {
            memcpy(flat + at, sides[k].nodes, sides[k].n_nodes * sizeof *flat);
            at += sides[k].n_nodes;
        }
    }
    memcpy(flat + at, *nodes, n * sizeof *flat);
    *nodes = flat;
    *count = total;
    return GRADCAM_OK;
}
