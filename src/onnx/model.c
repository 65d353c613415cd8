/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "base/ctx.h"
#include "onnx/import.h"
#include "onnx/onnx.h"
#include "onnx/tensor_pb.h"

#define ARENA_FLOOR ((uint64_t)1 << 20)

enum { MIN_OPSET = 1, MAX_OPSET = 1000 };

/* ---- opset_import ---- */

static gc_status read_opset(gc_import *im, const gc_field *at, uint64_t *version, bool *ours)
{
    gc_wire w = gc_wire_make(at->p, at->n);
    const char *domain = "";
    gc_field f;
    int more;
    *version = 0;
    while ((more = gc_wire_next(&w, &f)) > 0) {
        if (f.number == 1 && f.type == GC_WIRE_BYTES) {
            GC_TRY(gc_import_string(im, &f, "the domain of an opset_import", &domain));
        } else if (f.number == 2 && f.type == GC_WIRE_VARINT) {
            *version = f.value;
        }
    }
    *ours = gc_import_domain(domain)[0] == 0;
    return more < 0 ? gc_import_fail(im, at->at, GRADCAM_E_FORMAT, "an opset_import is malformed") : GRADCAM_OK;
}

gc_status gc_import_opset(gc_import *im, gc_wire w, uint32_t number, uint64_t *version)
{
    gc_field f;
    *version = 0;
    while (gc_wire_next(&w, &f) > 0) {
        uint64_t v = 0;
        bool ours = false;
        if (f.number != number || f.type != GC_WIRE_BYTES) {
            continue;
        }
        GC_TRY(read_opset(im, &f, &v, &ours));
        if (ours && *version != 0 && v != *version) {
            return gc_import_fail(im, f.at, GRADCAM_E_FORMAT,
                                  "the ONNX operator set is imported twice, as %llu and %llu; keep one",
                                  (unsigned long long)*version, (unsigned long long)v);
        }
        *version = ours ? v : *version;
    }
    return GRADCAM_OK;
}

/* ---- graph inputs and outputs ---- */

typedef struct io_type {
    gc_dtype dtype;
    int32_t ndim;
    int64_t shape[GRADCAM_MAX_DIMS];
} io_type;

static gc_status malformed(gc_import *im, const gc_field *f, const char *name)
{
    return gc_import_fail(im, f->at, GRADCAM_E_FORMAT, "the type of graph input '%.200s' is malformed", name);
}

static int64_t read_dim(const gc_field *at, bool *ok)
{
    gc_wire w = gc_wire_make(at->p, at->n);
    int64_t dim = -1;
    gc_field f;
    int more;
    while ((more = gc_wire_next(&w, &f)) > 0) {
        if (f.number == 1 && f.type == GC_WIRE_VARINT) {
            dim = gc_bits_i64(f.value) < 0 ? -1 : gc_bits_i64(f.value);
        } else if (f.number == 2 && f.type == GC_WIRE_BYTES) {
            dim = -1;
        }
    }
    *ok = more == 0;
    return dim;
}

static gc_status read_shape(gc_import *im, const gc_field *at, const char *name, io_type *type)
{
    gc_wire w = gc_wire_make(at->p, at->n);
    gc_field f;
    int more;
    type->ndim = 0;
    while ((more = gc_wire_next(&w, &f)) > 0) {
        bool ok = true;
        if (f.number != 1 || f.type != GC_WIRE_BYTES) {
            continue;
        }
        if (type->ndim == GRADCAM_MAX_DIMS) {
            return gc_import_fail(im, f.at, GRADCAM_E_UNSUPPORTED,
                                  "graph input '%.200s' has more than 8 dimensions; this is not supported", name);
        }
        type->shape[type->ndim++] = read_dim(&f, &ok);
        if (!ok) {
            return malformed(im, &f, name);
        }
    }
    return more < 0 ? malformed(im, at, name) : GRADCAM_OK;
}

/* The type that a widened weight gets is not what a host binds: keep it. */
static gc_dtype input_dtype(uint64_t data_type)
{
    switch (data_type) {
    case 10: return GRADCAM_F16;
    case 11: return GRADCAM_F64;
    case 16: return GRADCAM_BF16;
    default: return gc_onnx_dtype(data_type);
    }
}

static gc_status read_tensor_type(gc_import *im, const gc_field *at, const char *name, io_type *type)
{
    gc_wire w = gc_wire_make(at->p, at->n);
    gc_field f;
    int more;
    while ((more = gc_wire_next(&w, &f)) > 0) {
        if (f.number == 1 && f.type == GC_WIRE_VARINT && f.value != 0) {
            type->dtype = input_dtype(f.value);
            if (type->dtype == 0) {
                return gc_import_fail(im, f.at, GRADCAM_E_UNSUPPORTED,
                                      "graph input '%.200s' has element type %s, which is not supported", name,
                                      gc_onnx_dtype_name(f.value));
            }
        } else if (f.number == 2 && f.type == GC_WIRE_BYTES) {
            GC_TRY(read_shape(im, &f, name, type));
        }
    }
    return more < 0 ? malformed(im, at, name) : GRADCAM_OK;
}

static gc_status read_type(gc_import *im, const gc_field *at, const char *name, io_type *type)
{
    gc_wire w = gc_wire_make(at->p, at->n);
    gc_field f;
    int more;
    while ((more = gc_wire_next(&w, &f)) > 0) {
        if (f.number == 1 && f.type == GC_WIRE_BYTES) {
            GC_TRY(read_tensor_type(im, &f, name, type));
        } else if (f.type == GC_WIRE_BYTES && f.number != 6) {
            return gc_import_fail(im, f.at, GRADCAM_E_UNSUPPORTED,
                                  "graph input '%.200s' is not a tensor (sequence, map, optional or sparse)", name);
        }
    }
    return more < 0 ? malformed(im, at, name) : GRADCAM_OK;
}

/* ValueInfoProto.name, which may not be empty. */
static gc_status value_name(gc_import *im, const gc_field *at, const char *what, const char **name)
{
    gc_wire w = gc_wire_make(at->p, at->n);
    gc_field f;
    int more;
    *name = "";
    while ((more = gc_wire_next(&w, &f)) > 0) {
        if (f.number == 1 && f.type == GC_WIRE_BYTES) {
            GC_TRY(gc_import_string(im, &f, what, name));
        }
    }
    if (more < 0 || !(*name)[0]) {
        return gc_import_fail(im, at->at, GRADCAM_E_FORMAT, "%s is malformed or empty; export the model again", what);
    }
    return GRADCAM_OK;
}

static gc_status add_input(gc_import *im, const gc_field *at)
{
    gc_wire w = gc_wire_make(at->p, at->n);
    const char *name;
    io_type type;
    gc_field f;
    memset(&type, 0, sizeof type);
    type.ndim = -1;
    GC_TRY(value_name(im, at, "the name of a graph input", &name));
    if (gc_names_find(&im->initializers, name) >= 0) {
        return GRADCAM_OK; /* an initialised input is a weight */
    }
    while (gc_wire_next(&w, &f) > 0) {
        if (f.number == 2 && f.type == GC_WIRE_BYTES) {
            GC_TRY(read_type(im, &f, name, &type));
        }
    }
    return gc_net_add_input(im->net, name, type.dtype, type.ndim, type.shape, im->err);
}

static gc_status add_output(gc_import *im, const gc_field *at)
{
    const char *name;
    GC_TRY(value_name(im, at, "the name of a graph output", &name));
    return gc_net_add_output(im->net, name, im->err);
}

static gc_status add_weight(gc_import *im, const gc_field *at)
{
    gc_wire w = gc_wire_make(at->p, at->n);
    const char *name = "";
    gc_tensor *tensor = NULL;
    gc_status status;
    gc_field f;
    while (gc_wire_next(&w, &f) > 0) {
        if (f.number == 8 && f.type == GC_WIRE_BYTES) {
            GC_TRY(gc_import_string(im, &f, "the name of an initializer", &name));
        }
    }
    if (!name[0]) {
        return gc_import_fail(im, at->at, GRADCAM_E_FORMAT, "an initializer is malformed or has no name");
    }
    if (!gc_names_add(&im->initializers, name, 0)) {
        return gc_import_fail(im, at->at, GRADCAM_E_FORMAT, "initializer '%.200s' is given twice; remove one", name);
    }
    GC_TRY(gc_import_tensor(im, at, name, true, &tensor));
    status = gc_net_add_weight(im->net, name, tensor, im->err);
    gc_tensor_unref(tensor);
    return status;
}

/* ---- graph ---- */

static gc_status for_each(gc_import *im, gc_wire w, uint32_t number, gc_status (*use)(gc_import *, const gc_field *))
{
    gc_field f;
    while (gc_wire_next(&w, &f) > 0) {
        if (f.number == number && f.type == GC_WIRE_BYTES) {
            gc_status status = use(im, &f);
            if (status != GRADCAM_OK) {
                if (im->err && im->err->offset == 0) {
                    im->err->offset = (uint64_t)(f.at - im->base);
                }
                return status;
            }
        }
    }
    return GRADCAM_OK;
}

static gc_status refuse_sparse(gc_import *im, const gc_field *at)
{
    return gc_import_fail(im, at->at, GRADCAM_E_UNSUPPORTED,
                          "the model has a sparse_initializer; convert it to a dense initializer");
}

static gc_status read_graph(gc_import *im, gc_wire model, gc_wire graph)
{
    size_t n_weights = 0, n_outputs = 0;
    if (!gc_wire_count(graph, 5, GC_WIRE_BYTES, &n_weights) || !gc_wire_count(graph, 12, GC_WIRE_BYTES, &n_outputs)) {
        return gc_import_fail(im, graph.p, GRADCAM_E_FORMAT, "the graph is malformed; the file is damaged");
    }
    if (n_outputs == 0) {
        return gc_import_fail(im, graph.p, GRADCAM_E_FORMAT, "the graph has no outputs; export the model again");
    }
    if (!gc_names_make(&im->arena, n_weights, &im->initializers)) {
        return gc_import_nomem(im);
    }
    GC_TRY(for_each(im, graph, 15, refuse_sparse));
    GC_TRY(gc_import_nodes(im, graph, 1, &im->nodes, &im->n_nodes));
    GC_TRY(gc_import_check_legacy(im));
    GC_TRY(gc_import_functions(im, model));
    GC_TRY(for_each(im, graph, 5, add_weight));
    GC_TRY(for_each(im, graph, 11, add_input));
    GC_TRY(gc_import_expand(im));
    GC_TRY(for_each(im, graph, 12, add_output));
    return gc_net_finish(im->net, im->err);
}

static gc_status check_versions(gc_import *im)
{
    if (im->ir_version == 0) {
        return gc_import_fail(im, NULL, GRADCAM_E_FORMAT, "ir_version is missing; this is not an ONNX model");
    }
    if (im->opset < MIN_OPSET || im->opset > MAX_OPSET) {
        return gc_import_fail(im, NULL, GRADCAM_E_UNSUPPORTED,
                              "the model uses ONNX opset %llu (0: not said); it must be from %d to %d",
                              (unsigned long long)im->opset, MIN_OPSET, MAX_OPSET);
    }
    return GRADCAM_OK;
}

static gc_status read_model(gc_import *im, gc_wire model)
{
    gc_wire w = model, graph = gc_wire_make(NULL, 0);
    int graphs = 0, more;
    gc_field f;
    while ((more = gc_wire_next(&w, &f)) > 0) {
        if (f.number == 1 && f.type == GC_WIRE_VARINT) {
            im->ir_version = f.value;
        } else if (f.number == 7 && f.type == GC_WIRE_BYTES) {
            graph = gc_wire_make(f.p, f.n);
            if (graphs++) {
                return gc_import_fail(im, f.at, GRADCAM_E_FORMAT, "the model has two graphs; keep one");
            }
        }
    }
    if (more < 0 || !graphs) {
        return gc_import_fail(im, w.p, GRADCAM_E_FORMAT, "not an ONNX model, or a part of one: %s",
                              more < 0 ? "malformed protobuf" : "it has no graph");
    }
    GC_TRY(gc_import_opset(im, model, 8, &im->opset));
    GC_TRY(check_versions(im));
    GC_TRY(gc_net_new(im->ctx, (int32_t)im->opset, &im->net, im->err));
    im->net->max_nodes = im->max_nodes;
    im->net->max_bytes = im->max_bytes;
    im->net->max_run_bytes = im->max_run_bytes;
    return read_graph(im, model, graph);
}

static void release(gc_import *im)
{
    for (; im->tensors; im->tensors = im->tensors->next) {
        gc_tensor_unref(im->tensors->tensor);
    }
    gc_external_end(&im->external);
    gc_arena_free(&im->arena);
}

static void set_external(gc_external *x, gc_ctx *ctx, const gc_model *model, const gc_load_options *opts)
{
    x->ctx = ctx;
    x->options = opts;
    x->path = model->path;
    x->source = model->source;
    x->outline = model->outline;
    x->on_demand = model->source != NULL && opts != NULL && opts->weights == GRADCAM_WEIGHTS_ON_DEMAND;
}

gc_status gc_onnx_import(gc_ctx *ctx, const gc_model *model, const gc_load_options *opts, gc_net **out, gc_error *err)
{
    gc_wire w = gc_wire_make(model->data, model->size);
    uint64_t size = model->source != NULL ? gc_source_size(model->source) : model->size;
    gc_import im;
    gc_status status;
    memset(&im, 0, sizeof im);
    im.ctx = im.arena.ctx = ctx;
    set_external(&im.external, ctx, model, opts);
    im.err = err;
    im.base = w.p;
    im.max_nodes = opts && opts->max_nodes ? opts->max_nodes : GC_DEFAULT_MAX_NODES;
    im.max_bytes = opts && opts->max_bytes ? opts->max_bytes : GC_DEFAULT_MAX_BYTES;
    im.max_run_bytes = opts && opts->max_run_bytes ? opts->max_run_bytes : GC_DEFAULT_MAX_RUN_BYTES;
    /* names and attributes of a small model need more than its bytes */
    im.arena.limit = im.max_bytes < UINT64_MAX - ARENA_FLOOR ? im.max_bytes + ARENA_FLOOR : im.max_bytes;
    if (size > im.max_bytes) {
        return gc_import_fail(&im, NULL, GRADCAM_E_LIMIT,
                              "the model has %llu bytes, more than max_bytes = %llu; raise gc_load_options.max_bytes",
                              (unsigned long long)size, (unsigned long long)im.max_bytes);
    }
    status = read_model(&im, w);
    release(&im);
    if (status != GRADCAM_OK) {
        if (err != NULL) {
            err->offset = gc_outline_place(model->outline, err->offset);
        }
        gc_net_unref(im.net);
        return status;
    }
    *out = im.net;
    return GRADCAM_OK;
}
