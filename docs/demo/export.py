# SPDX-License-Identifier: MIT
"""Writes the trained network as an ONNX file with short names and no other data.

Convolutions that a batch normalisation follows directly swallow it; the three
with max pooling between keep theirs.
"""

import argparse
import io

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator

from net import GarmentNet

SHORT = {"Conv": "conv", "MaxPool": "pool", "BatchNormalization": "norm", "Relu": "relu",
         "GlobalAveragePool": "mean", "Flatten": "flat", "Gemm": "linear"}


def to_onnx(net):
    """The model as torch.onnx makes it."""
    stream = io.BytesIO()
    torch.onnx.export(net, (torch.zeros(1, 3, 112, 112),), stream, opset_version=17, dynamo=False,
                      input_names=["image"], output_names=["logits"],
                      dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}})
    return onnx.load_from_string(stream.getvalue())


def plan_names(graph):
    """New names: relu7 is the value of the 7th Relu, conv1.weight the weight of the 1st Conv."""
    roles = {"BatchNormalization": ("weight", "bias", "mean", "var")}
    values, seen = {}, {}
    for node in graph.node:
        seen[node.op_type] = seen.get(node.op_type, 0) + 1
        node.name = f"{SHORT[node.op_type]}{seen[node.op_type]}"
        for part, name in zip(roles.get(node.op_type, ("weight", "bias")), node.input[1:]):
            values[name] = f"{node.name}.{part}"
        if node.output[0] != "logits":
            values[node.output[0]] = node.name
    return values


def tidy(model):
    """Short names; no doc strings, no metadata, no list of intermediate shapes."""
    graph = model.graph
    names = plan_names(graph)
    for node in graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names.get(n, n) for n in node.output]
    for weight in graph.initializer:
        weight.name = names[weight.name]
    graph.ClearField("value_info")
    graph.name = "garments"
    model.ClearField("metadata_props")
    onnx.checker.check_model(model, full_check=True)
    return model


def check(model, net):
    """Compares the file's answers with PyTorch's."""
    image = np.random.default_rng(0).random((3, 3, 112, 112), np.float32)
    got = ReferenceEvaluator(model).run(None, {"image": image})[0]
    with torch.no_grad():
        want = net(torch.from_numpy(image)).numpy()
    if not np.allclose(got, want, rtol=1e-4, atol=1e-4):
        raise SystemExit("the exported network answers otherwise than PyTorch")


def main():
    """Exports the weights of a training run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="garments.pt", help="what train.py wrote")
    parser.add_argument("--out", default="garments.onnx")
    args = parser.parse_args()
    net = GarmentNet()
    net.load_state_dict(torch.load(args.weights))
    net.eval()
    model = tidy(to_onnx(net))
    check(model, net)
    onnx.save(model, args.out)


if __name__ == "__main__":
    main()
