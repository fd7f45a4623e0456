"""What the target needs of the simulated engine beyond the engines' contract: a known TTFT, and tokens as they come."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

import pytest

from server.engine.protocol import Delta, EngineDead, GenerateRequest, Prefill, Sampling
from server.engine.simulated import Fault, SimulatedEngine
from server.target.options import TargetOptions
from server.target.vocabulary import FourByteVocabulary

pytestmark = pytest.mark.anyio

# Event loops round timers to whole milliseconds.
_TIMER_S = 0.002


@dataclass
class Listed:
    """An inbox that keeps everything, and may withdraw after some tokens."""

    engine: SimulatedEngine
    name: str
    withdraw_after: int = 0
    deltas: list[Delta] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, delta: Delta) -> None:
        self.deltas.append(delta)
        if len(self.deltas) == self.withdraw_after:
            self.engine.withdraw(self.name)
        if delta.finish_reason:
            self.over.set()

    def fail(self, error: Exception) -> None:
        self.errors.append(error)
        self.over.set()

    @property
    def prefill(self) -> Prefill:
        told = self.deltas[0].prefill
        assert told is not None
        return told


def engine_of(
    ttft_ms: float = 30.0, interval_ms: float = 1.0, prefill_tokens_per_s: float = math.inf, slots: int = 64
) -> SimulatedEngine:
    options = TargetOptions(
        ttft_ms=ttft_ms, interval_ms=interval_ms, prefill_tokens_per_s=prefill_tokens_per_s, slots=slots
    )
    return SimulatedEngine(options.engine(), FourByteVocabulary())


def submit(
    engine: SimulatedEngine, name: str, tokens: int = 3, prompt: int = 100, withdraw_after: int = 0
) -> Listed:
    inbox = Listed(engine, name, withdraw_after)
    prompt_ids = [hash((name, position)) for position in range(prompt)]
    engine.submit(GenerateRequest(name, prompt_ids, Sampling(max_tokens=tokens, ignore_eos=True)), inbox)
    return inbox


async def over(*inboxes: Listed) -> None:
    async with asyncio.timeout(10):
        for inbox in inboxes:
            await inbox.over.wait()


async def test_when_prompts_cost_nothing_then_all_wait_for_their_first_token_side_by_side() -> None:
    engine = engine_of()
    inboxes = [submit(engine, f"r{number}") for number in range(20)]
    await over(*inboxes)
    waits = [inbox.prefill.first_token_at - inbox.prefill.scheduled_at for inbox in inboxes]
    assert min(waits) >= 0.030 - _TIMER_S
    last_scheduled = max(inbox.prefill.scheduled_at for inbox in inboxes)
    assert last_scheduled < min(inbox.prefill.first_token_at for inbox in inboxes)


async def test_when_prompts_cost_time_then_they_are_computed_in_turn_and_wait_side_by_side() -> None:
    engine = engine_of(ttft_ms=60, prefill_tokens_per_s=10_000)
    first, second = submit(engine, "a"), submit(engine, "b")
    await over(first, second)
    assert second.prefill.scheduled_at - first.prefill.scheduled_at >= 0.010 - _TIMER_S
    assert second.prefill.scheduled_at < first.prefill.first_token_at
    assert first.prefill.first_token_at - first.prefill.scheduled_at >= 0.070 - 2 * _TIMER_S


async def test_when_all_slots_are_taken_then_the_next_waits_for_a_whole_answer() -> None:
    engine = engine_of(ttft_ms=1, slots=1)
    first, second = submit(engine, "a"), submit(engine, "b")
    await over(first)
    assert not second.deltas
    await over(second)


async def test_when_a_thousand_wait_for_one_slot_then_all_are_answered() -> None:
    engine = engine_of(ttft_ms=0, slots=1)
    inboxes = [submit(engine, f"r{number}", tokens=1, prompt=1) for number in range(1_000)]
    await over(*inboxes)
    assert engine.load.running_requests == engine.load.waiting_requests == 0


async def test_when_a_reader_withdraws_from_within_put_then_nothing_more_comes_and_all_is_free() -> None:
    engine = engine_of(ttft_ms=0)
    inbox = submit(engine, "a", tokens=50, withdraw_after=2)
    other = submit(engine, "b", tokens=50)
    await over(other)
    assert len(inbox.deltas) == 2
    assert not inbox.errors
    assert engine.load.running_requests == 0
    assert engine.load.kv_cache_usage == 0


async def test_when_a_request_ends_while_it_waits_for_its_first_token_then_its_blocks_are_free() -> None:
    engine = engine_of(ttft_ms=10_000)
    inbox = submit(engine, "a")
    assert engine.load.kv_cache_usage > 0
    await engine.abort("a")
    assert engine.load.kv_cache_usage == engine.load.running_requests == 0
    assert len(inbox.errors) == 1


async def test_when_the_engine_stalls_before_the_first_token_then_it_comes_after_the_stall() -> None:
    engine = engine_of(ttft_ms=1)
    engine.faults.append(Fault("stall"))
    inbox = submit(engine, "a")
    await asyncio.sleep(0.02)
    assert not inbox.deltas
    engine.resume()
    await over(inbox)
    assert len(inbox.deltas) == 3


async def test_when_the_engine_is_gone_then_a_request_is_told_at_once() -> None:
    engine = engine_of()
    await engine.close()
    with pytest.raises(EngineDead):
        submit(engine, "a")
