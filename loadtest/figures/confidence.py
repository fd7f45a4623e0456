"""How sure a percentile is: bootstrap over whole conversations, since the turns of one are not independent of each other.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 (clusters are what is resampled) and 13
(percentile intervals). Values are sorted into bins of three digits first, so that a resample is a matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from loadtest.figures.document import Interval

RESAMPLES = 1_000
FEWEST_CLUSTERS = 10
_MOST_CLUSTERS = 200
"""More are joined at random: sums of independent clusters are independent clusters."""
_MOST_BINS = 4_000

Floats = npt.NDArray[np.float64]


def resample(clusters: Sequence[Floats], percents: Sequence[float], seed: int = 0) -> Floats | None:
    """(RESAMPLES, len(percents)) float64: the percentiles of each resample. None with too few clusters to say anything."""
    clusters = [cluster for cluster in clusters if cluster.size]
    if len(clusters) < FEWEST_CLUSTERS:
        return None
    draws = np.random.default_rng(seed)
    counts, values = _counts(_join(clusters, draws))
    n_clusters = counts.shape[0]
    weights = draws.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), RESAMPLES)
    cumulated = np.cumsum(weights.astype(np.float32) @ counts, axis=1)
    found = np.empty((RESAMPLES, len(percents)))
    for column, percent in enumerate(percents):
        wanted = cumulated[:, -1:] * (percent / 100)
        found[:, column] = values[np.minimum((cumulated < wanted).sum(axis=1), values.size - 1)]
    return found


def interval(replicates: Floats) -> Interval:
    """The middle 95 %."""
    low, high = np.percentile(replicates, [2.5, 97.5])
    return Interval(float(low), float(high))


def _join(clusters: Sequence[Floats], draws: np.random.Generator) -> list[Floats]:
    if len(clusters) <= _MOST_CLUSTERS:
        return list(clusters)
    order = draws.permutation(len(clusters))
    return [
        np.concatenate([clusters[index] for index in part]) for part in np.array_split(order, _MOST_CLUSTERS)
    ]


def _counts(clusters: Sequence[Floats]) -> tuple[npt.NDArray[np.float32], Floats]:
    """(n_clusters, n_bins) float32 of how many of each cluster's values fall into each bin, and the bins' values."""
    everything = np.concatenate(clusters)
    values = np.unique(everything)
    if values.size > _MOST_BINS:
        values = np.unique(np.quantile(everything, np.linspace(0, 1, _MOST_BINS), method="higher"))
    counts = np.zeros((len(clusters), values.size), dtype=np.float32)
    for row, cluster in enumerate(clusters):
        bins = np.searchsorted(values, cluster)
        counts[row] = np.bincount(bins, minlength=values.size)
    return counts, values
