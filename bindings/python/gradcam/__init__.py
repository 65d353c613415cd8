# SPDX-License-Identifier: MIT
"""libgradcam: ask a neural network why; through ctypes and numpy.

    import gradcam
    net = gradcam.Net("net.onnx")
    with gradcam.Run(net) as run:
        run.set_input(None, image)              # [N, C, H, W]
        heat = run.gradcam(index=281)           # [N, h, w]
        print(run.report.layer, run.report.warnings)

The shared library is the one that GRADCAM_LIBRARY names, else the one beside
this package, in the build folder of the source tree, or the system's.  Whatever
fails raises GradcamError; an exception in a Python callback comes out of the
call that led there.  `gradcam._c` holds the C interface name by name.
"""

from ._c import (GRADCAM_RULE_DECONVNET as DECONVNET, GRADCAM_RULE_GUIDED as GUIDED, GRADCAM_RULE_PLAIN as PLAIN,
                 GRADCAM_TARGET_ARGMAX as ARGMAX, GRADCAM_TARGET_CLASS as CLASS, GRADCAM_TARGET_ELEMENT as ELEMENT,
                 GRADCAM_TARGET_SEED as SEED, GRADCAM_WATCH_GRAD as WATCH_GRAD,
                 GRADCAM_WATCH_VALUE as WATCH_VALUE, GradcamError, Stop, lib as _lib)
from ._context import Context, kernels
from ._explain import Report, Warn
from ._maps import normalize, resize
from ._net import Builder, Net, Node, Spec
from ._ops import OpCall
from ._perturb import PerturbReport
from ._run import Hook, Run
from ._tensor import BFLOAT16

__version__ = _lib.gc_version_string().decode()
__all__ = ["ARGMAX", "BFLOAT16", "Builder", "CLASS", "Context", "DECONVNET", "ELEMENT", "GUIDED", "GradcamError",
           "Hook", "Net", "Node", "OpCall", "PLAIN", "PerturbReport", "Report", "Run", "SEED", "Spec", "Stop",
           "WATCH_GRAD", "WATCH_VALUE", "Warn", "kernels", "normalize", "resize"]
