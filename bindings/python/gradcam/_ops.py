# SPDX-License-Identifier: MIT
"""Operators written in Python."""

import ctypes as C
import itertools
import weakref

import numpy as np

from . import _c
from ._tensor import code_of, spec, view

# The library knows an operator by its number; contexts own the operators.
_OPERATORS = weakref.WeakValueDictionary()
_numbers = itertools.count(1)


def read_attr(a):
    """A gc_attr as int, float, str, list or array."""
    if a.kind in (_c.GRADCAM_ATTR_INT, _c.GRADCAM_ATTR_INTS):
        values = C.cast(a.data, C.POINTER(C.c_int64))[:a.count] if a.count else []
        return values[0] if a.kind == _c.GRADCAM_ATTR_INT else values
    if a.kind in (_c.GRADCAM_ATTR_FLOAT, _c.GRADCAM_ATTR_FLOATS):
        values = C.cast(a.data, C.POINTER(C.c_float))[:a.count] if a.count else []
        return values[0] if a.kind == _c.GRADCAM_ATTR_FLOAT else values
    if a.kind == _c.GRADCAM_ATTR_TENSOR:
        return view(C.cast(a.data, _c.tensor_p)).copy()
    string = _c.decode(C.string_at(a.data, a.count) if a.count else b"")
    return string if a.kind == _c.GRADCAM_ATTR_STRING else string.splitlines()


class OpCall:
    """One invocation of a custom operator; valid until the function returns, and
    so are its arrays."""

    def __init__(self, handle):
        self._handle = handle

    def _arrays(self, accessor, count, writeable=False):
        handles = [accessor(self._handle, i) for i in range(count(self._handle))]
        return [view(h, writeable=writeable) if h else None for h in handles]

    @property
    def inputs(self):
        """One array an input, read-only; None where it is absent, and in infer where
        it is not a constant: see input_types."""
        return self._arrays(_c.lib.gc_op_input, _c.lib.gc_op_input_count)

    @property
    def input_types(self):
        """(dtype, shape) of every input, None where it is absent."""
        handles = [_c.lib.gc_op_input(self._handle, i) for i in range(_c.lib.gc_op_input_count(self._handle))]
        return [spec(h)[1:] if h else None for h in handles]

    @property
    def outputs(self):
        """One array an output, to be written into; None where nobody wants it."""
        return self._arrays(_c.lib.gc_op_output, _c.lib.gc_op_output_count, True)

    @property
    def grad_outputs(self):
        """In backward: the gradient of every output; None means zero."""
        return self._arrays(_c.lib.gc_op_grad_output, _c.lib.gc_op_output_count)

    @property
    def grad_inputs(self):
        """In backward: arrays to be overwritten with the gradient; None where it is not wanted."""
        return self._arrays(_c.lib.gc_op_grad_input, _c.lib.gc_op_input_count, True)

    def attr(self, name, default=None):
        """The node's attribute as int, float, str, list or array; else `default`."""
        a = _c.gc_attr()
        if _c.lib.gc_op_attr(self._handle, name.encode(), C.byref(a)) != _c.GRADCAM_OK:
            return default
        return read_attr(a)

    def declare(self, i, dtype, shape):
        """The type and shape of output i."""
        shape = [int(n) for n in shape]
        status = _c.lib.gc_op_declare_output(self._handle, i, code_of(dtype), len(shape),
                                             (C.c_int64 * max(len(shape), 1))(*shape))
        if status != _c.GRADCAM_OK:
            raise _c.GradcamError(status, f"output {i} cannot be {np.dtype(dtype)} {shape}")

    def fail(self, message, status=_c.GRADCAM_E_INVALID):
        """The library's own way of failing: the message is completed with the node's name."""
        raise _Said(_c.lib.gc_op_error(self._handle, status, message.encode()))


class _Said(Exception):
    """The library has the message already."""

    def __init__(self, status):
        super().__init__(status)
        self.status = status


def _same_as_first(call):
    dtype, shape = call.input_types[0]
    return [(dtype, shape)] * _c.lib.gc_op_output_count(call._handle)


class Operator:
    """The functions of a registered operator and what C knows of them."""

    def __init__(self, op, domain, infer, forward, backward, flags):
        self.infer, self.forward, self.backward = infer or _same_as_first, forward, backward
        number = next(_numbers)
        self.definition = _c.sized(
            _c.gc_op_def, flags=flags, domain=domain.encode(), op=op.encode(), user=number,
            infer=_INFER, forward=_FORWARD, backward=_BACKWARD if backward else _c.op_fn())
        _OPERATORS[number] = self

    def run_infer(self, call):
        for i, (dtype, shape) in enumerate(self.infer(call) or []):
            call.declare(i, dtype, shape)


def _entry(run):
    """A C function that looks the operator up and lets no exception out."""

    def enter(number, handle):
        try:
            run(_OPERATORS[number], OpCall(handle))
        except _Said as said:
            return said.status
        except BaseException as error:  # raised again by the call that led here
            _c.failed(error)
            return _c.lib.gc_op_error(handle, _c.GRADCAM_E_CALLBACK, f"{type(error).__name__}: {error}".encode())
        return _c.GRADCAM_OK

    return _c.op_fn(enter)


_INFER = _entry(Operator.run_infer)
_FORWARD = _entry(lambda op, call: op.forward(call))
_BACKWARD = _entry(lambda op, call: op.backward(call))
