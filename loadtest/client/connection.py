"""One HTTP/1.1 connection, and the set of those that wait for their next request.

A client library costs 50 to 200 µs for every read of a stream; here a read costs a time stamp, httptools and the
receiver's own work. The moment of a read is taken before anything is parsed.

Divergences from what an SDK does: nothing is retried (a retry would hide the failure and restart the clock), redirects
are not followed, no compression is asked for (it would delay tokens), and proxies of the environment are not used.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import Protocol, cast

import httptools

from loadtest.client.address import Address

MAX_HEADER_BYTES = 64 * 1024


class Receiver(Protocol):
    """Who a response is for. `at` is when the bytes were read, `perf_counter` seconds."""

    def first_byte(self, at: float) -> None: ...

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Names in lower case; of a repeated header the last."""
        ...

    def body(self, at: float, data: bytes) -> None: ...

    def over(self, at: float) -> None:
        """The response is complete."""
        ...

    def broken(self, at: float, reason: str, malformed: bool) -> None:
        """It will never be complete. `malformed`: what came is not HTTP."""
        ...


class Connection(asyncio.Protocol):
    """Carries one exchange at a time. `reusable` once its response is complete and the server keeps it open."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._at = 0.0
        self._begun = False
        self._ends_with_connection = False
        self.reusable = False

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes, receiver: Receiver) -> None:
        self.reusable = False
        self._receiver = receiver
        self._begun = False
        self._headers = {}
        self._header_bytes = 0
        self._ends_with_connection = False
        self._parser = httptools.HttpResponseParser(self)
        if self._transport is None or self._transport.is_closing():
            self._break("the connection was closed before the request was sent")
            return
        self._transport.write(request)

    def abort(self) -> None:
        """Close at once; nobody is told."""
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._at = at = perf_counter()
        receiver = self._receiver
        if receiver is None or self._parser is None:
            self.abort()  # bytes that belong to no response
            return
        if not self._begun:
            self._begun = True
            receiver.first_byte(at)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break("it answered with a protocol upgrade", malformed=True)
        except httptools.HttpParserError as error:
            beginning = data[:60].decode(errors="replace")
            self._break(f"not HTTP/1.1 ({error}): {beginning}", malformed=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        self._at = perf_counter()
        if self._ends_with_connection and exc is None:
            self.on_message_complete()
        self._break(_reason(exc) if exc else "the server closed the connection")

    # httptools' calls

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError(f"headers of more than {MAX_HEADER_BYTES} bytes")
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = 0 if self._parser is None else self._parser.get_status_code()
        if status < 200:
            self._headers = {}
            return
        headers = self._headers
        framed = b"content-length" in headers or b"transfer-encoding" in headers or status in (204, 304)
        self._ends_with_connection = not framed
        if self._receiver is not None:
            self._receiver.head(status, headers)

    def on_body(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.body(self._at, data)

    def on_message_complete(self) -> None:
        receiver = self._receiver
        if receiver is None or self._parser is None or self._parser.get_status_code() < 200:
            return
        self._receiver = None
        self.reusable = self.is_open and not self._ends_with_connection and self._parser.should_keep_alive()
        receiver.over(self._at)

    def _break(self, reason: str, malformed: bool = False) -> None:
        receiver, self._receiver = self._receiver, None
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()
        if receiver is not None:
            receiver.broken(self._at or perf_counter(), reason, malformed)


class Connections:
    """Opens connections to one server and keeps those that can serve another request, the latest used first."""

    def __init__(self, address: Address, ips: Sequence[str], *, keep: bool = True) -> None:
        self._address = address
        self._ips = deque(ips)
        self._tls = ssl.create_default_context() if address.is_tls else None
        self._keep = keep
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()

    def idle(self) -> Connection | None:
        """One that is open and waits, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
            self._all.discard(connection)
        return None

    async def open(self) -> Connection:
        """A new one. Raises `OSError` (of which `ssl.SSLError` is one) when no address of the server takes it."""
        loop = asyncio.get_running_loop()
        failed: OSError | None = None
        for _ in range(len(self._ips)):
            try:
                _, connection = await loop.create_connection(
                    Connection,
                    self._ips[0],
                    self._address.port,
                    ssl=self._tls,
                    server_hostname=self._address.host if self._tls else None,
                )
            except OSError as error:
                failed = failed or error
                self._ips.rotate(-1)
                continue
            self._all.add(connection)
            return connection
        raise failed or OSError(f"{self._address.host} has no address")

    def give_back(self, connection: Connection) -> None:
        if self._keep and connection.reusable:
            self._idle.append(connection)
        else:
            connection.abort()
            self._all.discard(connection)

    def close(self) -> None:
        for connection in self._all:
            connection.abort()
        self._all.clear()
        self._idle.clear()


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
