"""The highest rate that meets an SLO: doubled until it is missed, then halved in on.

Each rate is a stage of its own, so a rate is judged by users who arrive at that rate and by nobody else. Meeting is taken
to be monotonic: above a rate that missed, none is tried.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from loadtest.figures.document import Stage, Sweep

_MOST_STAGES = 16

RunAt = Callable[[float], Awaitable[Stage | None]]
"""Runs a stage at a rate; None when the user wants no more."""


async def find_rate(
    run_at: RunAt, *, slo: str, start_per_s: float, most_per_s: float, precision: float
) -> Sweep:
    """Ends when the highest rate that met and the lowest that missed are within `precision` (0.1: 10 %) of each other."""
    best: float | None = None
    missed: float | None = None
    rate = start_per_s
    for _ in range(_MOST_STAGES):
        stage = await run_at(rate)
        if stage is None:
            break
        if is_met(stage):
            best = max(rate, best or 0.0)
        else:
            missed = min(rate, missed or rate)
        next_rate = _next_rate(best, missed, most_per_s, precision)
        if next_rate is None:
            break
        rate = next_rate
    return Sweep(slo, best, missed)


def is_met(stage: Stage) -> bool:
    return bool(stage.verdicts) and all(verdict.met for verdict in stage.verdicts)


def sweep_of(slo: str, stages: list[Stage]) -> Sweep:
    """What stages at given rates say: the highest below the first that missed."""
    rated = sorted((stage.rate_per_s, is_met(stage)) for stage in stages if stage.rate_per_s is not None)
    missed = next((rate for rate, met in rated if not met), None)
    met = [rate for rate, met in rated if met and (missed is None or rate < missed)]
    return Sweep(slo, max(met, default=None), missed)


def _next_rate(best: float | None, missed: float | None, most: float, precision: float) -> float | None:
    """Geometric in the middle; None when it is known well enough."""
    if missed is None:
        return None if best is None or best >= most else min(best * 2, most)
    if best is None:
        return missed / 2 if missed > 0.01 else None
    return None if missed / best <= 1 + precision else float((missed * best) ** 0.5)
