/* SPDX-License-Identifier: MIT */
/* BatchNormalization after a convolution becomes part of its weights:
   s = scale / sqrt(var + epsilon), W' = s W, b' = s (b - mean) + beta. */
#include "run/fold.h"

#include <math.h>
#include <string.h>

#include "run/weights.h"

static const gc_tensor *constant(gc_plan *p, int32_t value, int64_t channels)
{
    int32_t slot = value < 0 ? -1 : gc_plan_slot(p, value);
    if (slot < 0 || !p->slots[slot].constant) {
        return NULL;
    }
    const gc_tensor *t = &p->slots[slot].value;
    return t->dtype == GRADCAM_F32 && t->ndim == 1 && t->shape[0] == channels ? t : NULL;
}

/* The convolution's step when nobody else sees its result, else NULL. */
static gc_step *lonely_convolution(gc_plan *p, int32_t value)
{
    int32_t slot = value < 0 ? -1 : p->slot_of[value];
    int32_t producer = slot < 0 ? -1 : p->slots[slot].producer;
    if (producer < 0 || p->readers[value] != 1 || p->watch[value] != 0) {
        return NULL;
    }
    gc_step *s = &p->steps[producer];
    if (p->slots[slot].net_value != value || s->pack_net != p->net) {
        return NULL; /* it has another name, as the result of a branch or a loop, that somebody may read */
    }
    bool fits = s->op != NULL && strcmp(s->op->name, "Conv") == 0 && s->call.custom == NULL &&
                p->slots[s->in[1]].constant && (s->call.n_in < 3 || s->in[2] < 0 || p->slots[s->in[2]].constant);
    return fits ? s : NULL;
}

static gc_slot *add_slot(gc_plan *p, int32_t ndim, const int64_t *shape, int32_t *id)
{
    *id = gc_plan_add_slot(p, -1);
    gc_slot *slot = &p->slots[*id];
    slot->value.dtype = GRADCAM_F32;
    slot->value.ndim = ndim;
    memcpy(slot->value.shape, shape, (size_t)ndim * sizeof *shape);
    gc_row_strides(ndim, shape, slot->value.strides);
    slot->constant = 1;
    return slot;
}

/* params: scale, beta, mean, variance. */
static void scale_bias(int64_t channels, const gc_tensor *bias, const gc_tensor *const *params, float epsilon,
                       double *scale, float *new_bias)
{
    for (int64_t c = 0; c < channels; c++) {
        double var = (double)((const float *)params[3]->data)[c] + (double)epsilon;
        double s = (double)((const float *)params[0]->data)[c] / sqrt(var);
        double b = bias == NULL ? 0.0 : (double)((const float *)bias->data)[c];
        scale[c] = s;
        new_bias[c] = (float)(s * (b - (double)((const float *)params[2]->data)[c]) +
                              (double)((const float *)params[1]->data)[c]);
    }
}

static bool inference(const gc_plan *p, const gc_node *n)
{
    gc_attr_list attrs = {n->attrs, n->n_attrs};
    for (int32_t i = 1; i < n->n_out; i++) {
        if (n->out[i] >= 0 && p->readers[n->out[i]] > 0) {
            return false;
        }
    }
    return n->n_in == 5 && n->out[0] >= 0 && gc_attr_int(&attrs, "training_mode", 0) == 0 &&
           gc_attr_int(&attrs, "spatial", 1) == 1;
}

/* The convolution's weights and the parameters are those of the network itself. */
static bool all_last(gc_plan *p, const gc_step *conv, const gc_node *n)
{
    bool lasting = p->slots[conv->in[1]].lasting;
    if (conv->call.n_in > 2 && conv->in[2] >= 0) {
        lasting = lasting && p->slots[conv->in[2]].lasting;
    }
    for (int32_t i = 1; i < 5; i++) {
        lasting = lasting && p->slots[gc_plan_slot(p, n->in[i])].lasting;
    }
    return lasting;
}

static gc_status replace_weights(gc_plan *p, gc_step *conv, const gc_node *n, const gc_tensor *const *params,
                                 gc_error *err)
{
    gc_attr_list attrs = {n->attrs, n->n_attrs};
    const gc_tensor *w = &p->slots[conv->in[1]].value;
    const gc_tensor *bias = conv->call.n_in > 2 && conv->in[2] >= 0 ? &p->slots[conv->in[2]].value : NULL;
    int32_t lasting = all_last(p, conv, n);
    int32_t weight_slot = -1, bias_slot = -1;
    gc_slot *new_w = add_slot(p, w->ndim, w->shape, &weight_slot);
    gc_slot *new_bias = add_slot(p, 1, w->shape, &bias_slot);
    size_t channels = (size_t)w->shape[0];
    new_w->value.absent = 1;
    new_w->unscaled = conv->in[1];
    new_w->scale = gc_mem_alloc_raw(p->ctx, channels + 1, sizeof *new_w->scale);
    new_bias->value.data = new_bias->owned = gc_mem_alloc_raw(p->ctx, channels + 1, sizeof(float));
    if (new_w->scale == NULL || new_bias->owned == NULL) {
        return GC_NOMEM(err);
    }
    scale_bias(w->shape[0], bias, params, gc_attr_float(&attrs, "epsilon", 1e-5f), new_w->scale, new_bias->owned);
    new_w->lasting = new_bias->lasting = lasting;
    conv->in[1] = weight_slot;
    conv->in[2] = bias_slot;
    conv->call.in[1] = &p->slots[weight_slot].value;
    conv->call.in[2] = &p->slots[bias_slot].value;
    conv->call.n_in = 3; /* the arrays have one place more than a convolution without bias needs */
    return GRADCAM_OK;
}

gc_status gc_fold_batch_norm(gc_plan *p, const gc_node *n, bool *folded, gc_error *err)
{
    gc_step *conv = strcmp(n->op_name, "BatchNormalization") == 0 && n->custom == NULL && inference(p, n)
                        ? lonely_convolution(p, n->in[0])
                        : NULL;
    *folded = false;
    if (conv == NULL) {
        return GRADCAM_OK;
    }
    const gc_tensor *params[4];
    for (int32_t i = 0; i < 4; i++) {
        params[i] = constant(p, n->in[i + 1], p->slots[conv->in[1]].value.shape[0]);
        if (params[i] == NULL) {
            return GRADCAM_OK;
        }
        GC_TRY(gc_plan_hold(p, gc_plan_slot(p, n->in[i + 1]), err));
    }
    GC_TRY(replace_weights(p, conv, n, params, err));
    p->slot_of[n->in[0]] = -1;
    p->slot_of[n->out[0]] = conv->out[0];
    p->slots[conv->out[0]].net_value = n->out[0];
    *folded = true;
    return GRADCAM_OK;
}
