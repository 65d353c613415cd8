# SPDX-License-Identifier: MIT
"""What is done to maps."""

import functools

import numpy as np

from . import _c
from ._context import Context
from ._tensor import lend

RESIZES = {"bilinear": _c.GRADCAM_RESIZE_BILINEAR, "align_corners": _c.GRADCAM_RESIZE_ALIGN_CORNERS,
           "nearest": _c.GRADCAM_RESIZE_NEAREST}


@functools.cache
def _context():
    """Of all maps: nothing is kept in it."""
    return Context()


def _lend(maps):
    context = _context()
    return lend(context.handle, context, maps)


def writeable(array, what):
    """A TypeError unless the library can write into it as it is."""
    if array.dtype != np.float32 or not array.flags.c_contiguous or not array.flags.writeable:
        raise TypeError(f"{what} must be a writeable row-major float32 array")


def resize(maps, size, mode="bilinear", into=None):
    """Maps [..., H, W] at another size (height, width): a new float32 array, or `into`, which is written.

    mode: "bilinear" (pixel centres, as PyTorch's interpolate without
    align_corners), "align_corners" or "nearest".
    """
    source, maps = _lend(np.asarray(maps, np.float32))
    shape = (*maps.shape[:-2], *size)
    if into is None:
        into = np.empty(shape, np.float32)
    elif into.shape != shape:
        raise ValueError(f"into has the shape {into.shape}, the maps get {shape}")
    writeable(into, "into")
    target, _same = _lend(into)
    _c.call("map_resize", source.handle, _c.number(RESIZES, mode, "mode"), target.handle)
    return into


def normalize(maps, inplace=False):
    """(x - min) / (max - min), each sample (leading index) by itself; a constant sample becomes 0.

    inplace: into `maps` itself, which must be row-major float32.
    """
    if not inplace:
        maps = np.array(maps, np.float32, order="C")
    writeable(maps, "what is normalized in place")
    tensor, _same = _lend(maps)
    _c.call("map_normalize", tensor.handle)
    return maps
