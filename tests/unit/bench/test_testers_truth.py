from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench.testers.__main__ import CONTESTANTS, _in_turn
from bench.testers.scenario import SCENARIOS, Scenario
from bench.testers.target import LoggedRequest
from bench.testers.truth import read_log, truth_of

CLOSED = Scenario(name="steady", shows="", concurrency=2, requests=3, tokens=3)
CAPPED = Scenario(name="capped", shows="", concurrency=1, requests=3, tokens=3, rate_per_s=4.0)


def request(received_at: float, first_at: float, gap_s: float = 0.01, tokens: int = 3) -> LoggedRequest:
    return LoggedRequest(
        request_id="",
        received_at=received_at,
        engine_first_token_at=first_at,
        first_token_at=first_at,
        last_token_at=first_at + gap_s * (tokens - 1),
        tokens=tokens,
        outcome="ok",
        gaps_us=[round(gap_s * 1e6)] * (tokens - 1),
    )


def cancelled(received_at: float) -> LoggedRequest:
    return LoggedRequest(
        request_id="",
        received_at=received_at,
        engine_first_token_at=None,
        first_token_at=None,
        last_token_at=None,
        tokens=0,
        outcome="cancelled",
    )


def test_the_truth_of_a_closed_loop_counts_from_each_requests_arrival() -> None:
    found = truth_of([request(1.0, 1.05), request(3.0, 3.07), request(2.0, 2.06)], CLOSED)
    assert found is not None
    assert found.ttft_ms is not None
    assert (found.ttft_ms.mean, found.ttft_ms.p50) == pytest.approx((60.0, 60.0))
    assert found.itl_ms is not None
    assert found.itl_ms.p99 == pytest.approx(10.0)
    assert found.tpot_ms is not None
    assert found.tpot_ms.p50 == pytest.approx(10.0)
    assert found.wall_s == pytest.approx(2.09)
    assert found.tokens_per_s == pytest.approx(9 / 2.09)
    assert found.due_ttft_ms is None


def test_the_truth_of_an_open_loop_when_requests_are_held_back_counts_from_when_they_were_due() -> None:
    # Due at 10.0, 10.25 and 10.5; each sent when the one before it had ended.
    found = truth_of([request(10.0, 10.6), request(10.7, 11.3), request(11.4, 12.0)], CAPPED)
    assert found is not None
    assert found.ttft_ms is not None
    assert found.ttft_ms.p50 == pytest.approx(600.0)
    assert found.due_ttft_ms is not None
    assert found.due_ttft_ms.p50 == pytest.approx(1_050.0)
    assert found.due_ttft_ms.mean == pytest.approx((600 + 1_050 + 1_500) / 3)
    assert found.due_e2e_ms is not None
    assert found.due_e2e_ms.p50 == pytest.approx(1_070.0)


def test_requests_that_were_cut_off_are_counted_and_are_in_no_latency() -> None:
    found = truth_of([request(1.0, 1.05), cancelled(0.5)], CLOSED)
    assert found is not None
    assert (found.requests, found.cut) == (1, 1)
    assert found.begun_at == 1.0
    assert truth_of([cancelled(0.5)], CLOSED) is None


def test_a_log_without_gaps_has_no_figures_of_gaps_but_mean_ones() -> None:
    bare = msgspec.structs.replace(request(1.0, 1.05), gaps_us=None)
    found = truth_of([bare], CLOSED)
    assert found is not None
    assert found.itl_ms is None
    assert found.tpot_ms is not None


def test_a_broken_line_of_the_log_is_named_by_its_number(tmp_path: Path) -> None:
    log = tmp_path / "target.jsonl"
    log.write_bytes(msgspec.json.encode(request(1.0, 1.05)) + b"\n" + b'{"request_id": 1}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_log(log)


def test_another_tester_begins_each_time_and_none_is_left_out() -> None:
    testers = [make() for make in CONTESTANTS.values()]
    firsts = {_in_turn(testers, place)[0].name for place in range(len(testers))}
    assert firsts == {tester.name for tester in testers}
    assert all(len(_in_turn(testers, place)) == len(testers) for place in range(6))


def test_every_tester_is_asked_for_the_same_requests_and_tokens(tmp_path: Path) -> None:
    for scenario in SCENARIOS:
        for make in CONTESTANTS.values():
            command = make().command(scenario, 9471, tmp_path)
            line = " ".join(command.argv)
            assert "127.0.0.1:9471" in line
            assert str(scenario.tokens) in line
            assert str(scenario.requests) in line
            assert ("4" in line and "constant" in line) or "inf" in line or scenario.rate_per_s is None
