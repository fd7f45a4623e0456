from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.types import Passage
from server.api import frames
from server.context.prompt import Citation, Prompt, Usual
from server.context.template import Message
from server.engine.protocol import (
    Delta,
    Logprob,
    Sampling,
    TokenLogprobs,
    ToolCallPiece,
)
from server.errors import EngineDied
from server.telemetry.timing import PHASES, TurnClock
from server.turn import Turn
from server.turn_request import TurnRequest


@pytest.fixture(scope="module")
def turn() -> Turn:
    request = TurnRequest([Message("user", "x")], Sampling(max_tokens=5), True, 2, True)
    turn = Turn(request=request, tenant="anonymous", clock=TurnClock(), number=1)
    found = Passage("doc_1-0", "doc_1", "a\u2028.md", "T", (), "word " * 100, 5, 0.123456)
    turn.prompt = Prompt([0] * 40, (Citation(1, found),), max_tokens=5, usual=Usual(60, 50))
    turn.cached_tokens, turn.completion_tokens = 32, 7
    turn.finish_reason = "stop"
    for phase in PHASES:
        turn.clock.end(phase)
    return turn


def decode(frame: bytes) -> dict[str, Any]:
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    assert frame.count(b"\n") == 2
    assert b"\r" not in frame
    body: dict[str, Any] = json.loads(frame.removeprefix(b"data: "))
    return body


@given(text=st.text(st.characters(codec="utf-8")))
def test_a_text_frame_equals_the_library_rendered_one(turn: Turn, text: str) -> None:
    assert decode(frames.Frames(turn, "mödel").text(text)) == {
        "id": frames.completion_id(turn),
        "object": "chat.completion.chunk",
        "created": turn.created,
        "model": "mödel",
        "choices": [{"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}],
    }


def test_all_frames_share_id_and_model_and_only_the_finish_has_a_reason(turn: Turn) -> None:
    rendered = frames.Frames(turn, "m")
    chunks = [
        decode(frame)
        for frame in (rendered.role(), rendered.text("x"), rendered.finish(0, "stop"), rendered.usage())
    ]
    assert len({(chunk["id"], chunk["model"], chunk["created"], chunk["object"]) for chunk in chunks}) == 1
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]] == [
        None,
        None,
        "stop",
    ]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[2]["choices"][0]["delta"] == {}
    assert chunks[3]["choices"] == []
    assert chunks[3]["usage"] == {
        "prompt_tokens": 40,
        "completion_tokens": 7,
        "total_tokens": 47,
        "prompt_tokens_details": {"cached_tokens": 32},
    }


def test_citations_are_on_the_role_chunk_with_a_bounded_quote(turn: Turn) -> None:
    (citation,) = decode(frames.Frames(turn, "m").role())["firstword"]["citations"]
    assert set(citation) == {"index", "file_id", "filename", "chunk_id", "score", "quote"}
    assert citation["index"] == 1
    assert len(citation["quote"]) <= 242


def test_phases_add_up_to_ttft(turn: Turn) -> None:
    timing = decode(frames.Frames(turn, "m").finish(0, "stop"))["firstword"]["timing"]
    assert sum(timing[phase] for phase in PHASES) == pytest.approx(timing["ttft"], abs=0.01)


def test_an_error_frame_has_the_envelope() -> None:
    assert decode(frames.error_frame(EngineDied("gone")))["error"]["code"] == "engine_died"


def test_a_whole_answer_carries_what_the_stream_carries(turn: Turn) -> None:
    collected = frames.Collected(1)
    collected.add(Delta((1,), "te"))
    collected.add(Delta((2,), "xt", "stop"))
    body = json.loads(collected.body(turn, "m"))
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["choices"][0]["message"]["content"] == "text"
    assert set(body["firstword"]) == {"turn_id", "turn", "citations", "timing"}


def test_a_tool_call_has_its_id_type_and_name_once(turn: Turn) -> None:
    rendered = frames.Frames(turn, "m")
    pieces = [
        Delta((1,), "", tool_calls=(ToolCallPiece(0, "call_1", "get_weather"),)),
        Delta((2,), "", tool_calls=(ToolCallPiece(0, arguments='{"city": "\u2028"}'),)),
    ]
    first, second = (decode(rendered.content(delta))["choices"][0]["delta"] for delta in pieces)
    assert first == {
        "tool_calls": [
            {
                "index": 0,
                "id": "call_1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": ""},
            }
        ]
    }
    assert second == {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": "\u2028"}'}}]}
    collected = frames.Collected(1)
    for delta in pieces:
        collected.add(delta)
    (choice,) = json.loads(collected.body(turn, "m"))["choices"]
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"city": "\u2028"}'


@pytest.mark.parametrize("reads_json", [True, False])
def test_a_refusal_takes_the_place_of_content_only_for_who_reads_json(turn: Turn, reads_json: bool) -> None:
    refused = replace(turn, refused=True, reads_json=reads_json)
    kind, other = ("refusal", "content") if reads_json else ("content", "refusal")
    delta = Delta((1,), "", "stop", refusal="No.\u2028") if reads_json else Delta((1,), "No.\u2028", "stop")
    rendered, collected = frames.Frames(refused, "m"), frames.Collected(1)
    collected.add(delta)
    (whole,) = json.loads(collected.body(refused, "m"))["choices"]
    deltas = [decode(frame)["choices"][0]["delta"] for frame in (rendered.role(), rendered.content(delta))]
    assert deltas == [{"role": "assistant", kind: ""}, {kind: "No.\u2028"}]
    assert whole["message"] == {"role": "assistant", kind: "No.\u2028", other: None}
    assert whole["finish_reason"] == "stop"


def test_logprobs_and_reasoning_stand_where_clients_look_for_them(turn: Turn) -> None:
    told = TokenLogprobs(Logprob("é", -0.5), (Logprob("é", -0.5), Logprob("e", -2.0)))
    choice = decode(frames.Frames(turn, "m").content(Delta((1,), "", reasoning="hm", logprobs=(told,))))[
        "choices"
    ][0]
    assert choice["delta"] == {"reasoning_content": "hm"}
    (token,) = choice["logprobs"]["content"]
    assert (token["token"], token["logprob"], token["bytes"]) == ("é", -0.5, [0xC3, 0xA9])
    assert [top["token"] for top in token["top_logprobs"]] == ["é", "e"]


def test_a_delta_that_completes_no_text_is_no_frame(turn: Turn) -> None:
    assert frames.Frames(turn, "m").content(Delta((1,), "")) == b""
