"""What the turns of a replay add up to, and how sure that is.

All modes hold the same conversations, so they are compared turn by turn: only turns that every mode has finished are in
a figure, and a resample takes the same conversations of each mode. See `loadtest.figures.confidence` for the bootstrap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import msgspec
import numpy as np

from loadtest.figures.confidence import FEWEST_CLUSTERS, RESAMPLES, Floats, interval, resample
from loadtest.figures.document import Interval

Mode = Literal["system", "user", "append", "append+order", "type-ahead"]
MODES: tuple[Mode, ...] = get_args(Mode)
BASE: Mode = "system"
"""The usual layout, which the others are compared with."""

Part = Literal["turn 1", "turns 2+", "all turns"]
PARTS: tuple[Part, ...] = get_args(Part)


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of one conversation in one mode."""

    mode: Mode
    conversation: str
    collection: str
    turn: int
    """Counted from 1."""
    ttft_ms: float
    prefill_ms: float
    prompt_tokens: int
    cached_tokens: int
    plain_computed_tokens: int | None
    """What the usual layout would have computed, as the server estimates it; null where it does not."""
    ahead_tokens: int
    """Computed while the user typed; those of a prefill that was cut short are not counted."""
    compaction: str | None
    """Why the prompt shed older parts; null where it did not."""
    completion_tokens: int
    tpot_ms: float | None
    """Null for an answer of one token."""
    finish_reason: str | None
    f1: float
    containment: float
    source_precision: float | None
    """This and the next two: null but for a last turn whose relevant passages are known."""
    source_recall: float | None
    names_relevant: bool | None
    passages: tuple[str, ...]
    """Ids of the turn's sources, best first."""
    question: str
    answer: str

    @property
    def computed_tokens(self) -> int:
        return self.prompt_tokens - self.cached_tokens


class Estimate(msgspec.Struct, frozen=True):
    value: float
    n: int
    """Turns that have it."""
    ci: Interval | None
    """Null with fewer than ten conversations."""
    ratio: float | None = None
    """To the usual layout over the same turns; null where that is 0, and for the layout itself."""
    ratio_ci: Interval | None = None
    difference: float | None = None
    difference_ci: Interval | None = None


class Summary(msgspec.Struct, frozen=True):
    """One mode's turns. A measure that no turn has is not in it."""

    mode: Mode
    part: Part
    turns: int
    conversations: int
    measures: dict[str, Estimate]


class TurnSummary(msgspec.Struct, frozen=True):
    """All turns of one mode at the same place in their conversation."""

    mode: Mode
    turn: int
    n: int
    measures: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class _Quotient:
    """A mean (`over` is 1 for each turn that has the measure) or a share of sums."""

    of: Callable[[Observation], float | None]
    over: Callable[[Observation], float] = lambda turn: 1.0


@dataclass(frozen=True, slots=True)
class _Percentile:
    of: Callable[[Observation], float]
    percent: float


_Measure = _Quotient | _Percentile

MEASURES: Mapping[str, _Measure] = {
    "ttft_mean_ms": _Quotient(lambda turn: turn.ttft_ms),
    "ttft_p50_ms": _Percentile(lambda turn: turn.ttft_ms, 50),
    "ttft_p95_ms": _Percentile(lambda turn: turn.ttft_ms, 95),
    "prefill_mean_ms": _Quotient(lambda turn: turn.prefill_ms),
    "prompt_tokens": _Quotient(lambda turn: float(turn.prompt_tokens)),
    "computed_tokens": _Quotient(lambda turn: float(turn.computed_tokens)),
    "plain_computed_tokens": _Quotient(lambda turn: turn.plain_computed_tokens),
    "ahead_tokens": _Quotient(lambda turn: float(turn.ahead_tokens)),
    "cached_share": _Quotient(lambda turn: float(turn.cached_tokens), lambda turn: float(turn.prompt_tokens)),
    "completion_tokens": _Quotient(lambda turn: float(turn.completion_tokens)),
    "tpot_ms": _Quotient(lambda turn: turn.tpot_ms),
    "f1": _Quotient(lambda turn: turn.f1),
    "containment": _Quotient(lambda turn: turn.containment),
    "source_precision": _Quotient(lambda turn: turn.source_precision),
    "source_recall": _Quotient(lambda turn: turn.source_recall),
    "names_relevant": _Quotient(lambda turn: turn.names_relevant),
}


def common_turns(observations: Sequence[Observation]) -> list[Observation]:
    """Those of turns that every mode has finished; a mode without any is not asked for."""
    modes = {observation.mode for observation in observations}
    held: dict[tuple[str, int], set[Mode]] = defaultdict(set)
    for observation in observations:
        held[observation.conversation, observation.turn].add(observation.mode)
    return [turn for turn in observations if held[turn.conversation, turn.turn] == modes]


def summaries(observations: Sequence[Observation]) -> tuple[Summary, ...]:
    """By mode and part of the conversations; see `common_turns`."""
    common = common_turns(observations)
    made = []
    for part in PARTS:
        of_mode = _by_mode(turn for turn in common if _is_in(turn, part))
        for mode, turns in of_mode.items():
            base = of_mode.get(BASE) if mode != BASE else None
            n_conversations = len({turn.conversation for turn in turns})
            made.append(Summary(mode, part, len(turns), n_conversations, _estimates(turns, base)))
    return tuple(made)


def by_turn(observations: Sequence[Observation]) -> tuple[TurnSummary, ...]:
    """By mode and number of the turn; see `common_turns`."""
    common = common_turns(observations)
    made = []
    for number in sorted({turn.turn for turn in common}):
        of_mode = _by_mode(turn for turn in common if turn.turn == number)
        for mode, turns in of_mode.items():
            base = of_mode.get(BASE) if mode != BASE else None
            made.append(TurnSummary(mode, number, len(turns), _estimates(turns, base)))
    return tuple(made)


def _is_in(turn: Observation, part: Part) -> bool:
    return part == "all turns" or (turn.turn == 1) == (part == "turn 1")


def _by_mode(turns: Iterable[Observation]) -> dict[Mode, list[Observation]]:
    found = list(turns)
    of_mode = {mode: [turn for turn in found if turn.mode == mode] for mode in MODES}
    return {mode: held for mode, held in of_mode.items() if held}


def _estimates(turns: Sequence[Observation], base: Sequence[Observation] | None) -> dict[str, Estimate]:
    made = {}
    for name, measure in MEASURES.items():
        found = _evaluate(measure, turns)
        if found is None:
            continue
        value, n, replicates = found
        estimate = Estimate(value, n, None if replicates is None else interval(replicates))
        made[name] = estimate if base is None else _compared(estimate, measure, turns, base)
    return made


def _compared(
    estimate: Estimate, measure: _Measure, turns: Sequence[Observation], base: Sequence[Observation]
) -> Estimate:
    """Over the turns that have the measure in both modes, so that each resample takes the same turns of both."""
    here, there = (
        {(turn.conversation, turn.turn): turn for turn in held if measure.of(turn) is not None}
        for held in (turns, base)
    )
    both = sorted(here.keys() & there.keys())
    found = _evaluate(measure, [here[key] for key in both])
    against = _evaluate(measure, [there[key] for key in both])
    if found is None or against is None:
        return estimate
    ratio = found[0] / against[0] if against[0] else None
    ratio_ci = difference_ci = None
    if found[2] is not None and against[2] is not None:
        difference_ci = interval(found[2] - against[2])
        if ratio is not None and against[2].all():
            ratio_ci = interval(found[2] / against[2])
    return msgspec.structs.replace(
        estimate,
        ratio=ratio,
        ratio_ci=ratio_ci,
        difference=found[0] - against[0],
        difference_ci=difference_ci,
    )


def _evaluate(measure: _Measure, turns: Sequence[Observation]) -> tuple[float, int, Floats | None] | None:
    """The value, the turns that have it, and (RESAMPLES,) float64 of it resampled. None if no turn has it."""
    if isinstance(measure, _Percentile):
        return _percentile(measure, turns)
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    n = 0
    for turn in turns:
        value = measure.of(turn)
        if value is not None:
            sums[turn.conversation][0] += value
            sums[turn.conversation][1] += measure.over(turn)
            n += 1
    pairs = np.array([sums[conversation] for conversation in sorted(sums)])
    if not n or not pairs[:, 1].sum():
        return None
    above, below = pairs.sum(axis=0)
    return float(above / below), n, _resampled(pairs)


def _resampled(pairs: Floats) -> Floats | None:
    """`pairs` is (n_conversations, 2): what is summed above and below the line."""
    n = len(pairs)
    if n < FEWEST_CLUSTERS:
        return None
    drawn = _weights(n) @ pairs
    return np.asarray(drawn[:, 0] / drawn[:, 1])


@lru_cache(maxsize=16)
def _weights(n_conversations: int) -> Floats:
    """(RESAMPLES, n_conversations): how often each resample takes each conversation."""
    draws = np.random.default_rng(0)
    counts = draws.multinomial(n_conversations, np.full(n_conversations, 1 / n_conversations), RESAMPLES)
    return counts.astype(np.float64)


def _percentile(
    measure: _Percentile, turns: Sequence[Observation]
) -> tuple[float, int, Floats | None] | None:
    clusters: dict[str, list[float]] = defaultdict(list)
    for turn in turns:
        clusters[turn.conversation].append(measure.of(turn))
    if not clusters:
        return None
    values = [np.asarray(clusters[conversation]) for conversation in sorted(clusters)]
    replicates = resample(values, (measure.percent,))
    value = float(np.percentile(np.concatenate(values), measure.percent))
    return value, len(turns), None if replicates is None else replicates[:, 0]
