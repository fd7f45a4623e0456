"""Half a surrogate pair is no text: none gets in with a request, and none gets out with an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_framing_properties import make_turn

from server.api import frames
from server.api.request import parse_chat_request
from server.context.template import ChatTemplate
from server.engine.protocol import Delta, Logprob, TokenLogprobs, ToolCallPiece
from server.errors import BadRequest, InvalidBody
from server.strict_json import parse_json

_USER = {"role": "user", "content": "x"}
PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "content": lambda text: {"messages": [{"role": "user", "content": text}]},
    "part": lambda text: {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]},
    "role": lambda text: {"messages": [{"role": text, "content": "x"}]},
    "model": lambda text: {"messages": [_USER], "model": text},
    "stop": lambda text: {"messages": [_USER], "stop": ["a", text]},
    "what changes nothing": lambda text: {"messages": [_USER], "metadata": {"a": [{"b": text}]}},
    "what changes nothing in a message": lambda text: {"messages": [_USER | {"firstword": {text: 1}}]},
    "an unknown name": lambda text: {"messages": [_USER], text: 1},
    "a token": lambda text: {"messages": [_USER], "logit_bias": {text: 1}},
    "a schema's name": lambda text: {
        "messages": [_USER],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {text: {}}}}],
    },
    "arguments": lambda text: {
        "messages": [
            _USER,
            {
                "role": "assistant",
                "tool_calls": [{"id": text, "function": {"name": "f", "arguments": text}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": text},
        ]
    },
}

_HALVES = st.one_of(
    st.integers(0xD800, 0xDFFF).map(lambda code: f"\\u{code:04x}"),
    st.integers(0xD800, 0xDFFF).map(lambda code: f"\\u{code:04X}"),
    st.sampled_from(["\\ud83d\\udc4b", "\\uD83D\\uDC4B", "\\\\ud800", "\\u00e9", "\\n", "a", "👋", "\\\\"]),
)
escaped = st.lists(_HALVES, max_size=6).map("".join)


@given(place=st.sampled_from(sorted(PLACES)), text=escaped)
def test_a_request_with_half_a_pair_anywhere_is_refused(place: str, text: str) -> None:
    body = json.dumps(PLACES[place]("MARK"), ensure_ascii=False).replace("MARK", text).encode()
    said = json.loads(f'"{text}"')
    if any("\ud800" <= character <= "\udfff" for character in said):
        with pytest.raises(InvalidBody, match="surrogate"):
            parse_chat_request(body)
        return
    assert said in str(_all_texts(parse_json(body)))
    with suppress(BadRequest):
        parse_chat_request(body)


def _all_texts(value: Any) -> str:
    match value:
        case dict():
            return "".join(key + _all_texts(item) for key, item in value.items())
        case list():
            return "".join(map(_all_texts, value))
        case _:
            return str(value)


@given(code=st.integers(0xD800, 0xDFFF), place=st.sampled_from(sorted(PLACES)))
def test_a_surrogate_as_bytes_is_no_utf_8(code: int, place: str) -> None:
    raw = chr(code).encode("utf-8", "surrogatepass")
    body = json.dumps(PLACES[place]("MARK")).encode().replace(b"MARK", raw)
    with pytest.raises(InvalidBody, match="UTF-8"):
        parse_chat_request(body)


@given(
    text=st.text(min_size=0, max_size=6),
    half=st.characters(categories=["Cs"]),
    place=st.sampled_from(["text", "reasoning", "name", "arguments", "logprobs"]),
)
def test_no_frame_holds_half_a_pair(text: str, half: str, place: str) -> None:
    wrong = text + half
    delta = {
        "text": Delta((1,), wrong),
        "reasoning": Delta((1,), "", reasoning=wrong),
        "name": Delta((1,), "", tool_calls=(ToolCallPiece(0, "c", wrong),)),
        "arguments": Delta((1,), "", tool_calls=(ToolCallPiece(0, arguments=wrong),)),
        "logprobs": Delta((1,), "x", logprobs=(TokenLogprobs(Logprob(wrong, 0.0), ()),)),
    }[place]
    try:
        frame = frames.Frames(make_turn(1), "m").content(delta)
    except UnicodeEncodeError:
        return
    said = json.dumps(json.loads(frame.removeprefix(b"data: ")), ensure_ascii=False)
    assert said.encode()


@given(data=st.data())
def test_no_tokens_decode_to_half_a_pair(data: st.DataObject, template: ChatTemplate) -> None:
    tokens = st.lists(st.integers(0, template.vocabulary_size - 1), max_size=30)
    assert template.decode(data.draw(tokens)).encode() is not None
