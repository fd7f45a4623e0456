"""Two runs side by side."""

from __future__ import annotations

import io

import numpy as np
import pytest
from loadtest_made import make_report, make_stage, turn
from msgspec.structs import replace
from rich.console import Console

from loadtest.errors import ReportError
from loadtest.figures.compare import Line, compare_reports
from loadtest.figures.document import Interval, Stage
from loadtest.figures.turn_result import TurnResult
from loadtest.report.comparison import print_comparison


def turns(factor: float = 1.0, seed: int = 0, conversations: int = 60) -> list[TurnResult]:
    draws = np.random.default_rng(seed)
    return [
        turn(number, factor * draws.lognormal(4, 0.2), holding=holding, e2e_ms=float(draws.lognormal(6, 0.2)))
        for holding in range(conversations)
        for number in (1, 2)
    ]


def lines_of(a: Stage, b: Stage) -> dict[str, Line]:
    (stage,) = compare_reports(make_report(a), make_report(b)).stages
    return {line.name: line for line in stage.lines}


A = make_stage(turns())


def test_a_run_beside_itself_has_ratios_of_1_and_nothing_to_tell_apart() -> None:
    lines = lines_of(A, A)
    for name in ("TTFT p50", "TTFT p99", "TTFT turn 1 p50", "TTFT turn 2 p50", "end to end p99"):
        assert lines[name].ratio == 1
        assert lines[name].verdict == "not told apart"
    assert lines["turns/s"].ratio == 1


def test_the_same_server_measured_twice_is_not_told_apart() -> None:
    assert lines_of(A, make_stage(turns(seed=1)))["TTFT p50"].verdict == "not told apart"


@pytest.mark.parametrize(("factor", "verdict"), [(1.5, "higher"), (0.6, "lower")])
def test_a_clear_difference_is_told_with_its_ratio(factor: float, verdict: str) -> None:
    lines = lines_of(A, make_stage(turns(factor, seed=1)))
    for name in ("TTFT p50", "TTFT p90", "TTFT p99", "TTFT turn 2 p50"):
        assert lines[name].verdict == verdict
    line = lines["TTFT p50"]
    assert line.ratio == pytest.approx(factor, rel=0.1)
    assert line.ratio_ci is not None
    assert line.ratio_ci.low <= factor <= line.ratio_ci.high
    assert lines["end to end p50"].verdict == "not told apart"


def test_failed_and_warm_up_turns_are_compared_with_nothing() -> None:
    slow = [turn(1, 9e6, outcome="timeout"), turn(1, 9e6, warmup=True)]
    assert lines_of(A, make_stage([*turns(), *slow]))["TTFT p99"].ratio == 1


def test_few_conversations_give_a_ratio_and_no_verdict() -> None:
    line = lines_of(A, make_stage(turns(2.0, conversations=5)))["TTFT p50"]
    assert line.ratio is not None
    assert (line.ratio_ci, line.verdict) == (None, "unsure")


def test_a_run_without_a_single_good_turn_has_no_latency_to_compare() -> None:
    lines = lines_of(A, make_stage([turn(outcome="timeout")]))
    assert "TTFT p50" not in lines
    assert (lines["error rate"].a, lines["error rate"].b, lines["error rate"].ratio) == (0.0, 1.0, None)


def test_an_interval_that_holds_1_tells_nothing_apart() -> None:
    assert Line("x", "ms", 1, 2, Interval(1.0, 3.0)).verdict == "not told apart"
    assert Line("x", "ms", 1, 2, Interval(1.01, 3.0)).verdict == "higher"
    assert Line("x", "ms", 1, 2, Interval(0.5, 0.99)).verdict == "lower"


def test_stages_are_held_together_by_their_names() -> None:
    one, two, four = (replace(A, name=f"{rate}/s") for rate in (1, 2, 4))
    compared = compare_reports(make_report(one, two), make_report(two, four))
    assert [stage.name for stage in compared.stages] == ["2/s"]
    with pytest.raises(
        ReportError, match=r"no stage in common: 1/s, 2/s against 4/s\. Compare runs of the same"
    ):
        compare_reports(make_report(one, two), make_report(four))
    with pytest.raises(ReportError, match="none against 4/s"):
        compare_reports(make_report(), make_report(four))


def test_single_stages_are_compared_whatever_their_names() -> None:
    assert len(compare_reports(make_report(A), make_report(replace(A, name="other"))).stages) == 1


def test_what_was_different_besides_the_servers_is_said_and_so_are_warnings() -> None:
    lagging = replace(A, client=replace(A.client, warnings=("The client lagged.",)))
    compared = compare_reports(
        make_report(A, max_tokens=9, seed=1), make_report(lagging, max_tokens=12, seed=1)
    )
    assert compared.differences == ("max_tokens: 9 against 12",)
    assert compared.warnings == ("B, 1 at a time: The client lagged.",)


def test_the_tables_say_what_is_slower_and_by_how_much() -> None:
    out = io.StringIO()
    b = make_stage(turns(1.5, seed=1))
    compared = compare_reports(make_report(A), make_report(b, workload="[red]other.txt"))
    print_comparison(compared, ("a.json", "[b].json"), Console(file=out, width=160))
    said = out.getvalue()
    assert "A is a.json, B is [b].json" in said
    row = next(line for line in said.splitlines() if line.strip().startswith("TTFT p50"))
    assert row.rstrip().endswith("slower")
    assert "the same?" in said
    assert "differs: workload: w.txt against [red]other.txt" in said
