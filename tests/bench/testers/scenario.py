"""What every tester is asked to do. Times in seconds unless named otherwise; all requests are streamed chat completions."""

from __future__ import annotations

from typing import Literal

import msgspec

Name = Literal["steady", "capped", "flood", "role"]

PROMPT_TOKENS = 100
MODEL = "simulated"


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A closed loop of `concurrency` requests at a time, or, with a rate, constant arrivals with that many at most."""

    name: Name
    shows: str
    concurrency: int
    requests: int
    tokens: int
    """Of every answer; the same number of events with text."""
    rate_per_s: float | None = None
    ttft_ms: float = 50.0
    interval_ms: float = 10.0
    costs: bool = False
    """There are events enough to divide the client's CPU time by."""
    one_core: bool = False
    """The client gets one core, and the target the other; else it runs where the system puts it."""
    role_first: bool = False
    """The target sends its role chunk at once, and not with the first token."""

    @property
    def service_s(self) -> float:
        return (self.ttft_ms + (self.tokens - 1) * self.interval_ms) / 1_000


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        name="steady",
        shows="what each says of a load that it can hold",
        concurrency=32,
        requests=928,
        tokens=64,
        costs=True,
    ),
    Scenario(
        name="capped",
        shows="who says what users wait when requests come faster than a capped client sends them",
        concurrency=1,
        # An odd number: its median is one of the samples, by whatever rule a tester takes it.
        requests=25,
        tokens=64,
        rate_per_s=4.0,
    ),
    Scenario(
        name="flood",
        shows="how many events a second each takes in on one core",
        concurrency=200,
        requests=1_200,
        tokens=256,
        costs=True,
        one_core=True,
    ),
    Scenario(
        name="role",
        shows="who takes a role chunk without text for the first token",
        concurrency=4,
        requests=48,
        tokens=32,
        ttft_ms=200.0,
        role_first=True,
    ),
)


def shortened(scenario: Scenario) -> Scenario:
    """To see that everything works: too short for figures."""
    rounds = 1 if scenario.name == "flood" else 2
    fewer = 6 if scenario.rate_per_s else scenario.concurrency * rounds
    return msgspec.structs.replace(scenario, requests=min(scenario.requests, fewer))
