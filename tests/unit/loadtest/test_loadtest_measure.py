from __future__ import annotations

import msgspec
import pytest
from loadtest_standin import ROLE, STOP, chunk, usage

from loadtest.measure import OUTCOMES, Outcome, TurnRecorder, TurnResult


def record(*events: tuple[float, object]) -> TurnRecorder:
    """A turn due at 10.0 s; moments are given in seconds after that."""
    recorder = TurnRecorder(due=10.0)
    recorder.headers(10.01, 200)
    for at, event in events:
        recorder.event(10.0 + at, event if isinstance(event, bytes) else msgspec.json.encode(event))
    return recorder


def result(recorder: TurnRecorder, now: float = 11.0) -> TurnResult:
    return recorder.result(conversation_id="c", turn=1, warmup=False, began=9.0, now=now)


def test_every_moment_counts_from_when_the_turn_was_due() -> None:
    recorder = record(
        (0.1, ROLE),
        (0.25, chunk({"content": "a"})),
        (0.25, chunk({"content": "b"})),
        (0.4, chunk({"content": " "})),
        (0.45, STOP),
        (0.45, usage(90, 7, 45)),
        (0.5, b"[DONE]"),
    )
    recorder.end()
    turn = result(recorder)
    assert turn.outcome == "ok"
    assert turn.due_s == pytest.approx(1.0)
    assert turn.ttfb_ms == pytest.approx(10)
    assert turn.ttft_ms == pytest.approx(250)
    assert turn.itl_ms == pytest.approx((0, 150))
    assert turn.e2e_ms == pytest.approx(500)
    assert (turn.output_tokens, turn.output_tokens_from) == (7, "usage")
    assert (turn.prompt_tokens, turn.cached_tokens, turn.finish_reason) == (90, 45, "stop")
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
def test_what_a_token_is(delta: dict[str, object], is_token: bool) -> None:
    assert (result(record((0.1, chunk(delta)))).ttft_ms is not None) is is_token


def test_without_usage_tokens_are_deltas() -> None:
    recorder = record(
        (0.1, chunk({"content": "a"})), (0.2, chunk({"content": "b"})), (0.2, STOP), (0.2, b"[DONE]")
    )
    recorder.end()
    turn = result(recorder)
    assert (turn.output_tokens, turn.output_tokens_from) == (2, "deltas")
    assert (turn.prompt_tokens, turn.cached_tokens, turn.client_minus_server_ttft_ms) == (None, None, None)


def test_the_servers_own_figures_are_kept_beside_the_clients() -> None:
    timing = {"ttft": 180.5, "prompt_tokens": 40, "cached_tokens": 0, "prefill": 100.0}
    turn = result(
        record((0.2, chunk({"content": "a"})), (0.3, chunk({}, "stop", firstword={"timing": timing})))
    )
    assert turn.server_ttft_ms == 180.5
    assert turn.client_minus_server_ttft_ms == pytest.approx(19.5)
    assert (turn.prompt_tokens, turn.cached_tokens) == (40, 0)


def test_usage_wins_over_the_servers_timing_for_token_counts() -> None:
    timing = {"ttft": 1.0, "prompt_tokens": 1, "cached_tokens": 1}
    turn = result(record((0.2, chunk({}, "stop", firstword={"timing": timing})), (0.3, usage(90, 7, 45))))
    assert (turn.prompt_tokens, turn.cached_tokens) == (90, 45)


@pytest.mark.parametrize(
    ("events", "outcome", "detail"),
    [
        ([STOP], "truncated", "without [DONE]"),
        ([b"[DONE]"], "truncated", "without a finish_reason"),
        ([], "truncated", "without a finish_reason or [DONE]"),
        ([{"error": {"message": "dead"}}, STOP, b"[DONE]"], "stream_error", "dead"),
        ([{"error": "plain"}], "stream_error", "plain"),
        ([{"error": {"code": 3}}], "stream_error", '{"code":3}'),
        ([b"{"], "malformed", "truncated: {"),
        ([b""], "malformed", "truncated"),
        ([b"[" * 100_000], "malformed", "[["),
        ([b'{"choices": "\xff"}'], "malformed", "\N{REPLACEMENT CHARACTER}"),
        ([{"choices": [{"delta": {"content": ["part"]}}]}], "malformed", "$.choices[0].delta.content"),
    ],
)
def test_a_turn_that_went_wrong_says_how(events: list[object], outcome: Outcome, detail: str) -> None:
    recorder = record(*((0.1, event) for event in events))
    recorder.end()
    turn = result(recorder)
    assert turn.outcome == outcome
    assert turn.detail is not None
    assert detail in turn.detail
    assert turn.e2e_ms == pytest.approx(1000)


def test_the_first_failure_stands_and_nothing_counts_after_it() -> None:
    recorder = record((0.1, {"error": {"message": "first"}}), (0.2, chunk({"content": "late"})))
    recorder.fail("timeout", "second")
    recorder.end()
    turn = result(recorder)
    assert (turn.outcome, turn.detail, turn.ttft_ms) == ("stream_error", "first", None)


def test_an_error_of_null_is_no_error_and_done_ends_the_count() -> None:
    recorder = record(
        (0.1, chunk({"content": "a"}, error=None)), (0.2, STOP), (0.3, b"[DONE]"), (0.4, b"trailing")
    )
    recorder.end()
    assert result(recorder).outcome == "ok"


def test_details_are_one_short_printable_line() -> None:
    recorder = TurnRecorder(0.0)
    recorder.fail("http_error", "a\nb\x1b[31m\t" + "x" * 500)
    detail = result(recorder).detail
    assert detail is not None
    assert detail.isprintable()
    assert len(detail) == 200
    assert detail.startswith("a b [31m x")


def test_outcomes_are_complete() -> None:
    assert set(OUTCOMES) == set(Outcome.__args__)
