"""A client that sees every byte: it reads when it chooses, leaves as it chooses, and believes no cut response."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from fault.proxy import reset
from wire import CHAT

Farewell = Literal["close", "reset", "half_close"]
FAREWELLS: tuple[Farewell, ...] = ("close", "reset", "half_close")

_READ_BYTES = 65_536
_SIP_BYTES = 4_096


class Cut(Exception):
    """The connection ended before the response did."""


@dataclass(slots=True)
class Response:
    """What has come of a response so far, without its transfer coding."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False


class ResponseReader:
    """Bytes of one HTTP/1.1 response in, a `Response` out; strict about its framing."""

    def __init__(self) -> None:
        self.response = Response()
        self._unread = bytearray()
        self._body_bytes: int | None = None
        """Still to come; None while a chunk's size is awaited."""

    def feed(self, data: bytes) -> bool:
        """True once the response is complete."""
        self._unread += data
        if not self.response.status and not self._take_head():
            return False
        while not self.response.complete:
            chunked = "transfer-encoding" in self.response.headers
            if self._body_bytes is None and not self._take_chunk_size():
                return False
            assert self._body_bytes is not None
            if not self._take_body(self._body_bytes, chunked):
                return False
        assert not self._unread, f"bytes follow the response: {bytes(self._unread[:80])!r}"
        return True

    def _take_head(self) -> bool:
        head, separator, rest = self._unread.partition(b"\r\n\r\n")
        if not separator:
            return False
        status, *lines = head.decode("latin-1").split("\r\n")
        assert status.startswith("HTTP/1.1 ")
        self._unread = rest
        response = self.response
        response.status = int(status.split(" ")[1])
        response.headers = {
            name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)
        }
        if "transfer-encoding" in response.headers:
            assert response.headers["transfer-encoding"] == "chunked"
        else:
            self._body_bytes = int(response.headers["content-length"])
        return True

    def _take_chunk_size(self) -> bool:
        at = self._unread.find(b"\r\n")
        if at < 0:
            return False
        self._body_bytes = int(self._unread[:at], 16)
        del self._unread[: at + 2]
        return True

    def _take_body(self, n_bytes: int, chunked: bool) -> bool:
        needed = n_bytes + 2 * chunked
        if len(self._unread) < needed:
            return False
        assert not chunked or self._unread[n_bytes:needed] == b"\r\n"
        self.response.body += self._unread[:n_bytes]
        del self._unread[:needed]
        self._body_bytes = None
        self.response.complete = not (chunked and n_bytes)
        return True


class Connection:
    """One HTTP/1.1 connection of a test's own."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.reader = ResponseReader()
        """Of the response to what was sent last."""

    @classmethod
    async def open(cls, port: int, receive_buffer_bytes: int | None = None) -> Connection:
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def send(self, body: dict[str, Any], *, share: float = 1.0) -> None:
        """A chat request, or only that share of its bytes."""
        self.reader = ResponseReader()
        data = request_bytes(body)
        await asyncio.get_running_loop().sock_sendall(self._socket, data[: round(len(data) * share)])

    async def read(self, bytes_per_s: float | None = None) -> Response:
        """The whole response, or what is left of it, as slowly as is asked for. Raises `Cut`."""
        loop = asyncio.get_running_loop()
        while not self.reader.response.complete:
            try:
                data = await loop.sock_recv(self._socket, _READ_BYTES if bytes_per_s is None else _SIP_BYTES)
            except OSError as error:
                raise Cut(str(error)) from error
            if not data:
                raise Cut("the peer closed the connection")
            self.reader.feed(data)
            if bytes_per_s is not None:
                await asyncio.sleep(len(data) / bytes_per_s)
        return self.reader.response

    async def ask(self, body: dict[str, Any]) -> Response:
        try:
            await self.send(body)
        except OSError as error:
            raise Cut(str(error)) from error
        return await self.read()

    async def gaps_ms(self, body: dict[str, Any]) -> list[float]:
        """The milliseconds between what comes of a response, once it has begun. Raises `Cut`."""
        loop = asyncio.get_running_loop()
        await self.send(body)
        gaps: list[float] = []
        last_at: float | None = None
        while not self.reader.response.complete:
            data = await loop.sock_recv(self._socket, _READ_BYTES)
            now = time.perf_counter()
            if not data:
                raise Cut("the peer closed the connection")
            if last_at is not None:
                gaps.append((now - last_at) * 1_000)
            last_at = now
            self.reader.feed(data)
        return gaps

    def leave(self, how: Farewell = "close") -> None:
        """`half_close` keeps the connection open for reading; `close` must follow."""
        if how == "reset":
            reset(self._socket)
        elif how == "close":
            self._socket.close()
        else:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)


def request_bytes(body: dict[str, Any], *, keep_alive: bool = True) -> bytes:
    data = json.dumps(body, ensure_ascii=False).encode()
    connection = "keep-alive" if keep_alive else "close"
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: {connection}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data
