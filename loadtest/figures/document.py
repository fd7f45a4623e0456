"""The document that a bench leaves: its schema, field for field. `firstword-bench/2`, JSON, UTF-8.

Durations in milliseconds end in `_ms`, in seconds in `_s`, in microseconds in `_us`; shares and rates of errors lie in
[0, 1]; null where there is nothing to say. Warm-up turns are in `turns`, marked, and in no figure. Only turns that ended
`ok` have latencies in the figures; the others are counted by kind, and none is left out unsaid.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from loadtest.figures.turn_result import Outcome, TurnResult

SCHEMA = "firstword-bench/2"


class Interval(msgspec.Struct, frozen=True):
    """Where the true value lies with 95 % confidence: bootstrap over whole conversations."""

    low: float
    high: float


class Distribution(msgspec.Struct, frozen=True):
    """Of `n` samples, at least one. Percentiles come from an HdrHistogram: within 0.1 % of the sample's own."""

    n: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float
    p50_ci: Interval | None = None
    """Null with fewer than ten conversations."""
    p99_ci: Interval | None = None


class TurnIndex(msgspec.Struct, frozen=True):
    """All turns with the same place in their conversation."""

    turn: int
    ttft_ms: Distribution | None
    cached_share: float | None
    """Of the prompt tokens, from the prefix cache; over the turns whose server said so."""
    prompt_tokens: float | None
    """Mean."""


class ErrorKind(msgspec.Struct, frozen=True):
    outcome: Outcome
    status: int | None
    count: int
    example: str


class Summary(msgspec.Struct, frozen=True):
    """One stage's measured turns."""

    duration_s: float
    """From the stage's beginning (its warm-up left out) to the end of its last turn."""
    turns: int
    """Measured turns that came to an end: `ok` and `failed`."""
    ok: int
    failed: int
    """Refusals among them."""
    refused: int
    unfinished: int
    """Under way when the run was stopped."""
    not_sent: int
    """Turns that a failed turn before them, or the end of the run, left unsent."""
    without_token: int
    """Turns that ended `ok` with no token at all, and so have no TTFT."""
    warmup_turns: int
    warmup_failed: int
    errors: tuple[ErrorKind, ...]
    error_rate: float
    """`failed` without refusals, of `turns`."""
    refusal_rate: float
    ttft_ms: Distribution | None
    ttft_by_turn: tuple[TurnIndex, ...]
    sent_ttft_ms: Distribution | None
    """TTFT from when the request was sent: what a tool that does not see its own queue would report."""
    ttfb_ms: Distribution | None
    itl_ms: Distribution | None
    tpot_ms: Distribution | None
    e2e_ms: Distribution | None
    server_ttft_ms: Distribution | None
    client_minus_server_ttft_ms: Distribution | None
    """`sent_ttft_ms` less the server's own figure, turn by turn."""
    phases_ms: dict[str, float]
    """Mean of each phase that the server reports, in the server's order; empty when it reports none."""
    cached_share: float | None
    output_tokens: int
    output_tokens_per_s: float | None
    turns_per_s: float | None
    """`ok` turns over `duration_s`."""
    goodput_per_s: float | None
    """Turns per second that met every bound of `--goodput`; null without bounds."""
    good_share: float | None
    """The same, of all measured turns that came to an end: a failed turn is not good."""
    turns_counting_deltas: int
    """Turns whose tokens were counted by their deltas, because the server sent no usage."""


class Lateness(msgspec.Struct, frozen=True):
    """The client's own part. `warnings` is empty when the figures can be trusted."""

    processes: int
    late_ms: Distribution | None
    """How late turns were sent, beyond the wait for a slot."""
    held_ms: Distribution | None
    """How long turns waited for a slot of `--max-concurrency`; null without one."""
    loop_lag_ms: Distribution | None
    """How late a timer of 10 ms came in the measuring processes."""
    stamped_by: Literal["kernel", "reader"]
    """Who took the moments of the bytes: the kernel when they came, or the measuring process when it read them."""
    read_lag_ms: Distribution | None
    """How long bytes waited until they were read; null when stamped by the reader, whose stamps are wrong by that much."""
    busy_poll: bool
    """The measuring processes never slept; their CPU time says nothing then."""
    cpu_share: float
    """Of one core, by the busiest measuring process."""
    cpu_us_per_event: float | None
    """Null with `busy_poll`."""
    stolen_share: float | None
    """Of the machine's CPU time, taken by its host; null where the system does not say."""
    warnings: tuple[str, ...]


class Histograms(msgspec.Struct, frozen=True):
    """HdrHistograms of microseconds, 1 µs to 1 h, three digits, in the base64 form that its libraries in all languages read and add."""

    ttft_us: str
    itl_us: str
    e2e_us: str
    ttft_us_by_turn: dict[str, str]


class Verdict(msgspec.Struct, frozen=True):
    """One bound of `--slo`."""

    bound: str
    """As given: `ttft_p99<500ms`."""
    value: float | None
    """In the bound's own unit; null when nothing was measured, which is a miss."""
    met: bool


class Stage(msgspec.Struct, frozen=True):
    """One load, held for a while. A plain run has one stage, a sweep several."""

    name: str
    loop: Literal["open", "closed"]
    rate_per_s: float | None
    """Offered: conversations begun per second; null in a closed loop."""
    concurrency: int | None
    """Closed loop: conversations held at a time. Open loop: `--max-concurrency`, or null."""
    summary: Summary
    client: Lateness
    verdicts: tuple[Verdict, ...]
    histograms: Histograms
    turns: tuple[TurnResult, ...]
    prewarms: dict[str, int] = {}
    """Type-ahead requests by their status; `0` got no answer."""


class Sweep(msgspec.Struct, frozen=True):
    slo: str
    best_rate_per_s: float | None
    """The highest rate that was tried and met the SLO; null when none did."""
    first_missed_per_s: float | None
    """The lowest rate that was tried and missed it."""


class Config(msgspec.Struct, frozen=True):
    """What was asked for."""

    url: str
    model: str | None
    workload: str
    conversations: int
    """In the workload."""
    arrivals: str
    """`closed`, `constant`, `poisson`, `gamma`, `trace`."""
    burstiness: float | None
    popularity: str | None
    think: str | None
    type_ahead: str | None
    max_tokens: int | None
    timeout_s: float
    slo: str | None
    goodput: str | None
    seed: int
    remarks: tuple[str, ...] = ()
    """What had to be left out of the workload."""


class Conditions(msgspec.Struct, frozen=True):
    """Where and with what it was measured."""

    tool: str
    """`firstword 0.1.0`."""
    python: str
    machine: str
    """Kind of CPU and number of cores."""
    system: str


class Report(msgspec.Struct, frozen=True):
    schema: str
    created: str
    """UTC, for people."""
    command: str
    """Without secrets: no key is ever on it."""
    interrupted: bool
    config: Config
    conditions: Conditions
    stages: tuple[Stage, ...]
    sweep: Sweep | None = None


decode_report = msgspec.json.Decoder(Report).decode
