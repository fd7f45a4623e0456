"""Clients that leave at any moment of a turn: nothing of it is left, and what had not begun never begins."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from fault.baseline import Leaks, port_of, settled, unhandled, warm_up
from fault.client import FAREWELLS, Connection, Cut
from fault.conftest import Tell
from fault.judge import Truth, judge
from fault.size import TIMEOUT_S, cases, random_of, run_cases
from fault.stage import Part, Stage
from fault.summary import quantiles
from fault.texts import Tokens
from gateways import Gateway, MakeSettings, running
from retrieval.embed.spec import HashingEmbedder
from retrieval.types import Vectors
from server.telemetry.turnlog import TurnRecord
from wire import question

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(TIMEOUT_S)]

SUITE = "disconnects"
_AT_ONCE = 24
_LATEST_S = 1.2
_INTERVAL_MS = 2.0
_BLOCKED_S = 0.05
"""A reader that took nothing for so long, at such an interval, waited for its socket."""

_PHASES = (
    "uploading",
    "queued",
    "retrieving",
    "waiting for prefill",
    "prefilling",
    "decoding",
    "blocked in send",
)
_SHORT: Tokens = [(0, "word ")] * 150
_LOUD: Tokens = [(0, "loud " * 1_000)] * 600
"""Fills every buffer on its way in a few dozen tokens."""


def phase_of(record: TurnRecord, stage: Stage) -> str:
    """Where a turn stood when its client left, by its own record."""
    if "recall" not in record.phases_ms:
        return "queued"
    if "assemble" not in record.phases_ms:
        return "retrieving"
    seen = stage.seen.get(record.turn_id)
    if seen is None:
        return "waiting for prefill"
    if "prefill" not in record.phases_ms:
        return "prefilling"
    return "blocked in send" if seen.longest_silence_s > _BLOCKED_S else "decoding"


@dataclass(slots=True)
class Seats:
    """What the clients know of their leaving."""

    uploading: int = 0
    left: list[tuple[float, Part]] = field(default_factory=list)
    """(when, from what)"""

    def released_ms(self) -> list[float]:
        """How long after its client had left each request was out of the engine."""
        return [
            (part.seen.ended_at - left_at) * 1_000
            for left_at, part in self.left
            if part.seen is not None and part.seen.ended_at is not None and part.seen.ended_at > left_at
        ]


async def leave(number: int, gateway: Gateway, stage: Stage, seats: Seats) -> None:
    source = random_of(SUITE, number)
    tokens = _LOUD if source.random() < 0.2 else _SHORT
    part = stage.parts[number] = Part([tokens])
    is_blocked = tokens is _LOUD
    farewell = source.choice(FAREWELLS)
    stays_s = source.uniform(0, _LATEST_S)
    connection = await Connection.open(port_of(gateway), receive_buffer_bytes=2_048 if is_blocked else None)
    # Unlike in all else, so that the prefix cache saves nothing.
    words = " ".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=40))
    stream = is_blocked or source.random() < 0.8
    body = question(f"{words} case {number}", stream=stream, max_tokens=1_000)
    share = source.uniform(0.1, 0.99) if source.random() < 0.05 else 1.0
    seats.uploading += share < 1
    leave_at = time.monotonic() + stays_s
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + stays_s):
            await connection.send(body, share=share)
            if not is_blocked:
                await connection.read()
    except (TimeoutError, Cut):
        pass
    await asyncio.sleep(max(0.0, leave_at - time.monotonic()))
    seats.left.append((time.monotonic(), part))
    connection.leave(farewell)
    if farewell == "half_close" and not is_blocked and share == 1:
        await read_on(connection, tokens)
    connection.leave()


async def read_on(connection: Connection, tokens: Tokens) -> None:
    """Whoever only says that it will send no more may be cut off, and is told nothing untrue."""
    reader = connection.reader
    try:
        async with asyncio.timeout(10):
            await connection.read()
    except Cut:
        assert not reader.response.complete
    text = "".join(piece for _, piece in tokens)
    if reader.response.status == 200:
        judge(reader.response, Truth([text], ["stop"], len(tokens)))


async def test_a_client_that_leaves_takes_all_of_its_turn_with_it(
    make_settings: MakeSettings, stage: Stage, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = HashingEmbedder.embed

    def embed_slowly(self: HashingEmbedder, texts: Sequence[str]) -> Vectors:
        time.sleep(0.02)
        return embed(self, texts)

    monkeypatch.setattr(HashingEmbedder, "embed", embed_slowly)
    settings = make_settings(
        admission__max_running_turns=8,
        admission__max_queued_turns=1_000,
        admission__max_prefill_tokens=128,
        http__send_timeout_s=60,
        **{
            "engine.simulated.prefill_tokens_per_s": 1_500.0,
            "engine.simulated.token_interval_ms": _INTERVAL_MS,
        },
    )
    seats = Seats()
    numbers = cases(SUITE, ci=200, full=1_000)
    async with running(settings) as gateway:
        await warm_up(gateway, question("hello", stream=True, max_tokens=1))
        await asyncio.to_thread(gateway.parts.turn_log.flush)
        n_before = len(gateway.parts.turn_log.latest("anonymous", 10_000))
        leaks = Leaks()
        with unhandled() as told:
            await run_cases(SUITE, numbers, lambda number: leave(number, gateway, stage, seats), _AT_ONCE)
            await settled(gateway)
            await leaks.none()
        assert not told
        await asyncio.to_thread(gateway.parts.turn_log.flush)
        records = gateway.parts.turn_log.latest("anonymous", 10_000)[:-n_before]
    assert not any(seen.still_runs for seen in stage.seen.values())
    counts = Counter({"uploading": seats.uploading})
    for record in records:
        assert record.outcome in ("disconnected", "finished"), record
        phase = phase_of(record, stage) if record.outcome == "disconnected" else "finished before it left"
        counts[phase] += 1
        if phase in ("queued", "retrieving", "waiting for prefill"):
            assert record.turn_id not in stage.seen
            assert record.completion_tokens == 0
    if len(numbers) >= 200:
        assert all(counts[phase] for phase in _PHASES), counts
    figures = {phase: counts[phase] for phase in (*_PHASES, "finished before it left")}
    tell("Clients that left, by phase", figures)
    tell("From the client's leaving until the engine was rid of its request", quantiles(seats.released_ms()))
