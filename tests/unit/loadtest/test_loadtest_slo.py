"""Bounds: every name, every unit, and what is none."""

from __future__ import annotations

import itertools

import pytest
from loadtest_made import turn

from loadtest.errors import OptionError
from loadtest.figures.document import Summary
from loadtest.figures.slo import parse_goodput, parse_slo
from loadtest.figures.summary import summarise
from loadtest.figures.turn_result import ServerTiming, TurnResult

LATENCIES = ("ttft", "sent_ttft", "ttfb", "itl", "tpot", "e2e", "server_ttft")
STATISTICS = ("mean", "p50", "p90", "p95", "p99", "p999", "max")


def summary_of(*turns: TurnResult, goodput: str | None = None) -> Summary:
    bounds = None if goodput is None else parse_goodput(goodput)
    return summarise(turns, duration_s=2.0, not_sent=0, goodput=bounds)


USUAL = summary_of(
    turn(1, 100.0, prompt_tokens=100, cached_tokens=25, server=ServerTiming("firstword", 90.0, {})),
    turn(2, None, outcome="refused", status=429),
    turn(2, None, outcome="http_error", status=500),
    turn(2, 300.0, late_ms=50.0, server=ServerTiming("firstword", 90.0, {})),
    goodput="ttft<200ms",
)


def met(bound: str, summary: Summary = USUAL) -> bool:
    (verdict,) = parse_slo(bound).judge(summary)
    assert verdict.bound == bound
    return verdict.met


@pytest.mark.parametrize("name", [f"{a}_{b}" for a, b in itertools.product(LATENCIES, STATISTICS)])
def test_every_latency_has_every_statistic(name: str) -> None:
    assert met(f"{name}<1000s")
    assert not met(f"{name}>1000s")


@pytest.mark.parametrize(
    ("bound", "is_met"),
    [
        ("ttft_max<=300ms", True),
        ("ttft_max<300ms", False),
        ("ttft_max<0.3s", False),
        ("ttft_max<0.301s", True),
        ("ttft_max>=300000us", True),
        ("ttft_max>300000µs", False),
        ("TTFT_Mean < 201 ms", True),
        ("sent_ttft_max<251ms", True),
        ("error_rate<26%", True),
        ("error_rate<0.25", False),
        ("error_rate<=0.25", True),
        ("refusal_rate<=25%", True),
        ("good_share>24%", True),
        ("good_share>0.25", False),
        ("cached_share>=25%", True),
        ("turns_per_s>=1", True),
        ("turns_per_s>1/s", False),
        ("output_tokens_per_s>=3/s", True),
        ("goodput_per_s>0.4", True),
        ("goodput_per_s>=0.6", False),
    ],
)
def test_a_bound_is_kept_or_not(bound: str, is_met: bool) -> None:
    assert met(bound) is is_met


def test_every_bound_is_judged_by_itself_and_tells_its_value() -> None:
    verdicts = parse_slo("ttft_max<1s, error_rate<0.1%").judge(USUAL)
    assert [(one.bound, one.value, one.met) for one in verdicts] == [
        ("ttft_max<1s", 0.3, True),
        ("error_rate<0.1%", 25.0, False),
    ]


@pytest.mark.parametrize(
    "bound",
    [
        "ttft_p99<1000s",
        "ttft_p99>0ms",
        "error_rate<100%",
        "turns_per_s<1000",
        "goodput_per_s>=0",
        "cached_share>=0%",
    ],
)
def test_nothing_measured_is_a_miss(bound: str) -> None:
    nothing = summarise([turn(outcome="unfinished")], duration_s=0.0, not_sent=1, goodput=None)
    (verdict,) = parse_slo(bound).judge(nothing)
    assert (verdict.value, verdict.met) == (None, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no bound"),
        ("ttft_p99", "is no bound"),
        ("ttft_p99<", "is no bound"),
        ("ttft_p99<-5ms", "is no bound"),
        ("ttft_p99<5e3ms", "is no bound"),
        ("ttft_p99==5ms", "is no bound"),
        ("ttft_p99<nan ms", "is no bound"),
        ("ttft_p99<5ms,", "'' is no bound"),
        ("ttft_p98<5ms", "knows no 'ttft_p98'"),
        ("ttft<5ms", "knows no 'ttft'"),
        ("latency_p99<5ms", "knows no 'latency_p99'"),
        ("ttft_p99<500", "is a time: give it in us, ms or s"),
        ("ttft_p99<5%", "is a time"),
        ("ttft_p99<5min", "is a time"),
        ("error_rate<5ms", "is a share"),
        ("turns_per_s>5%", "is a rate per second"),
    ],
)
def test_a_bound_that_is_none_is_named_with_an_example(text: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_slo(text)
    assert message in str(caught.value)
    assert str(caught.value).startswith("--slo: ")
    assert "An example: ttft_p99<500ms,error_rate<0.1%" in str(caught.value)


@pytest.mark.parametrize("text", ["ttft_p99<5ms", "itl<5ms", "error_rate<1%", "ttft<5", "ttft"])
def test_goodput_bounds_a_turn_and_says_so(text: str) -> None:
    with pytest.raises(OptionError, match=r"^--goodput: .*An example: ttft<500ms,tpot<50ms$"):
        parse_goodput(text)


@pytest.mark.parametrize(
    ("text", "one", "good"),
    [
        ("ttft<101ms,tpot<16ms,ttfb<6ms,e2e<201ms", turn(), True),
        ("ttft<100ms", turn(), False),
        ("ttft<101ms,e2e<200ms", turn(), False),
        ("ttft<1s", turn(1, None), False),
        ("tpot<1us", turn(itl_us=(), output_tokens=1), True),
        ("tpot<15ms", turn(), False),
        ("tpot<=15ms", turn(), True),
    ],
)
def test_a_turn_is_good_when_every_bound_is_kept(text: str, one: TurnResult, good: bool) -> None:
    assert parse_goodput(text).met_by(one) is good


def test_goodput_counts_good_turns_per_second_and_their_share_of_all_that_ended() -> None:
    assert (USUAL.goodput_per_s, USUAL.good_share) == (0.5, 0.25)
    assert summary_of(turn()).goodput_per_s is None
