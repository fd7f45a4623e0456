from __future__ import annotations

import asyncio
import random

import pytest

from server.errors import Busy
from server.guard.admission import Admission
from server.settings import AdmissionSettings

pytestmark = pytest.mark.anyio


def admission(running: int, queued: int) -> Admission:
    return Admission(AdmissionSettings(max_running_turns=running, max_queued_turns=queued, retry_after_s=3))


async def hold(guard: Admission, log: list[int], number: int, until: asyncio.Event) -> None:
    async with guard.permit():
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
        async with guard.permit():
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
        async with guard.permit():
            most = max(most, guard.running_turns)
            await asyncio.sleep(chance.random() / 1_000)

    tasks = [asyncio.create_task(turn()) for _ in range(400)]
    for task in chance.sample(tasks, 200):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 3
    assert (guard.running_turns, guard.queued_turns) == (0, 0)
