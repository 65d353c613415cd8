# SPDX-License-Identifier: MIT
"""Networks with random weights, how they are exported, and how they are judged."""

from . import dense, language, timm_nets, vision  # noqa: F401  (they fill CASES)
from .case import CASES  # noqa: F401
