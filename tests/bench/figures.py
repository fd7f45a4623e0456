"""From raw turns to figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from bench.answer import Answer, Turn, read_answer
from bench.cpu import Sample
from bench.plan import Figures, Plan, Spread, Window

_PACE_TOLERANCE = 0.05
"""A gateway that sends more than the source's rate is still working off what it had not sent before."""

Floats = npt.NDArray[np.float64]


def figures_of(plan: Plan, turns: Sequence[Sequence[Turn]], samples: Sequence[Sample]) -> Figures:
    """`turns` by connection; turns that never began count as faults."""
    streams = [[read_answer(turn) for turn in connection] for connection in turns]
    answers = list(chain.from_iterable(streams))
    planned = sum(len(bodies) for bodies in plan.bodies)
    faults = Counter(fault for answer in answers if (fault := answer.fault(plan.tokens)) is not None)
    if planned > len(answers):
        faults["never sent"] = planned - len(answers)
    times = [np.asarray(answer.frame_times) for answer in answers]
    frames = sum(map(len, times))
    tokens = sum(_tokens(answer) for answer in answers)
    last_at = max((float(one[-1]) for one in times if one.size), default=0.0)
    tokens_per_frame = tokens / frames if frames else 0.0
    steady = window_of(times, _steady_stretch(streams, samples), tokens_per_frame)
    if (
        steady is not None
        and abs(steady.tokens_per_s * plan.interval_s / len(plan.bodies) - 1) > _PACE_TOLERANCE
    ):
        steady = None
    return Figures(
        turns=planned,
        complete=planned - faults.total(),
        faults=dict(faults),
        tokens=tokens,
        frames=frames,
        merged_frames=sum(int(np.count_nonzero(np.diff(one) == 0)) for one in times),
        wall_s=last_at - min(answer.sent_at for answer in answers) if frames else 0.0,
        ttft_ms=spread_ms(ttft for answer in answers if (ttft := answer.ttft_s) is not None),
        whole=window_of(times, _all_along(last_at, samples), tokens_per_frame),
        steady=steady,
    )


def spread_ms(seconds: Iterable[float]) -> Spread | None:
    values: Floats = np.fromiter(seconds, dtype=np.float64) * 1_000
    if not values.size:
        return None
    p50, p90, p99, top = np.percentile(values, [50, 90, 99, 100])
    return Spread(values.size, float(p50), float(p90), float(p99), float(top))


def window_of(times: Sequence[Floats], inside: Sequence[Sample], tokens_per_frame: float) -> Window | None:
    """The frames between the first sample and the last, and the CPU time of exactly the same stretch.

    A gap belongs to the window in which it ends. None without two samples or without a gap.
    """
    if len(inside) < 2:
        return None
    first, last = inside[0], inside[-1]
    within = [(one > first.at) & (one <= last.at) for one in times]
    itl_ms = spread_ms(
        chain.from_iterable(np.diff(one)[held[1:]] for one, held in zip(times, within, strict=True))
    )
    if itl_ms is None:
        return None
    wall_s = last.at - first.at
    tokens = sum(int(np.count_nonzero(held)) for held in within) * tokens_per_frame
    cpu_s = {part: last.cpu_s[part] - first.cpu_s[part] for part in first.cpu_s}
    return Window(
        wall_s=wall_s,
        tokens=tokens,
        tokens_per_s=tokens / wall_s,
        itl_ms=itl_ms,
        cpu_us_per_token={part: spent / tokens * 1e6 for part, spent in cpu_s.items()},
        cpu_share={part: spent / wall_s for part, spent in cpu_s.items()},
    )


def _tokens(answer: Answer) -> int:
    return len(answer.frame_times) if answer.tokens is None else answer.tokens


def _steady_stretch(streams: Sequence[Sequence[Answer]], samples: Sequence[Sample]) -> list[Sample]:
    begun = [answers[0].frame_times[0] for answers in streams if answers and answers[0].frame_times]
    ended = [answers[-1].frame_times[-1] for answers in streams if answers and answers[-1].frame_times]
    if len(begun) < len(streams) or len(ended) < len(streams):
        return []
    last_begun, first_ended = max(begun), min(ended)
    return [sample for sample in samples if (last_begun + first_ended) / 2 <= sample.at <= first_ended]


def _all_along(last_at: float, samples: Sequence[Sample]) -> list[Sample]:
    """From the first sample, taken before anything was sent, to the first after the last frame."""
    return list(samples[: sum(sample.at < last_at for sample in samples) + 1])
