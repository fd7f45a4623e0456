"""The life of a turn. Start reading here."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from retrieval.errors import RetrievalError
from retrieval.types import Passage
from server.context.assemble import Prompt
from server.context.ledger import Conversation, recall
from server.context.template import Message
from server.engine.protocol import (
    Delta,
    EngineDead,
    FinishReason,
    GenerateRequest,
    Prefill,
    PromptTooLong,
    RequestAborted,
    RequestFailed,
    RequestRefused,
    Sampling,
)
from server.engine.reply import ReplyReader, ToolUse
from server.errors import (
    Busy,
    ContextTooLong,
    EngineDied,
    FirstwordError,
    Internal,
    InvalidParameter,
    ShuttingDown,
)
from server.guard.admission import Permit, Tier, engine_priority
from server.parts import Parts
from server.telemetry.timing import TurnClock
from server.telemetry.turnlog import Outcome, TurnRecord

_RETRY_AFTER_DEATH_S = 5.0
_SMALL_PROMPT_CHARACTERS = 4_000
"""Tokenised in less than a millisecond: a thread would take longer to be woken."""


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A validated request, whatever endpoint it came in by."""

    messages: Sequence[Message]
    sampling: Sampling
    retrieve: bool
    top_k: int
    stream: bool
    tier: Tier = "default"
    tool_use: ToolUse | None = None


@dataclass(slots=True)
class Turn:
    """One turn, filled in as it goes through its life."""

    request: TurnRequest
    tenant: str
    clock: TurnClock
    turn_id: str = field(default_factory=lambda: f"turn_{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    number: int = 0
    passages: Sequence[Passage] = ()
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int | None = None
    finish_reason: FinishReason | None = None
    """Of the answer that ended last."""
    outcome: Outcome = "failed"
    error_code: str | None = None


async def run_turn(turn: Turn, parts: Parts) -> AsyncGenerator[Delta, None]:
    """From an accepted request to its record; closing the generator abandons everything behind it.

    1. *accept* has made `turn` (`server/api/chat.py`); 7. *emit* is what the caller does with each delta.
    Raises `FirstwordError`.
    """
    clock = turn.clock
    try:
        async with parts.admission.permit(turn.tenant, turn.request.tier) as permit:  # 2. admit
            clock.end("admit")
            conversation = recall(turn.request.messages)  # 3. recall
            turn.number = conversation.turn
            clock.end("recall")
            passages = await _retrieve(turn, conversation, parts)  # 4. retrieve
            prompt = await _assemble(turn, conversation, passages, parts)  # 5. assemble
            async with aclosing(_generate(turn, prompt, permit, parts)) as deltas:  # 6. generate
                async for delta in deltas:
                    yield delta  # 7. emit
        turn.outcome = "finished"
    except (asyncio.CancelledError, GeneratorExit):
        turn.outcome = "disconnected"
        raise
    except FirstwordError as error:
        turn.outcome = "refused" if isinstance(error, Busy) else "failed"
        turn.error_code = error.code
        raise
    finally:
        _record(turn, parts)  # 8. record


async def _retrieve(turn: Turn, conversation: Conversation, parts: Parts) -> Sequence[Passage]:
    if not turn.request.retrieve:
        return ()
    try:
        passages, timing = await parts.retriever.retrieve(
            conversation.search_query, turn.request.top_k, parts.settings.retrieval.min_score
        )
    except RetrievalError as error:
        raise Internal(f"the documents cannot be searched: {error}") from error
    turn.clock.end_retrieval(timing.embed_ms, timing.rerank_ms)
    return passages


async def _assemble(
    turn: Turn, conversation: Conversation, passages: Sequence[Passage], parts: Parts
) -> Prompt:
    try:
        max_model_len = parts.engine.limits.max_model_len
    except EngineDead as error:
        raise EngineDied(str(error), retry_after_s=_RETRY_AFTER_DEATH_S) from error
    request = turn.request
    tools = request.tool_use.tools if request.tool_use and request.tool_use.choice != "none" else ()

    def assemble() -> Prompt:
        max_tokens = request.sampling.max_tokens
        return parts.assembler.assemble(conversation, passages, max_tokens, max_model_len, tools)

    n_characters = sum(
        len(message.content) + sum(len(call.arguments) for call in message.tool_calls)
        for message in request.messages
    )
    if n_characters + sum(len(passage.text) for passage in passages) > _SMALL_PROMPT_CHARACTERS or tools:
        prompt = await asyncio.to_thread(assemble)
    else:
        prompt = assemble()
    turn.passages = prompt.passages
    turn.prompt_tokens = len(prompt.token_ids)
    turn.clock.end("assemble")
    return prompt


async def _generate(turn: Turn, prompt: Prompt, permit: Permit, parts: Parts) -> AsyncGenerator[Delta, None]:
    """A failure before the first token is tried once more; after it, never."""
    request = await _engine_request(turn, prompt, permit, parts)
    attempts = 2
    while attempts:
        attempts -= 1
        if parts.drain.begun:
            raise ShuttingDown("the server is shutting down", retry_after_s=1)
        reader = _open_reader(turn, request, parts)
        try:
            with parts.drain.running(turn.turn_id):
                async with aclosing(parts.engine.generate(request)) as deltas:
                    async for delta in deltas:
                        if delta.prefill is not None:
                            _note_prefill(turn, delta.prefill, permit)
                        turn.clock.token()
                        turn.completion_tokens += len(delta.token_ids)
                        told = delta if reader is None else reader.read(delta)
                        if told.finish_reason is not None:
                            turn.finish_reason = told.finish_reason
                            turn.reasoning_tokens = None if reader is None else reader.reasoning_tokens
                        yield told
            return
        except (EngineDead, RequestFailed) as error:
            if turn.completion_tokens or not (attempts and await _engine_answers_again(parts)):
                raise _told(error, request) from error
        except (RequestAborted, RequestRefused, PromptTooLong) as error:
            raise _told(error, request) from error


def _note_prefill(turn: Turn, prefill: Prefill, permit: Permit) -> None:
    permit.give_prefill_back()
    turn.cached_tokens = prefill.cached_tokens
    turn.clock.end("engine_queue", prefill.scheduled_at)
    turn.clock.end("prefill", prefill.first_token_at)


def _told(error: Exception, request: GenerateRequest) -> FirstwordError:
    """What the engine's error is to the client."""
    match error:
        case EngineDead():
            return EngineDied(f"the engine went away: {error}", retry_after_s=_RETRY_AFTER_DEATH_S)
        case RequestAborted():
            return ShuttingDown("the server is shutting down", retry_after_s=1)
        case RequestRefused():
            param = "response_format" if request.sampling.grammar else None
            return InvalidParameter(f"the engine refuses this request: {error}", param=param)
        case PromptTooLong():
            return ContextTooLong("the prompt fills the model's context", param="messages")
        case _:
            return Internal(f"the engine could not go on with this answer: {error}")


async def _engine_request(turn: Turn, prompt: Prompt, permit: Permit, parts: Parts) -> GenerateRequest:
    """Once the engine has room for the prefill that it will really have to compute."""
    salt = parts.authenticator.cache_salt(turn.tenant)
    await permit.take_prefill(parts.engine.prefill_tokens(prompt.token_ids, salt))
    turn.clock.end("admit")
    return GenerateRequest(
        request_id=turn.turn_id,
        prompt_token_ids=prompt.token_ids,
        sampling=replace(turn.request.sampling, max_tokens=prompt.max_tokens),
        salt=salt,
        priority=engine_priority(turn.request.tier),
    )


def _open_reader(turn: Turn, request: GenerateRequest, parts: Parts) -> ReplyReader | None:
    parsers, tool_use = parts.reply_parsers, turn.request.tool_use
    if parsers is None or not (tool_use or parsers.tells_reasoning):
        return None
    return parsers.open(tool_use, request.prompt_token_ids, request.sampling.n)


async def _engine_answers_again(parts: Parts) -> bool:
    """Wait for an engine, for a bounded time; false when none comes or the server shuts down."""
    ready = asyncio.ensure_future(parts.engine.ready())
    drain = asyncio.ensure_future(parts.drain.begins())
    try:
        await asyncio.wait(
            (ready, drain),
            timeout=parts.settings.engine.retry_wait_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        return ready.done() and not drain.done()
    finally:
        ready.cancel()
        drain.cancel()


def _record(turn: Turn, parts: Parts) -> None:
    record = TurnRecord(
        turn_id=turn.turn_id,
        tenant=turn.tenant,
        created=turn.created,
        model=parts.model_name,
        turn=turn.number,
        stream=turn.request.stream,
        outcome=turn.outcome,
        finish_reason=turn.finish_reason,
        error_code=turn.error_code,
        phases_ms=turn.clock.ended_ms,
        ttft_ms=turn.clock.ttft_ms,
        total_ms=turn.clock.elapsed_ms,
        prompt_tokens=turn.prompt_tokens,
        cached_tokens=turn.cached_tokens,
        completion_tokens=turn.completion_tokens,
        passages=tuple(passage.chunk_id for passage in turn.passages),
    )
    parts.metrics.record(record, turn.clock.token_gaps_s)
    parts.turn_log.append(record)
