# SPDX-License-Identifier: MIT
"""Host services: threads, log lines, a job system, memory; and custom operators."""

import ctypes as C
import itertools
import logging
import operator

from . import _c
from ._handle import Handle
from ._ops import Operator

_LEVELS = {"error": _c.GRADCAM_LOG_ERROR, "warning": _c.GRADCAM_LOG_WARNING, "info": _c.GRADCAM_LOG_INFO}
_LOGGING = {_c.GRADCAM_LOG_ERROR: logging.ERROR, _c.GRADCAM_LOG_WARNING: logging.WARNING,
            _c.GRADCAM_LOG_INFO: logging.INFO}


def _logger(log, level):
    if isinstance(log, logging.Logger):
        logger = log

        def log(number, line):
            logger.log(_LOGGING.get(number, logging.INFO), "%s", line)

    def send(_user, number, line):
        log(number, _c.decode(line))

    return _c.sized(_c.gc_logger, max_level=_c.number(_LEVELS, level, "level"), log=_c.log_fn(send))


def _executor(parallel_for):
    def work(_user, fn, task, count):
        try:
            parallel_for(lambda index: fn(task, index), count)
        except BaseException as error:  # travels through C and is raised by the call
            _c.failed(error)
            return 1
        return 0

    return _c.sized(_c.gc_executor, parallel_for=_c.parallel_fn(work))


def _allocator(pair):
    alloc, release = pair

    def give(_user, size, align):
        try:
            return alloc(size, align)
        except BaseException as error:  # no memory, and this is why
            _c.failed(error)
            return None

    def take(_user, address, size, align):
        release(address, size, align)

    return _c.sized(_c.gc_allocator, alloc=_c.alloc_fn(give), release=_c.release_fn(take))


def kernels():
    """Names of the sets of kernels that this machine can run, best first."""
    names = map(_c.lib.gc_kernels, itertools.count())
    return [_c.decode(name) for name in itertools.takewhile(lambda name: name is not None, names)]


class Context(Handle):
    """What networks and runs may use of the process.

    threads: size of the built-in pool; 0 or 1 is the caller's thread only.
    logger: a logging.Logger or a callable (level: int, line: str); silent if None.
    level: the least urgent lines wanted: "error", "warning" or "info".
    executor: a callable parallel_for(task, count) that calls task(i) once for
        every i < count, on any threads, and returns when all are done; it
        replaces the pool.
    allocator: (alloc, release) with alloc(size, align) -> address (None: no
        memory) and release(address, size, align).
    kernels: one of gradcam.kernels(); the best of them if None.

    May be shared by any number of networks; `with` closes it.  Networks that
    are still there keep what they need of it.
    """

    def __init__(self, threads=0, logger=None, level="warning", executor=None, allocator=None, kernels=None):
        self.handle, self._give_back, self.operators = _c.ctx_p(), _c.lib.gc_ctx_unref, []
        o = _c.sized(_c.gc_ctx_options, n_threads=operator.index(threads), kernels=_c.encode(kernels))
        self._services = []  # the library calls them until the last network has gone
        for name, service, make in (("logger", logger if logger is None else (logger, level), lambda s: _logger(*s)),
                                    ("executor", executor, _executor), ("allocator", allocator, _allocator)):
            if service is not None:
                made = make(service)
                self._services.append(made)
                setattr(o, name, C.pointer(made))
        _c.call("ctx_create", C.byref(o), C.byref(self.handle))

    def register(self, op, forward, infer=None, backward=None, domain="", activation=False, stops=False):
        """Registers an operator for networks made afterwards; it wins over a built-in one.

        op, domain: its name as in ONNX.  The three functions get an OpCall.
        forward(call): writes every element of call.outputs[i].
        infer(call): the type and shape of every output, as a list of (dtype,
            shape) pairs; None: those of the first input.  Data of inputs that
            are not constants is not there yet.
        backward(call): writes call.grad_inputs[i] wherever it is not None, from
            call.grad_outputs, where None means zero.  None: no gradient.
        activation: the rules of guided backpropagation apply; one input.
        stops: has no gradient by nature: zero, not an error.
        An exception in forward or backward comes out of the pass; one in infer
        is a GradcamError with its text where a value that needs the node is used.
        """
        made = Operator(op, domain, infer, forward, backward,
                        _c.GRADCAM_OP_ACTIVATION * bool(activation) | _c.GRADCAM_OP_STOPS * bool(stops))
        _c.call("ctx_register_op", self.handle, C.byref(made.definition))
        self.operators.append(made)
