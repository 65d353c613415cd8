# SPDX-License-Identifier: MIT
"""include/gradcam/gradcam.h in ctypes: constants, structs, prototypes, errors.

Names are those of the header.  `lib` is the loaded library; every function in
PROTOTYPES is bound with its argument types.
"""

import ctypes as C
import ctypes.util
import operator
import os
import pathlib
import sys
import threading

i32, u32, i64, u64, size, text, ptr = (C.c_int32, C.c_uint32, C.c_int64, C.c_uint64, C.c_size_t, C.c_char_p,
                                       C.c_void_p)

# ---- constants ---------------------------------------------------------------

GRADCAM_VERSION_MAJOR, GRADCAM_VERSION_MINOR, GRADCAM_VERSION_PATCH = 0, 1, 0
GRADCAM_OK, GRADCAM_E_INVALID, GRADCAM_E_NOMEM, GRADCAM_E_IO, GRADCAM_E_FORMAT = 0, -1, -2, -3, -4
GRADCAM_E_UNSUPPORTED, GRADCAM_E_NOT_FOUND, GRADCAM_E_SHAPE, GRADCAM_E_DTYPE, GRADCAM_E_LIMIT = -5, -6, -7, -8, -9
GRADCAM_E_NO_GRADIENT, GRADCAM_E_STATE, GRADCAM_E_ABI, GRADCAM_E_CANCELLED = -10, -11, -12, -13
GRADCAM_E_CALLBACK, GRADCAM_E_INTERNAL = -14, -15
GRADCAM_LOG_ERROR, GRADCAM_LOG_WARNING, GRADCAM_LOG_INFO = 1, 2, 3
GRADCAM_F32, GRADCAM_F64, GRADCAM_F16, GRADCAM_BF16 = 1, 2, 3, 4
GRADCAM_I64, GRADCAM_I32, GRADCAM_U8, GRADCAM_BOOL = 5, 6, 7, 8
GRADCAM_MAX_DIMS = 8
GRADCAM_WEIGHTS_COPY, GRADCAM_WEIGHTS_ON_DEMAND = 0, 1
GRADCAM_ATTR_INT, GRADCAM_ATTR_FLOAT, GRADCAM_ATTR_STRING, GRADCAM_ATTR_INTS = 1, 2, 3, 4
GRADCAM_ATTR_FLOATS, GRADCAM_ATTR_TENSOR, GRADCAM_ATTR_STRINGS = 5, 6, 7
GRADCAM_OP_ACTIVATION, GRADCAM_OP_STOPS = 1, 2
GRADCAM_WATCH_VALUE, GRADCAM_WATCH_GRAD = 1, 2
GRADCAM_SCRATCH_COUNT = 16
GRADCAM_RULE_PLAIN, GRADCAM_RULE_GUIDED, GRADCAM_RULE_DECONVNET = 0, 1, 2
GRADCAM_HOOK_FORWARD, GRADCAM_HOOK_BACKWARD, GRADCAM_HOOK_WRITE, GRADCAM_HOOK_PASSING = 1, 2, 4, 8
GRADCAM_PROGRESS_VARIANTS = 8
GRADCAM_TARGET_ARGMAX, GRADCAM_TARGET_CLASS, GRADCAM_TARGET_ELEMENT, GRADCAM_TARGET_SEED = 0, 1, 2, 3
GRADCAM_POOL_MEAN, GRADCAM_POOL_MAX, GRADCAM_POOL_SUM = 0, 1, 2
GRADCAM_GRAD_AS_IS, GRADCAM_GRAD_ABS, GRADCAM_GRAD_POSITIVE = 0, 1, 2
GRADCAM_RESIZE_BILINEAR, GRADCAM_RESIZE_ALIGN_CORNERS, GRADCAM_RESIZE_NEAREST = 0, 1, 2
GRADCAM_WARN_EMPTY, GRADCAM_WARN_CONSTANT, GRADCAM_WARN_NAN = 1, 2, 4
GRADCAM_WARN_NOT_CONNECTED, GRADCAM_WARN_NO_SPATIAL = 8, 16
GRADCAM_PERTURB_MASK, GRADCAM_PERTURB_ABLATE, GRADCAM_PERTURB_WRITE = 0, 1, 2

gc_status = gc_dtype = gc_attr_kind = gc_rule = gc_target_kind = gc_perturb_kind = i32

# ---- objects behind handles ----------------------------------------------------


class gc_ctx(C.Structure):
    """Opaque."""


class gc_tensor(C.Structure):
    """Opaque."""


class gc_net(C.Structure):
    """Opaque."""


class gc_builder(C.Structure):
    """Opaque."""


class gc_op_call(C.Structure):
    """Opaque."""


class gc_run(C.Structure):
    """Opaque."""


ctx_p, tensor_p, net_p, builder_p, call_p, run_p = map(
    C.POINTER, (gc_ctx, gc_tensor, gc_net, gc_builder, gc_op_call, gc_run))

# ---- structs and callbacks -----------------------------------------------------


class gc_error(C.Structure):
    _fields_ = [("struct_size", u32), ("status", gc_status), ("user_code", i32), ("node", i32), ("offset", u64),
                ("message", C.c_char * 488)]


alloc_fn = C.CFUNCTYPE(ptr, ptr, size, size)
release_fn = C.CFUNCTYPE(None, ptr, ptr, size, size)


class gc_allocator(C.Structure):
    _fields_ = [("struct_size", u32), ("reserved0", u32), ("user", ptr), ("alloc", alloc_fn), ("release", release_fn)]


log_fn = C.CFUNCTYPE(None, ptr, i32, text)


class gc_logger(C.Structure):
    _fields_ = [("struct_size", u32), ("max_level", i32), ("user", ptr), ("log", log_fn)]


gc_task_fn = C.CFUNCTYPE(None, ptr, u32)
parallel_fn = C.CFUNCTYPE(i32, ptr, gc_task_fn, ptr, u32)


class gc_executor(C.Structure):
    _fields_ = [("struct_size", u32), ("n_workers", u32), ("user", ptr), ("parallel_for", parallel_fn)]


read_at_fn = C.CFUNCTYPE(i64, ptr, u64, ptr, size)
size_fn = C.CFUNCTYPE(i64, ptr)


class gc_reader(C.Structure):
    _fields_ = [("struct_size", u32), ("reserved0", u32), ("user", ptr), ("read_at", read_at_fn), ("size", size_fn)]


class gc_ctx_options(C.Structure):
    _fields_ = [("struct_size", u32), ("n_threads", u32), ("allocator", C.POINTER(gc_allocator)),
                ("logger", C.POINTER(gc_logger)), ("executor", C.POINTER(gc_executor)), ("kernels", text)]


tensor_release_fn = C.CFUNCTYPE(None, ptr, ptr)


class gc_tensor_desc(C.Structure):
    _fields_ = [("struct_size", u32), ("dtype", gc_dtype), ("ndim", i32), ("reserved0", u32),
                ("shape", i64 * GRADCAM_MAX_DIMS), ("strides", i64 * GRADCAM_MAX_DIMS), ("data", ptr),
                ("release", tensor_release_fn), ("user", ptr), ("reserved1", ptr)]


external_fn = C.CFUNCTYPE(i32, ptr, text, u64, ptr, size)


class gc_load_options(C.Structure):
    _fields_ = [("struct_size", u32), ("max_nodes", u32), ("max_bytes", u64), ("read_external", external_fn),
                ("external_user", ptr), ("max_run_bytes", u64), ("weights", u32), ("reserved0", u32)]


class gc_attr(C.Structure):
    _fields_ = [("name", text), ("data", ptr), ("count", size), ("kind", gc_attr_kind), ("reserved0", u32)]


op_fn = C.CFUNCTYPE(gc_status, ptr, call_p)
destroy_fn = C.CFUNCTYPE(None, ptr)


class gc_op_def(C.Structure):
    _fields_ = [("struct_size", u32), ("flags", u32), ("domain", text), ("op", text), ("user", ptr), ("infer", op_fn),
                ("forward", op_fn), ("backward", op_fn), ("destroy", destroy_fn)]


class gc_hook_event(C.Structure):
    _fields_ = [("struct_size", u32), ("phase", u32), ("run", run_p), ("name", text), ("tensor", tensor_p)]


gc_hook_fn = C.CFUNCTYPE(i32, ptr, C.POINTER(gc_hook_event))


class gc_progress(C.Structure):
    _fields_ = [("struct_size", u32), ("phase", u32), ("done", u32), ("total", u32), ("run", run_p)]


gc_progress_fn = C.CFUNCTYPE(i32, ptr, C.POINTER(gc_progress))


class gc_target(C.Structure):
    _fields_ = [("struct_size", u32), ("kind", gc_target_kind), ("index", i64), ("output", text), ("seed", tensor_p),
                ("keep_softmax", u32), ("negate", u32)]


class gc_report(C.Structure):
    _fields_ = [("struct_size", u32), ("warnings", u32), ("index", i64), ("score", C.c_double), ("layer", text),
                ("output", text), ("n_rule_nodes", i32), ("reserved0", u32)]


class gc_explain_options(C.Structure):
    _fields_ = [("struct_size", u32), ("signed_map", u32), ("layer", text), ("target", C.POINTER(gc_target)),
                ("pool", i32), ("grad", i32), ("rule", gc_rule), ("plain_rule", u32), ("resize", i32),
                ("reserved0", u32), ("input", text), ("into", tensor_p), ("report", C.POINTER(gc_report)),
                ("into_layers", C.POINTER(tensor_p)), ("channel_axis", i32), ("skip", u32),
                ("height", i64), ("width", i64), ("normalize", u32), ("reserved1", u32)]


gc_perturb_write_fn = gc_perturb_each_fn = C.CFUNCTYPE(i32, ptr, i64, tensor_p)


class gc_perturb_report(C.Structure):
    _fields_ = [("struct_size", u32), ("n_steps", u32), ("batch", i64), ("index", i64), ("score", C.c_double)]


class gc_perturb_options(C.Structure):
    _fields_ = [("struct_size", u32), ("kind", gc_perturb_kind), ("count", i64), ("batch", i64), ("value", text),
                ("output", text), ("masks", tensor_p), ("baseline", tensor_p), ("channels", C.POINTER(i64)),
                ("groups", C.POINTER(i64)), ("write", gc_perturb_write_fn), ("each", gc_perturb_each_fn), ("user", ptr),
                ("outputs", tensor_p), ("report", C.POINTER(gc_perturb_report)), ("reserved0", ptr), ("axis", i32),
                ("keep_forward", u32)]


# ---- functions -------------------------------------------------------------------

_p = C.POINTER
_err, _desc, _explain = _p(gc_error), _p(gc_tensor_desc), _p(gc_explain_options)
PROTOTYPES = {
    "gc_version": (u32, []),
    "gc_version_string": (text, []),
    "gc_status_name": (text, [gc_status]),
    "gc_ctx_create": (gc_status, [_p(gc_ctx_options), _p(ctx_p), _err]),
    "gc_ctx_ref": (ctx_p, [ctx_p]),
    "gc_ctx_unref": (None, [ctx_p]),
    "gc_kernels": (text, [i32]),
    "gc_tensor_create": (gc_status, [ctx_p, _desc, _p(tensor_p), _err]),
    "gc_tensor_describe": (gc_status, [tensor_p, _desc]),
    "gc_tensor_copy": (gc_status, [tensor_p, tensor_p, _err]),
    "gc_tensor_ref": (tensor_p, [tensor_p]),
    "gc_tensor_unref": (None, [tensor_p]),
    "gc_dtype_size": (size, [gc_dtype]),
    "gc_net_load_file": (gc_status, [ctx_p, text, _p(gc_load_options), _p(net_p), _err]),
    "gc_net_load_memory": (gc_status, [ctx_p, ptr, size, _p(gc_load_options), _p(net_p), _err]),
    "gc_net_load_reader": (gc_status, [ctx_p, _p(gc_reader), _p(gc_load_options), _p(net_p), _err]),
    "gc_net_ref": (net_p, [net_p]),
    "gc_net_unref": (None, [net_p]),
    "gc_net_node_count": (i32, [net_p]),
    "gc_net_node_name": (text, [net_p, i32]),
    "gc_net_node_op": (text, [net_p, i32]),
    "gc_net_node_output_count": (i32, [net_p, i32]),
    "gc_net_node_output": (text, [net_p, i32, i32]),
    "gc_net_node_input_count": (i32, [net_p, i32]),
    "gc_net_node_input": (text, [net_p, i32, i32]),
    "gc_net_producer": (i32, [net_p, text]),
    "gc_net_input_count": (i32, [net_p]),
    "gc_net_input_name": (text, [net_p, i32]),
    "gc_net_input_desc": (gc_status, [net_p, i32, _desc]),
    "gc_net_parameter_count": (i64, [net_p]),
    "gc_net_output_count": (i32, [net_p]),
    "gc_net_output_name": (text, [net_p, i32]),
    "gc_builder_create": (gc_status, [ctx_p, i32, _p(builder_p), _err]),
    "gc_builder_destroy": (None, [builder_p]),
    "gc_builder_input": (gc_status, [builder_p, text, _desc, _err]),
    "gc_builder_weight": (gc_status, [builder_p, text, tensor_p, _err]),
    "gc_builder_node": (gc_status, [builder_p, text, text, _p(text), size, _p(text), size, _p(gc_attr), size, _err]),
    "gc_builder_output": (gc_status, [builder_p, text, _err]),
    "gc_builder_finish": (gc_status, [builder_p, _p(net_p), _err]),
    "gc_ctx_register_op": (gc_status, [ctx_p, _p(gc_op_def), _err]),
    "gc_op_input_count": (i32, [call_p]),
    "gc_op_output_count": (i32, [call_p]),
    "gc_op_input": (tensor_p, [call_p, i32]),
    "gc_op_output": (tensor_p, [call_p, i32]),
    "gc_op_grad_output": (tensor_p, [call_p, i32]),
    "gc_op_grad_input": (tensor_p, [call_p, i32]),
    "gc_op_declare_output": (gc_status, [call_p, i32, gc_dtype, i32, _p(i64)]),
    "gc_op_attr": (gc_status, [call_p, text, _p(gc_attr)]),
    "gc_op_error": (gc_status, [call_p, gc_status, text]),
    "gc_run_create": (gc_status, [net_p, _p(run_p), _err]),
    "gc_run_destroy": (None, [run_p]),
    "gc_run_net": (net_p, [run_p]),
    "gc_run_ctx": (ctx_p, [run_p]),
    "gc_run_set_input": (gc_status, [run_p, text, tensor_p, _err]),
    "gc_run_watch": (gc_status, [run_p, text, u32, _err]),
    "gc_run_watch_mean": (gc_status, [run_p, text, i32, i64, _err]),
    "gc_run_prepare": (gc_status, [run_p, _err]),
    "gc_run_perturb": (gc_status, [run_p, _p(gc_perturb_options), _err]),
    "gc_run_set_exact": (gc_status, [run_p, i32, _err]),
    "gc_run_set_precision": (gc_status, [run_p, gc_dtype, _err]),
    "gc_run_precision": (gc_dtype, [run_p, _p(text)]),
    "gc_run_forward": (gc_status, [run_p, _err]),
    "gc_run_backward": (gc_status, [run_p, text, tensor_p, _err]),
    "gc_run_value": (gc_status, [run_p, text, _p(tensor_p), _err]),
    "gc_run_gradient": (gc_status, [run_p, text, _p(tensor_p), _err]),
    "gc_run_gradient_mean": (gc_status, [run_p, text, _p(tensor_p), _err]),
    "gc_run_describe": (gc_status, [run_p, text, _desc, _err]),
    "gc_run_arena_bytes": (size, [run_p]),
    "gc_run_scratch": (gc_status, [run_p, i32, _desc, _p(tensor_p), _err]),
    "gc_run_node_flops": (i64, [run_p, i32]),
    "gc_run_set_progress": (gc_status, [run_p, gc_progress_fn, ptr, _err]),
    "gc_run_set_rule": (gc_status, [run_p, gc_rule, _err]),
    "gc_run_rule_node_count": (i32, [run_p]),
    "gc_run_rule_node": (i32, [run_p, i32]),
    "gc_run_add_hook": (gc_status, [run_p, text, u32, gc_hook_fn, ptr, _p(i32), _err]),
    "gc_run_remove_hook": (gc_status, [run_p, i32]),
    "gc_cam": (gc_status, [run_p, _explain, _p(tensor_p), _err]),
    "gc_gradcam": (gc_status, [run_p, _explain, _p(tensor_p), _err]),
    "gc_gradcam_layers": (gc_status, [run_p, _p(text), size, _explain, _p(tensor_p), _err]),
    "gc_guided_backprop": (gc_status, [run_p, _explain, _p(tensor_p), _err]),
    "gc_guided_gradcam": (gc_status, [run_p, _explain, _p(tensor_p), _err]),
    "gc_candidate_layers": (gc_status, [run_p, _p(gc_target), _p(text), size, _p(size), _err]),
    "gc_perturb_scores": (gc_status, [run_p, _p(gc_perturb_options), _p(gc_target), _p(C.c_float), size, _err]),
    "gc_map_resize": (gc_status, [tensor_p, i32, tensor_p, _err]),
    "gc_map_normalize": (gc_status, [tensor_p, _err]),
}

# ---- the library -------------------------------------------------------------------

_NAMES = {"win32": ("gradcam.dll", "libgradcam.dll"), "darwin": ("libgradcam.dylib",)}.get(
    sys.platform, ("libgradcam.so", f"libgradcam.so.{GRADCAM_VERSION_MAJOR}"))


def candidates(environ=os.environ, package=pathlib.Path(__file__).resolve().parent):
    """Paths and names to try, in order: GRADCAM_LIBRARY alone if it is set, else
    beside the package (a wheel), the build folder of a source tree, the system."""
    if environ.get("GRADCAM_LIBRARY"):
        return [environ["GRADCAM_LIBRARY"]]
    found = [package / name for name in _NAMES]
    root = package.parents[2]
    if (root / "include" / "gradcam" / "gradcam.h").exists():
        found += [root / "build" / name for name in _NAMES]
    found = [str(path) for path in found if path.exists()]
    system = ctypes.util.find_library("gradcam")
    return found + ([system] if system else [])


def load(path):
    """The library at `path` with every prototype bound."""
    library = C.CDLL(path)
    missing = [name for name in PROTOTYPES if not hasattr(library, name)]
    if missing:
        raise OSError(f"{path} is not libgradcam or an older one than this binding: it has no {', '.join(missing)}")
    for name, (result, arguments) in PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _open():
    paths = candidates()
    if not paths:
        raise OSError("libgradcam was not found; set GRADCAM_LIBRARY to the shared library")
    return load(paths[0])


lib = _open()

# ---- errors ---------------------------------------------------------------------------


class GradcamError(Exception):
    """What the library said.

    status: its gc_status, negative; name: the same as text ("GRADCAM_E_SHAPE");
    node: index of the node concerned or None; offset: byte offset in the model
    file or 0; user_code: what a callback returned, else 0.
    """

    def __init__(self, status, message, node=-1, offset=0, user_code=0):
        super().__init__(message)
        self.status, self.name = status, lib.gc_status_name(status).decode()
        self.node, self.offset, self.user_code = (node if node >= 0 else None), offset, user_code


class Stop(Exception):
    """Raised in a hook it stops the pass: a GradcamError with this user_code."""

    def __init__(self, code=1):
        super().__init__(f"stopped with {code}")
        if not (isinstance(code, int) and code != 0 and -2**31 <= code < 2**31):
            raise ValueError("the code of Stop must be a 32-bit integer other than 0")
        self.code = code


class _Thread(threading.local):
    """What a thread's calls need.  An exception cannot cross C: a callback leaves it here, call() raises it again."""

    def __init__(self):
        self.error, self.err = None, gc_error(struct_size=C.sizeof(gc_error))
        self.err_p = C.byref(self.err)


_thread = _Thread()


def failed(error):
    """Keeps a callback's exception for the call that is under way."""
    _thread.error = error


def call(name, *arguments):
    """Calls gc_<name>(*arguments, &err); raises what went wrong."""
    thread = _thread
    thread.error = None
    status = getattr(lib, "gc_" + name)(*arguments, thread.err_p)
    error, thread.error = thread.error, None
    if status == GRADCAM_OK:
        return
    if error is not None and not isinstance(error, Stop):
        raise error
    err = thread.err
    raise GradcamError(status, err.message.decode(errors="replace"), err.node, err.offset, err.user_code)


def sized(struct, **fields):
    """A struct of the header with struct_size set."""
    return struct(struct_size=C.sizeof(struct), **fields)


def number(names, value, what):
    """A constant from its name in `names`, or the constant itself."""
    if isinstance(value, str):
        if value not in names:
            raise ValueError(f"{what} {value!r}; there are {', '.join(names)}")
        return names[value]
    return operator.index(value)


def encode(name):
    """UTF-8, None stays None."""
    return None if name is None else os.fsencode(name) if isinstance(name, os.PathLike) else name.encode()


def decode(name):
    return None if name is None else name.decode(errors="surrogateescape")
