"""The life of a turn. Start reading here."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from retrieval.types import Passage
from server.ahead import prefill_history
from server.context.conversation import read_conversation
from server.context.guess import Guess
from server.context.ledger import Recalled
from server.context.prompt import Citation, Prompt
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
)
from server.engine.reply import ReplyReader
from server.errors import (
    Busy,
    ContextTooLong,
    EngineDied,
    FirstwordError,
    Internal,
    InvalidParameter,
    ShuttingDown,
)
from server.grounding import RETRY_AFTER_DEATH_S, assemble, look_over, refuses, rests_on_passages, search
from server.guard.admission import Permit, engine_priority
from server.parts import Parts
from server.replies import Reply
from server.telemetry.timing import TurnClock
from server.telemetry.turnlog import Outcome, TurnRecord
from server.turn_request import TurnRequest


@dataclass(slots=True)
class Turn:
    """One turn, filled in as it goes through its life."""

    request: TurnRequest
    tenant: str
    clock: TurnClock
    turn_id: str = field(default_factory=lambda: f"turn_{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    number: int = 0
    guess: Guess | None = None
    """What was prefilled while the question was typed."""
    recalled: Recalled | None = None
    prompt: Prompt | None = None
    refused: bool = False
    """The documents hold nothing about the question, and the answer says so without the engine."""
    reads_json: bool = False
    """The client does, by its `response_format`: a grammar alone may also come of tools."""
    replies: dict[int, Reply] = field(default_factory=dict)
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int | None = None
    finish_reason: FinishReason | None = None
    """Of the answer that ended last."""
    outcome: Outcome = "failed"
    error_code: str | None = None

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt.token_ids) if self.prompt else 0

    @property
    def citations(self) -> Sequence[Citation]:
        return self.prompt.citations if self.prompt else ()

    @property
    def refused_apart(self) -> bool:
        """Plain words would break who parses the content, so they go where OpenAI puts a refusal."""
        return self.refused and self.reads_json


async def run_turn(turn: Turn, parts: Parts) -> AsyncGenerator[Delta, None]:
    """From an accepted request to its record; closing the generator abandons everything behind it.

    1. *accept* has made `turn` (`server/api/chat.py`); 7. *emit* is what the caller does with each delta.
    Raises `FirstwordError`.
    """
    clock = turn.clock
    try:
        async with parts.admission.permit(turn.tenant, turn.request.tier) as permit:  # 2. admit
            clock.end("admit")
            recalled = await _recall(turn, parts)  # 3. recall
            clock.end("recall")
            passages = await _retrieve(turn, recalled, parts)  # 4. retrieve
            prompt = await _assemble(turn, recalled, passages, parts)  # 5. assemble
            clock.end("assemble")
            answering = _refuse(turn, parts) if turn.refused else _generate(turn, prompt, permit, parts)
            async with aclosing(answering) as deltas:  # 6. generate
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
        _give_way(turn, parts)
        _record(turn, parts)  # 8. record


async def _recall(turn: Turn, parts: Parts) -> Recalled:
    request = turn.request
    conversation = read_conversation(request.messages)
    recalled = await parts.ledger.recall(conversation, turn.tenant, request.scope, request.tools)
    parts.ledger.count(recalled)
    turn.guess = parts.guesses.take(turn.tenant, recalled.history_key, conversation.question)
    turn.recalled = recalled
    turn.number = conversation.turn
    return recalled


async def _retrieve(turn: Turn, recalled: Recalled, parts: Parts) -> Sequence[Passage]:
    """Meanwhile the engine computes what it has lost of the history."""
    if not turn.request.retrieve:
        return ()
    searching = asyncio.create_task(search(turn.request, recalled, parts))
    prefilling = asyncio.create_task(prefill_history(turn.request, recalled, turn.guess, turn.tenant, parts))
    try:
        passages, timing = await searching
    finally:
        searching.cancel()
        prefilling.cancel()
    turn.clock.end_retrieval(timing.embed_ms, timing.rerank_ms)
    return passages


async def _assemble(turn: Turn, recalled: Recalled, passages: Sequence[Passage], parts: Parts) -> Prompt:
    if turn.guess is not None:
        parts.guesses.look(turn.guess)
    searched = turn.request.retrieve
    wanted = await look_over(turn.request, recalled, passages, turn.guess, parts, searched=searched)
    turn.prompt = await assemble(wanted, recalled, turn.tenant, parts)
    nothing_found = searched and not passages and not rests_on_passages(turn.prompt)
    turn.refused = nothing_found and refuses(parts)
    return turn.prompt


async def _generate(turn: Turn, prompt: Prompt, permit: Permit, parts: Parts) -> AsyncGenerator[Delta, None]:
    """A failure before the first token is tried once more; after it, never."""
    request = await _engine_request(turn, prompt, permit, parts)
    attempts = 2
    while attempts:
        attempts -= 1
        if parts.drain.begun:
            raise ShuttingDown("the server is shutting down", retry_after_s=1)
        reader = _open_reader(turn, request, parts)
        _give_way(turn, parts)
        parts.guesses.make_way()
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
                        turn.replies.setdefault(delta.index, Reply()).add(delta, told)
                        yield told
            return
        except (EngineDead, RequestFailed) as error:
            if turn.completion_tokens or not (attempts and await _engine_answers_again(parts)):
                raise _told(error, request) from error
        except (RequestAborted, RequestRefused, PromptTooLong) as error:
            raise _told(error, request) from error


async def _refuse(turn: Turn, parts: Parts) -> AsyncGenerator[Delta, None]:
    """The documents hold nothing, and this deployment does not want the model to answer on its own."""
    text = parts.settings.prompt.nothing_found_reply
    token_ids = tuple(parts.template.encode(text))
    said, refusal = ("", text) if turn.refused_apart else (text, "")
    turn.finish_reason = "stop"
    for index in range(turn.request.sampling.n):
        delta = Delta(token_ids, said, finish_reason="stop", index=index, refusal=refusal)
        turn.clock.token()
        turn.completion_tokens += len(token_ids)
        turn.replies.setdefault(index, Reply()).add(delta, delta)
        yield delta


def _give_way(turn: Turn, parts: Parts) -> None:
    """What is computed ahead of this turn has come as far as it could."""
    if turn.guess is not None:
        parts.guesses.stop(turn.guess)


def _note_prefill(turn: Turn, prefill: Prefill, permit: Permit) -> None:
    permit.give_prefill_back()
    turn.cached_tokens = prefill.cached_tokens
    turn.clock.end("engine_queue", prefill.scheduled_at)
    turn.clock.end("prefill", prefill.first_token_at)


def _told(error: Exception, request: GenerateRequest) -> FirstwordError:
    """What the engine's error is to the client."""
    match error:
        case EngineDead():
            return EngineDied(f"the engine went away: {error}", retry_after_s=RETRY_AFTER_DEATH_S)
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


def _commit(turn: Turn, parts: Parts) -> None:
    """What the engine has computed and said is what the conversation's next turn goes on from."""
    recalled, prompt = turn.recalled, turn.prompt
    if recalled is None or prompt is None or not prompt.entries or not turn.replies:
        return
    replies = [
        (reply.message(), reply.entry(parts.template, parts.joints.end_of_reply, turn.request.sampling.stop))
        for reply in turn.replies.values()
    ]
    parts.ledger.commit(recalled, prompt.entries, replies)
    if not recalled.conversation.history:
        keys = [passage.key for passage in prompt.entries[0].passages]
        parts.order.served(recalled.root, keys)


def _record(turn: Turn, parts: Parts) -> None:
    _commit(turn, parts)
    usual = turn.prompt.usual if turn.prompt else None
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
        plain_prompt_tokens=usual.prompt_tokens if usual else None,
        plain_computed_tokens=usual.computed_tokens if usual else None,
        compaction=turn.prompt.compaction if turn.prompt else None,
        prewarmed=turn.guess is not None and turn.guess.history is not None,
        completion_tokens=turn.completion_tokens,
        passages=tuple(citation.passage.chunk_id for citation in turn.citations),
    )
    parts.metrics.record(record, turn.clock.token_gaps_s)
    parts.turn_log.append(record)
