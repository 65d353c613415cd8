# SPDX-License-Identifier: MIT
"""The README's samples, taken out of the page and run as they stand."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIBRARY = pathlib.Path(os.environ.get("GRADCAM_LIBRARY", ROOT / "build" / "libgradcam.so")).resolve()


def sample(page, language, holds=""):
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.S)
    return next(block for block in blocks if holds in block)


@pytest.fixture
def folder(tmp_path):
    """With net.onnx, which has what the samples name: layer4, 7 x 7, 1000 classes."""
    rng = np.random.default_rng(1)

    def weight(name, *shape):
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["layer4"], strides=[32, 32]),
        helper.make_node("GlobalAveragePool", ["layer4"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "c"], ["logits"]),
    ]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 224, 224])
    y = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 1000])
    graph = helper.make_graph(nodes, "net", [x], [y], [weight("w", 4, 3, 32, 32), weight("c", 4, 1000)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "net.onnx")
    return tmp_path


def test_c(folder):
    includes, body = sample("README.md", "c").split("\n\n", 1)
    (folder / "ten.c").write_text(
        f"{includes}\n#include <stdio.h>\nstatic float pixels[3 * 224 * 224];\n"
        f"int main(void)\n{{\n{body}\nreturn map == NULL;\n}}\n"
    )
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler")
    subprocess.run(
        [compiler, "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'include'}", "ten.c", LIBRARY]
        + [f"-Wl,-rpath,{LIBRARY.parent}", "-o", "ten"],
        cwd=folder,
        check=True,
    )
    assert subprocess.run(["./ten"], cwd=folder, check=True, capture_output=True).stdout == b""


@pytest.mark.parametrize("page", ["README.md", "bindings/python/README.md"])
def test_python(folder, page):
    code = "import numpy\nimage = numpy.ones((1, 3, 224, 224), 'f4')\n" + sample(page, "python", "layer4")
    code += "\nassert heat.shape == (1, 7, 7) and big.shape == (1, 224, 224)\nassert (run_logits == 0).all()"
    # inside the last block, while the hook is there
    code = code.replace("run.forward()", "run.forward(); run_logits = run.value('logits').copy()")
    env = dict(os.environ, GRADCAM_LIBRARY=str(LIBRARY), PYTHONPATH=str(ROOT / "bindings" / "python"))
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "layer4" in done.stdout
