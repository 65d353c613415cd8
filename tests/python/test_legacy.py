# SPDX-License-Identifier: MIT
"""Models of the opsets 1 to 5: what did not change until 6 runs, the rest is refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as tf

from one_op import build, check, refused, run


@pytest.mark.parametrize("opset", range(1, 6))
def test_unchanged_operators(opset):
    rng = np.random.default_rng(opset)
    x, w = rng.standard_normal((1, 2, 5, 5)).astype(np.float32), rng.standard_normal((3, 2, 3, 3)).astype(np.float32)
    weight = torch.tensor(w, dtype=torch.float64)
    check("Conv", [x, w], lambda x: tf.conv2d(x, weight), opset=opset, kernel_shape=[3, 3], layouts=(False,))
    check("Relu", [x], torch.relu, opset=opset, consumed_inputs=[0], layouts=(False,))
    check("Add", [x, x[0, :, 0, 0]], lambda a, b: a + b[:, None, None], (0, 1), opset=opset, broadcast=1, axis=1,
          layouts=(False,))
    a, b = np.array([[True, False], [False, True]]), np.array([True, False])
    (y,), _ = run(build("And", [a, b], (0, 1), opset=opset, broadcast=1, axis=0), [a, b], (0, 1))
    assert np.array_equal(y, a & b[:, None])
    (y,), _ = run(build("Not", [a], opset=opset), [a])
    assert np.array_equal(y, ~a)
    if opset < 5:
        check("Reshape", [x], lambda x: x.reshape(5, 10), opset=opset, shape=[5, -1], layouts=(False,))


@pytest.mark.parametrize("op,attributes", [("Pad", {"paddings": [1, 1]}), ("Cast", {"to": "FLOAT"}), ("Selu", {}),
                                           ("Upsample", {"width_scale": 2.0, "height_scale": 2.0})])
def test_changed_operators_are_refused(op, attributes):
    refused(op, [np.zeros((1, 1, 2, 2), np.float32)], f"{op} (node", opset=1, **attributes)
