"""One monotonic clock per turn; its consecutive phases add up to the time to first token."""

from __future__ import annotations

import time
from typing import Literal, get_args

Phase = Literal[
    "admit", "recall", "embed", "search", "rerank", "assemble", "engine_queue", "prefill", "first_byte"
]
PHASES: tuple[Phase, ...] = get_args(Phase)


class TurnClock:
    """Starts when the request arrives. Ending a phase begins the next, so no moment is counted twice or lost."""

    __slots__ = ("_last_token_at", "_phase_started_at", "_speaks", "ended_ms", "started_at", "token_gaps_s")

    def __init__(self) -> None:
        self.started_at = time.monotonic()
        self._phase_started_at = self.started_at
        self.ended_ms: dict[Phase, float] = {}
        self.token_gaps_s: list[float] = []
        self._last_token_at: float | None = None
        self._speaks = False

    def end(self, phase: Phase, at: float | None = None) -> None:
        """The phase ended now, or at the monotonic time `at` (another process's clock is the same one)."""
        now = time.monotonic()
        moment = now if at is None else min(max(at, self._phase_started_at), now)
        self.ended_ms[phase] = self.ended_ms.get(phase, 0.0) + (moment - self._phase_started_at) * 1_000
        self._phase_started_at = moment

    def end_retrieval(self, embed_ms: float, rerank_ms: float) -> None:
        """Split what just passed into its three phases; the hops between threads count as search."""
        started_at = self._phase_started_at
        now = time.monotonic()
        self.end("embed", started_at + embed_ms / 1_000)
        self.end("search", now - rerank_ms / 1_000)
        self.end("rerank", now)

    def token(self) -> None:
        now = time.monotonic()
        if self._last_token_at is not None:
            self.token_gaps_s.append(now - self._last_token_at)
        self._last_token_at = now

    def speaks(self) -> None:
        """The frame that comes next holds the first text."""
        self._speaks = True

    def sent(self) -> None:
        """A frame was handed to the socket; the first that holds text ends the wait for the first token."""
        if self._speaks:
            self._speaks = False
            self.end("first_byte")

    @property
    def ttft_ms(self) -> float | None:
        """None until the first text was handed to the socket."""
        return sum(self.ended_ms.values()) if "first_byte" in self.ended_ms else None

    @property
    def elapsed_ms(self) -> float:
        return (time.monotonic() - self.started_at) * 1_000
