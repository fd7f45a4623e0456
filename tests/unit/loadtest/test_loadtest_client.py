"""Conversations: what is remembered, what ends them, who waits for whom."""

from __future__ import annotations

import asyncio
import random
from time import perf_counter

import pytest
from loadtest_made import a_client, ask, conversation
from loadtest_standin import (
    ANSWER,
    Exchange,
    after,
    always,
    json_answer,
    replying,
    second_turn_fails,
    serving,
    whole,
)

from loadtest.arrivals import Arrivals
from loadtest.workload.conversation import Conversation, Message, UserTurn

pytestmark = pytest.mark.anyio

EVERY_10_MS = Arrivals("constant", 100.0)


async def test_the_history_holds_what_was_really_streamed() -> None:
    asked = Conversation(
        "c",
        (
            UserTurn("one", agent="never sent"),
            UserTurn("two", agent="nor this"),
            UserTurn("three", max_tokens=3),
        ),
        (Message("system", "Be brief."),),
    )
    async with serving(replying) as server:
        turns = await ask(server.url, asked, max_tokens=9)
    assert [(turn.turn, turn.outcome, turn.cached_tokens) for turn in turns] == [
        (1, "ok", 0),
        (2, "ok", 50),
        (3, "ok", 100),
    ]
    assert [exchange.body["max_tokens"] for exchange in server.requests] == [9, 9, 3]
    assert [(message["role"], message["content"]) for message in server.requests[-1].body["messages"]] == [
        ("system", "Be brief."),
        ("user", "one"),
        ("assistant", "reply number 1"),
        ("user", "two"),
        ("assistant", "reply number 2"),
        ("user", "three"),
    ]
    ends_s = [turn.due_s + turn.e2e_ms / 1_000 for turn in turns]
    assert ends_s[0] <= turns[1].due_s
    assert ends_s[1] <= turns[2].due_s


async def test_characters_split_over_reads_stay_whole() -> None:
    async def scattered(exchange: Exchange) -> None:
        text = "".join(f'data:{{"choices":[{{"delta":{{"content":"{piece}"}}}}]}}\r\n\r\n: ping\r\n\r\n'
                       for piece in ("Grüße", " 👩‍🚀", " 日本")).encode()  # fmt: skip
        text += b'data:{"choices":[{"finish_reason":"stop"}]}\r\n\r\ndata:[DONE]\r\n\r\n'
        answer = whole(text)
        await exchange.send(*(answer[start : start + 7] for start in range(0, len(answer), 7)), gap_s=0.0001)

    async with serving(scattered) as server:
        await ask(server.url, conversation("a", "b"))
        assert server.requests[1].body["messages"][1]["content"] == "Grüße 👩‍🚀 日本"


async def test_a_failed_turn_ends_its_conversation_and_no_other() -> None:
    async with serving(second_turn_fails) as server, a_client(server.url) as held:
        for number, one in enumerate(
            (conversation("a", "b", "c", "d", name="x"), conversation("a", name="y"))
        ):
            await held.client.hold(one, number, perf_counter())
    assert [(turn.conversation_id, turn.holding, turn.turn, turn.outcome) for turn in held.turns] == [
        ("x", 0, 1, "ok"),
        ("x", 0, 2, "stream_error"),
        ("y", 1, 1, "ok"),
    ]
    assert held.client.unsent == 2


async def test_what_a_failed_warm_up_left_unsent_is_not_counted() -> None:
    async with serving(second_turn_fails) as server, a_client(server.url) as held:
        await held.client.hold(conversation("a", "b", "c"), 0, perf_counter(), warmup=True)
    assert [turn.warmup for turn in held.turns] == [True, True]
    assert held.client.unsent == 0


async def test_turns_of_the_first_seconds_are_marked_as_warm_up() -> None:
    async with (
        serving(always(whole(ANSWER))) as server,
        a_client(server.url, warmup_s=0.05, think="0.06") as held,
    ):
        await held.client.hold(conversation("a", "b"), 0, held.client.begun_at)
    assert [turn.warmup for turn in held.turns] == [True, False]


async def test_a_user_thinks_before_the_next_turn_and_that_is_in_no_latency() -> None:
    asked = Conversation("c", (UserTurn("a"), UserTurn("b"), UserTurn("c", think_s=0.01)))
    async with serving(always(whole(ANSWER))) as server, a_client(server.url, think="0.1") as held:
        await held.client.hold(asked, 0, perf_counter())
    first, second, third = held.turns
    assert second.due_s - (first.due_s + first.e2e_ms / 1_000) >= 0.099
    assert third.due_s - (second.due_s + second.e2e_ms / 1_000) >= 0.009, "what the workload says wins"
    assert second.ttft_ms is not None
    assert second.late_ms < second.e2e_ms + 0.001


async def test_the_same_seed_thinks_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def pauses_s(seed: int, holding: int) -> list[float]:
        drawn: list[float] = []
        async with (
            serving(always(whole(ANSWER))) as server,
            a_client(server.url, think="0.0001..0.003", seed=seed) as held,
        ):
            pause_s = held.client.pause_s

            def drawing(draws: random.Random) -> float:
                drawn.append(pause_s(draws))
                return drawn[-1]

            monkeypatch.setattr(held.client, "pause_s", drawing)
            await held.client.hold(conversation("a", "b", "c"), holding, perf_counter())
        return drawn

    first = await pauses_s(1, 4)
    assert len(set(first)) == 2
    assert await pauses_s(1, 4) == first
    assert await pauses_s(2, 4) != first
    assert await pauses_s(1, 5) != first


async def test_when_the_time_is_over_then_no_turn_begins_but_an_open_one_is_waited_for() -> None:
    async with serving(after(0.1)) as server, a_client(server.url, duration_s=0.05) as held:
        await held.client.hold(conversation("a", "b", "c"), 0, held.client.begun_at)
        await held.client.hold(conversation("a", "b"), 1, held.client.begun_at + 0.06)
    assert [(turn.holding, turn.turn, turn.outcome) for turn in held.turns] == [(0, 1, "ok")]
    assert held.client.unsent == 4


async def test_a_turn_that_waits_for_a_slot_is_held_and_its_clock_runs() -> None:
    async with (
        serving(after(0.1)) as server,
        a_client(server.url, arrivals=EVERY_10_MS, concurrency=1) as held,
    ):
        due = perf_counter()
        await asyncio.gather(*(held.client.hold(conversation("q"), number, due) for number in range(3)))
    turns = sorted(held.turns, key=lambda turn: turn.e2e_ms)
    for number, turn in enumerate(turns):
        assert turn.outcome == "ok"
        assert turn.held_ms >= number * 99
        assert turn.ttft_ms is not None
        assert turn.ttft_ms >= (number + 1) * 99
        assert turn.sent_ttft_ms is not None
        assert turn.sent_ttft_ms == pytest.approx(turn.ttft_ms - turn.held_ms - turn.late_ms)
        assert turn.sent_ttft_ms >= 99
    assert turns[0].held_ms < turns[1].held_ms < turns[2].held_ms


async def test_a_turn_that_never_gets_a_slot_was_held_and_not_late() -> None:
    async with (
        serving(always(whole(ANSWER))) as server,
        a_client(server.url, arrivals=EVERY_10_MS, concurrency=1, timeout_s=0.2) as held,
    ):
        assert held.client._slots is not None
        await held.client._slots.acquire()
        await held.client.hold(conversation("q"), 0, perf_counter())
        assert server.requests == []
    (turn,) = held.turns
    assert (turn.outcome, turn.status) == ("timeout", None)
    assert turn.held_ms >= 150
    assert turn.held_ms + turn.late_ms <= turn.e2e_ms + 1
    assert turn.late_ms < turn.held_ms


async def test_a_conversation_that_is_stopped_before_it_is_due_was_not_sent() -> None:
    async with a_client("http://127.0.0.1:1/v1") as held:
        task = asyncio.create_task(held.client.hold(conversation("a", "b"), 0, perf_counter() + 60))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert (held.turns, held.client.unsent) == ([], 2)


async def test_a_turn_that_times_out_frees_its_slot() -> None:
    async def first_hangs(exchange: Exchange) -> None:
        if exchange.headers["x-request-id"] == "bench-0-1":
            await asyncio.sleep(60)
        await exchange.send(whole(ANSWER))

    async with (
        serving(first_hangs) as server,
        a_client(server.url, arrivals=EVERY_10_MS, concurrency=1, timeout_s=0.6) as held,
    ):
        due = perf_counter()
        await asyncio.gather(
            held.client.hold(conversation("q"), 0, due), held.client.hold(conversation("q"), 1, due + 0.3)
        )
    assert [(turn.holding, turn.outcome) for turn in held.turns] == [(0, "timeout"), (1, "ok")]
    assert held.turns[1].held_ms + held.turns[1].late_ms >= 290


async def test_a_loop_that_was_blocked_is_the_clients_lateness_and_part_of_the_latency() -> None:
    async with serving(always(whole(ANSWER))) as server, a_client(server.url) as held:
        due = perf_counter() + 0.02
        task = asyncio.create_task(held.client.hold(conversation("q"), 0, due))
        await asyncio.sleep(0)
        while perf_counter() < due + 0.2:
            pass
        await task
    (turn,) = held.turns
    assert turn.late_ms >= 199
    assert turn.ttft_ms is not None
    assert turn.sent_ttft_ms is not None
    assert turn.ttft_ms >= 199 + turn.sent_ttft_ms - 1
    assert turn.held_ms == 0


async def test_a_conversation_that_is_cancelled_leaves_an_unfinished_turn_and_a_count() -> None:
    async with serving(always(b"", then="hang")) as server, a_client(server.url) as held:
        task = asyncio.create_task(held.client.hold(conversation("a", "b", "c"), 0, perf_counter()))
        while not server.requests:
            await asyncio.sleep(0.001)
        assert held.client.under_way == 1
        task.cancel()
        await asyncio.wait([task])
    (turn,) = held.turns
    assert (turn.outcome, turn.detail) == ("unfinished", "the run was stopped")
    assert (held.client.under_way, held.client.unsent) == (0, 2)


async def test_a_turn_refused_frees_its_connection() -> None:
    async with serving(always(json_answer({"error": "full"}, 429))) as server:
        turns = await ask(server.url, conversation("a"), conversation("b"))
        assert [exchange.connection for exchange in server.requests] == [0, 0]
    assert [turn.outcome for turn in turns] == ["refused", "refused"]
