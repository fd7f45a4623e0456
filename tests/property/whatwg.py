"""An event stream as the WHATWG specifies its parsing, for bytes that come in any pieces.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Event:
    data: str
    kind: str = "message"
    last_id: str = ""


@dataclass(slots=True)
class EventStream:
    """`feed` bytes; dispatched events and comments gather here. What has no blank line after it is no event."""

    events: list[Event] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    retry_ms: int | None = None

    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )
    _unsplit: str = ""
    _at_start: bool = True
    _data: list[str] = field(default_factory=list)
    _kind: str = ""
    _last_id: str = ""

    def feed(self, chunk: bytes) -> None:
        for line in self._lines(self._decoder.decode(chunk)):
            self._take(line)

    def end(self) -> None:
        """A carriage return that came last ends its line after all; an event without its blank line is lost."""
        for line in self._lines(self._decoder.decode(b"", final=True), final=True):
            self._take(line)
        self._data.clear()

    def _lines(self, text: str, *, final: bool = False) -> Iterator[str]:
        if self._at_start and text:
            self._at_start = False
            text = text.removeprefix("\ufeff")
        self._unsplit += text
        start = at = 0
        text = self._unsplit
        while at < len(text):
            if text[at] == "\n":
                yield text[start:at]
                start = at + 1
            elif text[at] == "\r":
                if at + 1 == len(text) and not final:
                    break  # a line feed may follow and belongs to it
                yield text[start:at]
                at += text[at + 1 : at + 2] == "\n"
                start = at + 1
            at += 1
        self._unsplit = text[start:]

    def _take(self, line: str) -> None:
        if not line:
            self._dispatch()
            return
        name, colon, value = line.partition(":")
        if colon and not name:
            self.comments.append(value)
            return
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._kind = value
            case "id" if "\0" not in value:
                self._last_id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry_ms = int(value)

    def _dispatch(self) -> None:
        if self._data:
            self.events.append(Event("\n".join(self._data), self._kind or "message", self._last_id))
        self._data.clear()
        self._kind = ""
