"""What the client itself did to the figures, and whether it is too much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from loadtest.figures.distribution import by_conversation, distribution_of
from loadtest.figures.document import Distribution, Lateness, Summary
from loadtest.fleet import StageRun

_TOLERATED_MS = 1.0
_TOLERATED_SHARE = 0.05
"""Of the median TTFT: lateness below the larger of the two changes no conclusion."""
_BUSY = 0.9
_STOLEN = 0.05


def lateness_of(run: StageRun, summary: Summary) -> Lateness:
    # Also of turns that failed: they were sent as late as the others.
    sent = [turn for turn in run.turns if not turn.warmup and turn.outcome != "unfinished"]
    late = distribution_of(by_conversation(sent, lambda turn: turn.late_ms))
    held = None
    if run.plan.is_open_loop and run.plan.concurrency is not None:
        held = distribution_of(by_conversation(sent, lambda turn: turn.held_ms))
    lag_ms = np.asarray([lag_us / 1_000 for over in run.overs for lag_us in over.loop_lag_us])
    lag = distribution_of([lag_ms]) if lag_ms.size else None
    cpu_share = max((over.cpu_s / over.wall_s for over in run.overs if over.wall_s > 0), default=0.0)
    events = sum(over.events for over in run.overs)
    return Lateness(
        processes=run.processes,
        late_ms=late,
        held_ms=held,
        loop_lag_ms=lag,
        cpu_share=cpu_share,
        cpu_us_per_event=sum(over.cpu_s for over in run.overs) / events * 1e6 if events else None,
        stolen_share=run.stolen_share,
        warnings=tuple(_warnings(run, summary, (late, lag), cpu_share)),
    )


def _warnings(
    run: StageRun,
    summary: Summary,
    late_and_lag: Sequence[Distribution | None],
    cpu_share: float,
) -> Iterator[str]:
    late, lag = late_and_lag
    ttft = summary.ttft_ms
    bound_ms = max(_TOLERATED_MS, _TOLERATED_SHARE * ttft.p50 if ttft is not None else 0.0)
    if late is not None and late.p99 > bound_ms:
        yield (
            f"The client lagged: one turn in a hundred was sent {late.p99:.1f} ms late or more (at most {late.max:.1f} ms). "
            "That is part of the latencies below, as it is of a user's wait, but the server is not to blame."
        )
    if lag is not None and lag.p99 > bound_ms:
        yield (
            f"The client was busy: its timers came {lag.p99:.1f} ms late or more, one in a hundred, "
            "and so may every time stamp."
        )
    if cpu_share > _BUSY:
        yield (
            f"A measuring process used {cpu_share:.0%} of a core: raise --processes above {run.processes}, "
            "or measure from another machine."
        )
    if run.stolen_share is not None and run.stolen_share > _STOLEN:
        yield f"The machine's host took {run.stolen_share:.0%} of its CPU time away: every figure suffers from it."
