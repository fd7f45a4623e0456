"""Replies: what the engine makes goes to the socket in the moment it is made, and into the record.

A reader that lags stops its own stream alone: what the engine makes meanwhile is merged into one frame, which goes
out when the socket takes bytes again, so no more waits for a reader than the text of one answer.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, time
from typing import Protocol

from server.engine.protocol import Delta
from server.target import frames
from server.target.frames import Chunks
from server.target.log import Record


class Outlet(Protocol):
    """What a reply needs of its connection."""

    closes: bool
    """After this reply."""

    def write(self, data: bytes) -> bool:
        """Whether the socket has taken everything; the rest follows, and then the reply's `on_drained` is called."""
        ...

    def end_reply(self) -> None: ...

    def close(self) -> None: ...


class Reply:
    """What streamed and whole replies share; the engine's inbox for one request."""

    __slots__ = ("_end", "_outlet", "_over", "_record")

    def __init__(self, outlet: Outlet, record: Record, end: Callable[[Record], None]) -> None:
        self._outlet = outlet
        self._record = record
        self._end = end
        """Called once, with the finished record."""
        self._over = False

    def put(self, delta: Delta) -> None:
        raise NotImplementedError

    def on_drained(self) -> None:
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """The engine was stopped, and the target with it."""
        self._record.outcome = "stopped"
        self._outlet.close()

    def abandon(self) -> None:
        """The connection is gone."""
        if self._record.outcome in ("ok", "cut"):
            self._record.outcome = "client_gone"
        self._finish()

    def _finish(self) -> None:
        record = self._record
        if record.ended_at is None:
            record.ended_at = perf_counter()
            self._end(record)

    def _note_first(self, delta: Delta) -> None:
        """Of the engine's first token."""
        if self._record.engine_first_token_at is None:
            self._record.engine_first_token_at = perf_counter()
        if delta.prefill is not None:
            self._record.cached_tokens = delta.prefill.cached_tokens


class StreamedReply(Reply):
    __slots__ = (
        "_begun",
        "_behind",
        "_chunks",
        "_cut_after",
        "_held",
        "_held_end",
        "_include_usage",
        "_opening",
    )

    def __init__(
        self,
        outlet: Outlet,
        record: Record,
        end: Callable[[Record], None],
        chunks: Chunks,
        number: int,
        *,
        include_usage: bool,
        cut_after: int | None,
    ) -> None:
        super().__init__(outlet, record, end)
        self._chunks = chunks
        self._opening = chunks.opening(number, int(time()))
        self._include_usage = include_usage
        self._cut_after = cut_after
        """Tokens after which the stream ends with neither finish reason nor `[DONE]`."""
        self._begun = False
        self._behind = False
        """The socket has not taken everything yet."""
        self._held: list[str] = []
        """Tokens' texts that wait for it."""
        self._held_end = False
        """The last token is among them."""

    def begin(self) -> None:
        """The head and the role, ahead of the first token."""
        self._begun = True
        self._behind = not self._outlet.write(self._beginning())

    def put(self, delta: Delta) -> None:
        if delta.prefill is not None:
            self._note_first(delta)
        if self._over:
            return
        if self._behind:
            self._held.append(delta.text)
            self._held_end = delta.finish_reason is not None
        else:
            self._send(delta.text, 1, ends=delta.finish_reason is not None)

    def _send(self, text: str, n_tokens: int, *, ends: bool) -> None:
        record = self._record
        before, after = self._chunks.token(text)
        data = before + self._opening + after
        if not self._begun:
            self._begun = True
            data = self._beginning() + data
        record.tokens += n_tokens
        record.frames += 1
        if ends:
            self._over = True
            data += self._ending()
        elif self._cut_after is not None and record.tokens >= self._cut_after:
            self._over = True
            record.outcome = "cut"
            data += frames.END_OF_STREAM
        if self._outlet.write(data):
            self._note_taken()
        else:
            self._behind = True

    def on_drained(self) -> None:
        self._behind = False
        if self._record.tokens:
            self._note_taken()
        held, self._held = self._held, []
        if held and not self._over:
            self._send("".join(held), len(held), ends=self._held_end)

    def _note_taken(self) -> None:
        record = self._record
        now = record.last_token_at = perf_counter()
        if record.first_token_at is None:
            record.first_token_at = now
        if self._over:
            self._finish()
            self._outlet.end_reply()

    def _beginning(self) -> bytes:
        head = frames.stream_head(self._record.request_id, closes=self._outlet.closes)
        return head + self._opening.join(self._chunks.role) if self._chunks.is_chat else head

    def _ending(self) -> bytes:
        ending = self._opening.join(self._chunks.finish)
        if self._include_usage:
            ending += self._opening.join(self._chunks.usage(self._record))
        return ending + frames.DONE


class WholeReply(Reply):
    """An answer in one piece."""

    __slots__ = ("_model", "_number", "_texts")

    def __init__(
        self, outlet: Outlet, record: Record, end: Callable[[Record], None], number: int, model: str
    ) -> None:
        super().__init__(outlet, record, end)
        self._number = number
        self._model = model
        self._texts: list[str] = []

    def put(self, delta: Delta) -> None:
        if delta.prefill is not None:
            self._note_first(delta)
        self._texts.append(delta.text)
        self._record.tokens += len(delta.token_ids)
        if delta.finish_reason is None:
            return
        self._record.frames = 1
        body = frames.completion(self._record, "".join(self._texts), self._number, self._model)
        data = frames.response(200, body, self._record.request_id, closes=self._outlet.closes)
        if self._outlet.write(data):
            self.on_drained()

    def on_drained(self) -> None:
        self._record.last_token_at = perf_counter()
        self._finish()
        self._outlet.end_reply()
