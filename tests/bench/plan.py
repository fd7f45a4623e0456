"""What passes between the bench and its measuring client, as JSON on standard input and output."""

from __future__ import annotations

import msgspec


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the measuring client. Each stream is one connection that sends its bodies one after the other."""

    port: int
    bodies: list[list[str]]
    """(streams, turns) JSON bodies."""
    tokens: int
    """Every answer must have exactly so many."""
    interval_s: float
    """The source's time between two tokens of one answer."""
    spread_s: float
    """Streams start at random within it."""
    pause_s: float = 0.0
    """Between two turns of one connection: at random, up to this."""
    warmup: str | None = None
    """A body that each connection sends once before the clock starts."""
    cpu_pids: dict[str, list[int]] = {}
    """Processes whose CPU time is taken, by part: `gateway`, `target`."""
    cores: list[int] = []
    """Where the client runs; empty: anywhere."""
    seed: int = 0
    timeout_s: float = 120.0


class Spread(msgspec.Struct, frozen=True):
    """A distribution, in milliseconds."""

    n: int
    p50: float
    p90: float
    p99: float
    max: float


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a run, bounded by two CPU samples."""

    wall_s: float
    tokens: float
    tokens_per_s: float
    itl_ms: Spread
    cpu_us_per_token: dict[str, float]
    """By part, and `client` for the measuring client itself."""
    cpu_share: dict[str, float]
    """Of one core."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one run showed."""

    turns: int
    complete: int
    """Turns with exactly the expected tokens, one finish and `[DONE]`."""
    faults: dict[str, int]
    """What the others lacked."""
    tokens: int
    frames: int
    merged_frames: int
    """Frames that came with an earlier one of their stream in one read: somebody lagged."""
    wall_s: float
    """From the first request to the last frame."""
    ttft_ms: Spread | None
    whole: Window | None
    steady: Window | None
    """The second half of the stretch in which all streams were streaming: the rush of the first tokens is over.
    None for a gateway that did not keep its source's pace there: its streams run dry and flood by turns."""
    stolen_share: float = 0.0
    """Of the machine's CPU time, taken by its host."""
    others_share: float = 0.0
    """Of the machine's CPU time, taken by whatever else ran on it."""

    @property
    def window(self) -> Window | None:
        return self.steady or self.whole
