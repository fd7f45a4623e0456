"""One turn's response as it arrives: the moments of its tokens, and how it ended.

All moments are `time.perf_counter` seconds, taken when the bytes were read and before they were parsed. A token is a
delta with non-empty content, reasoning, tool call or refusal: role chunks, comments and usage are none. Several deltas
in one read arrived together, so the gaps between them are 0. The first failure is the outcome.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

from loadtest.client.chunk import Choice, Usage, decode_chunk, error_message, one_line, server_timing
from loadtest.client.sse import SseDecoder
from loadtest.figures.turn_result import Outcome, ServerTiming, TurnResult

if TYPE_CHECKING:
    from loadtest.client.connection import Receiver

_ERROR_BODY_BYTES = 4096
_LINGER_S = 1.0
"""How long a response may stay open after `[DONE]` or an error event; until it ends, its connection is not free."""


class Recorder:
    """A `Receiver`. `finished` is done when nothing more can change the outcome and the connection is free again."""

    def __init__(self, due: float) -> None:
        self.due = due
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reply: list[str] = []
        self.failure: tuple[Outcome, str] | None = None
        self.held_s = 0.0
        self.sent_at: float | None = None
        self.connect_s: float | None = None
        self.done_at: float | None = None
        """When `[DONE]` came."""
        self.events = 0
        self._status: int | None = None
        self._first_byte_at: float | None = None
        self._token_times: list[float] = []
        self._finish_reason: str | None = None
        self._usage = Usage()
        self._server: ServerTiming | None = None
        self.ended_at: float | None = None
        """When the connection was free again, and so the user: what is due next counts from here."""
        self._known_at: float | None = None
        """When its outcome was known; the connection may have stayed open after it."""
        self._lingering: asyncio.TimerHandle | None = None
        self._sse = SseDecoder()
        self._error_body = b""

    # A connection's calls

    def first_byte(self, at: float) -> None:
        self._first_byte_at = at

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self._status = status
        if status != 200:
            return
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
        if kind not in ("", "text/event-stream"):
            self.fail("malformed", f"answered {kind} instead of text/event-stream")
            self._end(perf_counter())

    def body(self, at: float, data: bytes) -> None:
        if self._status != 200:
            self._error_body += data[: _ERROR_BODY_BYTES - len(self._error_body)]
            return
        if self.failure is not None:
            return
        try:
            events = self._sse.feed(data)
        except ValueError as error:
            self.fail("malformed", str(error))
            events = []
        for event in events:
            self._event(at, event)
        if self.outcome == "malformed":
            self._end(at)
        elif self._known_at is None and (self.done_at is not None or self.failure is not None):
            self._known_at = at
            # Mostly the response ends with the same read, and no timer is needed.
            asyncio.get_running_loop().call_soon(self._linger)

    def over(self, at: float) -> None:
        if self._status == 200:
            self._judge_end()
        else:
            self._judge_status()
        self._end(at)

    def broken(self, at: float, reason: str, malformed: bool) -> None:
        if malformed:
            self.fail("malformed", reason)
        elif self._status is None:
            self.fail("connection", reason)
        elif self._status != 200:
            self._judge_status()
        elif self.done_at is None or self._finish_reason is None:
            self.fail("truncated", f"the connection broke: {reason}")
        self._end(at)

    # The client's calls

    def fail(self, outcome: Outcome, detail: str) -> None:
        if self.failure is None:
            self.failure = outcome, one_line(detail)

    def give_up(self, at: float, outcome: Outcome, detail: str) -> None:
        """The client ends it, unless `[DONE]` had come: then only the connection is late."""
        if self.done_at is None or self._finish_reason is None:
            self.fail(outcome, detail)
        self._end(at)

    @property
    def outcome(self) -> Outcome:
        return "ok" if self.failure is None else self.failure[0]

    def _linger(self) -> None:
        if self.ended_at is None:
            loop = asyncio.get_running_loop()
            self._lingering = loop.call_later(_LINGER_S, lambda: self._end(perf_counter()))

    def _end(self, at: float) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        if self.ended_at is None:
            self.ended_at = at
            if not self.finished.done():
                self.finished.set_result(None)

    def _event(self, at: float, data: bytes) -> None:
        """One event's data. Nothing counts after `[DONE]` or a failure."""
        if self.done_at is not None or self.failure is not None:
            return
        self.events += 1
        if data == b"[DONE]":
            self.done_at = at
            return
        try:
            chunk = decode_chunk(data)
        except (ValueError, RecursionError) as error:
            self.fail("malformed", f"{error}: {data[:80].decode(errors='replace')}")
            return
        for choice in chunk.choices or ():
            self._choice(at, choice)
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.firstword is not None or chunk.metrics is not None:
            self._server = server_timing(chunk) or self._server
        if chunk.error is not None:
            self.fail("stream_error", error_message(chunk.error))

    def _choice(self, at: float, choice: Choice) -> None:
        delta = choice.delta
        if delta is not None:
            if delta.content:
                self.reply.append(delta.content)
                self._token_times.append(at)
            elif delta.reasoning or delta.reasoning_content or delta.tool_calls or delta.refusal:
                self._token_times.append(at)
        if choice.finish_reason is not None:
            self._finish_reason = choice.finish_reason

    def _judge_end(self) -> None:
        """Without a finish reason and `[DONE]` the stream was cut short, however cleanly it was closed."""
        missing = []
        if self._finish_reason is None:
            missing.append("a finish_reason")
        if self.done_at is None:
            missing.append("[DONE]")
        if missing:
            rest = ", in the middle of an event" if self._sse.unfinished else ""
            self.fail("truncated", f"the stream ended without {' or '.join(missing)}{rest}")

    def _judge_status(self) -> None:
        body = self._error_body
        try:
            parsed = msgspec.json.decode(body)
        except (ValueError, RecursionError):
            detail = body.decode(errors="replace") or f"status {self._status}"
        else:
            detail = error_message(parsed.get("error", parsed) if isinstance(parsed, dict) else parsed)
        self.fail("refused" if self._status in (429, 503) else "http_error", detail)

    def result(
        self, *, conversation_id: str, holding: int, turn: int, request_id: str, warmup: bool, began: float
    ) -> TurnResult:
        """What it amounts to, once it is finished; `began` is when the stage began."""
        times, usage, due = self._token_times, self._usage, self.due
        ended_at = due if self.ended_at is None else self.ended_at
        if self._known_at is not None:
            ended_at = self._known_at
        sent_at = ended_at if self.sent_at is None else self.sent_at
        counted = usage.completion_tokens
        return TurnResult(
            conversation_id=conversation_id,
            holding=holding,
            turn=turn,
            request_id=request_id,
            warmup=warmup,
            outcome=self.outcome,
            status=self._status,
            detail=None if self.failure is None else self.failure[1],
            due_s=due - began,
            held_ms=self.held_s * 1e3,
            late_ms=max(0.0, sent_at - due - self.held_s) * 1e3,
            connect_ms=None if self.connect_s is None else self.connect_s * 1e3,
            ttfb_ms=None if self._first_byte_at is None else (self._first_byte_at - due) * 1e3,
            ttft_ms=(times[0] - due) * 1e3 if times else None,
            itl_us=tuple(int((b - a) * 1e6 + 0.5) for a, b in pairwise(times)),
            e2e_ms=(ended_at - due) * 1e3,
            output_tokens=len(times) if counted is None else counted,
            output_tokens_from="deltas" if counted is None else "usage",
            finish_reason=self._finish_reason,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            server=self._server,
        )


if TYPE_CHECKING:
    _: type[Receiver] = Recorder
