# SPDX-License-Identifier: MIT
"""Networks with random weights, how they are exported, and how they are judged."""

from . import vision  # noqa: F401  (fills CASES)
from .case import CASES  # noqa: F401
