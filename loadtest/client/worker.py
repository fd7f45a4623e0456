"""The measuring process: it holds its share of the conversations and does nothing else.

Drawing, counting and writing happen in the process that started it. Orders come on standard input, news go to standard
output; when the input ends, the starter is gone and so is the reason to go on.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from contextlib import suppress
from time import perf_counter

from loadtest.client.client import Client
from loadtest.client.clock import Clock
from loadtest.client.load import Load
from loadtest.client.messages import (
    Begin,
    Failed,
    News,
    Over,
    Ready,
    Start,
    Stop,
    Turns,
    Unpacker,
    decode_order,
    pack,
)
from loadtest.client.vitals import Vitals, every
from loadtest.errors import BenchError
from loadtest.figures.turn_result import TurnResult
from loadtest.plan import Share

_NEWS_EVERY_S = 0.1
_COLLECT_EVERY_S = 1.0
_MOST_UNCOLLECTED = 500_000
"""Containers made since the last collection and still there: 100 MB or so."""


class Orders(asyncio.Protocol):
    """What the starter says."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.share: asyncio.Future[Share] = loop.create_future()
        self.begin_at: asyncio.Future[float] = loop.create_future()
        self.stopped: asyncio.Future[None] = loop.create_future()
        self._unpacker = Unpacker()

    def data_received(self, data: bytes) -> None:
        for message in self._unpacker.feed(data):
            match decode_order(message):
                case Start(share):
                    self.share.set_result(share)
                case Begin(at):
                    self.begin_at.set_result(at)
                case Stop():
                    self._stop()

    def eof_received(self) -> None:
        self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()

    def _stop(self) -> None:
        if not self.stopped.done():
            self.stopped.set_result(None)


class _Outlet(asyncio.BaseProtocol):
    def __init__(self) -> None:
        self.closed = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)


class Reporter:
    """Says what happened, ten times a second: a turn is kept until then."""

    def __init__(self, out: asyncio.WriteTransport) -> None:
        self._out = out
        self._results: list[TurnResult] = []

    def take(self, result: TurnResult) -> None:
        self._results.append(result)

    def tell_turns(self, under_way: int) -> None:
        results, self._results = self._results, []
        self.tell(Turns(results, under_way))

    def tell(self, news: News) -> None:
        self._out.write(pack(news))


async def work() -> None:
    """From the first order to the last word."""
    loop = asyncio.get_running_loop()
    _, orders = await loop.connect_read_pipe(Orders, sys.stdin.buffer)
    out, outlet = await loop.connect_write_pipe(_Outlet, sys.stdout.buffer)
    reporter = Reporter(out)
    clock = Clock()
    try:
        await asyncio.wait((orders.share, orders.stopped), return_when=asyncio.FIRST_COMPLETED)
        if orders.share.done():
            await _measure(orders.share.result(), orders, clock, reporter)
    except BenchError as error:
        reporter.tell(Failed(str(error)))
    finally:
        clock.close()
        out.close()
        await outlet.closed  # what was said last may still be on its way


async def _measure(share: Share, orders: Orders, clock: Clock, reporter: Reporter) -> None:
    client = Client(share, clock, reporter.take)
    load = Load(share, client, clock)
    vitals = Vitals(clock)
    every(clock, _NEWS_EVERY_S, lambda _: reporter.tell_turns(client.under_way))
    _collect_little(clock)
    if share.plan.busy_poll:
        clock.poll_busily()

    async def hold() -> None:
        await load.warm_up(perf_counter())
        reporter.tell_turns(0)
        reporter.tell(Ready())
        begin_at = await orders.begin_at
        client.events = 0
        client.connections.lags_us.clear()
        vitals.begin()
        await load.run(begin_at)

    holding = asyncio.create_task(hold())
    orders.stopped.add_done_callback(lambda _: holding.cancel())
    with suppress(asyncio.CancelledError):
        await holding
    cpu_s, wall_s = vitals.cpu_s, vitals.wall_s
    await client.prewarm.close()
    client.connections.close()
    reporter.tell_turns(0)
    reporter.tell(
        Over(
            cpu_s=cpu_s,
            wall_s=wall_s,
            events=client.events,
            unsent=client.unsent,
            loop_lag_us=vitals.lag_us,
            stamped_by_kernel=client.connections.stamped_by_kernel,
            read_lag_us=dict(client.connections.lags_us),
            prewarms=dict(client.prewarm.by_status),
        )
    )


def _collect_little(clock: Clock) -> None:
    """A collection holds everything up for milliseconds, and there is next to no cyclic garbage: only what grows is collected."""
    gc.collect()
    gc.freeze()
    gc.disable()

    def collect_what_grew(_late_s: float) -> None:
        if gc.get_count()[0] > _MOST_UNCOLLECTED:
            gc.collect()

    every(clock, _COLLECT_EVERY_S, collect_what_grew)


def main() -> None:
    import uvloop

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the starter decides
    uvloop.run(work())


if __name__ == "__main__":
    main()
