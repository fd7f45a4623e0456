"""Wakes at exact moments of the one clock that everything is measured with: `time.perf_counter`, in seconds.

uvloop's own timers, and those of asyncio, come in whole milliseconds, which would make every turn up to one
millisecond late. Linux has timers of nanoseconds that a loop can wait for like for a socket (timerfd_create(2)). Where
there are none the loop's timers have to do, and the lateness shows in the report like any other.
"""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import itertools
import os
import sys
from collections.abc import Callable
from time import perf_counter

_CLOCK_MONOTONIC = 1
_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class Clock:
    """Calls back at moments, in the loop that runs now. Close it before the loop ends."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._armed_for = float("inf")
        self._closed = False
        self._libc: ctypes.CDLL | None = None
        self._fd = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
            if self._fd < 0:
                raise OSError(ctypes.get_errno(), "timerfd_create")
            self._loop.add_reader(self._fd, self._on_timer)

    def call_at(self, at: float, callback: Callable[[], None]) -> None:
        """Call soon after `at`, never before. A moment that has passed is one that is due now."""
        heapq.heappush(self._due, (at, next(self._order), callback))
        if at < self._armed_for:
            self._arm(at)

    async def until(self, at: float) -> None:
        """Returns at once when the moment has passed."""
        if at <= perf_counter():
            return
        woken = self._loop.create_future()
        self.call_at(at, lambda: None if woken.done() else woken.set_result(None))
        await woken

    def poll_busily(self) -> None:
        """Never let the loop sleep: what is due is called at once, at the cost of a whole core.

        A core that sleeps takes 0.1 ms to wake, and on a virtual machine whose host is busy sometimes several.
        """
        if self._due and self._due[0][0] <= perf_counter():
            self._on_due()
        if not self._closed:
            self._loop.call_soon(self.poll_busily)

    def close(self) -> None:
        """Nothing is called any more; whoever waits must be cancelled."""
        self._closed = True
        self._due.clear()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _arm(self, at: float) -> None:
        self._armed_for = at
        if self._libc is None:
            self._loop.call_later(max(0.0, at - perf_counter()), self._on_due)
            return
        if self._fd < 0:
            return
        # One nanosecond is the least that arms it: zero would disarm.
        nanoseconds = max(1, int(at * 1e9) + 1)
        when = _Itimerspec(_Timespec(0, 0), _Timespec(*divmod(nanoseconds, 1_000_000_000)))
        self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(when), None)

    def _on_timer(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # it was armed anew after it went off
            return
        self._on_due()

    def _on_due(self) -> None:
        self._armed_for = float("inf")
        while self._due and self._due[0][0] <= perf_counter():
            heapq.heappop(self._due)[2]()
        if self._due and self._due[0][0] < self._armed_for:
            self._arm(self._due[0][0])
