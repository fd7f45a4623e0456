"""From the body's bytes to a validated `TurnRequest`. Every refusal names the field and what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

import msgspec

from retrieval.errors import InvalidFilter
from retrieval.filters import parse_filter
from retrieval.search.catalog import normal, scope_name
from retrieval.types import DEFAULT_STORE, Scope
from server.api.field_error import LONGEST_NAME_SHOWN, field_error
from server.api.schema import (
    INERT,
    INERT_IN_MESSAGE,
    NEUTRAL,
    NEUTRAL_IN_MESSAGE,
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    RetrievalOptions,
    WireMessage,
)
from server.context.template import Message, ToolCall
from server.engine.protocol import Grammar, Sampling
from server.engine.reply import ToolUse
from server.errors import InvalidBody, InvalidParameter, UnknownParameter
from server.guard.admission import Tier
from server.parts import Deployment
from server.sections.limits import LimitSettings
from server.settings import Settings
from server.strict_json import json_depth, json_type, parse_json
from server.turn_request import TurnRequest

_CHAT_FIELDS = frozenset(ChatRequest.__struct_fields__)
_MESSAGE_FIELDS = frozenset(WireMessage.__struct_fields__)


def parse_chat_request(body: bytes) -> ChatRequest:
    """Raises `InvalidBody`, `UnknownParameter` or `InvalidParameter`, each naming the field."""
    fields = parse_json(body)
    if not isinstance(fields, dict):
        raise InvalidBody(f"the body must be a JSON object, not {json_type(fields)}")
    for name in [*fields]:
        if name in INERT or _is_neutral(NEUTRAL, name, fields[name]):
            del fields[name]
        elif name not in _CHAT_FIELDS:
            shown = name[:LONGEST_NAME_SHOWN]
            raise UnknownParameter(f"{shown!r} is not supported here{_hint(shown)}", param=shown)
    messages = fields.get("messages")
    if isinstance(messages, list):
        _check_messages(messages)
    try:
        return msgspec.convert(fields, ChatRequest)
    except msgspec.ValidationError as error:
        raise field_error(error) from None


def to_turn_request(request: ChatRequest, deployment: Deployment) -> TurnRequest:
    """Check the deployment's bounds and fill in its defaults. Raises `InvalidParameter`."""
    settings = deployment.settings
    _bound("messages", len(request.messages), settings.limits.max_messages)
    options = request.retrieval or RetrievalOptions()
    retrieve = options.enabled and options.vector_store_ids != []
    where = _scope(options)
    return TurnRequest(
        messages=[_message(message) for message in request.messages],
        sampling=_sampling(request, deployment),
        retrieve=retrieve,
        top_k=_first(options.top_k, settings.retrieval.top_k),
        stream=bool(request.stream),
        scope=scope_name(where) if retrieve else "",
        where=where,
        tier=_tier(request),
        tool_use=_tool_use(request, deployment),
    )


def _scope(options: RetrievalOptions) -> Scope:
    """Whether its stores are there and the tenant's is looked up later (`server/api/reach.py`)."""
    try:
        chosen = None if options.filters is None else parse_filter(options.filters, "retrieval.filters")
    except InvalidFilter as error:
        raise InvalidParameter(str(error), param=error.param) from error
    ids = options.vector_store_ids
    return normal(Scope((DEFAULT_STORE,) if ids is None else tuple(ids), chosen))


def _sampling(request: ChatRequest, deployment: Deployment) -> Sampling:
    settings = deployment.settings
    generation, limits = settings.generation, settings.limits
    max_tokens = _max_tokens(request, settings)
    min_tokens = _first(request.min_tokens, 0)
    if min_tokens > max_tokens:
        raise InvalidParameter(f"min_tokens must be at most max_tokens ({max_tokens})", param="min_tokens")
    n = _first(request.n, 1)
    _bound("n", n, limits.max_choices)
    return Sampling(
        max_tokens=max_tokens,
        n=n,
        temperature=_first(request.temperature, generation.temperature),
        top_p=_first(request.top_p, 1.0),
        top_k=max(0, _first(request.top_k, 0)),
        min_p=_first(request.min_p, 0.0),
        seed=request.seed,
        stop=_stop(request, limits),
        presence_penalty=_first(request.presence_penalty, 0.0),
        frequency_penalty=_first(request.frequency_penalty, 0.0),
        repetition_penalty=_first(request.repetition_penalty, generation.repetition_penalty),
        min_tokens=min_tokens,
        ignore_eos=bool(request.ignore_eos),
        logit_bias=_logit_bias(request, deployment),
        logprobs=_logprobs(request, limits),
        grammar=_grammar(request, limits),
    )


def _max_tokens(request: ChatRequest, settings: Settings) -> int:
    name = "max_completion_tokens" if request.max_completion_tokens is not None else "max_tokens"
    asked = _first(request.max_completion_tokens, request.max_tokens)
    max_tokens: int = _first(asked, settings.generation.max_tokens)
    if max_tokens >= settings.engine.max_model_len:
        raise InvalidParameter(
            f"{name} is {max_tokens}; the model's context holds {settings.engine.max_model_len} tokens, "
            "prompt included",
            param=name,
        )
    _bound("max_tokens", request.max_tokens or 0, settings.limits.max_tokens)
    _bound("max_completion_tokens", request.max_completion_tokens or 0, settings.limits.max_tokens)
    return max_tokens


def _stop(request: ChatRequest, limits: LimitSettings) -> tuple[str, ...]:
    stop = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    _bound("stop", len(stop), limits.max_stop_strings, "strings")
    for string in stop:
        _bound("stop", len(string), limits.max_stop_characters, "characters in one string")
    return stop


def _logit_bias(request: ChatRequest, deployment: Deployment) -> dict[int, float]:
    biases = request.logit_bias or {}
    _bound("logit_bias", len(biases), deployment.settings.limits.max_logit_biases, "tokens")
    for token in biases:
        if not (token.isascii() and token.isdigit() and len(token) < 10) or (
            int(token) >= deployment.vocabulary_size
        ):
            raise InvalidParameter(
                f"logit_bias: {token[:LONGEST_NAME_SHOWN]!r} is no token id; they go from 0 to "
                f"{deployment.vocabulary_size - 1}",
                param="logit_bias",
            )
    return {int(token): bias for token, bias in biases.items()}


def _logprobs(request: ChatRequest, limits: LimitSettings) -> int | None:
    if not request.logprobs:
        if request.top_logprobs:
            raise InvalidParameter("top_logprobs needs logprobs: true", param="top_logprobs")
        return None
    top = _first(request.top_logprobs, 0)
    _bound("top_logprobs", top, limits.max_top_logprobs)
    n_top: int = top
    return n_top


def _grammar(request: ChatRequest, limits: LimitSettings) -> Grammar | None:
    match request.response_format:
        case JsonObjectFormat():
            return Grammar("json_object")
        case JsonSchemaFormat(json_schema=answer):
            return Grammar(
                "json_schema", _schema_text(answer.schema, "response_format.json_schema.schema", limits)
            )
        case _:
            return None


def _tool_use(request: ChatRequest, deployment: Deployment) -> ToolUse | None:
    tools, choice = request.tools or [], request.tool_choice
    if not tools:
        if choice not in (None, "none", "auto"):
            raise InvalidParameter("tool_choice asks for a call and there are no tools", param="tool_choice")
        return None
    if not deployment.takes_tools:
        raise UnknownParameter(
            "'tools' is not supported here: the operator has set no engine.tool_parser", param="tools"
        )
    limits = deployment.settings.limits
    _bound("tools", len(tools), limits.max_tools)
    for position, tool in enumerate(tools):
        _schema_text(tool.function.parameters or {}, f"tools[{position}].function.parameters", limits)
    names = [tool.function.name for tool in tools]
    if len(set(names)) != len(names):
        raise InvalidParameter("tools: two functions have the same name", param="tools")
    if isinstance(choice, msgspec.Struct) and choice.function.name not in names:
        raise InvalidParameter(
            f"tool_choice names {choice.function.name!r}, which is none of the tools", param="tool_choice"
        )
    return ToolUse(
        tools=tuple(msgspec.to_builtins(tool) for tool in tools),
        choice=msgspec.to_builtins(choice or "auto"),
        parallel=request.parallel_tool_calls is not False,
    )


def _schema_text(schema: dict[str, Any], name: str, limits: LimitSettings) -> str:
    depth = json_depth(schema)
    if depth > limits.max_schema_depth:
        raise InvalidParameter(
            f"{name} is nested {depth} deep; at most {limits.max_schema_depth} is taken", param=name
        )
    text = msgspec.json.encode(schema).decode()
    _bound(name, len(text), limits.max_schema_bytes, "bytes")
    return text


def _tier(request: ChatRequest) -> Tier:
    match request.service_tier:
        case "flex" | "priority" as tier:
            return tier
        case _:
            return "default"


def _bound(name: str, asked: int, most: int, unit: str = "") -> None:
    if asked > most:
        what = f"{asked} {unit}".rstrip()
        raise InvalidParameter(f"{name}: {what}; at most {most} is taken", param=name)


def _check_messages(messages: list[Any]) -> None:
    for position, message in enumerate(messages):
        if not isinstance(message, dict):
            continue
        where = f"messages[{position}]"
        for name in [*message]:
            inert = name in INERT_IN_MESSAGE or (name == "name" and message.get("role") == "tool")
            if inert or _is_neutral(NEUTRAL_IN_MESSAGE, name, message[name]):
                del message[name]
            elif name not in _MESSAGE_FIELDS:
                shown = f"{where}.{name[:LONGEST_NAME_SHOWN]}"
                raise UnknownParameter(f"{shown!r} is not supported", param=shown)
        _check_role(message, where)


def _check_role(message: dict[str, Any], where: str) -> None:
    role = message.get("role")
    if role != "assistant":
        if message.get("content") is None:
            raise InvalidParameter(f"{where}.content: text was expected", param=f"{where}.content")
        if message.get("tool_calls"):
            raise InvalidParameter(
                f"{where}.tool_calls: only the assistant calls tools", param=f"{where}.tool_calls"
            )
        if message.get("refusal"):
            raise InvalidParameter(f"{where}.refusal: only the assistant refuses", param=f"{where}.refusal")
    if role == "tool" and message.get("tool_call_id") is None:
        raise InvalidParameter(
            f"{where}.tool_call_id: the id of the call that this answers was expected",
            param=f"{where}.tool_call_id",
        )


def _is_neutral(table: dict[str, tuple[Any, ...]], name: str, value: Any) -> bool:
    return name in table and (value is None or value in table[name])


def _message(message: WireMessage) -> Message:
    content = message.content or ""
    if not isinstance(content, str):
        content = "\n".join(part.text for part in content)
    if message.refusal:
        content = f"{content}\n{message.refusal}" if content else message.refusal
    calls = tuple(
        ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()
    )
    role = "system" if message.role == "developer" else message.role
    return Message(role, content, calls, message.tool_call_id or "")


def _hint(name: str, known: Collection[str] = _CHAT_FIELDS) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _first(asked: Any, default: Any) -> Any:
    return default if asked is None else asked
