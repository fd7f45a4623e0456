"""Turns as bytes: SSE frames and the non-streaming body.

Frames of one answer differ in little: what stays is rendered once, a token's text is encoded into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from retrieval.types import Passage
from server.engine.protocol import Delta, FinishReason, Logprob, TokenLogprobs, ToolCallPiece
from server.errors import FirstwordError, envelope
from server.telemetry.timing import PHASES
from server.turn import Turn

DONE = b"data: [DONE]\n\n"
HEARTBEAT = b": keep-alive\n\n"

_QUOTE_CHARACTERS = 240
_SEPARATORS = {b"\xe2\x80\xa8": b"\\u2028", b"\xe2\x80\xa9": b"\\u2029", b"\xc2\x85": b"\\u0085"}


_encode_json = msgspec.json.Encoder().encode


def _encode(value: Any) -> bytes:
    """JSON that stays one line for readers too that end lines at U+2028, U+2029 and U+0085, as Python does."""
    encoded = _encode_json(value)
    if not encoded.isascii():
        for separator, escaped in _SEPARATORS.items():
            encoded = encoded.replace(separator, escaped)
    return encoded


class Frames:
    """The frames of one streamed answer, or of several side by side."""

    def __init__(self, turn: Turn, model: str, service_tier: str | None = None) -> None:
        self._turn = turn
        self._head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b%b' % (
            _encode(completion_id(turn)),
            turn.created,
            _encode(model),
            b"" if service_tier is None else b',"service_tier":%b' % _encode(service_tier),
        )
        self._before_text = [
            self._head + b',"choices":[{"index":%d,"delta":{"content":' % index
            for index in range(turn.request.sampling.n)
        ]
        self._after_text = b'},"logprobs":null,"finish_reason":null}]}\n\n'

    def role(self) -> bytes:
        """One for each answer; the sources come with the first. What it opens, text or a refusal, follows."""
        opens = b"refusal" if self._turn.refused_apart else b"content"
        frames = [
            b'%b,"choices":[{"index":%d,"delta":{"role":"assistant","%b":""},"logprobs":null,'
            b'"finish_reason":null}]%b}\n\n'
            % (self._head, index, opens, b"" if index else b',"firstword":%b' % _encode(opening(self._turn)))
            for index in range(self._turn.request.sampling.n)
        ]
        return b"".join(frames)

    def content(self, delta: Delta) -> bytes:
        """What the delta brought; nothing when it completed no text."""
        if not (delta.reasoning or delta.tool_calls or delta.logprobs or delta.refusal):
            return self.text(delta.text, delta.index) if delta.text else b""
        fields: dict[str, Any] = {}
        if delta.reasoning:
            fields["reasoning_content"] = delta.reasoning
        if delta.tool_calls:
            fields["tool_calls"] = [_tool_call(piece) for piece in delta.tool_calls]
        if delta.refusal:
            fields["refusal"] = delta.refusal
        if delta.text or not fields:
            fields["content"] = delta.text
        return b'%b,"choices":[{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":null}]}\n\n' % (
            self._head,
            delta.index,
            _encode(fields),
            _encode(_logprobs(delta.logprobs)),
        )

    def text(self, text: str, index: int = 0) -> bytes:
        encoded = _encode_json(text) if text.isascii() else _encode(text)
        return self._before_text[index] + encoded + self._after_text

    def finish(self, index: int, reason: FinishReason, *, last: bool = True) -> bytes:
        """`last`: of all answers; the timing comes with it."""
        return b'%b,"choices":[{"index":%d,"delta":{},"logprobs":null,"finish_reason":%b}]%b}\n\n' % (
            self._head,
            index,
            _encode(reason),
            b',"firstword":%b' % _encode({"timing": timing(self._turn)}) if last else b"",
        )

    def usage(self) -> bytes:
        return b'%b,"choices":[],"usage":%b}\n\n' % (self._head, _encode(usage(self._turn)))


def error_frame(error: FirstwordError) -> bytes:
    return b"data: " + _encode(envelope(error)) + b"\n\n"


class Collected:
    """The non-streaming body, out of the same deltas."""

    def __init__(self, n: int) -> None:
        self._texts: list[list[str]] = [[] for _ in range(n)]
        self._refusals = [""] * n
        self._reasonings: list[list[str]] = [[] for _ in range(n)]
        self._calls: list[dict[int, dict[str, Any]]] = [{} for _ in range(n)]
        self._logprobs: list[list[msgspec.Raw]] = [[] for _ in range(n)]
        """Encoded as they come: all at once they would hold the event loop up for a quarter of a second."""
        self._reasons: list[FinishReason | None] = [None] * n

    def add(self, delta: Delta) -> None:
        at = delta.index
        self._texts[at].append(delta.text)
        if delta.refusal:
            self._refusals[at] += delta.refusal
        self._reasonings[at].append(delta.reasoning)
        self._logprobs[at] += [msgspec.Raw(_encode(_token_logprobs(token))) for token in delta.logprobs]
        self._reasons[at] = delta.finish_reason
        for piece in delta.tool_calls:
            call = self._calls[at].setdefault(piece.index, {"id": piece.id, "name": "", "arguments": ""})
            call["id"] = call["id"] or piece.id
            call["name"] += piece.name or ""
            call["arguments"] += piece.arguments

    def body(self, turn: Turn, model: str, service_tier: str | None = None) -> bytes:
        body: dict[str, Any] = {
            "id": completion_id(turn),
            "object": "chat.completion",
            "created": turn.created,
            "model": model,
            "choices": [self._choice(index) for index in range(len(self._texts))],
            "usage": usage(turn),
            "firstword": {**opening(turn), "timing": timing(turn)},
        }
        if service_tier is not None:
            body["service_tier"] = service_tier
        return _encode(body)

    def _choice(self, index: int) -> dict[str, Any]:
        text = "".join(self._texts[index])
        refusal = self._refusals[index] or None
        message: dict[str, Any] = {
            "role": "assistant",
            "content": (text or None) if refusal else text,
            "refusal": refusal,
        }
        if reasoning := "".join(self._reasonings[index]):
            message["reasoning_content"] = reasoning
        if calls := self._calls[index]:
            message["content"] = text or None
            message["tool_calls"] = [
                {
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": call["name"], "arguments": call["arguments"]},
                }
                for call in calls.values()
            ]
        return {
            "index": index,
            "message": message,
            "logprobs": {"content": told, "refusal": None} if (told := self._logprobs[index]) else None,
            "finish_reason": self._reasons[index],
        }


def completion_id(turn: Turn) -> str:
    return "chatcmpl-" + turn.turn_id.removeprefix("turn_")


def opening(turn: Turn) -> dict[str, Any]:
    citations = [citation(found.number, found.passage) for found in turn.citations]
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
    """Milliseconds. Phases that a turn did not have (no retrieval) are 0; they add up to `ttft`.

    `plain_…`: what the usual layout would have had the engine do; null where prompts are rebuilt on each turn.
    """
    ended_ms = turn.clock.ended_ms
    ttft_ms = turn.clock.ttft_ms
    usual = turn.prompt.usual if turn.prompt else None
    return {
        **{phase: round(ended_ms.get(phase, 0.0), 3) for phase in PHASES},
        "ttft": None if ttft_ms is None else round(ttft_ms, 3),
        "prompt_tokens": turn.prompt_tokens,
        "cached_tokens": turn.cached_tokens,
        "plain_prompt_tokens": usual.prompt_tokens if usual else None,
        "plain_computed_tokens": usual.computed_tokens if usual else None,
    }


def server_timing(turn: Turn) -> str:
    """The `server-timing` header: the phases that are over when headers are sent."""
    return ", ".join(f"{phase};dur={ms:.1f}" for phase, ms in turn.clock.ended_ms.items())


def usage(turn: Turn) -> dict[str, Any]:
    counted: dict[str, Any] = {
        "prompt_tokens": turn.prompt_tokens,
        "completion_tokens": turn.completion_tokens,
        "total_tokens": turn.prompt_tokens + turn.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": turn.cached_tokens},
    }
    if turn.reasoning_tokens is not None:
        counted["completion_tokens_details"] = {"reasoning_tokens": turn.reasoning_tokens}
    return counted


def _tool_call(piece: ToolCallPiece) -> dict[str, Any]:
    """A call's id, type and name stand in its first piece."""
    function: dict[str, Any] = {"arguments": piece.arguments}
    if piece.name is None:
        return {"index": piece.index, "function": function}
    return {
        "index": piece.index,
        "id": piece.id,
        "type": "function",
        "function": {"name": piece.name} | function,
    }


def _logprobs(told: Sequence[TokenLogprobs]) -> dict[str, Any] | None:
    if not told:
        return None
    return {"content": [_token_logprobs(token) for token in told], "refusal": None}


def _token_logprobs(told: TokenLogprobs) -> dict[str, Any]:
    return _logprob(told.drawn) | {"top_logprobs": [_logprob(top) for top in told.top]}


def _logprob(entry: Logprob) -> dict[str, Any]:
    return {"token": entry.token, "logprob": entry.logprob, "bytes": list(entry.token.encode())}
