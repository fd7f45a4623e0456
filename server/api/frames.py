"""Turns as bytes: SSE frames and the non-streaming body.

Frames of one answer differ in little: what stays is rendered once, a token's text is encoded into it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from retrieval.types import Passage
from server.errors import FirstwordError, envelope
from server.telemetry.timing import PHASES
from server.turn import Turn

DONE = b"data: [DONE]\n\n"
HEARTBEAT = b": keep-alive\n\n"

_QUOTE_CHARACTERS = 240
_encode = msgspec.json.encode


class Frames:
    """The frames of one streamed answer."""

    def __init__(self, turn: Turn, model: str) -> None:
        self._turn = turn
        self._head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b' % (
            _encode(completion_id(turn)),
            turn.created,
            _encode(model),
        )
        self._before_text = self._head + b',"choices":[{"index":0,"delta":{"content":'
        self._after_text = b'},"logprobs":null,"finish_reason":null}]}\n\n'

    def role(self) -> bytes:
        return b"%b%b%b\n\n" % (
            self._head,
            b',"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
            b'"finish_reason":null}],"firstword":',
            _encode(opening(self._turn)) + b"}",
        )

    def text(self, text: str) -> bytes:
        return self._before_text + _encode(text) + self._after_text

    def finish(self) -> bytes:
        return (
            b'%b,"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":%b}],"firstword":%b}\n\n'
            % (
                self._head,
                _encode(self._turn.finish_reason),
                _encode({"timing": timing(self._turn)}),
            )
        )

    def usage(self) -> bytes:
        return b'%b,"choices":[],"usage":%b}\n\n' % (self._head, _encode(usage(self._turn)))


def error_frame(error: FirstwordError) -> bytes:
    return b"data: " + _encode(envelope(error)) + b"\n\n"


def completion(turn: Turn, model: str, text: str) -> bytes:
    """The body of a non-streaming answer."""
    return _encode(
        {
            "id": completion_id(turn),
            "object": "chat.completion",
            "created": turn.created,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "logprobs": None,
                    "finish_reason": turn.finish_reason,
                }
            ],
            "usage": usage(turn),
            "firstword": {**opening(turn), "timing": timing(turn)},
        }
    )


def completion_id(turn: Turn) -> str:
    return "chatcmpl-" + turn.turn_id.removeprefix("turn_")


def opening(turn: Turn) -> dict[str, Any]:
    citations = [citation(index, passage) for index, passage in enumerate(turn.passages, start=1)]
    return {"turn_id": turn.turn_id, "turn": turn.number, "citations": citations}


def citation(index: int, passage: Passage) -> dict[str, Any]:
    quote = passage.text
    if len(quote) > _QUOTE_CHARACTERS:
        quote = quote[:_QUOTE_CHARACTERS].rsplit(" ", 1)[0] + " …"
    return {
        "index": index,
        "file_id": passage.document_id,
        "filename": passage.filename,
        "chunk_id": passage.chunk_id,
        "score": round(passage.score, 4),
        "quote": quote,
    }


def timing(turn: Turn) -> dict[str, float | int | None]:
    """Milliseconds. Phases that a turn did not have (no retrieval) are 0; they add up to `ttft`."""
    ended_ms = turn.clock.ended_ms
    ttft_ms = turn.clock.ttft_ms
    return {
        **{phase: round(ended_ms.get(phase, 0.0), 3) for phase in PHASES},
        "ttft": None if ttft_ms is None else round(ttft_ms, 3),
        "prompt_tokens": turn.prompt_tokens,
        "cached_tokens": turn.cached_tokens,
    }


def server_timing(turn: Turn) -> str:
    """The `server-timing` header: the phases that are over when headers are sent."""
    return ", ".join(f"{phase};dur={ms:.1f}" for phase, ms in turn.clock.ended_ms.items())


def usage(turn: Turn) -> dict[str, Any]:
    return {
        "prompt_tokens": turn.prompt_tokens,
        "completion_tokens": turn.completion_tokens,
        "total_tokens": turn.prompt_tokens + turn.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": turn.cached_tokens},
    }
