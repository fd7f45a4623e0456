"""Turns over a real socket. Upper bounds are generous: the machine may be busy."""

from __future__ import annotations

import asyncio
from time import perf_counter
from unittest.mock import patch

import httpx
import pytest
from loadtest_standin import DELAY_S, GAP_S, StandIn

from loadtest.arrivals import closed_loop
from loadtest.client import Client, Target, check_url, find_model, open_client
from loadtest.errors import TargetError
from loadtest.measure import Outcome, TurnResult
from loadtest.workload import Conversation, Message, UserTurn

pytestmark = pytest.mark.anyio

DELAY_MS = DELAY_S * 1000 * 0.95
"""At least: a timer of the event loop may fire a little early."""
SLACK_MS = 2000


def conversation(*questions: str, name: str = "c", preamble: tuple[Message, ...] = ()) -> Conversation:
    return Conversation(name, tuple(map(UserTurn, questions)), preamble)


async def hold(
    url: str,
    *conversations: Conversation,
    concurrency: int = 1,
    api_key: str | None = None,
    timeout_s: float = 20.0,
) -> list[TurnResult]:
    results: list[TurnResult] = []
    async with open_client(url, api_key) as http:
        target = Target(url, "m", api_key, max_tokens=9, timeout_s=timeout_s)
        client = Client(http, target, perf_counter(), warmup=False)
        await closed_loop(client, conversations or [conversation("q")], concurrency, results.append)
    return results


async def hold_one(url: str, **options: float) -> TurnResult:
    (turn,) = await hold(url, **options)  # type: ignore[arg-type]
    return turn


async def test_known_delays_are_measured(standin: StandIn) -> None:
    turn = await hold_one(standin.url("plain"))
    assert (turn.outcome, turn.status, turn.detail) == ("ok", 200, None)
    assert turn.ttfb_ms is not None
    assert turn.ttft_ms is not None
    assert 0 < turn.ttfb_ms < turn.ttft_ms
    assert DELAY_MS <= turn.ttft_ms < DELAY_MS + SLACK_MS
    assert len(turn.itl_ms) == 2
    last_token_ms = turn.ttft_ms + sum(turn.itl_ms)
    assert DELAY_MS + 2 * GAP_S * 950 <= last_token_ms < turn.e2e_ms
    assert (turn.prompt_tokens, turn.cached_tokens, turn.output_tokens) == (100, 0, 5)


async def test_the_request_asks_for_a_stream_with_usage_and_no_compression(standin: StandIn) -> None:
    await hold(standin.url("plain"), api_key="sk-test")
    (body,) = standin.requests
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "q"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
    }
    (headers,) = standin.headers
    assert headers["authorization"] == "Bearer sk-test"
    assert headers["accept-encoding"] == "identity"


async def test_an_early_role_chunk_is_no_first_token(standin: StandIn) -> None:
    turn = await hold_one(standin.url("late"))
    assert turn.outcome == "ok"
    assert turn.ttft_ms is not None
    assert turn.ttft_ms >= DELAY_MS
    assert turn.client_minus_server_ttft_ms == turn.ttft_ms - 100.0
    assert (turn.prompt_tokens, turn.cached_tokens) == (40, 30)
    assert (turn.output_tokens, turn.output_tokens_from) == (1, "deltas")


@pytest.mark.parametrize("behaviour", ["reasoning", "tool-call"])
async def test_reasoning_and_tool_calls_are_first_tokens(standin: StandIn, behaviour: str) -> None:
    turn = await hold_one(standin.url(behaviour))
    assert turn.outcome == "ok"
    assert turn.ttft_ms is not None
    if behaviour == "reasoning":
        (gap_ms,) = turn.itl_ms
        assert turn.ttft_ms + gap_ms >= DELAY_MS


@pytest.mark.parametrize(
    ("behaviour", "outcome", "status", "detail"),
    [
        ("busy", "refused", 429, "queue full"),
        ("loading", "refused", 503, "loading engine"),
        ("broken", "http_error", 500, "boom at line 3"),
        ("html", "malformed", 200, "answered text/html"),
        ("json", "malformed", 200, "answered application/json"),
        ("bad-json", "malformed", 200, "JSON is malformed"),
        ("wrong-shape", "malformed", 200, "$.choices"),
        ("error-event", "stream_error", 200, "the engine [bold]died[/bold]"),
        ("no-done", "truncated", 200, "without [DONE]"),
        ("no-finish", "truncated", 200, "without a finish_reason"),
        ("half-event", "truncated", 200, "in the middle of an event"),
        ("cut", "truncated", 200, "the connection broke: peer closed connection"),
    ],
)
async def test_what_goes_wrong_has_a_kind_and_a_reason(
    standin: StandIn, behaviour: str, outcome: Outcome, status: int, detail: str
) -> None:
    turn = await hold_one(standin.url(behaviour))
    assert (turn.outcome, turn.status) == (outcome, status)
    assert turn.detail is not None
    assert detail in turn.detail
    assert len(standin.requests) == 1, "nothing is retried"


async def test_a_refused_connection_is_counted(dead_url: str) -> None:
    turn = await hold_one(dead_url)
    assert (turn.outcome, turn.status, turn.ttfb_ms) == ("connection", None, None)
    assert turn.detail


async def test_a_silent_stream_times_out(standin: StandIn) -> None:
    turn = await hold_one(standin.url("silent"), timeout_s=0.2)
    assert (turn.outcome, turn.status) == ("timeout", 200)
    assert 200 <= turn.e2e_ms < 200 + SLACK_MS
    assert turn.ttft_ms is None


async def test_a_stream_left_open_after_done_is_ok_and_ends_at_done(standin: StandIn) -> None:
    began = perf_counter()
    with patch("loadtest.client._LINGER_S", 0.3):
        turn = await hold_one(standin.url("lingers"))
    assert turn.outcome == "ok"
    assert (perf_counter() - began) * 1000 - turn.e2e_ms >= 290


async def test_an_empty_reply_is_ok_without_a_ttft(standin: StandIn) -> None:
    turn = await hold_one(standin.url("empty"))
    assert (turn.outcome, turn.ttft_ms, turn.output_tokens) == ("ok", None, 0)


async def test_characters_split_over_reads_stay_whole(standin: StandIn) -> None:
    async with open_client(standin.origin, None) as http:
        client = Client(http, Target(standin.url("scattered"), "m"), perf_counter(), warmup=False)
        recorder = await client.stream_turn([Message("user", "q")], perf_counter())
    assert recorder.failure is None
    assert "".join(recorder.reply) == "Grüße 👩‍🚀 日本"


async def test_the_history_holds_what_was_really_streamed(standin: StandIn) -> None:
    asked = Conversation(
        "c",
        (UserTurn("one", agent="never sent"), UserTurn("two", agent="nor this"), UserTurn("three")),
        (Message("system", "Be brief."),),
    )
    turns = await hold(standin.url("plain"), asked)
    assert [(turn.turn, turn.outcome, turn.cached_tokens) for turn in turns] == [
        (1, "ok", 0),
        (2, "ok", 50),
        (3, "ok", 100),
    ]
    assert [(m["role"], m["content"]) for m in standin.requests[-1]["messages"]] == [
        ("system", "Be brief."),
        ("user", "one"),
        ("assistant", "reply number 1"),
        ("user", "two"),
        ("assistant", "reply number 2"),
        ("user", "three"),
    ]
    ends = [turn.due_s + turn.e2e_ms / 1000 for turn in turns]
    assert turns[0].due_s == 0
    assert ends[0] <= turns[1].due_s
    assert ends[1] <= turns[2].due_s


async def test_a_failed_turn_ends_its_conversation_and_no_other(standin: StandIn) -> None:
    turns = await hold(
        standin.url("fails-on-second"), conversation("a", "b", "c", name="x"), conversation("a", name="y")
    )
    assert [(turn.conversation_id, turn.turn, turn.outcome) for turn in turns] == [
        ("x", 1, "ok"),
        ("x", 2, "stream_error"),
        ("y", 1, "ok"),
    ]


async def test_so_many_conversations_are_held_at_a_time(standin: StandIn) -> None:
    began = perf_counter()
    turns = await hold(
        standin.url("plain"), *(conversation("q", name=str(n)) for n in range(6)), concurrency=3
    )
    assert (perf_counter() - began) * 1000 >= 2 * DELAY_MS
    assert sorted(turn.conversation_id for turn in turns) == list("012345")
    assert sum(turn.due_s == 0 for turn in turns) == 3, "the first of each are due when the run begins"
    assert all(turn.due_s * 1000 >= DELAY_MS for turn in turns if turn.due_s)


async def test_the_clock_starts_when_a_turn_is_due_not_when_it_is_sent(standin: StandIn) -> None:
    async with open_client(standin.origin, None) as http:
        client = Client(http, Target(standin.url("empty"), "m"), perf_counter(), warmup=False)
        due = perf_counter()
        await asyncio.sleep(0.1)
        recorder = await client.stream_turn([Message("user", "q")], due)
    turn = recorder.result(conversation_id="c", turn=1, warmup=False, began=due, now=perf_counter())
    assert turn.ttfb_ms is not None
    assert turn.ttfb_ms >= 95


async def test_a_key_that_the_server_repeats_is_taken_out(standin: StandIn) -> None:
    (turn,) = await hold(standin.url("echoes-key"), api_key="sk-very-secret")
    assert (turn.outcome, turn.status, turn.detail) == ("http_error", 401, "bad key [API key]")
    assert "sk-very-secret" not in repr(Target("u", "m", "sk-very-secret"))


async def test_the_first_model_is_found_and_a_named_one_taken(standin: StandIn, dead_url: str) -> None:
    async with open_client(standin.origin, None) as http:
        assert await find_model(http, standin.url("plain"), None, 5) == "first-model"
        assert await find_model(http, standin.url("html"), "mine", 5) == "mine"
        with pytest.raises(TargetError, match=r"names no model\. Name one with --model"):
            await find_model(http, standin.url("html"), None, 5)
        with pytest.raises(TargetError, match=r"refuses the API key \(401\)"):
            await find_model(http, standin.url("unauthorized"), "mine", 5)
        with pytest.raises(TargetError, match=r"does not answer .*Start the server"):
            await find_model(http, dead_url, "mine", 5)
        with pytest.raises(TargetError, match="does not answer"):
            await find_model(http, f"http://{'a' * 70}.invalid/v1", "mine", 5)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000/v1",
        "ftp://h/v1",
        "http://",
        "http://h:port/v1",
        "http://h/v1?key=x",
        "http://[::1/v1",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(TargetError, match=r"Give one like http://127\.0\.0\.1:8000/v1"):
        check_url(url)


def test_an_address_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(TargetError) as caught:
        check_url("http://me:hunter2@h/v1")
    assert "hunter2" not in str(caught.value)
    assert check_url("https://h/v1/") == "https://h/v1"


@pytest.mark.parametrize(
    ("url", "through_proxy"),
    [
        ("http://127.0.0.1:1/v1", False),
        ("http://localhost:1/v1", False),
        ("http://[::1]:1/v1", False),
        ("http://example.test/v1", True),
    ],
)
async def test_a_proxy_is_left_out_for_loopback(
    monkeypatch: pytest.MonkeyPatch, url: str, through_proxy: bool
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with open_client(url, None) as http:
        transport = http._transport_for_url(httpx.URL(url))
        assert (transport is not http._transport) is through_proxy
