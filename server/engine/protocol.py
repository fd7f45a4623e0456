"""The engine speaks tokens: prompt token ids in, a stream of deltas out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec

FinishReason = Literal["stop", "length", "tool_calls"]
Phase = Literal["starting", "ready", "stalled", "dead", "stopped"]


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the answer must conform to; `text` is JSON: a schema, or one of xgrammar's structural tags."""

    kind: Literal["json_object", "json_schema", "structural_tag"]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the answer's tokens are drawn; the names and meanings are vLLM's `SamplingParams`."""

    max_tokens: int
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    min_tokens: int = 0
    ignore_eos: bool = False
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    """Alternatives to tell with each token; 0: the drawn token's own logprob; None: nothing."""
    grammar: Grammar | None = None
    skip_special_tokens: bool = True
    """Control tokens leave no text; a tool-call parser may need to see them."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """`salt` separates prefix caches: only requests of equal salt share KV blocks. Lower `priority` runs first."""

    request_id: str
    prompt_token_ids: Sequence[int]
    sampling: Sampling
    salt: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Prefill:
    """What became of the prompt; comes with the first delta. Times are `time.monotonic()` seconds."""

    scheduled_at: float
    first_token_at: float
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Logprob:
    """One token with the natural logarithm of its probability."""

    token: str
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The token that was drawn, and the likeliest at its place, best first."""

    drawn: Logprob
    top: tuple[Logprob, ...]


class ToolCallPiece(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of tool call `index`: its id and name once, its arguments' text bit by bit."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class Delta(msgspec.Struct, frozen=True, gc=False):
    """New tokens of answer `index` and the text they complete; it may lag while a character is incomplete.

    What a reader has not taken yet is merged, so one delta may hold many tokens.
    """

    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason | None = None
    prefill: Prefill | None = None
    index: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()
    reasoning: str = ""
    tool_calls: tuple[ToolCallPiece, ...] = ()
    """These two are the reply parser's work; engines leave everything in `text`."""
    refusal: str = ""
    """In place of `text`, where the turn is refused and the client reads JSON; no engine's work."""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    phase: Phase
    detail: str = ""
    """For people: "loading engine, 34 s"."""


@dataclass(slots=True)
class EngineLoad:
    """What the engine's scheduler last said of itself."""

    running_requests: int = 0
    waiting_requests: int = 0
    kv_cache_usage: float = 0.0
    """Share of the KV blocks in use by running requests, in [0, 1]."""
    stepped_at: float = 0.0
    """When it last finished a step, `time.monotonic()` seconds."""


class EngineError(Exception):
    """Why a request has no answer."""


class PromptTooLong(EngineError):
    """The prompt leaves no room for a single token of answer."""


class RequestRefused(EngineError):
    """The engine does not take the request as it is, and says why; nothing was computed."""


class RequestAborted(EngineError):
    """`abort` ended the request from outside."""


class RequestFailed(EngineError):
    """The engine could not go on with this request; others are not affected."""


class EngineDead(EngineError):
    """The engine cannot answer this request and will not answer others until it is started anew."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    max_model_len: int
    block_size: int
    kv_blocks: int
    """Size of the prefix cache."""


class Engine(Protocol):
    """One engine. Implementations pass `tests/contract/test_engine.py`."""

    limits: EngineLimits
    load: EngineLoad

    async def start(self) -> None:
        """Returns when the engine can answer. Raises `EngineDead` when it cannot be started."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        """Stream the answers. The last delta of each, and no other, has a finish reason.

        Closing the generator, or cancelling the task that reads it, aborts the request. Raises `PromptTooLong`
        or `RequestRefused` before anything is computed, `RequestFailed`, or `EngineDead` when the engine goes away.
        """
        ...

    async def abort(self, request_id: str) -> None:
        """End a request from outside: its stream raises `RequestAborted`. Unknown ids are ignored."""
        ...

    async def died(self) -> str:
        """Wait until the engine has died by itself; returns why."""
        ...

    async def close(self) -> None:
        """Stop the engine and everything it started. Open streams end with `EngineDead`."""
        ...


__all__ = [
    "Delta",
    "Engine",
    "EngineDead",
    "EngineError",
    "EngineLimits",
    "EngineLoad",
    "EngineStatus",
    "FinishReason",
    "GenerateRequest",
    "Grammar",
    "Logprob",
    "Phase",
    "Prefill",
    "PromptTooLong",
    "RequestAborted",
    "RequestFailed",
    "RequestRefused",
    "Sampling",
    "TokenLogprobs",
    "ToolCallPiece",
]
