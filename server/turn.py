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
    PromptTooLong,
    RequestAborted,
    RequestFailed,
    Sampling,
)
from server.errors import Busy, ContextTooLong, EngineDied, FirstwordError, Internal, ShuttingDown
from server.parts import Parts
from server.telemetry.timing import TurnClock
from server.telemetry.turnlog import Outcome, TurnRecord

_RETRY_AFTER_DEATH_S = 5.0


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A validated request, whatever endpoint it came in by."""

    messages: Sequence[Message]
    sampling: Sampling
    retrieve: bool
    top_k: int
    stream: bool


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
    finish_reason: FinishReason | None = None
    outcome: Outcome = "failed"
    error_code: str | None = None


async def run_turn(turn: Turn, parts: Parts) -> AsyncGenerator[Delta, None]:
    """From an accepted request to its record; closing the generator abandons everything behind it.

    1. *accept* has made `turn` (`server/api/chat.py`); 7. *emit* is what the caller does with each delta.
    Raises `FirstwordError`.
    """
    clock = turn.clock
    try:
        async with parts.admission.permit():  # 2. admit
            clock.end("admit")
            conversation = recall(turn.request.messages)  # 3. recall
            turn.number = conversation.turn
            clock.end("recall")
            passages = await _retrieve(turn, conversation, parts)  # 4. retrieve
            prompt = await _assemble(turn, conversation, passages, parts)  # 5. assemble
            async with aclosing(_generate(turn, prompt, parts)) as deltas:  # 6. generate
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
    max_tokens = turn.request.sampling.max_tokens
    prompt = await asyncio.to_thread(
        parts.assembler.assemble, conversation, passages, max_tokens, max_model_len
    )
    turn.passages = prompt.passages
    turn.prompt_tokens = len(prompt.token_ids)
    turn.clock.end("assemble")
    return prompt


async def _generate(turn: Turn, prompt: Prompt, parts: Parts) -> AsyncGenerator[Delta, None]:
    if parts.drain.begun:
        raise ShuttingDown("the server is shutting down", retry_after_s=1)
    request = GenerateRequest(
        request_id=turn.turn_id,
        prompt_token_ids=prompt.token_ids,
        sampling=replace(turn.request.sampling, max_tokens=prompt.max_tokens),
        salt=parts.authenticator.cache_salt(turn.tenant),
    )
    try:
        with parts.drain.running(turn.turn_id):
            async with aclosing(parts.engine.generate(request)) as deltas:
                async for delta in deltas:
                    if delta.prefill is not None:
                        turn.cached_tokens = delta.prefill.cached_tokens
                        turn.clock.end("engine_queue", delta.prefill.scheduled_at)
                        turn.clock.end("prefill", delta.prefill.first_token_at)
                    turn.clock.token()
                    turn.completion_tokens += len(delta.token_ids)
                    turn.finish_reason = delta.finish_reason
                    yield delta
    except EngineDead as error:
        raise EngineDied(f"the engine went away: {error}", retry_after_s=_RETRY_AFTER_DEATH_S) from error
    except RequestAborted as error:
        raise ShuttingDown("the server is shutting down", retry_after_s=1) from error
    except RequestFailed as error:
        raise Internal(f"the engine could not go on with this answer: {error}") from error
    except PromptTooLong as error:
        raise ContextTooLong("the prompt fills the model's context", param="messages") from error


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
