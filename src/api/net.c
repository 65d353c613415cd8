/* SPDX-License-Identifier: MIT */
/* Queries of a network. */
#include <string.h>

#include "graph/net.h"

static const gc_node *node_at(const gc_net *net, int32_t node)
{
    return net != NULL && node >= 0 && node < net->n_nodes ? &net->nodes[node] : NULL;
}

static const char *value_name(const gc_net *net, const int32_t *ids, int32_t n, int32_t k)
{
    return k >= 0 && k < n ? (ids[k] < 0 ? "" : net->values[ids[k]].name) : NULL;
}

int32_t gc_net_node_count(const gc_net *net)
{
    return net == NULL ? -1 : net->n_nodes;
}

const char *gc_net_node_name(const gc_net *net, int32_t node)
{
    const gc_node *n = node_at(net, node);
    return n == NULL ? NULL : n->name;
}

const char *gc_net_node_op(const gc_net *net, int32_t node)
{
    const gc_node *n = node_at(net, node);
    return n == NULL ? NULL : n->op_name;
}

int32_t gc_net_node_output_count(const gc_net *net, int32_t node)
{
    const gc_node *n = node_at(net, node);
    return n == NULL ? -1 : n->n_out;
}

const char *gc_net_node_output(const gc_net *net, int32_t node, int32_t k)
{
    const gc_node *n = node_at(net, node);
    return n == NULL ? NULL : value_name(net, n->out, n->n_out, k);
}

int32_t gc_net_node_input_count(const gc_net *net, int32_t node)
{
    const gc_node *n = node_at(net, node);
    return n == NULL ? -1 : n->n_in;
}

const char *gc_net_node_input(const gc_net *net, int32_t node, int32_t k)
{
    const gc_node *n = node_at(net, node);
    return n == NULL ? NULL : value_name(net, n->in, n->n_in, k);
}

int32_t gc_net_producer(const gc_net *net, const char *value)
{
    int32_t id = net == NULL ? -1 : gc_net_find_value(net, value);
    return id < 0 ? -1 : net->values[id].producer;
}

int32_t gc_net_input_count(const gc_net *net)
{
    return net == NULL ? -1 : net->n_inputs;
}

const char *gc_net_input_name(const gc_net *net, int32_t k)
{
    return net == NULL ? NULL : value_name(net, net->inputs, net->n_inputs, k);
}

gc_status gc_net_input_desc(const gc_net *net, int32_t k, gc_tensor_desc *desc)
{
    if (net == NULL || desc == NULL || k < 0 || k >= net->n_inputs) {
        return GRADCAM_E_INVALID;
    }
    const gc_value *v = &net->values[net->inputs[k]];
    memset(desc, 0, sizeof *desc);
    desc->struct_size = (uint32_t)sizeof *desc;
    desc->dtype = v->dtype;
    desc->ndim = v->ndim;
    memcpy(desc->shape, v->shape, sizeof desc->shape);
    return GRADCAM_OK;
}

int64_t gc_net_parameter_count(const gc_net *net)
{
    int64_t count = 0;
    for (int32_t i = 0; net != NULL && i < net->n_values; i++) {
        const gc_tensor *w = net->values[i].weight;
        count += w != NULL && w->dtype <= GRADCAM_BF16 ? gc_numel(w) : 0;
    }
    return net == NULL ? -1 : count;
}

int32_t gc_net_output_count(const gc_net *net)
{
    return net == NULL ? -1 : net->n_outputs;
}

const char *gc_net_output_name(const gc_net *net, int32_t k)
{
    return net == NULL ? NULL : value_name(net, net->outputs, net->n_outputs, k);
}
