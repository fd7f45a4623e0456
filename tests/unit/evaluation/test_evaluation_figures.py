"""Summaries of turns: paired, by part and by turn, with intervals that hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_made import observation

from server.evaluation import figures
from server.evaluation.figures import Estimate, Mode, Observation, by_turn, common_turns, summaries


def measures(observations: list[Observation], mode: Mode, part: str = "all turns") -> dict[str, Estimate]:
    [found] = [row for row in summaries(observations) if (row.mode, row.part) == (mode, part)]
    return found.measures


def test_only_turns_that_every_mode_has_finished_are_compared() -> None:
    seen = [
        observation("system", "a", 1),
        observation("append", "a", 1),
        observation("system", "a", 2),  # append broke off here
        observation("append", "b", 1),
    ]
    assert common_turns(seen) == seen[:2]
    assert {(row.mode, row.part, row.turns) for row in summaries(seen)} == {
        (mode, part, 1) for mode in ("system", "append") for part in ("turn 1", "all turns")
    }


def test_a_mode_that_finished_nothing_does_not_empty_the_others() -> None:
    assert len(common_turns([observation("system"), observation("system", turn=2)])) == 2
    assert summaries([]) == by_turn([]) == ()


def test_means_are_over_turns_and_the_cached_share_is_of_all_tokens() -> None:
    seen = [
        observation(turn=1, ttft_ms=100.0, prompt_tokens=1_000, cached_tokens=0),
        observation(turn=2, ttft_ms=200.0, prompt_tokens=3_000, cached_tokens=3_000, tpot_ms=None),
    ]
    found = measures(seen, "system")
    assert found["ttft_mean_ms"].value == 150
    assert found["cached_share"].value == 0.75
    assert found["computed_tokens"].value == 500
    assert (found["tpot_ms"].value, found["tpot_ms"].n) == (10, 1)
    assert "names_relevant" not in found
    assert measures(seen, "system", "turns 2+")["ttft_mean_ms"].value == 200
    assert [(row.turn, row.measures["ttft_p50_ms"].value) for row in by_turn(seen)] == [(1, 100), (2, 200)]


def test_the_usual_layout_is_compared_with_nothing_and_the_others_with_it() -> None:
    seen = [observation("system", ttft_ms=100.0, f1=0.5), observation("append", ttft_ms=25.0, f1=0.6)]
    assert measures(seen, "system")["ttft_mean_ms"].ratio is None
    found = measures(seen, "append")
    assert found["ttft_mean_ms"].ratio == found["ttft_p50_ms"].ratio == 0.25
    assert found["f1"].difference == pytest.approx(0.1)


def test_a_ratio_is_taken_over_turns_that_have_the_measure_in_both_modes() -> None:
    seen = [
        observation("system", "a", tpot_ms=10.0),
        observation("append", "a", tpot_ms=11.0),
        observation("system", "b", tpot_ms=None),
        observation("append", "b", tpot_ms=99.0),
    ]
    found = measures(seen, "append")["tpot_ms"]
    assert found.value == 55
    assert found.ratio == pytest.approx(1.1)


def paired(n: int, seed: int = 0) -> list[Observation]:
    """TTFT differs widely between conversations, and is a quarter to within a few percent in each."""
    draws = np.random.default_rng(seed)
    seen = []
    for at in range(n):
        usual = float(draws.lognormal(5, 1))
        seen.append(observation("system", f"c{at}", ttft_ms=usual))
        seen.append(observation("append", f"c{at}", ttft_ms=usual * float(draws.normal(0.25, 0.01))))
    return seen


def test_intervals_are_paired_so_that_conversations_alike_in_both_modes_do_not_widen_a_ratio() -> None:
    found = measures(paired(60), "append")["ttft_mean_ms"]
    assert found.ci is not None
    assert found.ratio_ci is not None
    assert found.ratio_ci.low < 0.25 < found.ratio_ci.high
    width = found.ratio_ci.high / found.ratio_ci.low
    assert width < 1.1
    assert found.ci.high / found.ci.low > 1.3


def test_an_interval_holds_the_true_mean_about_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MEASURES", {"ttft_mean_ms": figures.MEASURES["ttft_mean_ms"]})
    holds = 0
    for seed in range(100):
        draws = np.random.default_rng(seed)
        seen = []
        for at in range(30):
            shift = draws.normal(0, 10)
            seen += [
                observation("system", f"c{at}", turn, ttft_ms=float(100 + shift + draws.normal(0, 1)))
                for turn in (1, 2)
            ]
        ci = measures(seen, "system")["ttft_mean_ms"].ci
        assert ci is not None
        holds += ci.low <= 100 <= ci.high
    assert 86 <= holds <= 100


def test_fewer_than_ten_conversations_have_no_interval() -> None:
    found = measures(paired(9), "append")["ttft_mean_ms"]
    assert (found.ci, found.ratio_ci, found.difference_ci) == (None, None, None)
    assert found.ratio is not None


def test_nothing_is_divided_by_a_usual_layout_that_shares_nothing() -> None:
    seen = [observation("system", cached_tokens=0), observation("append", cached_tokens=500)]
    found = measures(seen, "append")["cached_share"]
    assert found.ratio is None
    assert found.difference == 0.5
