"""Moments are kept: never early, in order, none lost. How late is for the report to say, not for a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from time import perf_counter

import pytest

from loadtest.client.clock import Clock
from loadtest.client.vitals import Vitals, every

pytestmark = pytest.mark.anyio


@pytest.fixture
async def clock() -> AsyncIterator[Clock]:
    clock = Clock()
    yield clock
    clock.close()


async def test_many_moments_come_in_order_and_none_early(clock: Clock) -> None:
    began = perf_counter()
    moments = [began + (number * 7919 % 1000) * 5e-5 for number in range(1000)]
    called: list[tuple[float, float]] = []

    async def wait(at: float) -> None:
        await clock.until(at)
        assert perf_counter() >= at

    def note(at: float) -> None:
        called.append((at, perf_counter()))

    for at in moments:
        clock.call_at(at, partial(note, at))
    await asyncio.gather(*(wait(at) for at in moments))
    await clock.until(began + 0.06)
    assert [at for at, _ in called] == sorted(moments)
    assert all(now >= at for at, now in called)


async def test_a_moment_of_less_than_a_millisecond_is_kept_too(clock: Clock) -> None:
    for _ in range(50):
        at = perf_counter() + 0.0003
        await clock.until(at)
        assert perf_counter() >= at


async def test_an_earlier_moment_that_is_asked_for_later_comes_first(clock: Clock) -> None:
    called: list[str] = []
    now = perf_counter()
    clock.call_at(now + 0.03, lambda: called.append("later"))
    clock.call_at(now + 0.01, lambda: called.append("earlier"))
    await clock.until(now + 0.04)
    assert called == ["earlier", "later"]


async def test_a_moment_that_has_passed_returns_at_once_and_calls_back(clock: Clock) -> None:
    called = asyncio.Event()
    steps = 0

    async def step() -> None:
        nonlocal steps
        steps += 1

    task = asyncio.create_task(step())
    await clock.until(perf_counter() - 1)
    assert steps == 0, "it did not even yield"
    await task
    clock.call_at(perf_counter() - 1, called.set)
    await asyncio.wait_for(called.wait(), 10)


async def test_a_cancelled_wait_leaves_the_others_alone(clock: Clock) -> None:
    at = perf_counter() + 0.02
    first, second = (asyncio.create_task(clock.until(at)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait_for(second, 10)
    assert first.cancelled()
    assert perf_counter() >= at


async def test_a_callback_may_ask_for_another_moment(clock: Clock) -> None:
    called: list[int] = []
    over = asyncio.Event()

    def again(number: int) -> None:
        called.append(number)
        if number == 20:
            over.set()
        else:
            clock.call_at(perf_counter() + 0.0005, lambda: again(number + 1))

    again(0)
    await asyncio.wait_for(over.wait(), 10)
    assert called == list(range(21))


async def test_when_it_is_closed_then_nothing_is_called() -> None:
    clock = Clock()
    called: list[int] = []
    clock.call_at(perf_counter() + 0.01, lambda: called.append(1))
    clock.close()
    clock.close()
    clock.call_at(perf_counter(), lambda: called.append(2))
    await asyncio.sleep(0.03)
    assert called == []


async def test_what_comes_regularly_does_not_make_up_for_missed_times(clock: Clock) -> None:
    late_s: list[float] = []
    began = perf_counter()
    every(clock, 0.01, late_s.append)
    await asyncio.sleep(0)
    blocked_until = perf_counter() + 0.1
    while perf_counter() < blocked_until:
        pass
    await asyncio.sleep(0.001)
    assert 1 <= len(late_s) <= (perf_counter() - began) / 0.01 - 5, "ten were missed"
    assert max(late_s) >= 0.08


async def test_a_loop_that_was_busy_shows_in_its_vitals(clock: Clock) -> None:
    vitals = Vitals(clock)
    vitals.begin()
    blocked_until = perf_counter() + 0.1
    while perf_counter() < blocked_until:
        pass
    await clock.until(perf_counter() + 0.02)
    assert max(vitals.lag_us) >= 80_000
    assert vitals.wall_s >= 0.1
    assert vitals.cpu_s > 0
    vitals.begin()
    assert vitals.lag_us == []
