"""One conversation held in one mode, in this process: turn by turn through `run_turn`, timed as the API times it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import get_args

from loadtest.workload.typing import CHARACTERS_PER_WORD, MAX_TYPED_CHARACTERS, partial_texts
from server.ahead import prewarm
from server.context.template import Message
from server.engine.protocol import Sampling
from server.evaluation.data import Conversation, Exchange
from server.evaluation.figures import Mode, Observation
from server.evaluation.quality import Citations, citations, containment, token_f1
from server.evaluation.report import Replies
from server.parts import Parts
from server.settings import Settings
from server.telemetry.metrics import Prewarmed
from server.telemetry.timing import TurnClock
from server.turn import Turn, run_turn
from server.turn_request import TurnRequest

TYPED_EVERY_S = 0.5
"""How often a page that types ahead sends what is in its box."""

_LAYOUTS: Mapping[Mode, Mapping[str, str]] = {
    "system": {"layout": "system", "order": "relevance"},
    "user": {"layout": "user", "order": "relevance"},
    "append": {"layout": "append", "order": "relevance"},
    "append+order": {"layout": "append", "order": "shared"},
    "type-ahead": {"layout": "append", "order": "shared"},
}


def settings_of(mode: Mode, settings: Settings) -> Settings:
    context = settings.context.model_copy(update=dict(_LAYOUTS[mode]))
    return settings.model_copy(update={"context": context})


@dataclass(frozen=True, slots=True)
class Manner:
    """How turns are asked, the same in every mode."""

    sampling: Sampling
    top_k: int
    turns: int | None
    replies: Replies
    words_per_minute: float
    think_s: float


async def hold(
    conversation: Conversation, mode: Mode, parts: Parts, manner: Manner, tenant: str = ""
) -> AsyncGenerator[Observation, None]:
    """One observation per turn, in order. `parts` are the mode's own, and its tenant is. Raises `FirstwordError`."""
    tenant = tenant or f"evaluation {mode}"
    history: list[Message] = []
    numbers: dict[int, str] = {}
    for number, exchange in enumerate(conversation.turns[: manner.turns], start=1):
        ahead_before = _tokens_ahead(parts)
        request = _request(history, exchange.user, manner)
        if mode == "type-ahead":
            await _type(request, exchange.user, tenant, parts, manner)
        turn, answer = await _ask(request, tenant, parts)
        if parts.settings.context.layout != "append":
            numbers.clear()  # counted anew on each turn
        numbers |= {citation.number: citation.passage.document_id for citation in turn.citations}
        is_last = number == len(conversation.turns)
        relevant = conversation.relevant if is_last else frozenset()
        sources = [citation.passage.document_id for citation in turn.citations]
        cited = citations(answer, sources, numbers, relevant)
        ahead_tokens = _tokens_ahead(parts) - ahead_before
        yield _observation(conversation, mode, number, exchange, turn, ahead_tokens, answer, cited)
        reply = answer if manner.replies == "own" else exchange.agent
        history += [Message("user", exchange.user), Message("assistant", reply)]


async def _type(request: TurnRequest, text: str, tenant: str, parts: Parts, manner: Manner) -> None:
    """Returns with the last character, which is when the message is submitted."""
    submit_at = time.monotonic() + manner.think_s + typing_s(text, manner.words_per_minute)
    for before_s, typed in partial_texts(text, manner.words_per_minute, TYPED_EVERY_S):
        await _until(submit_at - before_s)
        prewarm(replace(request, messages=[*request.messages[:-1], Message("user", typed)]), tenant, parts)
    await _until(submit_at)


def _request(history: Sequence[Message], text: str, manner: Manner) -> TurnRequest:
    return TurnRequest(
        messages=[*history, Message("user", text)],
        sampling=manner.sampling,
        retrieve=True,
        top_k=manner.top_k,
        stream=True,
    )


def _tokens_ahead(parts: Parts) -> int:
    """So many the engine has computed ahead of messages so far, by the server's own count."""
    return int(parts.metrics.registry.get_sample_value("firstword_prewarmed_tokens_total") or 0)


def prewarms_of(parts: Parts) -> dict[str, int]:
    """Calls to prewarm by what became of them, and turns that used it."""
    outcomes = get_args(Prewarmed)
    counts = (
        parts.metrics.registry.get_sample_value("firstword_prewarms_total", {"outcome": outcome})
        for outcome in outcomes
    )
    return {outcome: int(count) for outcome, count in zip(outcomes, counts, strict=True) if count}


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


def typing_s(text: str, words_per_minute: float) -> float:
    """How long somebody types at the text; what was pasted takes no time."""
    return (
        0.0 if len(text) > MAX_TYPED_CHARACTERS else len(text) * 60 / (words_per_minute * CHARACTERS_PER_WORD)
    )


async def _ask(request: TurnRequest, tenant: str, parts: Parts) -> tuple[Turn, str]:
    """The turn, over, and its text."""
    turn = Turn(request=request, tenant=tenant, clock=TurnClock())
    said: list[str] = []
    async with aclosing(run_turn(turn, parts)) as deltas:
        async for delta in deltas:
            if turn.clock.ttft_ms is None and (delta.text or delta.reasoning):
                turn.clock.end("first_byte")
            said.append(delta.text)
    if turn.clock.ttft_ms is None:  # an answer without any text: over is when its reader knows
        turn.clock.end("first_byte")
    return turn, "".join(said)


def _observation(
    conversation: Conversation,
    mode: Mode,
    number: int,
    exchange: Exchange,
    turn: Turn,
    ahead_tokens: int,
    answer: str,
    cited: Citations | None,
) -> Observation:
    clock = turn.clock
    usual = turn.prompt.usual if turn.prompt else None
    return Observation(
        mode=mode,
        conversation=conversation.id,
        collection=conversation.collection,
        turn=number,
        ttft_ms=clock.ttft_ms or 0.0,
        prefill_ms=clock.ended_ms.get("prefill", 0.0),
        prompt_tokens=turn.prompt_tokens,
        cached_tokens=turn.cached_tokens,
        plain_computed_tokens=usual.computed_tokens if usual else None,
        ahead_tokens=ahead_tokens,
        compaction=turn.prompt.compaction if turn.prompt else None,
        completion_tokens=turn.completion_tokens,
        tpot_ms=sum(clock.token_gaps_s) * 1_000 / (turn.completion_tokens - 1)
        if turn.completion_tokens > 1
        else None,
        finish_reason=turn.finish_reason,
        f1=token_f1(answer, exchange.agent),
        containment=containment(answer, exchange.agent),
        source_precision=cited.source_precision if cited else None,
        source_recall=cited.source_recall if cited else None,
        names_relevant=cited.names_relevant if cited else None,
        passages=tuple(citation.passage.document_id for citation in turn.citations),
        question=exchange.user,
        answer=answer,
    )


def sampling_of(settings: Settings, max_tokens: int) -> Sampling:
    """The deployment's own, with the answer's length given."""
    generation = settings.generation
    sampling = Sampling(max_tokens=max_tokens, temperature=generation.temperature)
    return replace(sampling, repetition_penalty=generation.repetition_penalty)
