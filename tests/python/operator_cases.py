# SPDX-License-Identifier: MIT
"""Random models of one node for every operator that has a gradient.

Each function below draws shapes and attributes from `rng` and gives Cases; its
name in CASES is the operator.  Inputs stay off the points where an operator has
no derivative: spaced() draws from a grid without ties and without zero.
"""

import collections

import numpy as np

# inputs: arrays, None absent; data: indices of graph inputs, the others are constants; linear: indices of
# inputs in which the operator is affine; silent: outputs that pass no gradient; reference: attributes that are
# other ones in float64; stand_in: the operator that the reference runs instead.
Case = collections.namedtuple("Case", "inputs data attributes opset n_out linear silent reference stand_in",
                              defaults=((0,), {}, 21, 1, (), (), {}, None))
CASES = {}


def case(*operators):
    def add(draw):
        for op in operators:
            assert op not in CASES, op
            CASES[op] = draw
        return draw
    return add


def spaced(rng, shape, low=-2.0, high=2.0):
    """Distinct numbers in (low, high), none of them nearer to another than the grid."""
    n = max(int(np.prod(shape)), 1)
    grid = low + (high - low) * (np.arange(n) + rng.uniform(0.3, 0.7)) / n
    return rng.permutation(grid)[:int(np.prod(shape))].reshape(shape).astype(np.float32)


def sizes(rng, n, low=1, high=4):
    return tuple(int(k) for k in rng.integers(low, high + 1, n))


def ints(*values):
    return np.array(values, np.int64)


# ---- element by element ----

DOMAINS = {"Acos": (-0.9, 0.9), "Asin": (-0.9, 0.9), "Atanh": (-0.9, 0.9), "Acosh": (1.1, 4), "Log": (0.1, 4),
           "Sqrt": (0.1, 4), "Reciprocal": (0.3, 3), "Tan": (-1.2, 1.2)}
DRAWN = {"LeakyRelu": ("alpha",), "Elu": ("alpha",), "Selu": ("alpha", "gamma"), "Celu": ("alpha",),
         "ThresholdedRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Shrink": ("lambd", "bias"),
         "Swish": ("alpha",)}


@case("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Erf", "Exp", "HardSwish", "Identity",
      "Log", "Mish", "Neg", "Reciprocal", "Relu", "Sigmoid", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan",
      "Tanh", "LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "HardSigmoid", "Shrink", "Swish")
def unary(rng, op):
    x = spaced(rng, sizes(rng, rng.integers(0, 5)), *DOMAINS.get(op, (-2.0, 2.0)))
    attributes = {name: float(np.float32(rng.uniform(0.2, 0.8))) for name in DRAWN.get(op, ())}
    yield Case([x], (0,), attributes, 24 if op == "Swish" else 21, linear=(0,) if op in ("Identity", "Neg") else ())


@case("Gelu")
def gelu(rng, op):
    for approximate in ("none", "tanh"):
        yield Case([spaced(rng, sizes(rng, 3))], (0,), {"approximate": approximate})


@case("Dropout")
def dropout(rng, op):
    yield Case([spaced(rng, sizes(rng, 3))], linear=(0,))


@case("Cast", "CastLike")
def cast(rng, op):
    x = spaced(rng, sizes(rng, 2))
    if op == "Cast":
        yield Case([x], (0,), {"to": 1}, linear=(0,), reference={"to": 11})
    else:
        yield Case([x, spaced(rng, (2,))], (0, 1), linear=(0,))


@case("Clip")
def clip(rng, op):
    low, high = np.float32(rng.uniform(-1.5, -0.5)), np.float32(rng.uniform(0.5, 1.5))
    x = spaced(rng, sizes(rng, 3))
    yield Case([x, np.array(low), np.array(high)])
    yield Case([x, None, np.array(high)])


@case("PRelu")
def prelu(rng, op):
    n, c, h = sizes(rng, 3)
    for slope in ((c, 1), (1,), (n, c, h)):
        yield Case([spaced(rng, (n, c, h)), spaced(rng, slope, 0.1, 0.9)], (0, 1))


# ---- two operands and more ----

def broadcast_pair(rng):
    shape = sizes(rng, 3)
    yield shape, shape
    yield shape, shape[1:]
    yield (shape[0], 1, shape[2]), (1, shape[1], 1)
    yield (), shape


@case("Add", "Sub", "Mul", "Div", "Pow", "Mod")
def binary(rng, op):
    for a, b in broadcast_pair(rng):
        low = 0.4 if op == "Pow" else -2.0
        second = spaced(rng, b, 0.6, 2.0) if op in ("Div", "Mod") else spaced(rng, b)
        linear = {"Add": (0, 1), "Sub": (0, 1), "Mul": (0, 1), "Div": (0,)}.get(op, ())
        yield Case([spaced(rng, a, low, 2.1), second], (0, 1), {"fmod": 1} if op == "Mod" else {}, linear=linear)


@case("Sum", "Mean", "Max", "Min")
def variadic(rng, op):
    shape = sizes(rng, 2)
    together = spaced(rng, (3, *shape))  # no ties between the operands
    linear = (0, 1, 2) if op in ("Sum", "Mean") else ()
    yield Case([together[0], together[1], together[2]], (0, 1, 2), linear=linear)
    yield Case([together[0], together[1, :1]], (0, 1), linear=linear[:2])


@case("Where")
def where(rng, op):
    shape = sizes(rng, 3)
    condition = rng.random(shape[1:]) < 0.5
    yield Case([condition, spaced(rng, shape), spaced(rng, (shape[0], 1, 1))], (0, 1, 2), linear=(1, 2))


@case("MatMul")
def matmul(rng, op):
    m, n, k, b = sizes(rng, 4)
    pairs = ((m, k), (k, n)), ((k,), (k, n)), ((m, k), (k,)), ((b, 1, m, k), (b, k, n)), ((k,), (b, k, n))
    for first, second in pairs:
        yield Case([spaced(rng, first), spaced(rng, second)], (0, 1), linear=(0, 1))


@case("Gemm")
def gemm(rng, op):
    m, n, k = sizes(rng, 3)
    for trans_a, trans_b, bias in ((0, 0, (n,)), (1, 0, (m, 1)), (0, 1, ()), (1, 1, (m, n))):
        inputs = [spaced(rng, (k, m) if trans_a else (m, k)), spaced(rng, (n, k) if trans_b else (k, n)), spaced(rng,
                bias)]
        scale = {"alpha": float(np.float32(rng.uniform(0.5, 2))), "beta": float(np.float32(rng.uniform(0.5, 2)))}
        yield Case(inputs, (0, 1, 2), {"transA": trans_a, "transB": trans_b, **scale}, linear=(0, 1, 2))


@case("Einsum")
def einsum(rng, op):
    b, i, j, k = sizes(rng, 4)
    yield Case([spaced(rng, (b, i, k)), spaced(rng, (b, k, j))], (0, 1), {"equation": "bik,bkj->bij"}, linear=(0, 1))
    yield Case([spaced(rng, (i, j))], (0,), {"equation": "ij->j"}, linear=(0,))
    yield Case([spaced(rng, (i, i))], (0,), {"equation": "ii->i"}, linear=(0,))


# ---- windows ----

def window(rng, dims, kernel_most=3):
    kernel = sizes(rng, dims, 1, kernel_most)
    return {"kernel_shape": kernel, "strides": sizes(rng, dims, 1, 2),
            "pads": [int(rng.integers(0, k)) for k in kernel * 2]}


@case("Conv")
def conv(rng, op):
    for dims, group in ((1, 1), (2, 1), (2, 2), (3, 1)):
        c, m = (2 * group, 2 * group) if group > 1 else sizes(rng, 2, 1, 3)
        attributes = {**window(rng, dims), "group": group, "dilations": sizes(rng, dims, 1, 2)}
        x = spaced(rng, (2, c, *sizes(rng, dims, 5, 6 if dims < 3 else 5)))
        w = spaced(rng, (m, c // group, *attributes["kernel_shape"]))
        yield Case([x, w, spaced(rng, (m,))], (0, 1, 2), attributes, linear=(0, 1, 2))


@case("ConvTranspose")
def conv_transpose(rng, op):
    for dims in (1, 2):
        c, m = sizes(rng, 2, 1, 3)
        kernel, strides = sizes(rng, dims, 2, 3), sizes(rng, dims, 1, 2)
        attributes = {"kernel_shape": kernel, "strides": strides, "pads": [int(rng.integers(0,
                2)) for _ in range(2 * dims)],
                      "output_padding": [s - 1 for s in strides]}
        x = spaced(rng, (2, c, *sizes(rng, dims, 2, 4)))
        yield Case([x, spaced(rng, (c, m, *kernel)), spaced(rng, (m,))], (0,), attributes, linear=(0,))


@case("AveragePool", "MaxPool", "LpPool")
def pool(rng, op):
    for dims in (1, 2):
        attributes = window(rng, dims)
        if op == "AveragePool":
            attributes["count_include_pad"] = int(rng.integers(0, 2))
        if op == "LpPool":
            attributes["p"] = int(rng.integers(2, 4))
        yield Case([spaced(rng, (2, 2, *sizes(rng, dims, 4, 6)))], (0,), attributes,
                   linear=(0,) if op == "AveragePool" else ())


@case("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(rng, op):
    x = spaced(rng, (2, *sizes(rng, 3)))
    if op == "GlobalLpPool":  # the norm over all positions
        yield Case([x], (0,), {"p": 2}, stand_in=("ReduceL2", [ints(2, 3)], {"keepdims": 1}))
    else:
        yield Case([x], linear=(0,) if op == "GlobalAveragePool" else ())


@case("MaxUnpool")
def max_unpool(rng, op):
    index = np.stack([rng.permutation(16)[:4].reshape(1, 2, 2) for _ in range(2)])
    index = index + 16 * np.arange(2).reshape(2, 1, 1, 1)
    yield Case([spaced(rng, (2, 1, 2, 2)), index.astype(np.int64)], (0, 1),
               {"kernel_shape": [2, 2], "strides": [2, 2]}, linear=(0,))


@case("LRN")
def lrn(rng, op):
    attributes = {"size": int(rng.integers(1, 5)), "alpha": 0.5, "beta": 0.75, "bias": 1.0}
    yield Case([spaced(rng, (2, 5, *sizes(rng, 2)))], (0,), attributes)


@case("Col2Im")
def col2im(rng, op):
    h, w = sizes(rng, 2, 3, 5)
    kernel = sizes(rng, 2, 1, 2)
    blocks = (h - kernel[0] + 1) * (w - kernel[1] + 1)
    x = spaced(rng, (2, 2 * kernel[0] * kernel[1], blocks))
    yield Case([x, ints(h, w), ints(*kernel)], linear=(0,))


# ---- norms ----

@case("BatchNormalization")
def batch_norm(rng, op):
    n, c, h, w = sizes(rng, 4)
    parameters = [spaced(rng, (c,)) for _ in range(3)] + [spaced(rng, (c,), 0.5, 2)]
    yield Case([spaced(rng, (n, c, h, w)), *parameters], linear=(0,))


@case("InstanceNormalization", "GroupNormalization")
def channel_norm(rng, op):
    c = 2 * int(rng.integers(1, 3))
    x = spaced(rng, (2, c, *sizes(rng, 2, 2, 3)))
    groups = {"num_groups": 2} if op == "GroupNormalization" else {}
    yield Case([x, spaced(rng, (c,)), spaced(rng, (c,))], (0, 1, 2) if groups else (0,), groups,
               linear=(1, 2) if groups else ())


@case("LayerNormalization", "RMSNormalization")
def row_norm(rng, op):
    shape = sizes(rng, 3, 2, 3)
    for axis in (1, -1):
        parameters = [spaced(rng, shape[axis:]) for _ in range(2 if op == "LayerNormalization" else 1)]
        yield Case([spaced(rng, shape), *parameters], tuple(range(1 + len(parameters))), {"axis": axis}, 23,
                   linear=tuple(range(1, 1 + len(parameters))))


@case("LpNormalization")
def lp_norm(rng, op):
    for p in (1, 2):
        yield Case([spaced(rng, sizes(rng, 3, 2, 4))], (0,), {"p": p, "axis": int(rng.integers(-3, 3))}, 22)


@case("MeanVarianceNormalization")
def mvn(rng, op):
    yield Case([spaced(rng, sizes(rng, 4, 2, 3))], (0,), {"axes": [0, 2, 3]})


@case("Softmax", "LogSoftmax")
def softmax(rng, op):
    x = spaced(rng, sizes(rng, 3))
    yield Case([x], (0,), {"axis": int(rng.integers(-3, 3))})


# ---- reductions ----

@case("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
      "ReduceSum", "ReduceSumSquare")
def reduce(rng, op):
    shape = sizes(rng, 3)
    x = spaced(rng, shape, 0.1 if op == "ReduceLogSum" else -2.0, 2.1)
    linear = (0,) if op in ("ReduceSum", "ReduceMean") else ()
    for axes in (ints(1), ints(0, -1), None):
        yield Case([x, axes] if axes is not None else [x], (0,), {"keepdims": int(rng.integers(0, 2))}, linear=linear)


@case("CumSum")
def cumsum(rng, op):
    for exclusive in (0, 1):
        attributes = {"exclusive": exclusive, "reverse": int(rng.integers(0, 2))}
        yield Case([spaced(rng, sizes(rng, 3)), np.array(int(rng.integers(-3, 3)), np.int64)], (0,), attributes,
                   linear=(0,))


@case("TopK")
def topk(rng, op):
    x = spaced(rng, (3, 5, 2))
    attributes = {"axis": 1, "largest": int(rng.integers(0, 2))}
    yield Case([x, ints(int(rng.integers(1, 5)))], (0,), attributes, n_out=2, silent=(1,))


# ---- shapes and places ----

@case("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile")
def shape_op(rng, op):
    a, b, c = sizes(rng, 3)
    x = spaced(rng, (a, 1, b, c))
    more, attributes = {"Reshape": ([ints(0, -1)], {}), "Flatten": ([], {"axis": int(rng.integers(-4, 5))}),
                        "Squeeze": ([ints(1)], {}), "Unsqueeze": ([ints(0, -1)], {}),
                        "Transpose": ([], {"perm": [int(k) for k in rng.permutation(4)]}),
                        "Expand": ([ints(2, a, 3, b, c)], {}), "Tile": ([ints(*sizes(rng, 4, 1, 2))], {})}[op]
    yield Case([x, *more], (0,), attributes, linear=(0,))


@case("Concat")
def concat(rng, op):
    shape = list(sizes(rng, 3))
    axis = int(rng.integers(-3, 3))
    parts = [spaced(rng, shape[:axis % 3] + [k] + shape[axis % 3 + 1:]) for k in (1, 3, 2)]
    yield Case(parts, (0, 1, 2), {"axis": axis}, linear=(0, 1, 2))


@case("Split")
def split(rng, op):
    yield Case([spaced(rng, (2, 6, 2)), ints(1, 3, 2)], (0,), {"axis": 1}, n_out=3, linear=(0,))
    yield Case([spaced(rng, (5, 2))], (0,), {"axis": 0, "num_outputs": 2}, n_out=2, linear=(0,))


@case("Slice")
def slices(rng, op):
    x = spaced(rng, sizes(rng, 3, 3, 5))
    yield Case([x, ints(1, -1), ints(99, -99), ints(0, 2), ints(2, -1)], linear=(0,))


@case("Pad")
def pad(rng, op):
    x = spaced(rng, sizes(rng, 3, 3, 4))
    pads = ints(*rng.integers(0, 3, 6))
    for mode in ("constant", "reflect", "edge", "wrap"):
        yield Case([x, pads], (0,), {"mode": mode}, linear=(0,))
    yield Case([x, pads - 1, np.array(0.5, np.float32)], linear=(0,))


@case("Trilu")
def trilu(rng, op):
    for upper in (0, 1):
        yield Case([spaced(rng, sizes(rng, 3)), np.array(int(rng.integers(-2, 3)), np.int64)], (0,), {"upper": upper},
                   linear=(0,))


@case("DepthToSpace", "SpaceToDepth")
def depth_space(rng, op):
    if op == "SpaceToDepth":
        yield Case([spaced(rng, (2, 2, 4, 2))], (0,), {"blocksize": 2}, linear=(0,))
    else:
        for mode in ("DCR", "CRD"):
            yield Case([spaced(rng, (2, 8, 1, 3))], (0,), {"blocksize": 2, "mode": mode}, linear=(0,))


@case("CenterCropPad")
def center_crop_pad(rng, op):
    yield Case([spaced(rng, sizes(rng, 3, 2, 5)), ints(3, 4)], (0,), {"axes": [0, 2]}, linear=(0,))


@case("ReverseSequence")
def reverse_sequence(rng, op):
    yield Case([spaced(rng, (4, 3, 2)), ints(*rng.integers(1, 5, 3))], (0,), {"time_axis": 0, "batch_axis": 1},
               linear=(0,))


@case("Compress")
def compress(rng, op):
    yield Case([spaced(rng, (3, 4)), np.array([True, False, True])], (0,), {"axis": 0}, linear=(0,))
    yield Case([spaced(rng, (3, 2)), np.array([False, True, True, False, True])], linear=(0,))


# ---- indices ----

@case("Gather")
def gather(rng, op):
    yield Case([spaced(rng, (4, 3, 2)), ints(*rng.integers(-3, 3, 6)).reshape(2, 3)], (0, 1), {"axis": 1}, linear=(0,))


@case("GatherElements")
def gather_elements(rng, op):
    yield Case([spaced(rng, (4, 3)), rng.integers(-4, 4, (6, 3)).astype(np.int64)], (0, 1), {"axis": 0}, linear=(0,))


@case("GatherND")
def gather_nd(rng, op):
    yield Case([spaced(rng, (3, 4, 2)), rng.integers(0, 3, (5, 2)).astype(np.int64)], (0, 1), linear=(0,))
    yield Case([spaced(rng, (2, 4, 3)), rng.integers(0, 4, (2, 3, 1)).astype(np.int64)], (0, 1), {"batch_dims": 1},
               linear=(0,))


@case("ScatterElements", "Scatter")
def scatter_elements(rng, op):
    index = np.stack([rng.permutation(5)[:2] for _ in range(3)], 1).astype(np.int64)
    inputs = [spaced(rng, (5, 3)), index, spaced(rng, (2, 3), -1.5, 1.6)]
    if op == "Scatter":
        yield Case(inputs, (0, 1, 2), {"axis": 0}, 9, linear=(0, 2), stand_in=("ScatterElements", [], {"axis": 0}))
        return
    for reduction in ("none", "add", "mul", "max", "min"):
        linear = (0, 2) if reduction in ("none", "add") else ()
        yield Case(inputs, (0, 1, 2), {"axis": 0, "reduction": reduction}, linear=linear)


@case("ScatterND")
def scatter_nd(rng, op):
    index = rng.permutation(5)[:3].reshape(3, 1).astype(np.int64)
    for reduction in ("none", "add", "mul", "max", "min"):
        linear = (0, 2) if reduction in ("none", "add") else ()
        yield Case([spaced(rng, (5, 2)), index, spaced(rng, (3, 2), -1.5, 1.6)], (0, 1, 2), {"reduction": reduction},
                   linear=linear)


@case("OneHot")
def one_hot(rng, op):
    yield Case([rng.integers(0, 4, (2, 3)).astype(np.int64), np.array(4, np.int64), spaced(rng, (2,))], (0, 2),
               {"axis": -1}, linear=(2,))


# ---- images ----

@case("Resize", "Upsample")
def resize(rng, op):
    x = spaced(rng, (1, 2, *sizes(rng, 2, 3, 4)))
    scales = np.array([1, 1, 2, 3], np.float32)
    if op == "Upsample":
        for mode in ("nearest", "linear"):
            yield Case([x, np.array([1, 1, 2, 3], np.float32)], (0,), {"mode": mode}, 9, linear=(0,),
                       stand_in=("Resize", [], {"mode": mode, "coordinate_transformation_mode": "asymmetric",
                                                "nearest_mode": "floor"}))
        return
    for mode in ("nearest", "linear", "cubic"):
        for where in ("half_pixel", "align_corners", "asymmetric"):
            yield Case([x, None, scales], (0,), {"mode": mode, "coordinate_transformation_mode": where}, linear=(0,))


@case("GridSample")
def grid_sample(rng, op):
    x = spaced(rng, (2, 2, 4, 3))
    grid = spaced(rng, (2, 2, 3, 2), -0.9, 0.9)
    for mode in ("linear", "cubic"):
        attributes = {"mode": mode, "padding_mode": "zeros", "align_corners": int(rng.integers(0, 2))}
        yield Case([x, grid], (0, 1), attributes, linear=(0,))
    yield Case([x, grid], (0,), {"mode": "nearest"}, linear=(0,))


@case("AffineGrid")
def affine_grid(rng, op):
    for corners in (0, 1):
        yield Case([spaced(rng, (2, 2, 3)), ints(2, 3, 2, 4)], (0,), {"align_corners": corners}, linear=(0,))


@case("RoiAlign")
def roi_align(rng, op):
    x = spaced(rng, (2, 2, 5, 6))
    rois = np.array([[0.4, 0.7, 3.1, 3.6], [1.2, 0.3, 4.7, 4.1]], np.float32)
    for mode in ("avg", "max"):
        attributes = {"mode": mode, "output_height": 2, "output_width": 2, "sampling_ratio": 2}
        yield Case([x, rois, ints(0, 1)], (0,), attributes, linear=(0,) if mode == "avg" else ())


@case("MaxRoiPool")
def max_roi_pool(rng, op):
    x = spaced(rng, (1, 2, 4, 4))
    rois = np.array([[0, 0, 0, 3, 3]], np.float32)  # the whole image: an ordinary pooling
    pooling = {"kernel_shape": [2, 2], "strides": [2, 2]}
    yield Case([x, rois], (0,), {"pooled_shape": [2, 2]}, stand_in=("MaxPool", None, pooling))


# ---- signals ----

@case("DFT")
def dft(rng, op):
    for onesided in (0, 1):
        yield Case([spaced(rng, (2, 6, 1)), None, np.array(1, np.int64)], (0,), {"onesided": onesided}, 20, linear=(0,))


@case("STFT")
def stft(rng, op):
    window_values = spaced(rng, (4,), 0.2, 1.0)
    yield Case([spaced(rng, (2, 10, 1)), np.array(2, np.int64), window_values], (0,), {"onesided": 1}, linear=(0,))


# ---- state and deformation ----

@case("DeformConv")
def deform_conv(rng, op):
    """Groups 1 and 2; offsets that keep away from whole pixels."""
    for groups in (1, 2):
        x, w = spaced(rng, (1, 2 * groups, 4, 4)), spaced(rng, (2, 2, 2, 2))
        offset = spaced(rng, (1, 8 * groups, 3, 3), 0.1, 0.4) + rng.integers(-1, 1, (1, 8 * groups, 3, 3))
        inputs = [x, w, offset.astype(np.float32), spaced(rng, (2,)), spaced(rng, (1, 4 * groups, 3, 3), 0.2, 1.0)]
        yield Case(inputs, (0, 1, 2, 3, 4), {"group": groups, "offset_group": groups, "kernel_shape": [2, 2]}, 22,
                   linear=(0, 1, 3, 4))


@case("CausalConvWithState")
def causal_conv(rng, op):
    channels, kernel = 3, int(rng.integers(1, 4))
    inputs = [spaced(rng, (2, channels, 4)), spaced(rng, (channels, 1, kernel)), spaced(rng, (channels,)),
              spaced(rng, (2, channels, kernel - 1))]
    for activation in ("none", "silu"):
        yield Case(inputs, (0, 1, 2, 3), {"activation": activation}, 27, n_out=2)


@case("SwiGLU")
def swiglu(rng, op):
    for attributes in ({}, {"alpha": float(np.float32(rng.uniform(0.3, 1.7)))}):
        shape = sizes(rng, rng.integers(0, 4))
        yield Case([spaced(rng, shape), spaced(rng, shape)], (0, 1), attributes, 28, linear=(1,))


@case("LinearAttention")
def linear_attention(rng, op):
    """Every rule; one state for each query and one for two; gates for each head and for each key or for all."""
    for rule in ("linear", "gated", "delta", "gated_delta"):
        for q_heads, decays, betas in ((2, 2, 2), (4, 6, 1)):
            inputs = [spaced(rng, (2, 4, q_heads * 3)), spaced(rng, (2, 4, 6), -0.7, 0.7), spaced(rng, (2, 4, 4))]
            past = spaced(rng, (2, 2, 3, 2))
            decay = spaced(rng, (2, 4, decays), -1, 0.1) if rule.startswith("gated") else None
            beta = spaced(rng, (2, 4, betas), 0.1, 0.9) if rule.endswith("delta") else None
            inputs += [past, decay, beta]
            data = tuple(k for k, x in enumerate(inputs) if x is not None)
            yield Case(inputs, data, {"update_rule": rule, "q_num_heads": q_heads, "kv_num_heads": 2}, 27, n_out=2)


@case("TensorScatter")
def tensor_scatter(rng, op):
    inputs = [spaced(rng, (2, 1, 5, 2)), spaced(rng, (2, 1, 3, 2)), ints(*rng.integers(0, 3, 2))]
    yield Case(inputs, (0, 1), {"mode": "linear"}, 24, linear=(0, 1))
    inputs = [*inputs[:2], ints(*rng.integers(0, 5, 2))]
    yield Case(inputs, (0, 1), {"mode": "circular"}, 24, linear=(0, 1))


# ---- recurrent ----

@case("LSTM", "GRU", "RNN")
def recurrent(rng, op):
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    steps, batch, size, hidden = 3, 2, 2, 3
    w, r = spaced(rng, (1, gates * hidden, size), -0.9, 0.9), spaced(rng, (1, gates * hidden, hidden), -0.9, 0.9)
    bias = spaced(rng, (1, 2 * gates * hidden), -0.5, 0.5)
    inputs = [spaced(rng, (steps, batch, size)), w, r, bias, None, spaced(rng, (1, batch, hidden))]
    attributes = {"hidden_size": hidden}
    if op == "GRU":
        attributes["linear_before_reset"] = 1
    if op == "LSTM":
        inputs.append(spaced(rng, (1, batch, hidden)))
    yield Case(inputs, (0, 5, 6) if op == "LSTM" else (0, 5), attributes, n_out=2)


# ---- attention, losses, determinants ----

@case("Attention")
def attention(rng, op):
    """Two heads of queries for each of keys; a float mask, causal; a softcap."""
    q, k = spaced(rng, (1, 4, 3, 2)), spaced(rng, (1, 2, 4, 2))
    v = spaced(rng, (1, 2, 4, 3))
    yield Case([q, k, v, spaced(rng, (3, 4))], (0, 1, 2, 3), {}, 23)
    yield Case([q, k, v], (0, 1, 2), {"is_causal": 1, "scale": 0.5}, 23)
    yield Case([q, k, v], (0, 1, 2), {"softcap": 1.5}, 23)


@case("RotaryEmbedding")
def rotary(rng, op):
    for interleaved in (0, 1):
        x, angles = spaced(rng, (2, 2, 3, 4)), spaced(rng, (5, 2))
        positions = rng.integers(0, 5, (2, 3)).astype(np.int64)
        yield Case([x, np.cos(angles), np.sin(angles), positions], (0,), {"interleaved": interleaved}, 23, linear=(0,))


@case("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def loss(rng, op):
    target = rng.integers(0, 4, (3, 2)).astype(np.int64)
    weights = spaced(rng, (4,), 0.2, 1.0)
    for reduction in ("none", "sum", "mean"):
        linear = (0,) if op == "NegativeLogLikelihoodLoss" else ()
        yield Case([spaced(rng, (3, 4, 2)), target, weights], (0, 1), {"reduction": reduction}, 13, linear=linear)
    yield Case([spaced(rng, (3, 4, 2)), target], (0, 1), {"ignore_index": int(target[0, 0])}, 13)


@case("Det")
def det(rng, op):
    yield Case([spaced(rng, (2, 3, 3))], (0,))


@case("CumProd")
def cumprod(rng, op):
    for exclusive in (0, 1):
        attributes = {"exclusive": exclusive, "reverse": int(rng.integers(0, 2))}
        yield Case([spaced(rng, sizes(rng, 3)), np.array(int(rng.integers(-3, 3)), np.int64)], (0,), attributes, 26)
