from __future__ import annotations

import itertools
import statistics
from collections import Counter

import pytest

from loadtest.arrivals import Arrivals, due_times
from loadtest.errors import OptionError, WorkloadError
from loadtest.workload.conversation import Conversation, UserTurn
from loadtest.workload.popularity import hold


def conversations(n: int) -> list[Conversation]:
    return [Conversation(str(number), (UserTurn("q"),)) for number in range(1, n + 1)]


def held(n: int, popularity: str | None, n_draws: int, seed: int = 1) -> list[str]:
    draws = hold(conversations(n), popularity, seed)
    return [one.conversation_id for one in itertools.islice(draws, n_draws)]


def test_without_a_popularity_the_workload_is_held_in_order_over_and_over() -> None:
    assert held(3, None, 7) == ["1", "2", "3", "1", "2", "3", "1"]


def test_uniform_draws_all_alike() -> None:
    counts = Counter(held(10, "uniform", 5_000))
    assert len(counts) == 10
    assert all(350 < count < 650 for count in counts.values())


def test_zipf_draws_by_rank() -> None:
    counts = Counter(held(100, "zipf(1)", 20_000))
    # The weights are 1/k, and their sum is 5.187.
    assert counts["1"] / 20_000 == pytest.approx(1 / 5.187, rel=0.1)
    assert counts["2"] / 20_000 == pytest.approx(1 / 2 / 5.187, rel=0.1)
    assert counts["10"] / 20_000 == pytest.approx(1 / 10 / 5.187, rel=0.25)


def test_a_higher_exponent_favours_the_first() -> None:
    assert held(1_000, "zipf(10)", 200).count("1") > 190


def test_a_seed_draws_the_same_again_and_another_seed_others() -> None:
    assert held(50, "zipf(1.1)", 100, seed=4) == held(50, "zipf(1.1)", 100, seed=4)
    assert held(50, "zipf(1.1)", 100, seed=4) != held(50, "zipf(1.1)", 100, seed=5)


def test_a_single_conversation_is_always_held() -> None:
    assert held(1, "zipf(0)", 3) == ["1", "1", "1"]


def test_a_hundred_thousand_conversations_are_drawn_from_to_the_last() -> None:
    drawn = [int(name) for name in held(100_000, "uniform", 2_000)]
    assert min(drawn) < 1_000
    assert max(drawn) > 99_000


@pytest.mark.parametrize(
    "text", ["", "zipf", "zipf()", "zipf(-1)", "zipf(nan)", "zipf(11)", "zipf(1,2)", "Uniform"]
)
def test_what_is_no_popularity_is_an_error_at_once(text: str) -> None:
    with pytest.raises(OptionError, match=r"expected uniform, or zipf\(1\.1\)"):
        hold(conversations(2), text, 1)


def test_no_conversations_are_an_error_at_once() -> None:
    with pytest.raises(WorkloadError, match="at least one"):
        hold([], None, 1)


def test_popularity_and_arrivals_of_one_seed_are_drawn_apart() -> None:
    """Else every long gap would be followed by an unpopular conversation."""
    times_s = itertools.islice(due_times(Arrivals("poisson", 1.0), 1), 2_001)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times_s)]
    ranks = [float(name) for name in held(1_000, "uniform", 2_001)]
    assert abs(statistics.correlation(gaps, ranks[1:])) < 0.2
