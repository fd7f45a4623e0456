"""What the body of `POST /v1/chat/completions` may hold; `openapi.py` publishes it.

A field is honoured, accepted because it changes nothing, or refused by name; none is ignored in silence.
`INERT` and `NEUTRAL` list the second kind. Bounds that a deployment sets are checked in `request.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

INERT = frozenset(
    {"user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "store", "metadata"}
)
"""Accepted with any value: they tell the provider about the caller and leave the answer as it is."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "reasoning_effort": (),
}
"""Not supported, and accepted with just the values that ask for nothing; null is one everywhere."""

NEUTRAL_IN_MESSAGE: dict[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
}
"""Clients send replies back as they got them; null is neutral everywhere."""

INERT_IN_MESSAGE = frozenset({"firstword", "reasoning", "reasoning_content", "parsed"})
"""Accepted with any value: what a reply carried of ours, reasoning, which no turn is shown again, and what
OpenAI's SDKs add to a reply."""

Text = Annotated[str, Meta(min_length=1)]
FunctionName = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$(?!\\n)")]


class TextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["text"]
    text: str


class CalledFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: FunctionName
    arguments: str
    """JSON, as the model wrote it."""
    parsed_arguments: Any = None
    """What OpenAI's SDKs made of them; not read."""


class WireToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: Annotated[str, Meta(min_length=1, max_length=256)]
    function: CalledFunction
    type: Literal["function"] = "function"
    index: int | None = None
    """Left over from a stream; not read."""


class WireMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    refusal: str | None = None
    """Only with the role `assistant`, who said it: it counts as its content."""
    tool_calls: Annotated[list[WireToolCall], Meta(max_length=128)] | None = None
    """Only with the role `assistant`."""
    tool_call_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    """Only with the role `tool`, and needed there."""


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool = False
    include_obfuscation: bool = False


class RetrievalOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    vector_store_ids: Annotated[list[str], Meta(max_length=16)] | None = None
    top_k: Annotated[int, Meta(ge=1, le=64)] | None = None
    filters: dict[str, Any] | None = None
    """OpenAI's comparison and compound filters, over the attributes of documents."""
    enabled: bool = True


class Function(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema of type `object`."""
    strict: bool | None = None


class Tool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    function: Function
    type: Literal["function"]


class NamedFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: FunctionName


class NamedTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    function: NamedFunction
    type: Literal["function"]


class JsonSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: FunctionName
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class TextFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="text"):
    pass


class JsonObjectFormat(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="json_object"
):
    pass


class JsonSchemaFormat(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="json_schema"
):
    json_schema: JsonSchema


class ChatRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    messages: Annotated[list[WireMessage], Meta(min_length=1)]
    model: str | None = None
    """Absent: the one model this server has."""
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    retrieval: RetrievalOptions | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    n: Annotated[int, Meta(ge=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Text | list[Text] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=2)] | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None
    ignore_eos: bool | None = False
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    """Token id to bias."""
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Meta(ge=0)] | None = None
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = True

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage
