"""uvicorn's HTTP/1.1 connection, with bounds on what comes in and on what waits to go out.

Divergences from `HttpToolsProtocol`:
- Headers are bounded in bytes and in time; uvicorn's httptools protocol bounds neither.
- What is not HTTP is answered in the one error shape, and never in the middle of a response.
- Few bytes wait for a slow reader (uvicorn: 64 KiB): beyond them a stream's unread tokens are merged.
- A reader that takes nothing for `send_timeout_s` is cut off, also when the response is over and waits to be
  flushed: uvicorn closes such a connection, and a close waits for the reader for ever.
- When a client leaves that has sent its next request already, the one that runs is told too.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from typing import Any, cast

import msgspec
from starlette.types import Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from server.errors import FirstwordError, HeadersTooLarge, MalformedRequest, TooManyConnections, envelope
from server.settings import Settings


class Outlet:
    """What a stream may know of the socket it writes to."""

    __slots__ = ("_flow", "send")

    def __init__(self, flow: FlowControl, send: Send) -> None:
        self._flow = flow
        self.send = send
        """The server's own, without what middleware wraps around it for the sake of a response's start."""

    @property
    def is_full(self) -> bool:
        """The reader lags: whoever sends now waits."""
        return self._flow.write_paused


def connection_class(settings: Settings) -> type[HttpToolsProtocol]:
    """The class of this deployment's connections, as `uvicorn.Config` takes it."""
    http, max_header_bytes = settings.http, settings.limits.max_header_bytes

    class Connection(HttpToolsProtocol):
        _header_bytes = 0
        _in_headers = False
        _began_just_now = False
        _too_large = False
        _running: RequestResponseCycle | None = None
        _header_timer: asyncio.TimerHandle | None = None
        _write_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            transport.set_write_buffer_limits(high=http.write_buffer_bytes)
            _hold_back_in_the_kernel(transport, http.write_buffer_bytes)
            if len(self.connections) > http.max_connections:
                self._refuse(TooManyConnections("too many connections are open", retry_after_s=1))
                return
            self._await_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._headers_came()
            self._reader_reads()
            super().connection_lost(exc)
            running = self._running
            if running is not None and not running.response_complete:
                # uvicorn tells the request that came last, which may wait behind this one.
                running.disconnected = True
                running.message_event.set()

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            self._began_just_now = False
            super().data_received(data)
            if self._in_headers and not self._began_just_now:
                # A header that is not complete yet has not been seen by `on_header`.
                self._header_bytes += len(data)
                if self._header_bytes > max_header_bytes:
                    self._refuse_headers()

        def on_message_begin(self) -> None:
            self._header_bytes = 0
            self._in_headers = self._began_just_now = True
            if self._header_timer is None and not self._is_answering():
                self._await_headers()
            super().on_message_begin()

        def on_url(self, url: bytes) -> None:
            self._count(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            self._count(len(name) + len(value))
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._in_headers = False
            self._headers_came()
            super().on_headers_complete()
            self.scope["state"]["outlet"] = Outlet(self.flow, cast(Send, self.cycle.send))

        def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
            self._running = cycle
            super()._start_asgi_task(cycle, app)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._await_reader()

        def resume_writing(self) -> None:
            self._reader_reads()
            super().resume_writing()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.transport.is_closing():
                self._await_reader()
            elif self._in_headers and not self._is_answering():
                self._await_headers()

        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            self._await_reader()

        def send_400_response(self, msg: str) -> None:
            if self._too_large:
                self._refuse_headers()
            else:
                self._refuse(MalformedRequest("what came is not an HTTP/1.1 request"))

        def _count(self, n_bytes: int) -> None:
            self._header_bytes += n_bytes
            if self._header_bytes > max_header_bytes:
                self._too_large = True
                raise ValueError("headers too large")  # ends the parsing: `send_400_response` comes next

        def _refuse_headers(self) -> None:
            self._refuse(
                HeadersTooLarge(f"request line and headers are larger than {max_header_bytes} bytes")
            )

        def _refuse(self, error: FirstwordError) -> None:
            running = self._running
            begun = running is not None and (running.response_started or running is not self.cycle)
            if not (self._is_answering() and begun) and not self.transport.is_closing():
                self.transport.write(_response(error))
            self.transport.close()

        def _is_answering(self) -> bool:
            return self._running is not None and not self._running.response_complete

        def _await_reader(self) -> None:
            if self._write_timer is None:
                waiting = self.transport.get_write_buffer_size()
                self._write_timer = self.loop.call_later(http.send_timeout_s, self._look_at_reader, waiting)

        def _look_at_reader(self, waiting: int) -> None:
            """A slow reader may go on; one that has taken nothing of what waited is cut off."""
            self._write_timer = None
            if self.transport.get_write_buffer_size() < waiting:
                self._await_reader()
            else:
                self.transport.abort()

        def _reader_reads(self) -> None:
            if self._write_timer is not None:
                self._write_timer.cancel()
                self._write_timer = None

        def _await_headers(self) -> None:
            self._header_timer = self.loop.call_later(http.header_timeout_s, self.transport.close)

        def _headers_came(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

    return Connection


def _hold_back_in_the_kernel(transport: asyncio.Transport, n_bytes: int) -> None:
    """Linux would take megabytes that the reader has not asked for, all of them frames of one token."""
    sock = transport.get_extra_info("socket")
    if sock is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, n_bytes)


def _response(error: FirstwordError) -> bytes:
    body: bytes = msgspec.json.encode(envelope(error))
    fields: dict[str, Any] = {"content-type": "application/json", "content-length": len(body)}
    if error.retry_after_s is not None:
        fields["retry-after"] = math.ceil(error.retry_after_s)
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return STATUS_LINE[error.status] + lines.encode() + b"connection: close\r\n\r\n" + body
