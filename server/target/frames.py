"""Answers as bytes. What the chunks of all answers share is rendered once, and what one stream's share once a stream.

A chunk is `prefix + opening + rest + END`: the prefix holds the length of the whole as HTTP's chunked coding wants
it, the opening the stream's id and date, the rest what the chunk says. Openings have one length, so prefix and rest
of a token are the same in every stream.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from server.errors import FirstwordError, envelope
from server.target.log import Record

_STREAM_HEAD = (
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    "x-accel-buffering: no\r\ntransfer-encoding: chunked\r\nx-request-id: {}\r\n{}\r\n"
)
_REASONS = {
    200: "OK", 202: "Accepted", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
    413: "Content Too Large", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 505: "HTTP Version Not Supported",
}  # fmt: skip
_CLOSE = "connection: close\r\n"
_MOST_KEPT = 4_096
"""Texts rendered ahead. A reply has few; those merged for a slow reader differ."""

END_OF_STREAM = b"0\r\n\r\n"
DONE = b"e\r\ndata: [DONE]\n\n\r\n" + END_OF_STREAM

_encode = msgspec.json.Encoder().encode


class Chunks:
    """The chunks of one endpoint's streams."""

    def __init__(self, kind: str, id_prefix: str, model: str) -> None:
        self._kind = kind
        self.is_chat = kind == "chat.completion.chunk"
        self._id_prefix = id_prefix
        self._model = _encode(model).decode()
        self._opening_bytes = len(self.opening(0, 0))
        self._tokens: dict[str, tuple[bytes, bytes]] = {}
        self.role = self._render('"choices":[{"index":0,"delta":{"role":"assistant","content":""},'
                                 '"logprobs":null,"finish_reason":null}]')  # fmt: skip
        delta = '"delta":{}' if self.is_chat else '"text":""'
        self.finish = self._render(
            f'"choices":[{{"index":0,{delta},"logprobs":null,"finish_reason":"length"}}]'
        )

    def opening(self, number: int, created: int) -> bytes:
        """What all chunks of a stream begin with. The same length for any: 32 digits of hexadecimal, 10 of time."""
        return (
            f'{{"id":"{self._id_prefix}{number:032x}","object":"{self._kind}","created":{created:010d},'
            f'"model":{self._model},'
        ).encode()

    def token(self, text: str) -> tuple[bytes, bytes]:
        """What stands before and after the stream's opening."""
        rendered = self._tokens.get(text)
        if rendered is None:
            told = _encode(text).decode()
            delta = f'"delta":{{"content":{told}}}' if self.is_chat else f'"text":{told}'
            rendered = self._render(f'"choices":[{{"index":0,{delta},"logprobs":null,"finish_reason":null}}]')
            if len(self._tokens) < _MOST_KEPT:
                self._tokens[text] = rendered
        return rendered

    def usage(self, record: Record) -> tuple[bytes, bytes]:
        return self._render(f'"choices":[],"usage":{_encode(usage(record)).decode()}')

    def _render(self, rest: str) -> tuple[bytes, bytes]:
        tail = f"{rest}}}\n\n".encode()
        length = len(b"data: ") + self._opening_bytes + len(tail)
        return b"%x\r\ndata: " % length, tail + b"\r\n"


def stream_head(request_id: str, *, closes: bool) -> bytes:
    return _STREAM_HEAD.format(request_id, _CLOSE if closes else "").encode()


def completion(record: Record, text: str, number: int, model: str) -> dict[str, Any]:
    """The body of an answer that does not stream."""
    is_chat = record.path.endswith("/chat/completions")
    said = {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
    return {
        "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{number:032x}",
        "object": "chat.completion" if is_chat else "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, **said, "logprobs": None, "finish_reason": "length"}],
        "usage": usage(record),
    }


def usage(record: Record) -> dict[str, Any]:
    return {
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.tokens,
        "total_tokens": record.prompt_tokens + record.tokens,
        "prompt_tokens_details": {"cached_tokens": record.cached_tokens},
    }


def response(
    status: int,
    body: Any,
    request_id: str = "",
    *,
    closes: bool = False,
    extra: str = "",
    bodiless: bool = False,
) -> bytes:
    """A whole response with a JSON body. `bodiless`: the answer to a HEAD."""
    encoded = _encode(body)
    identified = f"x-request-id: {request_id}\r\n" if request_id else ""
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\n{identified}{extra}"
        f"{_CLOSE if closes else ''}content-length: {len(encoded)}\r\n\r\n"
    ).encode()
    return head if bodiless else head + encoded


def error_response(
    error: FirstwordError, request_id: str = "", *, closes: bool, extra: str = "", bodiless: bool = False
) -> bytes:
    if error.retry_after_s is not None:
        extra += f"retry-after: {error.retry_after_s:g}\r\n"
    return response(error.status, envelope(error), request_id, closes=closes, extra=extra, bodiless=bodiless)
