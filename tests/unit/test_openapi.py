"""The published document says what the server does: its schemas hold for real responses, and for what it accepts."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from starlette.routing import Route

from gateways import Gateway, MakeSettings, running
from server.api.openapi import document
from server.api.request import parse_chat_request, to_turn_request
from server.api.shapes import error_kinds
from server.app import build_app
from server.engine.protocol import Delta, ToolCallPiece
from server.errors import FirstwordError, InvalidParameter, MethodNotAllowed
from server.parts import Deployment
from server.settings import load_settings
from wire import CHAT, ask, question

SETTINGS = load_settings()
DEPLOYMENT = Deployment(SETTINGS, vocabulary_size=1_000, takes_tools=True)
DOCUMENT = document(SETTINGS, "m")
SCHEMAS = DOCUMENT["components"]["schemas"]
"""What the default configuration publishes."""


def validator(shape: str, published: dict[str, Any] = DOCUMENT) -> Draft202012Validator:
    return Draft202012Validator(published | {"$ref": f"#/components/schemas/{shape}"})


def closed(published: dict[str, Any]) -> dict[str, Any]:
    """The same, with every field refused that it does not name: what is sent must be published."""
    published = copy.deepcopy(published)
    for schema in published["components"]["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return published


CLOSED = closed(DOCUMENT)


def every(node: Any, key: str) -> Iterator[Any]:
    """The values of `key`, anywhere."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from every(value, key)
    elif isinstance(node, list):
        for item in node:
            yield from every(item, key)


def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)
    for reference in every(DOCUMENT, "$ref"):
        node: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT


def test_every_route_is_published_and_nothing_else(make_settings: MakeSettings) -> None:
    routes = {
        (re.sub(r":\w+", "", route.path), method.lower())
        for route in build_app(make_settings()).routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    published = {(path, method) for path, item in DOCUMENT["paths"].items() for method in item}
    assert published == routes


def test_every_error_a_client_can_meet_stands_at_some_endpoint() -> None:
    """Without the request's method there is no operation to publish its refusal at."""
    keyed = SETTINGS.model_copy(update={"auth": SETTINGS.auth.model_copy(update={"api_keys": {"a": "b"}})})
    said = json.dumps(document(keyed, "m")["paths"])
    unsaid = {kind for kind in error_kinds() if kind.code is not None and f"`{kind.code}`" not in said}
    assert unsaid == {MethodNotAllowed}


def test_the_key_is_asked_for_only_where_there_are_keys(make_settings: MakeSettings) -> None:
    assert "securitySchemes" not in DOCUMENT["components"]
    assert not list(every(DOCUMENT, "security"))
    keyed = document(make_settings(auth__api_keys={"acme": "k"}), "m")
    assert keyed["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    for path, item in keyed["paths"].items():
        for operation in item.values():
            assert ("security" in operation) == ("401" in operation["responses"]) == path.startswith("/v1/")


def test_the_deployments_bounds_are_in_it(make_settings: MakeSettings) -> None:
    bounded = {
        "limits__max_messages": 3,
        "limits__max_choices": 2,
        "limits__max_tokens": 40,
        "limits__max_stop_strings": 5,
        "limits__max_stop_characters": 6,
        "limits__max_logit_biases": 7,
        "limits__max_top_logprobs": 8,
        "limits__max_tools": 9,
        "limits__max_schema_bytes": 1_234,
        "limits__max_schema_depth": 10,
        "engine__tool_parser": "hermes",
    }
    published = document(make_settings(**bounded), "m")
    chat = published["components"]["schemas"]["ChatRequest"]["properties"]
    assert chat["messages"]["maxItems"] == 3
    assert chat["n"]["anyOf"][0]["maximum"] == 2
    assert chat["max_tokens"]["anyOf"][0]["maximum"] == 40
    assert chat["max_completion_tokens"]["anyOf"][0]["maximum"] == 40
    assert chat["stop"]["anyOf"][0]["maxLength"] == 6
    assert chat["stop"]["anyOf"][1]["maxItems"] == 5
    assert chat["stop"]["anyOf"][1]["items"]["maxLength"] == 6
    assert chat["logit_bias"]["anyOf"][0]["maxProperties"] == 7
    assert chat["top_logprobs"]["anyOf"][0]["maximum"] == 8
    assert chat["tools"]["anyOf"][0]["maxItems"] == 9
    assert all(
        "1234 bytes, nested at most 10 deep" in text
        for text in (
            published["components"]["schemas"]["Function"]["properties"]["parameters"]["description"],
            published["components"]["schemas"]["JsonSchema"]["properties"]["schema"]["description"],
        )
    )
    without_tools = document(make_settings(engine__tool_parser=""), "m")
    chat = without_tools["components"]["schemas"]["ChatRequest"]["properties"]
    assert chat["tools"]["anyOf"][0]["maxItems"] == 0


USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
VALUES: dict[str, list[Any]] = {
    "messages": [
        [USER, {"role": "assistant", "content": "x", "refusal": None, "annotations": []}, USER],
        [USER, {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm"}],
        [USER, {"role": "assistant"}],
        [USER, {"role": "assistant", "content": None, "refusal": "No."}, USER],
        [USER, {"role": "assistant", "content": "x", "refusal": ""}, USER],
        [USER, {"role": "assistant", "content": "x", "refusal": 5}, USER],
        [USER | {"refusal": "No."}],
        [USER | {"refusal": ""}],
        [USER | {"refusal": None}],
        [USER, {"role": "assistant", "content": None, "tool_calls": [CALL] * 129}],
        [USER, {"role": "tool", "content": "x", "tool_call_id": "c", "name": "f", "firstword": {}}],
        [USER, {"role": "tool", "content": "x", "tool_call_id": "c" * 257}],
        [{"role": "tool", "content": "x"}],
        [USER | {"name": "f"}],
        [USER | {"tool_calls": []}],
        [USER | {"tool_calls": [CALL]}],
        [USER | {"tool_call_id": "c"}],
        [USER | {"annotations": [{}]}],
        [USER | {"function_call": "auto"}],
        [{"role": "developer", "content": [{"type": "text", "text": "x"}]}],
        [{"role": "user", "content": [{"type": "image_url"}]}],
        [{"role": "user", "content": None}],
        [{"role": "user"}],
        [{"role": "robot", "content": ""}],
        [USER] * 512,
        [USER] * 513,
        [USER, "x"],
        [],
    ],
    "model": ["m", "other", ""],
    "stream": [True, False],
    "stream_options": [{}, {"include_usage": True, "include_obfuscation": False}, {"include_usage": None}],
    "retrieval": [
        {},
        {"enabled": False, "top_k": 64, "vector_store_ids": ["default"]},
        {"top_k": 65},
        {"top_k": 0},
        {"vector_store_ids": ["other"]},
        {"vector_store_ids": ["default"] * 17},
        {"filters": {}},
    ],
    "service_tier": ["auto", "default", "flex", "priority", "scale"],
    "n": [1, 8, 9, 0],
    "max_tokens": [1, 4_095, 4_096, 0],
    "max_completion_tokens": [1, 4_095, 4_096, 0],
    "temperature": [0, 2, 2.1, -0.1],
    "top_p": [0, 0.1, 1, 1.1],
    "top_k": [-2, -1, 0, 1_000_000, 1_000_001],
    "min_p": [0, 1, 1.1],
    "seed": [-(2**63), 2**63 - 1, 2**63],
    "stop": ["a", "", "x" * 256, "x" * 257, ["a"], [""], ["a"] * 16, ["a"] * 17, ["x" * 257], []],
    "presence_penalty": [-2, 2, 2.1],
    "frequency_penalty": [-2, 2, -2.1],
    "repetition_penalty": [0, 0.1, 2, 2.1],
    "min_tokens": [0, 1, -1, 4_096],
    "ignore_eos": [True],
    "logit_bias": [
        {},
        {"0": 100, "999": -100.0},
        {"1": 101},
        {"x": 1},
        {"-1": 1},
        {"0123456789": 1},
        {str(token): 1 for token in range(301)},
    ],
    "logprobs": [True, False],
    "top_logprobs": [0, 20, 21, -1],
    "response_format": [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}},
        {"type": "json_schema", "json_schema": {"name": "a"}},
        {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}},
        {"type": "xml"},
        {"type": "text", "more": 1},
        {},
    ],
    "tools": [
        [],
        [TOOL],
        [{"type": "function", "function": {"name": str(number)}} for number in range(64)],
        [{"type": "function", "function": {"name": str(number)}} for number in range(65)],
        [{"type": "web_search"}],
        [{"type": "function", "function": {"name": ""}}],
        [{"type": "function", "function": {"name": "f", "more": 1}}],
        [{"function": {"name": "f"}}],
    ],
    "tool_choice": ["none", "auto", "required", "any", {"type": "function", "function": {"name": "f"}}],
    "parallel_tool_calls": [True, False],
    "user": ["x", 5, {}],
    "metadata": [{"a": []}],
    "store": [True],
    "functions": [[], [{}]],
    "function_call": ["none", "auto", {}],
    "modalities": [["text"], ["audio"], []],
    "verbosity": ["medium", "low"],
    "prediction": [{}],
    "reasoning_effort": ["high"],
    "temprature": [1],
}
WRONG: list[Any] = [None, True, 0, -1, 1.5, "", "x", [], [None], {}, {"x": 1}]
fields = st.sampled_from(sorted(VALUES)).flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from([*VALUES[name], *WRONG]))
)
requests = st.lists(fields, max_size=4).map(lambda chosen: {"messages": [USER]} | dict(chosen))

BEYOND_JSON_SCHEMA = (
    "min_tokens must be at most",
    "logit_bias: ",
    "two functions have the same name",
    "which is none of the tools",
)
"""Refusals that no JSON schema can say: rules that compare fields, and the vocabulary."""


def refusal(request: dict[str, Any]) -> FirstwordError | None:
    try:
        chat = parse_chat_request(json.dumps(request).encode())
        if chat.model not in (None, "m"):
            return InvalidParameter("model", param="model")
        if chat.service_tier == "priority":
            return InvalidParameter("service_tier", param="service_tier")
        to_turn_request(chat, DEPLOYMENT)
    except FirstwordError as error:
        return error
    return None


@settings(max_examples=600)
@given(request=requests)
def test_what_the_schema_allows_is_what_the_server_takes(request: dict[str, Any]) -> None:
    assume(not {"max_tokens", "max_completion_tokens"} <= request.keys())  # the first is not looked at then
    wrong = next(validator("ChatRequest").iter_errors(request), None)
    refused = refusal(request)
    if refused is None:
        assert wrong is None, f"taken, and against the schema: {wrong}"
    elif wrong is None:
        assert any(words in refused.message for words in BEYOND_JSON_SCHEMA), refused.message


@pytest.mark.parametrize(("name", "at"), [(name, at) for name in VALUES for at in range(len(VALUES[name]))])
def test_each_value_by_itself_is_judged_alike(name: str, at: int) -> None:
    request = {"messages": [USER]} | {name: VALUES[name][at]}
    if name == "top_logprobs":
        request["logprobs"] = True
    if name == "tool_choice":
        request["tools"] = [TOOL]
    if name == "min_tokens":
        request["max_tokens"] = 4_095
    refused = refusal(request)
    allowed = validator("ChatRequest").is_valid(request)
    if refused is not None and allowed:
        assert any(words in refused.message for words in BEYOND_JSON_SCHEMA), refused.message
    else:
        assert allowed == (refused is None)


def assert_published(response: httpx.Response, path: str, published: dict[str, Any]) -> Any:
    """The response's status, headers, media type and body are those of the document; returns the body."""
    method = response.request.method.lower()
    promised = published["paths"][path][method]["responses"][str(response.status_code)]
    media_type = response.headers["content-type"].partition(";")[0]
    shape = promised["content"][media_type].get("schema", {})
    for name, header in promised["headers"].items():
        header = published["components"]["headers"][name] | header
        if name in response.headers:
            value: Any = response.headers[name]
            value = int(value) if header["schema"]["type"] == "integer" else value
            Draft202012Validator(header["schema"]).validate(value)
        else:
            assert not header.get("required")
    if media_type != "application/json":
        return response.text
    body = response.json()
    Draft202012Validator(closed(published) | shape).validate(body)
    return body


class ThinksThenCalls:
    """A reader that finds reasoning and a tool call in whatever the engine says."""

    reasoning_tokens = 2

    def __init__(self) -> None:
        self._found: list[dict[str, Any]] = [
            {"reasoning": "hm"},
            {"tool_calls": (ToolCallPiece(0, "call_1", "get_weather"),)},
            {"tool_calls": (ToolCallPiece(0, arguments='{"city": '),)},
        ]

    def read(self, delta: Delta) -> Delta:
        found = self._found.pop(0) if self._found else {}
        reason = delta.finish_reason and "tool_calls"
        return msgspec.structs.replace(delta, text="", finish_reason=reason, **found)


@pytest.mark.anyio
class TestRealResponses:
    async def test_plain_ones(self, gateway: Gateway) -> None:
        published = document(gateway.parts.settings, gateway.parts.model_name)
        model = gateway.parts.model_name
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as client:
            body = question(n=2, logprobs=True, top_logprobs=2, max_tokens=5, service_tier="auto")
            answer = assert_published(await client.post(CHAT, json=body), CHAT, published)
            assert len(answer["choices"]) == 2
            assert answer["choices"][0]["logprobs"]["content"]
            await asyncio.to_thread(gateway.parts.turn_log.flush)
            turns = assert_published(await client.get("/v1/turns?limit=1"), "/v1/turns", published)
            turn_id = turns["data"][0]["id"]
            chunk_id = answer["firstword"]["citations"][0]["chunk_id"]
            for path, place in [
                ("/v1/models", "/v1/models"),
                (f"/v1/models/{model}", "/v1/models/{model}"),
                (f"/v1/turns/{turn_id}", "/v1/turns/{turn_id}"),
                (f"/v1/passages/{chunk_id}", "/v1/passages/{chunk_id}"),
                ("/health/live", "/health/live"),
                ("/health/ready", "/health/ready"),
                ("/metrics", "/metrics"),
                ("/", "/"),
            ]:
                response = await client.get(path)
                assert response.status_code == 200
                assert assert_published(response, place, published)

    async def test_streamed_ones(self, gateway: Gateway) -> None:
        published = document(gateway.parts.settings, gateway.parts.model_name)
        whole = closed(published)
        body = question(n=2, logprobs=True, top_logprobs=1, max_tokens=4)
        streams = [
            await ask(gateway.url, body | {"stream_options": {"include_usage": True}}),
            await ask(gateway.url, question(service_tier="flex", stop=["it"])),
        ]
        for stream in streams:
            assert stream.done
            for chunk in stream.chunks:
                validator("ChatCompletionChunk", whole).validate(chunk)
            for event in stream.raw.decode().split("\n\n")[:-1]:
                validator("StreamEvent", whole).validate({"data": event.removeprefix("data: ")})

    async def test_tool_calls_and_reasoning(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("server.turn._open_reader", lambda *_: ThinksThenCalls())
        published = document(gateway.parts.settings, gateway.parts.model_name)
        stream = await ask(gateway.url, question(stream_options={"include_usage": True}))
        assert stream.finish_reasons == ["tool_calls"]
        deltas = [choice["delta"] for chunk in stream.chunks for choice in chunk["choices"]]
        assert any("reasoning_content" in delta for delta in deltas)
        assert any("tool_calls" in delta for delta in deltas)
        for chunk in stream.chunks:
            validator("ChatCompletionChunk", closed(published)).validate(chunk)
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as client:
            answer = assert_published(await client.post(CHAT, json=question()), CHAT, published)
        assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"].startswith('{"city')
        assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}

    async def test_refusals(self, make_settings: MakeSettings) -> None:
        keyed = make_settings(auth__api_keys={"acme": "k"}, limits__max_body_bytes=2_000)
        async with running(keyed) as gateway:
            published = document(keyed, gateway.parts.model_name)
            headers = {"authorization": "Bearer k"}
            async with httpx.AsyncClient(
                base_url=gateway.url, headers=headers, timeout=30, trust_env=False
            ) as client:
                bodies: list[tuple[int, Any]] = [
                    (400, {}),
                    (400, question(temprature=1)),
                    (400, question(n=100)),
                    (400, {"messages": [{"role": "assistant", "content": "x"}]}),
                    (403, question(service_tier="priority")),
                    (404, question(model="other")),
                    (413, question("x" * 2_000)),
                ]
                for status, body in bodies:
                    response = await client.post(CHAT, json=body)
                    assert response.status_code == status
                    assert_published(response, CHAT, published)
                for status, path, place in [
                    (404, "/v1/models/x", "/v1/models/{model}"),
                    (404, "/v1/turns/x", "/v1/turns/{turn_id}"),
                    (404, "/v1/passages/x", "/v1/passages/{chunk_id}"),
                    (400, "/v1/turns?limit=201", "/v1/turns"),
                    (400, "/v1/turns?limit=0", "/v1/turns"),
                ]:
                    response = await client.get(path)
                    assert response.status_code == status
                    assert_published(response, place, published)
                assert (await client.get("/v1/turns?limit=200")).status_code == 200
                for path in ("/v1/models", "/v1/turns"):
                    response = await client.get(path, headers={"authorization": ""})
                    assert response.status_code == 401
                    assert_published(response, path, published)
                gateway.engine.die("for this test")
                response = await client.get("/health/ready")
                assert response.status_code == 503
                assert_published(response, "/health/ready", published)
                assert_published(await client.post(CHAT, json=question()), CHAT, published)

    async def test_the_document_itself(self, gateway: Gateway) -> None:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as client:
            served = [await client.get("/openapi.json") for _ in range(2)]
        published = document(gateway.parts.settings, gateway.parts.model_name)
        for response in served:
            assert response.headers["content-type"] == "application/json"
            assert response.json() == published
