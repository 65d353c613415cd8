# SPDX-License-Identifier: MIT
"""One network at one batch size: built by torchvision with random weights, exported once.

Every rival and libgradcam get the same files:

    weights.pt  input.npy  output.npy  activation.npy  net.onnx  layer.txt  net.ncnn.param  net.ncnn.bin

Heavy packages are imported where they are used, so that a fresh process pays for its own only.
"""

import functools
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[3]
SIZE = 224
# The module whose output is explained: the deepest feature map, as the libraries' own examples have it.
LAYERS = {"vgg16": "features.30", "resnet18": "layer4.1", "resnet50": "layer4.2", "mobilenet_v2": "features.18",
          "squeezenet1_1": "features.12", "densenet121": "features.denseblock4", "efficientnet_b0": "features.8",
          "convnext_tiny": "features.7", "vit_b_16": "encoder.layers.encoder_layer_11.ln_1"}
TOKENS = {"vit_b_16"}  # the layer is [N, 1 + h * w, channels], class token first
# Where the rivals' guided backpropagation has ReLUs to guide.
RELU_NETS = {"vgg16", "resnet18", "resnet50", "mobilenet_v2", "squeezenet1_1", "densenet121"}


def torchvision_models():
    """torchvision beside a CPU build of PyTorch: the tests know what must be declared first."""
    sys.path.insert(0, str(ROOT / "tests" / "python"))
    import conftest  # noqa: F401
    import torchvision.models
    return torchvision.models


def library():
    """The binding of this source tree, ahead of an installed one."""
    folder = str(ROOT / "bindings" / "python")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import gradcam
    return gradcam


class Case:
    """A network, a batch size, a number of threads, and a folder for the files."""

    def __init__(self, net, threads, batch, cache):
        self.net, self.threads, self.batch = net, threads, batch
        self.folder = pathlib.Path(cache).resolve() / f"{net}-b{batch}"

    def path(self, name):
        return str(self.folder / name)

    # ---- what the jobs ask for ----

    @functools.cached_property
    def x(self):
        return np.load(self.path("input.npy"))

    @functools.cached_property
    def image(self):
        import torch
        return torch.from_numpy(self.x)

    @functools.cached_property
    def logits(self):
        return np.load(self.path("output.npy"))

    @property
    def classes(self):
        return self.logits.argmax(1).tolist()

    @functools.cached_property
    def _weights(self):
        import torch
        return torch.load(self.path("weights.pt"))

    def model(self, frozen=False):
        """A module of its own for every job, as libraries leave hooks in it; all share the weights' memory."""
        import torch
        models = torchvision_models()
        torch.set_num_threads(self.threads)
        with torch.device("meta"):
            model = models.get_model(self.net, weights=None)
        model.load_state_dict(self._weights, assign=True)
        return model.eval().requires_grad_(not frozen)

    def layer_of(self, model):
        return model.get_submodule(LAYERS[self.net])

    @property
    def layer(self):
        """The same layer as a value of the ONNX file."""
        return pathlib.Path(self.path("layer.txt")).read_text()

    # ---- making the files ----

    def prepare(self):
        """Makes what is not there yet; a message for each thing that could not be made."""
        if not (self.folder / "layer.txt").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            model = self._randomised()
            self._record(model)
            self._export(model)
            pathlib.Path(self.path("layer.txt")).write_text(self._find_layer())

    def _randomised(self):
        """Random weights under which values neither vanish nor explode, BatchNorm statistics as after training."""
        import torch
        from torch import nn
        torch.manual_seed(20)
        model = torchvision_models().get_model(self.net, weights=None).eval()
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.uniform_(module.bias, -0.02, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                module.train().momentum = 1.0  # the statistics become those of the next batch
            if hasattr(module, "layer_scale"):  # 1e-6 at birth, which would hide the blocks
                nn.init.constant_(module.layer_scale, 0.1)
        with torch.no_grad():
            model(torch.randn(max(self.batch, 2), 3, SIZE, SIZE))
        return model.eval()

    def _record(self, model):
        import torch
        kept = []
        hook = self.layer_of(model).register_forward_hook(lambda _m, _i, y: kept.append(y.detach().clone()))
        image = torch.randn(self.batch, 3, SIZE, SIZE)
        with torch.no_grad():
            output = model(image)
        hook.remove()
        torch.save(model.state_dict(), self.path("weights.pt"))
        for name, tensor in (("input", image), ("output", output), ("activation", kept[0])):
            np.save(self.path(name + ".npy"), tensor.numpy())

    def _export(self, model):
        import torch
        image = torch.from_numpy(np.load(self.path("input.npy")))
        torch.onnx.export(model, (image,), self.path("net.onnx"), input_names=["input"], output_names=["output"],
                          dynamo=True, external_data=False, verbose=False)

    def ncnn_files(self):
        """Made by pnnx from a traced module, at the first call."""
        import torch
        files = self.path("net.ncnn.param"), self.path("net.ncnn.bin")
        if not pathlib.Path(files[1]).exists():
            pnnx = shutil.which("pnnx")
            if pnnx is None:
                raise ModuleNotFoundError("pnnx is not installed", name="pnnx")
            torch.jit.trace(self.model(frozen=True), self.image, check_trace=False).save(self.path("net.pt"))
            shape = json.dumps(list(self.x.shape)).replace(" ", "")
            subprocess.run([pnnx, "net.pt", "inputshape=" + shape, "fp16=0"], cwd=self.folder, check=True,
                           capture_output=True)
        return files

    def _find_layer(self):
        """The last value that equals the layer's activation, among all of its shape."""
        gradcam = library()
        wanted = np.load(self.path("activation.npy"))
        with gradcam.Run(gradcam.Net(self.path("net.onnx"))) as run:
            run.set_input(None, self.x)
            run.prepare()
            names = [name for node in run.net.nodes for name in node.outputs if name and _has_shape(run, name, wanted)]
            for name in names:
                run.watch(name, gradcam.WATCH_VALUE)
            run.forward()
            near = [name for name in names if differs(run.value(name, copy=False), wanted) < 1e-3]
        if not near:
            raise ValueError(f"{self.net}: no value of the ONNX file equals the output of {LAYERS[self.net]}")
        return near[-1]


def _has_shape(run, name, wanted):
    try:
        return run.spec(name).shape == wanted.shape
    except library().GradcamError:  # not computed in this plan
        return False


def differs(got, expected):
    """The largest difference relative to the largest expected value."""
    if got.shape != expected.shape:
        return float("inf")
    return float(np.abs(got - expected).max() / np.abs(expected).max())
