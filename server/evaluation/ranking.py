"""How well a ranking finds what is relevant: recall@k, nDCG@k and MRR, with confidence over conversations.

Relevance is binary. nDCG as in Järvelin and Kekäläinen, 2002 (https://doi.org/10.1145/582415.582418): the gain of the
result at rank i is discounted by log2(i + 1), over the best that could be had.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import msgspec
import numpy as np

from loadtest.figures.confidence import FEWEST_CLUSTERS, RESAMPLES, interval
from loadtest.figures.document import Interval


class Mean(msgspec.Struct, frozen=True):
    value: float
    ci: Interval | None
    """95 %, resampled; null with fewer than ten queries."""


def recall_at(k: int, found: Sequence[str], relevant: Collection[str]) -> float:
    return len({*found[:k]} & {*relevant}) / len(relevant)


def ndcg_at(k: int, found: Sequence[str], relevant: Collection[str]) -> float:
    gain = sum(1 / math.log2(rank + 1) for rank, name in enumerate(found[:k], start=1) if name in relevant)
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))
    return gain / best


def reciprocal_rank(found: Sequence[str], relevant: Collection[str]) -> float:
    return next((1 / rank for rank, name in enumerate(found, start=1) if name in relevant), 0.0)


def auc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """How often a drawn positive scores above a drawn negative; ties count half. None when there are none of either."""
    if not positive or not negative:
        return None
    ranks = np.argsort(np.argsort([*positive, *negative], kind="stable"), kind="stable").astype(float) + 1
    values = np.asarray([*positive, *negative])
    for value in np.unique(values):
        ranks[values == value] = ranks[values == value].mean()
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def mean(values: Sequence[float]) -> Mean:
    """Of at least one value."""
    held = np.asarray(values, dtype=float)
    if len(held) < FEWEST_CLUSTERS:
        return Mean(float(held.mean()), None)
    draws = np.random.default_rng(0).integers(0, len(held), size=(RESAMPLES, len(held)))
    return Mean(float(held.mean()), interval(held[draws].mean(axis=1)))
