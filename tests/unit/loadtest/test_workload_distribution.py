from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.errors import OptionError
from loadtest.workload.distribution import MAX_VALUE, parse_distribution


def draws(text: str, n: int = 4_000) -> list[float]:
    distribution, source = parse_distribution(text), random.Random(1)
    return [distribution.draw(source) for _ in range(n)]


def test_a_number_is_always_drawn() -> None:
    assert set(draws("200")) == {200.0}
    assert set(draws("0")) == {0.0}


def test_uniform_lies_between_its_bounds() -> None:
    drawn = draws(" 100..300 ")
    assert min(drawn) >= 100
    assert max(drawn) <= 300
    assert statistics.mean(drawn) == pytest.approx(200, abs=10)


def test_normal_has_its_mean_and_deviation() -> None:
    drawn = draws("normal(200,50)")
    assert statistics.mean(drawn) == pytest.approx(200, abs=10)
    assert statistics.stdev(drawn) == pytest.approx(50, rel=0.1)


def test_lognormal_has_its_median_and_spread() -> None:
    drawn = sorted(draws("lognormal(200, 0.5)"))
    assert statistics.median(drawn) == pytest.approx(200, rel=0.1)
    # One standard deviation above the median of the logarithm: a factor of e**0.5.
    assert drawn[int(0.8413 * len(drawn))] == pytest.approx(329.7, rel=0.1)


def test_exponential_has_its_mean() -> None:
    drawn = draws("exponential(2)")
    assert statistics.mean(drawn) == pytest.approx(2, rel=0.15)
    assert statistics.median(drawn) == pytest.approx(1.386, rel=0.15)


def test_when_there_are_bounds_then_draws_are_moved_to_them() -> None:
    drawn = draws("lognormal(200,1)[150 .. 250.5]")
    assert min(drawn) == 150
    assert max(drawn) == 250.5


def test_no_draw_is_negative_or_endless() -> None:
    assert min(draws("normal(1,10)")) == 0.0
    assert max(draws("lognormal(1000000000,10)")) == MAX_VALUE


def test_equal_sources_draw_equally() -> None:
    assert draws("lognormal(200,0.5)") == draws("lognormal(200,0.5)")


@pytest.mark.parametrize(
    "text", ["200", "1..2", "normal(200,50)", "lognormal(2, .5)[1..3]", "exponential(2)"]
)
def test_the_text_comes_back(text: str) -> None:
    assert str(parse_distribution(text)) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no distribution"),
        ("-1", "no distribution"),
        ("nan", "no distribution"),
        ("inf", "no distribution"),
        ("1e3", "no distribution"),
        ("1_000", "no distribution"),
        ("٣", "no distribution"),
        ("2s", "no distribution"),
        ("300..100", "300 is more than 100"),
        ("normal(200)", "normal takes two numbers"),
        ("exponential(2,3)", "exponential takes one number"),
        ("exponential(0)", "mean must be more than 0"),
        ("lognormal(0,1)", "median must be more than 0"),
        ("lognormal(1,11)", "at most 10"),
        ("pareto(1,2)", "'pareto' is no distribution"),
        ("normal(200,50", "no distribution"),
        ("200[5..1]", "bounds are empty"),
        ("200[1..2][3..4]", "no distribution"),
        ("9999999999", "over 1,000,000,000"),
        ("5[1..9999999999]", "over 1,000,000,000"),
    ],
)
def test_what_is_no_distribution_is_an_error_that_names_the_option(text: str, reason: str) -> None:
    with pytest.raises(OptionError, match=reason) as caught:
        parse_distribution(text, "--pause")
    assert str(caught.value).startswith(f"--pause {text!r}: ")
    assert "Expected 200, 100..300" in str(caught.value)


@given(st.text(alphabet="0123456789.,()[]- normalexpti", max_size=30))
def test_any_text_is_a_distribution_or_an_error(text: str) -> None:
    try:
        distribution = parse_distribution(text)
    except OptionError:
        return
    assert 0 <= distribution.draw(random.Random(1)) <= MAX_VALUE
