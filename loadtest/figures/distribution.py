"""Samples as a distribution, with how sure its median and p99 are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from loadtest.figures.confidence import Floats, interval, resample
from loadtest.figures.document import Distribution
from loadtest.figures.histogram import Histogram
from loadtest.figures.turn_result import TurnResult

PERCENTS = (50.0, 90.0, 95.0, 99.0, 99.9)

Measure = Callable[[TurnResult], float | Sequence[float] | None]
"""One sample of a turn, several, or none. Milliseconds."""


def by_conversation(turns: Iterable[TurnResult], measure: Measure) -> list[Floats]:
    """The samples of each holding of a conversation: what a bootstrap may take as independent."""
    clusters: dict[tuple[str, int], list[float]] = defaultdict(list)
    for turn in turns:
        sample = measure(turn)
        if sample is None:
            continue
        cluster = clusters[(turn.conversation_id, turn.holding)]
        if isinstance(sample, float):
            cluster.append(sample)
        else:
            cluster.extend(sample)
    return [np.asarray(cluster) for cluster in clusters.values() if cluster]


def distribution_of(clusters: Sequence[Floats]) -> Distribution | None:
    """None without a sample. Differences, which may be negative, have exact percentiles."""
    if not clusters:
        return None
    samples = np.concatenate(clusters)
    if samples.min() < 0:
        found = [float(value) for value in np.percentile(samples, PERCENTS)]
    else:
        histogram = Histogram.of_ms(samples)
        found = [min(histogram.percentile_ms(percent), float(samples.max())) for percent in PERCENTS]
    p50, p90, p95, p99, p999 = found
    replicates = resample(clusters, (50.0, 99.0))
    return Distribution(
        n=samples.size,
        mean=float(samples.mean()),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        p999=p999,
        max=float(samples.max()),
        p50_ci=None if replicates is None else interval(replicates[:, 0]),
        p99_ci=None if replicates is None else interval(replicates[:, 1]),
    )


def itl_ms(turn: TurnResult) -> list[float]:
    return [gap_us / 1_000 for gap_us in turn.itl_us]
