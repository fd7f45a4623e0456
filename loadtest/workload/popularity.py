"""Which conversation is held next, when some are more popular than others.

| text | the next conversation is |
| --- | --- |
| (none) | the next of the workload; after the last, the first again |
| `uniform` | any, drawn with equal chances |
| `zipf(1.1)` | drawn with weight 1/k**1.1 for the k-th of the workload |

Draws are with replacement: a popular conversation may be under way several times at once.
"""

from __future__ import annotations

import itertools
import random
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loadtest.errors import OptionError, WorkloadError
from loadtest.workload.conversation import Conversation

MAX_EXPONENT = 10.0

_ZIPF = re.compile(r"zipf\(\s*(\d+(?:\.\d+)?|\.\d+)\s*\)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Popularity:
    exponent: float
    """0: all are equally popular."""

    def draws(self, conversations: Sequence[Conversation], seed: int) -> Iterator[Conversation]:
        source = random.Random(f"popularity {seed}")
        cumulated = list(
            itertools.accumulate(rank**-self.exponent for rank in range(1, len(conversations) + 1))
        )
        last = len(conversations) - 1
        while True:
            # Rounding may carry a draw up to the sum itself.
            yield conversations[min(bisect_right(cumulated, source.random() * cumulated[-1]), last)]


def parse_popularity(text: str) -> Popularity:
    """Raises `OptionError`."""
    if text.strip() == "uniform":
        return Popularity(0.0)
    zipf = _ZIPF.fullmatch(text.strip())
    if zipf is None or float(zipf[1]) > MAX_EXPONENT:
        raise OptionError(
            f"--popularity {text!r}: expected uniform, or zipf(1.1) with an exponent from 0 to {MAX_EXPONENT:g}."
        )
    return Popularity(float(zipf[1]))


def hold(conversations: Sequence[Conversation], popularity: str | None, seed: int) -> Iterator[Conversation]:
    """Endless. Raises `OptionError` or `WorkloadError` at once, not with the first draw."""
    if not conversations:
        raise WorkloadError("no conversations to hold. Give a workload of at least one.")
    if popularity is None:
        return itertools.cycle(conversations)
    return parse_popularity(popularity).draws(conversations, seed)
