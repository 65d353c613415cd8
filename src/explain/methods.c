/* SPDX-License-Identifier: MIT */
/* The methods, written on the public interface of runs. */
#include <stdbool.h>
#include <string.h>

#include "base/abi.h"
#include "base/status.h"
#include "explain/cam_pattern.h"
#include "explain/map.h"
#include "explain/target.h"

/* What every method begins with: the host's options as this version has them. */
static gc_status begin(const gc_run *run, const gc_explain_options *host, gc_tensor **map, gc_explain_options *o,
                       gc_error *err)
{
    memset(o, 0, sizeof *o);
    if (run == NULL || map == NULL) {
        return gc_fail(err, GRADCAM_E_INVALID, "the run or the result pointer is NULL");
    }
    if (host != NULL) {
        GC_TRY(GC_ABI_IMPORT(host, o, err));
    }
    bool axis = o->channel_axis >= -1 && o->channel_axis <= 1;
    bool size = o->height >= 0 && o->width >= 0 && (o->height == 0) == (o->width == 0);
    if (!axis || !size || o->pool < 0 || o->pool > GRADCAM_POOL_SUM || o->grad < 0 || o->grad > GRADCAM_GRAD_POSITIVE ||
        o->rule < 0 || o->rule > GRADCAM_RULE_DECONVNET || o->resize < 0 || o->resize > GRADCAM_RESIZE_NEAREST) {
        return gc_fail(err, GRADCAM_E_INVALID,
                       "gc_explain_options: height, width, channel_axis, pool, grad, rule or resize is out of range");
    }
    return GRADCAM_OK;
}

/* The network's own name of a value that the host named, or of the first output
   of a node: reports outlive the host's strings. */
static const char *lasting_name(const gc_net *net, const char *name)
{
    int32_t node = gc_net_producer(net, name);
    for (int32_t k = 0; k < gc_net_node_output_count(net, node); k++) {
        const char *value = gc_net_node_output(net, node, k);
        if (value != NULL && strcmp(value, name) == 0) {
            return value;
        }
    }
    for (int32_t k = 0; k < gc_net_input_count(net); k++) {
        if (strcmp(gc_net_input_name(net, k), name) == 0) {
            return gc_net_input_name(net, k);
        }
    }
    for (int32_t i = 0; i < gc_net_node_count(net); i++) {
        if (strcmp(gc_net_node_name(net, i), name) == 0) {
            return gc_net_node_output(net, i, 0);
        }
    }
    return NULL; /* a weight */
}

static void report(const gc_aim *aim, const gc_explain_options *o, const char *layer, uint32_t warnings)
{
    gc_report r;
    if (o->report == NULL) {
        return;
    }
    memset(&r, 0, sizeof r);
    r.warnings = warnings;
    r.index = aim->index;
    r.score = aim->score;
    r.layer = lasting_name(gc_run_net(aim->run), layer);
    r.output = lasting_name(gc_run_net(aim->run), aim->output);
    r.n_rule_nodes = gc_run_rule_node_count(aim->run);
    gc_abi_export(&r, sizeof r, o->report, sizeof r);
}

/* Forward, then backward under a rule; the run's rule is plain afterwards. */
static gc_status pass(gc_aim *aim, gc_rule rule, gc_error *err)
{
    GC_TRY(gc_run_forward(aim->run, err));
    GC_TRY(gc_run_set_rule(aim->run, rule, err));
    gc_status s = gc_aim_backward(aim, err);
    gc_run_set_rule(aim->run, GRADCAM_RULE_PLAIN, NULL);
    return s;
}

/* Of the gradient the mean over places is enough. */
static bool by_mean(const gc_explain_options *o)
{
    return o->grad == GRADCAM_GRAD_AS_IS && o->pool != GRADCAM_POOL_MAX;
}

static gc_status watch_layer(gc_run *run, const char *layer, const gc_explain_options *o, gc_error *err)
{
    if (by_mean(o)) {
        return gc_run_watch_mean(run, layer, o->channel_axis < 0 ? -1 : 1, (int64_t)o->skip, err);
    }
    return gc_run_watch(run, layer, GRADCAM_WATCH_VALUE | GRADCAM_WATCH_GRAD, err);
}

/* A layer, and its gradient or, NULL, where to ask for it. */
typedef struct layer_source {
    const char *layer;
    gc_tensor *grad;
    bool mean;
} layer_source;

/* A layer whose activation is there, and the shape of its map. */
typedef struct layer_view {
    gc_tensor *act, *grad; /* grad NULL: zero */
    bool mean;             /* it is the mean */
    gc_tensor_desc map;
    int64_t positions;
} layer_view;

/* All dimensions but that of the channels, or one dimension where places are skipped. */
static void shape_map(const gc_tensor_desc *d, const gc_explain_options *o, layer_view *v)
{
    int32_t channels = o->channel_axis < 0 ? d->ndim - 1 : 1;
    v->map.dtype = GRADCAM_F32;
    v->map.shape[0] = d->shape[0];
    v->positions = 1;
    for (int32_t i = 1, k = 1; i < d->ndim; i++) {
        if (i != channels) {
            v->map.shape[k++] = d->shape[i];
            v->positions *= d->shape[i];
        }
    }
    v->map.ndim = d->ndim - 1;
    if (o->skip > 0) {
        v->positions -= (int64_t)o->skip;
        v->map.ndim = 2;
        v->map.shape[1] = v->positions;
    }
}

static gc_status view_layer(gc_aim *aim, const layer_source *from, const gc_explain_options *o, layer_view *v,
                            gc_error *err)
{
    gc_tensor_desc d;
    memset(v, 0, sizeof *v);
    const char *layer = from->layer;
    v->grad = from->grad;
    v->mean = from->mean;
    GC_TRY(gc_run_value(aim->run, layer, &v->act, err));
    gc_tensor_describe(v->act, &d);
    if (d.ndim < 2 || d.dtype != GRADCAM_F32) {
        return gc_fail(err, GRADCAM_E_SHAPE, "layer \"%s\" has no channels; it needs rank 2 or more", layer);
    }
    shape_map(&d, o, v);
    if (o->skip > 0 && v->positions < 1) {
        return gc_fail(err, GRADCAM_E_SHAPE, "layer \"%s\" has no more than %u places, which are skipped", layer,
                       (unsigned)o->skip);
    }
    if (v->positions == 0 || d.shape[0] == 0 || v->grad != NULL) {
        return GRADCAM_OK;
    }
    gc_status s = v->mean ? gc_run_gradient_mean(aim->run, layer, &v->grad, err)
                          : gc_run_gradient(aim->run, layer, &v->grad, err);
    return s == GRADCAM_E_NO_GRADIENT ? GRADCAM_OK : s;
}

static gc_status draw(gc_aim *aim, const layer_view *v, const gc_explain_options *o, gc_tensor *map, gc_error *err)
{
    gc_tensor_desc m;
    if (v->grad != NULL) {
        return gc_map_weigh(aim->run, v->act, v->grad, v->mean, o, map, err);
    }
    gc_tensor_describe(map, &m);
    memset(m.data, 0, (size_t)(m.shape[0] * v->positions) * sizeof(float));
    return GRADCAM_OK;
}

/* The map at the layer's resolution, in `small`, and at the host's in `made`; or one is both. */
static gc_status draw_sized(gc_aim *aim, const layer_view *v, const gc_explain_options *o, gc_tensor *made,
                            gc_tensor **small, gc_error *err)
{
    *small = made;
    if (o->height > 0) {
        GC_TRY(gc_run_scratch(aim->run, GC_SCRATCH_CAM, &v->map, small, err));
    }
    GC_TRY(draw(aim, v, o, *small, err));
    return o->height > 0 ? gc_map_resize(*small, o->resize, made, err) : GRADCAM_OK;
}

static gc_status make_sized(gc_aim *aim, const layer_view *v, const gc_explain_options *o, gc_tensor *into,
                            gc_tensor **made, gc_error *err)
{
    int64_t size[3] = {v->map.shape[0], o->height, o->width};
    if (o->height == 0) {
        return gc_map_make(aim->ctx, v->map.ndim, v->map.shape, into, made, err);
    }
    if (v->map.ndim != 3 || v->positions == 0) {
        return gc_fail(err, GRADCAM_E_SHAPE, "gc_explain_options.height: the map is not two-dimensional");
    }
    return gc_map_make(aim->ctx, 3, size, into, made, err);
}

/* One map from a layer whose activation and gradient are there. */
static gc_status layer_map(gc_aim *aim, const layer_source *from, const gc_explain_options *o, gc_tensor *into,
                           gc_tensor **map, uint32_t *warnings, gc_error *err)
{
    layer_view v;
    gc_tensor *made = NULL, *small = NULL;
    GC_TRY(view_layer(aim, from, o, &v, err));
    GC_TRY(make_sized(aim, &v, o, into, &made, err));
    gc_status s = draw_sized(aim, &v, o, made, &small, err);
    uint32_t of_map = s == GRADCAM_OK ? gc_map_warnings(small) : 0u;
    if (s == GRADCAM_OK && o->normalize) {
        s = gc_map_normalize(made, err);
    }
    if (s != GRADCAM_OK) {
        gc_tensor_unref(made);
        return s;
    }
    *warnings = of_map | (v.grad == NULL ? GRADCAM_WARN_NOT_CONNECTED : 0u) |
                (v.positions <= 1 ? GRADCAM_WARN_NO_SPATIAL : 0u);
    *map = made;
    return GRADCAM_OK;
}

static gc_status choose_layer(gc_aim *aim, const gc_explain_options *o, const char **layer, gc_error *err)
{
    *layer = o->layer;
    if (*layer == NULL) {
        GC_TRY(gc_aim_layer(aim, layer, err));
    }
    return watch_layer(aim->run, *layer, o, err);
}

gc_status gc_gradcam(gc_run *run, const gc_explain_options *options, gc_tensor **map, gc_error *err)
{
    gc_explain_options own, *o = &own;
    const char *layer;
    uint32_t warnings = 0;
    gc_aim aim;
    GC_TRY(begin(run, options, map, o, err));
    GC_TRY(gc_aim_init(&aim, gc_run_ctx(run), run, o->target, err));
    GC_TRY(choose_layer(&aim, o, &layer, err));
    GC_TRY(pass(&aim, o->rule, err));
    const layer_source from = {layer, NULL, by_mean(o)};
    GC_TRY(layer_map(&aim, &from, o, o->into, map, &warnings, err));
    report(&aim, o, layer, warnings);
    return GRADCAM_OK;
}

/* ---- several layers ----

   Where means of gradients are enough, maps are made of them after the pass.  Else a
   layer's map is made as soon as its gradient is there, while both are in the cache
   and before the memory of the gradient goes to another: a backward hook does it, the
   last one on the value.  Where no gradient comes, the map is made after the pass. */

typedef struct sweep {
    gc_aim *aim;
    const gc_explain_options *o;
    gc_status failed; /* in a hook */
    gc_error failure;
} sweep;

typedef struct sweep_layer {
    sweep *sweep;
    const char *name;
    gc_tensor *into, *made;
    int32_t hook, hooked;
    uint32_t warnings;
    uint32_t reserved0;
} sweep_layer;

/* In scratch memory, so that maps[] changes only when all maps are made. */
static gc_status room_for_layers(gc_run *run, size_t n, sweep_layer **layers, gc_error *err)
{
    gc_tensor_desc d;
    gc_tensor *t;
    memset(&d, 0, sizeof d);
    d.dtype = GRADCAM_U8;
    d.ndim = 2;
    d.shape[0] = n <= INT32_MAX ? (int64_t)n : -1;
    d.shape[1] = (int64_t)sizeof **layers;
    GC_TRY(gc_run_scratch(run, GC_SCRATCH_MAPS, &d, &t, err));
    gc_tensor_describe(t, &d);
    *layers = d.data;
    memset(*layers, 0, n * sizeof **layers);
    return GRADCAM_OK;
}

static gc_status make_map(sweep_layer *l, gc_tensor *grad, gc_error *err)
{
    const layer_source from = {l->name, grad, by_mean(l->sweep->o)};
    return layer_map(l->sweep->aim, &from, l->sweep->o, l->into, &l->made, &l->warnings, err);
}

static int32_t on_gradient(void *user, const gc_hook_event *event)
{
    sweep_layer *l = user;
    l->sweep->failed = make_map(l, event->tensor, &l->sweep->failure);
    return l->sweep->failed;
}

static gc_status watch_swept(sweep *w, sweep_layer *l, gc_error *err)
{
    if (by_mean(w->o)) {
        return watch_layer(w->aim->run, l->name, w->o, err);
    }
    GC_TRY(gc_run_add_hook(w->aim->run, l->name, GRADCAM_HOOK_BACKWARD | GRADCAM_HOOK_PASSING, on_gradient, l, &l->hook,
                           err));
    l->hooked = 1;
    return GRADCAM_OK;
}

static gc_status sweep_pass(sweep *w, sweep_layer *layers, size_t n, gc_error *err)
{
    gc_status s = GRADCAM_OK;
    for (size_t i = 0; i < n && s == GRADCAM_OK; i++) {
        s = watch_swept(w, &layers[i], err);
    }
    s = s == GRADCAM_OK ? pass(w->aim, w->o->rule, err) : s;
    if (w->failed != GRADCAM_OK) {
        s = gc_fail(err, w->failed, "%s", w->failure.message);
    }
    for (size_t i = n; i > 0; i--) {
        if (layers[i - 1].hooked) {
            gc_run_remove_hook(w->aim->run, layers[i - 1].hook);
        }
    }
    for (size_t i = 0; i < n && s == GRADCAM_OK; i++) {
        s = layers[i].made == NULL ? make_map(&layers[i], NULL, err) : GRADCAM_OK;
    }
    return s;
}

gc_status gc_gradcam_layers(gc_run *run, const char *const *layers, size_t n_layers, const gc_explain_options *options,
                            gc_tensor **maps, gc_error *err)
{
    gc_explain_options own, *o = &own;
    gc_aim aim;
    sweep_layer *all;
    GC_TRY(begin(run, options, maps, o, err));
    if (layers == NULL || n_layers == 0) {
        return gc_fail(err, GRADCAM_E_INVALID, "gc_gradcam_layers: no layers");
    }
    GC_TRY(gc_aim_init(&aim, gc_run_ctx(run), run, o->target, err));
    GC_TRY(room_for_layers(run, n_layers, &all, err));
    sweep w;
    memset(&w, 0, sizeof w);
    w.aim = &aim;
    w.o = o;
    for (size_t i = 0; i < n_layers; i++) {
        all[i].sweep = &w;
        all[i].name = layers[i];
        all[i].into = o->into_layers == NULL ? NULL : o->into_layers[i];
    }
    gc_status s = sweep_pass(&w, all, n_layers, err);
    for (size_t i = 0; i < n_layers; i++) {
        if (s == GRADCAM_OK) {
            maps[i] = all[i].made;
        } else {
            gc_tensor_unref(all[i].made);
        }
    }
    if (s == GRADCAM_OK) {
        report(&aim, o, layers[0], all[0].warnings);
    }
    return s;
}

gc_status gc_cam(gc_run *run, const gc_explain_options *options, gc_tensor **map, gc_error *err)
{
    /* Through average pooling and a linear layer dy/dA_k is w_k / Z at every
       position, so w_k is the sum of the gradient over the Z positions. */
    gc_explain_options o;
    const char *layer;
    uint32_t warnings = 0;
    gc_aim aim;
    GC_TRY(begin(run, options, map, &o, err));
    o.pool = GRADCAM_POOL_SUM;
    o.grad = GRADCAM_GRAD_AS_IS;
    o.signed_map = 1;
    GC_TRY(gc_aim_init(&aim, gc_run_ctx(run), run, o.target, err));
    GC_TRY(choose_layer(&aim, &o, &layer, err));
    GC_TRY(gc_run_prepare(run, err));
    GC_TRY(gc_cam_pattern(run, layer, aim.output, err));
    GC_TRY(pass(&aim, GRADCAM_RULE_PLAIN, err));
    const layer_source from = {layer, NULL, by_mean(&o)};
    GC_TRY(layer_map(&aim, &from, &o, o.into, map, &warnings, err));
    report(&aim, &o, layer, warnings);
    return GRADCAM_OK;
}

static gc_rule guided_rule(const gc_explain_options *o)
{
    return o->plain_rule ? GRADCAM_RULE_PLAIN : o->rule == 0 ? GRADCAM_RULE_GUIDED : o->rule;
}

static gc_status input_gradient(gc_aim *aim, const char *input, gc_tensor *into, gc_tensor **map, uint32_t *warnings,
                                gc_error *err)
{
    gc_tensor *value, *grad = NULL, *made = NULL;
    gc_tensor_desc d;
    GC_TRY(gc_run_value(aim->run, input, &value, err));
    gc_tensor_describe(value, &d);
    if (d.dtype != GRADCAM_F32) {
        return gc_fail(err, GRADCAM_E_DTYPE, "input \"%s\" holds integers and has no gradient; name another", input);
    }
    gc_status s = gc_run_gradient(aim->run, input, &grad, err);
    if (s != GRADCAM_OK && s != GRADCAM_E_NO_GRADIENT) {
        return s;
    }
    GC_TRY(gc_map_make(aim->ctx, d.ndim, d.shape, into, &made, err));
    gc_tensor_desc m;
    gc_tensor_describe(made, &m);
    if (grad != NULL) {
        gc_tensor_copy(grad, made, NULL);
    } else {
        for (int64_t i = 0; d.ndim > 0 && i < m.shape[0] * m.strides[0]; i++) {
            ((float *)m.data)[i] = 0.0f;
        }
    }
    *warnings = gc_map_warnings(made) | (grad == NULL ? GRADCAM_WARN_NOT_CONNECTED : 0u);
    *map = made;
    return GRADCAM_OK;
}

static const char *input_name(gc_run *run, const gc_explain_options *o)
{
    return o->input != NULL ? o->input : gc_net_input_name(gc_run_net(run), 0);
}

gc_status gc_guided_backprop(gc_run *run, const gc_explain_options *options, gc_tensor **map, gc_error *err)
{
    gc_explain_options own, *o = &own;
    uint32_t warnings = 0;
    gc_aim aim;
    GC_TRY(begin(run, options, map, o, err));
    const char *input = input_name(run, o);
    GC_TRY(gc_aim_init(&aim, gc_run_ctx(run), run, o->target, err));
    GC_TRY(gc_run_watch(run, input, GRADCAM_WATCH_VALUE | GRADCAM_WATCH_GRAD, err));
    GC_TRY(pass(&aim, guided_rule(o), err));
    GC_TRY(input_gradient(&aim, input, o->into, map, &warnings, err));
    report(&aim, o, input, warnings);
    return GRADCAM_OK;
}

/* guided[n, c, y, x] *= map[n, y, x] resized. */
static gc_status multiply(gc_run *run, gc_tensor *guided, const gc_tensor *map, int32_t mode, gc_error *err)
{
    gc_tensor_desc g, r;
    gc_tensor *resized = NULL;
    gc_tensor_describe(guided, &g);
    gc_tensor_describe(map, &r);
    if (g.ndim != 4 || r.ndim != 3) {
        return gc_fail(err, GRADCAM_E_UNSUPPORTED, "Guided Grad-CAM needs an input [N, C, H, W] and a 2-D map");
    }
    r.shape[1] = g.shape[2];
    r.shape[2] = g.shape[3];
    GC_TRY(gc_run_scratch(run, GC_SCRATCH_RESIZED, &r, &resized, err));
    GC_TRY(gc_map_resize(map, mode, resized, err));
    gc_tensor_describe(resized, &r);
    int64_t plane = g.shape[2] * g.shape[3], planes = g.shape[0] * g.shape[1];
    for (int64_t i = 0; i < planes; i++) {
        const float *weight = (const float *)r.data + i / g.shape[1] * plane;
        float *value = (float *)g.data + i * plane;
        for (int64_t p = 0; p < plane; p++) {
            value[p] *= weight[p];
        }
    }
    return GRADCAM_OK;
}

/* The map of a forward and backward pass, then a second backward pass. */
static gc_status cam_and_guided(gc_aim *aim, const char *layer, const char *input, const gc_explain_options *o,
                                gc_tensor **cam, gc_tensor **guided, uint32_t *warnings, gc_error *err)
{
    layer_view v;
    GC_TRY(pass(aim, GRADCAM_RULE_PLAIN, err));
    const layer_source from = {layer, NULL, by_mean(o)};
    GC_TRY(view_layer(aim, &from, o, &v, err));
    GC_TRY(gc_run_scratch(aim->run, GC_SCRATCH_CAM, &v.map, cam, err));
    GC_TRY(draw(aim, &v, o, *cam, err));
    GC_TRY(gc_run_set_rule(aim->run, guided_rule(o), err));
    gc_status s = gc_aim_backward(aim, err);
    gc_run_set_rule(aim->run, GRADCAM_RULE_PLAIN, NULL);
    return s == GRADCAM_OK ? input_gradient(aim, input, o->into, guided, warnings, err) : s;
}

gc_status gc_guided_gradcam(gc_run *run, const gc_explain_options *options, gc_tensor **map, gc_error *err)
{
    gc_explain_options own, *o = &own;
    const char *layer;
    uint32_t warnings = 0;
    gc_tensor *cam = NULL, *guided = NULL;
    gc_aim aim;
    GC_TRY(begin(run, options, map, o, err));
    const char *input = input_name(run, o);
    GC_TRY(gc_aim_init(&aim, gc_run_ctx(run), run, o->target, err));
    GC_TRY(choose_layer(&aim, o, &layer, err));
    GC_TRY(gc_run_watch(run, input, GRADCAM_WATCH_VALUE | GRADCAM_WATCH_GRAD, err));
    GC_TRY(cam_and_guided(&aim, layer, input, o, &cam, &guided, &warnings, err));
    gc_status s = multiply(run, guided, cam, o->resize, err);
    if (s != GRADCAM_OK) {
        gc_tensor_unref(guided);
        return s;
    }
    report(&aim, o, layer, gc_map_warnings(guided) | warnings);
    *map = guided;
    return GRADCAM_OK;
}
