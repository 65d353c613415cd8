# SPDX-License-Identifier: MIT
"""Perturbation: docs/examples/perturb.py against PyTorch and pytorch-grad-cam, variants in batches
against one by one on networks whose files fix the number of samples."""

import importlib.util
import io
import os
import pathlib
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("GRADCAM_LIBRARY", str(ROOT / "build" / "libgradcam.so"))
sys.path.insert(0, str(ROOT / "bindings" / "python"))
import gradcam  # noqa: E402

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

MODELS = ROOT.parent / "shared" / "models"
BOUND = 2e-5  # relative to the largest element: sums of a few hundred float32 products, twice


def sample():
    spec = importlib.util.spec_from_file_location("perturb", ROOT / "docs" / "examples" / "perturb.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


perturb = sample()


def close(got, want, bound=BOUND):
    want = np.asarray(want)
    assert np.abs(got - want).max() <= bound * np.abs(want).max()


def export(net, x):
    file = io.BytesIO()
    torch.onnx.export(net, x, file, opset_version=17, dynamo=False, input_names=["x"], output_names=["y"])
    run = gradcam.Run(gradcam.Net(file.getvalue(), gradcam.Context(threads=2)))
    run.set_input("x", x.numpy())
    return run


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.left, self.right = nn.Conv2d(8, 12, 3, padding=1, stride=2), nn.Conv2d(8, 12, 1, stride=2)
        self.layer = nn.ReLU()
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.layer(self.left(x) + self.right(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def cnn():
    torch.manual_seed(3)
    net, x = Residual().eval(), torch.randn(1, 3, 20, 18)
    run = export(net, x)
    layer = [n.outputs[0] for n in run.net.nodes if n.op == "Relu"][-1]
    return net, x, run, layer


def test_occlusion(cnn):
    net, x, run, _ = cnn
    grey = x.mean((2, 3), keepdim=True)
    got = perturb.occlusion(run, 20, 18, window=5, stride=3, baseline=grey.numpy(), index=2)
    drops, hidden = torch.zeros(20, 18, dtype=torch.float64), torch.zeros(20, 18)
    with torch.no_grad():
        whole = net(x)[0, 2]
        for top in range(0, 16, 3):
            for left in range(0, 14, 3):
                other = x.clone()
                other[:, :, top:top + 5, left:left + 5] = grey
                drops[top:top + 5, left:left + 5] += (whole - net(other)[0, 2]).double()
                hidden[top:top + 5, left:left + 5] += 1
    # drops are differences of scores, whose rounding they have
    assert np.abs(got - (drops / hidden.clamp(min=1)).numpy()).max() <= BOUND * abs(whole.item())


def judge(name, net, x, index):
    library = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    with getattr(library, name)(net, [net.layer]) as cam:
        kept = {}
        weights = cam.get_cam_weights
        cam.get_cam_weights = lambda *a: kept.setdefault("weights", weights(*a))
        cam(x, [ClassifierOutputTarget(index)])
    with torch.no_grad():
        hook = net.layer.register_forward_hook(lambda _m, _i, out: kept.update(a=out.numpy()))
        net(x)
        hook.remove()
    return np.maximum(np.tensordot(np.asarray(kept["weights"])[0], kept["a"][0], 1), 0)


def test_score_cam(cnn):
    net, x, run, layer = cnn
    got = perturb.score_cam(run, x.numpy(), layer, chunk=5, index=3)
    close(got, judge("ScoreCAM", net, x, 3))


def test_ablation_cam(cnn):
    net, x, run, layer = cnn
    got = perturb.ablation_cam(run, layer, index=1)
    close(got, judge("AblationCAM", net, x, 1), 1e-3)  # its weights are small differences of scores


def one_by_one(run, value, **variants):
    alone = run.perturb(value, batch=1, **variants)
    assert run.report.batch == 1
    together = run.perturb(value, batch=6, **variants)
    return alone, together, run.report.batch


class Attention(nn.Module):
    """Tokens and samples change places, heads join samples, a class token is repeated."""

    def __init__(self):
        super().__init__()
        self.embed, self.token = nn.Conv2d(3, 16, 4, stride=4), nn.Parameter(torch.randn(1, 1, 16))
        self.place, self.norm = nn.Parameter(torch.randn(1, 26, 16)), nn.LayerNorm(16)
        self.blocks = nn.ModuleList(nn.MultiheadAttention(16, 4) for _ in range(2))
        self.head = nn.Linear(16, 7)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        for block in self.blocks:
            t = self.norm(x).transpose(0, 1)
            x = x + block(t, t, t, need_weights=False)[0].transpose(0, 1)
        return self.head(self.norm(x)[:, 0])


@pytest.mark.parametrize("make,samples", [(Residual, 1), (Residual, 2), (Attention, 1)])
def test_fixed_samples(make, samples):
    """The exporter wrote the number of samples into shapes; variants go together all the same."""
    torch.manual_seed(5)
    net, x = make().eval(), torch.randn(samples, 3, 20, 20)
    run = export(net, x)
    masks = np.random.default_rng(1).random((13, 20, 20), np.float32)
    with torch.no_grad():
        want = np.stack([net(x * torch.from_numpy(m)).numpy() for m in masks])
    alone, together, batch = one_by_one(run, None, masks=masks)
    assert batch == 6
    close(alone, want)
    close(together, want)


def test_tokens_are_ablated():
    torch.manual_seed(6)
    net, x = Attention().eval(), torch.randn(1, 3, 20, 20)
    run = export(net, x)
    run.prepare()
    layer = next(n.outputs[0] for n in run.net.nodes if n.op == "Add" and run.spec(n.outputs[0]).shape == (1, 26, 16))
    alone, together, batch = one_by_one(run, layer, ablate=[[i] for i in range(1, 26)])
    assert batch == 6 and np.abs(alone - alone[0]).max() > 1e-3
    close(together, alone)


class Mixing(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) - x.mean((0, 2, 3))


def test_samples_that_mix_run_one_by_one():
    x = torch.randn(1, 3, 8, 8)
    run = export(Mixing(), x)
    run.set_input("x", np.ones((1, 3, 8, 8), np.float32))
    masks = np.random.default_rng(2).random((4, 1, 8, 8), np.float32)
    alone, together, batch = one_by_one(run, None, masks=masks)
    assert batch == 1 and np.array_equal(alone, together)


KNOWN = [("mobilenet_v2_0.35_128_flowers", (1, 3, 128, 128)), ("vit_cifar10", (1, 3, 32, 32)),
         ("resnet8_cifar10", (1, 3, 32, 32)), ("squeezenet1.0_imagenet", (1, 3, 224, 224)),
         ("fer2013_mini_xception", (1, 1, 64, 64)), ("mnist_cntk", (1, 1, 28, 28))]


@pytest.mark.skipif(not MODELS.is_dir(), reason="the networks are not beside the project")
@pytest.mark.parametrize("name,shape", KNOWN)
def test_trained_networks(name, shape):
    """Masked inputs, in batches, are those that a run of its own gets."""
    rng = np.random.default_rng(4)
    scale = 255 if name in ("resnet8_cifar10", "mnist_cntk") else 1
    x, masks = (rng.random(shape, np.float32) * scale), rng.random((7, *shape[2:]), np.float32)
    net = gradcam.Net(MODELS / f"{name}.onnx", gradcam.Context(threads=2))
    with gradcam.Run(net) as run, gradcam.Run(net) as plain:
        run.set_input(None, x)
        alone, together, batch = one_by_one(run, None, masks=masks)
        assert batch == 6
        for i, mask in enumerate(masks):
            plain.set_input(None, x * mask)
            plain.forward()
            assert np.array_equal(alone[i], plain.value(net.outputs[0]))
    close(together, alone, 1e-4)


def test_callbacks(cnn):
    _, x, run, layer = cnn
    seen = []
    variants = np.random.default_rng(7).standard_normal((3, *x.shape)).astype(np.float32)
    assert run.perturb(write=lambda i, a: variants[i], count=3, each=lambda i, a: seen.append((i, a.copy()))) is None
    assert [i for i, _ in seen] == [0, 1, 2]
    again = run.perturb(write=lambda i, a: np.copyto(a, variants[i]), count=3)
    assert all(np.array_equal(a, again[i]) for i, a in seen)
    close(again[:, 0], cnn[0](torch.from_numpy(variants[:, 0])).detach().numpy())
    with pytest.raises(KeyError):
        run.perturb(write=lambda i, a: {}[i], count=3)
    with pytest.raises(gradcam.GradcamError) as stop:
        run.perturb(layer, ablate=[0, [1, 2]], each=lambda i, a: (_ for _ in ()).throw(gradcam.Stop(9)))
    assert stop.value.user_code == 9
    with pytest.raises(TypeError):
        run.perturb(masks=np.ones((1, 20, 18)), ablate=[0])


def test_targets(cnn):
    net, x, run, layer = cnn
    outputs = run.perturb(layer, ablate=range(12))[:, 0]
    with torch.no_grad():
        best = int(net(x).argmax())
    assert np.array_equal(run.perturb_scores(layer, ablate=range(12))[:, 0], outputs[:, best])
    assert run.report.index == best
    seed = np.arange(5, dtype=np.float32)[None]
    close(run.perturb_scores(layer, ablate=range(12), seed=seed, negate=True)[:, 0], -(outputs @ seed[0]))


def test_bfloat16(cnn):
    """Other shapes round differently, but by no more than bfloat16 does; variants go together."""
    _, x, run, layer = cnn
    masks = np.random.default_rng(8).random((9, 20, 18), np.float32)
    exact = run.perturb(masks=masks)
    with gradcam.Run(run.net) as half:
        half.set_precision("bf16")
        half.set_input("x", x.numpy())
        alone, together, batch = one_by_one(half, None, masks=masks)
    assert batch == 6
    close(alone, exact, 2 ** -5)
    close(together, exact, 2 ** -5)


LOOP = """<ir_version: 8, opset_import: ["" : 17]>
net (float[N,4,6,5] x) => (float[N,4,6,5] y) <float[4,1,3,3] w = {%s}> {
    a = Relu(x)
    n = Constant<value = int64 {3}>()
    b = Loop (n, "", x) <body = turn (int64 i, bool go, float[N,4,6,5] c) => (bool still, float[N,4,6,5] d) {
        still = Identity(go)
        e = Conv<pads = [1,1,1,1], group = 4>(c, w)
        d = Tanh(e)
    }>
    f = Mul(a, b)
    y = Conv<pads = [1,1,1,1], group = 4>(f, w)
}"""


@pytest.mark.parametrize("value", ["x", "a", "b", "f"])
def test_loops(value):
    """In front of the value, behind it, and beside it, where what they make is taken over."""
    parser = pytest.importorskip("onnx").parser
    rng = np.random.default_rng(9)
    w, x = rng.standard_normal((4, 1, 3, 3)) / 3, rng.standard_normal((1, 4, 6, 5)).astype(np.float32)
    model = parser.parse_model(LOOP % ", ".join(f"{f:.9g}" for f in w.ravel()))
    masks = rng.random((7, 6, 5), np.float32)
    with gradcam.Run(gradcam.Net(model.SerializeToString())) as run:
        run.set_input("x", x)
        alone, together, batch = one_by_one(run, value, masks=masks)
        for i, mask in enumerate(masks):
            with run.on_forward(value, lambda _n, a, m=mask: a * m, write=True):
                run.forward()
            assert np.array_equal(alone[i], run.value("y"))
        with pytest.raises(gradcam.GradcamError, match="loop"):
            run.perturb(run.net.nodes[run.net.producer("b")].name + "/0/e", masks=masks)
    assert batch == 6
    close(together, alone)
