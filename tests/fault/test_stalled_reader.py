"""Readers that stop reading: they are cut off in time, cost little until then, and hinder nobody."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from fault.client import Connection, Cut
from fault.conftest import Tell
from fault.judge import stream_of
from fault.size import FULL, pick
from fault.summary import quantile
from fault.vitals import gauge, memory_bytes, open_sockets, simulated_server
from gateways import ServerProcess
from wire import question

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(pick(120, 600))]

_SEND_TIMEOUT_S = 2.0
_KEEP_ALIVE_S = 5.0
"""uvicorn's: a connection is closed when it has been idle so long."""
_INTERVAL_MS = pick(5.0, 20.0)
_N_HEALTHY = pick(5, 20)
_KIB = 1_024


def rounds() -> dict[str, list[dict[str, Any]]]:
    """What readers ask for before they stop reading; small, all of it at once."""
    endless = question(stream=True, max_tokens=3_900, ignore_eos=True)
    # Their last frames meet a socket that is full, or just not: some 150 frames of one token fill it.
    ending = [
        question(stream=True, max_tokens=length, ignore_eos=True) for length in range(100, 300, pick(20, 1))
    ]
    loud = question(n=8, max_tokens=400, ignore_eos=True, logprobs=True)
    kinds = {
        "in an endless stream": [endless] * pick(10, 100),
        "in a stream that ends while it waits": ending,
        "in an answer that comes whole": [loud] * pick(3, 20),
    }
    return kinds if FULL else {"of every kind": [body for bodies in kinds.values() for body in bodies]}


@pytest.fixture
def server(tmp_path: Path, chat_model_path: Path, knowledge: Path) -> Any:
    with simulated_server(
        tmp_path,
        chat_model_path,
        knowledge,
        engine__simulated__token_interval_ms=_INTERVAL_MS,
        engine__simulated__reply="A token of this reply completes a word, each and every one, ",
        http__send_timeout_s=_SEND_TIMEOUT_S,
        admission__max_running_turns=1_000,
        admission__max_prefill_tokens=1_000_000,
    ) as server:
        yield server


class Healthy:
    """Readers that read, one stream after the other; the gaps between what they get."""

    def __init__(self, port: int) -> None:
        self._stopping = False
        self.gaps_ms: list[float] = []
        self.n_streams = 0
        self._reading = [asyncio.create_task(self._read(port)) for _ in range(_N_HEALTHY)]

    async def _read(self, port: int) -> None:
        connection = await Connection.open(port)
        body = question(stream=True, max_tokens=40, ignore_eos=True)
        try:
            while not self._stopping:
                self.gaps_ms += await connection.gaps_ms(body)
                stream = stream_of(connection.reader.response)
                assert (stream.done, stream.error, stream.finish_reasons) == (True, None, ["length"])
                self.n_streams += 1
        finally:
            connection.leave()

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.gather(*self._reading)


class Deadline:
    def __init__(self, within_s: float) -> None:
        self._began_at = time.monotonic()
        self._within_s = within_s

    async def pause(self, waiting_for: str) -> None:
        assert self.passed_s < self._within_s, f"after {self._within_s} s: {waiting_for}"
        await asyncio.sleep(0.05)

    @property
    def passed_s(self) -> float:
        return time.monotonic() - self._began_at


async def test_a_reader_that_stops_reading_is_cut_off_and_hinders_nobody(
    server: ServerProcess, tell: Tell
) -> None:
    pid = server.process.pid
    alone = Healthy(server.port)
    await asyncio.sleep(pick(2, 10))
    await alone.stop()
    for kind, bodies in rounds().items():
        n_sockets, memory_before = open_sockets(pid), memory_bytes(pid)
        beside = Healthy(server.port)
        # Until the buffers are full, then the timeout, then an idle connection's time.
        deadline = Deadline(400 * _INTERVAL_MS / 1_000 + _SEND_TIMEOUT_S + _KEEP_ALIVE_S + pick(15, 5))
        stalled = [await Connection.open(server.port, receive_buffer_bytes=2_048) for _ in bodies]
        for connection, body in zip(stalled, bodies, strict=True):
            await connection.send(body)
        await asyncio.sleep(0.5)
        memory_most = 0
        while (n_open := open_sockets(pid) - n_sockets - _N_HEALTHY) > 0:
            memory_most = max(memory_most, memory_bytes(pid))
            await deadline.pause(f"{n_open} connections are open whose reader takes nothing")
        cut_after_s = deadline.passed_s
        await beside.stop()
        while gauge(server, "firstword_active_streams") or gauge(server, "firstword_engine_running_requests"):
            await deadline.pause("turns are held whose reader was cut off")
        for connection in stalled:
            await find_no_end(connection)
        growth_kib = (memory_most - memory_before) / _KIB / len(bodies)
        assert growth_kib < 2_048
        assert quantile(beside.gaps_ms, 0.99) < 1_000
        tell(
            f"Readers that stop reading {kind}",
            {
                "readers": len(bodies),
                "all cut off after": f"{cut_after_s:.1f} s (send timeout {_SEND_TIMEOUT_S:.0f} s)",
                "most memory for each": f"{growth_kib:.0f} KiB",
                "gaps of other readers, p99": f"{quantile(beside.gaps_ms, 0.99):.1f} ms",
                "before, when nobody stalled": f"{quantile(alone.gaps_ms, 0.99):.1f} ms",
                "streams of others, all whole": beside.n_streams,
            },
        )


async def find_no_end(connection: Connection) -> None:
    """Whoever reads on after all finds a beginning and no end, unless its own buffers held everything."""
    try:
        async with asyncio.timeout(5):
            await connection.read()
    except Cut:
        response = connection.reader.response
        assert not response.complete
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            assert stream_of(response).error is None
    finally:
        connection.leave()
