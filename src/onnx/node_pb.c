/* SPDX-License-Identifier: MIT */
/* NodeProto and AttributeProto, strings, tensors. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "onnx/import.h"
#include "onnx/tensor_pb.h"
#include "tensor/tensor.h"

enum { MAX_ATTRS = 64 };

/* AttributeProto.type */
enum {
    AT_FLOAT = 1,
    AT_INT = 2,
    AT_STRING = 3,
    AT_TENSOR = 4,
    AT_GRAPH = 5,
    AT_FLOATS = 6,
    AT_INTS = 7,
    AT_STRINGS = 8
};

gc_status gc_import_fail(gc_import *im, const unsigned char *at, gc_status status, const char *format, ...)
{
    char text[480];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)gc_fail(im->err, status, "%s", text);
    if (im->err && at) {
        im->err->offset = (uint64_t)(at - im->base);
    }
    return status;
}

gc_status gc_import_nomem(gc_import *im)
{
    if (im->arena.over) {
        return gc_import_fail(im, NULL, GRADCAM_E_LIMIT,
                              "the names and attributes of the model need more than max_bytes = %llu bytes; "
                              "raise gc_load_options.max_bytes if the model is trusted",
                              (unsigned long long)im->max_bytes);
    }
    return GC_NOMEM(im->err);
}

const char *gc_import_domain(const char *domain)
{
    return strcmp(domain, "ai.onnx") == 0 ? "" : domain;
}

gc_status gc_import_string(gc_import *im, const gc_field *f, const char *what, const char **out)
{
    char *s;
    if (f->n > 0 && memchr(f->p, 0, f->n)) {
        return gc_import_fail(im, f->at, GRADCAM_E_FORMAT, "%s contains a NUL byte; rename it and export again", what);
    }
    s = gc_arena_alloc(&im->arena, f->n + 1, 1);
    if (!s) {
        return gc_import_nomem(im);
    }
    memcpy(s, f->p, f->n);
    *out = s;
    return GRADCAM_OK;
}

gc_status gc_import_strings(gc_import *im, gc_wire w, uint32_t number, const char *what, const char ***out,
                            size_t *count)
{
    size_t n = 0, k = 0;
    const char **list;
    gc_field f;
    if (!gc_wire_count(w, number, GC_WIRE_BYTES, &n)) {
        return gc_import_fail(im, w.p, GRADCAM_E_FORMAT, "malformed message at %s; the file is damaged", what);
    }
    list = gc_arena_alloc(&im->arena, n, sizeof *list);
    if (!list) {
        return gc_import_nomem(im);
    }
    while (k < n && gc_wire_next(&w, &f) > 0) {
        if (f.number == number && f.type == GC_WIRE_BYTES) {
            GC_TRY(gc_import_string(im, &f, what, &list[k]));
            ++k;
        }
    }
    *out = list;
    *count = n;
    return GRADCAM_OK;
}

gc_status gc_import_tensor(gc_import *im, const gc_field *f, const char *name, bool weight, gc_tensor **out)
{
    char label[256];
    gc_tensor *t = NULL;
    gc_status status;
    bool on_demand = im->external.on_demand;
    im->external.on_demand = on_demand && weight;
    (void)snprintf(label, sizeof label, "%s", name);
    status = gc_onnx_tensor(&im->external, im->max_bytes - im->tensor_bytes, f->p, f->n, label, sizeof label, &t,
                            im->err);
    im->external.on_demand = on_demand;
    if (status != GRADCAM_OK) {
        if (im->err) {
            im->err->offset += (uint64_t)(f->p - im->base);
        }
        return status;
    }
    im->tensor_bytes += (uint64_t)gc_numel(t) * gc_dtype_size(t->dtype);
    *out = t;
    return GRADCAM_OK;
}

/* ---- attributes ---- */

static gc_status attr_tensor(gc_import *im, const gc_field *f, const char *node, gc_pb_attr *attr)
{
    char label[200];
    gc_tensor_link *link;
    if (attr->v.tensor) {
        return gc_import_fail(im, f->at, GRADCAM_E_FORMAT, "node '%.150s': attribute '%.100s' has two tensors", node,
                              attr->v.name);
    }
    link = gc_arena_alloc(&im->arena, 1, sizeof *link);
    if (!link) {
        return gc_import_nomem(im);
    }
    (void)snprintf(label, sizeof label, "%.120s.%.60s", node, attr->v.name);
    GC_TRY(gc_import_tensor(im, f, label, false, &link->tensor));
    link->next = im->tensors;
    im->tensors = link;
    attr->v.tensor = link->tensor;
    return GRADCAM_OK;
}

/* Runs over all elements of the repeated scalar; stores them where dst is set. */
static bool scan_list(gc_wire w, uint32_t number, uint32_t type, int64_t *ints, float *floats, size_t *count)
{
    gc_field f;
    gc_scalars s;
    uint64_t v = 0;
    size_t n = 0;
    int more = 0;
    while (gc_wire_next(&w, &f) > 0) {
        if (f.number != number || !gc_scalars_begin(&s, &f, type)) {
            continue;
        }
        while ((more = gc_scalars_next(&s, &v)) > 0) {
            if (ints) {
                ints[n] = gc_bits_i64(v);
            }
            if (floats) {
                floats[n] = gc_bits_f32(v);
            }
            ++n;
        }
        if (more < 0) {
            return false;
        }
    }
    *count = n;
    return true;
}

static gc_status attr_list(gc_import *im, const gc_field *at, uint32_t number, gc_pb_attr *attr)
{
    uint32_t type = number == 8 ? GC_WIRE_VARINT : GC_WIRE_32;
    gc_wire w = gc_wire_make(at->p, at->n);
    size_t n = 0;
    void *data;
    if (!scan_list(w, number, type, NULL, NULL, &n)) {
        return gc_import_fail(im, at->at, GRADCAM_E_FORMAT, "attribute '%.200s' is malformed", attr->v.name);
    }
    data = gc_arena_alloc(&im->arena, n, number == 8 ? sizeof(int64_t) : sizeof(float));
    if (!data) {
        return gc_import_nomem(im);
    }
    (void)scan_list(w, number, type, number == 8 ? data : NULL, number == 8 ? NULL : data, &n);
    attr->v.count = n;
    if (number == 8) {
        attr->v.ints = data;
    } else {
        attr->v.floats = data;
    }
    return GRADCAM_OK;
}

/* The AttributeType to which a value field belongs, 0 for other fields. */
static uint32_t field_type(const gc_field *f)
{
    static const unsigned char owner[24] = {[2] = 1, [3] = 2,  [4] = 3,   [5] = 4,   [6] = 5,   [7] = 6,   [8] = 7,
                                            [9] = 8, [10] = 9, [11] = 10, [14] = 13, [15] = 14, [22] = 11, [23] = 12};
    return f->number < 24 ? owner[f->number] : 0;
}

/* Name, type, ref and which value fields are there. */
static gc_status attr_head(gc_import *im, const gc_field *at, const char *node, gc_pb_attr *attr, uint32_t *seen)
{
    gc_wire w = gc_wire_make(at->p, at->n);
    gc_field f;
    int more;
    while ((more = gc_wire_next(&w, &f)) > 0) {
        if (f.number == 1 && f.type == GC_WIRE_BYTES) {
            GC_TRY(gc_import_string(im, &f, "an attribute's name", &attr->v.name));
        } else if (f.number == 21 && f.type == GC_WIRE_BYTES && f.n > 0) {
            GC_TRY(gc_import_string(im, &f, "an attribute's ref_attr_name", &attr->ref));
        } else if (f.number == 20 && f.type == GC_WIRE_VARINT) {
            attr->type = f.value;
        } else {
            if (f.number == 6 && f.type == GC_WIRE_BYTES) {
                attr->graph = gc_wire_make(f.p, f.n);
            }
            *seen |= 1u << field_type(&f);
        }
    }
    *seen &= ~1u;
    if (more < 0 || !attr->v.name || !attr->v.name[0]) {
        return gc_import_fail(im, at->at, GRADCAM_E_FORMAT, "node '%.200s': an attribute is malformed or has no name",
                              node);
    }
    return GRADCAM_OK;
}

/* Checks the type tag against the fields; finds it where it is absent. */
static gc_status attr_type(gc_import *im, const gc_field *at, const char *node, gc_pb_attr *attr, uint32_t seen)
{
    uint32_t k;
    if (attr->type == 0) {
        for (k = 1; k < 15; ++k) {
            attr->type = seen == 1u << k ? k : attr->type;
        }
    }
    if (attr->ref) {
        if (seen != 0) {
            return gc_import_fail(im, at->at, GRADCAM_E_FORMAT,
                                  "node '%.150s': attribute '%.100s' has a value and a ref_attr_name; keep one", node,
                                  attr->v.name);
        }
        return GRADCAM_OK;
    }
    if (attr->type == 0 || attr->type > 14 || (seen & ~(1u << attr->type)) != 0) {
        return gc_import_fail(im, at->at, GRADCAM_E_FORMAT,
                              "node '%.150s': attribute '%.100s' says type %llu but holds another field; export the "
                              "model again",
                              node, attr->v.name, (unsigned long long)attr->type);
    }
    if (attr->type == AT_TENSOR && seen == 0) {
        return gc_import_fail(im, at->at, GRADCAM_E_FORMAT, "node '%.150s': attribute '%.100s' has no tensor", node,
                              attr->v.name);
    }
    return GRADCAM_OK;
}

static gc_attr_kind attr_kind(uint64_t type)
{
    switch (type) {
    case AT_FLOAT: return GRADCAM_ATTR_FLOAT;
    case AT_INT: return GRADCAM_ATTR_INT;
    case AT_STRING: return GRADCAM_ATTR_STRING;
    case AT_TENSOR: return GRADCAM_ATTR_TENSOR;
    case AT_FLOATS: return GRADCAM_ATTR_FLOATS;
    case AT_INTS: return GRADCAM_ATTR_INTS;
    case AT_STRINGS: return GRADCAM_ATTR_STRINGS;
    default: return 0;
    }
}

/* Joins the strings of field 9 to one a line. */
static gc_status attr_strings(gc_import *im, const gc_field *at, gc_pb_attr *attr)
{
    const char **list;
    size_t n, used = 0, bytes = 1;
    GC_TRY(gc_import_strings(im, gc_wire_make(at->p, at->n), 9, "a list of strings", &list, &n));
    for (size_t i = 0; i < n; i++) {
        bytes += strlen(list[i]) + 1;
    }
    char *text = gc_arena_alloc(&im->arena, bytes, 1);
    if (!text) {
        return gc_import_nomem(im);
    }
    for (size_t i = 0; i < n; i++) {
        size_t length = strlen(list[i]);
        memcpy(text + used, list[i], length);
        text[used + length] = '\n';
        used += length + 1;
    }
    attr->v.string = text;
    attr->v.count = used;
    return GRADCAM_OK;
}

static gc_status attr_value(gc_import *im, const gc_field *f, const char *node, gc_pb_attr *attr)
{
    static const unsigned char wires[6] = {0, 0, GC_WIRE_32, GC_WIRE_VARINT, GC_WIRE_BYTES, GC_WIRE_BYTES};
    if (f->number < 2 || f->number > 5 || field_type(f) != attr->type) {
        return GRADCAM_OK;
    }
    if (f->type != wires[f->number]) {
        return gc_import_fail(im, f->at, GRADCAM_E_FORMAT, "node '%.150s': attribute '%.100s' is malformed", node,
                              attr->v.name);
    }
    switch (f->number) {
    case 2: attr->v.f = gc_bits_f32(f->value); return GRADCAM_OK;
    case 3: attr->v.i = gc_bits_i64(f->value); return GRADCAM_OK;
    case 4: attr->v.count = f->n; return gc_import_string(im, f, "a string attribute", &attr->v.string);
    default: return attr_tensor(im, f, node, attr);
    }
}

gc_status gc_import_attr(gc_import *im, const gc_field *at, const char *node, gc_pb_attr *attr)
{
    gc_wire w = gc_wire_make(at->p, at->n);
    uint32_t seen = 0;
    gc_field f;
    GC_TRY(attr_head(im, at, node, attr, &seen));
    GC_TRY(attr_type(im, at, node, attr, seen));
    attr->v.kind = attr_kind(attr->type);
    if (attr->ref || attr->v.kind == 0) {
        return GRADCAM_OK;
    }
    attr->v.string = "";
    if (attr->type == AT_INTS || attr->type == AT_FLOATS) {
        return attr_list(im, at, attr->type == AT_INTS ? 8 : 7, attr);
    }
    if (attr->type == AT_STRINGS) {
        return attr_strings(im, at, attr);
    }
    while (gc_wire_next(&w, &f) > 0) {
        GC_TRY(attr_value(im, &f, node, attr));
    }
    return GRADCAM_OK;
}

gc_status gc_import_attrs(gc_import *im, gc_wire w, uint32_t number, const char *node, gc_pb_attr **out, size_t *count)
{
    size_t n = 0, k = 0, j;
    gc_pb_attr *list;
    gc_field f;
    if (!gc_wire_count(w, number, GC_WIRE_BYTES, &n) || n > MAX_ATTRS) {
        return gc_import_fail(im, w.p, GRADCAM_E_LIMIT, "node '%.200s' has more than %d attributes", node, MAX_ATTRS);
    }
    list = gc_arena_alloc(&im->arena, n, sizeof *list);
    if (!list) {
        return gc_import_nomem(im);
    }
    while (k < n && gc_wire_next(&w, &f) > 0) {
        if (f.number != number || f.type != GC_WIRE_BYTES) {
            continue;
        }
        GC_TRY(gc_import_attr(im, &f, node, &list[k]));
        for (j = 0; j < k; ++j) {
            if (strcmp(list[j].v.name, list[k].v.name) == 0) {
                return gc_import_fail(im, f.at, GRADCAM_E_FORMAT, "node '%.150s': attribute '%.100s' is given twice",
                                      node, list[k].v.name);
            }
        }
        ++k;
    }
    *out = list;
    *count = n;
    return GRADCAM_OK;
}

/* ---- nodes ---- */

static gc_status node_head(gc_import *im, gc_wire w, gc_pb_node *node)
{
    gc_field f;
    int more;
    node->domain = node->op = node->overload = node->name = "";
    node->callee = -1;
    while ((more = gc_wire_next(&w, &f)) > 0) {
        const char **dst = f.number == 3   ? &node->name
                           : f.number == 4 ? &node->op
                           : f.number == 7 ? &node->domain
                           : f.number == 8 ? &node->overload
                                           : NULL;
        if (dst && f.type == GC_WIRE_BYTES) {
            GC_TRY(gc_import_string(im, &f, "the name, op_type or domain of a node", dst));
        }
    }
    if (more < 0 || !node->op[0]) {
        return gc_import_fail(im, node->at, GRADCAM_E_FORMAT,
                              "node '%.200s' is malformed or has no op_type; export the model again", node->name);
    }
    node->domain = gc_import_domain(node->domain);
    return GRADCAM_OK;
}

static gc_status node_body(gc_import *im, const gc_field *at, gc_pb_node *node)
{
    gc_wire w = gc_wire_make(at->p, at->n);
    const char *label;
    node->at = at->at;
    GC_TRY(node_head(im, w, node));
    GC_TRY(gc_import_strings(im, w, 1, "an input name of a node", &node->in, &node->n_in));
    GC_TRY(gc_import_strings(im, w, 2, "an output name of a node", &node->out, &node->n_out));
    label = node->name[0] ? node->name : node->n_out && node->out[0][0] ? node->out[0] : node->op;
    return gc_import_attrs(im, w, 5, label, &node->attrs, &node->n_attrs);
}

gc_status gc_import_nodes(gc_import *im, gc_wire w, uint32_t number, gc_pb_node **out, size_t *count)
{
    size_t n = 0, k = 0;
    gc_pb_node *list;
    gc_field f;
    if (!gc_wire_count(w, number, GC_WIRE_BYTES, &n)) {
        return gc_import_fail(im, w.p, GRADCAM_E_FORMAT, "the graph or a function is malformed; the file is damaged");
    }
    if (n > im->max_nodes - im->node_total) {
        return gc_import_fail(im, w.p, GRADCAM_E_LIMIT,
                              "the model has more than max_nodes = %llu nodes; raise gc_load_options.max_nodes if it "
                              "is trusted",
                              (unsigned long long)im->max_nodes);
    }
    im->node_total += n;
    list = gc_arena_alloc(&im->arena, n, sizeof *list);
    if (!list) {
        return gc_import_nomem(im);
    }
    while (k < n && gc_wire_next(&w, &f) > 0) {
        if (f.number == number && f.type == GC_WIRE_BYTES) {
            GC_TRY(node_body(im, &f, &list[k]));
            ++k;
        }
    }
    *out = list;
    *count = n;
    GC_TRY(gc_import_bodies(im, list, n));
    return gc_import_flatten(im, out, count);
}
