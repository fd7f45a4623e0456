"""What a person sees while a bench runs, and when it is over."""

from __future__ import annotations

import io

import pytest
from loadtest_made import conversation, make_report, make_stage, turn
from msgspec.structs import replace
from rich.console import Console

from loadtest.figures.document import Report, Stage, Sweep, Verdict
from loadtest.figures.summary import summarise
from loadtest.fleet import StageRun
from loadtest.plan import Plan
from loadtest.report.cells import milliseconds, share
from loadtest.report.live import LiveView
from loadtest.report.self_test import print_self_test
from loadtest.report.tables import print_report
from loadtest.selftest import Checked, Level


def printed(report: Report) -> str:
    out = io.StringIO()
    print_report(report, Console(file=out, width=160))
    return out.getvalue()


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (0.0, "0.00"),
        (0.424, "0.42"),
        (4.2149, "4.21"),
        (42.14, "42.1"),
        (421.4, "421"),
        (4210.0, "4,210"),
        (-3.0, "-3.00"),
    ],
)
def test_milliseconds_have_three_digits(value: float, cell: str) -> None:
    assert milliseconds(value) == cell


@pytest.mark.parametrize(
    ("value", "cell"), [(None, "–"), (0.0, "0%"), (0.0042, "0.42%"), (0.17, "17%"), (1.0, "100%")]
)
def test_shares_are_percent(value: float | None, cell: str) -> None:
    assert share(value) == cell


def test_ttft_is_told_by_turn_and_so_is_the_cache() -> None:
    turns = [turn(1, 100.0), turn(2, 40.0, prompt_tokens=100, cached_tokens=75)]
    rows = {
        line.split()[0]: line.split()
        for line in printed(make_report(make_stage(turns))).splitlines()
        if line.strip()
    }
    assert rows["1"][1:4] == ["1", "100", "100"]
    assert rows["2"][1:4] == ["1", "40.0", "40.0"]
    assert rows["2"][-1] == rows["all"][-1] == "75%"
    assert rows["all"][1:3] == ["2", "70.0"]


def test_a_queue_inside_the_client_is_told_by_a_line_of_its_own() -> None:
    queued = printed(make_report(make_stage([turn(held_ms=60.0)])))
    assert next(line for line in queued.splitlines() if "from sending" in line).split()[2:4] == ["1", "40.0"]
    assert "from sending" not in printed(make_report(make_stage([turn()])))


def test_all_that_must_be_known_to_read_the_tables_is_said() -> None:
    turns = [turn(warmup=True), turn(warmup=True, outcome="timeout"), turn(), turn(1, None, output_tokens_from="deltas"),
             turn(outcome="http_error", status=500, detail="[red]boom"), turn(outcome="unfinished")]  # fmt: skip
    stage = make_stage(turns, summary=summarise(turns, duration_s=2.0, not_sent=7, goodput=None))
    stage = replace(stage, client=replace(stage.client, warnings=("The [b]client[/b] lagged.",)))
    said = printed(replace(make_report(stage), interrupted=True))
    for expected in (
        "Interrupted: 1 turns that were under way are in no figure.",
        "2 warm-up turns (1 of them failed) are in no figure.",
        "1 failed turns are in no latency",
        "7 turns were never sent",
        "1 turns ended without a single token and have no TTFT.",
        "1 turns sent no usage",
        "With fewer than 100 turns",
        "Closed loop",
        "The [b]client[/b] lagged.",
        "[red]boom",
    ):
        assert expected in said
    assert "No warm-up" in printed(make_report(make_stage([turn()])))


def test_nothing_good_and_nothing_at_all_are_printed_too() -> None:
    assert "timeout" in printed(
        make_report(make_stage([turn(outcome="timeout", status=None, detail="slow")]))
    )
    assert "0 turns" in printed(make_report(make_stage([])))
    assert printed(make_report())


def test_stages_stand_side_by_side_with_the_rate_that_was_found() -> None:
    def stage(name: str, met: bool) -> Stage:
        return make_stage([turn()], name, loop="open", verdicts=(Verdict("ttft_p99<1s", 0.25, met),))

    report = replace(
        make_report(stage("10/s", True), stage("20/s", False)), sweep=Sweep("ttft_p99<1s", 10.0, 20.0)
    )
    said = printed(report)
    rows = [line.split() for line in said.splitlines() if line.strip().startswith(("10/s ", "20/s "))]
    assert [(row[0], row[-1]) for row in rows] == [("10/s", "met"), ("20/s", "missed")]
    assert "10 conversations per second met ttft_p99<1s; 20 per second missed it." in said
    assert "ttft_p99<1s: MISSED" in said
    assert "Closed loop" not in said
    none = replace(report, sweep=Sweep("ttft_p99<1s", None, 1.0))
    assert "No rate that was tried met ttft_p99<1s." in printed(none)


def live(*, terminal: bool) -> tuple[LiveView, io.StringIO]:
    out = io.StringIO()
    return LiveView(Console(file=out, width=140, force_terminal=terminal)), out


def drawn(view: LiveView) -> str:
    out = io.StringIO()
    Console(file=out, width=140).print(view._draw())
    return out.getvalue()


def test_the_live_view_shows_what_has_ended_so_far() -> None:
    view, _ = live(terminal=True)
    plan = Plan(
        url="http://h",
        model="m",
        conversations=(conversation("a", "b"), conversation("c")),
        warmup_conversations=1,
    )
    run = StageRun(plan, 1)
    assert drawn(view).strip() == ""
    with view:
        view.stage_began("[stage]", run)
        view.turns_ended([turn(warmup=True)])
        assert "[stage]: warming up, 1 turns of 1 conversations" in drawn(view)
        run.begun_at, run.under_way[0] = 0.0, 3
        view.turns_ended(
            [turn(1, 120.0, late_ms=7.0), turn(2, 40.0), turn(outcome="refused"), turn(outcome="timeout")]
        )
        shown = drawn(view)
        for expected in (
            "4 of 1 turns · 3 under way · 4 turns",
            "1 refused · 1 failed · client up to 7.00 ms late",
            "turn 2",
        ):
            assert expected in shown
        row = next(line for line in shown.splitlines() if "all turns" in line).split()
        assert row[2:] == ["2", "40.0", "120", "120", "120"]
        view.turns_ended([])
        view.stage_ended(make_stage([turn()]))
        assert drawn(view).strip() == ""


def test_a_stage_of_seconds_shows_its_seconds() -> None:
    view, _ = live(terminal=False)
    run = StageRun(Plan(url="http://h", model="m", conversations=(conversation("a"),), duration_s=30.0), 1)
    run.begun_at = 0.0
    view.stage_began("s", run)
    assert "30 of 30 s" in drawn(view)


def test_without_a_terminal_there_is_a_line_for_each_stage() -> None:
    view, out = live(terminal=False)
    with view:
        stage = make_stage(
            [turn(1, 421.0), turn(outcome="timeout")],
            "[2]/s",
            verdicts=(Verdict("ttft_p99<1us", 421.0, False),),
        )
        view.stage_began("x", StageRun(Plan(url="http://h", model="m", conversations=()), 1))
        view.stage_ended(stage)
        view.stage_ended(make_stage([], "none"))
    assert out.getvalue().splitlines() == [
        "[2]/s: 2 turns, 1 failed, TTFT p50 421 ms, p99 421 ms; SLO missed: ttft_p99<1us",
        "none: 0 turns, no token came",
    ]


@pytest.mark.parametrize(
    ("error_ms", "unmatched", "failed", "warnings", "verdict", "honest"),
    [
        (0.2, 0, False, (), "exact", True),
        (1.0, 0, False, ("busy",), "exact", True),
        (1.1, 0, False, ("busy",), "client says: overloaded", True),
        (1.1, 0, False, (), "WRONG, and unnoticed", False),
        (0.2, 1, False, (), "turns are missing", False),
        (0.2, 0, True, ("busy",), "turns are missing", False),
        (float("nan"), 0, False, (), "WRONG, and unnoticed", False),
    ],
)
def test_the_self_test_judges_a_level(
    error_ms: float, unmatched: int, failed: bool, warnings: tuple[str, ...], verdict: str, honest: bool
) -> None:
    stage = make_stage([turn(), turn(outcome="timeout" if failed else "ok")])
    stage = replace(stage, client=replace(stage.client, warnings=warnings))
    checked = Checked(Level(10, 20, 32), stage, (0.1, error_ms, error_ms), (0.0, 0.01), unmatched)
    assert (checked.verdict, checked.is_honest) == (verdict, honest)
    out = io.StringIO()
    print_self_test([checked], Console(file=out, width=220))
    assert verdict in out.getvalue()
