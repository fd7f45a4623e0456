"""Shutting down: new turns are refused, running ones may finish inside the grace, the rest are aborted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager


class Drain:
    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._running: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._begun = asyncio.Event()

    @property
    def begun(self) -> bool:
        return self._begun.is_set()

    @property
    def running_turns(self) -> int:
        return len(self._running)

    async def begins(self) -> None:
        """Wait for the shutdown."""
        await self._begun.wait()

    @contextmanager
    def running(self, turn_id: str) -> Iterator[None]:
        self._running.add(turn_id)
        self._idle.clear()
        try:
            yield
        finally:
            self._running.discard(turn_id)
            if not self._running:
                self._idle.set()

    async def finish(self, abort: Callable[[str], Awaitable[None]]) -> None:
        """Wait for running turns, at most the grace, then end what is left with `abort(turn_id)`."""
        self._begun.set()
        try:
            async with asyncio.timeout(self._grace_s):
                await self._idle.wait()
        except TimeoutError:
            for turn_id in tuple(self._running):
                await abort(turn_id)
