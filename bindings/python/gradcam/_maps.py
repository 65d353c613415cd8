# SPDX-License-Identifier: MIT
"""What is done to maps."""

import numpy as np

from . import _c
from ._context import Context
from ._tensor import lend

RESIZES = {"bilinear": _c.GRADCAM_RESIZE_BILINEAR, "align_corners": _c.GRADCAM_RESIZE_ALIGN_CORNERS,
           "nearest": _c.GRADCAM_RESIZE_NEAREST}


def resize(maps, size, mode="bilinear"):
    """Maps [..., H, W] at another size (height, width): a new float32 array.

    mode: "bilinear" (pixel centres, as PyTorch's interpolate without
    align_corners), "align_corners" or "nearest".
    """
    maps = np.asarray(maps, np.float32)
    out = np.empty((*maps.shape[:-2], *size), np.float32)
    with Context() as context:
        source, _kept = lend(context.handle, context, maps)
        target, out = lend(context.handle, context, out)
        _c.call("map_resize", source.handle, _c.number(RESIZES, mode, "mode"), target.handle)
    return out


def normalize(maps, inplace=False):
    """(x - min) / (max - min), each sample (leading index) by itself; a constant sample becomes 0.

    inplace: into `maps` itself, which must be row-major float32.
    """
    if not inplace:
        maps = np.array(maps, np.float32, order="C")
    elif maps.dtype != np.float32 or not maps.flags.c_contiguous or not maps.flags.writeable:
        raise TypeError("normalize in place needs a writeable row-major float32 array")
    with Context() as context:
        tensor, _same = lend(context.handle, context, maps)
        _c.call("map_normalize", tensor.handle)
    return maps
