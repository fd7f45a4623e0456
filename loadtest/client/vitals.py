"""What a measuring process knows of itself: its CPU time, and how late its timers came."""

from __future__ import annotations

import time
from collections.abc import Callable
from time import perf_counter

from loadtest.client.clock import Clock

_LAG_EVERY_S = 0.01


class Vitals:
    """Counts from `begin` on. A timer that comes late tells how long the loop was busy with something else."""

    def __init__(self, clock: Clock) -> None:
        self.lag_us: list[int] = []
        self.begin()
        every(clock, _LAG_EVERY_S, lambda late_s: self.lag_us.append(int(late_s * 1e6)))

    def begin(self) -> None:
        self._began, self._cpu_began = perf_counter(), time.process_time()
        self.lag_us.clear()

    @property
    def wall_s(self) -> float:
        return perf_counter() - self._began

    @property
    def cpu_s(self) -> float:
        return time.process_time() - self._cpu_began


def every(clock: Clock, period_s: float, action: Callable[[float], object]) -> None:
    """Call `action` with how late it was, once in a period, until the clock is closed. Missed times are not made up for."""

    def tick(due: float) -> None:
        now = perf_counter()
        action(now - due)
        next_due = max(due + period_s, now)
        clock.call_at(next_due, lambda: tick(next_due))

    first = perf_counter() + period_s
    clock.call_at(first, lambda: tick(first))
