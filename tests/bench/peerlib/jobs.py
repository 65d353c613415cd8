# SPDX-License-Identifier: MIT
"""Who does what: a job makes everything ready and returns the function that is timed.

Kinds and what the timed function returns:

    predict   the logits
    gradcam   the whole job: class found, map rectified, at the input's size, each sample scaled to [0, 1]
    guided    the guided gradient of the input
    sweep     Grad-CAM at every feature layer, raw
    masked    weights of 32 channels as Score-CAM has them; ablated: as Ablation-CAM; see perturb.py

A package that is missing raises ModuleNotFoundError, which the table shows as such.
"""

import contextlib
import unittest.mock

import numpy as np

from . import perturb
from .case import SIZE, TOKENS, library, torchvision_models

OURS, OURS_HALF = "libgradcam", "libgradcam bfloat16"
EPSILON = 1e-12  # a map that is zero everywhere stays zero

# ---- libgradcam, through ctypes ----


def our_run(case, precision="f32"):
    """bf16: an error where the machine has no instructions for it."""
    gradcam = library()
    run = gradcam.Run(gradcam.Net(case.path("net.onnx"), gradcam.Context(threads=case.threads)))
    run.set_input(None, case.x)
    run.set_precision(precision)
    return run


def in_half(job):
    """The same job in bfloat16."""
    return lambda case: job(case, "bf16")


def our_predict(case, precision="f32"):
    run = our_run(case, precision)

    def predict():
        run.forward()
        return run.value("output")

    return predict


def our_gradcam(case, precision="f32"):
    gradcam, run, layer = library(), our_run(case, precision), case.layer
    full = np.empty((case.batch, SIZE, SIZE), np.float32)
    if case.net in TOKENS:
        return our_token_gradcam(case, run, layer)

    def explain():
        return run.gradcam(layer=layer, size=(SIZE, SIZE), normalize=True, into=full)

    return explain


def our_token_gradcam(case, run, layer):
    """Tokens have their channels on the last axis, and a class token in front."""
    gradcam = library()
    full = np.empty((case.batch, SIZE, SIZE), np.float32)

    def explain():
        maps = run.gradcam(layer=layer, channel_axis=-1, skip=1)
        side = int(maps.shape[1] ** 0.5)
        return gradcam.normalize(gradcam.resize(maps.reshape(-1, side, side), (SIZE, SIZE), into=full), inplace=True)

    return explain


def our_guided(case, precision="f32"):
    return our_run(case, precision).guided_backprop


def feature_layers(run):
    """Square maps [N, C, H, W] that activations, residual additions, gates and concatenations make."""
    wanted, found = {"Relu", "Clip", "Mul", "Add", "Concat", "Gelu", "HardSwish", "Swish"}, []
    run.prepare()
    for node in run.net.nodes:
        with contextlib.suppress(library().GradcamError):  # folded away: not computed in this plan
            shape = run.spec(node.outputs[0]).shape
            if node.op in wanted and len(shape) == 4 and shape[2] == shape[3] > 1:
                found.append(node.outputs[0])
    return found


def our_sweep(case):
    run = our_run(case)
    layers = feature_layers(run)
    if not layers:
        raise ValueError("no feature map")
    return lambda: run.gradcam_layers(layers)


# ---- inference alone ----


def onnxruntime_predict(case):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = case.threads, 1
    session = onnxruntime.InferenceSession(case.path("net.onnx"), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(["output"], {"input": case.x})[0]


def openvino_predict(case, **hints):
    import openvino
    compiled = openvino.Core().compile_model(case.path("net.onnx"), "CPU", {
        "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": case.threads, **hints})
    request = compiled.create_infer_request()

    def predict():
        return request.infer({0: case.x}, share_inputs=True, share_outputs=True)[0]

    predict.note = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    return predict


def openvino_float32_predict(case):
    return openvino_predict(case, INFERENCE_PRECISION_HINT="f32")


def ncnn_predict(case):
    import ncnn
    if case.batch != 1:
        raise ValueError("no batches")
    param, weights = case.ncnn_files()
    net = ncnn.Net()
    net.opt.num_threads = case.threads
    for half in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, half, False)
    net.load_param(param)
    net.load_model(weights)
    image = ncnn.Mat(case.x[0])

    def predict():
        extractor = net.create_extractor()
        extractor.input("in0", image)
        return np.array(extractor.extract("out0")[1])[None]

    return predict


def torch_predict(case):
    import torch
    model, image = case.model(frozen=True), case.image

    def predict():
        with torch.inference_mode():
            return model(image).numpy()

    return predict


def compiled_predict(case):
    """Inductor; weights are frozen only by this global switch and without gradients."""
    import torch
    import torch._inductor.config
    torch._inductor.config.freezing = True
    torch._dynamo.reset()
    model, image = torch.compile(case.model(frozen=True)), case.image

    def predict():
        with torch.no_grad():
            return model(image).numpy()

    return predict


# ---- Grad-CAM, the whole job ----


def grid_of(tokens):
    """[N, 1 + h * w, C] -> [N, C, h, w]."""
    n, count, channels = tokens.shape
    side = int((count - 1) ** 0.5)
    return tokens[:, 1:].reshape(n, side, side, channels).permute(0, 3, 1, 2)


def finished(maps):
    """[N, 1, h, w], rectified -> [N, SIZE, SIZE] in [0, 1], as an array."""
    from torch.nn.functional import interpolate
    full = interpolate(maps.detach(), (SIZE, SIZE), mode="bilinear")[:, 0]
    full -= full.amin((1, 2), keepdim=True)
    full /= full.amax((1, 2), keepdim=True) + EPSILON
    return full.numpy()


def autograd_gradcam(case):
    """The least that PyTorch needs: no weight gradients, the graph begins at the layer."""
    import torch
    model, kept = case.model(frozen=True), []

    def begin_here(_module, _inputs, output):
        kept[:] = [output.detach().requires_grad_()]
        return kept[0].clone()  # what follows may work in place

    case.layer_of(model).register_forward_hook(begin_here)

    def explain():
        score = model(case.image).amax(1).sum()
        gradient, activation = torch.autograd.grad(score, kept)[0], kept[0].detach()
        if activation.dim() == 3:
            gradient, activation = grid_of(gradient), grid_of(activation)
        alpha = gradient.mean((2, 3), keepdim=True)
        return finished(torch.relu((alpha * activation).sum(1, keepdim=True)))

    return explain


def captum_gradcam(case):
    """captum wants the class: it is told, which saves it finding out."""
    from captum.attr import LayerGradCam
    model, classes = case.model(), case.classes
    if case.net in TOKENS:
        raise ValueError("no layers of tokens")
    method = LayerGradCam(model, case.layer_of(model))
    return lambda: finished(method.attribute(case.image, classes, relu_attributions=True))


def torchcam_gradcam(case):
    torchvision_models()
    from torchcam.methods import GradCAM
    model = case.model()
    tokens = {"reshape_transform": grid_of} if case.net in TOKENS else {}
    method = GradCAM(model, target_layer=case.layer_of(model), **tokens)

    def explain():
        scores = model(case.image)
        return finished(method(scores.argmax(1).tolist(), scores, normalized=False)[0][:, None])

    return explain


def pytorch_grad_cam_gradcam(case):
    torchvision_models()
    from pytorch_grad_cam import GradCAM
    model = case.model()
    method = GradCAM(model, [case.layer_of(model)], reshape_transform=grid_of if case.net in TOKENS else None)
    return lambda: method(case.image, None)


# ---- guided backpropagation ----


def autograd_guided(case):
    """The least that PyTorch needs: no weight gradients; every ReLU and ReLU6, functions included."""
    import torch
    from torch.nn import functional

    class Guided(torch.autograd.Function):
        @staticmethod
        def forward(context, x, limit):
            y = x.clamp(0, limit)
            context.save_for_backward((y > 0) & (x < limit))
            return y

        @staticmethod
        def backward(context, gradient):
            return gradient.clamp(min=0) * context.saved_tensors[0], None

    def relu(x, inplace=False):
        return Guided.apply(x, float("inf"))

    def relu6(x, inplace=False):
        return Guided.apply(x, 6.0)

    model = case.model(frozen=True)

    def explain():
        image = case.image.clone().requires_grad_()
        with (unittest.mock.patch.object(functional, "relu", relu),
              unittest.mock.patch.object(functional, "relu6", relu6),
              unittest.mock.patch.object(functional, "hardtanh", lambda x, *_a, **_k: relu6(x))):
            score = model(image).amax(1).sum()
        return torch.autograd.grad(score, image)[0].numpy()

    return explain


def captum_guided(case):
    from captum.attr import GuidedBackprop
    method, classes = GuidedBackprop(case.model()), case.classes
    return lambda: method.attribute(case.image.clone().requires_grad_(), classes).detach().numpy()


def pytorch_grad_cam_guided(case):
    torchvision_models()
    from pytorch_grad_cam import GuidedBackpropReLUModel
    if case.batch != 1:
        raise ValueError("no batches")
    method = GuidedBackpropReLUModel(case.model(), device="cpu")
    return lambda: np.moveaxis(method(case.image.clone()), -1, 0)[None]


# ---- by kind and by whom ----

JOBS = {
    "predict": {OURS: our_predict, OURS_HALF: in_half(our_predict), "onnxruntime": onnxruntime_predict, "OpenVINO float32": openvino_float32_predict,
                "OpenVINO default": openvino_predict, "ncnn": ncnn_predict, "PyTorch eager": torch_predict,
                "PyTorch compiled": compiled_predict},
    "gradcam": {OURS: our_gradcam, OURS_HALF: in_half(our_gradcam), "PyTorch autograd": autograd_gradcam, "captum": captum_gradcam,
                "torchcam": torchcam_gradcam, "pytorch-grad-cam": pytorch_grad_cam_gradcam},
    "guided": {OURS: our_guided, OURS_HALF: in_half(our_guided), "PyTorch autograd": autograd_guided, "captum": captum_guided,
               "pytorch-grad-cam": pytorch_grad_cam_guided},
    "sweep": {OURS: our_sweep},
    "masked": {OURS: perturb.our_masked, "pytorch-grad-cam": perturb.pytorch_grad_cam_masked},
    "ablated": {OURS: perturb.our_ablated, "pytorch-grad-cam": perturb.pytorch_grad_cam_ablated},
}
