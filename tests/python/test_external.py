# SPDX-License-Identifier: MIT
"""Weights outside the model: files beside it, the host's callback, and what a hostile model tries."""

import ctypes as C
import os
import pathlib
import sys

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("GRADCAM_LIBRARY", str(ROOT / "build" / "libgradcam.so"))
sys.path.insert(0, str(ROOT / "bindings" / "python"))
import gradcam  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402

WEIGHT = np.arange(1, 7, dtype=np.float32)


def model(dtype=TensorProto.FLOAT, shape=(6,), **entries):
    """y = x + w, w outside; `entries` are those of external_data."""
    w = TensorProto(name="w", data_type=dtype, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        w.external_data.add(key=key, value=str(value))
    node = helper.make_node("Add", ["x", "w"], ["y"])
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [6]) for name in "xy"]
    graph = helper.make_graph([node], "g", value[:1], value[1:], [w])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def folder(tmp_path, data, **entries):
    (tmp_path / "m.onnx").write_bytes(model(**entries))
    (tmp_path / "sub").mkdir()
    (tmp_path / "w.bin").write_bytes(data)
    (tmp_path / "sub" / "w.bin").write_bytes(data)
    return tmp_path / "m.onnx"


def output(net):
    with gradcam.Run(net) as run:
        run.set_input("x", np.zeros(6, np.float32))
        run.forward()
        return run.value("y")


@pytest.mark.parametrize("entries", [
    {"location": "w.bin"}, {"location": "sub/w.bin", "offset": 0}, {"location": "w.bin", "offset": 0, "length": 24},
    {"location": "w.bin", "checksum": "0"}])
def test_beside_the_model(tmp_path, entries):
    assert np.array_equal(output(gradcam.Net(folder(tmp_path, WEIGHT.tobytes(), **entries))), WEIGHT)


@pytest.mark.parametrize("dtype,kind", [(TensorProto.DOUBLE, np.float64), (TensorProto.FLOAT16, np.float16)])
def test_element_types(tmp_path, dtype, kind):
    path = folder(tmp_path, b"\0" * 5 + WEIGHT.astype(kind).tobytes(), location="w.bin", offset=5, dtype=dtype)
    assert np.array_equal(output(gradcam.Net(path)), WEIGHT)


def test_relative_path_of_the_model(tmp_path, monkeypatch):
    folder(tmp_path, WEIGHT.tobytes(), location="w.bin")
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(output(gradcam.Net("m.onnx")), WEIGHT)


REFUSED = [
    ({"location": "missing.bin"}, "missing.bin"), ({"location": "w.bin", "offset": 4}, "24 bytes at 4"),
    ({"location": "w.bin", "offset": 2**64 - 1}, "overflow"), ({"location": "w.bin", "offset": 2**64}, "offset"),
    ({"location": "w.bin", "offset": "-4"}, "offset"), ({"location": "w.bin", "length": 8}, "shape needs 24"),
    ({"location": "w.bin", "length": ""}, "length"), ({"location": "sub"}, "regular"), ({}, "folder"),
    ({"location": ""}, "folder"), ({"location": "../w.bin"}, "folder"), ({"location": "sub/../w.bin"}, "folder"),
    ({"location": "/etc/passwd"}, "folder"), ({"location": "C:w.bin"}, "folder"),
    ({"location": "sub\\w.bin"}, "folder"), ({"location": "a" * 600}, "too long"),
    ({"location": "w.bin", "shape": (2**40, 2**10)}, "max_bytes"), ({"location": "w.bin", "shape": (2**62, 2)}, "overflow"),
    ({"location": "link.bin"}, "links"), ({"location": "linked/w.bin"}, "cannot open"),
]


@pytest.mark.parametrize("entries,hint", REFUSED)
def test_refused(tmp_path, entries, hint):
    path = folder(tmp_path, WEIGHT.tobytes(), **entries)
    (tmp_path / "link.bin").symlink_to("w.bin")
    (tmp_path / "linked").symlink_to("sub")
    with pytest.raises(gradcam.GradcamError, match=hint):
        gradcam.Net(path)


def test_memory_has_no_folder():
    with pytest.raises(gradcam.GradcamError, match="read_external"):
        gradcam.Net(model(location="w.bin"))


class LoadOptions(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("max_nodes", C.c_uint32), ("max_bytes", C.c_uint64),
                ("read_external", C.c_void_p), ("external_user", C.c_void_p)]


class Error(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("status", C.c_int32), ("user_code", C.c_int32), ("node", C.c_int32),
                ("offset", C.c_uint64), ("message", C.c_char * 488)]


@pytest.mark.parametrize("answer", [0, 7])
def test_callback_of_the_host(answer):
    asked = []

    def read(_user, location, offset, dst, size):
        asked.append((location, offset, size))
        C.memmove(dst, WEIGHT.tobytes(), size)
        return answer
    callback = C.CFUNCTYPE(C.c_int32, C.c_void_p, C.c_char_p, C.c_uint64, C.c_void_p, C.c_size_t)(read)
    options = LoadOptions(C.sizeof(LoadOptions), 0, 0, C.cast(callback, C.c_void_p), None)
    lib, ctx, net, err = C.CDLL(os.environ["GRADCAM_LIBRARY"]), C.c_void_p(), C.c_void_p(), Error()
    data = model(location="weights", offset=3)
    assert lib.gc_ctx_create(None, C.byref(ctx), None) == 0
    status = lib.gc_net_load_memory(ctx, data, C.c_size_t(len(data)), C.byref(options), C.byref(net), C.byref(err))
    lib.gc_net_unref(net)
    lib.gc_ctx_unref(ctx)
    assert asked == [(b"weights", 3, 24)]
    assert (status, err.user_code) == ((0, 0) if answer == 0 else (-14, 7))
