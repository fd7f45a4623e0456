from __future__ import annotations

import json

import pytest
from bench_wire import HEAD, LAST_CHUNK, chunked, delta, event, usage

from bench.answer import Turn
from bench.cpu import Sample
from bench.figures import figures_of
from bench.plan import Figures, Plan

INTERVAL_S = 0.01


def plan_of(streams: int, tokens: int, turns: int = 1) -> Plan:
    return Plan(
        port=1, bodies=[["{}"] * turns] * streams, tokens=tokens, interval_s=INTERVAL_S, spread_s=INTERVAL_S
    )


def paced(tokens: int, sent_at: float, interval_s: float = INTERVAL_S) -> Turn:
    """A read for each token; the first one interval after the request."""
    turn = Turn(sent_at)
    for position in range(tokens):
        piece = chunked(delta({"content": f" w{position}"}))
        if position == 0:
            piece = HEAD + piece
        if position == tokens - 1:
            tail = (delta({}, "length"), usage(tokens), event("[DONE]"))
            piece += b"".join(map(chunked, tail)) + LAST_CHUNK
        turn.pieces.append(piece)
        turn.times.append(sent_at + (position + 1) * interval_s)
    return turn


def sampled(until_s: float, busy_share: float) -> list[Sample]:
    ticks = [index * 0.05 for index in range(int(until_s / 0.05) + 2)]
    return [Sample(at, {"gateway": at * busy_share, "client": 0.0}) for at in ticks]


def figures(turns: list[list[Turn]], plan: Plan, busy_share: float = 0.3) -> Figures:
    until_s = max(turn.times[-1] for stream in turns for turn in stream if turn.times)
    return figures_of(plan, turns, sampled(until_s, busy_share))


def test_a_source_that_keeps_its_pace_has_its_interval_as_itl_and_its_rate_as_tokens_per_s() -> None:
    found = figures([[paced(200, 0.001)], [paced(200, 0.004)]], plan_of(2, 200))
    assert (found.turns, found.complete, found.tokens, found.frames) == (2, 2, 400, 400)
    assert found.wall_s == pytest.approx(2.003)
    assert found.ttft_ms is not None
    assert found.ttft_ms.p50 == pytest.approx(10)
    assert found.steady is not None
    assert found.steady.itl_ms.p99 == pytest.approx(10)
    assert found.steady.tokens_per_s == pytest.approx(200, rel=0.02)


def test_cpu_time_is_divided_by_the_tokens_of_the_same_stretch() -> None:
    found = figures([[paced(200, 0.001)], [paced(200, 0.004)]], plan_of(2, 200), busy_share=0.3)
    assert found.steady is not None
    # 0.3 s of CPU time a second over 200 tokens a second.
    assert found.steady.cpu_us_per_token["gateway"] == pytest.approx(1_500, rel=0.02)
    assert found.steady.cpu_share["gateway"] == pytest.approx(0.3)


def test_a_gateway_that_falls_behind_has_no_steady_stretch_but_figures_of_the_whole_run() -> None:
    found = figures(
        [[paced(200, 0.001, 2 * INTERVAL_S)], [paced(200, 0.004, 2 * INTERVAL_S)]], plan_of(2, 200)
    )
    assert found.complete == 2
    assert found.steady is None
    assert found.window is found.whole is not None
    assert found.whole.tokens == 400
    assert found.whole.tokens_per_s == pytest.approx(100, rel=0.05)


def test_the_rush_of_the_first_tokens_is_not_in_the_steady_stretch() -> None:
    turns = [paced(300, 0.001), paced(300, 0.004)]
    for turn in turns:
        turn.times[:80] = [turn.times[79]] * 80
    found = figures([[turn] for turn in turns], plan_of(2, 300))
    assert found.merged_frames == 2 * 79
    assert found.steady is not None
    assert found.steady.itl_ms.n < 300
    assert found.steady.itl_ms.p50 == pytest.approx(10)


def test_a_gateway_that_is_still_catching_up_at_the_end_has_no_steady_stretch() -> None:
    late = paced(200, 1.0, INTERVAL_S / 2)
    assert figures([[late]], plan_of(1, 200)).steady is None


def test_streams_that_never_overlap_have_no_steady_stretch() -> None:
    assert figures([[paced(100, 0.0)], [paced(100, 5.0)]], plan_of(2, 100)).steady is None


def test_frames_of_one_read_are_counted_as_merged() -> None:
    late = paced(100, 0.0)
    late.times[10:20] = [late.times[20]] * 10
    found = figures([[late]], plan_of(1, 100))
    assert found.complete == 1
    assert found.merged_frames == 10


def test_turns_that_failed_or_never_began_are_faults_and_nothing_is_raised() -> None:
    refused = Turn(0.0, [b"HTTP/1.1 503 Service Unavailable\r\n\r\n"], [0.1])
    found = figures([[refused], [paced(50, 0.0)], []], plan_of(3, 50))
    assert (found.turns, found.complete) == (3, 1)
    assert found.faults == {"HTTP/1.1 503 Service Unavailable": 1, "never sent": 1}
    assert figures_of(plan_of(1, 5), [[]], []).faults == {"never sent": 1}


def test_tokens_come_from_the_usage_when_a_frame_holds_several() -> None:
    turn = Turn(0.0)
    for position in range(50):
        turn.pieces.append((b"" if position else HEAD) + chunked(delta({"content": " two words"})))
        turn.times.append(position * 2 * INTERVAL_S)
    turn.pieces[-1] += b"".join(map(chunked, (delta({}, "stop"), usage(100), event("[DONE]")))) + LAST_CHUNK
    found = figures([[turn]], plan_of(1, 100))
    assert (found.tokens, found.frames, found.complete) == (100, 50, 1)
    assert found.steady is not None
    assert found.steady.tokens_per_s == pytest.approx(100, rel=0.05)


def test_a_body_that_is_no_chunk_is_a_fault() -> None:
    nonsense = Turn(0.0, [HEAD + chunked(b"data: {nonsense\n\n") + LAST_CHUNK], [0.1])
    (fault,) = figures([[nonsense]], plan_of(1, 5)).faults
    assert fault.startswith("unreadable")
    assert json.dumps(fault)
