"""What responses hold, for `openapi.py` to publish; a test holds real responses against these shapes.

A field that is not always there is `UNSET` by default; one that is always there and may be null has `| None`.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from server.api.gate import State
from server.engine.protocol import FinishReason
from server.errors import FirstwordError, SetupError
from server.telemetry.turnlog import TurnRecord


class Citation(Struct):
    index: int
    """The number of the passage in the prompt, from 1."""
    file_id: str
    filename: str
    chunk_id: str
    score: float
    quote: str
    """The beginning of the passage."""


class Timing(Struct):
    """In milliseconds; the consecutive phases of the turn add up to `ttft`."""

    admit: float
    recall: float
    embed: float
    search: float
    rerank: float
    assemble: float
    engine_queue: float
    prefill: float
    first_byte: float
    ttft: float | None
    """Null when no text came."""
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that the prefix cache held."""
    plain_prompt_tokens: int | None
    plain_computed_tokens: int | None
    """What the usual layout would have had the engine compute; null where prompts are rebuilt on each turn."""


class WholeTurn(Struct):
    turn_id: str
    turn: int
    """Which turn of the conversation this is, from 1."""
    citations: list[Citation]
    timing: Timing


class StreamedTurn(Struct):
    """The sources are on the first chunk, the timing is on the last one with a finish reason."""

    turn_id: str | UnsetType = UNSET
    turn: int | UnsetType = UNSET
    citations: list[Citation] | UnsetType = UNSET
    timing: Timing | UnsetType = UNSET


class Prewarmed(Struct):
    object: Literal["chat.prewarm"]
    status: Literal["started", "dropped"]
    reason: Literal["busy", "rebuilt"] | UnsetType = UNSET
    """Why nothing is prefilled: turns come first; this model's prompts are rebuilt on each turn."""


class PromptTokensDetails(Struct):
    cached_tokens: int


class CompletionTokensDetails(Struct):
    reasoning_tokens: int


class Usage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails | UnsetType = UNSET


class TopLogprob(Struct):
    token: str
    logprob: float
    bytes: list[int]
    """The token's text in UTF-8."""


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Struct):
    content: list[TokenLogprob]
    refusal: None


class CallFunction(Struct):
    name: str
    arguments: str
    """JSON, as the model wrote it."""


class Call(Struct):
    id: str
    type: Literal["function"]
    function: CallFunction


class Reply(Struct):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    """In place of content, where JSON was asked for and the turn is refused because nothing was found."""
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[Call] | UnsetType = UNSET


class Choice(Struct):
    index: int
    message: Reply
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(Struct):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    firstword: WholeTurn
    service_tier: str | UnsetType = UNSET


class CallFunctionPiece(Struct):
    arguments: str
    name: str | UnsetType = UNSET


class CallPiece(Struct):
    """The id, type and name of a call stand in its first piece; the pieces of `arguments` belong together."""

    index: int
    function: CallFunctionPiece
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class ReplyDelta(Struct):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    refusal: str | UnsetType = UNSET
    """In place of content; see the whole answer."""
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[CallPiece] | UnsetType = UNSET


class ChunkChoice(Struct):
    index: int
    delta: ReplyDelta
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason | None
    """Null until the last chunk of this answer."""


class ChatCompletionChunk(Struct):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    """Empty on the usage chunk."""
    usage: Usage | UnsetType = UNSET
    """Only on the last chunk, when `stream_options.include_usage` is true."""
    firstword: StreamedTurn | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET


class Error(Struct):
    message: str
    type: str
    param: str | None
    """The field at fault."""
    code: str | None


class ErrorBody(Struct):
    error: Error


class Model(Struct):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class ModelList(Struct):
    object: Literal["list"]
    data: list[Model]


TurnEntry = msgspec.defstruct(
    "TurnEntry",
    [
        ("id", str),
        ("object", Literal["turn"]),
        *(
            (field.name, field.type)
            for field in msgspec.structs.fields(TurnRecord)
            if field.name not in ("turn_id", "tenant")
        ),
    ],
)


class TurnList(Struct):
    object: Literal["list"]
    data: list[TurnEntry]  # type: ignore[valid-type]
    has_more: bool


class PassageText(Struct):
    chunk_id: str
    document_id: str
    filename: str
    title: str
    heading_path: list[str]
    text: str


class Liveness(Struct):
    status: Literal["live"]


class ReadinessBody(Struct):
    status: State
    phase: str
    """For people: "loading engine, 34 s"."""
    model: str | UnsetType = UNSET
    """Once the configuration is read and the index is open."""


RESPONSES: tuple[type[Struct], ...] = (
    ChatCompletion,
    ChatCompletionChunk,
    ErrorBody,
    Model,
    ModelList,
    TurnEntry,
    TurnList,
    Prewarmed,
    PassageText,
    Liveness,
    ReadinessBody,
)


HEADERS: dict[str, dict[str, Any]] = {
    "x-request-id": {"schema": {"type": "string", "pattern": "^req_[0-9a-f]{32}$"}},
    "openai-processing-ms": {"schema": {"type": "integer", "minimum": 0}},
    "server-timing": {
        "schema": {"type": "string"},
        "description": "The phases that were over when the headers were sent.",
    },
    "cache-control": {"schema": {"type": "string"}},
    "x-accel-buffering": {"schema": {"type": "string"}},
    "retry-after": {"schema": {"type": "integer", "minimum": 1}, "description": "In seconds."},
    "retry-after-ms": {"schema": {"type": "integer", "minimum": 0}},
    "www-authenticate": {"schema": {"type": "string"}},
    "content-disposition": {"schema": {"type": "string", "pattern": "^attachment; "}},
    "x-content-type-options": {"schema": {"const": "nosniff"}},
    "content-security-policy": {"schema": {"type": "string"}},
}
"""As OpenAPI describes them."""


def field_docs(module: ModuleType) -> Iterator[tuple[str, str, str]]:
    """(struct, field, the text that stands below the field) of a module's structs."""
    for struct in ast.parse(inspect.getsource(module)).body:
        if not isinstance(struct, ast.ClassDef):
            continue
        for field, below in pairwise(struct.body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    yield struct.name, name, text


def error_kinds(kind: type[FirstwordError] = FirstwordError) -> Iterator[type[FirstwordError]]:
    """Those that can reach a client."""
    for child in kind.__subclasses__():
        if child is not SetupError:
            yield child
            yield from error_kinds(child)
