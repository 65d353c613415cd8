/* SPDX-License-Identifier: MIT */
/* Which values a map can be drawn on, and which of them is the default. */
#include <stdbool.h>
#include <string.h>

#include "base/status.h"
#include "explain/map.h"
#include "explain/target.h"

static bool one_of(const char *op, const char *const *names)
{
    while (*names != NULL && strcmp(op, *names) != 0) {
        names++;
    }
    return *names != NULL;
}

static bool is_pooling(const char *op)
{
    return strstr(op, "Pool") != NULL || strcmp(op, "ReduceMean") == 0 || strcmp(op, "ReduceMax") == 0 ||
           strcmp(op, "Reshape") == 0 || strcmp(op, "Unsqueeze") == 0;
}

/* ---- which values are feature maps ----

   A shape alone does not tell: [7, 1, 2, 32] may be the states of a recurrent
   cell and [1, 1, 1, 24] features that were pooled and turned.  What a
   convolution makes is a map with its channels on axis 1, and stays one through
   element-wise operators; a Transpose to channels-last and back keeps it. */

enum { NO_MAP = 0, CHANNELS_FIRST = 1, CHANNELS_LAST = 2 };

static bool describe(gc_run *run, const char *value, gc_tensor_desc *d)
{
    memset(d, 0, sizeof *d);
    return gc_run_describe(run, value, d, NULL) == GRADCAM_OK;
}

/* Whether `to` is `from` with axis 1 moved to the end. */
static bool channels_moved(const gc_tensor_desc *from, const gc_tensor_desc *to)
{
    bool moved = from->ndim == to->ndim && from->ndim >= 3 && to->shape[to->ndim - 1] == from->shape[1];
    for (int32_t i = 2; moved && i < from->ndim; i++) {
        moved = to->shape[i - 1] == from->shape[i];
    }
    return moved;
}

static unsigned char turned(gc_run *run, const char *from, const char *to, unsigned char kind)
{
    gc_tensor_desc a, b;
    if (kind == NO_MAP || !describe(run, from, &a) || !describe(run, to, &b)) {
        return NO_MAP;
    }
    if (kind == CHANNELS_FIRST) {
        return channels_moved(&a, &b) ? CHANNELS_LAST : NO_MAP;
    }
    return channels_moved(&b, &a) ? CHANNELS_FIRST : NO_MAP;
}

/* The kind of a node's output, from those of the nodes before it. */
static unsigned char kind_of(gc_run *run, int32_t node, const unsigned char *kinds)
{
    static const char *const makers[] = {"Conv", "ConvTranspose", "DepthToSpace", "SpaceToDepth", NULL};
    static const char *const breakers[] = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Gemm",
                                           "LSTM",    "GRU",     "RNN",     "Gather",    "GatherND",
                                           "Einsum",  "Shape",   "NonZero", "TopK",      NULL};
    const gc_net *net = gc_run_net(run);
    const char *op = gc_net_node_op(net, node), *out = gc_net_node_output(net, node, 0);
    unsigned char kind = NO_MAP;
    if (one_of(op, makers) || one_of(op, breakers)) {
        return one_of(op, makers) ? CHANNELS_FIRST : NO_MAP;
    }
    for (int32_t k = 0; k < gc_net_node_input_count(net, node) && kind == NO_MAP; k++) {
        int32_t producer = gc_net_producer(net, gc_net_node_input(net, node, k));
        kind = producer < 0 ? NO_MAP : kinds[producer];
    }
    if (strcmp(op, "Transpose") == 0) {
        return turned(run, gc_net_node_input(net, node, 0), out, kind);
    }
    /* A matrix product mixes the last axis: channels only where they are last. */
    return strcmp(op, "MatMul") == 0 && kind == CHANNELS_FIRST ? NO_MAP : kind;
}

static bool spatial(gc_run *run, const char *value, int32_t min_rank)
{
    gc_tensor_desc d;
    int64_t positions = 1;
    if (!describe(run, value, &d) || d.dtype != GRADCAM_F32 || d.ndim < min_rank) {
        return false;
    }
    for (int32_t i = 2; i < d.ndim; i++) {
        positions *= d.shape[i];
    }
    return positions > 1;
}

/* What a walk from the target back to the inputs collects. */
typedef struct walk {
    gc_aim *aim;
    unsigned char *needed; /* per node: the target hangs on it */
    unsigned char *kinds;  /* per node: NO_MAP, CHANNELS_FIRST, CHANNELS_LAST */
    int32_t last;          /* the node that makes the target, or -1 */
    const char **names;
    size_t capacity;
    size_t count; /* found, also beyond the capacity */
} walk;

static void take(walk *w, const char *value)
{
    if (w->count < w->capacity) {
        w->names[w->count] = value;
    }
    w->count++;
}

static void mark_inputs(walk *w, int32_t node)
{
    const gc_net *net = gc_run_net(w->aim->run);
    for (int32_t k = 0; k < gc_net_node_input_count(net, node); k++) {
        int32_t producer = gc_net_producer(net, gc_net_node_input(net, node, k));
        if (producer >= 0) {
            w->needed[producer] = 1;
        }
    }
}

/* Deepest first: nodes are in topological order. */
static void collect(walk *w, int32_t min_rank, bool only_maps)
{
    const gc_net *net = gc_run_net(w->aim->run);
    memset(w->needed, 0, (size_t)gc_net_node_count(net) + 1);
    w->count = 0;
    for (int32_t i = w->last; i >= 0; i--) {
        const char *value = gc_net_node_output(net, i, 0);
        if (i != w->last && !w->needed[i]) {
            continue;
        }
        bool fits = (!only_maps || w->kinds[i] == CHANNELS_FIRST) && !is_pooling(gc_net_node_op(net, i));
        if (fits && strcmp(value, w->aim->output) != 0 && spatial(w->aim->run, value, min_rank)) {
            take(w, value);
        }
        mark_inputs(w, i);
    }
}

static gc_status marks(gc_run *run, int64_t n, unsigned char **out, gc_error *err)
{
    gc_tensor *t;
    gc_tensor_desc d;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_U8;
    d.ndim = 1;
    d.shape[0] = n;
    GC_TRY(gc_run_scratch(run, GC_SCRATCH_MARKS, &d, &t, err));
    gc_tensor_describe(t, &d);
    *out = d.data;
    memset(*out, 0, (size_t)n);
    return GRADCAM_OK;
}

/* Maps of two and more dimensions, then of one; then whatever has the rank. */
static gc_status find_layers(gc_aim *aim, const char **names, size_t capacity, size_t *count, gc_error *err)
{
    const gc_net *net = gc_run_net(aim->run);
    const size_t nodes = (size_t)gc_net_node_count(net);
    walk w = {aim, NULL, NULL, gc_net_producer(net, aim->output), names, capacity, 0};
    GC_TRY(gc_run_prepare(aim->run, err));
    GC_TRY(marks(aim->run, 2 * ((int64_t)nodes + 1), &w.needed, err));
    w.kinds = w.needed + nodes + 1;
    for (int32_t i = 0; i <= w.last; i++) {
        w.kinds[i] = kind_of(aim->run, i, w.kinds);
    }
    for (int32_t pass = 0; pass < 4 && w.count == 0; pass++) {
        collect(&w, pass % 2 == 0 ? 4 : 3, pass < 2);
    }
    *count = w.count;
    return GRADCAM_OK;
}

gc_status gc_aim_layer(gc_aim *aim, const char **layer, gc_error *err)
{
    const char *found = NULL;
    size_t count = 0;
    GC_TRY(find_layers(aim, &found, 1, &count, err));
    if (count == 0) {
        return gc_fail(err, GRADCAM_E_NOT_FOUND,
                       "no layer with spatial extent leads to \"%s\"; name one in options->layer", aim->output);
    }
    *layer = found;
    return GRADCAM_OK;
}

gc_status gc_candidate_layers(gc_run *run, const gc_target *target, const char **names, size_t capacity, size_t *count,
                              gc_error *err)
{
    gc_aim aim;
    if (run == NULL || count == NULL || (names == NULL && capacity > 0)) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_candidate_layers: run, names or count is NULL");
    }
    GC_TRY(gc_aim_init(&aim, gc_run_ctx(run), run, target, err));
    return find_layers(&aim, names, capacity, count, err);
}
