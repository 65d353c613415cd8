# SPDX-License-Identifier: MIT
"""libgradcam through ctypes and numpy.

The shared library is found through the environment variable GRADCAM_LIBRARY,
else by the system's loader.  Arrays go in without a copy and must stay
unchanged while they are bound; results come out as copies.
"""

import ctypes as C
import ctypes.util
import os

import numpy as np

_TYPES = {1: np.float32, 2: np.float64, 3: np.float16, 5: np.int64, 6: np.int32, 7: np.uint8, 8: np.bool_}
_CODES = {np.dtype(t): code for code, t in _TYPES.items()}
ARGMAX, CLASS, ELEMENT, SEED = range(4)
PLAIN, GUIDED, DECONVNET = range(3)
WATCH_VALUE, WATCH_GRAD = 1, 2


class _Error(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("status", C.c_int32), ("user_code", C.c_int32), ("node", C.c_int32),
                ("offset", C.c_uint64), ("message", C.c_char * 488)]


class _Desc(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("dtype", C.c_int32), ("ndim", C.c_int32), ("reserved0", C.c_uint32),
                ("shape", C.c_int64 * 8), ("strides", C.c_int64 * 8), ("data", C.c_void_p), ("release", C.c_void_p),
                ("user", C.c_void_p)]


class _Target(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("kind", C.c_int32), ("index", C.c_int64), ("output", C.c_char_p),
                ("seed", C.c_void_p), ("keep_softmax", C.c_uint32), ("negate", C.c_uint32)]


class _Options(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("signed_map", C.c_uint32), ("layer", C.c_char_p),
                ("target", C.POINTER(_Target)), ("pool", C.c_int32), ("grad", C.c_int32), ("rule", C.c_int32),
                ("plain_rule", C.c_uint32), ("resize", C.c_int32), ("reserved0", C.c_uint32), ("input", C.c_char_p),
                ("into", C.c_void_p), ("report", C.c_void_p)]


class GradcamError(Exception):
    """The library's message; `status` is its gc_status."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def _open():
    path = os.environ.get("GRADCAM_LIBRARY") or ctypes.util.find_library("gradcam")
    if path is None:
        raise OSError("libgradcam was not found; set GRADCAM_LIBRARY to the shared library")
    lib = C.CDLL(path)
    for name in ("gc_net_input_name", "gc_net_output_name", "gc_net_node_op", "gc_net_node_name"):
        getattr(lib, name).restype = C.c_char_p
        getattr(lib, name).argtypes = [C.c_void_p, C.c_int32]
    for name in ("gc_ctx_unref", "gc_net_unref", "gc_tensor_unref", "gc_run_destroy"):
        getattr(lib, name).restype = None
        getattr(lib, name).argtypes = [C.c_void_p]
    return lib


_lib = _open()


def _call(name, *args):
    err = _Error()
    status = getattr(_lib, name)(*args, C.byref(err))
    if status:
        raise GradcamError(status, err.message.decode(errors="replace"))


def _encode(text):
    return None if text is None else text.encode()


def _view(tensor):
    """A copy of what a tensor handle shows."""
    d = _Desc()
    _lib.gc_tensor_describe(tensor, C.byref(d))
    dtype = np.dtype(_TYPES[d.dtype])
    shape = tuple(d.shape[:d.ndim])
    strides = [s * dtype.itemsize for s in d.strides[:d.ndim]]
    if 0 in shape:
        return np.zeros(shape, dtype)
    size = sum((n - 1) * s for n, s in zip(shape, strides)) + dtype.itemsize
    flat = np.frombuffer((C.c_char * size).from_address(d.data), dtype)
    return np.lib.stride_tricks.as_strided(flat, shape, strides).copy()


class Net:
    """An ONNX network, from a path or bytes."""

    def __init__(self, model):
        self._ctx, self._net = C.c_void_p(), C.c_void_p()
        _call("gc_ctx_create", None, C.byref(self._ctx))
        if isinstance(model, (bytes, bytearray)):
            data = bytes(model)
            _call("gc_net_load_memory", self._ctx, data, C.c_size_t(len(data)), None, C.byref(self._net))
        else:
            _call("gc_net_load_file", self._ctx, os.fsencode(model), None, C.byref(self._net))
        self.inputs = [_lib.gc_net_input_name(self._net, k).decode()
                       for k in range(_lib.gc_net_input_count(self._net))]
        self.outputs = [_lib.gc_net_output_name(self._net, k).decode()
                        for k in range(_lib.gc_net_output_count(self._net))]

    def __del__(self):
        _lib.gc_net_unref(self._net)
        _lib.gc_ctx_unref(self._ctx)


class Run:
    """One execution; use as a context manager or call close()."""

    def __init__(self, net):
        self.net, self._run, self._arrays = net, C.c_void_p(), {}
        _call("gc_run_create", net._net, C.byref(self._run))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        _lib.gc_run_destroy(self._run)
        self._run = C.c_void_p()

    def _tensor(self, array):
        array = np.asarray(array, order="C")  # keeps rank 0, unlike ascontiguousarray
        d, tensor = _Desc(), C.c_void_p()
        d.dtype, d.ndim, d.data = _CODES[array.dtype], array.ndim, array.ctypes.data
        d.shape[:array.ndim] = array.shape
        _call("gc_tensor_create", self.net._ctx, C.byref(d), C.byref(tensor))
        return tensor, array

    def set_input(self, name, array):
        tensor, kept = self._tensor(array)
        try:
            _call("gc_run_set_input", self._run, _encode(name), tensor)
            self._arrays[name] = kept
        finally:
            _lib.gc_tensor_unref(tensor)

    def watch(self, name, what=WATCH_VALUE | WATCH_GRAD):
        _call("gc_run_watch", self._run, _encode(name), C.c_uint32(what))

    def forward(self):
        _call("gc_run_forward", self._run)

    def backward(self, name, seed):
        tensor, _kept = self._tensor(np.asarray(seed, np.float32))
        try:
            _call("gc_run_backward", self._run, _encode(name), tensor)
        finally:
            _lib.gc_tensor_unref(tensor)

    def value(self, name):
        tensor = C.c_void_p()
        _call("gc_run_value", self._run, _encode(name), C.byref(tensor))
        return _view(tensor)

    def gradient(self, name):
        tensor = C.c_void_p()
        _call("gc_run_gradient", self._run, _encode(name), C.byref(tensor))
        return _view(tensor)

    def _explain(self, method, layer=None, kind=ARGMAX, index=0, output=None, negate=False, **options):
        target = _Target(kind=kind, index=index, output=_encode(output), negate=int(negate))
        o = _Options(layer=_encode(layer), target=C.pointer(target), **options)
        tensor = C.c_void_p()
        _call(method, self._run, C.byref(o), C.byref(tensor))
        result = _view(tensor)
        _lib.gc_tensor_unref(tensor)
        return result

    def cam(self, **options):
        return self._explain("gc_cam", **options)

    def gradcam(self, **options):
        return self._explain("gc_gradcam", **options)

    def guided_backprop(self, **options):
        return self._explain("gc_guided_backprop", **options)

    def guided_gradcam(self, **options):
        return self._explain("gc_guided_gradcam", **options)
