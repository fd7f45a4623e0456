"""One client's connection: HTTP/1.1 on a bare non-blocking socket.

Divergences from a transport of the event loop: uvloop's hands bytes to the socket at the end of a turn of the loop,
after the tokens of all other streams, and says nothing of when. Here a token is one `send`, and the log knows the
moment the socket had it.
Pipelined requests are answered in order. A head, a body and what waits for a reader are bounded.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter

import httptools

from server.errors import FirstwordError, HeadersTooLarge, MalformedRequest, TooLarge
from server.target import frames
from server.target.options import MAX_BODY_BYTES, MAX_HEAD_BYTES
from server.target.reply import Reply

_READ_BYTES = 65_536
_MOST_PIPELINED = 16
_LINGER_S = 1.0
# linux/socket.h; Python does not name it. The stamp that comes with the data has the same number.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(eq=False, slots=True)
class Request:
    """One HTTP request as it came."""

    target: bytes = b""
    method: str = ""
    request_id: str = ""
    body: bytearray = field(default_factory=bytearray)
    head_bytes: int = 0
    unfinished_bytes: int = 0
    """Read so far without an end of the head: the parser keeps an unfinished line to itself."""
    expects_continue: bool = False
    is_old: bool = False
    """HTTP/1.0, which has no chunked coding."""
    closes: bool = False
    arrived_at: float = 0.0
    """When its last byte came to this machine; both in `perf_counter()` seconds."""
    received_at: float = 0.0
    """When it was read."""
    error: FirstwordError | None = None
    """What is wrong with it as HTTP."""


class Connection:
    """`answer` is called with each request when its turn comes, `gone` once, when the connection is closed."""

    __slots__ = (
        "_answer", "_busy", "_closed", "_fd", "_gone", "_lingering", "_loop", "_parser", "_reads", "_reply", "_request", "_send",
        "_sock", "_unsent", "_waiting", "closes", "number",
    )  # fmt: skip

    def __init__(
        self,
        sock: socket.socket,
        number: int,
        loop: asyncio.AbstractEventLoop,
        answer: Callable[[Connection, Request], None],
        gone: Callable[[Connection], None],
    ) -> None:
        self.number = number
        self.closes = False
        self._sock = sock
        self._send = sock.send
        self._fd = sock.fileno()
        self._loop = loop
        self._answer = answer
        self._gone = gone
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._request = Request()
        self._waiting: deque[Request] = deque()
        self._reply: Reply | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._unsent = bytearray()
        self._reads = True
        self._busy = False
        """A request is being answered."""
        self._closed = False
        if sys.platform == "linux":
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        loop.add_reader(self._fd, self._on_readable)

    # Reading: what the parser says of the request that is coming in.

    def on_message_begin(self) -> None:
        self._request = Request()

    def on_url(self, url: bytes) -> None:
        self._request.target += url
        self._request.head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._request.head_bytes += len(name) + len(value)
        match name.lower():
            case b"x-request-id":
                self._request.request_id = _printable(value)
            case b"expect":
                self._request.expects_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        request = self._request
        if self._parser is not None:
            request.method = self._parser.get_method().decode()
            request.is_old = self._parser.get_http_version() == "1.0"
            request.closes = not self._parser.should_keep_alive()
        if request.expects_continue and not self._busy:
            self.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        request = self._request
        if len(request.body) + len(body) > MAX_BODY_BYTES:
            request.error = TooLarge(f"the body is larger than {MAX_BODY_BYTES:,} bytes")
        else:
            request.body += body

    def on_message_complete(self) -> None:
        self._waiting.append(self._request)

    def _on_readable(self) -> None:
        try:
            data, ancillary, _, _ = self._sock.recvmsg(_READ_BYTES, _ANCILLARY_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        now = perf_counter()
        arrived_at = now - _age_s(ancillary)
        if not data:
            self.close()
        if self._parser is None:
            return
        self._parse(self._parser, data)
        for request in self._waiting:
            if not request.received_at:
                request.received_at = now
                request.arrived_at = arrived_at
        self._next()

    def _parse(self, parser: httptools.HttpRequestParser, data: bytes) -> None:
        n_waiting = len(self._waiting)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._request.closes = True  # what follows is not HTTP/1.1
        except httptools.HttpParserError as error:
            self._request.error = self._request.error or MalformedRequest(f"this is not HTTP/1.1: {error}")
        request = self._request
        if len(self._waiting) == n_waiting and not request.method:
            request.unfinished_bytes += len(data)
        if max(request.head_bytes, request.unfinished_bytes) > MAX_HEAD_BYTES:
            request.error = HeadersTooLarge(f"the head is larger than {MAX_HEAD_BYTES:,} bytes")
        if request.error is not None and request not in self._waiting:
            self._waiting.append(request)

    def _next(self) -> None:
        """Answer what has come, one after the other."""
        while self._waiting and not self._busy and not self._closed:
            request = self._waiting.popleft()
            self._busy = True
            self.closes = request.closes or request.error is not None
            if request.error is None:
                self._answer(self, request)
            else:
                self._parser = None  # what follows is not understood, so not read either
                self.respond(frames.error_response(request.error, request.request_id, closes=True))
        self._read(not self._closed and len(self._waiting) < _MOST_PIPELINED)

    def _read(self, on: bool) -> None:
        if on == self._reads or self._closed:
            return
        self._reads = on
        if on:
            self._loop.add_reader(self._fd, self._on_readable)
        else:
            self._loop.remove_reader(self._fd)

    # Writing.

    def reply_with(self, reply: Reply) -> None:
        self._reply = reply

    def respond(self, data: bytes) -> None:
        """A whole response without a reply behind it."""
        if self.write(data):
            self._busy = False
            if self.closes:
                self._hang_up()

    def write(self, data: bytes) -> bool:
        """Whether the socket has taken everything; the rest follows when it can."""
        if self._closed:
            return False
        if self._unsent:
            self._unsent += data
            return False
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return False
        if sent == len(data):
            return True
        self._unsent += data[sent:]
        self._loop.add_writer(self._fd, self._on_writable)
        return False

    def _on_writable(self) -> None:
        try:
            sent = self._send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        del self._unsent[:sent]
        if self._unsent:
            return
        self._loop.remove_writer(self._fd)
        if self._reply is not None:
            self._reply.on_drained()
        else:
            self.end_reply()

    def end_reply(self) -> None:
        """The response is with the socket as a whole."""
        self._reply = None
        self._busy = False
        if self.closes:
            self._hang_up()
        elif self._waiting:
            # Not here: this may be the engine's call.
            self._loop.call_soon(self._next)

    def _hang_up(self) -> None:
        if self._parser is not None:
            self.close()
            return
        # A socket closed with bytes unread is reset, and the client might never see what was wrong with them.
        self._waiting.clear()
        self._read(True)
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        self._lingering = self._loop.call_later(_LINGER_S, self.close)

    def close(self) -> None:
        """Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._lingering is not None:
            self._lingering.cancel()
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._sock.close()
        # The parser and this object hold one another: nothing but a collection would free them.
        self._parser = None
        self._waiting.clear()
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.abandon()
        self._gone(self)


def _age_s(ancillary: list[tuple[int, int, bytes]]) -> float:
    """How long ago the kernel got what was just read; 0 where it does not say. Its stamps are of the wall clock."""
    for _, kind, value in ancillary:
        if kind == _SO_TIMESTAMPNS:
            stamp: tuple[int, int] = _TIMESPEC.unpack(value)
            age_ns = time.time_ns() - stamp[0] * 1_000_000_000 - stamp[1]
            return max(0.0, age_ns / 1e9)
    return 0.0


def _printable(value: bytes) -> str:
    """A request id that can be sent back and logged; empty when this one cannot."""
    text = value.decode("latin-1")
    return text if len(text) <= 128 and text.isascii() and text.isprintable() else ""
