"""`GET /openapi.json`: what this deployment takes and gives, generated from the schema that requests are held to.

The request's shape comes from `schema.py`, its bounds from `settings.limits`, the responses from `shapes.py`,
the errors from the tree in `server/errors.py`.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from server import errors
from server.api import openapi_stores, schema, shapes, store_schema, store_shapes
from server.api.gate import gate_of
from server.api.openapi_operation import (
    ALWAYS,
    ONCE_OPEN,
    SCHEMAS,
    Errors,
    Schema,
    any_of,
    json_content,
    operation,
    parameter,
    text_content,
)
from server.api.schema import INERT, INERT_IN_MESSAGE, NEUTRAL, NEUTRAL_IN_MESSAGE, ChatRequest
from server.settings import Settings

_CHAT = "/v1/chat/completions"

_TURN: Errors = (
    *ONCE_OPEN,
    errors.InvalidBody,
    errors.UnknownParameter,
    errors.InvalidParameter,
    errors.ContextTooLong,
    errors.Forbidden,
    errors.NotFound,
    errors.RequestTimeout,
    errors.TooLarge,
    errors.Busy,
    errors.EngineDied,
    errors.ShuttingDown,
)


async def get_openapi(request: Request) -> Response:
    parts = gate_of(request).open_parts()
    state = request.app.state
    if not hasattr(state, "openapi"):
        made = await asyncio.to_thread(document, parts.settings, parts.model_name)
        state.openapi = msgspec.json.encode(made)
    return Response(state.openapi, media_type="application/json")


def document(settings: Settings, model_name: str) -> Schema:
    """OpenAPI 3.1. Without API keys there is no security scheme."""
    has_keys = bool(settings.auth.api_keys)
    components: Schema = {"schemas": _schemas(settings, model_name), "headers": shapes.HEADERS}
    if has_keys:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Firstword",
            "version": version("firstword"),
            "description": "A streaming chat server that answers from your documents. Chat completions follow OpenAI's API.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(has_keys),
        "components": components,
    }


def _paths(has_keys: bool) -> Schema:
    def v1(
        summary: str, shape: str, kinds: Errors = ONCE_OPEN, parameters: tuple[Schema, ...] = ()
    ) -> Schema:
        return {"get": operation(summary, json_content(shape), kinds, parameters, has_keys=has_keys)}

    found = (*ONCE_OPEN, errors.NotFound)
    bounds: Schema = {"type": "integer", "minimum": 1, "maximum": 200, "default": 20}
    page = (parameter("limit", "query", bounds), parameter("before", "query", {"type": "string"}))
    return {
        _CHAT: {"post": _chat(has_keys)},
        "/v1/chat/prewarm": {"post": _prewarm(has_keys)},
        "/v1/models": v1("The models that can be asked", "ModelList"),
        "/v1/models/{model}": v1("One model", "Model", found, (parameter("model"),)),
        "/v1/turns": v1(
            "The last turns with their phases, newest first",
            "TurnList",
            (*ONCE_OPEN, errors.InvalidParameter),
            page,
        ),
        "/v1/turns/{turn_id}": v1("One turn", "TurnEntry", found, (parameter("turn_id"),)),
        "/v1/passages/{chunk_id}": v1("The text of a source", "PassageText", found, (parameter("chunk_id"),)),
        **openapi_stores.paths(has_keys),
        "/health/live": {"get": operation("Whether the process runs", json_content("Liveness"), ALWAYS)},
        "/health/ready": {"get": _readiness()},
        "/metrics": {"get": operation("Figures for Prometheus", text_content("text/plain"), ONCE_OPEN)},
        "/openapi.json": {"get": operation("This document", {"application/json": {}}, ONCE_OPEN)},
        "/": {"get": operation("The chat page", text_content("text/html"), ALWAYS)},
        "/documents": {"get": operation("The documents page", text_content("text/html"), ALWAYS)},
    }


def _chat(has_keys: bool) -> Schema:
    content = json_content("ChatCompletion") | {
        "text/event-stream": {"schema": {"$ref": SCHEMAS + "StreamEvent"}}
    }
    headers = ("server-timing", "cache-control", "x-accel-buffering")
    chat = operation("An answer, streamed or whole", content, _TURN, headers=headers, has_keys=has_keys)
    chat["requestBody"] = {"required": True, "content": json_content("ChatRequest")}
    return chat


def _prewarm(has_keys: bool) -> Schema:
    summary = "Prefill for a message that is still being typed"
    prewarm = operation(summary, json_content("Prewarmed"), _TURN, has_keys=has_keys, status="202")
    prewarm["requestBody"] = {"required": True, "content": json_content("ChatRequest")}
    return prewarm


def _readiness() -> Schema:
    readiness = operation("Whether questions can be answered", json_content("ReadinessBody"), ALWAYS)
    unready = readiness["responses"]["503"]
    unready["description"] += ", or why questions cannot be answered yet"
    unready["content"]["application/json"]["schema"] = any_of("ReadinessBody", "ErrorBody")
    return readiness


def _schemas(settings: Settings, model_name: str) -> Schema:
    published = (ChatRequest, *shapes.RESPONSES, *store_schema.REQUESTS, *store_shapes.RESPONSES)
    _, schemas = msgspec.json.schema_components(published, ref_template=SCHEMAS + "{name}")
    for module in (schema, shapes, store_schema, store_shapes):
        for struct, field, text in shapes.field_docs(module):
            schemas[struct]["properties"][field]["description"] = text
    _accept_what_changes_nothing(schemas["ChatRequest"], INERT, NEUTRAL)
    _accept_what_changes_nothing(schemas["WireMessage"], INERT_IN_MESSAGE, NEUTRAL_IN_MESSAGE)
    _bound(schemas, settings, model_name)
    openapi_stores.complete(schemas, settings)
    _say_what_belongs_together(schemas)
    question = {"role": "user", "content": "What is prefill?"}
    schemas["ChatRequest"]["examples"] = [{"model": model_name, "stream": True, "messages": [question]}]
    kinds = list(shapes.error_kinds())
    schemas["Error"]["properties"]["type"] = {"enum": sorted({kind.type for kind in kinds})}
    codes = sorted({kind.code for kind in kinds if kind.code is not None})
    schemas["Error"]["properties"]["code"] = {"enum": [*codes, None]}
    schemas["StreamEvent"] = _stream_event()
    return schemas


def _stream_event() -> Schema:
    """One server-sent event, as OpenAPI 3.2 describes them; its data is text."""
    chunk = {
        "contentMediaType": "application/json",
        "contentSchema": any_of("ChatCompletionChunk", "ErrorBody"),
    }
    data = {
        "type": "string",
        "anyOf": [{"const": "[DONE]"}, chunk],
        "description": "The last event's is `[DONE]`.",
    }
    return {"type": "object", "properties": {"data": data}, "required": ["data"]}


def _accept_what_changes_nothing(
    target: Schema, inert: frozenset[str], neutral: dict[str, tuple[Any, ...]]
) -> None:
    for name in sorted(inert):
        target["properties"][name] = {"description": "Accepted; changes nothing."}
    for name, values in neutral.items():
        target["properties"][name] = {
            "enum": [*values, None],
            "description": "Not supported; these values ask for nothing.",
        }


def _bound(schemas: Schema, settings: Settings, model_name: str) -> None:
    """What this deployment allows; the same figures as in `request.py`."""
    limits, chat = settings.limits, schemas["ChatRequest"]["properties"]
    longest = min(limits.max_tokens, settings.engine.max_model_len - 1)
    bounds: list[tuple[str, str, Schema]] = [
        ("messages", "array", {"maxItems": limits.max_messages}),
        ("model", "string", {"enum": [model_name]}),
        ("n", "integer", {"maximum": limits.max_choices}),
        ("max_tokens", "integer", {"maximum": longest}),
        ("max_completion_tokens", "integer", {"maximum": longest}),
        ("min_tokens", "integer", {"maximum": max(longest, settings.generation.max_tokens)}),
        ("stop", "string", {"maxLength": limits.max_stop_characters}),
        ("stop", "array", {"maxItems": limits.max_stop_strings}),
        ("top_logprobs", "integer", {"maximum": limits.max_top_logprobs}),
        ("tools", "array", {"maxItems": limits.max_tools if settings.engine.tool_parser else 0}),
        ("logit_bias", "object", {"maxProperties": limits.max_logit_biases}),
        ("logit_bias", "object", {"propertyNames": {"pattern": "^[0-9]{1,9}$"}}),
    ]
    for name, kind, bound in bounds:
        _variant(chat[name], kind).update(bound)
    _variant(chat["stop"], "array")["items"]["maxLength"] = limits.max_stop_characters
    if not settings.auth.priority_tenants:
        chat["service_tier"]["anyOf"][0]["enum"].remove("priority")
    for shape, name in (("Function", "parameters"), ("JsonSchema", "schema")):
        schemas[shape]["properties"][name]["description"] = (
            f"A JSON schema of at most {limits.max_schema_bytes} bytes, nested at most {limits.max_schema_depth} deep."
        )


def _say_what_belongs_together(schemas: Schema) -> None:
    """Rules over several fields, as far as JSON Schema can say them."""
    asked = {"type": "integer", "minimum": 1}
    tools = {"type": "array", "minItems": 1}
    schemas["ChatRequest"]["allOf"] = [
        _when("top_logprobs", asked, {"logprobs": {"const": True}}),
        _when("tool_choice", {"not": {"enum": ["none", "auto", None]}}, {"tools": tools}),
    ]
    message = schemas["WireMessage"]
    message["properties"]["name"] = {"description": "Accepted with the role `tool`; changes nothing."}
    message["allOf"] = [
        _when("role", {"const": "tool"}, {"tool_call_id": {"type": "string"}}),
        _when(
            "role",
            {"not": {"const": "assistant"}},
            {"content": {"type": ["string", "array"]}},
            {"tool_calls": {"enum": [[], None]}, "refusal": {"enum": ["", None]}},
        ),
        _when("name", {}, {"role": {"const": "tool"}}),
    ]


def _when(name: str, value: Schema, needed: Schema, allowed: Schema | None = None) -> Schema:
    then = {"properties": needed | (allowed or {}), "required": list(needed)}
    return {"if": {"properties": {name: value}, "required": [name]}, "then": then}


def _variant(schema: Schema, kind: str) -> Schema:
    """The part of a union that is of this JSON type."""
    return next(part for part in schema.get("anyOf", [schema]) if part.get("type") == kind)
