"""Lengths and pauses drawn from a distribution that is written in a few characters.

| text | draws |
| --- | --- |
| `200` | always 200 |
| `100..300` | uniform between the two |
| `normal(200,50)` | normal: mean, standard deviation |
| `lognormal(200,0.5)` | log-normal: median, standard deviation of the natural logarithm |
| `exponential(2)` | exponential: mean |
| `lognormal(200,0.5)[10..2000]` | any of them, with draws outside the bounds moved to the nearer bound |

Draws are never negative and never over 1,000,000,000: those that would be are moved to that bound.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from typing import Literal

from loadtest.errors import OptionError

Shape = Literal["constant", "uniform", "normal", "lognormal", "exponential"]

EXPECTED = "200, 100..300, normal(200,50), lognormal(200,0.5) or exponential(2), each with bounds [10..2000] if wanted"
MAX_VALUE = 1e9
MAX_SIGMA_LOG = 10.0
"""A factor of 22,000 per standard deviation."""

_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"
_BOUNDS = re.compile(rf"(?P<rest>.*)\[\s*{_NUMBER}\s*\.\.\s*{_NUMBER}\s*\]", re.ASCII | re.DOTALL)
_CONSTANT = re.compile(_NUMBER, re.ASCII)
_UNIFORM = re.compile(rf"{_NUMBER}\s*\.\.\s*{_NUMBER}", re.ASCII)
_CALL = re.compile(rf"([a-z]+)\s*\(\s*{_NUMBER}\s*(?:,\s*{_NUMBER}\s*)?\)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Distribution:
    """`parse_distribution` makes it, and checks it."""

    text: str
    shape: Shape
    first: float
    """The value, the lower bound, the mean or the median."""
    second: float = 0.0
    """The upper bound or the standard deviation."""
    low: float = 0.0
    high: float = MAX_VALUE

    def draw(self, source: random.Random) -> float:
        return min(max(self._draw(source), self.low), self.high)

    def _draw(self, source: random.Random) -> float:
        if self.shape == "constant":
            return self.first
        if self.shape == "uniform":
            return source.uniform(self.first, self.second)
        if self.shape == "normal":
            return source.gauss(self.first, self.second)
        if self.shape == "lognormal":
            return self.first * math.exp(source.gauss(0.0, self.second))
        return source.expovariate(1 / self.first)

    def __str__(self) -> str:
        return self.text


def parse_distribution(text: str, what: str = "--think") -> Distribution:
    """Raises `OptionError` that names `what`, the text and what was expected."""
    text = text.strip()
    low, high, rest = 0.0, MAX_VALUE, text
    if bounds := _BOUNDS.fullmatch(text):
        rest, low, high = bounds["rest"].strip(), float(bounds[2]), float(bounds[3])
        if low > high:
            raise _bad(what, text, f"its bounds are empty: {bounds[2]} is more than {bounds[3]}")
    shape, first, second = _parse_shape(rest, what, text)
    if max(first, second, high) > MAX_VALUE:
        raise _bad(what, text, f"it has a number over {MAX_VALUE:,.0f}")
    if shape == "uniform" and first > second:
        raise _bad(what, text, f"{first:g} is more than {second:g}")
    if shape in ("lognormal", "exponential") and first == 0:
        raise _bad(what, text, f"the {'median' if shape == 'lognormal' else 'mean'} must be more than 0")
    if shape == "lognormal" and second > MAX_SIGMA_LOG:
        raise _bad(what, text, f"the standard deviation of the logarithm is at most {MAX_SIGMA_LOG:g}")
    return Distribution(text, shape, first, second, low, high)


def _parse_shape(rest: str, what: str, text: str) -> tuple[Shape, float, float]:
    if _CONSTANT.fullmatch(rest):
        return "constant", float(rest), 0.0
    if uniform := _UNIFORM.fullmatch(rest):
        return "uniform", float(uniform[1]), float(uniform[2])
    call = _CALL.fullmatch(rest)
    if call is None:
        raise _bad(what, text, "it is no distribution")
    name, first, second = call[1], float(call[2]), call[3]
    if name == "normal" and second is not None:
        return "normal", first, float(second)
    if name == "lognormal" and second is not None:
        return "lognormal", first, float(second)
    if name == "exponential" and second is None:
        return "exponential", first, 0.0
    if name in ("normal", "lognormal", "exponential"):
        raise _bad(what, text, f"{name} takes {'one number' if name == 'exponential' else 'two numbers'}")
    raise _bad(what, text, f"{name!r} is no distribution")


def _bad(what: str, text: str, reason: str) -> OptionError:
    return OptionError(f"{what} {text!r}: {reason}. Expected {EXPECTED}.")
