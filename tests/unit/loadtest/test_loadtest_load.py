"""Who holds which conversation and when: with a client that holds none and writes down what it was asked."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from time import perf_counter
from typing import Any, cast

import msgspec
import pytest
from loadtest_made import conversation, make_share

from loadtest.arrivals import Arrivals
from loadtest.client.client import Client
from loadtest.client.clock import Clock
from loadtest.client.load import Load
from loadtest.plan import Share
from loadtest.workload.conversation import Conversation, UserTurn

pytestmark = pytest.mark.anyio

WORKLOAD = tuple(conversation("q", name=f"c{number}") for number in range(10))


class FakeClient:
    """Each conversation takes as long as its `seconds` say, in no real time."""

    def __init__(self, seconds: float = 0.0, lead_s: float = 0.0, pause_s: float = 0.0) -> None:
        self.begun_at = 0.0
        self.held: list[tuple[str, int, float, bool]] = []
        """Conversation, holding, seconds after the beginning, warm-up."""
        self.most_at_a_time = 0
        self._now = 0
        self._seconds, self._lead_s, self._pause_s = seconds, lead_s, pause_s

    def lead_s(self, conversation: Conversation) -> float:
        return self._lead_s

    def draws(self, of: str) -> random.Random | None:
        return None

    def pause_s(self, draws: random.Random | None) -> float:
        return self._pause_s

    async def hold(
        self, conversation: Conversation, holding: int, due: float, *, warmup: bool = False
    ) -> float:
        self.held.append((conversation.conversation_id, holding, due - self.begun_at, warmup))
        self._now += 1
        self.most_at_a_time = max(self.most_at_a_time, self._now)
        await asyncio.sleep(0)
        self._now -= 1
        return due + self._seconds


async def run(share: Share, client: FakeClient) -> FakeClient:
    clock = Clock()
    try:
        load = Load(share, cast(Client, client), clock)
        await load.warm_up(perf_counter())
        await load.run(perf_counter())
    finally:
        clock.close()
    return client


def a_share(process: int = 0, processes: int = 1, **plan: Any) -> Share:
    share = make_share("http://h/v1", *plan.pop("workload", WORKLOAD), **plan)
    return msgspec.structs.replace(share, process=process, processes=processes)


PLANS: list[dict[str, Any]] = [
    {"concurrency": 6},
    {"concurrency": 6, "popularity": "zipf(1.1)", "n_conversations": 40},
    {"concurrency": 6, "n_conversations": 25, "warmup_conversations": 5},
    {"concurrency": 6, "n_conversations": 7, "warmup_conversations": 13, "popularity": "uniform"},
    {"arrivals": Arrivals("poisson", 2_000.0), "n_conversations": 30, "warmup_conversations": 3},
    {"arrivals": Arrivals("constant", 1_000.0), "duration_s": 0.02},
    {"arrivals": Arrivals("trace", speed=2.0), "workload": tuple(
        Conversation(f"t{n}", (UserTurn("q"),), due_s=n / 500) for n in range(10))},
]  # fmt: skip


@pytest.mark.parametrize("plan", PLANS, ids=range(len(PLANS)))
async def test_each_conversation_is_held_once_whatever_the_number_of_processes(plan: dict[str, Any]) -> None:
    alone = (await run(a_share(**plan), FakeClient())).held
    assert alone
    assert len({holding for _, holding, _, _ in alone}) == len(alone), "a holding's number is its own"
    for processes in (2, 3, 5):
        shares = [a_share(process, processes, **plan) for process in range(processes)]
        split = [held for share in shares for held in (await run(share, FakeClient())).held]
        assert {(name, holding, warm) for name, holding, _, warm in split} == {
            (name, holding, warm) for name, holding, _, warm in alone
        }
        assert len(split) == len(alone)
        if "arrivals" in plan:
            due_s = {holding: due_s for _, holding, due_s, warm in alone if not warm}
            for _, holding, split_due_s, warm in split:
                assert warm or split_due_s == pytest.approx(due_s[holding], abs=1e-6)


@pytest.mark.parametrize("whole", [1, 2, 3, 7, 64])
def test_the_processes_concurrencies_add_up(whole: int) -> None:
    for processes in range(1, whole + 1):
        parts = [a_share(process, processes, concurrency=whole).concurrency for process in range(processes)]
        assert sum(part or 0 for part in parts) == whole
        assert all(parts), "a process without one would never send anything"
    assert a_share(concurrency=None).concurrency is None


async def test_the_workloads_first_conversations_warm_up_and_the_stage_goes_on_with_the_next() -> None:
    client = await run(a_share(concurrency=1, warmup_conversations=3), FakeClient())
    assert [(name, warm) for name, _, _, warm in client.held] == [
        (f"c{number}", number < 3) for number in range(10)
    ]


async def test_a_workload_that_is_too_short_begins_anew() -> None:
    client = await run(a_share(concurrency=1, n_conversations=25), FakeClient())
    assert Counter(name for name, _, _, _ in client.held) == {
        f"c{number}": 3 if number < 5 else 2 for number in range(10)
    }


async def test_a_closed_loop_holds_so_many_at_a_time_and_lets_one_follow_the_other() -> None:
    client = await run(a_share(concurrency=4), FakeClient(seconds=1.0, lead_s=0.25, pause_s=0.5))
    assert client.most_at_a_time == 4
    assert sorted(due_s for _, _, due_s, _ in client.held) == pytest.approx(
        [0.25] * 4 + [2.0] * 4 + [3.75] * 2
    )


async def test_a_closed_loop_ends_with_its_time() -> None:
    client = await run(a_share(concurrency=2, duration_s=3.0), FakeClient(seconds=1.0))
    assert [due_s for _, _, due_s, _ in client.held] == pytest.approx([0, 0, 1, 1, 2, 2])


async def test_an_open_loop_begins_each_when_it_is_due_however_long_the_others_take() -> None:
    plan: dict[str, Any] = {"arrivals": Arrivals("constant", 500.0), "n_conversations": 8, "concurrency": 1}
    client = await run(a_share(**plan), FakeClient(seconds=1_000.0))
    assert [due_s for _, _, due_s, _ in client.held] == pytest.approx([number / 500 for number in range(8)])


async def test_typing_begins_before_a_conversation_is_due_and_does_not_move_it() -> None:
    plan: dict[str, Any] = {"arrivals": Arrivals("constant", 100.0), "n_conversations": 3}
    client = await run(a_share(**plan), FakeClient(lead_s=5.0))
    assert [due_s for _, _, due_s, _ in client.held] == pytest.approx([0, 0.01, 0.02])


async def test_when_it_is_cancelled_then_every_open_conversation_is_too() -> None:
    class Hanging(FakeClient):
        cancelled = 0

        async def hold(self, *arguments: Any, **options: Any) -> float:
            try:
                await asyncio.sleep(60)
            finally:
                self.cancelled += 1
            return 0.0

    client, clock = Hanging(), Clock()
    task = asyncio.create_task(Load(a_share(concurrency=4), cast(Client, client), clock).run(perf_counter()))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    clock.close()
    assert client.cancelled == 4
