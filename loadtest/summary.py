"""What a run amounts to: its turns as distributions, and the JSON document that keeps both.

Percentiles are exact, from every sample, linear between the two closest ranks (Hyndman and Fan's type 7, NumPy's
default). Only measured turns that ended `ok` have latencies; the others are counted by kind, and none is dropped unsaid.
Warm-up turns are in the document, marked, and in no figure.

The document (`schema` says which version): `Report` with its parts, field for field; durations in milliseconds end in
`_ms`, in seconds in `_s`; null where there is nothing to say.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from loadtest.measure import OUTCOMES, Outcome, TurnResult
from loadtest.run import Run

SCHEMA = "firstword-bench/1"


class Distribution(msgspec.Struct, frozen=True):
    """Of `n` samples, at least one."""

    n: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float


class TurnIndex(msgspec.Struct, frozen=True):
    """All turns with the same place in their conversation."""

    turn: int
    ttft_ms: Distribution | None
    cached_share: float | None
    """Of the prompt tokens, from the prefix cache; over the turns whose server said so."""


class ErrorKind(msgspec.Struct, frozen=True):
    outcome: Outcome
    status: int | None
    count: int
    example: str


class Config(msgspec.Struct, frozen=True):
    url: str
    model: str | None
    workload: str
    loop: str
    concurrency: int
    conversations: int
    warmup_conversations: int
    max_tokens: int | None
    timeout_s: float


class Summary(msgspec.Struct, frozen=True):
    duration_s: float
    """Of the measured phase."""
    turns: int
    """Measured turns that were sent: `ok` and `failed`."""
    ok: int
    failed: int
    not_sent: int
    """Turns that a failed turn before them, or an interruption, left unsent."""
    without_token: int
    """Turns that ended `ok` with no token at all, and so have no TTFT."""
    warmup_turns: int
    warmup_failed: int
    errors: tuple[ErrorKind, ...]
    ttft_ms: Distribution | None
    ttft_by_turn: tuple[TurnIndex, ...]
    ttfb_ms: Distribution | None
    itl_ms: Distribution | None
    e2e_ms: Distribution | None
    server_ttft_ms: Distribution | None
    client_minus_server_ttft_ms: Distribution | None
    cached_share: float | None
    output_tokens: int
    output_tokens_per_s: float | None
    """All output tokens of the `ok` turns over the duration of the measured phase."""
    turns_counting_deltas: int
    """Turns whose tokens were counted by their deltas, because the server sent no usage."""


class Report(msgspec.Struct, frozen=True):
    schema: str
    created: str
    """UTC, for people."""
    interrupted: bool
    config: Config
    summary: Summary
    turns: tuple[TurnResult, ...]


def percentile(ordered: Sequence[float], q: float) -> float:
    """The value below which the share `q` (0 to 1) of the samples lies; `ordered` ascends and is not empty."""
    rank = q * (len(ordered) - 1)
    low = math.floor(rank)
    high = math.ceil(rank)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def distribution(samples: Iterable[float | None]) -> Distribution | None:
    """Of the samples that are not None; None if there are none."""
    ordered = sorted(sample for sample in samples if sample is not None)
    if not ordered:
        return None
    return Distribution(
        n=len(ordered),
        mean=math.fsum(ordered) / len(ordered),
        p50=percentile(ordered, 0.50),
        p90=percentile(ordered, 0.90),
        p99=percentile(ordered, 0.99),
        max=ordered[-1],
    )


def report_of(run: Run) -> Report:
    plan = run.plan
    return Report(
        schema=SCHEMA,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        interrupted=not run.finished,
        config=Config(
            url=plan.url,
            model=run.model,
            workload=plan.workload,
            loop="closed",
            concurrency=plan.concurrency,
            conversations=len(plan.measured),
            warmup_conversations=len(plan.warmup),
            max_tokens=plan.max_tokens,
            timeout_s=plan.timeout_s,
        ),
        summary=summarise(run.turns, planned=plan.measured_turns, duration_s=run.duration_s),
        turns=tuple(run.turns),
    )


def summarise(results: Sequence[TurnResult], *, planned: int, duration_s: float) -> Summary:
    """`planned` is how many measured turns the workload held."""
    warmup = [turn for turn in results if turn.warmup]
    measured = [turn for turn in results if not turn.warmup]
    ok = [turn for turn in measured if turn.outcome == "ok"]
    tokens = sum(turn.output_tokens for turn in ok)
    return Summary(
        duration_s=duration_s,
        turns=len(measured),
        ok=len(ok),
        failed=len(measured) - len(ok),
        not_sent=planned - len(measured),
        without_token=sum(turn.ttft_ms is None for turn in ok),
        warmup_turns=len(warmup),
        warmup_failed=sum(turn.outcome != "ok" for turn in warmup),
        errors=_errors(measured),
        ttft_ms=distribution(turn.ttft_ms for turn in ok),
        ttft_by_turn=_by_turn(ok),
        ttfb_ms=distribution(turn.ttfb_ms for turn in ok),
        itl_ms=distribution(gap for turn in ok for gap in turn.itl_ms),
        e2e_ms=distribution(turn.e2e_ms for turn in ok),
        server_ttft_ms=distribution(turn.server_ttft_ms for turn in ok),
        client_minus_server_ttft_ms=distribution(turn.client_minus_server_ttft_ms for turn in ok),
        cached_share=_cached_share(ok),
        output_tokens=tokens,
        output_tokens_per_s=tokens / duration_s if duration_s > 0 else None,
        turns_counting_deltas=sum(turn.output_tokens_from == "deltas" for turn in ok),
    )


def _by_turn(ok: Sequence[TurnResult]) -> tuple[TurnIndex, ...]:
    by_index: dict[int, list[TurnResult]] = {}
    for turn in ok:
        by_index.setdefault(turn.turn, []).append(turn)
    return tuple(
        TurnIndex(index, distribution(turn.ttft_ms for turn in turns), _cached_share(turns))
        for index, turns in sorted(by_index.items())
    )


def _cached_share(turns: Iterable[TurnResult]) -> float | None:
    prompt = cached = 0
    for turn in turns:
        if turn.prompt_tokens is not None and turn.cached_tokens is not None:
            prompt += turn.prompt_tokens
            cached += turn.cached_tokens
    return cached / prompt if prompt else None


def _errors(measured: Sequence[TurnResult]) -> tuple[ErrorKind, ...]:
    failed = [turn for turn in measured if turn.outcome != "ok"]
    counts = Counter((turn.outcome, turn.status) for turn in failed)
    examples = {(turn.outcome, turn.status): turn.detail or "" for turn in reversed(failed)}
    ordered = sorted(counts, key=lambda kind: (OUTCOMES.index(kind[0]), kind[1] or 0))
    return tuple(ErrorKind(*kind, count=counts[kind], example=examples[kind]) for kind in ordered)


def write_json(report: Report, path: Path) -> None:
    """The whole document or, when the disk is full or forbids it (`OSError`), none of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
