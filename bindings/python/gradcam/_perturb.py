# SPDX-License-Identifier: MIT
"""The network on many variants of one value."""

import ctypes as C

import numpy as np

from . import _c
from ._explain import KINDS
from ._tensor import lend, view


class PerturbReport:
    """How variants were computed.

    batch: so many at a time; n_steps: of the plan that runs for every batch;
    perturb_scores: index, class or element of the first sample, and score, its
    unperturbed value before negation.
    """

    def __init__(self, r):
        self.batch, self.n_steps, self.index, self.score = r.batch, r.n_steps, r.index, r.score

    def __repr__(self):
        return f"PerturbReport(batch={self.batch}, n_steps={self.n_steps}, index={self.index}, score={self.score:g})"


def _groups(ablate):
    """(channels, groups): one channel or several for each variant, flat and where each begins."""
    lists = [np.atleast_1d(np.asarray(item, np.int64)) for item in ablate]
    ends = np.cumsum([0] + [len(item) for item in lists], dtype=np.int64)
    return np.ascontiguousarray(np.concatenate(lists + [np.zeros(0, np.int64)])), ends


def _callback(function, writeable):
    """function(index, array) for C: what it raises comes out of the call."""

    def enter(_user, index, tensor):
        try:
            array = view(tensor, writeable=writeable)
            result = function(index, array)
            if writeable and result is not None:
                array[...] = result
        except _c.Stop as stop:
            _c.failed(stop)
            return stop.code
        except BaseException as error:  # raised again by the call
            _c.failed(error)
            return -1
        return 0

    return _c.gc_perturb_write_fn(enter)


class _Variants:
    """gc_perturb_options from keywords, and all that must live as long."""

    def __init__(self, run, value=None, masks=None, ablate=None, write=None, count=None, baseline=None, axis=0, batch=0,
                 keep_forward=False):
        if sum(given is not None for given in (masks, ablate, write)) != 1:
            raise TypeError("one of masks, ablate and write must be given")
        if write is not None and count is None:
            raise TypeError("write needs the count of variants")
        self.report, self.kept = _c.sized(_c.gc_perturb_report), []
        self.options = o = _c.sized(_c.gc_perturb_options, value=_c.encode(value), batch=batch, axis=axis,
                                    keep_forward=bool(keep_forward), report=C.pointer(self.report))
        if masks is not None:
            masks = np.asarray(masks, np.float32)
            o.kind, o.count, o.masks = _c.GRADCAM_PERTURB_MASK, len(masks), self._lend(run, masks)
        elif ablate is not None:
            channels, groups = _groups(ablate)
            o.kind, o.count = _c.GRADCAM_PERTURB_ABLATE, len(groups) - 1
            o.channels, o.groups = self._integers(channels), self._integers(groups)
        else:
            o.kind, o.count, o.write = _c.GRADCAM_PERTURB_WRITE, count, _callback(write, True)
        if count is not None and count != o.count:
            raise ValueError(f"count is {count}, but there are {o.count} variants")
        if baseline is not None:
            o.baseline = self._lend(run, np.asarray(baseline, np.float32))

    def _lend(self, run, array):
        self.kept.append(lend(run._ctx, run.net.context, array))
        return self.kept[-1][0].handle

    def _integers(self, array):
        self.kept.append(array)
        return array.ctypes.data_as(C.POINTER(C.c_int64))

    def into(self, run, outputs):
        self.options.outputs = self._lend(run, outputs)


class Perturbations:
    """Variants of a value, for a Run; leaves a PerturbReport in `run.report`.

    Keywords that say which:
      value         value or node; None: the first input
      masks         [count, ...]: variant i is masks[i] * x + (1 - masks[i]) * baseline,
                    broadcast by numpy's rule: [count, H, W] masks all channels
      ablate        for each variant a channel, or a list of them, that become the baseline
      axis          of these channels; 0: axis 1
      baseline      broadcasts to the value; None: zero
      write, count  write(index, array) changes the array, which holds the unperturbed
                    value, or returns what replaces it

    and how:
      batch         variants at a time; 0: chosen
      keep_forward  take the values of the last forward pass; else there is one first
    """

    def _perturb(self, call, name, *arguments):
        self._pass(name, C.byref(call.options), *arguments)
        self.report = PerturbReport(call.report)

    def _output_shape(self, output):
        self.prepare()
        return self.spec(self.net.outputs[0] if output is None else output).shape

    def perturb(self, value=None, *, output=None, each=None, **variants):
        """The output, a value or node, of every variant: [count, the output's shape...].
        With each(index, array) nothing is collected: it is called in order, its array is the
        library's own memory and valid inside only."""
        call = _Variants(self, value, **variants)
        call.options.output = _c.encode(output)
        outputs = None
        if each is not None:
            call.options.each = _callback(each, False)
        else:
            outputs = np.empty((call.options.count, *self._output_shape(output)), np.float32)
            call.into(self, outputs)
        self._perturb(call, "run_perturb")
        return outputs

    def perturb_scores(self, value=None, *, kind=None, index=None, output=None, seed=None, keep_softmax=False,
                       negate=False, **variants):
        """The target's score of every variant, [count, samples]; kind, index and so on as for
        the methods."""
        call = _Variants(self, value, **variants)
        if kind is None:
            kind = "seed" if seed is not None else "argmax" if index is None else "class"
        target = _c.sized(_c.gc_target, kind=_c.number(KINDS, kind, "kind"), index=index or 0,
                          output=_c.encode(output), keep_softmax=bool(keep_softmax), negate=bool(negate))
        if seed is not None:
            target.seed = call._lend(self, np.asarray(seed, np.float32))
        shape = self._output_shape(output)
        scores = np.empty((call.options.count, shape[0] if len(shape) >= 2 else 1), np.float32)
        self._perturb(call, "perturb_scores", C.byref(target), scores.ctypes.data_as(C.POINTER(C.c_float)), scores.size)
        return scores
