"""What is measured of one turn, from the events of its stream and the moments they arrived.

Every duration is in milliseconds, from one monotonic clock (`time.perf_counter`), and starts when the turn was *due*: before
any wait of the client's own, such as setting up a connection. The moment of an event is the moment its bytes arrived,
taken before they are decoded. A token is a delta with non-empty content, reasoning, tool call or refusal: role
chunks, comments and usage are none. Several deltas in one read arrived together, so the gaps between them are 0.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import msgspec

Outcome = Literal[
    "ok",
    "http_error",  # a status other than 200, 429 and 503
    "refused",  # 429 or 503: the server had no room
    "stream_error",  # an error event after the headers
    "truncated",  # the stream ended without a finish_reason or without [DONE]
    "malformed",  # not an event stream, or an event that is not a chat completion chunk
    "connection",  # no response: refused, reset, name or TLS failure
    "timeout",  # the whole turn took longer than allowed
]
OUTCOMES: tuple[Outcome, ...] = (
    "ok", "http_error", "refused", "stream_error", "truncated", "malformed", "connection", "timeout",
)  # fmt: skip

_DETAIL_CHARS = 200


class TurnResult(msgspec.Struct, frozen=True, kw_only=True):
    """One turn as its user saw it. A field is null when the turn never got there or the server did not say."""

    conversation_id: str
    turn: int
    """1 for the first turn of a conversation."""
    warmup: bool
    outcome: Outcome
    status: int | None
    """HTTP status; null where there was no response."""
    detail: str | None
    """Why the turn failed, in one line."""
    due_s: float
    """When the turn was due: seconds since the phase (warm-up or measured) began."""
    ttfb_ms: float | None
    """Until the response headers were complete, as curl's time_starttransfer."""
    ttft_ms: float | None
    """Until the first token."""
    itl_ms: tuple[float, ...]
    """Every gap between consecutive tokens, in order."""
    e2e_ms: float
    """Until `[DONE]`; for a failed turn, until it was known to have failed."""
    output_tokens: int
    output_tokens_from: Literal["usage", "deltas"]
    """`deltas` counts events, which a server may fill with several tokens each."""
    finish_reason: str | None
    prompt_tokens: int | None
    cached_tokens: int | None
    """Prompt tokens that the server took from its prefix cache."""
    server_ttft_ms: float | None
    """`firstword.timing.ttft`, the server's own figure."""

    @property
    def client_minus_server_ttft_ms(self) -> float | None:
        """What the network, and the clients on both ends of it, added to the server's own figure."""
        if self.ttft_ms is None or self.server_ttft_ms is None:
            return None
        return self.ttft_ms - self.server_ttft_ms


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Timing(msgspec.Struct):
    ttft: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None


class _Firstword(msgspec.Struct):
    timing: _Timing | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    firstword: _Firstword | None = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class TurnRecorder:
    """Takes the moments and events of one turn; `result` says what they amount to. The first failure is the outcome.

    All moments are `time.perf_counter()` seconds.
    """

    def __init__(self, due: float) -> None:
        self.due = due
        self.reply: list[str] = []
        self.failure: tuple[Outcome, str] | None = None
        self.status: int | None = None
        self.done_at: float | None = None
        self._headers_at: float | None = None
        self._token_times: list[float] = []
        self._finish_reason: str | None = None
        self._usage = _Usage()
        self._timing = _Timing()

    def headers(self, at: float, status: int) -> None:
        self._headers_at = at
        self.status = status

    def fail(self, outcome: Outcome, detail: str) -> None:
        if self.failure is None:
            self.failure = outcome, one_line(detail)

    def event(self, at: float, data: bytes) -> None:
        """One event's data, which arrived at `at`. Nothing counts after `[DONE]` or a failure."""
        if self.done_at is not None or self.failure is not None:
            return
        if data == b"[DONE]":
            self.done_at = at
            return
        try:
            chunk = _decode_chunk(data)
        except (ValueError, RecursionError) as error:
            self.fail("malformed", f"{error}: {data[:80].decode(errors='replace')}")
            return
        if chunk.error is not None:
            self.fail("stream_error", error_message(chunk.error))
            return
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.firstword is not None and chunk.firstword.timing is not None:
            self._timing = chunk.firstword.timing
        for choice in chunk.choices or ():
            self._choice(at, choice)

    def _choice(self, at: float, choice: _Choice) -> None:
        delta = choice.delta
        if delta is not None:
            if delta.content:
                self.reply.append(delta.content)
            if (
                delta.content
                or delta.reasoning
                or delta.reasoning_content
                or delta.tool_calls
                or delta.refusal
            ):
                self._token_times.append(at)
        if choice.finish_reason is not None:
            self._finish_reason = choice.finish_reason

    def end(self, unfinished_event: bool = False) -> None:
        """The stream ended. Without a finish reason and `[DONE]` it was cut short, however cleanly it was closed."""
        missing = []
        if self._finish_reason is None:
            missing.append("a finish_reason")
        if self.done_at is None:
            missing.append("[DONE]")
        if missing:
            rest = ", in the middle of an event" if unfinished_event else ""
            self.fail("truncated", f"the stream ended without {' or '.join(missing)}{rest}")

    def result(
        self, *, conversation_id: str, turn: int, warmup: bool, began: float, now: float
    ) -> TurnResult:
        """Call once the turn is over, at `now`; `began` is when its phase of the run began."""
        outcome, detail = self.failure or ("ok", None)
        times, usage, timing = self._token_times, self._usage, self._timing
        details = usage.prompt_tokens_details or _PromptDetails()
        counted = usage.completion_tokens is not None
        return TurnResult(
            conversation_id=conversation_id,
            turn=turn,
            warmup=warmup,
            outcome=outcome,
            status=self.status,
            detail=detail,
            due_s=self.due - began,
            ttfb_ms=None if self._headers_at is None else _ms(self.due, self._headers_at),
            ttft_ms=_ms(self.due, times[0]) if times else None,
            itl_ms=tuple(_ms(a, b) for a, b in pairwise(times)),
            e2e_ms=_ms(self.due, self.done_at if outcome == "ok" and self.done_at is not None else now),
            output_tokens=usage.completion_tokens if usage.completion_tokens is not None else len(times),
            output_tokens_from="usage" if counted else "deltas",
            finish_reason=self._finish_reason,
            prompt_tokens=_first(usage.prompt_tokens, timing.prompt_tokens),
            cached_tokens=_first(details.cached_tokens, timing.cached_tokens),
            server_ttft_ms=timing.ttft,
        )


def error_message(error: object) -> str:
    """The message inside an OpenAI error, or whatever stands in its place."""
    if isinstance(error, dict):
        error = error.get("message") or error
    return error if isinstance(error, str) else msgspec.json.encode(error).decode()


def one_line(text: str) -> str:
    """Printable, on one line, short enough for a table."""
    words = "".join(c if c.isprintable() else " " for c in text).split()
    line = " ".join(words)
    return line if len(line) <= _DETAIL_CHARS else line[: _DETAIL_CHARS - 1] + "…"


def _ms(start: float, end: float) -> float:
    return (end - start) * 1000.0


def _first(preferred: int | None, other: int | None) -> int | None:
    return other if preferred is None else preferred
