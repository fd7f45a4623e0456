"""Prometheus metrics, in a registry of their own: nothing is process-wide, so tests can run many servers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from server.telemetry.timing import PHASES
from server.telemetry.turnlog import Compaction, Outcome, TurnRecord

Prewarmed = Literal["finished", "ready", "superseded", "dropped", "failed", "used"]
"""`ready`: there was nothing left to compute; `used`: a turn went on from it."""

_LATENCY_BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0
)  # fmt: skip


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._ttft = Histogram(
            "firstword_ttft_seconds",
            "Time to first token: from the request's arrival to the first text handed to the socket",
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._phase = Histogram(
            "firstword_phase_seconds",
            "The consecutive phases of time to first token",
            ["phase"],
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._inter_token = Histogram(
            "firstword_inter_token_seconds",
            "Gaps between the tokens of one answer",
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._prompt_tokens = Counter(
            "firstword_prompt_tokens",
            "Prompt tokens, by whether the prefix cache held them or they were computed",
            ["source"],
            registry=self.registry,
        )
        self._plain_computed_tokens = Counter(
            "firstword_plain_computed_tokens",
            "Prompt tokens that the usual layout, passages in the system message, would have had the engine compute",
            registry=self.registry,
        )
        self._compactions = Counter(
            "firstword_compactions",
            "Prompts that shed older parts, by why: full, cold, typing, worth",
            ["why"],
            registry=self.registry,
        )
        self._prewarms = Counter(
            "firstword_prewarms",
            "Calls to prefill ahead of a message, by what became of them",
            ["outcome"],
            registry=self.registry,
        )
        self._prewarmed_tokens = Counter(
            "firstword_prewarmed_tokens",
            "Prompt tokens computed ahead of a message",
            registry=self.registry,
        )
        self._generated_tokens = Counter(
            "firstword_generated_tokens", "Tokens of answers", registry=self.registry
        )
        self._error_responses = Counter(
            "firstword_error_responses",
            "Responses with an error status, by the error's code: refused requests never become turns",
            ["code"],
            registry=self.registry,
        )
        self._turns = Counter(
            "firstword_turns", "Turns by how they ended", ["outcome"], registry=self.registry
        )

        # `labels` takes a lock and a lookup each time: those that every turn needs are looked up once.
        for why in get_args(Compaction):
            self._compactions.labels(why)
        for prewarmed in get_args(Prewarmed):
            self._prewarms.labels(prewarmed)
        self._turns_that = {outcome: self._turns.labels(outcome) for outcome in get_args(Outcome)}
        self._phase_of = {phase: self._phase.labels(phase) for phase in PHASES}
        self._cached_tokens = self._prompt_tokens.labels("cached")
        self._computed_tokens = self._prompt_tokens.labels("computed")

    def observe(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(name, documentation, registry=self.registry).set_function(read)

    def observe_count(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """A counter that is kept elsewhere."""
        self.registry.register(_CounterReader(name, documentation, read))

    def observe_counts(
        self, name: str, documentation: str, label: str, read: Callable[[], Mapping[str, float]]
    ) -> None:
        """A counter with one label that is kept elsewhere."""
        self.registry.register(_CountersReader(name, documentation, label, read))

    def count_error(self, code: str) -> None:
        self._error_responses.labels(code).inc()

    def count_prewarm(self, outcome: Prewarmed) -> None:
        self._prewarms.labels(outcome).inc()

    def count_prewarm_tokens(self, tokens: int) -> None:
        self._prewarmed_tokens.inc(tokens)

    def record(self, turn: TurnRecord, token_gaps_s: list[float]) -> None:
        self._turns_that[turn.outcome].inc()
        for phase, milliseconds in turn.phases_ms.items():
            self._phase_of[phase].observe(milliseconds / 1_000)
        if turn.ttft_ms is not None:
            self._ttft.observe(turn.ttft_ms / 1_000)
        if "prefill" in turn.phases_ms:
            self._cached_tokens.inc(turn.cached_tokens)
            self._computed_tokens.inc(turn.prompt_tokens - turn.cached_tokens)
            self._plain_computed_tokens.inc(turn.plain_computed_tokens or 0)
            if turn.compaction is not None:
                self._compactions.labels(turn.compaction).inc()
            if turn.prewarmed:
                self._prewarms.labels("used").inc()
        self._generated_tokens.inc(turn.completion_tokens)
        for gap_s in token_gaps_s:
            self._inter_token.observe(gap_s)

    def render(self) -> bytes:
        return generate_latest(self.registry)


class _CounterReader(Collector):
    def __init__(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        self._name, self._documentation, self._read = name, documentation, read

    def collect(self) -> Iterable[Metric]:
        return [CounterMetricFamily(self._name, self._documentation, value=self._read())]


class _CountersReader(Collector):
    def __init__(
        self, name: str, documentation: str, label: str, read: Callable[[], Mapping[str, float]]
    ) -> None:
        self._name, self._documentation, self._label, self._read = name, documentation, label, read

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._documentation, labels=[self._label])
        for value, count in self._read().items():
            family.add_metric([value], count)
        return [family]
