"""The search for a rate, with a server that is a number."""

from __future__ import annotations

import asyncio

import pytest
from loadtest_made import make_stage, turn
from msgspec.structs import replace

from loadtest.figures.document import Stage, Verdict
from loadtest.sweep import find_rate, is_met, sweep_of

STAGE = make_stage([turn()])


def a_stage(rate_per_s: float, met: bool | None) -> Stage:
    verdicts = () if met is None else (Verdict("ttft_p99<1s", 1.0, met),)
    return replace(STAGE, name=f"{rate_per_s:g}/s", rate_per_s=rate_per_s, verdicts=verdicts)


def search(
    highest_per_s: float,
    *,
    start_per_s: float = 1.0,
    most_per_s: float = 1e5,
    precision: float = 0.1,
    stages: int = 99,
) -> tuple[list[float], float | None, float | None]:
    """Against a server that keeps its SLO up to a rate: what was tried, best, missed."""
    tried: list[float] = []

    async def run_at(rate_per_s: float) -> Stage | None:
        if len(tried) == stages:
            return None
        tried.append(rate_per_s)
        return a_stage(rate_per_s, rate_per_s <= highest_per_s)

    sweep = asyncio.run(
        find_rate(
            run_at, slo="ttft_p99<1s", start_per_s=start_per_s, most_per_s=most_per_s, precision=precision
        )
    )
    assert sweep.slo == "ttft_p99<1s"
    return tried, sweep.best_rate_per_s, sweep.first_missed_per_s


@pytest.mark.parametrize("highest_per_s", [0.03, 0.9, 1.0, 1.99, 37.0, 64.0, 999.0])
@pytest.mark.parametrize("start_per_s", [0.5, 1.0, 50.0])
def test_the_rate_is_found_within_the_precision(highest_per_s: float, start_per_s: float) -> None:
    tried, best, missed = search(highest_per_s, start_per_s=start_per_s)
    assert best is not None
    assert missed is not None
    assert best <= highest_per_s < missed <= best * 1.1
    assert {best, missed} <= set(tried)


def test_above_a_rate_that_was_missed_none_is_tried() -> None:
    tried, _, _ = search(37.0)
    missed = float("inf")
    for rate_per_s in tried:
        assert rate_per_s < missed
        missed = min(missed, rate_per_s if rate_per_s > 37.0 else missed)


def test_a_finer_precision_takes_more_stages() -> None:
    coarse, fine = search(37.0, precision=0.5), search(37.0, precision=0.02)
    assert len(coarse[0]) < len(fine[0])
    assert fine[2] is not None
    assert fine[1] is not None
    assert fine[2] / fine[1] <= 1.02


def test_when_none_meets_then_there_is_no_best_and_the_search_ends() -> None:
    tried, best, missed = search(0.0)
    assert best is None
    assert missed == min(tried)
    assert len(tried) <= 16


def test_when_all_meet_then_the_search_ends_at_the_most() -> None:
    tried, best, missed = search(1e9, most_per_s=100.0)
    assert (best, missed) == (100.0, None)
    assert tried == [1, 2, 4, 8, 16, 32, 64, 100]


def test_when_it_is_stopped_then_what_was_found_so_far_stands() -> None:
    assert search(37.0, stages=0) == ([], None, None)
    assert search(37.0, stages=4) == ([1, 2, 4, 8], 8, None)
    assert search(37.0, stages=7)[1:] == (32, 64)


def test_a_stage_without_verdicts_met_nothing() -> None:
    assert not is_met(a_stage(1.0, None))
    assert is_met(a_stage(1.0, True))
    assert not is_met(a_stage(1.0, False))


@pytest.mark.parametrize(
    ("rated", "best", "missed"),
    [
        ([(1, True), (2, True)], 2, None),
        ([(1, True), (2, False), (4, True)], 1, 2),
        ([(4, False), (1, True), (2, True)], 2, 4),
        ([(1, False), (2, False)], None, 1),
    ],
)
def test_given_rates_are_read_the_same_way(
    rated: list[tuple[float, bool]], best: float | None, missed: float | None
) -> None:
    sweep = sweep_of("x", [a_stage(float(rate_per_s), met) for rate_per_s, met in rated])
    assert (sweep.best_rate_per_s, sweep.first_missed_per_s) == (best, missed)
