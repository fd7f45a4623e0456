from __future__ import annotations

import asyncio
import random

import pytest

from server.guard.line import FairLine

pytestmark = pytest.mark.anyio


async def serve(
    line: FairLine, order: list[str], name: str, tenant: str, tier: int = 0, cost: int = 1
) -> None:
    await line.take(cost, tenant, tier)
    order.append(name)
    await asyncio.sleep(0)
    line.give_back(cost)


async def order_of(line: FairLine, *wanted: tuple[str, str, int]) -> list[str]:
    """The order in which (name, tenant, tier) are served, by a line that was busy when they came."""
    order: list[str] = []
    await line.take(1, "holder", 0)
    tasks = [asyncio.create_task(serve(line, order, name, tenant, tier)) for name, tenant, tier in wanted]
    await asyncio.sleep(0)
    assert line.waiting == len(wanted)
    line.give_back(1)
    await asyncio.gather(*tasks)
    assert (line.taken, line.waiting) == (0, 0)
    return order


async def test_keys_take_turns_however_much_one_sends() -> None:
    much = [(f"a{number}", "a", 0) for number in range(5)]
    assert await order_of(FairLine(1), *much, ("b0", "b", 0), ("c0", "c", 0), ("b1", "b", 0)) == [
        "a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4",
    ]  # fmt: skip


async def test_a_lower_tier_goes_first() -> None:
    wanted = [("flex", "a", 10), ("default", "a", 0), ("priority", "b", -10)]
    assert await order_of(FairLine(1), *wanted) == ["priority", "default", "flex"]


async def test_the_capacity_is_never_exceeded_and_nothing_is_lost_under_cancellation() -> None:
    chance = random.Random(11)
    line = FairLine(10)
    most = 0

    async def taker(number: int) -> None:
        nonlocal most
        cost = chance.randint(1, 10)
        await line.take(cost, f"key {number % 7}", number % 3)
        try:
            most = max(most, line.taken)
            await asyncio.sleep(chance.random() / 1_000)
        finally:
            line.give_back(cost)

    tasks = [asyncio.create_task(taker(number)) for number in range(500)]
    for task in chance.sample(tasks, 250):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 10
    assert (line.taken, line.waiting) == (0, 0)
    assert not line._tiers


async def test_a_large_one_that_leaves_lets_the_small_ones_behind_it_in() -> None:
    line, order = FairLine(10), list[str]()
    await line.take(5, "a", 0)
    large = asyncio.create_task(serve(line, order, "large", "a", cost=9))
    small = asyncio.create_task(serve(line, order, "small", "a", cost=2))
    await asyncio.sleep(0)
    assert line.waiting == 2
    large.cancel()
    await small
    assert order == ["small"]


async def test_one_that_was_cancelled_and_has_not_run_yet_is_passed_over() -> None:
    line, order = FairLine(1), list[str]()
    await line.take(1, "a", 0)
    leaving = asyncio.create_task(serve(line, order, "leaving", "a"))
    staying = asyncio.create_task(serve(line, order, "staying", "a"))
    await asyncio.sleep(0)
    leaving.cancel()
    line.give_back(1)
    await staying
    assert order == ["staying"]
    assert (line.taken, line.waiting) == (0, 0)


async def test_one_that_was_let_in_and_cancelled_before_it_ran_gives_its_place_back() -> None:
    line, order = FairLine(1), list[str]()
    await line.take(1, "a", 0)
    leaving = asyncio.create_task(serve(line, order, "leaving", "a"))
    staying = asyncio.create_task(serve(line, order, "staying", "a"))
    await asyncio.sleep(0)
    line.give_back(1)
    leaving.cancel()
    await staying
    assert order == ["staying"]
    assert (line.taken, line.waiting) == (0, 0)
