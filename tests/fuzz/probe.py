"""How long the server's event loop stands still, seen from outside: a connection that asks for its health all the time.

What was not the server's doing is taken off an answer's time: this process's own event loop being late, and the
time in which the server's main thread could have run and another program had the processor. What is left is right
on a quiet machine, and too much on a busy one: a thread that holds Python's lock may have been interrupted too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.case import request

_TICK_S = 0.005
_ASK_EVERY_S = 0.002
_WORTH_KEEPING_MS = 30.0


@dataclass(frozen=True, slots=True)
class Stall:
    net_ms: float
    raw_ms: float
    meanwhile: tuple[str, ...]
    """The inputs that were with the server."""


@dataclass(slots=True)
class Probe:
    port: int
    pid: int
    asked: int = 0
    longest: Stall = Stall(0.0, 0.0, ())
    stalls: list[Stall] = field(default_factory=list)
    """The longer ones."""
    own_late_s: float = 0.0
    """In all, of this process's event loop."""
    _under_way: dict[int, str] = field(default_factory=dict)

    @contextmanager
    def sending(self, number: int, kind: str) -> Iterator[None]:
        self._under_way[number] = kind
        try:
            yield
        finally:
            del self._under_way[number]

    async def ask(self) -> None:
        """Until cancelled. A connection on which nothing was asked for a while is closed; then there is another."""
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                with suppress(asyncio.IncompleteReadError, ConnectionError):
                    await self._ask_on(reader, writer)
            finally:
                writer.close()

    async def _ask_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = request()
        while True:
            sent_at, late_s, waited_s = time.monotonic(), self.own_late_s, self._run_delay_s()
            meanwhile = tuple(f"{number} ({kind})" for number, kind in self._under_way.items())
            writer.write(question)
            await reader.readuntil(b'{"status":"live"}')
            raw_s = time.monotonic() - sent_at
            # The clock of this process's lateness ticks after the answer that it delayed.
            await asyncio.sleep(_ASK_EVERY_S)
            net_s = raw_s - (self.own_late_s - late_s) - (self._run_delay_s() - waited_s)
            self._keep(Stall(max(0.0, net_s) * 1_000, raw_s * 1_000, meanwhile))

    def _keep(self, stall: Stall) -> None:
        self.asked += 1
        if stall.net_ms > self.longest.net_ms:
            self.longest = stall
        if stall.net_ms > _WORTH_KEEPING_MS:
            self.stalls.append(stall)

    async def watch_this_loop(self) -> None:
        """Until cancelled."""
        while True:
            due_at = time.monotonic() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self.own_late_s += max(0.0, time.monotonic() - due_at)

    def _run_delay_s(self) -> float:
        """For how long the server's main thread has waited for a processor so far; 0 where the system does not say."""
        try:
            schedstat = Path(f"/proc/{self.pid}/task/{self.pid}/schedstat").read_text()
        except OSError:
            return 0.0
        return int(schedstat.split()[1]) / 1e9

    @property
    def worst(self) -> list[Stall]:
        return sorted(self.stalls, key=lambda stall: -stall.net_ms)[:8]


@asynccontextmanager
async def probing(port: int, pid: int) -> AsyncIterator[Probe]:
    probe = Probe(port, pid)
    watching = [asyncio.create_task(probe.ask()), asyncio.create_task(probe.watch_this_loop())]
    try:
        yield probe
    finally:
        for task in watching:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise AssertionError("the probe got no answer") from error
            task.cancel()
        await asyncio.wait(watching)
