"""Type-ahead: beginnings of the next question, before it is due, and nobody waits for them."""

from __future__ import annotations

import asyncio
from time import perf_counter

import pytest
from loadtest_made import a_client, conversation
from loadtest_standin import ANSWER, Exchange, Script, replying, serving, whole

from loadtest.plan import TypeAhead

pytestmark = pytest.mark.anyio

FAST = TypeAhead(words_per_minute=4_000.0, every_s=0.015)
"""A question takes less than 0.1 s."""
QUESTION = "one two three four five six"


def answering(status: int, delay_s: float = 0.0) -> Script:
    async def script(exchange: Exchange) -> None:
        if exchange.path.endswith("/chat/prewarm"):
            await asyncio.sleep(delay_s)
            await exchange.send(whole(b"{}", status, "application/json"))
        else:
            await replying(exchange)

    return script


async def test_beginnings_are_sent_before_the_turn_is_due_and_never_the_whole() -> None:
    async with serving(answering(202)) as server, a_client(server.url, type_ahead=FAST) as held:
        asked = conversation(QUESTION, QUESTION[::-1])
        due = perf_counter() + held.client.lead_s(asked)
        await held.client.hold(asked, 0, due)
        await asyncio.sleep(0.05)
    assert [turn.outcome for turn in held.turns] == ["ok", "ok"]
    by_turn = {1: QUESTION, 3: QUESTION[::-1]}
    for n_messages, question in by_turn.items():
        typed = [
            exchange.body["messages"][-1]["content"]
            for exchange in server.prewarms
            if len(exchange.body["messages"]) == n_messages
        ]
        assert typed
        assert typed == sorted(typed, key=len)
        assert all(question.startswith(text) and text != question for text in typed)
    second = [
        exchange.body["messages"] for exchange in server.prewarms if len(exchange.body["messages"]) == 3
    ]
    assert second[0][1] == {"role": "assistant", "content": "reply number 1"}, "with the history before it"
    assert held.client.prewarm.by_status == {202: len(server.prewarms)}
    assert held.turns[1].due_s - held.turns[0].due_s >= held.client.prewarm.typing_s(QUESTION[::-1])


async def test_an_answer_that_takes_for_ever_delays_no_turn() -> None:
    async with (
        serving(answering(202, delay_s=60)) as server,
        a_client(server.url, type_ahead=FAST) as held,
    ):
        due = perf_counter() + held.client.lead_s(conversation(QUESTION))
        await asyncio.wait_for(held.client.hold(conversation(QUESTION), 0, due), 10)
        assert server.prewarms
    (turn,) = held.turns
    assert turn.outcome == "ok"
    assert turn.e2e_ms < 10_000
    assert not held.client.prewarm.by_status


@pytest.mark.parametrize("status", [404, 405])
async def test_a_server_that_does_not_know_the_path_is_asked_no_more(status: int) -> None:
    async with serving(answering(status)) as server, a_client(server.url, type_ahead=FAST) as held:
        due = perf_counter() + held.client.lead_s(conversation(QUESTION))
        await held.client.hold(conversation(QUESTION, QUESTION, QUESTION), 0, due)
    assert held.client.prewarm.by_status == {status: len(server.prewarms)}
    assert all(len(exchange.body["messages"]) == 1 for exchange in server.prewarms), "not for the second turn"
    assert [turn.outcome for turn in held.turns] == ["ok"] * 3


async def test_a_server_that_refuses_some_is_asked_on() -> None:
    async with serving(answering(429)) as server, a_client(server.url, type_ahead=FAST) as held:
        due = perf_counter() + held.client.lead_s(conversation(QUESTION))
        await held.client.hold(conversation(QUESTION), 0, due)
        await asyncio.sleep(0.05)
    assert held.client.prewarm.by_status[429] >= 2


async def test_when_nobody_listens_then_that_is_counted(dead_url: str) -> None:
    async with a_client(dead_url, type_ahead=FAST) as held:
        due = perf_counter() + held.client.lead_s(conversation(QUESTION))
        await held.client.hold(conversation(QUESTION), 0, due)
        await asyncio.sleep(0.05)
    assert held.client.prewarm.by_status[0] >= 2
    assert [turn.outcome for turn in held.turns] == ["connection"]


async def test_without_type_ahead_nothing_is_sent_and_nobody_types() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(whole(ANSWER))

    async with serving(script) as server, a_client(server.url) as held:
        assert held.client.lead_s(conversation(QUESTION)) == 0
        await held.client.hold(conversation(QUESTION, QUESTION), 0, perf_counter())
        assert server.prewarms == []
