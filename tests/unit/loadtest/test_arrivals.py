from __future__ import annotations

import itertools
import math
import statistics

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.arrivals import Arrivals, due_times, trace_due_times
from loadtest.errors import OptionError, WorkloadError
from loadtest.workload.conversation import Conversation, UserTurn


def first(arrivals: Arrivals, n: int = 20_000, seed: int = 1) -> list[float]:
    return list(itertools.islice(due_times(arrivals, seed), n))


def gaps(arrivals: Arrivals) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise([0.0, *first(arrivals)])]


def variation(arrivals: Arrivals) -> float:
    return statistics.stdev(gaps(arrivals)) / statistics.mean(gaps(arrivals))


def due(*times_s: float | None) -> list[Conversation]:
    return [
        Conversation(f"c{number}", (UserTurn("q"),), due_s=time_s) for number, time_s in enumerate(times_s)
    ]


def test_constant_arrivals_stay_exact_however_long_the_run() -> None:
    times_s = first(Arrivals("constant", 10.0), 100_001)
    assert times_s[:3] == [0.0, 0.1, 0.2]
    assert times_s[100_000] == 10_000.0


@pytest.mark.parametrize(
    ("arrivals", "coefficient"),
    [
        (Arrivals("poisson", 5.0), 1.0),
        (Arrivals("gamma", 5.0, burstiness=1.0), 1.0),
        (Arrivals("gamma", 5.0, burstiness=0.25), 2.0),
        (Arrivals("gamma", 5.0, burstiness=16.0), 0.25),
    ],
)
def test_the_rate_and_the_burstiness_are_as_asked(arrivals: Arrivals, coefficient: float) -> None:
    assert statistics.mean(gaps(arrivals)) == pytest.approx(0.2, rel=0.1)
    assert variation(arrivals) == pytest.approx(coefficient, rel=0.1)


def test_a_poisson_process_has_gaps_without_memory() -> None:
    drawn = gaps(Arrivals("poisson", 1.0))
    for bound in (0.5, 1.0, 2.0):
        share = sum(gap > bound for gap in drawn) / len(drawn)
        assert share == pytest.approx(math.exp(-bound), rel=0.1)


@given(
    st.sampled_from(["constant", "poisson", "gamma"]),
    st.floats(1e-6, 1e6),
    st.floats(0.01, 1e6),
    st.integers(0, 2**32),
)
def test_due_times_never_decrease_and_repeat_for_a_seed(
    kind: str, rate: float, burstiness: float, seed: int
) -> None:
    arrivals = msgspec.convert({"kind": kind, "rate_per_s": rate, "burstiness": burstiness}, Arrivals)
    times_s = first(arrivals, 50, seed)
    assert times_s[0] >= 0
    assert times_s == sorted(times_s)
    assert all(map(math.isfinite, times_s))
    assert times_s == first(arrivals, 50, seed)


def test_another_seed_gives_other_times() -> None:
    assert first(Arrivals("poisson", 1.0), 5, seed=1) != first(Arrivals("poisson", 1.0), 5, seed=2)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kind": "constant"}, "--arrivals constant needs --rate"),
        ({"kind": "weekly", "rate_per_s": 1.0}, "expected one of constant, poisson, gamma, trace"),
        ({"kind": "poisson", "rate_per_s": 0.0}, "--rate is 0"),
        ({"kind": "poisson", "rate_per_s": -1.0}, "--rate is (-1|inf)"),
        ({"kind": "poisson", "rate_per_s": math.nan}, "--rate is nan"),
        ({"kind": "poisson", "rate_per_s": math.inf}, "--rate is (-1|inf)"),
        ({"kind": "gamma", "rate_per_s": 1.0, "burstiness": 0.0}, "--burstiness is 0"),
        ({"kind": "gamma", "rate_per_s": 1.0, "burstiness": math.nan}, "--burstiness is nan"),
        ({"kind": "trace", "speed": 0.0}, "--speed is 0"),
        ({"kind": "trace", "rate_per_s": 1.0}, "trace has its own rate"),
    ],
)
def test_values_that_make_no_process_are_errors(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        Arrivals(**fields)  # what a command line may pass


def test_a_trace_is_replayed_at_its_speed() -> None:
    assert trace_due_times(due(0.0, 1.0, 1.0, 5.0)) == (0.0, 1.0, 1.0, 5.0)
    assert trace_due_times(due(0.0, 1.0, 5.0), speed=2.0) == (0.0, 0.5, 2.5)


@pytest.mark.parametrize("times_s", [(None,), (0.0, None)])
def test_when_the_workload_has_no_times_then_a_trace_cannot_be_replayed(
    times_s: tuple[float | None, ...],
) -> None:
    with pytest.raises(
        WorkloadError, match=r"has no time to begin at\. Give every line of the trace a `timestamp`"
    ):
        trace_due_times(due(*times_s))


def test_when_the_times_decrease_then_it_is_an_error() -> None:
    with pytest.raises(WorkloadError, match="'c2' of the workload begins before"):
        trace_due_times(due(0.0, 2.0, 1.0))


def test_a_trace_has_no_due_times_without_its_conversations() -> None:
    with pytest.raises(ValueError, match="come from its conversations"):
        due_times(Arrivals("trace"), 1)


def test_arrivals_pass_through_json_unchanged() -> None:
    arrivals = Arrivals("gamma", 2.0, burstiness=0.5)
    assert msgspec.json.decode(msgspec.json.encode(arrivals), type=Arrivals) == arrivals
