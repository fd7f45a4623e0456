from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.api.request import parse_chat_request, to_turn_request
from server.context.template import Message
from server.engine.protocol import Grammar
from server.errors import BadRequest, InvalidParameter
from server.parts import Deployment
from server.settings import load_settings

COMPARISON = {"type": "eq", "key": "year", "value": 1}
ASK = {"messages": [{"role": "user", "content": "Hi"}]}
SETTINGS = load_settings()
DEPLOYMENT = Deployment(SETTINGS, vocabulary_size=1_000, takes_tools=True)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
NAMED = {"type": "function", "function": {"name": "get_weather"}}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth - 1):
        schema = {"a": schema}
    return schema


def answer(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}


def parse(**fields: Any) -> Any:
    return parse_chat_request(json.dumps(ASK | fields).encode())


@pytest.mark.parametrize(
    "fields",
    [
        {
            "user": "u",
            "safety_identifier": "s",
            "prompt_cache_key": "k",
            "store": True,
            "metadata": {"a": "b"},
        },
        {"n": 1, "logprobs": False, "logit_bias": {}, "tools": [], "tool_choice": "none"},
        {
            "n": None,
            "tools": None,
            "response_format": None,
            "stop": None,
            "seed": None,
            "temperature": None,
            "min_tokens": None,
        },
        {"response_format": {"type": "text"}, "modalities": ["text"], "service_tier": "auto"},
        {"stream_options": {"include_usage": True, "include_obfuscation": False}, "stream": True},
        {"max_tokens": 5, "max_completion_tokens": 6},
        {"stop": ["a", "b"], "top_k": -1, "min_p": 0.1, "ignore_eos": True, "min_tokens": 3},
        {"retrieval": {"vector_store_ids": ["default"], "top_k": 3, "enabled": True}},
        {"n": 8, "logprobs": True, "top_logprobs": 20, "logit_bias": {"0": -100, "999": 100}},
        {"response_format": {"type": "json_object"}, "service_tier": "flex"},
        {"response_format": answer(nested(16))},
        {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [WEATHER], "tool_choice": NAMED},
        {"max_tokens": 4_000, "verbosity": "medium", "prediction": None},
    ],
)
def test_what_changes_nothing_or_is_honoured_is_accepted(fields: dict[str, Any]) -> None:
    to_turn_request(parse(**fields), DEPLOYMENT)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 9}, "n"),
        ({"n": 0}, "n"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"1000": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"٣": 1}}, "logit_bias"),
        ({"logit_bias": {str(token): 1 for token in range(301)}}, "logit_bias"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [WEATHER], "tool_choice": {**NAMED, "function": {"name": "x"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": answer(nested(17))}, "response_format.json_schema.schema"),
        ({"response_format": answer({"a": "x" * 16_384})}, "response_format.json_schema.schema"),
        ({"functions": [WEATHER]}, "functions"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"service_tier": "scale"}, "service_tier"),
        ({"stop": "x" * 257}, "stop"),
        ({"temprature": 1}, "temprature"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**7}, "max_tokens"),
        ({"max_completion_tokens": 10**7}, "max_completion_tokens"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": ""}, "stop"),
        ({"min_tokens": 50, "max_tokens": 5}, "min_tokens"),
        ({"seed": 2**70}, "seed"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": "x", "name": "bob"}]}, "messages[0].name"),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]},
            "messages[0].tool_calls[0].id",
        ),
        ({"retrieval": {"filters": []}}, "retrieval.filters"),
        ({"retrieval": {"filters": {}}}, "retrieval.filters.type"),
        ({"retrieval": {"filters": COMPARISON | {"key": ""}}}, "retrieval.filters.key"),
        (
            {"retrieval": {"filters": {"type": "or", "filters": [COMPARISON, COMPARISON | {"value": None}]}}},
            "retrieval.filters.filters[1].value",
        ),
        ({"retrieval": {"vector_store_ids": ["vs"] * 17}}, "retrieval.vector_store_ids"),
        ({"retrieval": {"top_k": 0}}, "retrieval.top_k"),
        ({"messages": ASK["messages"] * 513}, "messages"),
    ],
)
def test_what_is_wrong_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as raised:
        to_turn_request(parse(**fields), DEPLOYMENT)
    assert raised.value.param == param
    assert raised.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"messages": NaN}',
        b'{"a": 1, "a": 2}',
        b'{"messages": [{"role": "user", "content": "x", "content": "y"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"seed": ' + b"9" * 10_000 + b"}",
        b"<html>",
    ],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_chat_request(body)


def test_a_misspelt_parameter_gets_a_hint() -> None:
    with pytest.raises(BadRequest, match="did you mean 'temperature'"):
        parse(temprature=1)


def scope_of(**retrieval: Any) -> str:
    return to_turn_request(parse(retrieval=retrieval), DEPLOYMENT).scope


def test_what_is_searched_is_named_the_same_however_it_is_written() -> None:
    assert scope_of() == scope_of(vector_store_ids=["default"]) == scope_of(vector_store_ids=None)
    assert scope_of(vector_store_ids=["a", "b"]) == scope_of(vector_store_ids=["b", "a", "b"])
    turned = {"value": 1, "key": "year", "type": "eq"}
    assert scope_of(filters=turned) == scope_of(filters={"type": "eq", "key": "year", "value": 1})


def test_what_is_searched_has_names_of_its_own() -> None:
    scopes = [
        {},
        {"enabled": False},
        {"vector_store_ids": ["a"]},
        {"vector_store_ids": ["a", "b"]},
        {"filters": COMPARISON},
        {"filters": COMPARISON | {"value": True}},
        {"filters": COMPARISON | {"value": "1"}},
        {"filters": COMPARISON, "vector_store_ids": ["a"]},
        {"filters": {"type": "and", "filters": [COMPARISON]}},
    ]
    assert len({scope_of(**scope) for scope in scopes}) == len(scopes)


def test_no_stores_are_no_search() -> None:
    request = to_turn_request(parse(retrieval={"vector_store_ids": []}), DEPLOYMENT)
    assert (request.retrieve, request.where.store_ids) == (False, ())


def test_a_reply_can_be_sent_back_as_it_came() -> None:
    reply = {
        "role": "assistant",
        "content": "Hello",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    request = parse(messages=[*ASK["messages"], reply, *ASK["messages"]])
    assert [message.role for message in request.messages] == ["user", "assistant", "user"]


def test_parts_and_developer_become_text_and_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": "d"}, {"role": "user", "content": parts}]
    turn = to_turn_request(parse(messages=messages), DEPLOYMENT)
    assert [(message.role, message.content) for message in turn.messages] == [
        ("system", "d"),
        ("user", "a\nb"),
    ]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ({"content": None, "refusal": "No."}, "No."),
        ({"content": "", "refusal": "No."}, "No."),
        ({"content": "Well,", "refusal": "no."}, "Well,\nno."),
        ({"content": "Yes.", "refusal": ""}, "Yes."),
    ],
)
def test_a_refusal_that_comes_back_is_what_the_assistant_said(reply: dict[str, Any], said: str) -> None:
    messages = [*ASK["messages"], {"role": "assistant", **reply}, *ASK["messages"]]
    assert to_turn_request(parse(messages=messages), DEPLOYMENT).messages[1] == Message("assistant", said)


def test_only_the_assistant_refuses() -> None:
    with pytest.raises(InvalidParameter) as raised:
        parse(messages=[{"role": "user", "content": "Hi", "refusal": "No."}])
    assert raised.value.param == "messages[0].refusal"


def test_the_deployments_defaults_fill_in() -> None:
    turn = to_turn_request(parse(), DEPLOYMENT)
    assert turn.sampling.max_tokens == SETTINGS.generation.max_tokens
    assert turn.top_k == SETTINGS.retrieval.top_k
    assert turn.retrieve
    assert not to_turn_request(parse(retrieval={"enabled": False}), DEPLOYMENT).retrieve
    assert not to_turn_request(parse(retrieval={"vector_store_ids": []}), DEPLOYMENT).retrieve


def test_a_tool_conversation_keeps_its_calls_and_answers() -> None:
    call: dict[str, Any] = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        *ASK["messages"],
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "parsed": {"made by": "the SDK"},
            "tool_calls": [
                {**call, "index": 0, "function": {**call["function"], "parsed_arguments": {"a": 1}}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny", "name": "f"},
    ]
    turn = to_turn_request(parse(messages=messages), DEPLOYMENT)
    assert turn.messages[1].tool_calls[0].name == "f"
    assert (turn.messages[2].role, turn.messages[2].tool_call_id) == ("tool", "c1")


def test_tools_are_refused_by_name_where_no_parser_is_set() -> None:
    with pytest.raises(BadRequest, match=r"engine\.tool_parser") as raised:
        to_turn_request(parse(tools=[WEATHER]), Deployment(SETTINGS, 1_000, takes_tools=False))
    assert raised.value.param == "tools"


def test_a_schema_reaches_the_engine_as_it_was_sent() -> None:
    schema = {"type": "object", "properties": {"ä": {"type": "integer"}}}
    grammar = to_turn_request(parse(response_format=answer(schema)), DEPLOYMENT).sampling.grammar
    assert grammar is not None
    assert (grammar.kind, json.loads(grammar.text)) == ("json_schema", schema)
    assert to_turn_request(
        parse(response_format={"type": "json_object"}), DEPLOYMENT
    ).sampling.grammar == Grammar("json_object")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
field_names = st.sampled_from(
    [
        "messages",
        "temperature",
        "max_tokens",
        "stop",
        "stream",
        "stream_options",
        "retrieval",
        "n",
        "seed",
        "tools",
        "tool_choice",
        "response_format",
        "logit_bias",
        "top_logprobs",
        "zz",
    ]
)


@settings(max_examples=300)
@given(fields=st.dictionaries(field_names, json_values))
def test_any_json_is_accepted_or_refused_in_our_words(fields: dict[str, Any]) -> None:
    with suppress(BadRequest):
        to_turn_request(parse(**fields), DEPLOYMENT)


@settings(max_examples=300)
@given(body=st.binary(max_size=200))
def test_any_bytes_are_refused_in_our_words(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_chat_request(body)
