# SPDX-License-Identifier: MIT
"""Networks: loaded from ONNX, or built node by node."""

import collections
import ctypes as C
import numbers
import os

import numpy as np

from . import _c
from ._context import Context
from ._handle import Handle
from ._tensor import DTYPES, describe, lend

Node = collections.namedtuple("Node", "index name op inputs outputs")
Node.__doc__ = "A node: index in the network, name, ONNX operator, names of values read and made (None: absent)."
Spec = collections.namedtuple("Spec", "dtype shape")
Spec.__doc__ = "Type and shape; a dimension left open is -1, shape None is an undeclared rank."


def _reader(file):
    """A gc_reader over an object with seek and readinto, or seek and read."""

    def read_at(_user, offset, address, length):
        try:
            file.seek(offset)
            data = file.read(length)
            C.memmove(address, data, len(data))
            return len(data)
        except BaseException as error:  # raised again by the load
            _c.failed(error)
            return -1

    def length(_user):
        try:
            return file.seek(0, os.SEEK_END)
        except BaseException as error:  # raised again by the load
            _c.failed(error)
            return -1

    return _c.sized(_c.gc_reader, read_at=_c.read_at_fn(read_at), size=_c.size_fn(length))


def _external(read):
    def fill(_user, location, offset, address, length):
        try:
            data = bytes(read(_c.decode(location), offset, length))
            if len(data) != length:
                raise ValueError(f"read_external gave {len(data)} bytes of {length}")
            C.memmove(address, data, length)
        except BaseException as error:  # raised again by the load
            _c.failed(error)
            return -1
        return 0

    return _c.external_fn(fill)


class Net(Handle):
    """A network: immutable, shared by any number of runs and threads.

    model: a path (str or os.PathLike), the file's bytes (bytes or anything with
        the buffer protocol, not copied while reading), or an open binary file.
    context: a Context; None: one of its own with the defaults.
    max_nodes, max_bytes, max_run_bytes: limits for models that are not trusted,
        the last for what one run may hold; 0: 200,000, 4 GiB, 8 GiB.
    read_external: (location, offset, size) -> bytes, for weights outside the
        model; None: files beside a model given as a path, refused otherwise.
    on_demand: True: large weights are not copied but read from the model when a run
        prepares, which takes half of the memory. A file must not be changed then, nor
        a buffer; an open file has to stay open.

    inputs, outputs: names; nodes: a list of Node in the order of execution.
    """

    def __init__(self, model, context=None, max_nodes=0, max_bytes=0, max_run_bytes=0, read_external=None,
                 on_demand=False):
        context = context or Context()
        handle, kept = _c.net_p(), []
        o = _c.sized(_c.gc_load_options, max_nodes=max_nodes, max_bytes=max_bytes, max_run_bytes=max_run_bytes,
                     weights=_c.GRADCAM_WEIGHTS_ON_DEMAND if on_demand else _c.GRADCAM_WEIGHTS_COPY)
        if read_external is not None:
            o.read_external = _external(read_external)
        if isinstance(model, (str, os.PathLike)):
            _c.call("net_load_file", context.handle, os.fsencode(model), C.byref(o), C.byref(handle))
        elif hasattr(model, "seek") and hasattr(model, "read") and not isinstance(model, (bytes, bytearray)):
            kept = [_reader(model)]
            _c.call("net_load_reader", context.handle, C.byref(kept[0]), C.byref(o), C.byref(handle))
        else:
            data = np.frombuffer(model, np.uint8)
            kept = [data]
            _c.call("net_load_memory", context.handle, data.ctypes.data, data.size, C.byref(o), C.byref(handle))
        self._take(handle, context, kept if on_demand else [])

    def _take(self, handle, context, kept):
        self.handle, self.context, self._give_back, self._kept = handle, context, _c.lib.gc_net_unref, kept
        lib = _c.lib
        self.inputs = [_c.decode(lib.gc_net_input_name(handle, k)) for k in range(lib.gc_net_input_count(handle))]
        self.outputs = [_c.decode(lib.gc_net_output_name(handle, k)) for k in range(lib.gc_net_output_count(handle))]

    @property
    def nodes(self):
        lib, h = _c.lib, self.handle

        def names(count, name, i):
            return [_c.decode(name(h, i, k)) or None for k in range(count(h, i))]

        return [Node(i, _c.decode(lib.gc_net_node_name(h, i)), _c.decode(lib.gc_net_node_op(h, i)),
                     names(lib.gc_net_node_input_count, lib.gc_net_node_input, i),
                     names(lib.gc_net_node_output_count, lib.gc_net_node_output, i))
                for i in range(lib.gc_net_node_count(h))]

    @property
    def parameter_count(self):
        """Elements of all floating-point weights, those inside Constant nodes left out."""
        return _c.lib.gc_net_parameter_count(self.handle)

    def producer(self, value):
        """Index of the node whose output the value is; None for inputs, weights, unknown names."""
        node = _c.lib.gc_net_producer(self.handle, _c.encode(value))
        return None if node < 0 else node

    def input_spec(self, name):
        """The declared Spec of an input."""
        d = _c.sized(_c.gc_tensor_desc)
        if name not in self.inputs:
            raise KeyError(f"no input {name!r}; there are {self.inputs}")
        _c.lib.gc_net_input_desc(self.handle, self.inputs.index(name), C.byref(d))
        return Spec(DTYPES[d.dtype], None if d.ndim < 0 else tuple(d.shape[:d.ndim]))


def _list_attr(values):
    values = list(values)
    if all(isinstance(v, str) for v in values) and values:
        joined = "\n".join(values).encode()
        return _c.GRADCAM_ATTR_STRINGS, C.create_string_buffer(joined), len(joined)
    if all(isinstance(v, numbers.Integral) for v in values):
        return _c.GRADCAM_ATTR_INTS, (C.c_int64 * max(len(values), 1))(*map(int, values)), len(values)
    return _c.GRADCAM_ATTR_FLOATS, (C.c_float * len(values))(*map(float, values)), len(values)


class Builder(Handle):
    """Builds a network from operators named and attributed as in ONNX.

    builder = Builder(opset=17)
    builder.input("x", (-1, 3, 8, 8))
    builder.weight("w", array)
    builder.node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    builder.output("y")
    net = builder.finish()
    """

    def __init__(self, opset=17, context=None):
        self.context, self.handle = context or Context(), _c.builder_p()
        self._give_back, self._arrays = _c.lib.gc_builder_destroy, []
        _c.call("builder_create", self.context.handle, opset, C.byref(self.handle))

    def input(self, name, shape, dtype=np.float32):
        """An input; -1 or None for a dimension left open."""
        d = describe(dtype, [-1 if n is None else n for n in shape])
        _c.call("builder_input", self.handle, _c.encode(name), C.byref(d))

    def weight(self, name, array):
        """A weight.  Row-major float32 is lent as it is: do not change it while the network lives."""
        tensor, array = lend(self.context.handle, self.context, array)
        _c.call("builder_weight", self.handle, _c.encode(name), tensor.handle)
        self._arrays.append(array)

    def _attr(self, name, value, kept):
        if isinstance(value, np.ndarray):
            tensor, array = lend(self.context.handle, self.context, value)
            kept.append(tensor)
            self._arrays.append(array)
            return _c.gc_attr(name.encode(), C.cast(tensor.handle, C.c_void_p), 1, _c.GRADCAM_ATTR_TENSOR)
        if isinstance(value, (str, bytes)):
            value = value.encode() if isinstance(value, str) else value
            kind, data, count = _c.GRADCAM_ATTR_STRING, C.create_string_buffer(value), len(value)
        elif isinstance(value, numbers.Integral):
            kind, data, count = _c.GRADCAM_ATTR_INT, C.c_int64(int(value)), 1
        elif isinstance(value, numbers.Real):
            kind, data, count = _c.GRADCAM_ATTR_FLOAT, C.c_float(float(value)), 1
        else:
            kind, data, count = _list_attr(value)
        kept.append(data)
        return _c.gc_attr(name.encode(), C.addressof(data), count, kind)

    def node(self, op, inputs, outputs, name=None, **attributes):
        """A node; inputs and outputs are value names, None for an absent one.
        Attributes: int, float, str, ndarray, lists of ints, floats or strs."""
        kept, n_in, n_out, n = [], len(inputs), len(outputs), len(attributes)
        _c.call("builder_node", self.handle, op.encode(), _c.encode(name),
                (C.c_char_p * max(n_in, 1))(*map(_c.encode, inputs)), n_in,
                (C.c_char_p * max(n_out, 1))(*map(_c.encode, outputs)), n_out,
                (_c.gc_attr * max(n, 1))(*(self._attr(k, v, kept) for k, v in attributes.items())), n)

    def output(self, name):
        """Makes a value an output of the network."""
        _c.call("builder_output", self.handle, _c.encode(name))

    def finish(self):
        """Checks the network: a Net.  The builder is of no further use."""
        handle = _c.net_p()
        _c.call("builder_finish", self.handle, C.byref(handle))
        net = Net.__new__(Net)
        net._take(handle, self.context, self._arrays)
        self.close()
        return net
