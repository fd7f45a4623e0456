"""A TCP proxy that treats one connection as badly as its plan says, the same way each time.

It forwards with plain sockets and keeps nothing back: a piece is read only when the one before it was taken.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from random import Random
from typing import Literal

Mishap = Literal["reset", "stall", "half_close"]
"""`reset`: RST to both sides. `stall`: nothing is forwarded for `stall_s`. `half_close`: the client gets a FIN."""

_READ_BYTES = 65_536
_LINGER_ZERO = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What befalls a connection. Positions count bytes that go to the client."""

    slice_bytes: tuple[int, int] | None = None
    """Smallest and largest piece that is forwarded at once, in both directions; None: as they come."""
    slices: int = 1_000_000
    """After so many slices the rest goes as it comes."""
    latency_ms: float = 0.0
    """Before each read is forwarded, in both directions."""
    bytes_per_s: float | None = None
    """Towards the client."""
    mishap: Mishap | None = None
    after_bytes: int = 0
    """When the mishap comes; the bytes before it are forwarded."""
    stall_s: float | None = None
    """None: for ever."""
    receive_buffer_bytes: int | None = None
    """Small: a stall reaches the server sooner."""


class FaultProxy:
    """One connection from a client to the server on `port`, handled as planned."""

    def __init__(self, port: int, plan: Plan, seed: str) -> None:
        self._upstream_port = port
        self._plan = plan
        self._seed = seed
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = [self._listener]
        self.forwarded_bytes = 0
        """To the client."""
        self.befallen = False
        """Whether the mishap has come."""

    async def run(self) -> None:
        """Until both sides are done; cancelled, it drops the connection."""
        loop = asyncio.get_running_loop()
        try:
            client, _ = await loop.sock_accept(self._listener)
            self._take(client)
            upstream = socket.socket()
            self._take(upstream)
            if self._plan.receive_buffer_bytes is not None:
                upstream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._plan.receive_buffer_bytes)
            await loop.sock_connect(upstream, ("127.0.0.1", self._upstream_port))
            await self._relay(client, upstream)
        except _Reset:
            for sock in self._sockets:
                reset(sock)
        except OSError:
            pass  # one side went away; `close` tells the other

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()

    def _take(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets.append(sock)

    async def _relay(self, client: socket.socket, upstream: socket.socket) -> None:
        up = asyncio.create_task(self._forward_up(client, upstream))
        down = asyncio.create_task(self._forward_down(upstream, client))
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            if not down.done() and up.exception() is None:
                await asyncio.wait((down,))  # the client has said all it will, the server has not
        finally:
            # No socket may be closed while a task waits for it.
            up.cancel()
            down.cancel()
            await asyncio.wait((up, down))
        for task in (down, up):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _forward_up(self, client: socket.socket, upstream: socket.socket) -> None:
        """Until the client goes away, which the server is told at once."""
        loop = asyncio.get_running_loop()
        slicer = _Slicer(self._plan, f"{self._seed} up")
        while data := await loop.sock_recv(client, _READ_BYTES):
            await self._lag(len(data), None)
            for piece in slicer.cut(data):
                await loop.sock_sendall(upstream, piece)
        upstream.shutdown(socket.SHUT_WR)

    async def _forward_down(self, upstream: socket.socket, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        slicer = _Slicer(self._plan, f"{self._seed} down")
        while data := await loop.sock_recv(upstream, _READ_BYTES):
            await self._lag(len(data), self._plan.bytes_per_s)
            for piece in slicer.cut(data):
                await self._pass_on(piece, client)
        client.shutdown(socket.SHUT_WR)

    async def _pass_on(self, piece: bytes, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        if self._plan.mishap is not None and not self.befallen:
            before = piece[: self._plan.after_bytes - self.forwarded_bytes]
            if len(before) < len(piece):
                await loop.sock_sendall(client, before)
                self.forwarded_bytes += len(before)
                await self._befall(client)
                piece = piece[len(before) :]
        await loop.sock_sendall(client, piece)
        self.forwarded_bytes += len(piece)

    async def _befall(self, client: socket.socket) -> None:
        self.befallen = True
        match self._plan.mishap:
            case "reset":
                raise _Reset
            case "half_close":
                client.shutdown(socket.SHUT_WR)
                await asyncio.Event().wait()
            case _ if self._plan.stall_s is None:
                await asyncio.Event().wait()
            case _:
                await asyncio.sleep(self._plan.stall_s)

    async def _lag(self, n_bytes: int, bytes_per_s: float | None) -> None:
        wait_s = self._plan.latency_ms / 1_000
        if bytes_per_s is not None:
            wait_s += n_bytes / bytes_per_s
        if wait_s:
            await asyncio.sleep(wait_s)


class _Reset(Exception):
    """The plan wants both connections reset."""


class _Slicer:
    """Cuts one direction's bytes into pieces of random size."""

    def __init__(self, plan: Plan, seed: str) -> None:
        self._random = Random(seed)
        self._size = plan.slice_bytes
        self._left = plan.slices if plan.slice_bytes else 0

    def cut(self, data: bytes) -> Iterator[bytes]:
        while self._left and self._size is not None and data:
            self._left -= 1
            size = self._random.randint(*self._size)
            yield data[:size]
            data = data[size:]
        if data:
            yield data


def reset(sock: socket.socket) -> None:
    """Close with an RST instead of a FIN."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    sock.close()


@asynccontextmanager
async def proxied(port: int, plan: Plan, seed: str) -> AsyncIterator[FaultProxy]:
    """A proxy for one connection; leaving drops what is left of it."""
    proxy = FaultProxy(port, plan, seed)
    running = asyncio.create_task(proxy.run())
    try:
        yield proxy
    finally:
        running.cancel()
        await asyncio.wait((running,))
        proxy.close()
        if not running.cancelled():
            running.result()
