# SPDX-License-Identifier: MIT
"""The torchvision wheel beside a CPU build of PyTorch; long tests; the table of test_exports.py.

The wheel's own library is built for CUDA and does not load there, and then
nobody declares the operators that its Python code refers to at import.
Classification networks never call them, so declarations are enough.
"""

import os

import pytest

try:
    import torch
except ImportError:
    torch = None

ROIS = "Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width"
BACK = ROIS.replace("input", "grad") + ", SymInt n, SymInt c, SymInt h, SymInt w"
PAIRS = ", ".join(f"SymInt {name}_{axis}" for name in ("stride", "pad", "dilation") for axis in ("h", "w"))
DECLARED = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align({ROIS}, int sampling_ratio, bool aligned) -> Tensor",
    f"_roi_align_backward({BACK}, int sampling_ratio, bool aligned) -> Tensor",
    f"roi_pool({ROIS}) -> (Tensor, Tensor)",
    f"ps_roi_align({ROIS}, int sampling_ratio) -> (Tensor, Tensor)",
    f"ps_roi_pool({ROIS}) -> (Tensor, Tensor)",
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, "
    f"{PAIRS}, SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor",
)


def declare():
    library = torch.library.Library("torchvision", "DEF")
    for schema in DECLARED:
        library.define(schema)
    return library


if torch is not None and "+cpu" in torch.__version__:
    _kept = declare()  # the declarations live as long as this object


# ---- long tests, and the table of test_exports.py ----

TABLE = []


def pytest_configure(config):
    config.addinivalue_line("markers", "long: runs with GRADCAM_LONG=1 only")


def pytest_collection_modifyitems(config, items):
    if "GRADCAM_LONG" not in os.environ:
        left_out = [item for item in items if "long" in item.keywords]
        items[:] = [item for item in items if "long" not in item.keywords]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def export_table():
    """Notes the errors of one export for the table at the end of the session."""
    def note(name, exporter, errors):
        worst = {}
        for what, e in errors.items():
            column = {"y": "output", "act": "output", "map": "map"}.get(what, "gradient")
            worst[column] = max(e, worst.get(column, 0.0))
        TABLE.append((name, exporter, worst))
    return note


def pytest_terminal_summary(terminalreporter):
    if TABLE:
        terminalreporter.section("exports: largest errors, relative to the largest element")
        for name, exporter, worst in TABLE:
            columns = "  ".join(f"{what} {worst.get(what, float('nan')):.0e}" for what in ("output", "gradient", "map"))
            terminalreporter.write_line(f"{name:<28} {exporter:<14} {columns}")
