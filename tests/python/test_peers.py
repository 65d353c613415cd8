# SPDX-License-Identifier: MIT
"""Live against PyTorch, captum and pytorch-grad-cam on networks exported to ONNX."""

import io
import os
import pathlib
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
captum = pytest.importorskip("captum")
ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("GRADCAM_LIBRARY", str(ROOT / "build" / "libgradcam.so"))
sys.path.insert(0, str(ROOT / "bindings" / "python"))
import gradcam  # noqa: E402
from captum.attr import Deconvolution, GuidedBackprop, GuidedGradCam, LayerGradCam, Saliency  # noqa: E402
from torch import nn  # noqa: E402

BOUND = 1e-5  # relative to the largest element of the reference in float64


def conv(i, o, k=3, **options):
    return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2, **options), nn.BatchNorm2d(o), nn.ReLU())


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(),
                                  nn.Conv2d(channels, channels, 3, padding=1))
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(x + self.body(x))


class Fire(nn.Module):
    def __init__(self, i, squeeze, expand):
        super().__init__()
        self.squeeze = conv(i, squeeze, 1)
        self.left, self.right = conv(squeeze, expand, 1), conv(squeeze, expand, 3)

    def forward(self, x):
        x = self.squeeze(x)
        return torch.cat([self.left(x), self.right(x)], 1)


def head(channels, classes=7):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


NETWORKS = {
    "plain": lambda: nn.Sequential(conv(3, 8), nn.MaxPool2d(2), conv(8, 12), conv(12, 16), *head(16)),
    "residual": lambda: nn.Sequential(conv(3, 8, stride=2), Residual(8), Residual(8), conv(8, 8), *head(8)),
    "fire": lambda: nn.Sequential(conv(3, 8, 7, stride=2), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(8, 4, 6),
                                  conv(12, 10), *head(10)),
    "depthwise": lambda: nn.Sequential(conv(3, 8), conv(8, 8, groups=8), conv(8, 12, 1), *head(12)),
    "dense_head": lambda: nn.Sequential(conv(3, 6), nn.MaxPool2d(2), conv(6, 9), nn.AvgPool2d(2), nn.Flatten(),
                                        nn.Linear(9 * 36, 20), nn.ReLU(), nn.Linear(20, 7)),
}


def target_layer(net):
    """The deepest module on the top level that gives a feature map."""
    return [m for m in net if isinstance(m, (nn.Sequential, Residual, Fire))][-1]


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    torch.manual_seed(sum(map(ord, request.param)))
    net = NETWORKS[request.param]().eval()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.uniform_(-0.3, 0.3)
            m.running_var.uniform_(0.5, 1.5)
    x = torch.randn(2, 3, 24, 24)
    file = io.BytesIO()
    torch.onnx.export(net, x, file, opset_version=17, dynamo=False, input_names=["x"], output_names=["y"])
    run = gradcam.Run(gradcam.Net(file.getvalue()))
    run.set_input("x", x.numpy())
    yield net.double(), x.double(), run
    run.close()


def close(got, want, bound=BOUND):
    want = want.detach().numpy()
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= bound * max(np.abs(want).max(), 1e-30)


def test_forward(case):
    net, x, run = case
    run.forward()
    close(run.value("y"), net(x))


@pytest.mark.parametrize("index", [0, 3])
def test_gradcam(case, index):
    net, x, run = case
    want = LayerGradCam(net, target_layer(net)).attribute(x, index, relu_attributions=True)
    close(run.gradcam(kind=gradcam.CLASS, index=index), want[:, 0])
    signed = LayerGradCam(net, target_layer(net)).attribute(x, index)
    close(run.gradcam(kind=gradcam.CLASS, index=index, signed_map=1), signed[:, 0])
    close(run.gradcam(kind=gradcam.CLASS, index=index, negate=True), torch.relu(-signed[:, 0]))


def test_input_gradients(case):
    net, x, run = case
    close(run.guided_backprop(kind=gradcam.CLASS, index=2, plain_rule=1), Saliency(net).attribute(x, 2, abs=False))
    close(run.guided_backprop(kind=gradcam.CLASS, index=2), GuidedBackprop(net).attribute(x, 2))
    close(run.guided_backprop(kind=gradcam.CLASS, index=2, rule=gradcam.DECONVNET),
          Deconvolution(net).attribute(x, 2))


def test_guided_gradcam(case):
    net, x, run = case
    want = GuidedGradCam(net, target_layer(net)).attribute(x, 1, interpolate_mode="bilinear")
    close(run.guided_gradcam(kind=gradcam.CLASS, index=1), want)
    want = GuidedGradCam(net, target_layer(net)).attribute(x, 1, interpolate_mode="nearest")
    close(run.guided_gradcam(kind=gradcam.CLASS, index=1, resize=2), want)


def test_pytorch_grad_cam(case):
    library = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    net, x, run = case
    net, x = net.float(), x.float()
    with library.GradCAM(net, [target_layer(net)]) as cam:
        want = cam(x, [ClassifierOutputTarget(4)] * len(x))
    net.double()
    got = run.gradcam(kind=gradcam.CLASS, index=4)
    assert np.abs(normalised(got, x.shape[-1]) - want).max() <= 2e-5


def normalised(maps, side):
    """What pytorch-grad-cam does to a map: min-max, resize, min-max."""
    import cv2
    out = []
    for m in maps:
        m = m - m.min()
        m = cv2.resize((m / (1e-7 + m.max())).astype(np.float32), (side, side))
        m = m - m.min()
        out.append(m / (1e-7 + m.max()))
    return np.stack(out)
