"""What an answer is grounded in: the search, the check that earlier passages still hold, the prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace

from retrieval.errors import RetrievalError
from retrieval.search.neighbours import merge_neighbours
from retrieval.types import Passage, SearchTiming
from server.context.entry import by_key
from server.context.guess import Guess
from server.context.ledger import Recalled
from server.context.prompt import Prompt
from server.context.wanted import Wanted
from server.engine.protocol import EngineDead
from server.errors import EngineDied, Internal
from server.parts import Parts
from server.turn_request import TurnRequest

RETRY_AFTER_DEATH_S = 5.0
_MERGED_CHUNKS = 3
"""A merged passage has at most the length of so many chunks."""
_FEW_CHARACTERS = 4_000
"""Tokenised in less than a millisecond: a thread would take longer to be woken."""


async def search(
    request: TurnRequest, recalled: Recalled, parts: Parts
) -> tuple[Sequence[Passage], SearchTiming]:
    """Raises `Internal`."""
    try:
        return await parts.retriever.search(
            recalled.conversation.query, request.where, request.top_k, parts.settings.retrieval.min_score
        )
    except RetrievalError as error:
        raise Internal(f"the documents cannot be searched: {error}") from error


async def look_over(
    request: TurnRequest,
    recalled: Recalled,
    passages: Sequence[Passage],
    guess: Guess | None,
    parts: Parts,
    *,
    searched: bool = True,
) -> Wanted:
    """What is asked of the prompt; passages that are no longer what they were are found out here.

    `searched`: that there are no passages means that none were found.
    """
    try:
        max_model_len = parts.engine.limits.max_model_len
    except EngineDead as error:
        raise EngineDied(str(error), retry_after_s=RETRY_AFTER_DEATH_S) from error
    in_history = by_key(recalled.entries).keys()
    injected = set(in_history)
    if guess is not None:
        injected |= {key for there, _ in guess.passages for key in there.keys}
        injected |= by_key(guess.history or ()).keys()
    try:
        gone = await parts.retriever.gone(injected)
    except RetrievalError as error:
        raise Internal(f"the documents cannot be read: {error}") from error
    if parts.settings.retrieval.merge_neighbours:
        passages = _merged(passages, injected - gone, parts)
    return Wanted(
        passages=passages,
        nothing_found=searched
        and not passages
        and not (in_history - gone)
        and parts.settings.retrieval.nothing_found == "tell",
        max_tokens=request.sampling.max_tokens,
        max_model_len=max_model_len,
        arranged=_arranged(recalled, passages, parts),
        tools=request.tools,
        gone=gone,
        guess=guess,
    )


def _merged(passages: Sequence[Passage], injected: Collection[int], parts: Parts) -> Sequence[Passage]:
    """Those that are new to the prompt and follow one another in their document become one."""
    old = [passage for passage in passages if passage.key in injected]
    new = [passage for passage in passages if passage.key not in injected]
    most_tokens = _MERGED_CHUNKS * parts.settings.retrieval.chunk_tokens
    merged = [
        replace(found.passage, also=tuple(key for key in found.keys if key != found.passage.key))
        for found in merge_neighbours(new, most_tokens, parts.template.count_tokens)
    ]
    rank = {passage.key: at for at, passage in enumerate(passages)}
    return sorted([*old, *merged], key=lambda passage: rank[passage.key])


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


def rests_on_passages(prompt: Prompt) -> bool:
    return bool(prompt.citations) or any(entry.passages for entry in prompt.entries)


def refuses(parts: Parts) -> bool:
    return parts.settings.retrieval.nothing_found == "refuse"
