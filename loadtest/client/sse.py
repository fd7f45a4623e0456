"""Server-sent events, decoded from bytes as they arrive.

Divergences from https://html.spec.whatwg.org/multipage/server-sent-events.html:
- A lone CR does not end a line: JSON cannot hold a raw one, and treating it as an end would need a look-ahead over reads.
- Only the data of an event is kept. `event:`, `id:` and `retry:` mean nothing to an OpenAI-compatible stream.
- An event larger than `MAX_EVENT_BYTES` is an error instead of unbounded memory.
"""

from __future__ import annotations

MAX_EVENT_BYTES = 16 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


class SseDecoder:
    """Turns reads of any size into the data of whole events.

    Bytes are only ever cut at line ends, so a UTF-8 character split over two reads stays whole. An event that its
    blank line does not close is never returned: `unfinished` tells that one was left.
    """

    __slots__ = ("_data", "_data_bytes", "_started", "_tail")

    def __init__(self) -> None:
        self._tail = b""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._started = False

    def feed(self, read: bytes) -> list[bytes]:
        """The data of the events that this read completes, in order. Raises `ValueError` on an oversized event."""
        lines = (self._tail + read).split(b"\n")
        self._tail = lines.pop()
        events: list[bytes] = []
        if lines and not self._started:
            self._started = True
            lines[0] = lines[0].removeprefix(_BOM)
        for ended_line in lines:
            line = ended_line.removesuffix(b"\r")
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data = []
                    self._data_bytes = 0
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
                self._data_bytes += len(line)
            elif line == b"data":
                self._data.append(b"")
        if self._data_bytes + len(self._tail) > MAX_EVENT_BYTES:
            raise ValueError(f"an event is larger than {MAX_EVENT_BYTES} bytes")
        return events

    @property
    def unfinished(self) -> bool:
        return bool(self._data) or bool(self._tail.strip())
