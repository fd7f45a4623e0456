from __future__ import annotations

import asyncio
import random

import pytest

from server.errors import Busy
from server.guard.admission import Admission
from server.sections.admission import AdmissionSettings

pytestmark = pytest.mark.anyio


def admission(running: int, queued: int, n_tenants: int = 1, max_prefill_tokens: int = 4_096) -> Admission:
    settings = AdmissionSettings(
        max_running_turns=running,
        max_queued_turns=queued,
        max_prefill_tokens=max_prefill_tokens,
        retry_after_s=3,
    )
    return Admission(settings, n_tenants)


async def hold(guard: Admission, log: list[int], number: int, until: asyncio.Event) -> None:
    async with guard.permit("acme", "default"):
        log.append(number)
        await until.wait()


async def test_turns_are_admitted_in_the_order_they_came() -> None:
    guard, log, until = admission(1, 10), list[int](), asyncio.Event()
    tasks = []
    for number in range(6):
        tasks.append(asyncio.create_task(hold(guard, log, number, until)))
        await asyncio.sleep(0)
    assert (guard.running_turns, guard.queued_turns) == (1, 5)
    until.set()
    await asyncio.gather(*tasks)
    assert log == list(range(6))
    assert (guard.running_turns, guard.queued_turns) == (0, 0)


async def test_beyond_the_queue_a_turn_is_refused_at_once_and_told_when_to_return() -> None:
    guard, log, until = admission(1, 1), list[int](), asyncio.Event()
    tasks = [asyncio.create_task(hold(guard, log, number, until)) for number in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Busy) as raised:
        async with guard.permit("acme", "default"):
            pass
    assert raised.value.retry_after_s == 3
    until.set()
    await asyncio.gather(*tasks)


async def test_a_newcomer_cannot_overtake_one_that_waits() -> None:
    guard, log = admission(1, 10), list[int]()
    first, rest = asyncio.Event(), asyncio.Event()
    holder = asyncio.create_task(hold(guard, log, 0, first))
    await asyncio.sleep(0)
    waiter = asyncio.create_task(hold(guard, log, 1, rest))
    await asyncio.sleep(0)
    first.set()
    await holder
    newcomer = asyncio.create_task(hold(guard, log, 2, rest))
    rest.set()
    await asyncio.gather(waiter, newcomer)
    assert log == [0, 1, 2]


async def test_no_permit_is_lost_however_turns_are_cancelled() -> None:
    chance = random.Random(7)
    guard = admission(3, 1_000)
    most = 0

    async def turn() -> None:
        nonlocal most
        async with guard.permit("acme", "default"):
            most = max(most, guard.running_turns)
            await asyncio.sleep(chance.random() / 1_000)

    tasks = [asyncio.create_task(turn()) for _ in range(400)]
    for task in chance.sample(tasks, 200):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 3
    assert (guard.running_turns, guard.queued_turns) == (0, 0)


async def test_one_key_cannot_fill_the_line_of_all() -> None:
    guard, log, until = admission(1, 4, n_tenants=2), list[int](), asyncio.Event()
    tasks = [asyncio.create_task(hold(guard, log, number, until)) for number in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Busy, match="of this API key"):
        guard.refuse_when_full("acme")
    guard.refuse_when_full("other")
    until.set()
    await asyncio.gather(*tasks)


async def test_prefill_is_let_in_as_far_as_it_fits_and_given_back_once() -> None:
    guard = admission(4, 4, max_prefill_tokens=100)
    async with guard.permit("a", "default") as first, guard.permit("b", "default") as second:
        await first.take_prefill(80)
        waiting = asyncio.create_task(second.take_prefill(30))
        await asyncio.sleep(0)
        assert (waiting.done(), guard.prefill_tokens) == (False, 80)
        first.give_prefill_back()
        first.give_prefill_back()
        await waiting
        assert guard.prefill_tokens == 30
    assert (guard.prefill_tokens, guard.running_turns) == (0, 0)


async def test_a_prefill_larger_than_all_room_goes_when_nothing_else_does() -> None:
    guard = admission(4, 4, max_prefill_tokens=100)
    async with guard.permit("a", "default") as permit:
        await asyncio.wait_for(permit.take_prefill(5_000), 1)
        assert guard.prefill_tokens == 5_000
    assert guard.prefill_tokens == 0


async def test_the_longer_the_line_the_later_a_refused_client_is_told_to_return() -> None:
    guard, log, until = admission(1, 40), list[int](), asyncio.Event()
    guard._mean_turn_s = 2.0
    tasks = [asyncio.create_task(hold(guard, log, number, until)) for number in range(41)]
    await asyncio.sleep(0)
    with pytest.raises(Busy) as raised:
        guard.refuse_when_full("acme")
    assert raised.value.retry_after_s == 40
    until.set()
    await asyncio.gather(*tasks)
