"""Responses of every kind, right and wrong, over a real socket: what each makes of its turn."""

from __future__ import annotations

import pytest
from loadtest_made import ask_one
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
    frame,
    head,
    json_answer,
    serving,
    sized,
    token,
    whole,
)

from loadtest.client import connection as connection_module
from loadtest.client import sse
from loadtest.figures.turn_result import Outcome, TurnResult

pytestmark = pytest.mark.anyio


async def turn_of(script: Script, **options: object) -> TurnResult:
    async with serving(script) as server:
        turn = await ask_one(server.url, **options)
        assert len(server.requests) == 1, "nothing is retried"
        return turn


async def test_known_delays_are_measured() -> None:
    async with serving(
        always(CHUNKED + sized(ROLE), *map(sized, [token("a"), token("b"), STOP + DONE]), END, gap_s=0.03)
    ) as server:
        turn = await ask_one(server.url)
    assert turn.outcome == "ok"
    assert turn.ttfb_ms is not None
    assert turn.ttft_ms is not None
    assert 0 < turn.ttfb_ms < turn.ttft_ms
    assert turn.ttft_ms >= 29, "the role chunk is no token"
    (gap_us,) = turn.itl_us
    assert gap_us > 0
    assert 85 <= turn.ttft_ms + gap_us / 1_000 + 30 <= turn.e2e_ms + 1
    assert turn.connect_ms is not None
    assert 0 < turn.connect_ms < turn.ttfb_ms


@pytest.mark.parametrize(
    ("answer", "then"),
    [
        ((whole(ANSWER),), "keep"),
        ((CHUNKED + sized(ANSWER) + END,), "keep"),
        ((CHUNKED, *(sized(bytes([byte])) for byte in ANSWER), END), "keep"),
        ((head() + ANSWER,), "close"),
        ((head(200, "connection: close"), ANSWER), "close"),
        ((head(kind="") + ANSWER,), "close"),
        ((whole(ANSWER, 200, "text/event-stream", "connection: close"),), "keep"),
        ((b"HTTP/1.1 100 Continue\r\n\r\n" + whole(ANSWER),), "keep"),
        ((b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", b"HTTP/1.1 102 P\r\n\r\n", whole(ANSWER)), "keep"),
        ((b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + ANSWER,), "close"),
        ((CHUNKED + sized(ANSWER) + b"0\r\nx-trailer: 1\r\n\r\n",), "keep"),
    ],
    ids=[
        "sized", "chunked", "chunks of a byte", "ended by the connection", "closed", "no content type", "said to close",
        "100", "103 and 102", "HTTP/1.0", "trailers",
    ],
)  # fmt: skip
async def test_a_body_is_read_however_it_is_framed(answer: tuple[bytes, ...], then: str) -> None:
    turn = await turn_of(always(*answer, then=then))
    assert (turn.outcome, turn.status, turn.detail) == ("ok", 200, None)
    assert (turn.output_tokens, turn.finish_reason) == (1, "stop")


@pytest.mark.parametrize(
    ("answer", "then", "outcome", "status", "detail"),
    [
        (whole(b"<h1>Welcome!</h1>", 200, "text/html"), "keep", "malformed", 200, "answered text/html instead"),
        (json_answer({"choices": []}), "keep", "malformed", 200, "answered application/json"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "hang", "malformed", None, "not HTTP/1.1"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "close", "malformed", None, "not HTTP/1.1"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\nxyz", "hang", "malformed", None,
         "upgrade"),
        (CHUNKED + sized(ROLE) + b"zz\r\nwhat\r\n", "hang", "malformed", 200, "not HTTP/1.1"),
        (CHUNKED + sized(ROLE + token("a")), "close", "truncated", 200, "the server closed the connection"),
        (CHUNKED + sized(ROLE + token("a")), "cut", "truncated", 200, "the connection broke"),
        (head(200, "content-length: 5000") + ANSWER[:-9], "close", "truncated", 200, "the server closed"),
        (head() + ROLE + token("a") + b'data: {"choices": [{"del', "close", "truncated", 200, "in the middle of an event"),
        (whole(ROLE + token("a") + STOP), "keep", "truncated", 200, "without [DONE]"),
        (whole(ROLE + token("a") + DONE), "keep", "truncated", 200, "without a finish_reason"),
        (whole(token("a") + frame({"error": {"message": "died"}}) + DONE), "keep", "stream_error", 200, "died"),
        (b"", "close", "connection", None, "the server closed the connection"),
        (b"HTTP/1.1 200 OK\r\ncontent-ty", "close", "connection", None, "the server closed the connection"),
        (json_answer({"error": {"message": "full"}}, 429), "keep", "refused", 429, "full"),
        (whole(b"<h1>no</h1>", 503, "text/html"), "keep", "refused", 503, "<h1>no</h1>"),
        (whole(b"", 500), "keep", "http_error", 500, "status 500"),
        (head(400) + b"because", "close", "http_error", 400, "because"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "keep", "http_error", 204, "status 204"),
        (whole(b"", 307, "text/html", "location: /elsewhere"), "keep", "http_error", 307, "status 307"),
    ],
)  # fmt: skip
async def test_what_goes_wrong_has_a_kind_and_a_reason(
    answer: bytes, then: str, outcome: Outcome, status: int | None, detail: str
) -> None:
    turn = await turn_of(always(answer, then=then))
    assert (turn.outcome, turn.status) == (outcome, status)
    assert turn.detail is not None
    assert detail in turn.detail


async def endless_lines(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await exchange.send(b"".join(b"x-%d: %s\r\n" % (n, b"y" * 100) for n in range(100)))


async def one_endless_line(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nx-long: ")
    while True:
        await exchange.send(b"y" * 10_000)


async def endless_reason(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 ")
    while True:
        await exchange.send(b"y" * 10_000)


async def endless_early_hints(exchange: Exchange) -> None:
    while True:
        await exchange.send(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 100)


@pytest.mark.parametrize("script", [endless_lines, one_endless_line, endless_reason, endless_early_hints])
async def test_endless_headers_are_given_up(script: Script) -> None:
    turn = await turn_of(script, timeout_s=5.0)
    assert (turn.outcome, turn.status) == ("malformed", None)
    assert turn.detail is not None


async def test_headers_that_come_with_a_large_body_in_one_read_are_no_trouble() -> None:
    body = token("x" * connection_module.MAX_HEADER_BYTES) + STOP + DONE
    assert (await turn_of(always(whole(body)))).outcome == "ok"


async def test_an_endless_event_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100_000)

    async def endless_event(exchange: Exchange) -> None:
        await exchange.send(CHUNKED + sized(token("a") + b"data: "))
        while True:
            await exchange.send(sized(b"x" * 10_000))

    turn = await turn_of(endless_event, timeout_s=5.0)
    assert (turn.outcome, turn.detail) == ("malformed", "an event is larger than 100000 bytes")


def test_an_event_may_be_of_16_mebibytes() -> None:
    assert sse.MAX_EVENT_BYTES == 16 * 1024 * 1024
