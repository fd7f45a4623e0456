"""Type-ahead: what the user has typed so far is sent while the next turn is not yet due, for servers that prefill it.

Nobody waits for these requests and none is in a latency; they are counted. A server that does not know the path (404 or
405) is asked no more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

from loadtest.client.clock import Clock
from loadtest.client.connections import Connections
from loadtest.client.request import Requests
from loadtest.plan import TypeAhead
from loadtest.workload.conversation import Message
from loadtest.workload.typing import partial_texts

_MOST_UNDER_WAY = 1_000


class _Answer:
    """A `Receiver` that keeps the status alone."""

    def __init__(self) -> None:
        self.status = 0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def first_byte(self, at: float) -> None:
        pass

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self.status = status

    def body(self, at: float, data: bytes) -> None:
        pass

    def over(self, at: float) -> None:
        self._finish()

    def broken(self, at: float, reason: str, malformed: bool) -> None:
        self.status = 0
        self._finish()

    def _finish(self) -> None:
        if not self.finished.done():
            self.finished.set_result(None)


class Prewarm:
    def __init__(
        self, type_ahead: TypeAhead | None, clock: Clock, connections: Connections, requests: Requests
    ) -> None:
        self._type_ahead = type_ahead
        self._clock = clock
        self._connections = connections
        self._requests = requests
        self._tasks: set[asyncio.Task[None]] = set()
        self.by_status: Counter[int] = Counter()
        """How many were answered with each status; 0: not at all."""
        self._unknown_here = False

    def typing_s(self, text: str) -> float:
        """How long the user types at it; 0 without type-ahead."""
        if self._type_ahead is None:
            return 0.0
        pieces = self._pieces(text, self._type_ahead)
        return pieces[0][0] + self._type_ahead.every_s if pieces else 0.0

    @contextmanager
    def typing(self, history: Sequence[Message], text: str, due: float) -> Iterator[None]:
        """While the turn is waited for, its beginnings are sent; those not yet sent when it is left are not sent."""
        if self._type_ahead is None or self._unknown_here:
            yield
            return
        typist = asyncio.create_task(self._type(list(history), text, due, self._type_ahead))
        try:
            yield
        finally:
            typist.cancel()

    async def close(self) -> None:
        """Ends those under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _type(self, history: list[Message], text: str, due: float, type_ahead: TypeAhead) -> None:
        for before_s, typed in self._pieces(text, type_ahead):
            if due - before_s < perf_counter() - type_ahead.every_s:
                continue  # there was no time to type it
            await self._clock.until(due - before_s)
            if self._unknown_here or len(self._tasks) >= _MOST_UNDER_WAY:
                return
            request = self._requests.prewarm([*history, Message("user", typed)], "bench-prewarm")
            task = asyncio.create_task(self._send(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _pieces(self, text: str, type_ahead: TypeAhead) -> tuple[tuple[float, str], ...]:
        return partial_texts(text, type_ahead.words_per_minute, type_ahead.every_s)

    async def _send(self, request: bytes) -> None:
        connection = self._connections.idle()
        if connection is None:
            try:
                connection = await self._connections.open()
            except OSError:
                self.by_status[0] += 1
                return
        answer = _Answer()
        try:
            connection.send(request, answer)
            await answer.finished
        finally:
            self._connections.give_back(connection)
        self.by_status[answer.status] += 1
        if answer.status in (404, 405):
            self._unknown_here = True
