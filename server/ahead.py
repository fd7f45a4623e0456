"""Prefill ahead of its turn: a history that the engine has lost, and passages while the user is still typing.

Nobody waits for it, so it gives way to everything: it is begun only while the engine has nothing better to do, and
cancelled when a turn needs the engine. What was computed by then stays in the prefix cache.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Literal

from server.context.conversation import read_conversation
from server.context.guess import Guess
from server.context.ledger import Recalled
from server.engine.protocol import EngineError, GenerateRequest, Sampling
from server.errors import FirstwordError, InvalidParameter
from server.grounding import assemble, look_over, search
from server.guard.admission import PREWARM_PRIORITY, engine_priority
from server.parts import Parts
from server.telemetry.metrics import Prewarmed
from server.turn_request import TurnRequest

log = logging.getLogger(__name__)

Dropped = Literal["busy", "rebuilt"]
"""Why nothing is prefilled: turns come first; this model's prompts cannot grow."""


def prewarm(request: TurnRequest, tenant: str, parts: Parts) -> Dropped | None:
    """Begin to prefill for a message that is still being typed, the last of `request.messages`; returns at once.

    None: it has begun. What had begun for the same message before is superseded. Has no effect on the conversation.
    Raises `InvalidParameter`.
    """
    conversation = read_conversation(request.messages)
    if conversation.tail:
        last = len(request.messages) - 1
        raise InvalidParameter(
            "the last message must be the user's, as far as it has been typed", param=f"messages[{last}].role"
        )
    if not parts.assembler.grows:
        return "rebuilt"
    located = parts.ledger.locate(conversation, tenant, request.scope, request.tools)
    guess = parts.guesses.typed(
        tenant, located.history_key, conversation.question, is_first=not conversation.history
    )
    if not _has_room(parts):
        parts.metrics.count_prewarm("dropped")
        return "busy"
    guess.task = asyncio.create_task(_fulfil(guess, request, located, parts), name="prewarm")
    return None


async def prefill_history(
    request: TurnRequest, recalled: Recalled, guess: Guess | None, tenant: str, parts: Parts
) -> None:
    """Compute what the engine has lost of a conversation. What goes wrong here is told where somebody waits for it."""
    if not recalled.conversation.history or not parts.admission.leaves_room(1.0):
        return
    with suppress(FirstwordError, EngineError):
        wanted = await look_over(request, recalled, (), guess, parts)
        history = parts.assembler.history(recalled, wanted)
        salt = parts.authenticator.cache_salt(tenant)
        if parts.engine.prefill_tokens(history, salt) >= parts.settings.context.overlap_tokens:
            await _prefill(history, salt, engine_priority(request.tier), parts)


async def _fulfil(guess: Guess, request: TurnRequest, located: Recalled, parts: Parts) -> None:
    outcome: Prewarmed = "failed"
    try:
        outcome = await _prefill_guess(guess, request, located, parts)
    except asyncio.CancelledError:
        outcome = "superseded"
        raise
    except (FirstwordError, EngineError) as error:
        log.debug("nothing was prefilled ahead: %s", error)
    finally:
        parts.metrics.count_prewarm(outcome)


async def _prefill_guess(guess: Guess, request: TurnRequest, located: Recalled, parts: Parts) -> Prewarmed:
    tenant = guess.tenant
    recalled = await parts.ledger.recall(located.conversation, tenant, request.scope, request.tools)
    passages = (await search(request, recalled, parts))[0] if request.retrieve else ()
    wanted = await look_over(request, recalled, passages, guess, parts)
    prompt = await assemble(replace(wanted, typing=True), recalled, tenant, parts)
    ahead = prompt.token_ids[: prompt.ahead_tokens]
    salt = parts.authenticator.cache_salt(tenant)
    to_compute = parts.engine.prefill_tokens(ahead, salt) if ahead else 0
    is_ready = to_compute < parts.engine.limits.block_size
    if not is_ready and not _has_room(parts, to_compute):
        return "dropped"
    guess.history = prompt.entries[: located.conversation.asked_at]
    guess.passages = prompt.injected
    if is_ready:
        return "ready"
    guess.running_tokens = to_compute
    try:
        await _prefill(ahead, salt, PREWARM_PRIORITY, parts)
    finally:
        guess.running_tokens = 0
    parts.metrics.count_prewarm_tokens(to_compute)
    return "finished"


def _has_room(parts: Parts, tokens: int = 0) -> bool:
    settings = parts.settings
    others = parts.guesses.running_tokens
    return (
        not parts.drain.begun
        and parts.admission.leaves_room(settings.prewarm.max_running_share)
        and not parts.engine.load.waiting_requests
        and (not others or others + tokens <= settings.admission.max_prefill_tokens)
    )


async def _prefill(token_ids: Sequence[int], salt: str, priority: int, parts: Parts) -> None:
    """Raises `EngineError`."""
    request = GenerateRequest(
        f"ahead_{uuid.uuid4().hex}", token_ids, Sampling(max_tokens=1), salt=salt, priority=priority
    )
    async with aclosing(parts.engine.generate(request)) as deltas:
        async for _ in deltas:
            pass
