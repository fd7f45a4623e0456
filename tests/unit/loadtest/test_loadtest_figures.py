"""Distributions, their confidence, and the counts that must add up."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from typing import Any, get_args

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st
from loadtest_made import turn

from loadtest.figures.confidence import FEWEST_CLUSTERS, Floats, interval, resample
from loadtest.figures.distribution import PERCENTS, by_conversation, distribution_of, itl_ms
from loadtest.figures.histogram import HIGHEST_US, Histogram
from loadtest.figures.summary import histograms_of, summarise
from loadtest.figures.turn_result import Outcome, ServerTiming, TurnResult

milliseconds = st.floats(0.001, 3_600_000.0)


@settings(max_examples=25)
@given(values=st.lists(milliseconds, min_size=1, max_size=300))
def test_percentiles_are_those_of_the_samples_within_a_thousandth(values: list[float]) -> None:
    found = distribution_of([np.asarray(values)])
    assert found is not None
    ordered = sorted(values)
    for percent, name in zip(PERCENTS, ("p50", "p90", "p95", "p99", "p999"), strict=True):
        # The least sample at or below which so many lie; in fractions, which do not round.
        exact = ordered[math.ceil(Fraction(str(percent)) * len(values) / 100) - 1]
        assert getattr(found, name) == pytest.approx(exact, rel=0.001, abs=0.001)
    assert found.max == max(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(float(np.mean(values)))
    assert found.p50 <= found.p90 <= found.p95 <= found.p99 <= found.p999 <= found.max


def test_the_p99_of_few_samples_is_the_largest() -> None:
    for n in (2, 51, 99):
        assert Histogram.of_ms(range(1, n + 1)).percentile_ms(99) == pytest.approx(n, rel=0.001)
    assert Histogram.of_ms(range(1, 101)).percentile_ms(99) == pytest.approx(99, rel=0.001)


def test_large_samples_have_numpys_percentiles() -> None:
    values = np.random.default_rng(5).lognormal(4, 1, 20_000)
    found = distribution_of([values])
    assert found is not None
    expected = np.percentile(values, PERCENTS)
    assert [found.p50, found.p90, found.p95, found.p99, found.p999] == pytest.approx(expected, rel=0.003)


def test_differences_may_be_negative_and_are_exact() -> None:
    found = distribution_of([np.asarray([-3.0, -1.0, 5.0])])
    assert found is not None
    assert (found.p50, found.max) == (-1.0, 5.0)
    assert found.mean == pytest.approx(1 / 3)
    assert distribution_of([]) is None


@settings(max_examples=20)
@given(a=st.lists(milliseconds, max_size=50), b=st.lists(milliseconds, max_size=50))
def test_a_histogram_reads_back_and_adds_up(a: list[float], b: list[float]) -> None:
    added, together = Histogram.of_ms(a), Histogram.of_ms([*a, *b])
    added.add(Histogram.of_ms(b))
    assert added.n == together.n == len(a) + len(b)
    for percent in (0, 10, 50, 99, 100):
        assert added.percentile_ms(percent) == together.percentile_ms(percent)
    read = [HdrHistogram.decode(Histogram.of_ms(values).encode().encode()) for values in (a, b, [*a, *b])]
    read[0].add(read[1])
    assert read[0].total_count == read[2].total_count == len(a) + len(b)
    for percent in (10, 50, 99):
        assert read[0].get_value_at_percentile(percent) == read[2].get_value_at_percentile(percent)


def test_values_outside_a_histogram_count_as_its_bounds() -> None:
    histogram = Histogram.of_ms([0.0, 1e12])
    assert histogram.n == 2
    assert histogram.percentile_ms(50) == pytest.approx(0.001)
    assert histogram.percentile_ms(100) == pytest.approx(HIGHEST_US / 1_000, rel=0.001)
    assert Histogram.of_ms([]).n == 0


def simulated(draws: np.random.Generator, conversations: int, turns: int, correlated: bool) -> list[Floats]:
    """Log-normal; either all of a conversation's variance is shared by its turns, or half, or none."""
    shared = draws.normal(0, 0.5 if correlated else 0.0, (conversations, 1))
    own = draws.normal(0, 0.5, (conversations, turns))
    return list(np.exp(shared + own) * 100)


def covered(correlated: bool, percent: float, truth: float, runs: int = 100) -> float:
    draws = np.random.default_rng(7)
    hits = 0
    for seed in range(runs):
        found = resample(simulated(draws, 40, 5, correlated), (percent,), seed)
        assert found is not None
        bounds = interval(found[:, 0])
        hits += bounds.low <= truth <= bounds.high
    return hits / runs


@pytest.mark.parametrize("correlated", [True, False])
def test_an_interval_holds_the_true_median_about_95_times_in_100(correlated: bool) -> None:
    assert 0.88 <= covered(correlated, 50, truth=100.0) <= 0.99


def test_an_interval_that_knew_nothing_of_conversations_would_be_too_narrow() -> None:
    clusters = simulated(np.random.default_rng(1), 60, 20, correlated=True)
    alone = [np.asarray([value]) for cluster in clusters for value in cluster]
    whole, apart = resample(clusters, (50.0,)), resample(alone, (50.0,))
    assert whole is not None
    assert apart is not None
    widths = [bounds.high - bounds.low for bounds in (interval(whole[:, 0]), interval(apart[:, 0]))]
    assert widths[0] > 2 * widths[1]


def test_below_ten_conversations_nothing_is_said() -> None:
    clusters = [np.asarray([float(number)]) for number in range(1, FEWEST_CLUSTERS + 1)]
    few, enough = distribution_of(clusters[1:]), distribution_of(clusters)
    assert few is not None
    assert enough is not None
    assert (few.p50_ci, few.p99_ci) == (None, None)
    assert enough.p50_ci is not None
    assert enough.p50_ci.low <= enough.p50 <= enough.p50_ci.high
    assert enough.p99_ci is not None
    assert enough.p99_ci.high <= 10.0


def test_many_values_and_many_conversations_are_binned_and_joined_without_moving_the_middle() -> None:
    draws = np.random.default_rng(3)
    clusters = list(draws.exponential(100, (1_000, 20)))
    found = resample(clusters, (50.0, 99.0))
    assert found is not None
    exact = np.percentile(np.concatenate(clusters), [50, 99])
    for column in (0, 1):
        bounds = interval(found[:, column])
        assert bounds.low < exact[column] < bounds.high
        assert bounds.high - bounds.low < 0.2 * exact[column]


def test_a_conversation_held_twice_is_two_of_them_and_its_turns_are_one() -> None:
    turns = [
        turn(1, 1.0, holding=0),
        turn(2, 2.0, holding=0),
        turn(1, 3.0, holding=1),
        turn(1, None, holding=2),
    ]
    clusters = by_conversation(turns, lambda one: one.ttft_ms)
    assert [cluster.tolist() for cluster in clusters] == [[1.0, 2.0], [3.0]]
    assert [cluster.tolist() for cluster in by_conversation(turns[:1], itl_ms)] == [[10.0, 20.0]]


def test_failed_and_warm_up_turns_are_counted_but_in_no_latency() -> None:
    summary = summarise(
        [
            turn(warmup=True, ttft_ms=9000.0),
            turn(outcome="connection", status=None, detail="refused", warmup=True),
            turn(1, 100.0, prompt_tokens=100, cached_tokens=0),
            turn(2, 50.0, prompt_tokens=300, cached_tokens=150, late_ms=1.0, held_ms=0.5,
                 server=ServerTiming("firstword", 46.5, {"embed": 2.0, "prefill": 40.0})),
            turn(2, None, itl_us=(), output_tokens=0, output_tokens_from="deltas"),
            turn(2, 7000.0, outcome="refused", status=429, detail="queue full"),
            turn(2, 7000.0, outcome="http_error", status=500, detail="boom"),
            turn(2, 7000.0, outcome="refused", status=429, detail="queue still full"),
            turn(2, 7000.0, outcome="unfinished"),
        ],
        duration_s=2.0,
        not_sent=4,
        goodput=None,
    )  # fmt: skip
    assert (summary.turns, summary.ok, summary.failed, summary.refused) == (6, 3, 3, 2)
    assert (summary.unfinished, summary.not_sent, summary.without_token) == (1, 4, 1)
    assert (summary.warmup_turns, summary.warmup_failed, summary.turns_counting_deltas) == (2, 1, 1)
    assert (summary.error_rate, summary.refusal_rate) == (1 / 6, 2 / 6)
    assert summary.ttft_ms is not None
    assert (summary.ttft_ms.n, summary.ttft_ms.max) == (2, 100.0)
    assert [(kind.outcome, kind.status, kind.count, kind.example) for kind in summary.errors] == [
        ("http_error", 500, 1, "boom"),
        ("refused", 429, 2, "queue full"),
    ]
    assert [(index.turn, index.cached_share, index.prompt_tokens) for index in summary.ttft_by_turn] == [
        (1, 0.0, 100),
        (2, 0.5, 300),
    ]
    assert summary.cached_share == pytest.approx(150 / 400)
    assert summary.client_minus_server_ttft_ms is not None
    assert summary.client_minus_server_ttft_ms.p50 == pytest.approx(2.0, rel=0.001)
    assert summary.phases_ms == {"embed": 2.0, "prefill": 40.0}
    assert summary.itl_ms is not None
    assert summary.itl_ms.n == 4
    assert (summary.output_tokens, summary.output_tokens_per_s, summary.turns_per_s) == (6, 3.0, 1.5)


def test_a_run_in_which_everything_failed_has_a_summary_too() -> None:
    summary = summarise([turn(outcome="timeout")], duration_s=0.0, not_sent=0, goodput=None)
    assert (summary.ttft_ms, summary.ttft_by_turn, summary.output_tokens_per_s) == (None, (), None)
    assert summarise([], duration_s=0.0, not_sent=0, goodput=None).error_rate == 0.0


one_turn: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "outcome": st.sampled_from(get_args(Outcome)),
        "warmup": st.booleans(),
        "number": st.integers(1, 4),
        "holding": st.integers(0, 15),
        "status": st.sampled_from([None, 200, 429, 500]),
        "ttft_ms": st.one_of(st.none(), st.floats(0.001, 1e5)),
    }
)


@settings(max_examples=40)
@given(st.lists(one_turn, max_size=40), st.integers(0, 9))
def test_no_turn_is_dropped_and_none_counted_twice(made: list[dict[str, Any]], not_sent: int) -> None:
    turns: list[TurnResult] = [turn(**fields) for fields in made]
    summary = summarise(turns, duration_s=1.0, not_sent=not_sent, goodput=None)
    assert summary.ok + summary.failed + summary.unfinished + summary.warmup_turns == len(turns)
    assert summary.turns == summary.ok + summary.failed
    assert sum(kind.count for kind in summary.errors) == summary.failed
    assert summary.not_sent == not_sent
    counts = Counter(one.outcome for one in turns if not one.warmup)
    assert (summary.ok, summary.refused, summary.unfinished) == (
        counts["ok"],
        counts["refused"],
        counts["unfinished"],
    )
    with_ttft = 0 if summary.ttft_ms is None else summary.ttft_ms.n
    assert with_ttft + summary.without_token == summary.ok
    assert sum(0 if index.ttft_ms is None else index.ttft_ms.n for index in summary.ttft_by_turn) == with_ttft
    histograms = histograms_of(turns)
    assert _count(histograms.ttft_us) == with_ttft
    assert _count(histograms.e2e_us) == summary.ok
    assert sum(map(_count, histograms.ttft_us_by_turn.values())) == with_ttft


def _count(encoded: str) -> int:
    return int(HdrHistogram.decode(encoded.encode()).total_count)
