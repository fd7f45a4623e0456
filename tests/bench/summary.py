"""Medians over the repeats, and ratios, which are taken within one repeat before their median is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median

import msgspec

from bench.gateway import Run, holds

_REFERENCE = "direct"
_OURS = "firstword"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One contestant at one level. Milliseconds are of the client's clock; None where there is no figure."""

    level: str
    contestant: str
    streams: int
    rate_per_s: float
    repeats: int
    turns: int
    complete: int
    faults: dict[str, int]
    kept_up: bool
    """In every repeat."""
    cpu_us_per_token: float | None
    cpu_ratio: float | None
    """To Firstword's."""
    ttft_p50_ms: float | None
    ttft_p99_ms: float | None
    added_p50_ms: float | None
    """To the direct connection's."""
    added_p99_ms: float | None
    itl_p50: float | None
    """In intervals of the source."""
    itl_p99: float | None
    tokens_per_s: float | None
    client_share: float | None
    """Of one core: near 1 the client itself would be what is measured."""
    target_share: float | None
    stolen_share: float
    others_share: float


class SweepPoint(msgspec.Struct, frozen=True):
    streams: int
    tokens_per_s: float
    itl_p99: float
    """In intervals of the source."""
    cpu_us_per_token: float
    holds: bool


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """In the order of the levels, and within a level of the contestants' names as they first appeared."""
    grouped: dict[str, dict[str, list[Run]]] = {}
    for run in sorted(runs, key=lambda run: run.repeat):
        grouped.setdefault(run.level, {}).setdefault(run.contestant, []).append(run)
    return [_row(mine, at_level) for at_level in grouped.values() for mine in at_level.values()]


def sweep_points(sweep: Iterable[Run]) -> list[SweepPoint]:
    points = []
    for run in sweep:
        window = run.figures.window
        if window is not None:
            points.append(
                SweepPoint(
                    run.streams,
                    window.tokens_per_s,
                    window.itl_ms.p99 * run.rate_per_s / 1_000,
                    window.cpu_us_per_token["gateway"],
                    holds(run),
                )
            )
    return points


def _row(mine: list[Run], at_level: dict[str, list[Run]]) -> Row:
    first = mine[0]
    faults: dict[str, int] = {}
    for run in mine:
        for fault, count in run.figures.faults.items():
            faults[fault] = faults.get(fault, 0) + count
    ours, reference = at_level.get(_OURS, []), at_level.get(_REFERENCE, [])
    intervals_per_ms = first.rate_per_s / 1_000
    return Row(
        level=first.level,
        contestant=first.contestant,
        streams=first.streams,
        rate_per_s=first.rate_per_s,
        repeats=len(mine),
        turns=sum(run.figures.turns for run in mine),
        complete=sum(run.figures.complete for run in mine),
        faults=faults,
        kept_up=all(run.figures.steady is not None for run in mine),
        cpu_us_per_token=_median(map(_cpu, mine)),
        cpu_ratio=_paired(mine, ours, _cpu, lambda one, other: one / other),
        ttft_p50_ms=_median(map(_ttft_p50, mine)),
        ttft_p99_ms=_median(map(_ttft_p99, mine)),
        added_p50_ms=_paired(mine, reference, _ttft_p50, lambda one, other: one - other),
        added_p99_ms=_paired(mine, reference, _ttft_p99, lambda one, other: one - other),
        itl_p50=_scaled(_median(map(_itl_p50, mine)), intervals_per_ms),
        itl_p99=_scaled(_median(map(_itl_p99, mine)), intervals_per_ms),
        tokens_per_s=_median(map(_tokens_per_s, mine)),
        client_share=_median(_share(run, "client") for run in mine),
        target_share=_median(_share(run, "target") for run in mine),
        stolen_share=median(run.figures.stolen_share for run in mine),
        others_share=median(run.figures.others_share for run in mine),
    )


def _cpu(run: Run) -> float | None:
    window = run.figures.window
    return window.cpu_us_per_token["gateway"] if window else None


def _tokens_per_s(run: Run) -> float | None:
    window = run.figures.window
    return window.tokens_per_s if window else None


def _ttft_p50(run: Run) -> float | None:
    ttft_ms = run.figures.ttft_ms
    return ttft_ms.p50 if ttft_ms else None


def _ttft_p99(run: Run) -> float | None:
    ttft_ms = run.figures.ttft_ms
    return ttft_ms.p99 if ttft_ms else None


def _itl_p50(run: Run) -> float | None:
    window = run.figures.window
    return window.itl_ms.p50 if window else None


def _itl_p99(run: Run) -> float | None:
    window = run.figures.window
    return window.itl_ms.p99 if window else None


def _share(run: Run, part: str) -> float | None:
    window = run.figures.window
    return window.cpu_share.get(part) if window else None


def _paired(
    mine: Iterable[Run],
    others: Iterable[Run],
    figure: Callable[[Run], float | None],
    compare: Callable[[float, float], float],
) -> float | None:
    """The median over the repeats of mine compared with the other's in the same repeat."""
    other_by_repeat = {run.repeat: figure(run) for run in others}
    pairs = [(figure(run), other_by_repeat.get(run.repeat)) for run in mine]
    return _median(compare(one, other) for one, other in pairs if one is not None and other)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
