"""How far the server is, and the parts once they are open."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request

from server.errors import NotReady, ShuttingDown
from server.parts import Parts

State = Literal["ready", "starting", "down", "stopping"]


@dataclass(frozen=True, slots=True)
class Readiness:
    state: State
    phase: str
    """For people: "loading engine, 34 s"."""


class Gate:
    """Shut until the parts are open and the engine answers, and again while it does not."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self._announce = announce
        self._phase = "starting"
        self._phase_since = time.monotonic()
        self.parts: Parts | None = None

    def enter(self, phase: str) -> None:
        self._phase, self._phase_since = phase, time.monotonic()
        self._announce(phase)

    @property
    def readiness(self) -> Readiness:
        if self.parts is None:
            return Readiness("starting", f"{self._phase}, {time.monotonic() - self._phase_since:.0f} s")
        if self.parts.drain.begun:
            return Readiness("stopping", f"shutting down, {self.parts.drain.running_turns} turns to finish")
        status = self.parts.engine.status
        states: dict[str, State] = {"ready": "ready", "starting": "starting"}
        return Readiness(states.get(status.phase, "down"), status.detail)

    def open_parts(self) -> Parts:
        """For what needs no engine: lists, turns, passages. Raises `NotReady`."""
        if self.parts is None:
            raise NotReady(f"not ready yet: {self.readiness.phase}", retry_after_s=5)
        return self.parts

    def ready_parts(self) -> Parts:
        """For turns. Raises `NotReady` or `ShuttingDown`."""
        parts = self.open_parts()
        readiness = self.readiness
        if readiness.state == "stopping":
            raise ShuttingDown(readiness.phase, retry_after_s=5)
        if readiness.state != "ready":
            raise NotReady(f"not ready yet: {readiness.phase}", retry_after_s=5)
        return parts


def gate_of(request: Request) -> Gate:
    gate: Gate = request.app.state.gate
    return gate
