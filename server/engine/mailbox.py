"""Where an engine leaves deltas for one reader; what the reader has not taken yet is merged."""

from __future__ import annotations

import asyncio
from typing import Protocol

from server.engine.protocol import Delta


class Inbox(Protocol):
    """Whom an engine hands deltas to, as they come. Neither call may raise or wait."""

    def put(self, delta: Delta) -> None: ...

    def fail(self, error: Exception) -> None:
        """Nothing follows."""
        ...


class Mailbox:
    """Bounded by the answers themselves: one delta an answer, however far the reader lags."""

    __slots__ = ("_error", "_loop", "_reader", "_unread")

    def __init__(self) -> None:
        # Asked for once: in Python 3.11 it costs a system call.
        self._loop = asyncio.get_running_loop()
        self._unread: list[Delta] = []
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None

    def put(self, delta: Delta) -> None:
        unread = self._unread
        for position, before in enumerate(unread):
            if before.index == delta.index:
                unread[position] = merge(before, delta)
                break
        else:
            unread.append(delta)
        self._wake()

    def fail(self, error: Exception) -> None:
        """The reader gets what is there, then the error."""
        if self._error is None:
            self._error = error
            self._wake()

    async def get(self) -> Delta:
        while not self._unread:
            if self._error is not None:
                raise self._error
            self._reader = self._loop.create_future()
            await self._reader
        return self._unread.pop(0)

    def _wake(self) -> None:
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)


def merge(first: Delta, second: Delta) -> Delta:
    """Two consecutive deltas of one answer as one."""
    return Delta(
        first.token_ids + second.token_ids,
        first.text + second.text,
        second.finish_reason,
        first.prefill or second.prefill,
        first.index,
        first.logprobs + second.logprobs,
    )
