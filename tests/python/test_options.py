# SPDX-License-Identifier: MIT
"""Options of the methods against PyTorch in double precision, captum and
pytorch-grad-cam: pooling and sign of gradients, targets of every kind, sweeps
over layers, 1-D, 2-D and 3-D networks, batches, tokens, warnings."""

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
from captum.attr import GuidedGradCam, LayerGradCam, Saliency  # noqa: E402
from torch import nn  # noqa: E402

BOUND = 1e-5  # relative to the largest element of the reference in float64
POOLS = {"mean": lambda g: g.mean(-1), "max": lambda g: g.amax(-1), "sum": lambda g: g.sum(-1)}
GRADS = {"as_is": lambda g: g, "abs": torch.abs, "positive": torch.relu}
CONVS = {1: (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AdaptiveAvgPool1d),
         2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d),
         3: (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d, nn.AdaptiveAvgPool3d)}
SHAPES = {1: (3, 2, 40), 2: (3, 2, 16, 12), 3: (3, 2, 8, 8, 12)}


class Classifier(nn.Module):
    """Two blocks and a dense head; `blocks` are the layers to look at."""

    def __init__(self, dims, end=None):
        super().__init__()
        conv, norm, pool, average = CONVS[dims]
        self.first = nn.Sequential(conv(2, 5, 3, padding=1), norm(5), nn.ReLU(), pool(2))
        self.second = nn.Sequential(conv(5, 6, 3, padding=1), nn.Tanh(), conv(6, 6, 1), nn.ReLU())
        self.head = nn.Sequential(average(2), nn.Flatten(), nn.Linear(6 * 2 ** dims, 4))
        self.end = end or nn.Identity()

    def forward(self, x):
        return self.end(self.head(self.second(self.first(x))))


class Segmenter(nn.Module):
    """Scores [N, 4, H, W] of every pixel."""

    def __init__(self):
        super().__init__()
        self.second = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(6, 7, 3, padding=1),
                                    nn.ReLU())
        self.head = nn.Sequential(nn.ConvTranspose2d(7, 5, 2, stride=2), nn.ReLU(), nn.Conv2d(5, 4, 1))

    def forward(self, x):
        return self.head(self.second(x))


def export(net, x, outputs=("y",)):
    file = io.BytesIO()
    torch.onnx.export(net, x, file, opset_version=17, dynamo=False, input_names=["x"], output_names=list(outputs))
    return gradcam.Net(file.getvalue())


class Case:
    """A network in PyTorch (double) and in a run, with one input bound to both."""

    def __init__(self, net, shape):
        self.seed = 0
        while not self.draw(net, shape):
            self.seed += 1
        self.run = gradcam.Run(export(self.net.float(), self.x.float()))
        self.run.set_input("x", self.x.numpy().astype(np.float32))
        self.net.double()

    def draw(self, net, shape):
        """A random network and input; false where a class of a sample has a map that is zero everywhere."""
        torch.manual_seed(self.seed)
        self.net, self.x = net().eval().double(), torch.randn(shape).double()
        for m in self.net.modules():
            if hasattr(m, "running_var"):
                m.running_mean.uniform_(-0.3, 0.3)
                m.running_var.uniform_(0.5, 1.5)
        if not hasattr(self.net, "second"):
            return True
        maps = [self.cam(lambda y, k=k, sign=sign: sign * y[:, k]) for k in range(4) for sign in (1, -1)]
        return all(heat.flatten(1).amax(1).min() > 1e-6 for heat in maps)

    def layer(self, score, module=None):
        """Activation and gradient [N, C, positions] of score(output) at a module, and its spatial shape."""
        kept = {}
        handle = (module or self.net.second).register_forward_hook(lambda _m, _i, out: kept.update(a=out))
        value = score(self.net(self.x))
        handle.remove()
        (grad,) = torch.autograd.grad(value.sum(), kept["a"])
        return kept["a"].flatten(2).detach(), grad.flatten(2), kept["a"].shape[2:]

    def cam(self, score, pool="mean", grad="as_is", relu=True, module=None):
        """Selvaraju 2017, eq. 1 and 2, written down once more."""
        a, g, spatial = self.layer(score, module)
        weights = POOLS[pool](GRADS[grad](g))
        heat = (weights[..., None] * a).sum(1).reshape(-1, *spatial)
        return torch.relu(heat) if relu else heat


def close(got, want, bound=BOUND):
    want = want.detach().numpy()
    assert got.shape == want.shape
    assert np.abs(want).max() > 0
    assert np.abs(got - want).max() <= bound * np.abs(want).max()


@pytest.fixture(scope="module", params=[1, 2, 3])
def case(request):
    it = Case(lambda: Classifier(request.param), SHAPES[request.param])
    yield it
    it.run.close()


@pytest.mark.parametrize("grad", GRADS)
@pytest.mark.parametrize("pool", POOLS)
def test_pooling_and_sign(case, pool, grad):
    """Every sample of the batch, 1-D to 3-D, with and without ReLU."""
    for relu in (True, False):
        want = case.cam(lambda y: y[:, 2], pool, grad, relu)
        close(case.run.gradcam(index=2, pool=pool, grad=grad, signed_map=not relu), want)
    assert case.run.report.warnings == 0


def test_against_captum(case):
    want = LayerGradCam(case.net, case.net.second).attribute(case.x, 1, relu_attributions=True)
    close(case.run.gradcam(index=1), want[:, 0])
    close(case.run.guided_backprop(index=1, plain_rule=True), Saliency(case.net).attribute(case.x, 1, abs=False))


def test_argmax_is_of_each_sample(case):
    y = case.net(case.x).detach()
    want = case.cam(lambda y: y.max(1).values)
    close(case.run.gradcam(), want)
    assert case.run.report.index == int(y[0].argmax())
    assert case.run.report.score == pytest.approx(float(y[0].max()), rel=1e-5)


def test_samples_do_not_touch_each_other(case):
    """A batch of three is three batches of one: the same numbers."""
    together = case.run.gradcam(index=0)
    x = case.x.numpy().astype(np.float32)
    with gradcam.Run(export(case.net.float(), case.x[:1].float())) as single:
        case.net.double()
        for k in range(len(x)):
            single.set_input("x", x[k:k + 1])
            want = single.gradcam(index=0)
            assert np.abs(together[k:k + 1] - want).max() <= 1e-6 * np.abs(together).max()


def test_negate(case):
    """Counterfactual, Selvaraju 2017, section 3.3: what speaks against the class."""
    close(case.run.gradcam(index=1, negate=True), case.cam(lambda y: -y[:, 1]))
    assert case.run.report.score == pytest.approx(float(case.net(case.x)[0, 1].detach()), rel=1e-4)
    close(case.run.gradcam(index=1, negate=True, signed_map=True), case.cam(lambda y: -y[:, 1], relu=False))
    seed = np.zeros((3, 4), np.float32)
    seed[:, 1] = 1
    assert np.array_equal(case.run.gradcam(seed=seed, negate=True), case.run.gradcam(index=1, negate=True))


def test_weighted_outputs(case):
    """A set of outputs with weights of its own for every sample."""
    weights = torch.tensor([[1, -0.5, 0, 2], [0, 0, 1, 0], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
    close(case.run.gradcam(seed=weights.numpy()), case.cam(lambda y: y * weights))
    want = float((case.net(case.x) * weights).sum())
    assert case.run.report.score == pytest.approx(want, rel=1e-4)
    with pytest.raises(gradcam.GradcamError) as caught:
        case.run.gradcam(seed=np.ones((3, 5)))
    assert caught.value.name == "GRADCAM_E_SHAPE"


def test_one_element(case):
    """An element of sample 1: the other samples' maps are zero."""
    want = case.cam(lambda y: y[1, 3])
    close(case.run.gradcam(kind="element", index=1 * 4 + 3), want)
    assert not want[0].any() and case.run.report.index == 7


def test_rules(case):
    """Grad-CAM under another rule: captum has none; Springenberg 2015 by hooks on ReLU."""
    handles = [m.register_full_backward_hook(lambda _m, gi, go: (gi[0] * (go[0] > 0),))
               for m in case.net.modules() if isinstance(m, (nn.ReLU, nn.Tanh))]
    want = case.cam(lambda y: y[:, 0], relu=False, module=case.net.first)
    for handle in handles:
        handle.remove()
    layer = next(n.outputs[0] for n in case.run.net.nodes if n.op == "MaxPool")
    with gradcam.Run(case.run.net) as run:
        run.set_input("x", case.x.numpy())
        close(run.gradcam(index=0, layer=layer, rule="guided", signed_map=True), want)
        touched = {run.net.nodes[k].op for k in run.report.rule_nodes}
        assert len(run.report.rule_nodes) == 2 and touched == {"Relu", "Tanh"}  # the first ReLU is before the layer


def test_sweep_is_single_calls(case):
    layers = [n.outputs[0] for n in case.run.net.nodes if n.op in ("Conv", "Relu", "Tanh", "MaxPool")]
    for options in ({"index": 2}, {"index": 2, "pool": "max", "grad": "positive"}, {"signed_map": True},
                    {"negate": True, "rule": "guided"}):
        maps = case.run.gradcam_layers(layers, **options)
        assert case.run.report.layer == layers[0]
        for layer, got in zip(layers, maps):
            assert np.array_equal(got, case.run.gradcam(layer=layer, **options)), layer


# ---- softmax ----


@pytest.mark.parametrize("end", ["softmax", "log"])
def test_softmax_targets(end):
    last = {"softmax": nn.Softmax, "log": nn.LogSoftmax}[end](1)
    case = Case(lambda: Classifier(2, last), SHAPES[2])
    close(case.run.gradcam(index=1, keep_softmax=True), case.cam(lambda y: y[:, 1]))
    assert case.run.report.output == "y"
    logits = case.run.gradcam(index=1)
    assert case.run.report.output != "y"
    case.net.end = nn.Identity()
    close(logits, case.cam(lambda y: y[:, 1]))
    # Probability and log-probability of a network that ends in logits: a seed from the chain rule.
    head = Case(lambda: Classifier(2), SHAPES[2])
    head.run.forward()
    y = torch.tensor(head.run.value("y")).double().requires_grad_()
    score = {"softmax": torch.softmax, "log": torch.log_softmax}[end]
    (seed,) = torch.autograd.grad(score(y, 1)[:, 1].sum(), y)
    close(head.run.gradcam(seed=seed.numpy()), head.cam(lambda y: score(y, 1)[:, 1]), 1e-4)


def test_probabilities_saturate():
    """Why the default starts before the softmax: a sure network has no gradient left after it."""
    case = Case(lambda: Classifier(2, nn.Softmax(1)), SHAPES[2])
    with torch.no_grad():
        case.net.head[-1].weight *= 1e6
    with gradcam.Run(export(case.net.float(), case.x[:1].float())) as run:
        run.set_input("x", case.x[:1].numpy())
        run.gradcam(keep_softmax=True)
        assert run.report.warnings & gradcam.Warn.EMPTY and run.report.score == 1
        run.gradcam()
        assert not run.report.warnings & gradcam.Warn.EMPTY


# ---- segmentation ----


def test_segmentation():
    """A class over all pixels, over a mask, at one pixel (Seg-Grad-CAM, Vinogradova 2020)."""
    case = Case(Segmenter, (2, 2, 8, 12))
    close(case.run.gradcam(index=3), case.cam(lambda y: y[:, 3].sum((1, 2)), module=case.net.head[1]))
    middle = [n.outputs[0] for n in case.run.net.nodes if n.op == "Relu"][1]
    close(case.run.gradcam(index=3, layer=middle), case.cam(lambda y: y[:, 3].sum((1, 2))))
    mask = torch.zeros(2, 4, 8, 12, dtype=torch.float64)
    mask[0, 1, 2:6, 3:7] = 1
    mask[1, 1, :3] = 1
    close(case.run.gradcam(seed=mask.numpy(), layer=middle), case.cam(lambda y: y * mask))
    assert case.run.report.score == pytest.approx(float((case.net(case.x) * mask).sum()), rel=1e-4)
    close(case.run.gradcam(kind="element", index=(2 * 8 + 5) * 12 + 7, layer=middle),
          case.cam(lambda y: y[0, 2, 5, 7]))
    # The arg-max is of the class's sum over all pixels.
    case.run.gradcam()
    assert case.run.report.index == int(case.net(case.x)[0].sum((1, 2)).argmax())


def test_guided_gradcam_of_a_batch():
    """Not the case of test_peers: a sequential with a Tanh, three samples, a class for each by seed."""
    case = Case(lambda: Classifier(2), SHAPES[2])
    for module in case.net.modules():  # captum's rule is for ReLU alone
        for name, child in module.named_children():
            if isinstance(child, nn.Tanh):
                setattr(module, name, nn.ReLU())
    with gradcam.Run(export(case.net.float(), case.x.float())) as run:
        case.net.double()
        run.set_input("x", case.x.numpy())
        target = torch.tensor([0, 3, 1])
        want = GuidedGradCam(case.net, case.net.second).attribute(case.x, target, interpolate_mode="bilinear")
        close(run.guided_gradcam(seed=np.eye(4, dtype=np.float32)[target]), want)


# ---- tokens ----


class Tokens(nn.Module):
    """A vision transformer of two blocks: a class token and 5 x 4 patches of 8 numbers."""

    def __init__(self):
        super().__init__()
        self.embed, self.position = nn.Conv2d(2, 8, 2, stride=2), nn.Parameter(torch.randn(1, 21, 8))
        self.blocks = nn.ModuleList(nn.ModuleList([nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)])
                                    for _ in range(2))
        self.last, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], 1) + self.position
        for norm, qkv, out in self.blocks:
            q, k, v = qkv(norm(x)).chunk(3, -1)
            x = x + out(torch.softmax(q @ k.transpose(1, 2) / 8 ** 0.5, -1) @ v)
        return self.head(self.last(x)[:, 0])


def test_patch_embedding_is_the_default_layer_of_a_transformer():
    """Tokens have no channels on axis 1: the deepest feature map is what the patches become."""
    case = Case(Tokens, (2, 2, 10, 8))
    close(case.run.gradcam(index=2), case.cam(lambda y: y[:, 2], module=case.net.embed))
    assert case.run.net.nodes[case.run.net.producer(case.run.report.layer)].op == "Conv"


def test_tokens_as_a_map():
    """By hand and as bindings/python/README.md has it: tokens reshaped to a map, against pytorch-grad-cam."""
    library = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    case = Case(Tokens, (2, 2, 10, 8))
    run = case.run
    layer = [n.outputs[0] for n in run.net.nodes if n.op == "LayerNormalization"][1]
    run.watch(layer)
    run.forward()
    run.backward("y", np.eye(4)[[2, 2]])
    a, g = run.value(layer)[:, 1:], run.gradient(layer)[:, 1:]  # without the class token
    heat = np.maximum((g.mean(1, keepdims=True) * a).sum(2), 0).reshape(-1, 5, 4)
    kept = {}
    module = case.net.blocks[1][0]
    module.register_forward_hook(lambda _m, _i, out: kept.update(a=out))
    (grad,) = torch.autograd.grad(case.net(case.x)[:, 2].sum(), kept["a"])
    want = torch.relu((grad[:, 1:].mean(1, keepdim=True) * kept["a"][:, 1:]).sum(2)).reshape(-1, 5, 4)
    close(heat, want)
    close(run.gradcam(layer=layer, index=2, channel_axis=-1, skip=1).reshape(-1, 5, 4), want)
    net = case.net.float()

    def reshape(t):
        return t[:, 1:].reshape(-1, 5, 4, 8).permute(0, 3, 1, 2)

    with library.GradCAM(net, [module], reshape_transform=reshape) as cam:
        theirs = cam(case.x.float(), [ClassifierOutputTarget(2)] * 2)
    ours = gradcam.resize(gradcam.normalize(heat), (10, 8))
    assert np.abs(theirs - gradcam.normalize(ours)).max() <= 2e-3  # they resize and normalise their own way


def test_a_token_layer_by_name():
    """Named all the same, axis 1 is taken for channels: [N, tokens, width] gives [N, width]."""
    case = Case(Tokens, (2, 2, 10, 8))
    layer = [n.outputs[0] for n in case.run.net.nodes if n.op == "LayerNormalization"][1]
    got = case.run.gradcam(layer=layer, index=2)
    assert got.shape == (2, 8)
    close(got, case.cam(lambda y: y[:, 2], module=case.net.blocks[1][0]))


# ---- size and range of the map ----


@pytest.mark.parametrize("mode", ["bilinear", "align_corners", "nearest"])
def test_a_map_of_the_size_of_the_input(mode):
    """One call is the three calls; warnings and the layer are those of the small map."""
    case = Case(lambda: Classifier(2), SHAPES[2])
    run, size = case.run, (16, 12)
    into, last = np.empty((3, *size), np.float32), None
    for index in (0, 3, 3, 1):
        small = run.gradcam(index=index, signed_map=True)
        seen, layer = run.report.warnings, run.report.layer
        big = gradcam.resize(small, size, mode)
        assert np.array_equal(run.gradcam(index=index, signed_map=True, size=size, resize=mode), big)
        assert (run.report.warnings, run.report.layer, run.report.index) == (seen, layer, index)
        got = run.gradcam(index=index, signed_map=True, size=size, resize=mode, normalize=True, into=into)
        assert got is into and np.array_equal(got, gradcam.normalize(big))
        assert last is None or index == last[0] or not np.array_equal(got, last[1])
        last = index, got.copy()
    assert np.array_equal(run.gradcam(index=1, signed_map=True, normalize=True), gradcam.normalize(small))
    maps = run.gradcam_layers([layer, layer], index=1, signed_map=True, size=size, resize=mode, normalize=True)
    assert np.array_equal(maps[0], into) and np.array_equal(maps[1], into)
    other = np.empty_like(into)  # another array is another one
    assert run.gradcam(index=1, signed_map=True, size=size, resize=mode, normalize=True, into=other) is other
    assert np.array_equal(other, into)
    for wrong in ((16, 0), (0, 12), (-1, 12)):
        with pytest.raises(gradcam.GradcamError, match="height"):
            run.gradcam(size=wrong)
    with pytest.raises(gradcam.GradcamError, match="into"):
        run.gradcam(size=(8, 8), into=into)
    with pytest.raises(gradcam.GradcamError, match="two-dimensional"):
        Case(lambda: Classifier(1), SHAPES[1]).run.gradcam(size=size)


def test_the_range_of_a_map():
    """Exactly 0 and 1 at the ends, elsewhere the quotient to two roundings more."""
    rng = np.random.default_rng(1)
    for scale in (1.0, 3e-39, 1e-30, 1e20, 1e38):
        maps = (rng.random((50, 6, 7)) * scale).astype(np.float32)
        wide = maps.astype(np.float64)
        low, high = wide.min((1, 2), keepdims=True), wide.max((1, 2), keepdims=True)
        got = gradcam.normalize(maps)
        assert np.all(got.min((1, 2)) == 0) and np.all(got.max((1, 2)) == 1)
        assert np.abs(got - (wide - low) / (high - low)).max() <= 4 * 2.0 ** -24
    odd = gradcam.normalize(np.array([[1, np.nan, 2, 3]], np.float32))
    assert np.array_equal(odd, np.array([[0, np.nan, 0.5, 1]], np.float32), equal_nan=True)


def test_resize_into():
    maps, into = np.random.default_rng(2).random((2, 3, 4)).astype(np.float32), np.zeros((2, 6, 5), np.float32)
    assert gradcam.resize(maps, (6, 5), into=into) is into
    assert np.array_equal(into, gradcam.resize(maps, (6, 5)))
    with pytest.raises(ValueError, match="shape"):
        gradcam.resize(maps, (5, 6), into=into)
    for wrong in (into.astype(np.float64), into.transpose(0, 2, 1).copy().transpose(0, 2, 1)):
        with pytest.raises(TypeError, match="row-major"):
            gradcam.resize(maps, (6, 5), into=wrong)


# ---- warnings ----


def built(*nodes, shape=(1, 2, 4, 4), outputs=("y",), **weights):
    with gradcam.Builder() as b:
        b.input("x", shape)
        for name, value in weights.items():
            b.weight(name, np.asarray(value, np.float32))
        for op, inputs, made, attributes in nodes:
            b.node(op, inputs, made, **attributes)
        for name in outputs:
            b.output(name)
        return b.finish()


def warned(net, x, **options):
    with gradcam.Run(net) as run:
        run.set_input("x", x)
        heat = run.gradcam(**options)
        return heat, run.report.warnings


POOLED = (("GlobalAveragePool", ["f"], ["p"], {}), ("Flatten", ["p"], ["y"], {}))
ONES = np.ones((1, 2, 4, 4), np.float32)
RAMP = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)


def test_no_warning():
    heat, warnings = warned(built(("Relu", ["x"], ["f"], {}), *POOLED), RAMP, index=0, layer="f")
    assert warnings == 0 and heat.shape == (1, 4, 4)
    assert np.array_equal(heat, RAMP[:, 0] / 16)


def test_empty_map():
    """Everything speaks against the class: the ReLU leaves nothing, the signed map shows it."""
    net = built(("Neg", ["x"], ["n"], {}), ("Relu", ["x"], ["f"], {}), ("GlobalAveragePool", ["f"], ["p"], {}),
                ("Neg", ["p"], ["q"], {}), ("Flatten", ["q"], ["y"], {}))
    heat, warnings = warned(net, RAMP, index=0, layer="f")
    assert warnings == gradcam.Warn.EMPTY | gradcam.Warn.CONSTANT and not heat.any()
    heat, warnings = warned(net, RAMP, index=0, layer="f", signed_map=True)
    assert warnings == 0 and heat.min() < 0


def test_constant_map():
    heat, warnings = warned(built(("Relu", ["x"], ["f"], {}), *POOLED), ONES, index=1, layer="f")
    assert warnings == gradcam.Warn.CONSTANT and (heat == 1 / 16).all()


def test_nan_map():
    x = RAMP.copy()
    x[0, 0, 1, 1] = np.nan
    heat, warnings = warned(built(("Identity", ["x"], ["f"], {}), *POOLED), x, index=0, layer="f")
    assert warnings == gradcam.Warn.NAN and np.isnan(heat[0, 1, 1]) and np.isfinite(heat).sum() == 15


def test_not_connected():
    """A layer beside the way to the target; a target that is constant in the layer."""
    net = built(("Relu", ["x"], ["f"], {}), ("Tanh", ["x"], ["side"], {}), *POOLED, outputs=("y", "side"))
    heat, warnings = warned(net, RAMP, index=0, layer="side")
    assert warnings & gradcam.Warn.NOT_CONNECTED and warnings & gradcam.Warn.EMPTY and not heat.any()
    assert heat.shape == (1, 4, 4)
    with gradcam.Run(net) as run:
        run.set_input("x", RAMP)
        maps = run.gradcam_layers(["side", "f"], index=0)
        assert run.report.warnings & gradcam.Warn.NOT_CONNECTED and not maps[0].any() and maps[1].any()


def test_no_spatial_extent():
    net = built(("Relu", ["x"], ["f"], {}), *POOLED)
    heat, warnings = warned(net, RAMP, index=0, layer="p")
    assert warnings & gradcam.Warn.NO_SPATIAL and heat.shape == (1, 1, 1)
    heat, warnings = warned(net, RAMP, kind="element", index=0, layer="y")
    assert warnings & gradcam.Warn.NO_SPATIAL and heat.shape == (1,)


def test_no_layer():
    net = built(("Flatten", ["x"], ["f"], {}), ("MatMul", ["f", "w"], ["y"], {}), w=np.ones((32, 3)))
    with pytest.raises(gradcam.GradcamError, match="name one") as caught:
        warned(net, RAMP)
    assert caught.value.name == "GRADCAM_E_NOT_FOUND"
    scalar = built(("ReduceSum", ["x"], ["y"], {"keepdims": 0}))
    with pytest.raises(gradcam.GradcamError) as caught:
        warned(scalar, RAMP, layer="y")
    assert caught.value.name == "GRADCAM_E_SHAPE"
