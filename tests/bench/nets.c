/* SPDX-License-Identifier: MIT */
/* The seven networks, layer by layer as their papers and torchvision have them. */
#include "model.h"

#include <string.h>

static model_conv conv_of(int64_t out, int64_t kernel, int64_t stride, double gain)
{
    model_conv conv = {out, kernel, stride, kernel / 2, 1, gain, 0};
    return conv;
}

/* Convolution with bias, ReLU. */
static int conv_relu(model *m, int x, model_conv conv)
{
    conv.bias = 1;
    return model_feature(m, model_add_unary(m, "Relu", model_add_conv(m, x, conv)));
}

/* ---- VGG16: Simonyan 2014, configuration D ---- */

static int vgg16(model *m)
{
    static const int64_t widths[] = {64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0};
    int x = model_input(m, 3);
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        x = widths[i] ? conv_relu(m, x, conv_of(widths[i], 3, 1, MODEL_GAIN_RELU))
                      : model_add_pool(m, "MaxPool", x, 2, 2, 0, 0);
    }
    x = model_add_flatten(m, x);
    for (int i = 0; i < 2; i++) {
        x = model_add_unary(m, "Relu", model_add_linear(m, x, 4096, MODEL_GAIN_RELU));
    }
    return model_add_linear(m, x, 1000, MODEL_GAIN_RELU);
}

/* ---- SqueezeNet 1.1: Iandola 2016 ---- */

static int fire(model *m, int x, int64_t squeeze, int64_t expand)
{
    int s = conv_relu(m, x, conv_of(squeeze, 1, 1, MODEL_GAIN_RELU)), sides[2];
    sides[0] = conv_relu(m, s, conv_of(expand, 1, 1, MODEL_GAIN_RELU));
    sides[1] = conv_relu(m, s, conv_of(expand, 3, 1, MODEL_GAIN_RELU));
    return model_feature(m, model_add_concat(m, sides, 2));
}

static int squeezenet(model *m)
{
    static const int64_t squeeze[] = {16, 16, 0, 32, 32, 0, 48, 48, 64, 64};
    model_conv first = {64, 3, 2, 0, 1, MODEL_GAIN_RELU, 1};
    int x = model_add_pool(m, "MaxPool", conv_relu(m, model_input(m, 3), first), 3, 2, 0, 1);
    for (size_t i = 0; i < sizeof squeeze / sizeof squeeze[0]; i++) {
        x = squeeze[i] ? fire(m, x, squeeze[i], 4 * squeeze[i]) : model_add_pool(m, "MaxPool", x, 3, 2, 0, 1);
    }
    x = conv_relu(m, x, conv_of(1000, 1, 1, MODEL_GAIN_RELU));
    return model_add_flatten(m, model_add_global_pool(m, x));
}

/* ---- ResNets: He 2015; the stride sits on the 3x3 convolution ---- */

static int conv_norm(model *m, int x, model_conv conv, double scale)
{
    return model_add_norm(m, model_add_conv(m, x, conv), scale);
}

static int conv_norm_relu(model *m, int x, model_conv conv)
{
    return model_feature(m, model_add_unary(m, "Relu", conv_norm(m, x, conv, 1)));
}

/* The branch is added at half its size, so that sixteen blocks do not explode. */
static int residual_block(model *m, int x, int64_t width, int64_t stride, int bottleneck, int project)
{
    const double half = 0.5;
    int64_t out = bottleneck ? 4 * width : width;
    int branch = x;
    if (bottleneck) {
        branch = conv_norm_relu(m, branch, conv_of(width, 1, 1, MODEL_GAIN_RELU));
        branch = conv_norm_relu(m, branch, conv_of(width, 3, stride, MODEL_GAIN_RELU));
        branch = conv_norm(m, branch, conv_of(out, 1, 1, MODEL_GAIN_RELU), half);
    } else {
        branch = conv_norm_relu(m, branch, conv_of(width, 3, stride, MODEL_GAIN_RELU));
        branch = conv_norm(m, branch, conv_of(out, 3, 1, MODEL_GAIN_RELU), half);
    }
    int skip = project ? conv_norm(m, x, conv_of(out, 1, stride, MODEL_GAIN_LINEAR), 1) : x;
    return model_feature(m, model_add_unary(m, "Relu", model_add_binary(m, "Add", branch, skip)));
}

/* 7x7 convolution and 3x3 pooling, a quarter of the image's extent. */
static int stem(model *m, int64_t width)
{
    int x = conv_norm_relu(m, model_input(m, 3), conv_of(width, 7, 2, MODEL_GAIN_RELU));
    return model_add_pool(m, "MaxPool", x, 3, 2, 1, 0);
}

static int classify(model *m, int x, double gain)
{
    return model_add_linear(m, model_add_flatten(m, model_add_global_pool(m, x)), 1000, gain);
}

static int resnet(model *m, const int *blocks, int bottleneck)
{
    int x = stem(m, 64);
    for (int stage = 0; stage < 4; stage++) {
        for (int i = 0; i < blocks[stage]; i++) {
            int first = i == 0 && (stage > 0 || bottleneck);
            x = residual_block(m, x, INT64_C(64) << stage, i == 0 && stage > 0 ? 2 : 1, bottleneck, first);
        }
    }
    return classify(m, x, MODEL_GAIN_RELU);
}

static int resnet18(model *m)
{
    static const int blocks[4] = {2, 2, 2, 2};
    return resnet(m, blocks, 0);
}

static int resnet50(model *m)
{
    static const int blocks[4] = {3, 4, 6, 3};
    return resnet(m, blocks, 1);
}

/* ---- DenseNet-121: Huang 2016; growth 32, normalisation before each convolution ---- */

static int norm_relu(model *m, int x)
{
    return model_feature(m, model_add_unary(m, "Relu", model_add_norm(m, x, 1)));
}

static int dense_block(model *m, int x, int layers)
{
    int maps[MODEL_MAX_IN] = {x}, n = 1;
    for (int i = 0; i < layers; i++) {
        int y = n == 1 ? x : model_add_concat(m, maps, n);
        y = conv_norm_relu(m, norm_relu(m, y), conv_of(4 * 32, 1, 1, MODEL_GAIN_RELU));
        maps[n++] = model_add_conv(m, y, conv_of(32, 3, 1, MODEL_GAIN_RELU));
    }
    return model_feature(m, model_add_concat(m, maps, n));
}

static int densenet121(model *m)
{
    static const int layers[4] = {6, 12, 24, 16};
    int x = stem(m, 64);
    for (int stage = 0; stage < 4; stage++) {
        x = dense_block(m, x, layers[stage]);
        if (stage < 3) {
            int64_t half = m->failed ? 1 : m->values[x].channels / 2;
            x = model_add_conv(m, norm_relu(m, x), conv_of(half, 1, 1, MODEL_GAIN_RELU));
            x = model_add_pool(m, "AveragePool", x, 2, 2, 0, 0);
        }
    }
    return classify(m, norm_relu(m, x), MODEL_GAIN_RELU);
}

/* ---- inverted bottlenecks: MobileNetV2 (Sandler 2018), EfficientNet-B0 (Tan 2019) ---- */

typedef struct stage {
    int64_t expand, out, repeats, stride, kernel;
} stage;

static int conv_norm_relu6(model *m, int x, model_conv conv)
{
    return model_feature(m, model_add_clip(m, conv_norm(m, x, conv, 1), 0, 6));
}

static model_conv depthwise_of(const model *m, int x, int64_t kernel, int64_t stride, double gain)
{
    model_conv conv = conv_of(m->failed ? 1 : m->values[x].channels, kernel, stride, gain);
    conv.group = conv.out;
    return conv;
}

static int64_t channels_of(const model *m, int x)
{
    return m->failed ? 1 : m->values[x].channels;
}

static int mobile_block(model *m, int x, const stage *s, int64_t stride)
{
    int y = x, same = stride == 1 && channels_of(m, x) == s->out;
    if (s->expand != 1) {
        y = conv_norm_relu6(m, y, conv_of(channels_of(m, x) * s->expand, 1, 1, MODEL_GAIN_LINEAR));
    }
    y = conv_norm_relu6(m, y, depthwise_of(m, y, s->kernel, stride, MODEL_GAIN_RELU));
    y = conv_norm(m, y, conv_of(s->out, 1, 1, MODEL_GAIN_RELU), same ? 0.5 : 1);
    return model_feature(m, same ? model_add_binary(m, "Add", x, y) : y);
}

static int mobilenet_v2(model *m)
{
    static const stage stages[7] = {{1, 16, 1, 1, 3}, {6, 24, 2, 2, 3},  {6, 32, 3, 2, 3}, {6, 64, 4, 2, 3},
                                    {6, 96, 3, 1, 3}, {6, 160, 3, 2, 3}, {6, 320, 1, 1, 3}};
    int x = conv_norm_relu6(m, model_input(m, 3), conv_of(32, 3, 2, MODEL_GAIN_RELU));
    for (int i = 0; i < 7; i++) {
        for (int64_t k = 0; k < stages[i].repeats; k++) {
            x = mobile_block(m, x, &stages[i], k == 0 ? stages[i].stride : 1);
        }
    }
    x = conv_norm_relu6(m, x, conv_of(1280, 1, 1, MODEL_GAIN_LINEAR));
    return classify(m, x, MODEL_GAIN_RELU);
}

/* x * sigmoid(x), as exporters write it */
static int silu(model *m, int x)
{
    return model_add_binary(m, "Mul", x, model_add_unary(m, "Sigmoid", x));
}

static int conv_norm_silu(model *m, int x, model_conv conv)
{
    return model_feature(m, silu(m, conv_norm(m, x, conv, 1)));
}

/* Each channel times a gate computed from the means of all; the gate is about a half. */
static int squeeze_excite(model *m, int x, int64_t squeezed)
{
    model_conv down = conv_of(squeezed, 1, 1, MODEL_GAIN_RELU), up = conv_of(channels_of(m, x), 1, 1, MODEL_GAIN_RELU);
    down.bias = up.bias = 1;
    int gate = silu(m, model_add_conv(m, model_add_global_pool(m, x), down));
    gate = model_add_unary(m, "Sigmoid", model_add_conv(m, gate, up));
    return model_add_binary(m, "Mul", x, gate);
}

static int efficient_block(model *m, int x, const stage *s, int64_t stride)
{
    const double gate = 4; /* undoes the gate's half */
    int64_t squeezed = channels_of(m, x) / 4;
    int y = x, same = stride == 1 && channels_of(m, x) == s->out;
    if (s->expand != 1) {
        y = conv_norm_silu(m, y, conv_of(channels_of(m, x) * s->expand, 1, 1, MODEL_GAIN_LINEAR));
    }
    y = conv_norm_silu(m, y, depthwise_of(m, y, s->kernel, stride, MODEL_GAIN_SILU));
    y = model_feature(m, squeeze_excite(m, y, squeezed));
    y = conv_norm(m, y, conv_of(s->out, 1, 1, MODEL_GAIN_SILU * gate), same ? 0.5 : 1);
    return model_feature(m, same ? model_add_binary(m, "Add", x, y) : y);
}

static int efficientnet_b0(model *m)
{
    static const stage stages[7] = {{1, 16, 1, 1, 3},  {6, 24, 2, 2, 3},  {6, 40, 2, 2, 5}, {6, 80, 3, 2, 3},
                                    {6, 112, 3, 1, 5}, {6, 192, 4, 2, 5}, {6, 320, 1, 1, 3}};
    int x = conv_norm_silu(m, model_input(m, 3), conv_of(32, 3, 2, MODEL_GAIN_RELU));
    for (int i = 0; i < 7; i++) {
        for (int64_t k = 0; k < stages[i].repeats; k++) {
            x = efficient_block(m, x, &stages[i], k == 0 ? stages[i].stride : 1);
        }
    }
    x = conv_norm_silu(m, x, conv_of(1280, 1, 1, MODEL_GAIN_LINEAR));
    return classify(m, x, MODEL_GAIN_SILU);
}

/* ---- by name ---- */

static const struct {
    const char *name;
    int (*describe)(model *m);
} nets[] = {{"vgg16", vgg16},
            {"resnet18", resnet18},
            {"resnet50", resnet50},
            {"mobilenet_v2", mobilenet_v2},
            {"squeezenet1_1", squeezenet},
            {"densenet121", densenet121},
            {"efficientnet_b0", efficientnet_b0}};

const char *model_net_name(size_t i)
{
    return i < sizeof nets / sizeof nets[0] ? nets[i].name : NULL;
}

int model_make(model *m, const char *name, int64_t size)
{
    memset(m, 0, sizeof *m);
    for (size_t i = 0; i < sizeof nets / sizeof nets[0]; i++) {
        if (strcmp(name, nets[i].name) == 0) {
            m->name = nets[i].name;
            m->size = size;
            m->random = UINT64_C(0x9e3779b97f4a7c15);
            nets[i].describe(m);
            return m->failed ? -1 : 0;
        }
    }
    return -1;
}
