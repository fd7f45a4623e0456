"""Connections: which turn goes over which, how long each is kept, and what is sent over it."""

from __future__ import annotations

import asyncio
import socket
from time import perf_counter, sleep, time
from typing import Any

import pytest
from loadtest_made import a_client, ask, ask_one, conversation
from loadtest_standin import (
    ANSWER,
    CHUNKED,
    DONE,
    END,
    ROLE,
    STOP,
    Exchange,
    Script,
    always,
    chunk,
    frame,
    head,
    json_answer,
    replying,
    serving,
    sized,
    token,
    whole,
)

from loadtest.client import plain
from loadtest.client.recorder import Recorder
from loadtest.figures.turn_result import TurnResult

pytestmark = pytest.mark.anyio


async def turn_of(script: Script, **options: object) -> TurnResult:
    async with serving(script) as server:
        turn = await ask_one(server.url, **options)
        assert len(server.requests) == 1, "nothing is retried"
        return turn


async def test_a_connection_serves_one_turn_after_the_other() -> None:
    async with serving(replying) as server:
        turns = await ask(server.url, conversation("a", "b"), conversation("c"))
        assert [exchange.connection for exchange in server.requests] == [0, 0, 0]
    assert [turn.outcome for turn in turns] == ["ok"] * 3
    assert [turn.connect_ms is None for turn in turns] == [False, True, True]


@pytest.mark.parametrize(
    ("script", "options"),
    [
        (always(whole(ANSWER)), {"keep_connections": False}),
        (always(whole(ANSWER, 200, "text/event-stream", "connection: close")), {}),
        (always(head() + ANSWER, then="close"), {}),
    ],
    ids=["told so", "the server says so", "the body ends with it"],
)
async def test_a_connection_is_not_used_again_when(script: Script, options: dict[str, Any]) -> None:
    async with serving(script) as server:
        turns = await ask(server.url, conversation("a", "b"), **options)
        assert [exchange.connection for exchange in server.requests] == [0, 1]
    assert [turn.outcome for turn in turns] == ["ok", "ok"]
    assert all(turn.connect_ms is not None for turn in turns)


async def test_a_connection_that_the_server_closed_while_idle_is_replaced() -> None:
    closed = asyncio.Event()

    async def closing_later(exchange: Exchange) -> None:
        await exchange.send(whole(ANSWER))
        if exchange.connection == 0:
            await exchange.close()
            closed.set()

    async with serving(closing_later) as server, a_client(server.url) as held:
        await held.client.hold(conversation("a"), 0, perf_counter())
        await closed.wait()
        await asyncio.sleep(0.05)  # until the end of the connection has come
        await held.client.hold(conversation("b"), 1, perf_counter())
        assert [exchange.connection for exchange in server.requests] == [0, 1]
    assert [turn.outcome for turn in held.turns] == ["ok", "ok"]


async def test_bytes_after_a_response_belong_to_no_other() -> None:
    async with (
        serving(always(whole(ANSWER) + whole(token("stale") + STOP + DONE))) as server,
        a_client(server.url) as held,
    ):
        recorders = []
        for _ in range(2):
            recorders.append(Recorder(perf_counter()))
            connection = held.client.connections.idle() or await held.client.connections.open()
            connection.send(b"POST /v1/chat/completions HTTP/1.1\r\n\r\n", recorders[-1])
            await asyncio.wait_for(recorders[-1].finished, 10)
            await asyncio.sleep(0.02)
            held.client.connections.give_back(connection)
    assert [recorder.reply for recorder in recorders] == [["so"], ["so"]]


async def test_several_deltas_in_one_read_have_no_time_between_them() -> None:
    deltas: list[dict[str, Any]] = [
        {"content": "a"},
        {"reasoning": "b"},
        {"refusal": "c"},
        {"tool_calls": [{"index": 0}]},
    ]
    body = b"".join(frame(chunk(delta)) for delta in deltas) + STOP + DONE
    turn = await turn_of(always(whole(body)))
    assert (turn.outcome, turn.itl_us, turn.output_tokens) == ("ok", (0, 0, 0), 4)


async def test_a_wall_clock_that_is_set_in_between_makes_no_time_negative(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readings = 0

    def jumping() -> float:
        nonlocal readings
        readings += 1
        return time() + (0.0 if readings == 2 else 5.0)

    monkeypatch.setattr(plain, "time", jumping)
    pieces = map(sized, [ROLE, token("a"), token("b"), token("c"), STOP + DONE])
    async with serving(always(CHUNKED, *pieces, END, gap_s=0.01)) as server:
        turn = await ask_one(server.url)
    assert turn.outcome == "ok"
    assert min(turn.itl_us) >= 0
    assert turn.ttfb_ms is not None
    assert turn.ttft_ms is not None
    assert 0 <= turn.ttfb_ms <= turn.ttft_ms <= turn.e2e_ms


async def test_a_refused_connection_is_counted(dead_url: str) -> None:
    turn = await ask_one(dead_url)
    assert (turn.outcome, turn.status, turn.ttfb_ms, turn.connect_ms) == ("connection", None, None, None)
    assert turn.detail
    assert turn.late_ms < turn.e2e_ms + 1


async def test_when_an_address_does_not_answer_then_the_next_is_tried() -> None:
    async with serving(always(whole(ANSWER))) as server, a_client(server.url) as held:
        held.client.connections._ips.appendleft("127.0.0.99")  # where nothing listens
        for number in range(2):
            await held.client.hold(conversation("q"), number, perf_counter())
    assert [turn.outcome for turn in held.turns] == ["ok", "ok"]


@pytest.mark.parametrize(
    "message",
    ["bad key {key}", "{key}{key}", *("x" * n + "{key}" for n in range(184, 200, 3))],
)
async def test_a_key_that_the_server_repeats_is_taken_out(message: str) -> None:
    key = "sk-very-secret-indeed"
    answer = json_answer({"error": {"message": message.format(key=key)}}, 401)
    turn = await turn_of(always(answer), api_key=key)
    assert (turn.outcome, turn.status) == ("http_error", 401)
    assert turn.detail is not None
    assert "sk-v" not in turn.detail
    assert "secret" not in turn.detail


@pytest.mark.parametrize(
    ("answer", "status"),
    [(b"", None), (CHUNKED + sized(ROLE), 200), (CHUNKED + sized(token("a") + STOP), 200)],
    ids=["before the headers", "before the first token", "before [DONE]"],
)
async def test_a_turn_that_takes_too_long_is_given_up(answer: bytes, status: int | None) -> None:
    turn = await turn_of(always(answer, then="hang"), timeout_s=0.1)
    assert (turn.outcome, turn.status) == ("timeout", status)
    assert turn.detail == "not finished 0.1 s after it was due"
    assert turn.e2e_ms >= 99


async def test_a_response_left_open_after_done_is_ok_and_ends_at_done() -> None:
    async with serving(always(CHUNKED + sized(ANSWER), then="hang")) as server:
        began = perf_counter()
        turns = await ask(server.url, conversation("a"))
        lingered_s = perf_counter() - began - turns[0].e2e_ms / 1_000
    assert turns[0].outcome == "ok"
    assert lingered_s >= 0.99


async def test_the_request_asks_for_a_stream_with_usage_and_no_compression() -> None:
    async with serving(replying) as server:
        await ask(server.url, api_key="sk-test", max_tokens=9, extra_body={"temperature": 0})
        (exchange,) = server.requests
    assert exchange.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "q"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "temperature": 0,
    }
    assert (exchange.method, exchange.path) == ("POST", "/v1/chat/completions")
    assert exchange.headers["authorization"] == "Bearer sk-test"
    assert exchange.headers["accept-encoding"] == "identity"
    assert exchange.headers["host"] == server.origin.removeprefix("http://")
    assert exchange.headers["x-request-id"] == "bench-0-1"


async def test_without_a_key_or_a_length_none_is_sent() -> None:
    async with serving(replying) as server:
        await ask(server.url)
        (exchange,) = server.requests
    assert "authorization" not in exchange.headers
    assert "max_tokens" not in exchange.body


@pytest.mark.skipif(not plain.HAS_STAMPS, reason="the kernel does not stamp here")
async def test_a_reply_that_was_read_late_came_when_it_came_and_the_next_turn_was_due_then() -> None:
    """The loop is blocked from the moment of the request; the reply comes while it is."""
    blocked_s = 0.2
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))

    def block() -> None:
        until = perf_counter() + blocked_s
        while perf_counter() < until:
            pass

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            for number in range(2):
                while not peer.recv(65_536).endswith(b"}"):
                    pass
                if number == 0:
                    loop.call_soon_threadsafe(block)
                    sleep(0.02)
                peer.sendall(whole(ANSWER))

    with listener:
        serving_there = loop.run_in_executor(None, serve)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        first, second = await ask(url, conversation("one", "two"))
        await serving_there
    assert first.ttft_ms is not None
    assert first.ttft_ms + second.late_ms >= blocked_s * 1_000 - 5
    assert second.connect_ms is None
