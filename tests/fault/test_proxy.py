"""The proxy does what its plan says, and the client believes no response that was cut."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from fault.client import Connection, Cut, ResponseReader
from fault.proxy import Plan, proxied

pytestmark = pytest.mark.anyio

_BODY = bytes(range(256)) * 40
_RESPONSE = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
    len(_BODY),
    _BODY,
)


class Upstream:
    """Answers each connection with the same bytes and says how it was left."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[bytes] = []
        self.left: asyncio.Queue[str] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            n_bytes = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self.requests.append(await reader.readexactly(n_bytes))
            writer.write(_RESPONSE)
            await reader.read()
            self.left.put_nowait("closed")
        except ConnectionError as error:
            self.left.put_nowait(type(error).__name__)
        finally:
            writer.close()


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    served = Upstream()
    async with await asyncio.start_server(served.serve, "127.0.0.1", 0) as server:
        served.port = server.sockets[0].getsockname()[1]
        yield served


async def pieces_through(plan: Plan, seed: str) -> list[int]:
    """The sizes in which the response is handed on."""
    sizes = []
    async with upstream() as served, proxied(served.port, plan, seed) as proxy:
        connection = await Connection.open(proxy.port)
        response = asyncio.create_task(connection.ask({"text": "naïve " * 50}))
        last = 0
        while not response.done():
            await asyncio.sleep(0)
            if proxy.forwarded_bytes != last:
                sizes.append(proxy.forwarded_bytes - last)
                last = proxy.forwarded_bytes
        assert bytes((await response).body) == _BODY
        connection.leave()
        assert await served.left.get() == "closed"
    return sizes


@pytest.mark.parametrize("size", [(1, 1), (1, 700), None])
async def test_sliced_bytes_arrive_as_they_were_sent(size: tuple[int, int] | None) -> None:
    plan = Plan(slice_bytes=size, slices=2_000, latency_ms=1)
    assert await pieces_through(plan, "a seed")


async def test_the_same_seed_slices_the_same_way() -> None:
    plan = Plan(slice_bytes=(100, 3_000))
    first, again = await pieces_through(plan, "one"), await pieces_through(plan, "one")
    assert sum(first) == sum(again) == len(_RESPONSE)
    async with upstream() as served, proxied(served.port, Plan(mishap="stall", after_bytes=9), "x") as proxy:
        connection = await Connection.open(proxy.port)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.ask({}), 0.1)
        assert proxy.forwarded_bytes == 9
        connection.leave()
        assert await served.left.get() == "closed"


async def test_a_reset_reaches_both_sides_at_its_place() -> None:
    plan = Plan(mishap="reset", after_bytes=1_000)
    async with upstream() as served, proxied(served.port, plan, "x") as proxy:
        connection = await Connection.open(proxy.port)
        with pytest.raises(Cut, match="reset"):
            await connection.ask({})
        connection.leave()
        assert await served.left.get() == "ConnectionResetError"
        assert proxy.forwarded_bytes == 1_000


async def test_a_half_close_looks_like_an_end_and_is_not_taken_for_one() -> None:
    plan = Plan(mishap="half_close", after_bytes=1_000)
    async with upstream() as served, proxied(served.port, plan, "x") as proxy:
        connection = await Connection.open(proxy.port)
        with pytest.raises(Cut, match="closed"):
            await connection.ask({})
        connection.leave()
    async with (
        upstream() as served,
        proxied(served.port, plan, "x") as proxy,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(f"http://127.0.0.1:{proxy.port}/", json={})


async def test_a_stall_ends_when_it_is_over_and_bandwidth_takes_its_time() -> None:
    began_at = time.monotonic()
    await pieces_through(Plan(mishap="stall", after_bytes=100, stall_s=0.1), "x")
    assert time.monotonic() - began_at >= 0.1
    began_at = time.monotonic()
    await pieces_through(Plan(bytes_per_s=50_000), "x")
    assert time.monotonic() - began_at >= len(_RESPONSE) / 50_000


async def test_a_connection_that_nobody_makes_leaves_nothing() -> None:
    async with proxied(1, Plan(), "x") as proxy:
        pass
    with pytest.raises(ConnectionRefusedError):
        await Connection.open(proxy.port)


def test_the_reader_takes_a_response_byte_by_byte_and_refuses_what_follows_it() -> None:
    reader = ResponseReader()
    done = [reader.feed(_RESPONSE[at : at + 1]) for at in range(len(_RESPONSE))]
    assert done == [False] * (len(_RESPONSE) - 1) + [True]
    assert bytes(reader.response.body) == _BODY
    with pytest.raises(AssertionError, match="follow"):
        ResponseReader().feed(_RESPONSE + b"x")
