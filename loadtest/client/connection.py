"""One HTTP/1.1 connection: a request out, a response in, and a receiver that is told of it.

A client library costs 50 to 200 µs for every read of a stream; here a read costs a time stamp, httptools and the
receiver's own work. The moment of a read is known before anything is parsed.

Divergences from what an SDK does: nothing is retried (a retry would hide the failure and restart the clock), redirects
are not followed, no compression is asked for (it would delay tokens), and proxies of the environment are not used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from time import perf_counter
from typing import Protocol

import httptools

MAX_HEADER_BYTES = 64 * 1024


class Receiver(Protocol):
    """Who a response is for. `at` is when the bytes came, `perf_counter` seconds."""

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


class Connection(ABC):
    """Carries one exchange at a time. `reusable` once its response is complete and the server keeps it open."""

    def __init__(self) -> None:
        self.reusable = False
        self._receiver: Receiver | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._head_bytes = 0
        self._headed = False
        self._at = 0.0
        self._begun = False
        self._ends_with_connection = False

    @property
    @abstractmethod
    def is_open(self) -> bool: ...

    @abstractmethod
    def _write(self, data: bytes) -> None:
        """All of it, now or as soon as there is room."""

    @abstractmethod
    def _close(self) -> None:
        """At once. Idempotent."""

    def send(self, request: bytes, receiver: Receiver) -> None:
        self.reusable = False
        self._receiver = receiver
        self._at = perf_counter()
        self._begun = False
        self._headers = {}
        self._header_bytes = 0
        self._head_bytes = 0
        self._headed = False
        self._ends_with_connection = False
        self._parser = httptools.HttpResponseParser(self)
        if self.is_open:
            self._write(request)
        else:
            self._break("the connection was closed before the request was sent")

    def abort(self) -> None:
        """Close at once; nobody is told."""
        self._receiver = None
        self.reusable = False
        self._close()
        self._parser = None  # it refers back to the connection

    # What the kinds of connection call

    def _received(self, at: float, data: bytes) -> None:
        # A wall clock that is set between the stamp and the read tells of a moment before the one before it.
        self._at = at = max(at, self._at)
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
        if not self._headed:  # a line without an end is no header yet, and would be kept for ever
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEADER_BYTES:
                self._break(f"headers of more than {MAX_HEADER_BYTES} bytes", malformed=True)

    def _ended(self, error: BaseException | None) -> None:
        """The server closed it, or it broke."""
        self.reusable = False
        self._at = perf_counter()
        if self._ends_with_connection and error is None:
            self.on_message_complete()
        self._break((str(error) or type(error).__name__) if error else "the server closed the connection")

    # What httptools calls

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
        self._headed = True
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
        self._close()
        if receiver is not None:
            receiver.broken(self._at, reason, malformed)
