"""What the plots of the HTML report show of one stage: exact curves, and no more dots than a page can carry.

Milliseconds end in `_ms`, seconds in `_s`. Curves and bars are made of every measured turn that ended `ok`; dots and
marks are thinned afterwards, and say of how many they are. Everything is a column of numbers: a browser reads that fast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loadtest.figures.document import Stage
from loadtest.figures.turn_result import TurnResult
from loadtest.report.phases import PhaseRow, phase_rows

MARKS = 2_000
"""Failures drawn at most, per stage."""
_MARKS_OF_A_KIND = 50
_BARS = 70
_STEPS = 150
_POINTS_PER_NINE = 50
_WORTH_SHOWING = 1.05
"""How much longer TTFT must be from when a turn was due than from when it was sent."""

Floats = NDArray[np.float64]


class Curve(msgspec.Struct, frozen=True):
    """Quantiles. `nines` is log10(1 / (1 - q)): 0 for the fastest, 1 for p90, 2 for p99, up to 1 in `n`."""

    n: int
    nines: tuple[float, ...]
    ms: tuple[float, ...]


class Bars(msgspec.Struct, frozen=True):
    """A histogram: one more edge than counts; `below` and `above` lie outside its edges."""

    edges_ms: tuple[float, ...]
    counts: tuple[int, ...]
    log: bool
    below: int
    above: int


class Dots(msgspec.Struct, frozen=True):
    """Turns with a TTFT, warm-up too, as columns."""

    of: int
    due_s: tuple[float, ...]
    ttft_ms: tuple[float, ...]
    turn: tuple[int, ...]
    warmup: tuple[bool, ...]
    conversation: tuple[str, ...]


class Marks(msgspec.Struct, frozen=True):
    """Turns that did not end `ok`, warm-up too, as columns; `counts` is of all, by outcome."""

    of: int
    counts: dict[str, int]
    due_s: tuple[float, ...]
    outcome: tuple[str, ...]
    detail: tuple[str, ...]
    warmup: tuple[bool, ...]
    conversation: tuple[str, ...]


class ByTurn(msgspec.Struct, frozen=True):
    turn: int
    n: int
    p50_ms: float
    p90_ms: float
    p99_ms: float


class Pace(msgspec.Struct, frozen=True):
    """Output tokens of all turns, in steps of equal width from `start_s` on."""

    start_s: float
    step_s: float
    tokens_per_s: tuple[float, ...]


class StagePlots(msgspec.Struct, frozen=True):
    ttft: Curve | None
    sent_ttft: Curve | None
    """Null when it says the same as `ttft`."""
    server_ttft: Curve | None
    itl: Curve | None
    zero_gaps: int
    """Gaps of no measurable length: both tokens came in one read."""
    ttft_bars: Bars | None
    itl_bars: Bars | None
    ttft_by_turn: tuple[ByTurn, ...]
    dots: Dots
    marks: Marks
    warmup_until_s: float | None
    phases: tuple[PhaseRow, ...]
    phase_turns: int
    """Turns whose server told its phases."""
    pace: Pace | None


def stage_plots(stage: Stage, dots: int) -> StagePlots:
    """`dots`: how many turns to draw at most."""
    ok = [turn for turn in stage.turns if turn.outcome == "ok" and not turn.warmup]
    ttft = _milliseconds(turn.ttft_ms for turn in ok)
    sent = _milliseconds(turn.sent_ttft_ms for turn in ok)
    gaps = np.fromiter((gap for turn in ok for gap in turn.itl_us), np.float64) / 1_000
    gaps.sort()
    phases, phase_turns = phase_rows(ok)
    return StagePlots(
        ttft=_curve(ttft),
        sent_ttft=_curve(sent) if _differs(ttft, sent) else None,
        server_ttft=_curve(_milliseconds(turn.server.ttft_ms if turn.server else None for turn in ok)),
        itl=_curve(gaps),
        zero_gaps=int(np.count_nonzero(gaps == 0)),
        ttft_bars=_bars(ttft),
        itl_bars=_bars(gaps[gaps > 0]),
        ttft_by_turn=_by_turn(ok),
        dots=_dots(stage.turns, dots),
        marks=_marks(stage.turns),
        warmup_until_s=_warmup_until_s(stage.turns),
        phases=phases,
        phase_turns=phase_turns,
        pace=_pace(stage.turns),
    )


def _milliseconds(samples: Iterable[float | None]) -> Floats:
    """Ascending, without those that are not there."""
    return np.sort(np.array([sample for sample in samples if sample is not None], np.float64))


def _rounded(values: NDArray[np.floating[Any]]) -> tuple[float, ...]:
    return tuple(np.round(values, 3).tolist())


def _curve(ascending: Floats) -> Curve | None:
    n = len(ascending)
    if n < 2:
        return None
    nines = np.linspace(0, np.log10(n), int(np.log10(n) * _POINTS_PER_NINE) + 2)
    return Curve(n, _rounded(nines), _rounded(np.quantile(ascending, 1 - 10.0**-nines)))


def _differs(due: Floats, sent: Floats) -> bool:
    if not len(sent):
        return False
    at = (0.50, 0.90, 0.99)
    return bool(np.any(np.quantile(due, at) > _WORTH_SHOWING * np.quantile(sent, at)))


def _bars(ascending: Floats) -> Bars | None:
    """From p0.1 to p99.9, so that one straggler does not squeeze all others into one bar; all of them if they are few."""
    n = len(ascending)
    if n < 2:
        return None
    low, high = (
        (ascending[0], ascending[-1]) if n < 1_000 else np.quantile(ascending, (0.001, 0.999)).tolist()
    )
    if high <= low:
        low, high = low * 0.95, high * 1.05 + 0.001
    log = bool(low > 0 and high / low > 15)
    bars = min(_BARS, max(10, int(4 * np.sqrt(n))))
    edges = np.geomspace(low, high, bars + 1) if log else np.linspace(low, high, bars + 1)
    edges[0], edges[-1] = low, high  # geomspace may miss its own ends by a bit, and a sample with them
    counts, _ = np.histogram(ascending, edges)
    below = int(np.searchsorted(ascending, edges[0], "left"))
    above = n - int(np.searchsorted(ascending, edges[-1], "right"))
    return Bars(tuple(np.round(edges, 5).tolist()), tuple(counts.tolist()), log, below, above)


def _by_turn(ok: Sequence[TurnResult]) -> tuple[ByTurn, ...]:
    samples: dict[int, list[float]] = {}
    for turn in ok:
        if turn.ttft_ms is not None:
            samples.setdefault(turn.turn, []).append(turn.ttft_ms)
    return tuple(
        ByTurn(turn, len(of_turn), *_rounded(np.quantile(of_turn, (0.50, 0.90, 0.99))))
        for turn, of_turn in sorted(samples.items())
    )


def _dots(turns: Sequence[TurnResult], limit: int) -> Dots:
    ok = [turn for turn in turns if turn.outcome == "ok" and turn.ttft_ms is not None]
    shown = [ok[at] for at in _thinned(np.array([turn.ttft_ms for turn in ok], np.float64), limit)]
    return Dots(
        of=len(ok),
        due_s=tuple(round(turn.due_s, 3) for turn in shown),
        ttft_ms=tuple(round(turn.ttft_ms or 0.0, 2) for turn in shown),
        turn=tuple(turn.turn for turn in shown),
        warmup=tuple(turn.warmup for turn in shown),
        conversation=tuple(turn.conversation_id[:60] for turn in shown),
    )


def _thinned(values: Floats, limit: int) -> list[int]:
    """Places of `limit` values at most: a tenth of them the greatest, the others drawn at random, always the same."""
    if len(values) <= limit:
        return list(range(len(values)))
    order = np.argsort(values, kind="stable")
    greatest = limit // 10
    rest = np.random.default_rng(0).choice(order[: len(order) - greatest], limit - greatest, replace=False)
    return sorted([*rest.tolist(), *order[len(order) - greatest :].tolist()])


def _marks(turns: Sequence[TurnResult]) -> Marks:
    not_ok = [turn for turn in turns if turn.outcome != "ok"]
    counts: Counter[str] = Counter(turn.outcome for turn in not_ok)
    shown: list[TurnResult] = []
    for outcome, count in counts.items():
        # A rare kind is not lost among a frequent one.
        room = max(_MARKS_OF_A_KIND, (MARKS - _MARKS_OF_A_KIND * len(counts)) * count // len(not_ok))
        of_kind = [turn for turn in not_ok if turn.outcome == outcome]
        if count > room:
            of_kind = [of_kind[at] for at in np.linspace(0, count - 1, room).astype(int).tolist()]
        shown.extend(of_kind)
    return Marks(
        of=len(not_ok),
        counts=dict(counts),
        due_s=tuple(round(turn.due_s, 3) for turn in shown),
        outcome=tuple(turn.outcome for turn in shown),
        detail=tuple((turn.detail or "")[:120] for turn in shown),
        warmup=tuple(turn.warmup for turn in shown),
        conversation=tuple(turn.conversation_id[:60] for turn in shown),
    )


def _warmup_until_s(turns: Sequence[TurnResult]) -> float | None:
    """When the first measured turn was due, if a warm-up came before it."""
    if not any(turn.warmup for turn in turns):
        return None
    measured = [turn.due_s for turn in turns if not turn.warmup]
    return min(measured) if measured else max(turn.due_s + turn.e2e_ms / 1_000 for turn in turns)


def _pace(turns: Sequence[TurnResult]) -> Pace | None:
    """A turn's tokens are spread evenly over its deltas: some servers put several into one."""
    with_tokens = [turn for turn in turns if turn.ttft_ms is not None and turn.output_tokens > 0]
    if len(with_tokens) < 2:
        return None
    start_s = min(turn.due_s for turn in turns)
    end_s = max(turn.due_s + turn.e2e_ms / 1_000 for turn in turns)
    if end_s <= start_s:
        return None
    edges = np.linspace(start_s, end_s, _STEPS + 1)
    tokens = np.zeros(_STEPS)
    for turn in with_tokens:
        first_s = turn.due_s + (turn.ttft_ms or 0.0) / 1_000
        at_s = first_s + np.cumsum((0, *turn.itl_us)) / 1_000_000
        steps = np.searchsorted(edges, at_s, "right") - 1
        np.add.at(tokens, steps.clip(0, _STEPS - 1), turn.output_tokens / len(at_s))
    step_s = float(edges[1] - edges[0])
    return Pace(round(start_s, 6), round(step_s, 6), tuple(np.round(tokens / step_s, 2).tolist()))
