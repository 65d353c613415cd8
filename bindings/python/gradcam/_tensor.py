# SPDX-License-Identifier: MIT
"""Between numpy arrays and gc_tensor, without copies where the memory allows."""

import ctypes as C

import numpy as np

from . import _c

# What numpy has no type for: two bytes an element.  An array of ml_dtypes.bfloat16 goes in as well.
BFLOAT16 = np.dtype([("bfloat16", np.uint16)])
DTYPES = {_c.GRADCAM_F32: np.dtype(np.float32), _c.GRADCAM_F64: np.dtype(np.float64),
          _c.GRADCAM_F16: np.dtype(np.float16), _c.GRADCAM_BF16: BFLOAT16, _c.GRADCAM_I64: np.dtype(np.int64),
          _c.GRADCAM_I32: np.dtype(np.int32), _c.GRADCAM_U8: np.dtype(np.uint8), _c.GRADCAM_BOOL: np.dtype(np.bool_)}
_CODES = {dtype: code for code, dtype in DTYPES.items()}


def code_of(dtype):
    """The gc_dtype of a numpy type, whatever its byte order; TypeError where there is none."""
    if dtype in _CODES:
        return _CODES[dtype]
    dtype = np.dtype(dtype).newbyteorder("=")
    code = _c.GRADCAM_BF16 if dtype.name == "bfloat16" else _CODES.get(dtype)
    if code is None:
        known = ", ".join(str(t) for t in DTYPES.values())
        raise TypeError(f"libgradcam has no element type {dtype}; it has {known}")
    return code


def describe(dtype, shape, strides=None, data=None):
    """A gc_tensor_desc; strides in elements or None for row-major."""
    if len(shape) > _c.GRADCAM_MAX_DIMS:
        raise ValueError(f"an array of {len(shape)} dimensions; at most {_c.GRADCAM_MAX_DIMS}")
    d = _c.sized(_c.gc_tensor_desc, dtype=code_of(dtype), ndim=len(shape), data=data)
    d.shape[:len(shape)] = shape
    if strides is not None:
        d.strides[:len(shape)] = strides
    return d


class Tensor:
    """A reference to a gc_tensor, given back when the object goes; `context` (which
    may be None) is kept alive with it."""

    def __init__(self, handle, context=None):
        self.handle, self.context, self._unref = handle, context, _c.lib.gc_tensor_unref

    def __del__(self):
        if self.handle:
            self._unref(self.handle)
            self.handle = None


def _lendable(array):
    """The array itself if the library can read its memory, else a row-major copy."""
    native = array.dtype.isnative and array.flags.aligned
    if native and array.flags.c_contiguous:
        return array
    steps = all(s >= 0 and s % array.itemsize == 0 for s in array.strides)
    # All strides 0 mean row-major to the library.
    moving = array.size <= 1 or any(array.strides)
    if native and steps and moving:
        return array
    return np.array(array, array.dtype.newbyteorder("="), order="C")


def lend(ctx, context, array):
    """(Tensor, array): the tensor, made in `ctx`, borrows the array's memory; keep the array as long."""
    array = _lendable(np.asarray(array))
    strides = None if array.flags.c_contiguous else [s // array.itemsize for s in array.strides]
    d = describe(array.dtype, array.shape, strides, array.__array_interface__["data"][0])
    handle = _c.tensor_p()
    _c.call("tensor_create", ctx, C.byref(d), C.byref(handle))
    return Tensor(handle, context), array


def spec(handle):
    """(description, dtype, shape) of a tensor."""
    d = _c.sized(_c.gc_tensor_desc)
    _c.lib.gc_tensor_describe(handle, C.byref(d))
    return d, DTYPES[d.dtype], tuple(d.shape[:d.ndim])


def view(handle, owner=None, writeable=False):
    """The array over a tensor's own memory, valid as long as the tensor, which
    `owner` may keep alive; None where the tensor has no data."""
    d, dtype, shape = spec(handle)
    if 0 in shape:
        return np.zeros(shape, dtype)
    if not d.data:
        return None
    strides = tuple(s * dtype.itemsize for s in d.strides[:d.ndim])
    extent = dtype.itemsize
    for n, s in zip(shape, strides):
        extent += (n - 1) * s
    buffer = (C.c_char * extent).from_address(d.data)
    buffer.owner = owner
    array = np.ndarray(shape, dtype, buffer, 0, strides)
    array.flags.writeable = writeable
    return array


def adopt(handle, context):
    """The array over a new tensor, which is given back when the last array over it goes."""
    return view(handle, Tensor(handle, context), True)
