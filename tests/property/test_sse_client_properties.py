"""However a response's bytes are cut into reads, the load tester reads the same turn out of them."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from loadtest.client.connection import Connection
from loadtest.client.recorder import Recorder
from loadtest.client.sse import SseDecoder
from loadtest.figures.turn_result import TurnResult


class FedConnection(Connection):
    """Reads what a test gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    @property
    def is_open(self) -> bool:
        return not self.closed

    def _write(self, data: bytes) -> None:
        pass

    def _close(self) -> None:
        self.closed = True

    def feed(self, reads: list[bytes], ended: bool) -> None:
        for number, data in enumerate(reads):
            if self.closed:
                return
            self._received(100.0 + number / 100, data)
        if ended and not self.closed:
            self._ended(None)


def event(value: object, ending: str = "\n\n") -> str:
    return f"data: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}{ending}"


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": delta, "finish_reason": finish}]}


texts = st.text(st.sampled_from('aé\r\n\u2028"\\ :{👩‍🚀日'), min_size=1, max_size=6)
endings = st.sampled_from(["\n\n", "\r\n\r\n"])
pieces = st.one_of(
    st.builds(event, st.builds(chunk, st.fixed_dictionaries({"content": texts})), endings),
    st.builds(event, st.builds(chunk, st.fixed_dictionaries({"reasoning": texts})), endings),
    st.sampled_from(
        [
            ": ping\n\n",
            "event: x\nid: 1\n",
            "retry: 10\n\n",
            event(chunk({"role": "assistant", "content": ""})),
            event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}),
            event({"error": {"message": "died"}}),
            event("{"),
            "data: {\ndata: }\n\n",
        ]
    ),
)
streams = st.tuples(
    st.lists(pieces, max_size=6),
    st.sampled_from([event(chunk({}, "stop")) + event("[DONE]"), event("[DONE]"), event(chunk({}, "stop")), "data: [D", ""]),
).map(lambda parts: ("".join(parts[0]) + parts[1]).encode())  # fmt: skip
cuts = st.lists(st.integers(0, 4_000), max_size=12)

HEAD = "HTTP/1.1 {} X\r\nContent-Type: text/event-stream\r\n"


def chunked(body: bytes, cuts: list[int]) -> bytes:
    parts = cut(body, cuts)
    return b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts) + b"0\r\n\r\n"


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted({place % (len(data) + 1) for place in cuts}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(at) if a < b]


def read(reads: list[bytes], ended: bool) -> tuple[TurnResult, list[str], bool]:
    """The turn without its times, its reply, and whether the connection could serve another."""

    async def one() -> tuple[TurnResult, list[str], bool]:
        recorder, connection = Recorder(99.0), FedConnection()
        recorder.sent_at = 99.0
        connection.send(b"", recorder)
        connection.feed(reads, ended)
        reusable = connection.reusable
        recorder.give_up(200.0, "timeout", "never ended")
        turn = recorder.result(
            conversation_id="c", holding=0, turn=1, request_id="r", warmup=False, began=99.0
        )
        timeless = replace(
            turn,
            ttfb_ms=turn.ttfb_ms and 1.0,
            ttft_ms=turn.ttft_ms and 1.0,
            itl_us=tuple(0 for _ in turn.itl_us),
            e2e_ms=0.0,
        )
        return timeless, recorder.reply, reusable

    return asyncio.run(one())


@settings(max_examples=150)
@given(
    body=streams,
    status=st.sampled_from([200, 200, 200, 429, 500]),
    framing=st.sampled_from(["chunked", "sized", "ended", "short"]),
    chunks=cuts,
    reads=cuts,
)
@example(body=event("[DONE]").encode(), status=200, framing="chunked", chunks=[], reads=list(range(200)))
def test_no_split_into_reads_changes_a_turn(
    body: bytes, status: int, framing: str, chunks: list[int], reads: list[int]
) -> None:
    head = HEAD.format(status)
    if framing == "chunked":
        data = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunked(body, chunks)
    elif framing == "ended":
        data = f"{head}\r\n".encode() + body
    else:
        more = 10 if framing == "short" else 0
        data = f"{head}Content-Length: {len(body) + more}\r\n\r\n".encode() + body
    ended = framing in ("ended", "short")
    whole = read([data], ended)
    assert read(cut(data, reads), ended) == whole
    assert read([bytes([byte]) for byte in data], ended) == whole
    turn, _, reusable = whole
    assert turn.status == status
    if status != 200:
        assert turn.outcome == ("refused" if status == 429 else "http_error")
    if turn.outcome == "ok":
        assert turn.output_tokens == 4 or turn.output_tokens_from == "deltas"
        assert reusable is (framing in ("chunked", "sized"))


@settings(max_examples=100)
@given(body=streams, reads=cuts)
def test_the_decoder_gives_the_same_events_whatever_the_reads(body: bytes, reads: list[int]) -> None:
    whole, split = SseDecoder(), SseDecoder()
    events = whole.feed(body)
    assert [one for part in cut(body, reads) for one in split.feed(part)] == events
    assert split.unfinished == whole.unfinished
