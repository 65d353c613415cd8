# SPDX-License-Identifier: MIT
"""Exports of today: networks of PyTorch through both of its exporters, judged by PyTorch in float64.

Outputs and activations to 1e-4, gradients and Grad-CAM to 1e-3, of the largest element.  The default
selection is a part; with GRADCAM_LONG=1 every network goes through every exporter.
"""

import pytest

torch = pytest.importorskip("torch")
for _needed in ("onnxscript", "torchvision", "timm", "transformers"):
    pytest.importorskip(_needed)
from exports import CASES, judge  # noqa: E402
from exports.case import build, draw  # noqa: E402
from exports.selection import QUICK, is_quick  # noqa: E402


def pairs(wanted):
    """(name, exporter) as parameters, sorted by network so that each is built once."""
    return [pytest.param(name, exporter, id=f"{name}-{exporter}",
                         marks=[] if is_quick(name, exporter) else [pytest.mark.long])
            for name, c in CASES.items() for exporter in judge.EXPORTERS if wanted(c, exporter)]


ready = {}


def prepare(name, is_open):
    """The network, and what is right for it; the last network is remembered."""
    if ready.get("name") != name:
        ready.clear()
        ready.update(name=name, net=build(CASES[name]))
    if is_open not in ready:
        torch.manual_seed(1)
        ready[is_open] = judge.judge(ready["net"], lambda: draw(CASES[name], "other" if is_open else "given"))
    return ready["net"], *ready[is_open]


@pytest.mark.parametrize("name,exporter", pairs(lambda c, exporter: exporter not in c.refusals and exporter not in c.refused))
def test_export(name, exporter, tmp_path, export_table):
    net, inputs, want = prepare(name, judge.EXPORTERS[exporter][2])
    model = tmp_path / "model.onnx"
    judge.export(CASES[name], net, exporter, model)
    errors = judge.measure(model, inputs, want)
    export_table(name, exporter, errors)
    wrong = {what: f"{e:.1e}" for what, e in errors.items() if not e <= judge.bound(what)}
    assert not wrong


@pytest.mark.parametrize("name,exporter", pairs(lambda c, exporter: exporter in c.refused))
def test_refused_by_name(name, exporter, tmp_path):
    net = prepare(name, judge.EXPORTERS[exporter][2])[0]
    judge.export(CASES[name], net, exporter, tmp_path / "model.onnx")
    with pytest.raises(judge.gradcam.GradcamError, match=CASES[name].refused[exporter]):
        judge.gradcam.Net(tmp_path / "model.onnx")


def test_the_selection_exists():
    assert {name for names in QUICK.values() for name in names.split()} <= set(CASES)
