# SPDX-License-Identifier: MIT
"""Encoders of which a classifier reads one row: only that row is computed, with the numbers that it has as one of many."""

import warnings

import numpy as np
import onnx
import pytest
from one_op import gradcam

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

WIDTH, TOKENS, U = 32, 21, 2.0 ** -24


class Block(nn.Module):
    """Joint or separate projections; the mask is causal or there is none."""

    def __init__(self, heads=2, joint=True, causal=False, hidden=80):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH) if joint else nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out, self.scale = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.rand(WIDTH))
        self.mlp = nn.Sequential(nn.Linear(WIDTH, hidden), nn.GELU(), nn.Linear(hidden, WIDTH))

    def attend(self, x):
        n, t, _ = x.shape
        if isinstance(self.qkv, nn.Linear):
            q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q, k, v = (f(x).reshape(n, t, self.heads, -1).transpose(1, 2) for f in self.qkv)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(y.transpose(1, 2).reshape(n, t, WIDTH))

    def forward(self, x):
        x = x + self.attend(self.norm1(x))
        return x + self.scale * self.mlp(self.norm2(x))


class Torchvision(nn.Module):
    """Samples and tokens change places."""

    def __init__(self):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(WIDTH, 4, 48, 0.0, batch_first=True, norm_first=True)

    def forward(self, x):
        y = self.block.norm1(x).transpose(0, 1)
        y = self.block.self_attn(y, y, y, need_weights=False)[0].transpose(0, 1)
        x = x + y
        return x + self.block.linear2(torch.relu(self.block.linear1(self.block.norm2(x))))


READ = {"class": lambda x: x[:, 0], "slice": lambda x: x[:, :1].flatten(1), "last": lambda x: x[:, -1],
        "some": lambda x: x[:, 3:6].flatten(1), "mean": lambda x: x.mean(1), "most": lambda x: x[:, 1:].flatten(1),
        "two": lambda x: x[:, 0] + x[:, 4]}


class Encoder(nn.Module):
    def __init__(self, read, *blocks):
        super().__init__()
        self.read, self.blocks, self.norm = READ[read], nn.Sequential(*blocks), nn.LayerNorm(WIDTH)
        self.place = nn.Parameter(torch.randn(TOKENS, WIDTH))
        tokens = {"some": 3, "most": TOKENS - 1}.get(read, 1)
        self.head = nn.Linear(WIDTH * tokens, 7)

    def forward(self, x):
        x = self.blocks(x)
        return self.head(self.read(self.norm(x + self.place)))


BLOCKS = {"joint": lambda: [Block(), Block()], "apart": lambda: [Block(), Block(joint=False, heads=4)],
          "causal": lambda: [Block(causal=True), Block(causal=True, joint=False)], "seq": lambda: [Torchvision()] * 2}


def export(net, x, file, dynamo):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), str(file), verbose=False, opset_version=20 if dynamo else 17, dynamo=dynamo,
                          input_names=["x"], output_names=["y"])
    return onnx.load(file)


def run(net, x, seed, watch=(), gradient="x", precision="f32"):
    with gradcam.Run(net) as r:
        r.set_input("x", x)
        r.set_precision(precision)
        for name in watch:
            r.watch(name, gradcam.WATCH_VALUE)
        if gradient:
            r.watch(gradient, gradcam.WATCH_GRAD)
        r.forward()
        y = r.value("y").copy()
        if not gradient:
            return y, None, [r.value(w).copy() for w in watch]
        r.backward("y", seed)
        return y, r.gradient(gradient).copy(), [r.value(w).copy() for w in watch]


def close(got, want):
    return np.abs(got - want).max() < 1000 * U * np.abs(want).max()


def equal(got, want):
    return all(np.array_equal(a, b) for a, b in zip(got[:2], want[:2], strict=True) if b is not None)


CASES = [("joint", read, True, 3) for read in READ]
CASES += [(b, *how) for b in BLOCKS for how in (("class", False, 3), ("last", True, 1))]


@pytest.mark.parametrize(("blocks", "read", "dynamo", "samples"), CASES)
def test_encoder(blocks, read, dynamo, samples, tmp_path):
    torch.manual_seed(3)
    made, x = Encoder(read, *BLOCKS[blocks]()).eval(), torch.randn(samples, TOKENS, WIDTH)
    model = export(made, x, tmp_path / "net.onnx", dynamo)
    tx = x.double().requires_grad_()
    y = made.double()(tx)
    seed = np.random.default_rng(4).normal(size=tuple(y.shape)).astype(np.float32)
    want = torch.autograd.grad(y, tx, torch.from_numpy(seed).double())[0].numpy()
    net = gradcam.Net(tmp_path / "net.onnx")
    plain, back = (run(net, x.numpy(), seed, gradient=g) for g in (None, "x"))
    for got, true in ((plain[0], y.detach().numpy()), (back[0], y.detach().numpy()), (back[1], want)):
        assert close(got, true)
    assert equal(run(gradcam.Net(tmp_path / "net.onnx", gradcam.Context(threads=2)), x.numpy(), seed), back)
    for node in model.graph.node[-40:-1]:
        for gradient, unseen in ((None, plain), ("x", back)):
            watched = run(net, x.numpy(), seed, node.output[:1], gradient)
            assert all(close(a, b) for a, b in zip(watched[:2], unseen[:2], strict=True) if a is not None), node.output[0]
            # where no other fusion ends: the numbers of a row do not depend on how many there are
            assert node.op_type not in ("LayerNormalization", "Gelu", "Relu") or equal(watched, unseen), node.output[0]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """One block that needs 21 rows of 9000 floats, or one of them."""
    torch.manual_seed(5)
    made, file = Encoder("class", Block(hidden=9000)).eval(), tmp_path_factory.mktemp("wide") / "net.onnx"
    model = export(made, torch.randn(1, TOKENS, WIDTH), file, True)
    return made, file, [n.output[0] for n in model.graph.node if n.op_type == "LayerNormalization"][-1]


def arena(file, watch):
    with gradcam.Run(gradcam.Net(file)) as r:
        r.set_input("x", np.zeros((1, TOKENS, WIDTH), np.float32))
        r.watch("x", gradcam.WATCH_GRAD)
        for name in watch:
            r.watch(name, gradcam.WATCH_VALUE)
        r.prepare()
        return r.arena_bytes


def test_one_row_takes_the_memory_of_one(wide):
    _, file, norm = wide
    assert 8 * arena(file, []) < arena(file, [norm])


def test_shapes_are_those_of_the_whole(wide):
    _, file, norm = wide
    with gradcam.Run(gradcam.Net(file)) as r:
        r.set_input("x", np.zeros((1, TOKENS, WIDTH), np.float32))
        r.prepare()
        assert r.spec(norm).shape == (1, TOKENS, WIDTH)


@pytest.mark.parametrize("rule", ["plain", "guided"])
def test_rules(rule, tmp_path):
    """Guided backpropagation names the same nodes, and gives the same bits, whether all rows are there or one."""
    torch.manual_seed(6)
    x = torch.randn(2, TOKENS, WIDTH)
    model = export(Encoder("class", Torchvision(), Torchvision()).eval(), x, tmp_path / "net.onnx", True)
    last = [n.output[0] for n in model.graph.node if n.op_type == "LayerNormalization"][-1]
    got = []
    for watch in ([], [last]):
        with gradcam.Run(gradcam.Net(tmp_path / "net.onnx")) as r:
            r.set_input("x", x.numpy())
            r.set_rule(rule)
            r.watch("x", gradcam.WATCH_GRAD)
            for name in watch:
                r.watch(name, gradcam.WATCH_VALUE)
            r.forward()
            r.backward("y", np.ones((2, 7), np.float32))
            got.append((r.gradient("x").copy(), r.rule_nodes))
    assert np.array_equal(got[0][0], got[1][0]) and np.array_equal(got[0][1], got[1][1])
    assert len(got[0][1]) == (2 if rule == "guided" else 0)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_bits_of_wide_products(wide, precision):
    _, file, norm = wide
    x = np.random.default_rng(7).normal(size=(1, TOKENS, WIDTH)).astype(np.float32)
    net, seed = gradcam.Net(file), np.ones((1, 7), np.float32)
    try:
        one, all_rows = (run(net, x, seed, w, precision=precision) for w in ([], [norm]))
    except gradcam.GradcamError as error:
        pytest.skip(str(error))
    assert equal(one, all_rows)


def test_variants(wide):
    """Variants of a token, one by one and together, watched or not."""
    _, file, norm = wide
    got = []
    for watch in ([], [norm]):
        with gradcam.Run(gradcam.Net(file)) as r:
            r.set_input("x", np.random.default_rng(8).normal(size=(1, TOKENS, WIDTH)).astype(np.float32))
            for name in watch:
                r.watch(name, gradcam.WATCH_VALUE)
            first = next(n.outputs[0] for n in r.net.nodes if n.op == "LayerNormalization")
            r.prepare()
            ablate = [[i] for i in range(TOKENS)]
            got += [r.perturb(first, ablate=ablate, batch=n) for n in (1, 6)]
            assert r.report.batch == 6
    assert np.abs(got[0] - got[0][:1]).max() > 1e-4
    assert np.array_equal(got[0], got[2]) and np.array_equal(got[1], got[3]) and close(got[0], got[1])
