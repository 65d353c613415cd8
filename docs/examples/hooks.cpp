// SPDX-License-Identifier: MIT
//
// A network of one's own, described layer by layer with weights that are lent,
// not copied; a forward hook that changes an activation, a backward hook that
// watches the gradient.
//
//   c++ hooks.cpp $(pkg-config --cflags --libs gradcam) -o hooks
//
// The network: two 3x3 filters (vertical and horizontal edges), ReLU, the mean
// of each, and a score for "upright" and for "lying".  The picture: one bright
// vertical bar.
#include <gradcam/gradcam.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <vector>

namespace
{

void check(gc_status status, const gc_error &err)
{
    if (status != GRADCAM_OK) {
        throw std::runtime_error(err.message);
    }
}

// The objects of the library, released where their scope ends.
template <typename T, void (*release)(T *)> struct deleter {
    void operator()(T *p) const
    {
        release(p);
    }
};
using context = std::unique_ptr<gc_ctx, deleter<gc_ctx, gc_ctx_unref>>;
using network = std::unique_ptr<gc_net, deleter<gc_net, gc_net_unref>>;
using builder = std::unique_ptr<gc_builder, deleter<gc_builder, gc_builder_destroy>>;
using runner = std::unique_ptr<gc_run, deleter<gc_run, gc_run_destroy>>;
using tensor = std::unique_ptr<gc_tensor, deleter<gc_tensor, gc_tensor_unref>>;

// A tensor over the host's own numbers: they are borrowed and must outlive it.
tensor lend(const context &ctx, const float *data, std::vector<int64_t> shape)
{
    gc_error err{};
    gc_tensor_desc desc{};
    gc_tensor *t = nullptr;
    desc.dtype = GRADCAM_F32;
    desc.ndim = static_cast<int32_t>(shape.size());
    for (std::size_t i = 0; i < shape.size(); i++) {
        desc.shape[i] = shape[i];
    }
    desc.data = const_cast<float *>(data); // weights and inputs are only read
    check(gc_tensor_create(ctx.get(), &desc, &t, &err), err);
    return tensor(t);
}

void node(const builder &b, const char *op, std::vector<const char *> inputs, const char *output,
          std::vector<gc_attr> attributes = {})
{
    gc_error err{};
    check(gc_builder_node(b.get(), op, nullptr, inputs.data(), inputs.size(), &output, 1, attributes.data(),
                          attributes.size(), &err),
          err);
}

const float edges[2][1][3][3] = {{{{-1, 2, -1}, {-1, 2, -1}, {-1, 2, -1}}}, {{{-1, -1, -1}, {2, 2, 2}, {-1, -1, -1}}}};
const float scores[2][2] = {{1, 0}, {0, 1}};

network build(const context &ctx)
{
    static const int64_t pads[4] = {1, 1, 1, 1};
    gc_error err{};
    gc_builder *raw = nullptr;
    gc_net *net = nullptr;
    check(gc_builder_create(ctx.get(), 13, &raw, &err), err);
    builder b(raw);
    gc_tensor_desc image{};
    image.dtype = GRADCAM_F32;
    image.ndim = 4;
    image.shape[0] = -1; // any number of pictures
    image.shape[1] = 1;
    image.shape[2] = image.shape[3] = 8;
    check(gc_builder_input(b.get(), "image", &image, &err), err);
    check(gc_builder_weight(b.get(), "edges", lend(ctx, &edges[0][0][0][0], {2, 1, 3, 3}).get(), &err), err);
    check(gc_builder_weight(b.get(), "scores", lend(ctx, &scores[0][0], {2, 2}).get(), &err), err);
    node(b, "Conv", {"image", "edges"}, "filtered", {{"pads", pads, 4, GRADCAM_ATTR_INTS, 0}});
    node(b, "Relu", {"filtered"}, "features");
    node(b, "GlobalAveragePool", {"features"}, "pooled");
    node(b, "Flatten", {"pooled"}, "flat");
    node(b, "MatMul", {"flat", "scores"}, "answer");
    check(gc_builder_output(b.get(), "answer", &err), err);
    check(gc_builder_finish(b.get(), &net, &err), err);
    return network(net);
}

// A forward hook with GRADCAM_HOOK_WRITE: the upper half of every feature map goes.
int32_t blank_upper_half(void *, const gc_hook_event *event)
{
    gc_tensor_desc d{};
    gc_tensor_describe(event->tensor, &d); // strides in elements; the layout is the library's choice
    for (int64_t k = 0; k < d.shape[1]; k++) {
        for (int64_t y = 0; y < d.shape[2] / 2; y++) {
            for (int64_t x = 0; x < d.shape[3]; x++) {
                static_cast<float *>(d.data)[k * d.strides[1] + y * d.strides[2] + x * d.strides[3]] = 0;
            }
        }
    }
    return 0;
}

// A backward hook: the gradient of the first feature map.
int32_t note_gradient(void *user, const gc_hook_event *event)
{
    gc_tensor_desc d{};
    gc_tensor_describe(event->tensor, &d);
    *static_cast<float *>(user) = static_cast<float *>(d.data)[0];
    return 0;
}

void print_map(const char *title, gc_run *run)
{
    gc_error err{};
    gc_tensor *raw = nullptr;
    gc_tensor_desc d{};
    check(gc_gradcam(run, nullptr, &raw, &err), err); // best class, deepest feature map
    tensor map(raw);
    gc_tensor_describe(map.get(), &d);
    std::printf("%s\n", title);
    for (int64_t y = 0; y < d.shape[1]; y++) {
        for (int64_t x = 0; x < d.shape[2]; x++) {
            std::printf("%c", static_cast<float *>(d.data)[y * d.strides[1] + x] > 0 ? '#' : '.');
        }
        std::printf("\n");
    }
}

void work()
{
    float picture[64] = {};
    for (int y = 0; y < 8; y++) {
        picture[y * 8 + 3] = 1;
    }
    gc_error err{};
    gc_ctx *raw_ctx = nullptr;
    check(gc_ctx_create(nullptr, &raw_ctx, &err), err);
    context ctx(raw_ctx);
    network net = build(ctx);
    gc_run *raw_run = nullptr;
    check(gc_run_create(net.get(), &raw_run, &err), err);
    runner run(raw_run);
    tensor image = lend(ctx, picture, {1, 1, 8, 8});
    check(gc_run_set_input(run.get(), nullptr, image.get(), &err), err);
    print_map("as it is", run.get());

    int32_t blank = -1, watch = -1;
    float gradient = 0;
    check(gc_run_add_hook(run.get(), "features", GRADCAM_HOOK_FORWARD | GRADCAM_HOOK_WRITE, blank_upper_half, nullptr,
                          &blank, &err),
          err);
    check(gc_run_add_hook(run.get(), "features", GRADCAM_HOOK_BACKWARD, note_gradient, &gradient, &watch, &err), err);
    print_map("upper half of the features blanked", run.get());
    std::printf("gradient of the score at a feature: %.6f, one of 64 positions\n", static_cast<double>(gradient));
    gc_run_remove_hook(run.get(), blank);
    print_map("hook removed", run.get());
}

} // namespace

int main()
{
    try {
        work();
    } catch (const std::exception &e) {
        std::fprintf(stderr, "hooks: %s\n", e.what());
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
