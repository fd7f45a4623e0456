"""One input: the bytes, and what is certain of the answer."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

CRLF = b"\r\n"
CHAT = b"/v1/chat/completions"
PREWARM = b"/v1/chat/prewarm"
SMUGGLED = b"/smuggled"
"""Stands in requests that are no requests, since they are part of a body: no answer may name it."""


@dataclass(frozen=True, slots=True)
class Case:
    kind: str
    segments: tuple[bytes, ...]
    """Sent one after the other, each by itself as far as the network lets it."""
    answers: int | None = None
    """How many responses must come; None where the bytes may be no request."""

    @property
    def sent(self) -> bytes:
        return b"".join(self.segments)

    @property
    def asks_for_headers_alone(self) -> bool:
        return self.sent.lstrip(b"\r\n").startswith(b"HEAD ")


def request(
    path: bytes = b"/health/live",
    headers: tuple[bytes, ...] = (b"Host: firstword",),
    *,
    method: bytes = b"GET",
    version: bytes = b"HTTP/1.1",
    body: bytes = b"",
) -> bytes:
    """As it is written, right or wrong."""
    return CRLF.join([b" ".join([method, path, version]), *headers, b"", body])


def post(body: bytes, *headers: bytes, path: bytes = CHAT) -> bytes:
    """A whole request with this body."""
    framing = (b"Host: firstword", b"Content-Type: application/json", b"Content-Length: %d" % len(body))
    return request(path, (*framing, *headers), method=b"POST", body=body)


def cut(source: Random, data: bytes, most: int = 6) -> tuple[bytes, ...]:
    """In pieces."""
    places = sorted(source.randrange(len(data) + 1) for _ in range(source.randint(0, most)))
    return tuple(data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True))
