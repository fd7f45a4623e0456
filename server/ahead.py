"""Prefill ahead of its turn: a history that the engine has lost, and passages while the user is still typing.

Nobody waits for it, so it gives way to everything: it is begun only while the engine has nothing better to do, and
cancelled when a turn needs the engine. What was computed by then stays in the prefix cache.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Literal

from server.context.conversation import read_conversation
from server.context.guess import Computing, Guess
from server.context.ledger import Recalled
from server.engine.protocol import EngineError, GenerateRequest, Sampling
from server.errors import FirstwordError, InvalidParameter
from server.grounding import assemble, look_over, search
from server.guard.admission import PREWARM_PRIORITY, engine_priority
from server.parts import Parts
from server.telemetry.metrics import Prewarmed
from server.turn_request import TurnRequest

log = logging.getLogger(__name__)

_LEAST_SERVED_S = 0.05
"""What is of use for no longer than this is broken off at once."""

Dropped = Literal["busy", "rebuilt"]
"""Why nothing is prefilled: turns come first; this model's prompts cannot grow."""


def prewarm(request: TurnRequest, tenant: str, parts: Parts) -> Dropped | None:
    """Begin to prefill for a message that is still being typed, the last of `request.messages`; returns at once.

    None: it has begun, or goes on. Has no effect on the conversation.
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
    guess.asked = request
    asyncio.get_running_loop().call_later(
        parts.settings.prewarm.guess_ttl_s + 0.1, parts.guesses.forget_old, tenant
    )
    if guess.computing is None and not _has_room(parts):
        parts.metrics.count_prewarm("dropped")
        return "busy"
    if guess.task is None or guess.task.done():
        guess.task = asyncio.create_task(_follow(guess, parts), name="prewarm")
    return None


async def prefill_history(
    request: TurnRequest, recalled: Recalled, guess: Guess | None, tenant: str, parts: Parts
) -> None:
    """Compute what the engine has lost of a conversation. What goes wrong here is told where somebody waits for it."""
    is_computing = guess is not None and guess.computing is not None
    if is_computing or not recalled.conversation.history or not parts.admission.leaves_room(1.0):
        return
    with suppress(FirstwordError, EngineError):
        wanted = await look_over(request, recalled, (), guess, parts, searched=False)
        history = parts.assembler.history(recalled, wanted)
        salt = parts.authenticator.cache_salt(tenant)
        if parts.engine.prefill_tokens(history, salt) >= parts.settings.context.overlap_tokens:
            await _prefill(history, salt, engine_priority(request.tier), parts)


async def _follow(guess: Guess, parts: Parts) -> None:
    """Prefill for what was typed, and for what is typed on meanwhile, until nothing is left to compute.

    What is under way goes on when the next text still wants it.
    """
    prefilling: asyncio.Task[None] | None = None
    begun: list[int] = []
    outcome: Prewarmed = "failed"
    try:
        while True:
            guess.typed_on.clear()
            target = await _target(guess, parts)
            serves_s = (
                guess.computing.serves_s(target, parts.guesses.tokens_per_s) if guess.computing else 0.0
            )
            if serves_s < _LEAST_SERVED_S:
                if prefilling is not None:
                    parts.guesses.break_off(guess)
                    prefilling.cancel()
                    parts.metrics.count_prewarm("superseded")
                prefilling = None
                if target.to_compute < parts.engine.limits.block_size:
                    guess.settle(target.prompt, math.inf)
                    outcome = "ready"
                elif _has_room(parts, target.to_compute):
                    guess.computing, begun, serves_s = target, target.token_ids, math.inf
                    prefilling = asyncio.create_task(_compute(guess, target, parts))
                else:
                    outcome = "dropped"
            if prefilling is not None:
                await _first_of(prefilling, guess.typed_on, serves_s)
                if prefilling.done():
                    prefilling.result()
                    prefilling, outcome = None, "ready"
                    # Not by asking the engine: one that forgets at once would be asked for ever.
                    if not guess.typed_on.is_set() and begun == target.token_ids:
                        break
            elif not guess.typed_on.is_set():
                break
    except asyncio.CancelledError:
        outcome = "superseded"
        raise
    except (FirstwordError, EngineError) as error:
        log.debug("nothing was prefilled ahead: %s", error)
    finally:
        if prefilling is not None:
            parts.guesses.break_off(guess)
            prefilling.cancel()
        parts.metrics.count_prewarm(outcome)


async def _target(guess: Guess, parts: Parts) -> Computing:
    """What is to be in the cache for the text as it is now."""
    request, tenant = guess.asked, guess.tenant
    conversation = read_conversation(request.messages)
    recalled = await parts.ledger.recall(conversation, tenant, request.scope, request.tools)
    passages = (await search(request, recalled, parts))[0] if request.retrieve else ()
    parts.guesses.look(guess)
    wanted = await look_over(request, recalled, passages, guess, parts, searched=request.retrieve)
    prompt = await assemble(replace(wanted, typing=True), recalled, tenant, parts)
    ahead = prompt.token_ids[: prompt.ahead_tokens]
    to_compute = parts.engine.prefill_tokens(ahead, parts.authenticator.cache_salt(tenant)) if ahead else 0
    return Computing(prompt, ahead, to_compute)


async def _compute(guess: Guess, target: Computing, parts: Parts) -> None:
    """Raises `EngineError`."""
    if not parts.admission.leaves_room(parts.settings.prewarm.max_running_share):
        # A turn came before this task's first step.
        parts.guesses.break_off(guess)
        return
    await _prefill(target.token_ids, parts.authenticator.cache_salt(guess.tenant), PREWARM_PRIORITY, parts)
    parts.guesses.end(guess)
    parts.metrics.count_prewarm("finished")
    parts.metrics.count_prewarm_tokens(target.to_compute)


async def _first_of(task: asyncio.Task[None], event: asyncio.Event, timeout_s: float) -> None:
    waiting = asyncio.create_task(event.wait())
    timeout = None if math.isinf(timeout_s) else timeout_s
    try:
        await asyncio.wait((task, waiting), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


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
