# SPDX-License-Identifier: MIT
"""Runs: forward, backward, hooks, explanations."""

import ctypes as C
import itertools
import weakref

import numpy as np

from . import _c
from ._explain import RULES, Explanations
from ._handle import Handle
from ._net import Spec
from ._perturb import Perturbations
from ._tensor import DTYPES, lend, view

PRECISIONS = {"f32": _c.GRADCAM_F32, "bf16": _c.GRADCAM_BF16}

# The library knows a hook by its number; runs own the hooks.
_HOOKS = weakref.WeakValueDictionary()
_numbers = itertools.count(1)


class Hook:
    """A hook that was added to a run; `with` removes it at the end."""

    def __init__(self, run, function, write):
        self.function, self.write, self._run, self.number = function, write, weakref.ref(run), next(_numbers)
        self.index = None  # what gc_run_remove_hook wants
        _HOOKS[self.number] = self

    def enter(self, event):
        """Called by the library; no exception may pass."""
        array = view(event.tensor, writeable=self.write)
        result = self.function(_c.decode(event.name), array)
        if result is not None:
            array[...] = result  # read-only arrays refuse

    def remove(self):
        """From now on it is not called; allowed at any time, also inside the hook.  Twice is once."""
        run = self._run()
        if run is not None:
            run._drop(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()


def _enter(number, event):
    try:
        _HOOKS[number].enter(event.contents)
    except _c.Stop as stop:
        _c.failed(stop)
        return stop.code
    except BaseException as error:  # raised again by the pass
        _c.failed(error)
        return -1
    return 0


_ENTER = _c.gc_hook_fn(_enter)


class Run(Handle, Explanations, Perturbations):
    """One execution of a network: used by one thread at a time; `with` closes it.

    Results of value() and gradient() are copies unless asked otherwise.  Names
    are those of values, or of nodes meaning their first output.
    """

    def __init__(self, net):
        self.net, self.handle, self.report = net, _c.run_p(), None
        self._give_back, self._arrays, self._hooks, self._inside = _c.lib.gc_run_destroy, {}, {}, 0
        _c.call("run_create", net.handle, C.byref(self.handle))
        self._ctx = _c.lib.gc_run_ctx(self.handle)

    def close(self):
        """Gives everything back; arrays that are views of the run are no longer valid."""
        if self._inside:
            raise RuntimeError("a run cannot be closed inside its own pass")
        super().close()
        self._hooks.clear()
        self._arrays.clear()

    def _pass(self, name, *arguments):
        """A call in which hooks and operators may run."""
        self._inside += 1
        try:
            _c.call(name, self.handle, *arguments)
        finally:
            self._inside -= 1

    def _lend(self, array):
        return lend(self._ctx, self.net.context, array)

    # ---- inputs and passes ----

    def set_input(self, name, array):
        """Binds an input; name may be None where the network has one.

        The array is not copied where the library can read it as it is (any
        strides that are not negative, native byte order): it is read at every
        forward pass, so changing it in place is the fast way to the next image.
        Returns the array that is bound.
        """
        tensor, kept = self._lend(array)
        _c.call("run_set_input", self.handle, _c.encode(name), tensor.handle)
        self._arrays[self.net.inputs[0] if name is None else name] = kept
        return kept

    def watch(self, name, what=_c.GRADCAM_WATCH_VALUE | _c.GRADCAM_WATCH_GRAD):
        """Keeps a value (WATCH_VALUE) and its gradient (WATCH_GRAD) from the next forward pass on."""
        _c.call("run_watch", self.handle, _c.encode(name), what)

    def watch_mean(self, name, axis=1, skip=0):
        """Keeps a value and, for gradient_mean(), the mean of its gradient over places: axis is that of the
        channels, 1 or -1; the first `skip` places are left out.  Often far less work than the gradient."""
        _c.call("run_watch_mean", self.handle, _c.encode(name), axis, skip)

    def prepare(self):
        """Plans for the shapes of the bound inputs and allocates everything."""
        self._pass("run_prepare")

    def forward(self):
        """Runs the network on the bound inputs."""
        self._pass("run_forward")

    def backward(self, name, seed):
        """The gradient of sum(seed * value `name`) with respect to every watched value.
        seed: the value's shape; name None: the only output."""
        tensor, _kept = self._lend(np.asarray(seed, np.float32))
        self._pass("run_backward", _c.encode(name), tensor.handle)

    def _tensor(self, what, name, copy):
        handle = _c.tensor_p()
        _c.call(what, self.handle, _c.encode(name), C.byref(handle))
        array = view(handle, self)
        return array.copy() if copy else array

    def value(self, name, copy=True):
        """An output or watched value, in the network's own order of dimensions.
        copy=False: a read-only view, valid until the run prepares again or is closed."""
        return self._tensor("run_value", name, copy)

    def gradient(self, name, copy=True):
        """The gradient of a watched value after backward(); GRADCAM_E_NO_GRADIENT where none arrived."""
        return self._tensor("run_gradient", name, copy)

    def gradient_mean(self, name, copy=True):
        """What watch_mean() asked for, [N, C], after backward()."""
        return self._tensor("run_gradient_mean", name, copy)

    def spec(self, name):
        """The Spec of any value once the run is prepared."""
        d = _c.sized(_c.gc_tensor_desc)
        _c.call("run_describe", self.handle, _c.encode(name), C.byref(d))
        return Spec(DTYPES[d.dtype], tuple(d.shape[:d.ndim]))

    @property
    def arena_bytes(self):
        """Bytes that the prepared run holds for activations, gradients and workspace."""
        return _c.lib.gc_run_arena_bytes(self.handle)

    def node_flops(self, node):
        """Floating-point operations of the node of that index in one forward pass once the
        run is prepared: 2 a multiply-add, 0 for operators whose time is memory."""
        flops = _c.lib.gc_run_node_flops(self.handle, node)
        if flops < 0:
            raise _c.GradcamError(_c.GRADCAM_E_STATE, f"no node {node}, or the run is not prepared")
        return flops

    def set_rule(self, rule):
        """What backward() does at activations: "plain", "guided" or "deconvnet"."""
        _c.call("run_set_rule", self.handle, _c.number(RULES, rule, "rule"))

    def set_exact(self, exact=True):
        """Convolutions as plain sums of products, without Winograd's algorithm: slower, less rounding."""
        _c.call("run_set_exact", self.handle, int(bool(exact)))

    def set_precision(self, precision):
        """"bf16": products in bfloat16 with float32 sums, where the machine can; "f32": the default."""
        _c.call("run_set_precision", self.handle, _c.number(PRECISIONS, precision, "precision"))

    @property
    def precision(self):
        """What the run computes in and by which kernels, such as ("bf16", "amx_bf16") or ("f32", "avx512")."""
        kernels = C.c_char_p()
        precision = _c.lib.gc_run_precision(self.handle, C.byref(kernels))
        return next(name for name, value in PRECISIONS.items() if value == precision), kernels.value.decode()

    @property
    def rule_nodes(self):
        """Indices of the nodes at which the last backward pass applied a rule other than plain."""
        count = _c.lib.gc_run_rule_node_count(self.handle)
        return [_c.lib.gc_run_rule_node(self.handle, k) for k in range(count)]

    # ---- hooks ----

    def add_hook(self, name, function, forward=False, backward=False, write=False):
        """Calls function(name, array) for a value after it was computed (forward) and
        for its complete gradient before it flows on (backward).

        The array is the library's own memory, valid inside the function only:
        copy what is to stay.  With write=True what the function writes into it,
        or returns, replaces it; without it the array is read-only.  An exception
        ends the pass and comes out of the call that began it; raise Stop(code)
        for a GradcamError with that user_code.  Returns a Hook.
        """
        flags = (_c.GRADCAM_HOOK_FORWARD * bool(forward) | _c.GRADCAM_HOOK_BACKWARD * bool(backward)
                 | _c.GRADCAM_HOOK_WRITE * bool(write))
        hook, index = Hook(self, function, bool(write)), C.c_int32()
        _c.call("run_add_hook", self.handle, _c.encode(name), flags, _ENTER, hook.number, C.byref(index))
        hook.index = index.value
        self._hooks[hook.number] = hook
        return hook

    def on_forward(self, name, function, write=False):
        """add_hook for the forward pass."""
        return self.add_hook(name, function, forward=True, write=write)

    def on_backward(self, name, function, write=False):
        """add_hook for the backward pass."""
        return self.add_hook(name, function, backward=True, write=write)

    def _drop(self, hook):
        if self._hooks.pop(hook.number, None) is not None and self.handle:
            _c.lib.gc_run_remove_hook(self.handle, hook.index)
