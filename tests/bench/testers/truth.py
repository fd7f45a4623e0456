"""What the target knows: TTFT, gaps and rates of a run, from its log. Milliseconds, unless a name says otherwise.

Percentiles are those of the samples themselves, by linear interpolation, as numpy takes them.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from bench.testers.scenario import Scenario
from bench.testers.target import LoggedRequest

_decode_line = msgspec.json.Decoder(LoggedRequest).decode


class Spread(msgspec.Struct, frozen=True):
    mean: float
    p50: float
    p99: float

    @classmethod
    def of(cls, samples: list[float]) -> Spread | None:
        """None without samples."""
        if not samples:
            return None
        p50, p99 = np.percentile(samples, [50, 99])
        return cls(float(np.mean(samples)), float(p50), float(p99))


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    requests: int
    """Answered to the end."""
    cut: int
    """Requests whose reader went away before the end."""
    tokens: int
    begun_at: float
    """`perf_counter` seconds: the first request came in."""
    ended_at: float
    """The last token was sent."""
    ttft_ms: Spread | None
    """From the request's arrival to the first token's leaving."""
    itl_ms: Spread | None
    """Every gap between tokens; None where the target's log has none."""
    tpot_ms: Spread | None
    due_ttft_ms: Spread | None
    """From when the request was due, for those who wait behind a capped client; None in a closed loop."""
    due_e2e_ms: Spread | None

    @property
    def wall_s(self) -> float:
        return self.ended_at - self.begun_at

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.wall_s

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.wall_s


def read_log(path: Path) -> list[LoggedRequest]:
    """Raises `ValueError` with the number of a line that is none."""
    requests = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            requests.append(_decode_line(line))
        except msgspec.MsgspecError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return requests


def truth_of(requests: list[LoggedRequest], scenario: Scenario) -> Truth | None:
    """None when nothing was answered."""
    whole = [
        (request, request.first_token_at, request.last_token_at)
        for request in sorted(requests, key=lambda request: request.received_at)
        if request.outcome == "ok"
        and request.first_token_at is not None
        and request.last_token_at is not None
    ]
    if not whole:
        return None
    begun_at = whole[0][0].received_at
    due_ttft_ms: Spread | None = None
    due_e2e_ms: Spread | None = None
    if scenario.rate_per_s is not None:
        # The first request is sent when it is due; the others were due at even steps after it.
        due = [begun_at + position / scenario.rate_per_s for position in range(len(whole))]
        due_ttft_ms = Spread.of([(first - at) * 1e3 for (_, first, _), at in zip(whole, due, strict=True)])
        due_e2e_ms = Spread.of([(last - at) * 1e3 for (_, _, last), at in zip(whole, due, strict=True)])
    return Truth(
        requests=len(whole),
        cut=len(requests) - len(whole),
        tokens=sum(request.tokens for request in requests),
        begun_at=begun_at,
        ended_at=max(last for _, _, last in whole),
        ttft_ms=Spread.of([(first - request.received_at) * 1e3 for request, first, _ in whole]),
        itl_ms=Spread.of([gap / 1e3 for request, _, _ in whole for gap in request.gaps_us or ()]),
        tpot_ms=Spread.of(
            [
                (last - first) * 1e3 / (request.tokens - 1)
                for request, first, last in whole
                if request.tokens > 1
            ]
        ),
        due_ttft_ms=due_ttft_ms,
        due_e2e_ms=due_e2e_ms,
    )
