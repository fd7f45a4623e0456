"""Two runs side by side: the second one's figures as ratios to the first one's, and how sure the ratios are.

The two are resampled independently of each other, each by whole conversations; a ratio's interval is the middle 95 % of the
resamples' ratios. An interval that holds 1 says that the two cannot be told apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loadtest.errors import ReportError
from loadtest.figures.confidence import Floats, interval, resample
from loadtest.figures.distribution import Measure, by_conversation, itl_ms
from loadtest.figures.document import Interval, Report, Stage
from loadtest.figures.turn_result import TurnResult

Verdict = Literal["lower", "higher", "not told apart", "unsure"]

_MEASURES: tuple[tuple[str, Measure, tuple[float, ...]], ...] = (
    ("TTFT", lambda turn: turn.ttft_ms, (50.0, 90.0, 99.0)),
    ("TTFB", lambda turn: turn.ttfb_ms, (50.0,)),
    ("ITL", itl_ms, (50.0, 99.0)),
    ("TPOT", lambda turn: turn.tpot_ms, (50.0,)),
    ("end to end", lambda turn: turn.e2e_ms, (50.0, 99.0)),
)
_RATES = ("turns_per_s", "output_tokens_per_s", "goodput_per_s")
_SHARES = ("cached_share", "error_rate", "refusal_rate", "good_share")


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of both runs. `ratio` is B to A; null where A is 0 or one of them has none."""

    name: str
    unit: Literal["ms", "per_s", "share"]
    a: float | None
    b: float | None
    ratio_ci: Interval | None = None

    @property
    def ratio(self) -> float | None:
        return None if not self.a or self.b is None else self.b / self.a

    @property
    def verdict(self) -> Verdict:
        if self.ratio_ci is None:
            return "unsure"
        if self.ratio_ci.low <= 1 <= self.ratio_ci.high:
            return "not told apart"
        return "lower" if self.ratio_ci.high < 1 else "higher"


@dataclass(frozen=True, slots=True)
class StageComparison:
    name: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    stages: tuple[StageComparison, ...]
    differences: tuple[str, ...]
    """In what was asked for or where it was measured: what may explain a ratio besides the servers."""
    warnings: tuple[str, ...]
    """Of the runs themselves."""


def compare_reports(a: Report, b: Report) -> Comparison:
    """Stages are held together by their names; single stages in any case. Raises `ReportError` when none match."""
    pairs = [(one, other) for one in a.stages for other in b.stages if one.name == other.name]
    if len(a.stages) == len(b.stages) == 1:
        pairs = [(a.stages[0], b.stages[0])]
    if not pairs:
        names = [", ".join(stage.name for stage in report.stages) or "none" for report in (a, b)]
        raise ReportError(
            f"The two reports have no stage in common: {names[0]} against {names[1]}. Compare runs of the same load."
        )
    return Comparison(
        stages=tuple(StageComparison(one.name, tuple(_lines(one, other))) for one, other in pairs),
        differences=tuple(_differences(a, b)),
        warnings=tuple(
            f"{name}, {stage.name}: {warning}"
            for name, stages in zip("AB", zip(*pairs, strict=True), strict=True)
            for stage in stages
            for warning in stage.client.warnings
        ),
    )


def _lines(a: Stage, b: Stage) -> Iterator[Line]:
    turns_a, turns_b = _ok(a), _ok(b)
    for name, measure, percents in _MEASURES:
        yield from _percentile_lines(name, turns_a, turns_b, measure, percents)
    indexes = sorted({turn.turn for turn in turns_a} & {turn.turn for turn in turns_b})
    if len(indexes) > 1:
        for index in indexes:
            here_a, here_b = ([turn for turn in turns if turn.turn == index] for turns in (turns_a, turns_b))
            yield from _percentile_lines(
                f"TTFT turn {index}", here_a, here_b, lambda turn: turn.ttft_ms, (50.0,)
            )
    for name in _RATES:
        yield Line(_words(name), "per_s", getattr(a.summary, name), getattr(b.summary, name))
    for name in _SHARES:
        yield Line(_words(name), "share", getattr(a.summary, name), getattr(b.summary, name))


def _percentile_lines(
    name: str,
    turns_a: Sequence[TurnResult],
    turns_b: Sequence[TurnResult],
    measure: Measure,
    percents: tuple[float, ...],
) -> Iterator[Line]:
    clusters_a, clusters_b = by_conversation(turns_a, measure), by_conversation(turns_b, measure)
    if not clusters_a or not clusters_b:
        return
    found_a, found_b = (
        np.percentile(np.concatenate(clusters), percents) for clusters in (clusters_a, clusters_b)
    )
    # Different seeds: the two runs know nothing of each other.
    resampled_a, resampled_b = resample(clusters_a, percents, seed=1), resample(clusters_b, percents, seed=2)
    for column, percent in enumerate(percents):
        yield Line(
            f"{name} p{percent:g}",
            "ms",
            float(found_a[column]),
            float(found_b[column]),
            _ratio_interval(resampled_a, resampled_b, column),
        )


def _ratio_interval(a: Floats | None, b: Floats | None, column: int) -> Interval | None:
    if a is None or b is None or not a[:, column].all():
        return None
    return interval(b[:, column] / a[:, column])


def _ok(stage: Stage) -> list[TurnResult]:
    return [turn for turn in stage.turns if turn.outcome == "ok" and not turn.warmup]


def _differences(a: Report, b: Report) -> Iterator[str]:
    for part in ("config", "conditions"):
        ours, theirs = getattr(a, part), getattr(b, part)
        for field in ours.__struct_fields__:
            if (one := getattr(ours, field)) != (other := getattr(theirs, field)):
                yield f"{field}: {one} against {other}"


def _words(name: str) -> str:
    return name.replace("_per_s", "/s").replace("_", " ")
