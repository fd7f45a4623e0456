"""Bytes to the server, whatever they are, and its responses back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import httptools

QUIET_S = 0.3
"""Where it is not certain that an answer comes, silence for this long is none."""
LONGEST_S = 60.0
"""For an answer that must come."""


@dataclass(slots=True)
class Response:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    has_body: bool = True


class Responses:
    """Bytes in as they come; `found` are the responses in them. Raises `ValueError` for what is no response."""

    def __init__(self, *, heads_alone: bool = False) -> None:
        """`heads_alone`: the request asked for no body."""
        self.found: list[Response] = []
        self._heads_alone = heads_alone
        self._ended = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        if self._ended or not data:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise ValueError(f"no response: {error}, in {data[:200]!r}") from error

    def on_message_begin(self) -> None:
        self.found.append(Response())

    def on_header(self, name: bytes, value: bytes) -> None:
        self.found[-1].headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.found[-1].status = self._parser.get_status_code()
        if self._heads_alone and self.found[-1].status >= 200:
            self.found[-1].complete = self._ended = True
            self.found[-1].has_body = False

    def on_body(self, body: bytes) -> None:
        if not self._ended:
            self.found[-1].body += body

    def on_message_complete(self) -> None:
        self.found[-1].complete = True

    @property
    def answers(self) -> list[Response]:
        """Without the interim ones."""
        return [response for response in self.found if response.status >= 200]


@dataclass(slots=True)
class Exchange:
    responses: list[Response]
    received: bytes
    closed: bool
    """By the server."""


async def exchange(
    port: int, segments: Sequence[bytes], n_answers: int | None, *, heads_alone: bool = False
) -> Exchange:
    """Send them and read until every answer is there, nothing comes any more, or the server closes.

    `n_answers`: how many must come; None: perhaps none.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    raw_socket: socket.socket = writer.get_extra_info("socket")
    raw_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sending = asyncio.create_task(_send(writer, segments))
    responses, received, closed = Responses(heads_alone=heads_alone), bytearray(), False
    wait_s = QUIET_S if n_answers is None else LONGEST_S
    try:
        while n_answers is None or sum(answer.complete for answer in responses.answers) < n_answers:
            try:
                data = await asyncio.wait_for(reader.read(65_536), wait_s)
            except TimeoutError:
                if sending.done():
                    break
                continue
            if not data:
                closed = True
                break
            received += data
            responses.feed(data)
    except ConnectionError:
        closed = True
    finally:
        sending.cancel()
        await asyncio.wait((sending,))
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return Exchange(responses.answers, bytes(received), closed)


async def _send(writer: asyncio.StreamWriter, segments: Sequence[bytes]) -> None:
    with suppress(ConnectionError):
        for segment in segments:
            writer.write(segment)
            await writer.drain()
            await asyncio.sleep(0)
