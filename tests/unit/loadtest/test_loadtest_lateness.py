"""What the client says of itself, and from when on it warns."""

from __future__ import annotations

from typing import Any

import pytest
from loadtest_made import turn

from loadtest.arrivals import Arrivals
from loadtest.client.messages import Over
from loadtest.figures.document import Lateness
from loadtest.figures.summary import summarise
from loadtest.figures.turn_result import TurnResult
from loadtest.fleet import StageRun, default_processes
from loadtest.lateness import lateness_of
from loadtest.plan import Plan


def over(**fields: Any) -> Over:
    usual: dict[str, Any] = {
        "cpu_s": 1.0, "wall_s": 10.0, "events": 1000, "unsent": 0, "loop_lag_us": [100] * 100,
        "stamped_by_kernel": True, "read_lag_us": {20: 1000}, "prewarms": {},
    }  # fmt: skip
    return Over(**(usual | fields))


def lateness(
    *turns: TurnResult, overs: tuple[Over, ...] = (), stolen: float | None = None, **plan: Any
) -> Lateness:
    run = StageRun(Plan(url="http://h", model="m", conversations=(), **plan), processes=max(1, len(overs)))
    run.turns, run.overs, run.stolen_share = list(turns), list(overs or (over(),)), stolen
    return lateness_of(run, summarise(run.turns, duration_s=1.0, not_sent=0, goodput=None))


USUAL = [turn(holding=holding, late_ms=0.1) for holding in range(100)]


def test_a_client_in_good_health_says_nothing() -> None:
    found = lateness(*USUAL, overs=(over(), over(cpu_s=3.0)), stolen=0.01, concurrency=2)
    assert found.warnings == ()
    assert (found.processes, found.cpu_share, found.stamped_by) == (2, 0.3, "kernel")
    assert found.cpu_us_per_event == pytest.approx(2_000)
    assert found.late_ms is not None
    assert (found.late_ms.n, found.held_ms) == (100, None)
    assert found.loop_lag_ms is not None
    assert found.loop_lag_ms.n == 200
    assert found.loop_lag_ms.p99 == pytest.approx(0.1, rel=0.01)
    assert found.read_lag_ms is not None
    assert (found.read_lag_ms.n, found.read_lag_ms.max) == (2000, 0.02)


def test_a_client_that_sends_late_warns() -> None:
    late = [turn(holding=holding, late_ms=200.0) for holding in range(2)]
    (warning,) = lateness(*USUAL, *late).warnings
    assert "The client lagged" in warning
    assert "at most 200.0 ms" in warning


def test_lateness_that_is_little_beside_the_ttft_is_no_warning() -> None:
    slow = [turn(1, 10_000.0, holding=holding, late_ms=50.0) for holding in range(50)]
    assert lateness(*slow).warnings == ()


def test_turns_that_failed_were_late_too_but_not_those_of_the_warm_up_or_the_stop() -> None:
    late = [turn(outcome="timeout", late_ms=300.0), turn(outcome="refused", late_ms=300.0)]
    assert len(lateness(*USUAL, *late).warnings) == 1
    others = [turn(warmup=True, late_ms=300.0), turn(outcome="unfinished", late_ms=300.0)] * 5
    assert lateness(*USUAL, *others).warnings == ()


@pytest.mark.parametrize(
    ("told", "stolen", "warning"),
    [
        (
            over(stamped_by_kernel=False, read_lag_us={}, loop_lag_us=[30_000] * 100),
            None,
            "The client was busy",
        ),
        (over(read_lag_us={20: 10, 50_000: 10}), None, "The client read late"),
        (over(cpu_s=9.5), None, "used 95% of a core: raise --processes above 1"),
        (over(), 0.2, "host took 20% of its CPU time away"),
    ],
)
def test_other_troubles_are_named(told: Over, stolen: float | None, warning: str) -> None:
    (said,) = lateness(*USUAL, overs=(told,), stolen=stolen).warnings
    assert warning in said


def test_the_wait_for_a_slot_is_told_where_there_are_slots() -> None:
    held = [turn(holding=holding, held_ms=float(holding)) for holding in range(5)]
    open_loop: dict[str, Any] = {"arrivals": Arrivals("constant", 1.0)}
    found = lateness(*held, concurrency=1, **open_loop)
    assert found.held_ms is not None
    assert found.held_ms.max == 4.0
    assert lateness(*held, **open_loop).held_ms is None


def test_a_process_that_read_nothing_divides_by_nothing() -> None:
    found = lateness(overs=(over(wall_s=0.0, events=0, loop_lag_us=[], read_lag_us={}),))
    assert (found.cpu_share, found.cpu_us_per_event, found.loop_lag_ms, found.late_ms) == (
        0.0,
        None,
        None,
        None,
    )


def test_a_stage_lasts_to_the_end_of_its_last_turn_without_its_warm_up() -> None:
    run = StageRun(Plan(url="http://h", model="m", conversations=(), warmup_s=1.0), 1)
    assert run.duration_s == 0.0
    run.turns = [turn(due_s=2.0, e2e_ms=500.0), turn(due_s=1.5, e2e_ms=100.0), turn(due_s=9.0, warmup=True)]
    assert run.duration_s == 1.5


def test_few_conversations_at_a_time_need_few_processes() -> None:
    def processes(**plan: Any) -> int:
        return default_processes(Plan(url="http://h", model="m", conversations=(), **plan))

    assert processes(concurrency=1) == 1
    assert processes(concurrency=1, arrivals=Arrivals("constant", 1.0)) == 1
    assert 1 <= processes(concurrency=500) <= 8
    assert processes(arrivals=Arrivals("constant", 1.0)) >= 1
