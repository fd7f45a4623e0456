"""How much is run, and from which seed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence

FULL = os.environ.get("FUZZ_SIZE", "ci") == "full"
SEED = int(os.environ.get("FUZZ_SEED", secrets.randbits(32) if FULL else 1))
"""Of a run at full size: a new one every time."""
TIMEOUT_S = 7_200 if FULL else 120
"""Of one test."""

_CASE = os.environ.get("FUZZ_CASE", "")
_AT_MOST = int(os.environ.get("FUZZ_CASES", "1000000"))


def numbers(*, ci: int, full: int) -> Sequence[int]:
    """Of the inputs to send; all of them, or the one that was asked for."""
    return [int(_CASE)] if _CASE else range(min(full if FULL else ci, _AT_MOST))
