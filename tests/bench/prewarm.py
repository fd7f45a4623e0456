"""`python -m bench.prewarm`: what type-ahead costs those who do not use it.

Turns arrive at random, each a question of its own, at several shares of what the simulated engine can take; beside
them either nobody types, or many users whose questions are prefilled and then not sent, which is the worst case.
Both in turn (A B B A), the gateway on one core and the client on another. About four minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import numpy as np

from bench.conditions import conditions
from bench.gateway import cores
from bench.process import end_in_order
from bench.report import Lines, Sheet, keep, open_console, show
from bench.watched import PREFILL_TOKENS_PER_S, SLOTS, TOKEN_INTERVAL_MS, Seen, Server, serving
from server.settings import PROJECT_ROOT

TOP_K = 4
ANSWER_TOKENS = 64
PROMPT_TOKENS = 800
"""About: a first turn's, computed whole."""
QUESTION_WORDS = 14
CALL_EVERY_S = 1.0
"""What the chat page does while somebody types on."""
WORDS_PER_CALL = 1
WARM_UP_S = 2.0
ORDER = (False, True, True, False)


@dataclass(slots=True)
class Phase:
    """Some seconds of load."""

    share: float
    rate_per_s: float
    typing: bool
    ttft_ms: list[float] = field(default_factory=list)
    """As the client measures it."""
    failed: int = 0
    calls: Counter[int] = field(default_factory=Counter)
    """Of type-ahead, by status."""
    seen: Seen | None = None


def capacity_per_s(slowdown: float) -> float:
    """Turns that the engine's slots can take."""
    return (
        SLOTS / slowdown / (PROMPT_TOKENS / PREFILL_TOKENS_PER_S + ANSWER_TOKENS * TOKEN_INTERVAL_MS / 1_000)
    )


# The load


class Load:
    """Two loads of equal `arrivals` have their turns at the same times; of equal `questions`, the same words."""

    def __init__(self, client: httpx.AsyncClient, words: list[str], arrivals: int, questions: int) -> None:
        self._client = client
        self._words = words
        self._arrivals = random.Random(arrivals)
        self._random = random.Random(questions)

    async def run(self, phase: Phase, seconds: float, typists: int) -> None:
        stop_at = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            for _ in range(typists if phase.typing else 0):
                tasks.create_task(self._type(phase, stop_at))
            began = time.monotonic()
            next_at = began
            while (next_at := next_at + self._arrivals.expovariate(phase.rate_per_s)) < stop_at:
                await asyncio.sleep(next_at - time.monotonic())
                counts = next_at > began + WARM_UP_S
                tasks.create_task(self._turn(phase, counts=counts))

    async def _turn(self, phase: Phase, *, counts: bool) -> None:
        body = {
            "messages": [{"role": "user", "content": " ".join(self._question())}],
            "stream": True,
            "max_tokens": ANSWER_TOKENS,
            "ignore_eos": True,
        }
        ttft_ms: float | None = None
        sent_at = time.perf_counter()
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if ttft_ms is None and '"delta":{"content":"' in line:
                    ttft_ms = (time.perf_counter() - sent_at) * 1_000
        if counts and ttft_ms is not None:
            phase.ttft_ms.append(ttft_ms)
        phase.failed += ttft_ms is None

    async def _type(self, phase: Phase, stop_at: float) -> None:
        await asyncio.sleep(self._random.uniform(0, CALL_EVERY_S))
        while time.monotonic() < stop_at:
            question = self._question()
            for n_words in range(1, len(question) + 1, WORDS_PER_CALL):
                if time.monotonic() > stop_at:
                    return
                messages = [{"role": "user", "content": " ".join(question[:n_words])}]
                response = await self._client.post("/v1/chat/prewarm", json={"messages": messages})
                phase.calls[response.status_code] += 1
                await asyncio.sleep(CALL_EVERY_S)

    def _question(self) -> list[str]:
        return self._random.choices(self._words, k=QUESTION_WORDS)


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[httpx.AsyncClient]:
    # Kept shorter than the server keeps them: one that is closed while it is taken up again would be a failed turn.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=2)
    async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False, limits=limits) as client:
        yield client


async def measure(
    server: Server, rates_per_s: dict[float, float], seconds: float, typists: int
) -> list[Phase]:
    """`rates_per_s`: by share of capacity."""
    handbook = " ".join(path.read_text() for path in sorted((PROJECT_ROOT / "docs").glob("*.md")))
    words = sorted({word for word in handbook.split() if word.isalpha() and len(word) > 3})
    phases: list[Phase] = []
    async with client_of(server.url) as client:
        for share, rate_per_s in rates_per_s.items():
            for typing in ORDER:
                phase = Phase(share, rate_per_s, typing)
                server.seen()
                # No question twice: what was computed for one phase would be ready for the next.
                n_before = len(phases)
                load = Load(client, words, arrivals=n_before // 2, questions=n_before)
                await load.run(phase, seconds, typists)
                phase.seen = server.seen()
                phases.append(phase)
    return phases


# The figures


def sheets(phases: list[Phase], shares: list[float]) -> list[Sheet]:
    ttft: Lines = []
    calls: Lines = []
    for share in shares:
        p99 = {}
        for typing in (False, True):
            mine = [phase for phase in phases if (phase.share, phase.typing) == (share, typing)]
            times = [ms for phase in mine for ms in phase.ttft_ms]
            p50, p99[typing] = np.percentile(times, [50, 99])
            each = ", ".join(f"{np.percentile(phase.ttft_ms, 99):.0f}" for phase in mine)
            failed = sum(phase.failed for phase in mine)
            ratio = f"{p99[True] / p99[False]:.2f}" if typing else ""
            who = "others type" if typing else "nobody types"
            row = (f"{len(times)}", f"{failed}", f"{p50:.1f}", f"{p99[typing]:.1f}", each, ratio)
            ttft.append((f"{share:.0%} of capacity, {who}", *row))
            if typing:
                calls.append(_calls_line(share, mine))
    return [
        Sheet(
            "time to first token of turns that do not use type-ahead, ms",
            ("load", "turns", "failed", "p50", "p99", "p99 of each run", "p99 to p99"),
            ttft,
        ),
        Sheet(
            "type-ahead calls of others",
            ("load", "calls", "not 202", "reached the engine", "while a turn waited", "outcomes"),
            calls,
        ),
    ]


def _calls_line(share: float, phases: list[Phase]) -> tuple[str, ...]:
    calls: Counter[int] = Counter()
    outcomes: Counter[str] = Counter()
    reached = while_queued = 0
    for phase in phases:
        assert phase.seen is not None
        calls += phase.calls
        outcomes.update(phase.seen.outcomes)
        reached += phase.seen.prewarms
        while_queued += phase.seen.while_queued
    told = ", ".join(f"{outcome} {count:,}" for outcome, count in outcomes.most_common())
    refused = calls.total() - calls[202]
    return (
        f"{share:.0%} of capacity",
        f"{calls.total():,}",
        f"{refused}",
        f"{reached:,}",
        f"{while_queued}",
        told,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.prewarm", description=__doc__)
    parser.add_argument("--seconds", type=float, default=25, help="of each of the runs (default: 25)")
    parser.add_argument("--typists", type=int, default=20, help="users who type at a time (default: 20)")
    parser.add_argument(
        "--slowdown", type=float, default=1, help="of the engine and the load, on a busy machine (default: 1)"
    )
    parser.add_argument("--unpinned", action="store_true", help="leave the choice of cores to the machine")
    parser.add_argument("--share", type=float, action="append", help="of capacity (default: 0.4 and 0.7)")
    arguments = parser.parse_args()
    end_in_order()
    shares = arguments.share or [0.4, 0.7]
    capacity = capacity_per_s(arguments.slowdown)
    before = conditions() | {
        "typists": arguments.typists,
        "seconds": arguments.seconds,
        "slowdown": arguments.slowdown,
        "pinned": not arguments.unpinned,
        "capacity_turns_per_s": round(capacity, 1),
    }
    with serving(TOP_K, arguments.slowdown) as server:
        if not arguments.unpinned:
            os.sched_setaffinity(server.pid, cores().gateway)
            os.sched_setaffinity(0, cores().client)
        rates_per_s = {share: share * capacity for share in shares}
        phases = asyncio.run(measure(server, rates_per_s, arguments.seconds, arguments.typists))
    found = sheets(phases, shares)
    show(open_console(), found, before)
    keep("prewarm", found, before)


if __name__ == "__main__":
    main()
