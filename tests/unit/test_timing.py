from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.telemetry.timing import PHASES, TurnClock


def test_phases_add_up_to_ttft_however_they_are_ended() -> None:
    clock = TurnClock()
    for phase in PHASES:
        time.sleep(0.001)
        clock.end(phase)
    assert clock.ttft_ms == pytest.approx((clock._phase_started_at - clock.started_at) * 1_000)
    assert clock.ttft_ms == pytest.approx(sum(clock.ended_ms.values()))


@given(offsets=st.lists(st.floats(-1, 1), min_size=9, max_size=9))
def test_a_clock_that_runs_ahead_or_behind_never_makes_a_phase_negative(offsets: list[float]) -> None:
    clock = TurnClock()
    for phase, offset in zip(PHASES, offsets, strict=True):
        clock.end(phase, time.monotonic() + offset)
    assert all(ms >= 0 for ms in clock.ended_ms.values())
    assert clock.ttft_ms is not None
    assert clock.ttft_ms <= clock.elapsed_ms


def test_retrieval_is_split_without_losing_a_moment() -> None:
    clock = TurnClock()
    time.sleep(0.01)
    clock.end_retrieval(embed_ms=2.0, rerank_ms=1.0)
    passed_ms = (clock._phase_started_at - clock.started_at) * 1_000
    assert clock.ended_ms["embed"] == pytest.approx(2.0)
    assert clock.ended_ms["rerank"] == pytest.approx(1.0, abs=0.1)
    assert sum(clock.ended_ms.values()) == pytest.approx(passed_ms)


def test_ttft_is_unknown_until_the_first_text() -> None:
    clock = TurnClock()
    clock.end("admit")
    assert clock.ttft_ms is None


def test_gaps_are_between_tokens_only() -> None:
    clock = TurnClock()
    for _ in range(4):
        clock.token()
    assert len(clock.token_gaps_s) == 3
