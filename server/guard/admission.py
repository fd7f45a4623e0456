"""A permit for each turn; when all are out a bounded queue, and beyond it a refusal at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from server.errors import Busy
from server.settings import AdmissionSettings


class Admission:
    """First come, first served. A turn that is cancelled while it waits leaves the queue."""

    def __init__(self, settings: AdmissionSettings) -> None:
        self._settings = settings
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.running_turns = 0

    @property
    def queued_turns(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def permit(self) -> AsyncGenerator[None, None]:
        """Raises `Busy` when the queue is full."""
        await self._acquire()
        try:
            yield
        finally:
            self._release()

    async def _acquire(self) -> None:
        if self.running_turns < self._settings.max_running_turns and not self._waiting:
            self.running_turns += 1
            return
        if len(self._waiting) >= self._settings.max_queued_turns:
            raise Busy(
                f"{self.running_turns} turns are running and {len(self._waiting)} wait; try again later",
                retry_after_s=self._settings.retry_after_s,
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()
            else:
                self._waiting.remove(turn)
            raise

    def _release(self) -> None:
        """A permit goes straight to the turn that has waited longest, so none can overtake it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running_turns -= 1
