"""So many calls a minute and key."""

from __future__ import annotations

import time
from collections import deque

_WINDOW_S = 60.0


class RateLimit:
    """A sliding window. Keys are those that the deployment configured, so there are few."""

    def __init__(self, calls_per_minute: int) -> None:
        self._most = calls_per_minute
        self._calls: dict[str, deque[float]] = {}

    def wait_s(self, tenant: str) -> float:
        """Counts a call and returns 0, or returns how long the tenant has to wait for its next."""
        now = time.monotonic()
        calls = self._calls.setdefault(tenant, deque())
        while calls and calls[0] <= now - _WINDOW_S:
            calls.popleft()
        if len(calls) >= self._most:
            return calls[0] + _WINDOW_S - now
        calls.append(now)
        return 0.0
