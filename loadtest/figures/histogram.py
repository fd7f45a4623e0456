"""HdrHistograms of microseconds: of any size, within 0.1 % of every value, and they add up.

Gil Tene, http://hdrhistogram.org; here with three significant digits from 1 µs to 1 h. Values outside count as the
nearest bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

LOWEST_US = 1
HIGHEST_US = 3_600_000_000
_DIGITS = 3

Floats = npt.NDArray[np.float64]


class Histogram:
    def __init__(self) -> None:
        self._hdr = HdrHistogram(LOWEST_US, HIGHEST_US, _DIGITS)

    @classmethod
    def of_ms(cls, values_ms: Iterable[float] | Floats) -> Histogram:
        histogram = cls()
        values = np.asarray(
            values_ms if isinstance(values_ms, np.ndarray) else list(values_ms), dtype=np.float64
        )
        rounded = np.clip(np.rint(values * 1_000), LOWEST_US, HIGHEST_US).astype(np.int64)
        for value_us, n in zip(*np.unique(rounded, return_counts=True), strict=True):
            histogram._hdr.record_value(int(value_us), int(n))
        return histogram

    def encode(self) -> str:
        return str(self._hdr.encode(), "ascii")

    def add(self, other: Histogram) -> None:
        self._hdr.add(other._hdr)

    @property
    def n(self) -> int:
        return int(self._hdr.total_count)

    def percentile_ms(self, percent: float) -> float:
        """The least value at or below which so many of 100 samples lie."""
        if not self.n:
            return 0.0
        # The library rounds a rank to the nearest: of 51 samples, its p99 would be the last but one.
        rank = max(1, math.ceil(percent * self.n / 100 - 1e-9))
        return float(self._hdr.get_value_at_percentile(rank / self.n * 100)) / 1_000
