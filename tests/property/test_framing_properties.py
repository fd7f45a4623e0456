"""Whatever is said, in whatever pieces, the frames carry it through any reader that keeps to the standard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sse_starlette import ServerSentEvent
from whatwg import Event, EventStream

from server.api import frames
from server.context.template import Message
from server.engine.mailbox import merge
from server.engine.protocol import Delta, Logprob, Sampling, TokenLogprobs, ToolCallPiece
from server.telemetry.timing import TurnClock
from server.turn import Turn, TurnRequest

PING = ServerSentEvent(comment="keep-alive", sep="\n").encode()

_NASTY = [
    *'\r\n\x00\x0b\x0c\x1c\x1d\x1e\x7f\x85\u2028\u2029\ufeff\ufffd\ufffe\uffff\ue000 "\\/:',
    "\r\n",
    "\n\n",
    "\r\r",
    "\r\n\r\n",
    "data: ",
    "data: [DONE]\n\n",
    "\n: comment\n\n",
    "event: error\n",
    "\\u0000",
    "\\ud83d",
    "👋",
    "👩‍👩‍👧‍👦",
    "\U0010ffff",
    "é",
]
texts = st.one_of(
    st.lists(st.sampled_from(_NASTY), max_size=8).map("".join),
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.builds(lambda piece, times: piece * times, st.sampled_from(_NASTY), st.integers(100, 3_000)),
)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
n_answers = st.integers(1, 3)


def make_turn(n: int) -> Turn:
    request = TurnRequest([Message("user", "x")], Sampling(max_tokens=5, n=n), True, 2, True)
    return Turn(request=request, tenant="anonymous", clock=TurnClock(), number=1)


def read(pieces: Sequence[bytes]) -> EventStream:
    stream = EventStream()
    for piece in pieces:
        stream.feed(piece)
    stream.end()
    return stream


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """In pieces, some of them empty."""
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


def lagged(deltas: Sequence[Delta], is_read: Sequence[bool]) -> list[Delta]:
    """As a mailbox hands them to a reader that comes when it comes."""
    unread: dict[int, Delta] = {}
    taken: list[Delta] = []
    for number, delta in enumerate(deltas):
        before = unread.get(delta.index)
        unread[delta.index] = delta if before is None else merge(before, delta)
        if is_read and is_read[number % len(is_read)]:
            taken += unread.values()
            unread.clear()
    return [*taken, *unread.values()]


@given(
    n=n_answers,
    said=st.lists(st.tuples(st.integers(0, 2), texts), max_size=12),
    is_read=st.lists(st.booleans(), max_size=6),
    pings=st.lists(st.booleans(), max_size=6),
    places=st.lists(st.integers(0, 100_000), max_size=12),
    model=names,
    tier=st.none() | names,
)
def test_the_text_that_was_said_is_the_text_that_is_read(
    n: int,
    said: list[tuple[int, str]],
    is_read: list[bool],
    pings: list[bool],
    places: list[int],
    model: str,
    tier: str | None,
) -> None:
    turn = make_turn(n)
    rendered = frames.Frames(turn, model, tier)
    deltas = [Delta((number,), text, index=index % n) for number, (index, text) in enumerate(said)]
    taken = lagged(deltas, is_read)
    sent = [frame for delta in taken if (frame := rendered.content(delta))]
    sent += [rendered.finish(index, "stop", last=index == n - 1) for index in range(n)]
    sent += [rendered.usage(), frames.DONE]
    beaten = [PING * (bool(pings) and pings[at % len(pings)]) + frame for at, frame in enumerate(sent)]
    stream = read(cut(rendered.role() + b"".join(beaten), places))

    assert len(stream.events) == n + len(sent)
    assert stream.events[-1] == Event("[DONE]")
    assert {(event.kind, event.last_id) for event in stream.events} == {("message", "")}
    assert len(stream.comments) == sum(frame.startswith(PING) for frame in beaten)
    chunks = [json.loads(event.data) for event in stream.events[:-1]]
    for index in range(n):
        heard = "".join(
            choice["delta"].get("content", "")
            for chunk in chunks
            for choice in chunk["choices"]
            if choice["index"] == index
        )
        assert heard == "".join(text for at, text in said if at % n == index)
    assert [token for delta in sorted(taken, key=lambda delta: delta.index) for token in delta.token_ids] == [
        number for index in range(n) for number, (at, _) in enumerate(said) if at % n == index
    ]
    assert {chunk["model"] for chunk in chunks} == {model}
    assert [chunk.get("service_tier") for chunk in chunks] == [tier] * len(chunks)


logprobs = st.builds(
    TokenLogprobs,
    st.builds(Logprob, texts, st.floats(-9_999, 0)),
    st.lists(st.builds(Logprob, texts, st.floats(-9_999, 0)), max_size=2).map(tuple),
)
pieces = st.builds(ToolCallPiece, st.integers(0, 3), st.just("call_1"), names, texts) | st.builds(
    ToolCallPiece, st.integers(0, 3), arguments=texts
)
deltas_with_everything = st.builds(
    Delta,
    st.just((1,)),
    texts,
    index=st.integers(0, 2),
    logprobs=st.lists(logprobs, max_size=2).map(tuple),
    reasoning=texts,
    tool_calls=st.lists(pieces, max_size=2).map(tuple),
)


def expected(delta: Delta) -> dict[str, Any]:
    """The choice of one frame, as OpenAI's API has it."""
    told: dict[str, Any] = {}
    if delta.reasoning:
        told["reasoning_content"] = delta.reasoning
    if delta.tool_calls:
        told["tool_calls"] = [
            {"index": piece.index, "function": {"arguments": piece.arguments}}
            if piece.name is None
            else {
                "index": piece.index,
                "id": piece.id,
                "type": "function",
                "function": {"name": piece.name, "arguments": piece.arguments},
            }
            for piece in delta.tool_calls
        ]
    if delta.text or not told:
        told["content"] = delta.text
    content = [
        entry(token.drawn) | {"top_logprobs": [entry(top) for top in token.top]} for token in delta.logprobs
    ]
    return {
        "index": delta.index,
        "delta": told,
        "logprobs": {"content": content, "refusal": None} if content else None,
        "finish_reason": None,
    }


def entry(logprob: Logprob) -> dict[str, Any]:
    return {"token": logprob.token, "logprob": logprob.logprob, "bytes": list(logprob.token.encode())}


@given(delta=deltas_with_everything, places=st.lists(st.integers(0, 100_000), max_size=8))
def test_a_frame_says_what_a_json_library_says(delta: Delta, places: list[int]) -> None:
    turn = make_turn(3)
    frame = frames.Frames(turn, "m").content(delta)
    if not (delta.text or delta.reasoning or delta.tool_calls or delta.logprobs):
        assert frame == b""
        return
    chunk = {
        "id": frames.completion_id(turn),
        "object": "chat.completion.chunk",
        "created": turn.created,
        "model": "m",
        "choices": [expected(delta)],
    }
    ours = read(cut(frame, places)).events
    theirs = read([f"data: {json.dumps(chunk)}\n\n".encode()]).events
    assert [json.loads(event.data) for event in ours] == [json.loads(event.data) for event in theirs]


@given(delta=deltas_with_everything)
@example(delta=Delta((1,), "a\u2028b"))
@example(delta=Delta((1,), "", reasoning="a\u2029b"))
@example(delta=Delta((1,), "", tool_calls=(ToolCallPiece(0, arguments="a\x85b"),)))
def test_a_reader_that_ends_lines_where_python_does_gets_whole_events(delta: Delta) -> None:
    """httpx's `iter_lines` ends a line at U+0085, U+2028 and U+2029 too, and many clients read through it."""
    lines = frames.Frames(make_turn(3), "m").content(delta).decode().splitlines()
    assert [line for line in lines if line and not line.startswith("data: {")] == []
    for line in filter(None, lines):
        json.loads(line.removeprefix("data: "))


@pytest.mark.parametrize(
    ("raw", "events", "comments"),
    [
        (b"data: a\n\n", [Event("a")], []),
        (b"\xef\xbb\xbfdata: a\r\n\r\n", [Event("a")], []),
        (b"data:a\rdata: b\r\r", [Event("a\nb")], []),
        (b"data\n\ndata: \xef\xbb\xbf\n\n", [Event(""), Event("\ufeff")], []),
        (
            b": x\n\nid: 1\nevent: e\ndata: a\n\ndata: b\n\n",
            [Event("a", "e", "1"), Event("b", "message", "1")],
            [" x"],
        ),
        (b"data: lost", [], []),
        (b"data: lost\n", [], []),
        (b"data: kept\r\r", [Event("kept")], []),
        ("data: a\u2028b\x85\n\n".encode(), [Event("a\u2028b\x85")], []),
        (b"\n\nretry: 5\nid: a\0b\nevent: e\n\ndata:  a\n\n", [Event(" a")], []),
    ],
)
def test_the_reader_reads_as_the_standard_says(raw: bytes, events: list[Event], comments: list[str]) -> None:
    for size in (1, 2, 3, len(raw)):
        stream = read([raw[start : start + size] for start in range(0, len(raw), size)])
        assert (stream.events, stream.comments) == (events, comments)
