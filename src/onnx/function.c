/* SPDX-License-Identifier: MIT */
/* Local functions: reading them, and inlining them with an explicit stack. */
#include <stdio.h>
#include <string.h>

#include "onnx/import.h"

enum { MAX_DEPTH = 64, MAX_FUNCTIONS = 10000 };

/* One list of nodes that is being copied into the network; function NULL: the
   graph, or the body of a loop. */
typedef struct frame {
    const gc_pb_function *function;
    const struct frame *owner; /* whose attributes ref_attr_name means: of a function, or NULL */
    const gc_pb_node *nodes;
    size_t n_nodes, next;
    const char *prefix;
    const char **in; /* actual names, function->n_in */
    const char **out;
    const gc_attr_value *attrs; /* of the calling node */
    size_t n_attrs;
} frame;

static const char *join(gc_import *im, const char *a, char separator, const char *b)
{
    size_t na = strlen(a), nb = strlen(b);
    char *s = gc_arena_alloc(&im->arena, na + nb + 2, 1);
    if (s) {
        memcpy(s, a, na);
        s[na] = separator;
        memcpy(s + na + 1, b, nb);
    }
    return s;
}

static const char *function_key(gc_import *im, const char *domain, const char *name, const char *overload)
{
    const char *s = join(im, domain, '\n', name);
    return s ? join(im, s, '\n', overload) : NULL;
}

/* ---- reading ---- */

static gc_status read_head(gc_import *im, const gc_field *at, gc_pb_function *fn)
{
    gc_wire w = gc_wire_make(at->p, at->n);
    gc_field f;
    int more;
    fn->at = at->at;
    fn->domain = fn->name = fn->overload = "";
    while ((more = gc_wire_next(&w, &f)) > 0) {
        const char **dst = f.number == 1    ? &fn->name
                           : f.number == 10 ? &fn->domain
                           : f.number == 13 ? &fn->overload
                                            : NULL;
        if (dst && f.type == GC_WIRE_BYTES) {
            GC_TRY(gc_import_string(im, &f, "the name or domain of a function", dst));
        }
    }
    if (more < 0 || !fn->name[0]) {
        return gc_import_fail(im, at->at, GRADCAM_E_FORMAT, "a local function is malformed or has no name");
    }
    fn->domain = gc_import_domain(fn->domain);
    return GRADCAM_OK;
}

static gc_status formal_names(gc_import *im, const gc_pb_function *fn, gc_names *names)
{
    size_t k;
    if (fn->n_in > INT32_MAX / 4 || fn->n_out > INT32_MAX / 4 ||
        !gc_names_make(&im->arena, fn->n_in + fn->n_out, names)) {
        return gc_import_nomem(im);
    }
    for (k = 0; k < fn->n_in; ++k) {
        if (!fn->in[k][0] || !gc_names_add(names, fn->in[k], (int32_t)k)) {
            return gc_import_fail(im, fn->at, GRADCAM_E_FORMAT, "function '%.150s': input '%.100s' is empty or doubled",
                                  fn->name, fn->in[k]);
        }
    }
    for (k = 0; k < fn->n_out; ++k) {
        int32_t old = gc_names_find(names, fn->out[k]);
        if (!fn->out[k][0] || old >= (int32_t)fn->n_in) {
            return gc_import_fail(im, fn->at, GRADCAM_E_FORMAT,
                                  "function '%.150s': output '%.100s' is empty or doubled", fn->name, fn->out[k]);
        }
        if (old < 0) {
            (void)gc_names_add(names, fn->out[k], (int32_t)(fn->n_in + k));
        }
    }
    return GRADCAM_OK;
}

static int32_t *slots_of(gc_import *im, const gc_names *names, const char *const *list, size_t n)
{
    int32_t *slots = gc_arena_alloc(&im->arena, n, sizeof *slots);
    size_t k;
    for (k = 0; slots && k < n; ++k) {
        slots[k] = list[k][0] ? gc_names_find(names, list[k]) : -1;
    }
    return slots;
}

static gc_status read_function(gc_import *im, const gc_field *at, gc_pb_function *fn)
{
    gc_wire w = gc_wire_make(at->p, at->n);
    gc_names names;
    size_t k;
    GC_TRY(read_head(im, at, fn));
    GC_TRY(gc_import_strings(im, w, 4, "an input name of a function", &fn->in, &fn->n_in));
    GC_TRY(gc_import_strings(im, w, 5, "an output name of a function", &fn->out, &fn->n_out));
    GC_TRY(gc_import_attrs(im, w, 11, fn->name, &fn->defaults, &fn->n_defaults));
    GC_TRY(gc_import_opset(im, w, 9, &fn->opset));
    GC_TRY(formal_names(im, fn, &names));
    GC_TRY(gc_import_nodes(im, w, 7, &fn->nodes, &fn->n_nodes));
    for (k = 0; k < fn->n_nodes; ++k) {
        gc_pb_node *node = &fn->nodes[k];
        node->in_slot = slots_of(im, &names, node->in, node->n_in);
        node->out_slot = slots_of(im, &names, node->out, node->n_out);
        if (!node->in_slot || !node->out_slot) {
            return gc_import_nomem(im);
        }
    }
    return GRADCAM_OK;
}

static gc_status find_callees(gc_import *im, const gc_names *names, gc_pb_node *nodes, size_t n)
{
    size_t k;
    for (k = 0; k < n; ++k) {
        const char *key = function_key(im, nodes[k].domain, nodes[k].op, nodes[k].overload);
        if (!key) {
            return gc_import_nomem(im);
        }
        nodes[k].callee = gc_names_find(names, key);
        if (nodes[k].body) {
            GC_TRY(find_callees(im, names, nodes[k].body->nodes, nodes[k].body->n_nodes));
        }
    }
    return GRADCAM_OK;
}

/* Counts the nodes and the calls among them; lists the callees where there is a list. */
static void survey(const gc_pb_node *nodes, size_t n, gc_pb_calls *calls)
{
    size_t k;
    calls->nodes += n;
    for (k = 0; k < n; ++k) {
        if (nodes[k].callee >= 0) {
            if (calls->callees) {
                calls->callees[calls->n_callees] = nodes[k].callee;
            }
            ++calls->n_callees;
        }
        if (nodes[k].body) {
            survey(nodes[k].body->nodes, nodes[k].body->n_nodes, calls);
        }
    }
}

static gc_status list_calls(gc_import *im, const gc_pb_node *nodes, size_t n, gc_pb_calls *calls)
{
    memset(calls, 0, sizeof *calls);
    survey(nodes, n, calls);
    calls->callees = gc_arena_alloc(&im->arena, calls->n_callees, sizeof *calls->callees);
    if (!calls->callees) {
        return gc_import_nomem(im);
    }
    calls->nodes = calls->n_callees = 0;
    survey(nodes, n, calls);
    return GRADCAM_OK;
}

/* Every function has another key; then every node gets its callee. */
static gc_status link_functions(gc_import *im)
{
    gc_names names;
    size_t k;
    if (!gc_names_make(&im->arena, im->n_functions, &names)) {
        return gc_import_nomem(im);
    }
    for (k = 0; k < im->n_functions; ++k) {
        const gc_pb_function *fn = &im->functions[k];
        const char *key = function_key(im, fn->domain, fn->name, fn->overload);
        if (!key) {
            return gc_import_nomem(im);
        }
        if (!gc_names_add(&names, key, (int32_t)k)) {
            return gc_import_fail(im, fn->at, GRADCAM_E_FORMAT,
                                  "function '%.150s' of domain '%.100s' is defined twice; remove one", fn->name,
                                  fn->domain);
        }
    }
    for (k = 0; k < im->n_functions; ++k) {
        gc_pb_function *fn = &im->functions[k];
        GC_TRY(find_callees(im, &names, fn->nodes, fn->n_nodes));
        GC_TRY(list_calls(im, fn->nodes, fn->n_nodes, &fn->calls));
    }
    return find_callees(im, &names, im->nodes, im->n_nodes);
}

gc_status gc_import_functions(gc_import *im, gc_wire model)
{
    size_t n = 0, k = 0;
    gc_field f;
    if (!gc_wire_count(model, 25, GC_WIRE_BYTES, &n) || n > MAX_FUNCTIONS) {
        return gc_import_fail(im, NULL, GRADCAM_E_LIMIT, "the model has more than %d local functions", MAX_FUNCTIONS);
    }
    if (n == 0) {
        return GRADCAM_OK;
    }
    im->functions = gc_arena_alloc(&im->arena, n, sizeof *im->functions);
    if (!im->functions) {
        return gc_import_nomem(im);
    }
    while (k < n && gc_wire_next(&model, &f) > 0) {
        if (f.number == 25 && f.type == GC_WIRE_BYTES) {
            GC_TRY(read_function(im, &f, &im->functions[k]));
            ++k;
        }
    }
    im->n_functions = n;
    return link_functions(im);
}

/* ---- counting: depth-first over the call graph, with our own stack ---- */

typedef struct visit {
    size_t function, next;
} visit;

static void close_function(gc_import *im, gc_pb_function *fn)
{
    uint64_t sum = fn->calls.nodes, cap = im->max_nodes + 1;
    uint32_t depth = 0;
    size_t k;
    sum = sum > cap ? cap : sum;
    for (k = 0; k < fn->calls.n_callees; ++k) {
        const gc_pb_function *callee = &im->functions[fn->calls.callees[k]];
        depth = callee->depth > depth ? callee->depth : depth;
        sum = callee->expanded > cap - sum ? cap : sum + callee->expanded;
    }
    sum = fn->n_out > cap - sum ? cap : sum + fn->n_out; /* outputs that are inputs become nodes */
    fn->expanded = sum;
    fn->depth = depth + 1;
    fn->colour = 2;
}

static gc_status visit_from(gc_import *im, size_t start, visit *stack)
{
    size_t top = 1;
    stack[0].function = start;
    stack[0].next = 0;
    im->functions[start].colour = 1;
    while (top > 0) {
        visit *v = &stack[top - 1];
        gc_pb_function *fn = &im->functions[v->function];
        int32_t callee = -1;
        if (v->next < fn->calls.n_callees) {
            callee = fn->calls.callees[v->next++];
        }
        if (callee < 0) {
            close_function(im, fn);
            --top;
        } else if (im->functions[callee].colour == 1) {
            return gc_import_fail(im, fn->at, GRADCAM_E_FORMAT,
                                  "function '%.200s' calls itself, directly or through others; this is not allowed",
                                  im->functions[callee].name);
        } else if (im->functions[callee].colour == 0) {
            im->functions[callee].colour = 1;
            stack[top].function = (size_t)callee;
            stack[top].next = 0;
            ++top;
        }
    }
    return GRADCAM_OK;
}

static gc_status count_nodes(gc_import *im)
{
    visit *stack = gc_arena_alloc(&im->arena, im->n_functions, sizeof *stack);
    gc_pb_calls calls;
    uint64_t sum;
    size_t k;
    if (!stack) {
        return gc_import_nomem(im);
    }
    GC_TRY(list_calls(im, im->nodes, im->n_nodes, &calls));
    sum = calls.nodes;
    for (k = 0; k < im->n_functions; ++k) {
        if (im->functions[k].colour == 0) {
            GC_TRY(visit_from(im, k, stack));
        }
    }
    for (k = 0; k < calls.n_callees && sum <= im->max_nodes; ++k) {
        const gc_pb_function *fn = &im->functions[calls.callees[k]];
        if (fn->depth > MAX_DEPTH) {
            return gc_import_fail(im, fn->at, GRADCAM_E_LIMIT,
                                  "function '%.200s': calls are nested deeper than %d; inline the functions before "
                                  "export",
                                  fn->name, MAX_DEPTH);
        }
        sum += fn->expanded;
    }
    if (sum > im->max_nodes) {
        return gc_import_fail(im, NULL, GRADCAM_E_LIMIT,
                              "with its local functions inlined the model has more than max_nodes = %llu nodes; raise "
                              "gc_load_options.max_nodes if it is trusted",
                              (unsigned long long)im->max_nodes);
    }
    return GRADCAM_OK;
}

/* ---- inlining ---- */

/* The network's name for a name in the body; NULL: no memory. */
static const char *outer_name(gc_import *im, const frame *fr, const char *name, int32_t slot)
{
    const char *actual = "";
    if (!fr->function || !name[0]) {
        return name;
    }
    if (slot >= 0 && (size_t)slot < fr->function->n_in) {
        return fr->in[slot];
    }
    if (slot >= 0) {
        actual = fr->out[(size_t)slot - fr->function->n_in];
    }
    return actual[0] ? actual : join(im, fr->prefix, '/', name);
}

static const char **outer_names(gc_import *im, const frame *fr, const char *const *names, const int32_t *slots,
                                size_t n)
{
    const char **list = gc_arena_alloc(&im->arena, n, sizeof *list);
    size_t k;
    for (k = 0; list && k < n; ++k) {
        list[k] = outer_name(im, fr, names[k], slots ? slots[k] : -1);
        if (!list[k]) {
            return NULL;
        }
    }
    return list;
}

static const gc_attr_value *find_ref(const frame *fr, const char *name)
{
    size_t k;
    for (k = 0; k < fr->n_attrs; ++k) {
        if (strcmp(fr->attrs[k].name, name) == 0) {
            return &fr->attrs[k];
        }
    }
    for (k = 0; k < fr->function->n_defaults; ++k) {
        if (strcmp(fr->function->defaults[k].v.name, name) == 0) {
            return fr->function->defaults[k].v.kind ? &fr->function->defaults[k].v : NULL;
        }
    }
    return NULL;
}

static gc_status outer_attr(gc_import *im, const frame *fr, const gc_pb_node *node, const gc_pb_attr *attr,
                            gc_attr_value *dst, size_t *n)
{
    const gc_attr_value *v = &attr->v;
    if (attr->ref) {
        if (!fr->owner) {
            return gc_import_fail(im, node->at, GRADCAM_E_FORMAT,
                                  "node '%.150s': attribute '%.100s' has a ref_attr_name outside a function",
                                  node->name, attr->v.name);
        }
        v = find_ref(fr->owner, attr->ref);
        if (v && attr->type != 0 && attr->v.kind != v->kind) {
            return gc_import_fail(im, node->at, GRADCAM_E_FORMAT,
                                  "node '%.120s' of function '%.80s': attribute '%.80s' refers to '%.80s' of another "
                                  "type",
                                  node->name, fr->owner->function->name, attr->v.name, attr->ref);
        }
    }
    if (v && v->kind != 0) {
        dst[*n] = *v;
        dst[*n].name = attr->v.name;
        ++*n;
    }
    return GRADCAM_OK;
}

static gc_status add_node(gc_import *im, const gc_pb_node *node, const char *name, const frame *call)
{
    gc_status status = gc_net_add_node(im->net, node->domain, node->op, name, call->in, node->n_in, call->out,
                                       node->n_out, call->attrs, call->n_attrs, im->err);
    if (status != GRADCAM_OK && im->err && im->err->offset == 0) {
        im->err->offset = (uint64_t)(node->at - im->base);
    }
    return status;
}

/* Outputs of a function that are its inputs, handed through. */
static gc_status add_identities(gc_import *im, const frame *fr)
{
    const gc_pb_function *fn = fr->function;
    gc_names names;
    size_t k;
    GC_TRY(formal_names(im, fn, &names));
    for (k = 0; k < fn->n_out; ++k) {
        int32_t slot = gc_names_find(&names, fn->out[k]);
        if ((size_t)slot < fn->n_in && fr->out[k][0]) {
            GC_TRY(gc_net_add_node(im->net, "", "Identity", NULL, &fr->in[slot], 1, &fr->out[k], 1, NULL, 0, im->err));
        }
    }
    return GRADCAM_OK;
}

/* The names that the call passes; missing trailing ones are absent. */
static const char **actuals(gc_import *im, const char *const *names, size_t given, size_t wanted)
{
    const char **list = gc_arena_alloc(&im->arena, wanted, sizeof *list);
    size_t k;
    for (k = 0; list && k < wanted; ++k) {
        list[k] = k < given ? names[k] : "";
    }
    return list;
}

static gc_status enter(gc_import *im, const gc_pb_node *node, const char *name, frame *call)
{
    const gc_pb_function *fn = &im->functions[node->callee];
    char number[16];
    if (node->n_in > fn->n_in || node->n_out > fn->n_out) {
        return gc_import_fail(im, node->at, GRADCAM_E_FORMAT,
                              "node '%.150s' passes more inputs or outputs than function '%.100s' has", name, fn->name);
    }
    if (fn->opset != 0 && fn->opset != im->opset) {
        return gc_import_fail(im, fn->at, GRADCAM_E_UNSUPPORTED,
                              "function '%.150s' uses opset %llu but the model uses %llu; convert them to one opset",
                              fn->name, (unsigned long long)fn->opset, (unsigned long long)im->opset);
    }
    (void)snprintf(number, sizeof number, "%lu", (unsigned long)im->expansions++);
    call->prefix = join(im, name[0] ? name : fn->name, '/', number);
    call->in = actuals(im, call->in, node->n_in, fn->n_in);
    call->out = actuals(im, call->out, node->n_out, fn->n_out);
    if (!call->prefix || !call->in || !call->out) {
        return gc_import_nomem(im);
    }
    call->function = fn;
    call->owner = call; /* it lies on the stack of expand */
    call->nodes = fn->nodes;
    call->n_nodes = fn->n_nodes;
    call->next = 0;
    return add_identities(im, call);
}

static gc_status add_loop(gc_import *im, const frame *fr, const gc_pb_node *node, const char *name, const frame *call);

/* Translates the node; *call describes it, and *entered says that it is a call. */
static gc_status step(gc_import *im, const frame *fr, const gc_pb_node *node, frame *call, bool *entered)
{
    gc_attr_value *attrs = gc_arena_alloc(&im->arena, node->n_attrs, sizeof *attrs);
    const char *name = node->name[0] ? outer_name(im, fr, node->name, -1) : "";
    size_t k, n = 0;
    memset(call, 0, sizeof *call);
    call->in = outer_names(im, fr, node->in, node->in_slot, node->n_in);
    call->out = outer_names(im, fr, node->out, node->out_slot, node->n_out);
    if (!attrs || !name || !call->in || !call->out) {
        return gc_import_nomem(im);
    }
    for (k = 0; k < node->n_attrs; ++k) {
        GC_TRY(outer_attr(im, fr, node, &node->attrs[k], attrs, &n));
    }
    call->attrs = attrs;
    call->n_attrs = n;
    *entered = node->callee >= 0;
    if (node->body && !*entered) {
        return add_loop(im, fr, node, name, call);
    }
    return *entered ? enter(im, node, name, call) : add_node(im, node, name, call);
}

static gc_status expand(gc_import *im, const gc_pb_node *nodes, size_t n_nodes, const frame *owner)
{
    frame stack[MAX_DEPTH + 2];
    size_t top = 1;
    memset(stack, 0, sizeof stack);
    stack[0].nodes = nodes;
    stack[0].n_nodes = n_nodes;
    stack[0].owner = owner;
    while (top > 0) {
        frame *fr = &stack[top - 1];
        bool entered = false;
        if (fr->next == fr->n_nodes) {
            --top;
            continue;
        }
        GC_TRY(step(im, fr, &fr->nodes[fr->next++], &stack[top], &entered));
        top += entered;
    }
    return GRADCAM_OK;
}

/* ---- bodies of loops: networks of their own ---- */

static gc_status fill_body(gc_import *im, const gc_pb_body *b, const frame *owner)
{
    static const int64_t open[GRADCAM_MAX_DIMS] = {-1, -1, -1, -1, -1, -1, -1, -1};
    size_t k;
    for (k = 0; k < b->n_in; ++k) {
        GC_TRY(gc_net_add_input(im->net, b->in[k], 0, k < b->n_formals ? b->ranks[k] : -1, open, im->err));
    }
    for (k = 0; k < b->n_weights; ++k) {
        GC_TRY(gc_net_add_weight(im->net, b->weight_names[k], b->weights[k], im->err));
    }
    GC_TRY(expand(im, b->nodes, b->n_nodes, owner));
    for (k = 0; k < b->n_out; ++k) {
        GC_TRY(gc_net_add_output(im->net, b->out[k], im->err));
    }
    return gc_net_finish(im->net, im->err);
}

static gc_status make_body(gc_import *im, const gc_pb_node *node, const frame *owner, gc_net **out)
{
    gc_net *around = im->net, *body = NULL;
    gc_status status;
    GC_TRY(gc_import_descend(im, node));
    status = gc_net_new(im->ctx, (int32_t)im->opset, &body, im->err);
    if (status == GRADCAM_OK) {
        body->max_nodes = around->max_nodes;
        body->max_bytes = around->max_bytes;
        body->max_run_bytes = around->max_run_bytes;
        im->net = body;
        status = fill_body(im, node->body, owner);
        im->net = around;
    }
    --im->graph_depth;
    if (status != GRADCAM_OK) {
        gc_net_unref(body);
        return status;
    }
    *out = body;
    return GRADCAM_OK;
}

static gc_status add_loop(gc_import *im, const frame *fr, const gc_pb_node *node, const char *name, const frame *call)
{
    const gc_pb_body *b = node->body;
    gc_attr_list attrs = {call->attrs, call->n_attrs};
    gc_net *body = NULL;
    gc_status status;
    GC_TRY(gc_import_check_body(im, node, name, &attrs));
    GC_TRY(make_body(im, node, fr->owner, &body));
    status = add_node(im, node, name, call);
    if (status != GRADCAM_OK) {
        gc_net_unref(body);
        return status;
    }
    im->net->nodes[im->net->n_nodes - 1].body = body;
    im->net->nodes[im->net->n_nodes - 1].n_captured = (int32_t)(b->n_in - b->n_formals);
    return GRADCAM_OK;
}

gc_status gc_import_expand(gc_import *im)
{
    GC_TRY(count_nodes(im));
    return expand(im, im->nodes, im->n_nodes, NULL);
}
