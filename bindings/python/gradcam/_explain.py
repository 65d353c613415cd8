# SPDX-License-Identifier: MIT
"""The methods: CAM, Grad-CAM, guided backpropagation, Guided Grad-CAM."""

import ctypes as C
import enum

import numpy as np

from . import _c
from ._maps import RESIZES, writeable
from ._tensor import Tensor, adopt, lend

POOLS = {"mean": _c.GRADCAM_POOL_MEAN, "max": _c.GRADCAM_POOL_MAX, "sum": _c.GRADCAM_POOL_SUM}
GRADS = {"as_is": _c.GRADCAM_GRAD_AS_IS, "abs": _c.GRADCAM_GRAD_ABS, "positive": _c.GRADCAM_GRAD_POSITIVE}
KINDS = {"argmax": _c.GRADCAM_TARGET_ARGMAX, "class": _c.GRADCAM_TARGET_CLASS,
         "element": _c.GRADCAM_TARGET_ELEMENT, "seed": _c.GRADCAM_TARGET_SEED}
RULES = {"plain": _c.GRADCAM_RULE_PLAIN, "guided": _c.GRADCAM_RULE_GUIDED, "deconvnet": _c.GRADCAM_RULE_DECONVNET}


class Warn(enum.IntFlag):
    """What may be wrong with a map."""

    EMPTY = _c.GRADCAM_WARN_EMPTY                  # zero everywhere
    CONSTANT = _c.GRADCAM_WARN_CONSTANT            # one value
    NAN = _c.GRADCAM_WARN_NAN                      # NaN or infinity
    NOT_CONNECTED = _c.GRADCAM_WARN_NOT_CONNECTED  # no gradient path from target to layer
    NO_SPATIAL = _c.GRADCAM_WARN_NO_SPATIAL        # the layer has no spatial extent


class Report:
    """What an explanation chose and saw.

    layer: the layer's value, or the input for guided backpropagation; output:
    where the backward pass began; index: class or element of the first sample;
    score: its value before negation; warnings: a Warn; rule_nodes: indices of
    the nodes at which a rule other than plain was applied.
    """

    def __init__(self, r, rule_nodes):
        self.layer, self.output, self.index, self.score = _c.decode(r.layer), _c.decode(r.output), r.index, r.score
        self.warnings, self.rule_nodes = Warn(r.warnings), rule_nodes

    def __repr__(self):
        return (f"Report(layer={self.layer!r}, output={self.output!r}, index={self.index}, score={self.score:g}, "
                f"warnings={self.warnings!r}, rule_nodes={self.rule_nodes})")


class _Call:
    """gc_explain_options from keywords, and all that must live as long."""

    def __init__(self, run, layer=None, kind=None, index=None, output=None, seed=None, keep_softmax=False,
                 negate=False, signed_map=False, pool="mean", grad="as_is", rule="plain", plain_rule=False,
                 resize="bilinear", input=None, into=None, channel_axis=1, skip=0, size=(0, 0), normalize=False):
        if kind is None:
            kind = "seed" if seed is not None else "argmax" if index is None else "class"
        self.report, self.into, self.lent = _c.sized(_c.gc_report), into, []
        self.target = _c.sized(
            _c.gc_target, kind=_c.number(KINDS, kind, "kind"), index=index or 0,
            output=_c.encode(output), keep_softmax=bool(keep_softmax), negate=bool(negate))
        self.options = _c.sized(
            _c.gc_explain_options, signed_map=bool(signed_map), layer=_c.encode(layer),
            target=C.pointer(self.target), pool=_c.number(POOLS, pool, "pool"), grad=_c.number(GRADS, grad, "grad"),
            rule=_c.number(RULES, rule, "rule"), plain_rule=bool(plain_rule),
            resize=_c.number(RESIZES, resize, "resize"), input=_c.encode(input), report=C.pointer(self.report),
            channel_axis=channel_axis, skip=skip, height=size[0], width=size[1], normalize=bool(normalize))
        if seed is not None:
            self.target.seed = self._lend(run, np.asarray(seed, np.float32))
        if into is not None:
            writeable(into, "into")
            self.options.into = self._lend(run, into)

    def _lend(self, run, array):
        self.lent.append(run._lend(array))
        return self.lent[-1][0].handle

    def array(self, run, handle):
        """The map; what was written into the host's array is that array."""
        if self.into is None:
            return adopt(handle, run.net.context)
        Tensor(handle)  # gives the second reference back
        return self.into


def _same(a, b):
    """The same options, arrays being the same ones."""
    return a.keys() == b.keys() and all(a[k] is b[k] or (k != "into" and a[k] == b[k]) for k in a)


class Explanations:
    """The methods of a Run.  All run the forward pass on the bound inputs, return
    a new float32 array and leave a Report in `run.report`.

    Keywords that say what is explained:
      kind, index   "argmax" (default), "class" with its index on axis 1, or
                    "element" with a flat index of the output
      seed          the host's own gradient seed, of the output's shape: weighted
                    sets of outputs, masks of a segmentation, and the like
      output        name of the value; None: the first output
      keep_softmax  start at the probability, not before a trailing softmax
      negate        counterfactual: the negated score

    and how:
      layer         value or node; None: chosen and reported
      signed_map    no ReLU on the map
      pool          how gradients become a channel's weight: "mean", "max", "sum"
      grad          "as_is", "abs" or "positive" part before pooling
      rule          "plain", "guided", "deconvnet" at activations (in the guided
                    methods "plain" means "guided" unless plain_rule)
      plain_rule    guided methods: the true gradient
      size          (height, width) of the map, the layer's if not said; normalize: then each sample to [0, 1]
      resize        with size, and Guided Grad-CAM: "bilinear", "align_corners", "nearest"
      input         guided methods: which input; None: the first
      into          a row-major float32 array to write into; it is returned
      channel_axis  1, or -1 for layers of tokens, [N, places, C]
      skip          places of such a layer that are no part of the picture (a class token)
    """

    _asked = None  # the last options and their _Call: most calls say the same again

    def _call(self, options):
        if "seed" in options:  # its numbers may be others
            return _Call(self, **options)
        if self._asked is None or not _same(self._asked[0], options):
            self._asked = options, _Call(self, **options)
        return self._asked[1]

    def _explain(self, method, options):
        call, handle = self._call(options), _c.tensor_p()
        self._pass(method, C.byref(call.options), C.byref(handle))
        self.report = Report(call.report, self.rule_nodes)
        return call.array(self, handle)

    def candidate_layers(self, **target):
        """The values that a map can be drawn on, deepest first: the first is the layer
        that is taken when none is named.  `target`: kind, index, output, ... as above."""
        call, count = _Call(self, **target), C.c_size_t()
        self._pass("candidate_layers", C.byref(call.target), None, 0, C.byref(count))
        names = (C.c_char_p * max(count.value, 1))()
        self._pass("candidate_layers", C.byref(call.target), names, count, C.byref(count))
        return [_c.decode(name) for name in names[:count.value]]

    def cam(self, **options):
        """CAM, Zhou 2015: [N, spatial...], signed, for a layer followed by global
        average pooling and a linear classifier."""
        return self._explain("cam", options)

    def gradcam(self, **options):
        """Grad-CAM, Selvaraju 2017: [N, spatial...] at the layer's resolution."""
        return self._explain("gradcam", options)

    def gradcam_layers(self, layers, **options):
        """Grad-CAM at several layers from one forward and one backward pass: a list
        of maps; the report is of the first.  `layer` and `into` have no place here."""
        if options.get("into") is not None or options.get("layer") is not None:
            raise TypeError("gradcam_layers takes neither layer nor into")
        call, names = _Call(self, **options), list(layers)
        handles = (_c.tensor_p * max(len(names), 1))()
        self._pass("gradcam_layers", (C.c_char_p * max(len(names), 1))(*map(_c.encode, names)), len(names),
                   C.byref(call.options), handles)
        self.report = Report(call.report, self.rule_nodes)
        # Items of a ctypes array share its memory: each gets a pointer of its own.
        return [adopt(C.cast(handles[i], _c.tensor_p), self.net.context) for i in range(len(names))]

    def guided_backprop(self, **options):
        """Guided backpropagation, Springenberg 2015, or the deconvnet, Zeiler 2014
        (rule="deconvnet"), or the plain gradient (plain_rule): the input's shape."""
        return self._explain("guided_backprop", options)

    def guided_gradcam(self, **options):
        """Guided Grad-CAM, Selvaraju 2017: the input's shape."""
        return self._explain("guided_gradcam", options)
