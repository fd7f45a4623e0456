"""One run: find the model, warm up, measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from loadtest.arrivals import closed_loop
from loadtest.client import Client, Target, find_model, open_client
from loadtest.measure import TurnResult
from loadtest.workload import Conversation


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. Warm-up conversations are others than the measured ones, so that they leave no cache behind for them."""

    url: str
    model: str | None
    api_key: str | None = field(repr=False)
    workload: str
    warmup: Sequence[Conversation]
    measured: Sequence[Conversation]
    concurrency: int
    max_tokens: int | None
    timeout_s: float

    @property
    def measured_turns(self) -> int:
        return sum(len(conversation.turns) for conversation in self.measured)

    @property
    def warmup_turns(self) -> int:
        return sum(len(conversation.turns) for conversation in self.warmup)


@dataclass(slots=True)
class Run:
    """What has happened so far; complete, and readable at any moment, also after an interruption."""

    plan: Plan
    model: str | None = None
    turns: list[TurnResult] = field(default_factory=list)
    """Warm-up turns too, marked as such."""
    began: float | None = None
    """When the measured phase began, `perf_counter` seconds; None before it."""
    ended: float | None = None
    finished: bool = False

    @property
    def duration_s(self) -> float:
        """Of the measured phase."""
        if self.began is None or self.ended is None:
            return 0.0
        return self.ended - self.began


async def execute(run: Run, on_turn: Callable[[TurnResult], None]) -> None:
    """Fill `run`. Raises `TargetError` if the target does not answer at all; failed turns are results."""
    plan = run.plan

    def record(result: TurnResult) -> None:
        run.turns.append(result)
        on_turn(result)

    async with open_client(plan.url, plan.api_key) as http:
        run.model = await find_model(http, plan.url, plan.model, plan.timeout_s)
        target = Target(plan.url, run.model, plan.api_key, plan.max_tokens, plan.timeout_s)
        if plan.warmup:
            await closed_loop(
                Client(http, target, perf_counter(), True), plan.warmup, plan.concurrency, record
            )
        run.began = perf_counter()
        try:
            await closed_loop(Client(http, target, run.began, False), plan.measured, plan.concurrency, record)
            run.finished = True
        finally:
            run.ended = perf_counter()
