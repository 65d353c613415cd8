# SPDX-License-Identifier: MIT
"""Makes the torchvision wheel importable beside a CPU build of PyTorch.

The wheel's own library is built for CUDA and does not load there, and then
nobody declares the operators that its Python code refers to at import.
Classification networks never call them, so declarations are enough.
"""

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
