"""One turn's response, event by event, at moments that the test sets."""

from __future__ import annotations

import asyncio
from typing import get_args

import pytest
from loadtest_standin import DONE, ROLE, STOP, chunk, frame, token, usage

from loadtest.client.recorder import Recorder
from loadtest.figures.turn_result import OUTCOMES, Outcome, TurnResult

pytestmark = pytest.mark.anyio

EVENT_STREAM = {b"content-type": b"text/event-stream; charset=utf-8"}
DUE = 10.0


def record(*reads: tuple[float, bytes]) -> Recorder:
    """A turn due at 10.0 s; moments are given in seconds after that."""
    recorder = Recorder(DUE)
    recorder.sent_at = DUE
    recorder.first_byte(DUE + 0.01)
    recorder.head(200, EVENT_STREAM)
    for at, data in reads:
        recorder.body(DUE + at, data)
    return recorder


def result(recorder: Recorder) -> TurnResult:
    return recorder.result(
        conversation_id="c", holding=3, turn=2, request_id="r", warmup=False, began=DUE - 1
    )


async def test_every_moment_counts_from_when_the_turn_was_due() -> None:
    recorder = record(
        (0.1, ROLE),
        (0.25, token("a") + token("b")),
        (0.4, token(" ")),
        (0.45, STOP + frame(usage(90, 7, 45))),
        (0.5, DONE),
    )
    recorder.held_s, recorder.sent_at, recorder.connect_s = 0.002, DUE + 0.005, 0.001
    recorder.over(DUE + 0.6)
    turn = result(recorder)
    assert (turn.outcome, turn.status, turn.detail) == ("ok", 200, None)
    assert turn.due_s == pytest.approx(1.0)
    assert turn.ttfb_ms == pytest.approx(10)
    assert turn.ttft_ms == pytest.approx(250)
    assert turn.itl_us == (0, 150_000), "two deltas in one read came together"
    assert turn.e2e_ms == pytest.approx(500), "[DONE], not the end of the connection"
    assert (turn.held_ms, turn.connect_ms) == (2, 1)
    assert turn.late_ms == pytest.approx(3)
    assert turn.sent_ttft_ms == pytest.approx(245)
    assert turn.tpot_ms == pytest.approx(150 / 6)
    assert (turn.output_tokens, turn.output_tokens_from) == (7, "usage")
    assert (turn.prompt_tokens, turn.cached_tokens, turn.finish_reason) == (90, 45, "stop")
    assert (turn.holding, turn.turn, turn.request_id) == (3, 2, "r")
    assert "".join(recorder.reply) == "ab "


@pytest.mark.parametrize(
    ("delta", "is_token"),
    [
        ({"role": "assistant", "content": ""}, False),
        ({"role": "assistant", "content": None}, False),
        ({}, False),
        ({"tool_calls": []}, False),
        ({"reasoning_content": ""}, False),
        ({"content": "x"}, True),
        ({"content": "\n"}, True),
        ({"reasoning_content": "x"}, True),
        ({"reasoning": "x"}, True),
        ({"refusal": "I cannot"}, True),
        ({"tool_calls": [{"index": 0, "function": {"name": "f"}}]}, True),
    ],
)
async def test_what_a_token_is(delta: dict[str, object], is_token: bool) -> None:
    turn = result(record((0.1, frame(chunk(delta)))))
    assert (turn.ttft_ms is not None) is is_token
    assert turn.output_tokens == is_token


async def test_only_content_is_the_reply() -> None:
    recorder = record(
        (0.1, frame(chunk({"reasoning": "hm"})) + token("yes") + frame(chunk({"refusal": "no"})))
    )
    assert recorder.reply == ["yes"]
    assert result(recorder).output_tokens == 3


async def test_without_usage_tokens_are_deltas() -> None:
    recorder = record((0.1, token("a")), (0.2, token("b") + STOP + DONE))
    recorder.over(DUE + 0.2)
    turn = result(recorder)
    assert (turn.output_tokens, turn.output_tokens_from) == (2, "deltas")
    assert (turn.prompt_tokens, turn.cached_tokens, turn.client_minus_server_ttft_ms) == (None, None, None)


async def test_the_servers_own_figures_are_kept_beside_the_clients() -> None:
    timing = {"ttft": 180.5, "prefill": 100.0, "admit": 1, "rerank": None, "generate": 900.0}
    recorder = record((0.2, token("a")), (0.3, frame(chunk({}, "stop", firstword={"timing": timing}))))
    server = result(recorder).server
    assert server is not None
    assert (server.source, server.ttft_ms) == ("firstword", 180.5)
    assert list(server.phases_ms.items()) == [("admit", 1.0), ("prefill", 100.0)]
    assert result(recorder).client_minus_server_ttft_ms == pytest.approx(19.5)


async def test_vllms_metrics_are_read_too() -> None:
    metrics = {"time_to_first_token_ms": 150, "queue_time_ms": 50, "other": [1]}
    server = result(record((0.2, frame(chunk({}, "stop", metrics=metrics))))).server
    assert server is not None
    assert (server.source, server.ttft_ms, server.phases_ms) == ("vllm", 150, {"queue": 50, "prefill": 100})
    assert result(record((0.2, frame(chunk({}, metrics={}))))).server is None


@pytest.mark.parametrize(
    ("events", "outcome", "detail"),
    [
        (STOP, "truncated", "the stream ended without [DONE]"),
        (DONE, "truncated", "the stream ended without a finish_reason"),
        (b"", "truncated", "without a finish_reason or [DONE]"),
        (STOP + b"data: [DO", "truncated", "in the middle of an event"),
        (frame({"error": {"message": "dead"}}) + STOP + DONE, "stream_error", "dead"),
        (frame({"error": "plain"}), "stream_error", "plain"),
        (frame({"error": {"code": 3}}), "stream_error", '{"code":3}'),
        (b"data: {\n\n", "malformed", "truncated: {"),
        (b"data:\n\n", "malformed", "truncated"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "malformed", "[["),
        (b'data: {"choices": "\xff"}\n\n', "malformed", "\N{REPLACEMENT CHARACTER}"),
        (frame({"choices": [{"delta": {"content": ["part"]}}]}), "malformed", "$.choices[0].delta.content"),
    ],
)
async def test_a_turn_that_went_wrong_says_how(events: bytes, outcome: Outcome, detail: str) -> None:
    recorder = record((0.1, events))
    recorder.over(DUE + 1)
    turn = result(recorder)
    assert turn.outcome == outcome
    assert turn.detail is not None
    assert detail in turn.detail
    known_by_the_end = outcome == "truncated" and b"[DONE]" not in events
    assert turn.e2e_ms == pytest.approx(1_000 if known_by_the_end else 100)
    assert recorder.finished.done()


@pytest.mark.parametrize("status", [400, 401, 404, 500, 204, 302, 429, 503])
@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"error": {"message": "so it is", "code": 1}}', "so it is"),
        (b'{"error": "so it is"}', "so it is"),
        (b'{"detail": "so it is"}', '{"detail":"so it is"}'),
        (b'["so it is"]', '["so it is"]'),
        (b"<h1>So\nit is</h1>", "<h1>So it is</h1>"),
        (b"[" * 100_000, "[" * 199 + "…"),
        (b"", "status"),
    ],
)
async def test_a_status_is_a_failure_with_its_reason(status: int, body: bytes, detail: str) -> None:
    recorder = Recorder(DUE)
    recorder.head(status, {b"content-type": b"text/html"})
    for start in range(0, len(body), 1000):
        recorder.body(DUE + 0.1, body[start : start + 1000])
    recorder.over(DUE + 0.2)
    turn = result(recorder)
    assert (turn.outcome, turn.status) == ("refused" if status in (429, 503) else "http_error", status)
    assert turn.detail == (f"status {status}" if detail == "status" else detail)


async def test_an_error_answer_that_breaks_off_is_still_that_error() -> None:
    recorder = Recorder(DUE)
    recorder.head(500, {})
    recorder.body(DUE + 0.1, b"engine d")
    recorder.broken(DUE + 0.2, "reset", malformed=False)
    assert (result(recorder).outcome, result(recorder).detail) == ("http_error", "engine d")


async def test_the_first_failure_stands_and_nothing_counts_after_it() -> None:
    recorder = record((0.1, frame({"error": {"message": "first"}})), (0.2, token("late")))
    recorder.fail("timeout", "second")
    recorder.over(DUE + 1)
    turn = result(recorder)
    assert (turn.outcome, turn.detail, turn.ttft_ms) == ("stream_error", "first", None)


async def test_an_error_of_null_is_no_error_and_done_ends_the_count() -> None:
    recorder = record(
        (0.1, frame(chunk({"content": "a"}, error=None))),
        (0.2, STOP),
        (0.3, DONE + token("b") + b"data: {\n\n"),
    )
    recorder.over(DUE + 0.4)
    assert result(recorder).outcome == "ok"
    assert recorder.reply == ["a"]
    assert recorder.events == 3


async def test_a_connection_that_breaks_after_done_broke_too_late_to_matter() -> None:
    recorder = record((0.1, token("a") + STOP + DONE))
    recorder.broken(DUE + 0.2, "reset", malformed=False)
    assert result(recorder).outcome == "ok"
    assert result(recorder).e2e_ms == pytest.approx(100)


async def test_a_client_that_gives_up_before_done_says_why_and_after_it_nothing() -> None:
    before, after = record((0.1, token("a") + STOP)), record((0.1, token("a") + STOP + DONE))
    for recorder in (before, after):
        recorder.give_up(DUE + 3, "timeout", "not finished")
        assert recorder.finished.done()
    assert (result(before).outcome, result(after).outcome) == ("timeout", "ok")
    assert result(before).e2e_ms == pytest.approx(3_000)
    assert result(after).e2e_ms == pytest.approx(100)


async def test_a_response_left_open_after_done_is_waited_for_one_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def at_once(delay: float, callback: object, *arguments: object) -> asyncio.TimerHandle:
        waits.append(delay)
        return call_later(0, callback, *arguments)  # it is passed on as it came

    monkeypatch.setattr(asyncio, "get_running_loop", lambda: _Loop(loop, at_once))
    recorder = record((0.1, token("a") + STOP + DONE), (0.2, b": still here\n\n"))
    await asyncio.wait_for(recorder.finished, 10)
    assert waits == [1.0]
    assert result(recorder).outcome == "ok"
    assert result(recorder).e2e_ms == pytest.approx(100)


class _Loop:
    def __init__(self, loop: asyncio.AbstractEventLoop, call_later: object) -> None:
        self.create_future = loop.create_future
        self.call_soon = loop.call_soon
        self.call_later = call_later


async def test_details_are_one_short_printable_line() -> None:
    recorder = Recorder(DUE)
    recorder.fail("http_error", "a\nb\x1b[31m\t" + "x" * 500)
    detail = result(recorder).detail
    assert detail is not None
    assert detail.isprintable()
    assert len(detail) == 200
    assert detail.startswith("a b [31m x")


async def test_a_turn_that_never_got_anywhere_has_nulls() -> None:
    recorder = Recorder(DUE)
    recorder.give_up(DUE + 1, "unfinished", "stopped")
    turn = result(recorder)
    assert (turn.status, turn.ttfb_ms, turn.ttft_ms, turn.sent_ttft_ms, turn.tpot_ms) == (None,) * 5
    assert (turn.itl_us, turn.output_tokens) == ((), 0)
    assert turn.e2e_ms == pytest.approx(1_000)


async def test_an_answer_of_another_kind_is_known_by_its_head() -> None:
    recorder = Recorder(0.0)
    recorder.head(200, {b"content-type": b"Text/HTML; charset=utf-8"})
    assert recorder.finished.done()
    assert result(recorder).detail == "answered text/html instead of text/event-stream"
    for kind in (b"", b"TEXT/event-stream ;x=y"):
        recorder = Recorder(0.0)
        recorder.head(200, {b"content-type": kind})
        assert recorder.failure is None


def test_outcomes_are_complete() -> None:
    assert set(OUTCOMES) == set(get_args(Outcome))
