"""One streamed answer, read from the raw bytes of its connection after the clock has stopped.

Reading afterwards keeps the measuring loop to a system call and a time stamp, and lets the reading be exact:
chunked encoding is undone, every frame is parsed, and a frame has the time at which its last byte was read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import msgspec


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int


class _Error(msgspec.Struct):
    message: str = ""


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Chunk).decode


@dataclass(slots=True)
class Turn:
    """What was read of one answer, piece by piece, and when."""

    sent_at: float
    pieces: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Answer:
    sent_at: float
    frame_times: list[float] = field(default_factory=list)
    """When each frame with text was read: role chunks, comments and the finish are none."""
    tokens: int | None = None
    """As the server's usage says; None when it said nothing."""
    finishes: int = 0
    done: bool = False
    error: str | None = None

    @property
    def ttft_s(self) -> float | None:
        return self.frame_times[0] - self.sent_at if self.frame_times else None

    def fault(self, expected_tokens: int) -> str | None:
        """What it lacks; None for a complete answer."""
        if self.error is not None:
            return self.error
        if self.tokens is None:
            return "no usage"
        if self.tokens != expected_tokens:
            return f"{self.tokens} tokens instead of {expected_tokens}"
        if not 0 < len(self.frame_times) <= self.tokens:
            return f"{len(self.frame_times)} frames for {self.tokens} tokens"
        if self.finishes != 1:
            return f"{self.finishes} finishes"
        return None if self.done else "no [DONE]"


def read_answer(turn: Turn) -> Answer:
    """Never raises for what a server sent: what cannot be read is the answer's error."""
    answer = Answer(turn.sent_at)
    raw = b"".join(turn.pieces)
    if not raw.startswith(b"HTTP/1.1 200"):
        answer.error = raw.partition(b"\r\n")[0].decode(errors="replace") or "no answer"
        return answer
    ends = list(accumulate(len(piece) for piece in turn.pieces))
    try:
        for line, raw_end in _lines(raw):
            if line.startswith(b"data:"):
                _take(answer, line[5:].strip(), turn.times[bisect_left(ends, raw_end)])
    except (msgspec.DecodeError, ValueError) as error:
        answer.error = f"unreadable: {error}"
    return answer


def _take(answer: Answer, data: bytes, at: float) -> None:
    if data == b"[DONE]":
        answer.done = True
        return
    chunk = _decode(data)
    if chunk.error is not None:
        answer.error = f"error: {chunk.error.message}"
    for choice in chunk.choices:
        if choice.delta.content:
            answer.frame_times.append(at)
        answer.finishes += choice.finish_reason is not None
    if chunk.usage is not None:
        answer.tokens = chunk.usage.completion_tokens


def _lines(raw: bytes) -> Iterator[tuple[bytes, int]]:
    """Whole lines of the body with the offset in `raw` at which each was complete."""
    begun = b""
    for start, end in _chunks(raw):
        position = start
        while (newline := raw.find(b"\n", position, end)) >= 0:
            yield begun + raw[position:newline], newline + 1
            begun = b""
            position = newline + 1
        begun += raw[position:end]


def _chunks(raw: bytes) -> Iterator[tuple[int, int]]:
    """Where the data of each HTTP chunk lies. Ends early when the answer was cut short."""
    position = raw.find(b"\r\n\r\n") + 4
    while (line_end := raw.find(b"\r\n", position)) >= 0:
        size = int(raw[position:line_end].partition(b";")[0], 16)
        start = line_end + 2
        if size == 0 or start + size > len(raw):
            return
        yield start, start + size
        position = start + size + 2


def is_over(pieces: Sequence[bytes]) -> bool:
    """True when the last pieces end in the last HTTP chunk. A header's value can end in 0, so its line is looked at."""
    return b"".join(pieces[-7:])[-7:] == b"\r\n0\r\n\r\n"
