"""Streamed answers as the bytes that a server sends."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nx-ms: 0\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def event(fields: dict[str, Any] | str, separator: str = "\n") -> bytes:
    data = fields if isinstance(fields, str) else json.dumps(fields)
    return f"data: {data}{separator}{separator}".encode()


def delta(fields: dict[str, Any], finish_reason: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": finish_reason}]})


def usage(tokens: int) -> bytes:
    return event({"choices": [], "usage": {"completion_tokens": tokens}})


def answer_events(tokens: int) -> list[bytes]:
    return [
        delta({"role": "assistant", "content": ""}),
        *(delta({"content": f" w{position}"}) for position in range(tokens)),
        delta({}, "length"),
        usage(tokens),
        event("[DONE]"),
    ]


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(events: Iterable[bytes]) -> bytes:
    return HEAD + b"".join(map(chunked, events)) + LAST_CHUNK
