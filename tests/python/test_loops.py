# SPDX-License-Identifier: MIT
"""Loop, Scan and sequences against PyTorch and numpy: values, gradients, names, limits, refusals."""

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
from onnx import parser  # noqa: E402

from one_op import NO_GRADIENT, close, gradcam  # noqa: E402


def model(text, opset=17):
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}, "f" : 1]>\n{text}').SerializeToString()


def run(text, feeds, opset=17, watch=(), seed=None, net=None, threads=1):
    """Outputs, then gradients of the watched values for the seed at the first output."""
    net = net or gradcam.Net(model(text, opset), gradcam.Context(threads=threads))
    with gradcam.Run(net) as r:
        for name, value in feeds.items():
            r.set_input(name, value)
        for name in watch:
            r.watch(name)
        r.forward()
        outputs = [r.value(name) for name in net.outputs]
        if seed is not None:
            r.backward(net.outputs[0], seed)
            outputs += [r.gradient(name) for name in watch]
        return outputs


def refused(text, feeds, *words, opset=17, **limits):
    with pytest.raises(gradcam.GradcamError) as caught:
        net = gradcam.Net(model(text, opset), **limits)
        run(None, feeds, net=net)
    for word in words:
        assert word in str(caught.value)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def f64(array):
    return torch.tensor(array, dtype=torch.float64, requires_grad=True)


# ---- Loop ----

# A recurrent cell; x and the weights are taken from outside.
CELL = """
net (float[2,3] h0, float[N,2,3] x, float[3,3] w) => (float[2,3] h, float[M,2,3] all) {
    count = Shape<start = 0, end = 1>(x)
    n = Squeeze(count)
    h, all = Loop (n, "", h0) <body = b (int64 i, bool go, float[2,3] before) => (bool still, float[2,3] after, float[2,3] each) {
        still = Identity(go)
        xi = Gather<axis = 0>(x, i)
        turned = MatMul(before, w)
        sum = Add(turned, xi)
        after = Tanh(sum)
        each = Mul(after, after)
    }>
}"""


def cell(h, x, w):
    rows = []
    for xi in x:
        h = torch.tanh(h @ w + xi)
        rows.append(h * h)
    return h, torch.stack(rows)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_a_loop_is_its_turns(length):
    feeds = {"h0": noise(2, 3), "x": noise(length, 2, 3, seed=1), "w": noise(3, 3, seed=2)}
    inputs = [f64(a) for a in feeds.values()]
    h, rows = cell(*inputs)
    dy = noise(2, 3, seed=3)
    (h * torch.tensor(dy)).sum().backward()
    got = run(CELL, feeds, watch=list(feeds), seed=dy)
    close(got[0], h.detach().numpy(), "h")
    close(got[1], rows.detach().numpy(), "all")
    for name, gradient, want in zip(feeds, got[2:], inputs):
        close(gradient, want.grad.numpy(), f"gradient of {name}")
    again = run(CELL, feeds, watch=list(feeds), seed=dy, threads=3)
    assert all(np.array_equal(a, b) for a, b in zip(got, again)), "the number of threads shows"


def test_gradients_pass_through_stacked_results():
    text = CELL.replace("(float[2,3] h, float[M,2,3] all) {", "(float[M,2,3] all) {").replace("h, all = Loop", ", all = Loop")
    text = text.replace(", all = Loop", "unused, all = Loop")
    feeds = {"h0": noise(2, 3), "x": noise(4, 2, 3, seed=1), "w": noise(3, 3, seed=2)}
    inputs = [f64(a) for a in feeds.values()]
    dy = noise(4, 2, 3, seed=3)
    (cell(*inputs)[1] * torch.tensor(dy)).sum().backward()
    got = run(text, feeds, watch=list(feeds), seed=dy)
    for name, gradient, want in zip(feeds, got[1:], inputs):
        close(gradient, want.grad.numpy(), f"gradient of {name}")


def test_no_turns():
    """The states go through; stacks have no elements, but a shape."""
    text = """
    net (float[2,3] x, int64[1] n) => (float[2,3] y, float[M,2,6] all, float s) {
        y, all = Loop (n, "", x) <body = b (int64 i, bool go, float[2,3] a) => (bool still, float[2,3] c, float[2,6] each) {
            still = Identity(go)
            c = Relu(a)
            each = Concat<axis = 1>(a, c)
        }>
        s = ReduceSum<keepdims = 0>(all)
    }"""
    x = noise(2, 3)
    y, rows, total = run(text, {"x": x, "n": np.array([0])})
    assert np.array_equal(y, x) and rows.shape == (0, 2, 6) and total == 0
    assert np.array_equal(run(text, {"x": x, "n": np.array([-5])})[0], x)
    dy = noise(2, 3, seed=1)
    assert np.array_equal(run(text, {"x": x, "n": np.array([0])}, watch=["x"], seed=dy)[3], dy)


def test_another_count_makes_another_plan():
    text = """
    net (float[20] x, int64 n) => (float[20] y) {
        y = Loop (n, "", x) <body = b (int64 i, bool go, float[20] a) => (bool still, float[20] c) {
            still = Identity(go)
            c = Add(a, a)
        }>
    }"""
    x = noise(20)
    with gradcam.Run(gradcam.Net(model(text))) as r:
        r.set_input("x", x)
        for n in (3, 5, 0, 3):
            r.set_input("n", np.array(n))
            r.forward()
            assert np.array_equal(r.value("y"), x * 2**n)


def test_the_condition_ends_a_loop():
    """While 3^k < limit, k from 1; the first condition is a constant."""
    text = """
    net (float[2,10] x, int64 limit) => (float[2,10] y, int64 k, int64[M] powers) {
        one = Constant<value = int64 {1}>()
        three = Constant<value = int64 {3}>()
        yes = Constant<value = bool {1}>()
        y, k, powers = Loop ("", yes, x, one) <body = b (int64 i, bool go, float[2,10] a, int64 p) => (bool more, float[2,10] c, int64 q, int64 kept) {
            c = Neg(a)
            q = Mul(p, three)
            more = Less(q, limit)
            kept = Identity(q)
        }>
    }"""
    x = noise(2, 10)
    y, k, powers = run(text, {"x": x, "limit": np.array(100)})
    assert k == 243 and powers.tolist() == [3, 9, 27, 81, 243] and np.array_equal(y, -x)


def test_states_change_their_shape():
    text = """
    net (float[N,3] x) => (float[M,3] y) {
        n = Constant<value = int64 {3}>()
        y = Loop (n, "", x) <body = b (int64 i, bool go, float[K,3] a) => (bool still, float[L,3] c) {
            still = Identity(go)
            c = Concat<axis = 0>(a, x)
        }>
    }"""
    x = noise(20, 3)
    y, gradient = run(text, {"x": x}, watch=["x"], seed=noise(80, 3, seed=1))
    assert np.array_equal(y, np.concatenate([x] * 4))
    close(gradient, noise(80, 3, seed=1).reshape(4, 20, 3).sum(0), "gradient")


def test_loops_in_loops_see_all_graphs_around():
    """sum over i < 3, j <= i of (x w_i + j b), where b lies outside, w in the outer body."""
    text = """
    net (float[2,10] x, float[2,10] b) => (float[2,10] y) {
        three = Constant<value = int64 {3}>()
        one = Constant<value = int64 {1}>()
        zero = Sub(x, x)
        y = Loop (three, "", zero) <body = outer (int64 i, bool go, float[2,10] a) => (bool still, float[2,10] c) {
            w = Constant<value = float[3] {2, 3, 5}>()
            wi = Gather(w, i)
            xw = Mul(x, wi)
            still = Identity(go)
            many = Add(i, one)
            c = Loop (many, go, a) <body = inner (int64 j, bool on, float[2,10] d) => (bool ever, float[2,10] e) {
                ever = Identity(on)
                jf = CastLike(j, b)
                jb = Mul(jf, b)
                part = Add(xw, jb)
                e = Add(d, part)
            }>
        }>
    }"""
    x, b = noise(2, 10), noise(2, 10, seed=1)
    y, dx, db = run(text, {"x": x, "b": b}, opset=15, watch=["x", "b"], seed=np.ones((2, 10), np.float32))
    factor, offset = 2 + 3 * 2 + 5 * 3, 0 + (0 + 1) + (0 + 1 + 2)
    close(y, factor * x + offset * b, "y")
    assert np.all(dx == factor) and np.all(db == offset)


def test_loops_in_branches_and_branches_in_loops():
    text = """
    net (float[2,10] x, bool up) => (float[2,10] y) {
        y = If (up) <
            then_branch = t () => (float[2,10] p) {
                two = Constant<value = int64 {2}>()
                base = Mul(x, x)
                p = Loop (two, "", base) <body = b (int64 i, bool go, float[2,10] a) => (bool still, float[2,10] c) {
                    still = Identity(go)
                    zero = Constant<value = int64 {0}>()
                    first = Equal(i, zero)
                    c = If (first) <then_branch = u () => (float[2,10] g) { g = Add(a, base) },
                                    else_branch = v () => (float[2,10] h) { h = Mul(a, x) }>
                }>
            },
            else_branch = e () => (float[2,10] q) { q = Neg(x) }
        >
    }"""
    x = noise(2, 10)
    y, gradient = run(text, {"x": x, "up": np.array(True)}, watch=["x"], seed=np.ones((2, 10), np.float32))
    close(y, 2 * x**3, "y")
    close(gradient, 6 * x**2, "gradient")
    assert np.array_equal(run(text, {"x": x, "up": np.array(False)})[0], -x)


FUNCTIONS = """
net (float[2,10] x) => (float[2,10] y) {{
    y = f.power <n = 3> (x)
}}
<domain: "f", opset_import: ["" : 17, "f" : 1]>
power <n> (a) => (z) {{
    count = Constant<value_int: int = @n>()
    one = f.ones(a)
    z = Loop (count, "", one) <body = b (int64 i, bool go, float[2,10] p) => (bool still, float[2,10] q) {{
        still = Identity(go)
        again = Constant<value_int: int = @n>()
        f32 = Cast<to = 1>(again)
        scaled = {scale}
        q = f.times(p, scaled)
    }}>
}}
<domain: "f", opset_import: ["" : 17, "f" : 1]>
times (a, b) => (c) {{ c = Mul(a, b) }}
<domain: "f", opset_import: ["" : 17, "f" : 1]>
ones (a) => (b) {{ zero = Sub(a, a)
    b = Exp(zero) }}
"""


def test_functions_with_loops():
    """Inputs and attributes of a function reach the body of its loop; the body calls functions."""
    x = noise(2, 10)
    y, = run(FUNCTIONS.format(scale="Mul(a, f32)"), {"x": x})
    close(y, (3 * x) ** 3, "y")


def test_recursion_through_a_body():
    text = FUNCTIONS.format(scale="f.power <n = 2> (a)")
    refused(text, {"x": noise(2, 10)}, "calls itself")


def test_convolutions_in_a_loop():
    """Weights of the body, weights from outside, and a weight that is another at every turn."""
    text = """
    net (float[N,4,H,W] x) => (float[N,4,H,W] y)
    <float[4,4,3,3] w = {%s}, float[4,4,1,1] v = {%s}> {
        n = Constant<value = int64 {3}>()
        y, last = Loop (n, "", x, v) <body = b (int64 i, bool go, float[N,4,H,W] a, float[4,4,1,1] u) => (bool still, float[N,4,H,W] c, float[4,4,1,1] t)
        <float[4,4,1,1] s = {%s}> {
            still = Identity(go)
            wide = Conv<pads = [1,1,1,1]>(a, w)
            bent = Relu(wide)
            thin = Conv(bent, u)
            same = Conv(thin, s)
            c = Add(same, a)
            t = Add(u, s)
        }>
    }"""
    w, v, s = noise(4, 4, 3, 3) / 6, noise(4, 4, 1, 1, seed=1) / 2, noise(4, 4, 1, 1, seed=2) / 2
    text %= tuple(", ".join(f"{f:.9g}" for f in array.ravel()) for array in (w, v, s))
    net = gradcam.Net(model(text))
    for shape in ((1, 4, 6, 5), (2, 4, 9, 9)):
        x = noise(*shape, seed=3)
        a, u = f64(x), torch.tensor(v, dtype=torch.float64)
        y = a
        for _ in range(3):
            thin = torch.conv2d(torch.relu(torch.conv2d(y, torch.tensor(w).double(), padding=1)), u)
            y, u = torch.conv2d(thin, torch.tensor(s).double()) + y, u + torch.tensor(s)
        dy = noise(*shape, seed=4)
        (y * torch.tensor(dy)).sum().backward()
        for _ in range(2):  # what is kept for the second run must fit, too
            got, gradient = run(None, {"x": x}, watch=["x"], seed=dy, net=net)
            close(got, y.detach().numpy(), "y")
            close(gradient, a.grad.numpy(), "gradient")


def test_normalisation_of_what_a_loop_makes():
    """It may not be folded into a convolution of the body whose result others read."""
    text = """
    net (float[1,2,4,4] x) => (float[1,2,4,4] y, float[2,1,2,4,4] all)
    <float[2,2,1,1] w = {1, 2, 3, 4}, float[2] s = {2, 3}, float[2] b = {1, 0}, float[2] m = {0, 1}, float[2] v = {1, 4}> {
        n = Constant<value = int64 {2}>()
        last, all = Loop (n, "", x) <body = b (int64 i, bool go, float[1,2,4,4] a) => (bool still, float[1,2,4,4] c, float[1,2,4,4] each) {
            still = Identity(go)
            c = Conv(a, w)
            each = Identity(c)
        }>
        y = BatchNormalization<epsilon = 0.0>(last, s, b, m, v)
    }"""
    x = noise(1, 2, 4, 4)
    w = np.array([[1, 2], [3, 4]], np.float32)
    turns = [np.einsum("oc,nchw->nohw", w, x)]
    turns.append(np.einsum("oc,nchw->nohw", w, turns[0]))
    scale = np.array([2, 1.5]).reshape(1, 2, 1, 1)
    y, rows = run(text, {"x": x})
    close(rows, np.stack(turns), "all")
    close(y, scale * (turns[1] - np.array([0, 1]).reshape(1, 2, 1, 1)) + np.array([1, 0]).reshape(1, 2, 1, 1), "y")


@pytest.mark.parametrize("place", ["outside", "body", "constant", "constant in the body", "branch"])
@pytest.mark.parametrize("on_demand", [False, True])
def test_large_weights(place, on_demand, tmp_path):
    """A weight of the network or of a body may stay in the file; what is an attribute, or becomes one, is read."""
    text = """
    net (float[2,200] x, bool yes) => (float[2,200] y) { %s
        n = Constant<value = int64 {3}>()
        y = Loop (n, "", x) <body = b (int64 i, bool go, float[2,200] a) => (bool go, float[2,200] c) { %s
            m = MatMul(a, w)
            c = Tanh(m)
        }>
    }"""
    constant = "w = Constant<value = float[1] {0}>()"
    branch = f"w = If (yes) <then_branch = t () => (float[200,200] u) {{ u = Identity(v) }}, else_branch = e () => (float[1] z) {{ z = Constant<value = float[1] {{0}}>() }}>"
    lines = {"constant": (constant, ""), "constant in the body": ("", constant), "branch": (branch, "")}.get(place, ("", ""))
    m = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>\n' + text % lines)
    w = onnx.numpy_helper.from_array(noise(200, 200), "v" if place == "branch" else "w")
    loop = m.graph.node[-1].attribute[0].g
    if place.startswith("constant"):
        node = (m.graph if place == "constant" else loop).node[0]
        node.attribute[0].t.CopyFrom(w)
    else:
        graph = {"outside": m.graph, "body": loop, "branch": m.graph.node[0].attribute[0].g}[place]
        graph.initializer.append(w)
    path = tmp_path / "model.onnx"
    path.write_bytes(m.SerializeToString())
    x = noise(2, 200, seed=1)
    want = x.astype(np.float64)
    for _ in range(3):
        want = np.tanh(want @ noise(200, 200))
    for source in (path, m.SerializeToString()):
        net = gradcam.Net(source, on_demand=on_demand)
        for _ in range(2):
            close(run(None, {"x": x, "yes": np.array(True)}, net=net)[0], want, place, relative=1e-3)


# ---- Scan ----

SCAN = """
net (float[3] s0, float[3,{n}] x, float[{n},2,3] z) => (float[3] s, float[A,B] first, float[C,D,E] second) {{
    s, first, second = Scan (s0, x, z) <num_scan_inputs = 2, {more}
        body = b (float[3] a, float[3] xi, float[2,3] zi) => (float[3] c, float[3] f, float[2,3] g) {{
            t = Mul(a, xi)
            c = Sin(t)
            f = Add(c, xi)
            g = Mul(zi, c)
        }}>
}}"""


def scan(s, x, z, backwards):
    first, second = [], []
    for i in range(x.shape[1]):
        xi = x[:, x.shape[1] - 1 - i if backwards[0] else i]
        zi = z[z.shape[0] - 1 - i if backwards[1] else i]
        s = torch.sin(s * xi)
        first.append(s + xi)
        second.append(zi * s)
    first, second = first[::-1] if backwards[2] else first, second[::-1] if backwards[3] else second
    return s, torch.stack(first, 1), torch.stack(second, 2)


@pytest.mark.parametrize("backwards", [(0, 0, 0, 0), (1, 0, 0, 1), (0, 1, 1, 0), (1, 1, 1, 1)])
@pytest.mark.parametrize("output", ["s", "first", "second"])
def test_scan_axes_and_directions(output, backwards):
    more = (f"scan_input_axes = [1, -3], scan_input_directions = [{backwards[0]}, {backwards[1]}], "
            f"scan_output_axes = [-1, 2], scan_output_directions = [{backwards[2]}, {backwards[3]}],")
    feeds = {"s0": noise(3), "x": noise(3, 5, seed=1), "z": noise(5, 2, 3, seed=2)}
    inputs = [f64(a) for a in feeds.values()]
    want = dict(zip(("s", "first", "second"), scan(*inputs, backwards)))
    dy = noise(*want[output].shape, seed=3)
    (want[output] * torch.tensor(dy)).sum().backward()
    net = gradcam.Net(model(SCAN.format(n=5, more=more)))
    with gradcam.Run(net) as r:
        for name, value in feeds.items():
            r.set_input(name, value)
            r.watch(name)
        r.forward()
        for name, value in want.items():
            close(r.value(name), value.detach().numpy(), name)
        r.backward(output, dy)
        for name, value in zip(feeds, inputs):
            if value.grad is None:
                with pytest.raises(gradcam.GradcamError) as caught:
                    r.gradient(name)
                assert caught.value.status == NO_GRADIENT
            else:
                close(r.gradient(name), value.grad.numpy(), f"gradient of {name}")


def test_scan_of_nothing():
    feeds = {"s0": noise(3), "x": noise(3, 0), "z": noise(0, 2, 3)}
    s, first, second = run(SCAN.format(n=0, more="scan_input_axes = [1, 0], scan_output_axes = [1, 2],"), feeds)
    assert np.array_equal(s, feeds["s0"]) and first.shape == (3, 0) and second.shape == (2, 3, 0)


SCAN8 = """
net (float[B,3] s0, float[B,N,3] x, int64[B] lengths) => (float[B,3] s, float[B,N,3] all) {
    s, all = Scan (%s, s0, x) <num_scan_inputs = 1, directions = [1], body = b (float[3] a, float[3] xi) => (float[3] c, float[3] f) {
        c = Mul(a, xi)
        f = Neg(c)
    }>
}"""


def test_scan_of_a_batch():
    feeds = {"s0": noise(2, 3), "x": noise(2, 4, 3, seed=1), "lengths": np.array([4, 4])}
    products = np.cumprod(np.concatenate([feeds["s0"][:, None], feeds["x"][:, ::-1]], 1), 1)[:, 1:]
    for lengths in ('""', "lengths"):
        s, rows = run(SCAN8 % lengths, feeds, opset=8)
        close(s, products[:, -1], "s")
        close(rows, -products, "all")
    _, _, gradient = run(SCAN8 % '""', feeds, opset=8, watch=["s0"], seed=np.ones((2, 3), np.float32))
    close(gradient, feeds["x"].prod(1), "gradient")
    refused(SCAN8 % "lengths", {**feeds, "lengths": np.array([4, 3])}, "sequence_lens", opset=8)


def test_scan_inputs_of_other_lengths():
    feeds = {"s0": noise(3), "x": noise(3, 5), "z": noise(4, 2, 3)}
    refused(SCAN.format(n="N", more="scan_input_axes = [1, 0],"), feeds, "Scan", "4 slices, the first 5")


# ---- sequences ----

def test_sequences():
    text = """
    net (float[2,6] x, float[2,2] u) => (float[2,8] y, float[3,2,2] z, int64 n, float[2,2] p) {
        zero = Constant<value = int64 {0}>()
        minus = Constant<value = int64 {-2}>()
        two = Constant<value = int64 {2}>()
        parts = SplitToSequence<axis = 1>(x, two)
        more = SequenceInsert(parts, u, minus)
        y = ConcatFromSequence<axis = 1>(more)
        less = SequenceErase(more, zero)
        same = Identity(less)
        z = ConcatFromSequence<axis = -3, new_axis = 1>(same)
        n = SequenceLength(more)
        short = SequenceErase(more)
        pair = SequenceConstruct(u, u)
        p = SequenceAt(short, two)
    }"""
    x, u = noise(2, 6), noise(2, 2, seed=1)
    a, b, c = x[:, :2], x[:, 2:4], x[:, 4:]
    y, z, n, p = run(text, {"x": x, "u": u})
    assert np.array_equal(y, np.concatenate([a, u, b, c], 1)) and np.array_equal(z, np.stack([u, b, c]))
    assert n == 4 and np.array_equal(p, b)
    dy = noise(2, 8, seed=2)
    *_, dx, du = run(text, {"x": x, "u": u}, watch=["x", "u"], seed=dy)
    assert np.array_equal(dx, np.concatenate([dy[:, :2], dy[:, 4:]], 1)) and np.array_equal(du, dy[:, 2:4])


@pytest.mark.parametrize("split,keepdims,shapes", [
    ("", 1, [(2, 1)] * 5), ("", 0, [(2,)] * 5), ("int64 {2}", 0, [(2, 2), (2, 2), (2, 1)]),
    ("int64[3] {4, 0, 1}", 1, [(2, 4), (2, 0), (2, 1)])])
def test_split_to_sequence(split, keepdims, shapes):
    x = noise(2, 5)
    outputs = ", ".join(f"float[] y{k}" for k in range(len(shapes)))
    picks = "\n".join(f"k{k} = Constant<value = int64 {{{k}}}>()\n y{k} = SequenceAt(parts, k{k})" for k in range(len(shapes)))
    made = f"s = Constant<value = {split}>()" if split else ""
    got = run(f"""net (float[2,5] x) => ({outputs}) {{ {made}
        parts = SplitToSequence<axis = 1, keepdims = {keepdims}>(x{', s' if split else ''})
        {picks} }}""", {"x": x})
    assert [y.shape for y in got] == shapes
    assert np.array_equal(np.concatenate([y.reshape(2, -1) for y in got], 1), x)


def test_a_loop_fills_a_sequence():
    text = """
    net (float[N,4] x) => (float[M,4] y) {
        n = Constant<value = int64 {3}>()
        none = SequenceEmpty()
        parts = Loop (n, "", none) <body = b (int64 i, bool go, seq(float[K,4]) s) => (bool still, seq(float[L,4]) t) {
            still = Identity(go)
            f = CastLike(i, x)
            xi = Mul(x, f)
            first = Constant<value = int64 {0}>()
            t = SequenceInsert(s, xi, first)
        }>
        y = ConcatFromSequence<axis = 0>(parts)
    }"""
    x = noise(20, 4)
    y, gradient = run(text, {"x": x}, watch=["x"], seed=np.ones((60, 4), np.float32))
    assert np.array_equal(y, np.concatenate([2 * x, x, 0 * x])) and np.all(gradient == 3)


@pytest.mark.parametrize("line,words", [
    ("y = SequenceAt(s, seven)", ["SequenceAt", "position 7"]),
    ("y = SequenceAt(x, seven)", ["SequenceAt", "must be a sequence"]),
    ("y = Relu(s)", ["Relu", "sequence"]),
    ("t = SequenceInsert(s, s)\n y = SequenceAt(t, seven)", ["SequenceInsert", "must be a tensor"]),
    ("t = SequenceEmpty()\n y = ConcatFromSequence<axis = 0>(t)", ["ConcatFromSequence", "empty"]),
    ("t = SequenceEmpty()\n u = SequenceErase(t)\n y = SequenceLength(u)", ["SequenceErase", "position -1"]),
    ("t = SplitToSequence(x, seven)\n y = Identity(t)", ["\"t\"", "sequence"]),
    ("b = Concat<axis = 0>(x, x)\n t = SequenceConstruct(x, b)\n y = ConcatFromSequence<axis = 1>(t)",
     ["ConcatFromSequence", "another type or shape"]),
    ("y = ConcatFromSequence(s)", ["ConcatFromSequence", "axis"]),
    ("t = SplitToSequence(x, pair)\n y = ConcatFromSequence<axis = 0>(t)", ["SplitToSequence", "do not fill"]),
    ("i = ArgMax<axis = 1, keepdims = 0>(x)\n j = Gather(i, zero)\n y = SequenceAt(s, j)", ["SequenceAt", "data-dependent"]),
])
def test_sequences_refused(line, words):
    text = f"""net (float[2,60] x) => (float[] y) {{
        seven = Constant<value = int64 {{7}}>()
        zero = Constant<value = int64 {{0}}>()
        pair = Constant<value = int64[2] {{1, 2}}>()
        s = SequenceConstruct(x)
        {line} }}"""
    refused(text, {"x": noise(2, 60)}, *words)


# ---- what the host sees of a body ----

NAMED = """
net (float[2,20] x) => (float[2,20] y) {
    n = Constant<value = int64 {2}>()
    [outer] y = Loop (n, "", x) <body = b (int64 i, bool go, float[2,20] a) => (bool still, float[2,20] c) {
        still = Identity(go)
        t = Mul(a, a)
        [inner] c = Loop (n, "", t) <body = d (int64 j, bool on, float[2,20] e) => (bool ever, float[2,20] g) {
            ever = Identity(on)
            [the_sine] g = Sin(e)
        }>
    }>
}"""


def test_names_in_bodies():
    x = noise(2, 20)
    values, seen, wanted = {}, [], []
    y = f64(x)
    for i in range(2):
        y = y * y
        values[f"outer/{i}/t"] = y
        for j in range(2):
            y = torch.sin(y)
            values[f"outer/{i}/inner/{j}/g"] = y
            y.retain_grad()
    dy = noise(2, 20, seed=1)
    (y * torch.tensor(dy)).sum().backward()
    with gradcam.Run(gradcam.Net(model(NAMED))) as r:
        r.set_input("x", x)
        for name in values:
            wanted += [name]
            r.watch(name)
        r.add_hook("outer/1/inner/0/g", lambda name, _array: seen.append(name), forward=True, backward=True)
        r.forward()
        r.backward("y", dy)
        for name, want in values.items():
            close(r.value(name), want.detach().numpy(), name)
            if want.grad is not None:
                close(r.gradient(name), want.grad.numpy(), f"gradient of {name}")
        r.watch("outer/0/inner/1/the_sine")
        r.forward()
        assert np.array_equal(r.value("outer/0/inner/1/the_sine"), r.value("outer/0/inner/1/g"))
        r.watch("outer/7/t")
        r.forward()
        for name, words in (("outer/7/t", "no turn"), ("outer/0/still", "not kept")):
            with pytest.raises(gradcam.GradcamError, match=words):
                r.value(name)
        for name in ("outer/0/none", "outer/x/t", "other/0/t", "outer/0", "outer//t"):
            with pytest.raises(gradcam.GradcamError, match="no value or node"):
                r.watch(name)
    assert len(seen) == 4 and set(seen) == {"outer/1/inner/0/g"}, "three passes forward, one backward"


def test_hooks_change_values_in_bodies():
    x = noise(2, 20)
    with gradcam.Run(gradcam.Net(model(NAMED))) as r:
        r.set_input("x", x)
        r.add_hook("outer/0/inner/1/g", lambda _name, array: np.full_like(array, 0.5), forward=True, write=True)
        r.forward()
        close(r.value("y"), np.full((2, 20), np.sin(np.sin(0.25))), "y")


def test_guided_backpropagation_through_a_loop():
    text = """
    net (float[1,3,6,6] x) => (float[1,3] y) <float[3,3,1,1] w = {%s}> {
        n = Constant<value = int64 {3}>()
        f = Loop (n, "", x) <body = b (int64 i, bool go, float[1,3,6,6] a) => (bool still, float[1,3,6,6] c) {
            still = Identity(go)
            t = Conv(a, w)
            c = Relu(t)
        }>
        m = GlobalAveragePool(f)
        y = Flatten(m)
    }""" % ", ".join(f"{v:.9g}" for v in noise(9))
    x, w = noise(1, 3, 6, 6, seed=1), torch.tensor(noise(9).reshape(3, 3, 1, 1)).double()
    a = f64(x)
    y = a
    for _ in range(3):
        y = torch.relu(torch.conv2d(y, w))
        y.register_hook(lambda g: g.clamp(min=0))
    y.mean((2, 3))[0, 1].backward()
    with gradcam.Run(gradcam.Net(model(text))) as r:
        r.set_input("x", x)
        close(r.guided_backprop(index=1), a.grad.numpy(), "guided")


# ---- limits and refusals ----

EMPTY = """
net (float[2,10] x, int64 n) => (float[2,10] y) {
    [endless] y = Loop (n, "", x) <body = b (int64 i, bool go, float[2,10] a) => (bool go, float[2,10] a) { }>
}"""


def nest(depth, count, inside="z = Relu(x)"):
    """Loops in loops, `count` turns each."""
    for k in range(depth):
        inside = f"""[loop{k}] z{k} = Loop (n, "", x) <body = b{k} (int64 i{k}, bool g{k}, float[2,10] a{k}) => (bool g{k}, float[2,10] a{k}) {{ {inside} }}>"""
    return f"""net (float[2,10] x) => (float[2,10] y) {{
        n = Constant<value = int64 {{{count}}}>()
        {inside}
        y = Relu(z{depth - 1}) }}"""


@pytest.mark.parametrize("count", [10**6, 10**18, 2**63 - 1])
def test_a_trip_count_is_limited(count):
    refused(EMPTY, {"x": noise(2, 10), "n": np.array(count)}, "Loop", '"endless"', "max_nodes")


def test_the_limit_is_the_host_s():
    feeds = {"x": noise(2, 10), "n": np.array(50)}
    assert np.array_equal(run(EMPTY, feeds)[0], feeds["x"])
    refused(EMPTY, feeds, "Loop", "after 40 turns", "max_nodes = 320", max_nodes=320)
    assert np.array_equal(run(None, feeds, net=gradcam.Net(model(EMPTY), max_nodes=400))[0], feeds["x"])


def test_nested_loops_multiply():
    run(nest(3, 10), {"x": noise(2, 10)})
    run(nest(4, 10), {"x": noise(2, 10)})
    refused(nest(8, 10), {"x": noise(2, 10)}, "max_nodes", '"loop')
    refused(nest(20, 1), {"x": noise(2, 10)}, "deeper than 16")


def test_a_while_loop_that_never_ends():
    text = EMPTY.replace('Loop (n, "", x)', 'Loop ("", "", x)')
    refused(text, {"x": noise(2, 10), "n": np.array(1)}, '"endless"', "max_nodes")


def test_long_scans_and_splits_are_limited():
    scan_text = """net (float[2,10] x) => (float[N] y) {
        n = Constant<value = int64[1] {%d}>()
        long = ConstantOfShape(n)
        %s }"""
    body = "[many] y = Scan (long) <num_scan_inputs = 1, body = b (float a) => (float c) { c = Neg(a) }>"
    assert run(scan_text % (300, body), {"x": noise(2, 10)})[0].shape == (300,)
    refused(scan_text % (300000, body), {"x": noise(2, 10)}, '"many"', "max_nodes")
    refused(scan_text % (300000, "s = SplitToSequence(long)\n t = SequenceLength(s)\n y = Cast<to = 1>(t)"),
            {"x": noise(2, 10)}, "SplitToSequence", "max_nodes")


def test_long_sequences_are_limited():
    """Each insertion copies the list: the sum of all lengths is bounded."""
    text = """net (float[2,10] x, int64 n) => (int64 y) {
        none = SequenceEmpty()
        s = Loop (n, "", none) <body = b (int64 i, bool go, seq(float[2,10]) t) => (bool go, seq(float[2,10]) u) { u = SequenceInsert(t, x) }>
        y = SequenceLength(s) }"""
    assert run(text, {"x": noise(2, 10), "n": np.array(1000)})[0] == 1000
    refused(text, {"x": noise(2, 10), "n": np.array(20000)}, "sequences", "max_nodes")


def test_data_dependent_loops():
    count = """net (float[2,20] x) => (float[2,20] y) {
        i = ArgMax<axis = 1, keepdims = 0>(x)
        zero = Constant<value = int64 {0}>()
        n = Gather(i, zero)
        [counts] y = Loop (n, "", x) <body = b (int64 i1, bool go, float[2,20] a) => (bool go, float[2,20] c) { c = Neg(a) }> }"""
    refused(count, {"x": noise(2, 20)}, "Loop", '"counts"', "trip count", "data-dependent")
    condition = """net (float[2,20] x) => (float[2,20] y) {
        n = Constant<value = int64 {5}>()
        one = Constant<value = float {1}>()
        [asks] y = Loop (n, "", x) <body = b (int64 i1, bool go, float[2,20] a) => (bool more, float[2,20] c) {
            c = Neg(a)
            m = ReduceMax<keepdims = 0>(c)
            more = Less(m, one) }> }"""
    refused(condition, {"x": noise(2, 20)}, "Loop", '"asks"', "condition before turn 1", "data-dependent")
    once = condition.replace("int64 {5}", "int64 {1}")
    assert np.array_equal(run(once, {"x": noise(2, 20)})[0], -noise(2, 20))


def test_errors_in_a_body_name_its_node():
    text = """net (float[2,20] x) => (float[2,20] y) {
        n = Constant<value = int64 {5}>()
        y = Loop (n, "", x) <body = b (int64 i1, bool go, float[2,20] a) => (bool go, float[2,20] c) {
            [grows] c = Concat<axis = 0>(a, a)
            [adds] d = Add(c, x)
        }> }"""
    assert run(text, {"x": noise(2, 20)})[0].shape == (64, 20), "nobody needs d"
    refused(text.replace("float[2,20] c) {", "float[2,20] d) {"), {"x": noise(2, 20)}, "Add", '"adds"')


@pytest.mark.parametrize("line,words", [
    ('y = Loop (n, "", x, x) <body = b (int64 i, bool go, float[2,20] a) => (bool go, float[2,20] a) { }>', "do not fit"),
    ('y = Loop (n, "", x) <body = b (int64 i, bool go, float[2,20] a) => (bool go) { }>', "do not fit"),
    ('y, z = Loop (n, "", x) <body = b (int64 i, bool go, float[2,20] a) => (bool go, float[2,20] a) { }>', "do not fit"),
    ("y = Loop (n) <body = b (int64 i) => (int64 i) { }>", "do not fit"),
    ('y = Loop (n, "", "") <body = b (int64 i, bool go, float[2,20] a) => (bool go, float[2,20] a) { }>', "a state, is missing"),
    ('y = Loop (n, "", x)', "no body"),
    ("y = Scan (x) <num_scan_inputs = 2, body = b (float[20] a) => (float[20] a) { }>", "do not fit"),
    ("y = Scan (x) <num_scan_inputs = 0, body = b (float[20] a) => (float[20] a) { }>", "do not fit"),
    ("y = Scan (x) <num_scan_inputs = -1, body = b (float[20] a) => (float[20] a) { }>", "do not fit"),
    ("y = Scan (x) <body = b (float[20] a) => (float[20] a) { }>", "do not fit"),
    ("y = Scan (x) <num_scan_inputs = 1, scan_input_axes = [2], body = b (float[20] a) => (float[20] a) { }>", "axis 2"),
    ("y = Scan (x) <num_scan_inputs = 1, scan_output_axes = [5], body = b (float[20] a) => (float[20] a) { }>", "axis 5"),
    ('y = Loop (n, "", x) <body = b (int64 i, bool go, float[2,20] a) => (bool go, float[2,20] c) { c = Nothing(a) }>', "Nothing"),
    ('y = Loop (n, "", x) <body = b (int64 i, bool go, float[2,20] a) => (bool go, float[2,20] c) { c = Add(a, c) }>', "cycle"),
    ('y = Loop (n, "", x) <body = b (int64 i, bool go, float[2,20] a) => (bool go, float[2,20] c) { c = Add(a, y) }>', "cycle"),
    ('y = Loop (n, "", x) <body = b (int64 i, bool go, float[2,20] a) => (bool go, float[2,20] c) { c = Add(a, w) }>', '"w"'),
    ('y = Loop (n, "", x) <body = b (int64 i, bool go, float[2,20] a) => (bool go, float[2,20] a) { a = Neg(x) }>', "twice"),
])
def test_malformed_bodies(line, words):
    text = f"""net (float[2,20] x) => (float[] y) {{
        n = Constant<value = int64 {{2}}>()
        {line} }}"""
    refused(text, {"x": noise(2, 20)}, words)
