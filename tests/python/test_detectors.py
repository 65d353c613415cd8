# SPDX-License-Identifier: MIT
"""A detector whose boxes are picked by their scores: the picking is refused by name,
Grad-CAM of the raw heads before it works and is that of the network without it."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from goldens import gradcam  # noqa: E402
from onnx import helper  # noqa: E402

F = onnx.TensorProto.FLOAT
IMAGE = np.random.default_rng(3).standard_normal((1, 3, 8, 8)).astype(np.float32)


def weight(name, *shape):
    values = np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32)
    return helper.make_tensor(name, F, shape, values.ravel())


def detector(*picking, output):
    nodes = [helper.make_node("Conv", ["image", "wide"], ["seen"], pads=[1, 1, 1, 1]),
             helper.make_node("Relu", ["seen"], ["act"]),
             helper.make_node("Conv", ["act", "w"], ["raw"]), *picking]
    graph = helper.make_graph(nodes, "detector", [helper.make_tensor_value_info("image", F, IMAGE.shape)],
                              [helper.make_empty_tensor_value_info(name) for name in output],
                              [weight("wide", 4, 3, 3, 3), weight("w", 5, 4, 1, 1)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def heat(run):
    run.set_input("image", IMAGE)
    return run.gradcam(layer="act", kind=gradcam.CLASS, index=2, output="raw", signed_map=1)


def test_picking_is_refused_and_the_heads_are_explained():
    picking = helper.make_node("NonZero", ["raw"], ["places"], name="pick_boxes")
    with gradcam.Run(gradcam.Net(detector(picking, output=["places"]))) as run:
        run.set_input("image", IMAGE)
        with pytest.raises(gradcam.GradcamError, match='NonZero.*"pick_boxes".*data-dependent'):
            run.forward()
        got = heat(run)
    with gradcam.Run(gradcam.Net(detector(output=["raw"]))) as run:
        want = heat(run)
    assert np.abs(want).max() > 0 and np.array_equal(got, want)


def test_suppression_is_refused_by_name():
    picking = helper.make_node("NonMaxSuppression", ["raw", "raw"], ["kept"], name="suppress")
    with pytest.raises(gradcam.GradcamError, match='NonMaxSuppression.*"suppress"'):
        gradcam.Net(detector(picking, output=["kept"]))
