"""Plans, clients and turn results as tests want them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from loadtest.client.client import Client
from loadtest.client.clock import Clock
from loadtest.figures.document import Conditions, Config, Lateness, Report, Stage
from loadtest.figures.summary import histograms_of, summarise
from loadtest.figures.turn_result import TurnResult
from loadtest.plan import Plan, Share
from loadtest.workload.conversation import Conversation, Message, UserTurn


def conversation(*questions: str, name: str = "c", preamble: tuple[Message, ...] = ()) -> Conversation:
    return Conversation(name, tuple(map(UserTurn, questions)), preamble)


def make_share(url: str, *conversations: Conversation, api_key: str | None = None, **plan: Any) -> Share:
    return Share(
        plan=Plan(url=url, model="m", conversations=conversations, **plan),
        process=0,
        processes=1,
        ips=("127.0.0.1",),
        api_key=api_key,
    )


@dataclass(slots=True)
class Held:
    client: Client
    clock: Clock
    share: Share
    turns: list[TurnResult] = field(default_factory=list)


@asynccontextmanager
async def a_client(
    url: str, *conversations: Conversation, api_key: str | None = None, **plan: Any
) -> AsyncIterator[Held]:
    """A client in this loop, with what it measured."""
    clock = Clock()
    share = make_share(url, *conversations, api_key=api_key, **plan)
    turns: list[TurnResult] = []
    client = Client(share, clock, turns.append)
    client.begun_at = perf_counter()
    try:
        yield Held(client, clock, share, turns)
    finally:
        await client.prewarm.close()
        client.connections.close()
        clock.close()


async def ask(
    url: str, *conversations: Conversation, api_key: str | None = None, **plan: Any
) -> list[TurnResult]:
    """The turns of conversations held one after the other, each due when the one before is over."""
    async with a_client(url, api_key=api_key, **plan) as held:
        for number, one in enumerate(conversations or [conversation("q")]):
            await held.client.hold(one, number, perf_counter())
    return held.turns


async def ask_one(url: str, **options: Any) -> TurnResult:
    (turn,) = await ask(url, **options)
    return turn


def turn(number: int = 1, ttft_ms: float | None = 100.0, **fields: Any) -> TurnResult:
    values: dict[str, Any] = {
        "conversation_id": "c", "holding": 0, "turn": number, "request_id": "r", "warmup": False, "outcome": "ok",
        "status": 200, "detail": None, "due_s": 0.0, "held_ms": 0.0, "late_ms": 0.0, "connect_ms": None,
        "ttfb_ms": 5.0, "ttft_ms": ttft_ms, "itl_us": (10_000, 20_000), "e2e_ms": 200.0, "output_tokens": 3,
        "output_tokens_from": "usage", "finish_reason": "stop", "prompt_tokens": None, "cached_tokens": None,
        "server": None,
    }  # fmt: skip
    return TurnResult(**(values | fields))


LATENESS = Lateness(
    processes=1, late_ms=None, held_ms=None, loop_lag_ms=None, stamped_by="reader", read_lag_ms=None, cpu_share=0.1, cpu_us_per_event=None,
    stolen_share=None, busy_poll=False, warnings=(),
)  # fmt: skip


def make_stage(turns: Iterable[TurnResult], name: str = "1 at a time", **fields: Any) -> Stage:
    listed = tuple(turns)
    values: dict[str, Any] = {
        "name": name, "loop": "closed", "rate_per_s": None, "concurrency": 1,
        "summary": summarise(listed, duration_s=2.0, not_sent=0, goodput=None), "client": LATENESS, "verdicts": (),
        "histograms": histograms_of(listed), "turns": listed,
    }  # fmt: skip
    return Stage(**(values | fields))


def make_report(*stages: Stage, **config: Any) -> Report:
    values: dict[str, Any] = {
        "url": "http://h/v1", "model": "m", "workload": "w.txt", "conversations": 1, "arrivals": "closed",
        "burstiness": None, "popularity": None, "think": None, "type_ahead": None, "max_tokens": None,
        "timeout_s": 300.0, "slo": None, "goodput": None, "seed": 0,
    }  # fmt: skip
    return Report(
        schema="firstword-bench/2",
        created="2026-03-14T15:09:26+00:00",
        command="firstword bench run w.txt",
        interrupted=False,
        config=Config(**(values | config)),
        conditions=Conditions(tool="firstword 0.1.0", python="3.11", machine="some CPU", system="Linux"),
        stages=stages,
    )
