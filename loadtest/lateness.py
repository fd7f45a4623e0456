"""What the client itself did to the figures, and whether it is too much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from msgspec.structs import replace

from loadtest.figures.distribution import by_conversation, distribution_of
from loadtest.figures.document import Distribution, Lateness, Summary
from loadtest.fleet import StageRun

_TOLERATED_MS = 1.0
_TOLERATED_SHARE = 0.02
"""Of the median TTFT: lateness below the larger of the two changes no conclusion."""
_BUSY = 0.9
_STOLEN = 0.05
_READ_LAG_MS = 5.0


def lateness_of(run: StageRun, summary: Summary) -> Lateness:
    # Also of turns that failed: they were sent as late as the others.
    sent = [turn for turn in run.turns if not turn.warmup and turn.outcome != "unfinished"]
    held = None
    if run.plan.is_open_loop and run.plan.concurrency is not None:
        held = distribution_of(by_conversation(sent, lambda turn: turn.held_ms))
    events = sum(over.events for over in run.overs)
    by_kernel = all(over.stamped_by_kernel for over in run.overs)
    lateness = Lateness(
        processes=run.processes,
        late_ms=distribution_of(by_conversation(sent, lambda turn: turn.late_ms)),
        held_ms=held,
        loop_lag_ms=_of_counts(Counter(lag_us for over in run.overs for lag_us in over.loop_lag_us)),
        stamped_by="kernel" if by_kernel else "reader",
        read_lag_ms=_of_counts(sum((Counter(over.read_lag_us) for over in run.overs), Counter[int]())),
        busy_poll=run.plan.busy_poll,
        cpu_share=max((over.cpu_s / over.wall_s for over in run.overs if over.wall_s > 0), default=0.0),
        cpu_us_per_event=sum(over.cpu_s for over in run.overs) / events * 1e6
        if events and not run.plan.busy_poll
        else None,
        stolen_share=run.stolen_share,
        warnings=(),
    )
    ttft_ms = 0.0 if summary.ttft_ms is None else summary.ttft_ms.p50
    return replace(lateness, warnings=tuple(_warnings(lateness, ttft_ms)))


def _of_counts(counts_us: Counter[int]) -> Distribution | None:
    """Without intervals: these samples come by the thousand and are no conversations."""
    values_ms = np.repeat(np.fromiter(counts_us.keys(), dtype=np.float64) / 1_000, list(counts_us.values()))
    return distribution_of([values_ms]) if values_ms.size else None


def _warnings(client: Lateness, ttft_ms: float) -> Iterator[str]:
    bound_ms = max(_TOLERATED_MS, _TOLERATED_SHARE * ttft_ms)
    late, lag, read_lag = client.late_ms, client.loop_lag_ms, client.read_lag_ms
    if late is not None and late.p99 > bound_ms:
        yield (
            f"The client lagged: one turn in a hundred was sent {late.p99:.1f} ms late or more (at most {late.max:.1f} ms). "
            "That is part of the latencies below, as it is of a user's wait, but the server is not to blame."
        )
    if client.stamped_by == "reader" and lag is not None and lag.p99 > bound_ms:
        yield (
            f"The client was busy: its timers came {lag.p99:.1f} ms late or more, one in a hundred, "
            "and so may every time stamp."
        )
    # The kernel's stamps are right however late they are read, until tokens wait for each other.
    if read_lag is not None and read_lag.p99 > _READ_LAG_MS:
        yield (
            f"The client read late: bytes waited {read_lag.p99:.1f} ms or more, one read in a hundred. "
            "Tokens that waited together seem to have come together."
        )
    if client.cpu_share > _BUSY and not client.busy_poll:
        yield (
            f"A measuring process used {client.cpu_share:.0%} of a core: raise --processes above {client.processes}, "
            "or measure from another machine."
        )
    if client.stolen_share is not None and client.stolen_share > _STOLEN:
        yield (
            f"The machine's host took {client.stolen_share:.0%} of its CPU time away: every figure suffers from it."
        )
