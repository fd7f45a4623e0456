"""An open-loop client: requests leave on their dates, whatever became of those before; each on a connection of its own."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from time import perf_counter
from typing import Any

from fault.client import ResponseReader, request_bytes
from fault.judge import stream_of

_PATIENCE_S = 30.0
_FIRST_TEXT = b'"delta":{"content":"'


class Shot(asyncio.Protocol):
    """One request. Between the socket and a time stamp stands nothing; the bytes are looked at later."""

    __slots__ = (
        "_over",
        "_request",
        "_transport",
        "due_at",
        "ended_at",
        "first_text_at",
        "pieces",
        "sent_at",
    )

    def __init__(self, request: bytes, due_at: float) -> None:
        self._request = request
        self._over = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self.due_at = due_at
        self.sent_at = perf_counter()
        """When the connection was asked for."""
        self.first_text_at: float | None = None
        self.ended_at: float | None = None
        self.pieces: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.ended_at = perf_counter()
        if self.first_text_at is None and _FIRST_TEXT in data:
            self.first_text_at = self.ended_at
        self.pieces.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._over.done():
            self._over.set_result(None)

    async def over(self) -> None:
        """Wait for its end; cancelled, it gives up."""
        try:
            await self._over
        finally:
            if self._transport is not None:
                self._transport.abort()


class Standstills:
    """When this process got no CPU, or was busy with something else."""

    _TICK_S = 0.005
    _LONG_S = 0.010

    def __init__(self) -> None:
        self._found: list[tuple[float, float]] = []
        self._ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            due_at = perf_counter() + self._TICK_S
            await asyncio.sleep(self._TICK_S)
            if (now := perf_counter()) - due_at > self._LONG_S:
                self._found.append((due_at, now))

    def stop(self) -> None:
        self._ticking.cancel()

    def overlap(self, begin_at: float, end_at: float) -> bool:
        return any(begin_at < end and end_at > begin for begin, end in self._found)


@dataclass(slots=True)
class Figures:
    """What became of a volley."""

    seconds: float
    finished: int = 0
    refused: int = 0
    hung: int = 0
    other: list[str] = field(default_factory=list)
    ttft_ms: list[float] = field(default_factory=list)
    """Of the turns that were let in, from the date on which they were due."""
    refusal_ms: list[float] = field(default_factory=list)
    """From asking for a connection to the last byte of the refusal."""
    unclear: int = 0
    """Refusals during which this client itself stood still; they tell nothing of the server's pace."""
    late_ms: list[float] = field(default_factory=list)
    """How late this client was itself."""
    without_retry_after: int = 0

    @property
    def finished_per_s(self) -> float:
        return self.finished / self.seconds

    def add(self, shot: Shot, standstills: Standstills) -> None:
        self.late_ms.append((shot.sent_at - shot.due_at) * 1_000)
        reader = ResponseReader()
        complete = reader.feed(b"".join(shot.pieces)) if shot.pieces else False
        if not complete or shot.ended_at is None:
            self.hung += 1
        elif reader.response.status == 200:
            self._add_stream(shot, reader)
        elif reader.response.status in (429, 503):
            self.refused += 1
            if standstills.overlap(shot.sent_at, shot.ended_at):
                self.unclear += 1
            else:
                self.refusal_ms.append((shot.ended_at - shot.sent_at) * 1_000)
            retry_after = reader.response.headers.get("retry-after", "0")
            self.without_retry_after += not float(retry_after) > 0
        else:
            self.other.append(bytes(reader.response.body).decode())

    def _add_stream(self, shot: Shot, reader: ResponseReader) -> None:
        stream = stream_of(reader.response)
        if stream.done and stream.error is None and len(stream.finish_reasons) == 1:
            assert shot.first_text_at is not None
            self.finished += 1
            self.ttft_ms.append((shot.first_text_at - shot.due_at) * 1_000)
        else:
            self.other.append(json.dumps(stream.error))


def poisson(rate_per_s: float, seconds: float, source: Random) -> list[float]:
    """Dates of arrival, in seconds from the start."""
    dates = []
    date = source.expovariate(rate_per_s)
    while date < seconds:
        dates.append(date)
        date += source.expovariate(rate_per_s)
    return dates


async def volley(port: int, body: dict[str, Any], dates_s: Sequence[float], patience_s: float) -> Figures:
    """Send on these dates; whatever has no end `patience_s` after the last one hangs."""
    shots: list[Shot] = []
    waiting: list[asyncio.Task[None]] = []
    request = request_bytes(body, keep_alive=False)

    async def shoot(due_at: float) -> None:
        shot = Shot(request, due_at)
        shots.append(shot)
        await asyncio.get_running_loop().create_connection(lambda: shot, "127.0.0.1", port)
        await shot.over()

    standstills = Standstills()
    with _undisturbed():
        began_at = perf_counter() + 0.05
        for date in dates_s:
            if (wait_s := began_at + date - perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            waiting.append(asyncio.create_task(shoot(began_at + date)))
        _, late = await asyncio.wait(waiting, timeout=patience_s)
        seconds = perf_counter() - began_at
        for task in late:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    standstills.stop()
    figures = Figures(seconds)
    for shot in shots:
        figures.add(shot, standstills)
    assert len(shots) == len(dates_s)
    return figures


async def closed_loop(port: int, body: dict[str, Any], n_clients: int, seconds: float) -> float:
    """Turns finished per second when `n_clients` ask again as soon as they have been answered."""
    request = request_bytes(body, keep_alive=False)
    n_finished = 0
    stop_at = perf_counter() + seconds
    begin_at = perf_counter() + 0.2 * seconds

    async def ask_on() -> None:
        nonlocal n_finished
        while (now := perf_counter()) < stop_at:
            shot = Shot(request, now)
            await asyncio.get_running_loop().create_connection(lambda shot=shot: shot, "127.0.0.1", port)
            await shot.over()
            assert shot.first_text_at is not None, b"".join(shot.pieces)
            n_finished += begin_at <= perf_counter() <= stop_at

    with _undisturbed():
        async with asyncio.timeout(seconds + _PATIENCE_S):
            await asyncio.gather(*(ask_on() for _ in range(n_clients)))
    return n_finished / (stop_at - begin_at)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without garbage collections in the client's own figures."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
