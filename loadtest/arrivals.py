"""When conversations begin in an open loop: at times of their own, whatever became of those before.

| kind | gaps between arrivals |
| --- | --- |
| `constant` | all the same; the first arrival is at 0 |
| `poisson` | exponential: independent users |
| `gamma` | gamma with shape `burstiness` and the same mean: 1 is Poisson, lower is burstier, higher is more even |
| `trace` | as the workload says, divided by `speed` |

`burstiness` means what it means in `vllm bench serve --burstiness`: the coefficient of variation of the gaps is
1/sqrt(burstiness). Unlike there, the times are not stretched to make the mean of the run the rate exactly: a Poisson
process has runs that are busier than others.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from loadtest.errors import OptionError, WorkloadError
from loadtest.workload.conversation import Conversation

ArrivalKind = Literal["constant", "poisson", "gamma", "trace"]

RATES_PER_S = (1e-6, 1e6)
BURSTINESSES = (0.01, 1e6)
SPEEDS = (1e-6, 1e6)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Raises `OptionError` for values that make no process."""

    kind: ArrivalKind
    rate_per_s: float | None = None
    """Mean rate of conversations begun; a trace has none."""
    burstiness: float = 1.0
    """Of `gamma`."""
    speed: float = 1.0
    """Of `trace`: 2 replays it in half the time."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(ArrivalKind):
            raise OptionError(
                f"--arrivals {self.kind!r}: expected one of {', '.join(get_args(ArrivalKind))}."
            )
        if self.kind == "trace":
            if self.rate_per_s is not None:
                raise OptionError("--arrivals trace has its own rate: leave --rate out, or use --speed.")
            _check("--speed", self.speed, SPEEDS)
        elif self.rate_per_s is None:
            raise OptionError(f"--arrivals {self.kind} needs --rate, the conversations begun per second.")
        else:
            _check("--rate", self.rate_per_s, RATES_PER_S)
        if self.kind == "gamma":
            _check("--burstiness", self.burstiness, BURSTINESSES)


def _check(what: str, value: float, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not low <= value <= high:  # also when it is not a number
        raise OptionError(f"{what} is {value:g}. Expected a number from {low:g} to {high:g}.")


def due_times(arrivals: Arrivals, seed: int) -> Iterator[float]:
    """Seconds after the beginning, non-decreasing, endless. A trace's are `trace_due_times`: here it is a `ValueError`."""
    rate_per_s = arrivals.rate_per_s
    if rate_per_s is None:
        raise ValueError("a trace's due times come from its conversations")
    if arrivals.kind == "constant":
        # Divided anew each time, so that no error adds up.
        return (number / rate_per_s for number in itertools.count())
    source = random.Random(f"arrivals {seed}")
    if arrivals.kind == "poisson":
        return _sums(lambda: source.expovariate(rate_per_s))
    shape = arrivals.burstiness
    return _sums(lambda: source.gammavariate(shape, 1 / (rate_per_s * shape)))


def _sums(draw_gap: Callable[[], float]) -> Iterator[float]:
    due_s = 0.0
    while True:
        due_s += draw_gap()
        yield due_s


def trace_due_times(conversations: Sequence[Conversation], speed: float = 1.0) -> tuple[float, ...]:
    """When each of the conversations begins, seconds, non-decreasing.

    Raises `WorkloadError` when one has no time, or an earlier one than the conversation before it.
    """
    _check("--speed", speed, SPEEDS)
    times_s: list[float] = []
    for conversation in conversations:
        if conversation.due_s is None:
            raise WorkloadError(
                f"conversation {conversation.conversation_id!r} of the workload has no time to begin at. "
                "Give every line of the trace a `timestamp`, or use --rate in place of --arrivals trace."
            )
        if times_s and conversation.due_s / speed < times_s[-1]:
            raise WorkloadError(
                f"conversation {conversation.conversation_id!r} of the workload begins before the one that precedes it. "
                "Order the trace by time."
            )
        times_s.append(conversation.due_s / speed)
    return tuple(times_s)
