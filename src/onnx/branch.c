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

/* Puts a Constant node for each initializer before the nodes. */
static gc_status add_constants(gc_import *im, const gc_pb_node *owner, gc_pb_body *b)
{
    gc_pb_node *nodes = gc_arena_alloc(&im->arena, b->n_weights + b->n_nodes, sizeof *nodes);
    gc_pb_attr *values = gc_arena_alloc(&im->arena, b->n_weights, sizeof *values);
    if (nodes == NULL || values == NULL) {
        return gc_import_nomem(im);
    }
    for (size_t k = 0; k < b->n_weights; k++) {
        gc_pb_node *n = &nodes[k];
        n->domain = n->overload = n->name = "";
        n->op = "Constant";
        n->at = owner->at;
        n->callee = -1;
        n->out = &b->weight_names[k];
        n->n_out = 1;
        n->attrs = &values[k];
        n->n_attrs = 1;
        values[k].v.name = "value";
        values[k].v.kind = GRADCAM_ATTR_TENSOR;
        values[k].v.tensor = b->weights[k];
    }
    if (b->n_nodes > 0) {
        memcpy(nodes + b->n_weights, b->nodes, b->n_nodes * sizeof *nodes);
    }
    b->nodes = nodes;
    b->n_nodes += b->n_weights;
    return GRADCAM_OK;
}

/* Renames what the branch defines, where it is defined and where it is read. */
static gc_status rename_inner(gc_import *im, gc_pb_body *b, const char *node, const char *side)
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
        const char **lists[2] = {last ? b->out : b->nodes[k].in, last ? NULL : b->nodes[k].out};
        size_t counts[2] = {last ? b->n_out : b->nodes[k].n_in, last ? 0 : b->nodes[k].n_out};
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

static gc_status read_branch(gc_import *im, const gc_pb_node *n, const char *side, gc_pb_body *b)
{
    const gc_pb_attr *attr = NULL;
    for (size_t k = 0; k < n->n_attrs; k++) {
        attr = strcmp(n->attrs[k].v.name, side) == 0 ? &n->attrs[k] : attr;
    }
    if (attr == NULL || attr->graph.p == NULL) {
        return gc_import_fail(im, n->at, GRADCAM_E_FORMAT, "If (node '%.150s'): %s is missing", n->name, side);
    }
    GC_TRY(gc_import_graph(im, n, attr->graph, false, b));
    if (b->n_out != n->n_out) {
        return gc_import_fail(im, n->at, GRADCAM_E_FORMAT, "If (node '%.150s'): %s does not give %lu results", n->name,
                              side, (unsigned long)n->n_out);
    }
    GC_TRY(add_constants(im, n, b));
    return rename_inner(im, b, n->name[0] != '\0' ? n->name : n->out[0], side);
}

/* The If node with the results of both sides as inputs. */
static gc_status rewire(gc_import *im, gc_pb_node *n, const gc_pb_body *sides)
{
    size_t each = n->n_out;
    const char **in = gc_arena_alloc(&im->arena, 1 + 2 * each, sizeof *in);
    if (in == NULL) {
        return gc_import_nomem(im);
    }
    in[0] = n->in[0];
    memcpy(in + 1, sides[0].out, each * sizeof *in);
    memcpy(in + 1 + each, sides[1].out, each * sizeof *in);
    n->in = in;
    n->n_in = 1 + 2 * each;
    n->n_attrs = 0;
    return GRADCAM_OK;
}

static bool is_if(const gc_pb_node *n)
{
    return n->domain[0] == '\0' && strcmp(n->op, "If") == 0 && n->n_in == 1 && n->n_out > 0;
}

static gc_status flatten_one(gc_import *im, gc_pb_node *n, gc_pb_body *sides, size_t *total)
{
    GC_TRY(read_branch(im, n, "then_branch", &sides[0]));
    GC_TRY(read_branch(im, n, "else_branch", &sides[1]));
    *total += sides[0].n_nodes + sides[1].n_nodes;
    return rewire(im, n, sides);
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
    gc_pb_body *sides = gc_arena_alloc(&im->arena, 2 * ifs, sizeof *sides);
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
