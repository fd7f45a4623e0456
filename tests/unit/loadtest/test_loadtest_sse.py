from __future__ import annotations

import pytest

from loadtest.client import sse
from loadtest.client.sse import SseDecoder

STREAM = 'data: {"a":"é"}\r\n\r\n: comment\n\ndata:two\n\nevent: x\nid: 1\n data: no\ndata: a\ndata: b\n\ndata\n\n'.encode()
EVENTS = ['{"a":"é"}'.encode(), b"two", b"a\nb", b""]


@pytest.mark.parametrize("size", range(1, len(STREAM) + 1))
def test_events_do_not_depend_on_how_the_bytes_were_cut(size: int) -> None:
    decoder = SseDecoder()
    events = [event for at in range(0, len(STREAM), size) for event in decoder.feed(STREAM[at : at + size])]
    assert events == EVENTS
    assert not decoder.unfinished


def test_an_event_without_its_blank_line_is_unfinished() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: [DONE]\n") == []
    assert decoder.unfinished


def test_a_byte_order_mark_is_dropped_once() -> None:
    assert SseDecoder().feed(b"\xef\xbb\xbfdata: x\n\n") == [b"x"]


def test_only_one_space_is_dropped_and_other_fields_are_no_data() -> None:
    assert SseDecoder().feed(b"data:  x\n\ndatabase: y\n\nretry: 10\n\n") == [b" x"]


def test_an_event_larger_than_the_limit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    assert SseDecoder().feed(b"data: " + b"x" * 200 + b"\n\n")  # whole in one read: it is there already
    with pytest.raises(ValueError, match="larger than 100 bytes"):
        SseDecoder().feed(b"x" * 101)
    decoder = SseDecoder()
    decoder.feed(b"data: " + b"x" * 80 + b"\n")
    with pytest.raises(ValueError, match="larger than 100 bytes"):
        decoder.feed(b"data: " + b"x" * 80 + b"\n")
