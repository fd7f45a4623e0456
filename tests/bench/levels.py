"""How much is asked for: streams by tokens per second, of whom."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.contestants import Contestant, Name
from bench.plan import Plan

EVERYONE: tuple[Name, ...] = ("direct", "firstword", "naive", "litellm")
WITHOUT_LITELLM: tuple[Name, ...] = ("direct", "firstword", "naive")
"""LiteLLM is past its limit at 32 × 50/s."""


@dataclass(frozen=True, slots=True)
class Level:
    name: str
    streams: int
    rate_per_s: float
    """Tokens of one stream."""
    tokens: int
    """Of one answer."""
    who: tuple[Name, ...]
    turns: int = 1
    in_one_interval: bool = True
    """Streams start at random within one token interval; else within the time of one answer."""

    @property
    def interval_s(self) -> float:
        return 1 / self.rate_per_s

    @property
    def answer_s(self) -> float:
        return self.tokens * self.interval_s

    def plan(self, contestant: Contestant, cores: list[int], seed: int) -> Plan:
        bodies = [
            [contestant.body(f"Stream {stream}, turn {turn}.", self.tokens) for turn in range(self.turns)]
            for stream in range(self.streams)
        ]
        parts = {"gateway": contestant.server.pids}
        if contestant.upstream is not None:
            parts["target"] = contestant.upstream.pids
        return Plan(
            port=contestant.server.port,
            bodies=bodies,
            tokens=self.tokens,
            interval_s=self.interval_s,
            spread_s=self.interval_s if self.in_one_interval else self.answer_s,
            pause_s=self.interval_s,
            warmup=contestant.body("Warm up.", 2),
            cpu_pids=parts,
            cores=cores,
            seed=seed,
        )


LEVELS = (
    Level("8 × 50/s", 8, 50, 150, EVERYONE),
    Level("32 × 50/s", 32, 50, 200, EVERYONE),
    Level("first token, 1 stream", 1, 50, 2, EVERYONE, turns=20, in_one_interval=False),
    Level("first token, 32 streams", 32, 50, 40, EVERYONE, turns=3, in_one_interval=False),
    Level("32 × 100/s", 32, 100, 200, WITHOUT_LITELLM),
    Level("150 × 100/s", 150, 100, 200, WITHOUT_LITELLM),
)
SWEEP_STREAMS = (50, 100, 125, 150, 175, 200, 250, 300, 350, 400, 500, 600, 800, 1000)
"""At 100 tokens/s each, until two in a row are too many."""


def sweep_level(streams: int) -> Level:
    return Level(f"{streams} × 100/s", streams, 100, 250, ("firstword",))


def shortened(level: Level) -> Level:
    """For trying the bench out; its figures mean little."""
    return replace(level, tokens=max(2, level.tokens // 4), turns=min(level.turns, 5))
