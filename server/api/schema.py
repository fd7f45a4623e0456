"""The request body of `POST /v1/chat/completions`, validated at the edge.

A field is honoured, accepted because it changes nothing, or refused by name; none is ignored in silence.
`_INERT` and `_NEUTRAL` list the second kind.
"""

from __future__ import annotations

import difflib
import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from server.context.template import Message
from server.engine.protocol import Sampling
from server.errors import InvalidBody, InvalidParameter, NotFound, UnknownParameter
from server.settings import Settings
from server.turn import TurnRequest

DEFAULT_STORE = "default"

_INERT = frozenset(
    {"user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "store", "metadata"}
)
"""Accepted with any value: they tell the provider about the caller and leave the answer as it is."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
}
"""Not supported, and accepted with just the values that ask for nothing."""

_NEUTRAL_IN_MESSAGE: dict[str, tuple[Any, ...]] = {
    "refusal": (),
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "tool_calls": ([],),
    "reasoning": ("",),
    "reasoning_content": ("",),
}
"""Clients send replies back as they got them; null is neutral everywhere."""

_OURS_IN_MESSAGE = "firstword"
"""Accepted with any value: what a reply carried of ours."""


class TextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["text"]
    text: str


class WireMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool = False
    include_obfuscation: bool = False


class RetrievalOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    vector_store_ids: Annotated[list[str], Meta(max_length=16)] | None = None
    top_k: Annotated[int, Meta(ge=1, le=64)] | None = None
    enabled: bool = True


class ChatRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    messages: Annotated[list[WireMessage], Meta(min_length=1)]
    model: str | None = None
    """Absent: the one model this server has."""
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    retrieval: RetrievalOptions | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: (
        Annotated[str, Meta(min_length=1, max_length=256)]
        | Annotated[list[Annotated[str, Meta(min_length=1, max_length=256)]], Meta(max_length=16)]
        | None
    ) = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=2)] | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None
    ignore_eos: bool = False

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


def parse_chat_request(body: bytes) -> ChatRequest:
    """Raises `InvalidBody`, `UnknownParameter` or `InvalidParameter`, each naming the field."""
    fields = _parse_json(body)
    if not isinstance(fields, dict):
        raise InvalidBody(f"the body must be a JSON object, not {_json_type(fields)}")
    for name in [*fields]:
        if name in _INERT or _is_neutral(_NEUTRAL, name, fields[name]):
            del fields[name]
        elif name in _NEUTRAL or name not in _CHAT_FIELDS:
            raise UnknownParameter(f"{name!r} is not supported here{_hint(name)}", param=name)
    messages = fields.get("messages")
    if isinstance(messages, list):
        _check_messages(messages)
    try:
        return msgspec.convert(fields, ChatRequest)
    except msgspec.ValidationError as error:
        raise _named(error) from None


def to_turn_request(request: ChatRequest, settings: Settings) -> TurnRequest:
    """Fill in the deployment's defaults. Raises `InvalidParameter` or `NotFound`."""
    if len(request.messages) > settings.http.max_messages:
        raise InvalidParameter(
            f"{len(request.messages)} messages; at most {settings.http.max_messages} are taken",
            param="messages",
        )
    options = request.retrieval or RetrievalOptions()
    for store in options.vector_store_ids or ():
        if store != DEFAULT_STORE:
            raise NotFound(
                f"there is no vector store {store!r}; this server has {DEFAULT_STORE!r}",
                param="retrieval.vector_store_ids",
            )
    generation = settings.generation
    max_tokens = request.max_completion_tokens or request.max_tokens or generation.max_tokens
    if max_tokens >= settings.engine.max_model_len:
        name = "max_completion_tokens" if request.max_completion_tokens else "max_tokens"
        raise InvalidParameter(
            f"{name} is {max_tokens}; the model's context holds {settings.engine.max_model_len} tokens, "
            "prompt included",
            param=name,
        )
    stop = request.stop or ()
    sampling = Sampling(
        max_tokens=max_tokens,
        temperature=_first(request.temperature, generation.temperature),
        top_p=_first(request.top_p, 1.0),
        top_k=max(0, _first(request.top_k, 0)),
        min_p=_first(request.min_p, 0.0),
        seed=request.seed,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        presence_penalty=_first(request.presence_penalty, 0.0),
        frequency_penalty=_first(request.frequency_penalty, 0.0),
        repetition_penalty=_first(request.repetition_penalty, generation.repetition_penalty),
        min_tokens=_first(request.min_tokens, 0),
        ignore_eos=request.ignore_eos,
    )
    if sampling.min_tokens > max_tokens:
        raise InvalidParameter(f"min_tokens must be at most max_tokens ({max_tokens})", param="min_tokens")
    return TurnRequest(
        messages=[_message(message) for message in request.messages],
        sampling=sampling,
        retrieve=options.enabled and options.vector_store_ids != [],
        top_k=_first(options.top_k, settings.retrieval.top_k),
        stream=bool(request.stream),
    )


def _parse_json(body: bytes) -> Any:
    """JSON as RFC 8259 has it, without the liberties of `json.loads`: NaN, duplicate keys, lone surrogates."""

    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidBody(f"the key {twice!r} stands twice in one object", param=twice)
        return fields

    def refuse_constant(name: str) -> None:
        raise InvalidBody(f"{name} is not JSON")

    try:
        value = json.loads(
            body.decode("utf-8"), object_pairs_hook=refuse_duplicates, parse_constant=refuse_constant
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise InvalidBody(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except UnicodeDecodeError as error:
        raise InvalidBody(f"the body is not UTF-8: byte {error.start} is wrong") from None
    except UnicodeEncodeError:
        raise InvalidBody("the body holds half a surrogate pair (\\ud800 to \\udfff)") from None
    except RecursionError:
        raise InvalidBody("the body is nested too deeply") from None
    except ValueError as error:
        raise InvalidBody(f"the body is not JSON: {error}") from None
    return value


def _check_messages(messages: list[Any]) -> None:
    for position, message in enumerate(messages):
        if not isinstance(message, dict):
            continue
        where = f"messages[{position}]"
        for name in [*message]:
            if name == _OURS_IN_MESSAGE or _is_neutral(_NEUTRAL_IN_MESSAGE, name, message[name]):
                del message[name]
            elif name not in _MESSAGE_FIELDS:
                raise UnknownParameter(f"'{where}.{name}' is not supported", param=f"{where}.{name}")
        if message.get("role") != "assistant" and message.get("content") is None:
            raise InvalidParameter(f"{where}.content: text was expected", param=f"{where}.content")


def _is_neutral(table: dict[str, tuple[Any, ...]], name: str, value: Any) -> bool:
    return name in table and (value is None or value in table[name])


def _named(error: msgspec.ValidationError) -> InvalidBody | InvalidParameter | UnknownParameter:
    """msgspec says "Expected `int` >= 1 - at `$.max_tokens`"; the field goes into `param`."""
    reason, _, path = str(error).partition(" - at `")
    param = path.rstrip("`").removeprefix("$").removeprefix(".").replace("[...]", "") or None
    if reason.startswith("Object contains unknown field"):
        name = reason.rpartition("field ")[2].strip("`")
        full = f"{param}.{name}" if param else name
        return UnknownParameter(f"{full!r} is not supported", param=full)
    if reason.startswith("Object missing required field"):
        name = reason.rpartition("field ")[2].strip("`")
        full = f"{param}.{name}" if param else name
        return InvalidParameter(f"{full!r} is required", param=full)
    reason = reason[0].lower() + reason[1:]
    return InvalidParameter(f"{param}: {reason}", param=param)


def _message(message: WireMessage) -> Message:
    content = message.content or ""
    if not isinstance(content, str):
        content = "\n".join(part.text for part in content)
    return Message("system" if message.role == "developer" else message.role, content)


def _hint(name: str) -> str:
    close = difflib.get_close_matches(name, _CHAT_FIELDS, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _json_type(value: Any) -> str:
    return {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(
        type(value), "a number"
    )


def _first(asked: Any, default: Any) -> Any:
    return default if asked is None else asked


_CHAT_FIELDS = frozenset(ChatRequest.__struct_fields__)
_MESSAGE_FIELDS = frozenset(WireMessage.__struct_fields__)
