"""What an answer is grounded in: the search, the check that earlier passages still hold, the prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from retrieval.errors import RetrievalError
from retrieval.types import Passage, SearchTiming
from server.context.guess import Guess
from server.context.ledger import Recalled
from server.context.prompt import Prompt
from server.context.wanted import Wanted
from server.engine.protocol import EngineDead
from server.errors import EngineDied, Internal
from server.parts import Parts
from server.turn_request import TurnRequest

RETRY_AFTER_DEATH_S = 5.0
_FEW_CHARACTERS = 4_000
"""Tokenised in less than a millisecond: a thread would take longer to be woken."""


async def search(
    request: TurnRequest, recalled: Recalled, parts: Parts
) -> tuple[Sequence[Passage], SearchTiming]:
    """Raises `Internal`."""
    try:
        return await parts.retriever.retrieve(
            recalled.conversation.search_query, request.top_k, parts.settings.retrieval.min_score
        )
    except RetrievalError as error:
        raise Internal(f"the documents cannot be searched: {error}") from error


async def look_over(
    request: TurnRequest,
    recalled: Recalled,
    passages: Sequence[Passage],
    guess: Guess | None,
    parts: Parts,
) -> Wanted:
    """What is asked of the prompt; passages that are no longer what they were are found out here."""
    try:
        max_model_len = parts.engine.limits.max_model_len
    except EngineDead as error:
        raise EngineDied(str(error), retry_after_s=RETRY_AFTER_DEATH_S) from error
    injected = [passage.key for entry in recalled.entries for passage in entry.passages]
    if guess is not None:
        injected += [there.key for there, _ in guess.passages]
        injected += [passage.key for entry in guess.history or () for passage in entry.passages]
    try:
        gone = await parts.retriever.gone(injected)
    except RetrievalError as error:
        raise Internal(f"the documents cannot be read: {error}") from error
    return Wanted(
        passages=passages,
        max_tokens=request.sampling.max_tokens,
        max_model_len=max_model_len,
        arranged=_arranged(recalled, passages, parts),
        tools=request.tools,
        gone=gone,
        guess=guess,
    )


def _arranged(recalled: Recalled, passages: Sequence[Passage], parts: Parts) -> Sequence[Passage]:
    """On a first turn the passages that other conversations share come first."""
    if recalled.conversation.history or parts.settings.context.order == "relevance":
        return passages
    order = parts.order.arrange(
        recalled.root, [passage.key for passage in passages], [passage.score for passage in passages]
    )
    return [passages[position] for position in order]


async def assemble(wanted: Wanted, recalled: Recalled, tenant: str, parts: Parts) -> Prompt:
    """In a thread when there is much to tokenise."""
    salt = parts.authenticator.cache_salt(tenant)

    def assembled() -> Prompt:
        return parts.assembler.assemble(
            recalled, wanted, lambda token_ids: parts.engine.prefill_tokens(token_ids, salt)
        )

    unknown = recalled.conversation.messages[len(recalled.entries) :]
    n_characters = sum(
        len(message.content) + sum(len(call.arguments) for call in message.tool_calls) for message in unknown
    )
    n_characters += sum(len(passage.text) for passage in wanted.passages)
    if n_characters > _FEW_CHARACTERS or wanted.tools:
        return await asyncio.to_thread(assembled)
    return assembled()
