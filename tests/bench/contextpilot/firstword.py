"""Firstword's own part: its ledger, assembler, shared order and guesses, without engine, search and HTTP.

A turn goes as in `server/turn.py`: recall, arrange, assemble, commit. Divergences:
- Passages are those of the conversations, so that a search never fails and none of them is ever gone.
- While the question is typed, the passages are already those of the whole question: what type-ahead saves at most.
- What is prefilled ahead is through when the turn is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

from bench.contextpilot import conversation as given
from bench.contextpilot.account import BLOCK_TOKENS, EngineCache
from bench.contextpilot.layout import as_said
from bench.contextpilot.request import Served
from retrieval.types import Passage
from server.context.assemble import Assembler
from server.context.conversation import read_conversation
from server.context.entry import Entry, pack
from server.context.guess import Guess, Guesses
from server.context.joints import Joints
from server.context.ledger import Ledger, Recalled
from server.context.memory_store import MemoryStore
from server.context.order import SharedOrder
from server.context.prompt import Prompt
from server.context.template import ChatTemplate, Message
from server.context.wanted import Wanted
from server.sections.context import ContextSettings
from server.sections.engine import EngineSettings
from server.settings import Settings

_MAX_MODEL_LEN = 65_536
"""More than any of these conversations needs: nothing is shed for lack of room."""
_LEDGER_BYTES = 1 << 30
_SCOPE = ""


@dataclass(frozen=True, slots=True)
class Variant:
    order: Literal["shared", "relevance"]
    types_ahead: bool = False


Alone = Literal["one by one", "online"]
"""See `Serving`: no round is put into an order of its own."""

VARIANTS: dict[str, Variant] = {
    "Firstword: append-only": Variant("relevance"),
    "Firstword: append-only, shared order": Variant("shared"),
    "Firstword: type-ahead": Variant("shared", types_ahead=True),
}


class Gateway:
    """One server's state, which conversations go through turn by turn."""

    def __init__(self, template: ChatTemplate, variant: Variant) -> None:
        settings = Settings(
            context=ContextSettings(order=variant.order), engine=EngineSettings(block_size=BLOCK_TOKENS)
        )
        joints = Joints(template)
        self._variant = variant
        self._max_tokens = settings.generation.max_tokens
        self._template = template
        self._assembler = Assembler(template, joints, settings)
        self._ledger = Ledger(MemoryStore(_LEDGER_BYTES), template.fingerprint)
        self._order = SharedOrder(settings.context.order_window, settings.context.order_margin)
        self._guesses = Guesses(settings.prewarm.max_per_key, settings.prewarm.guess_ttl_s)
        self._cache = EngineCache()
        self._keys: dict[str, int] = {}

    async def turn(self, place: int, told: given.Conversation, turn: int, tenant: str) -> Served:
        """Turn `turn`, counted from 0, of a conversation that has had those before it."""
        asked = told.turns[turn]
        passages = [self._passage(passage) for passage in asked.passages]
        history = as_said(told.turns[:turn])
        ahead, compacted = list[int](), False
        if self._variant.types_ahead and (typed := _typed(asked.question)):
            ahead, compacted = await self._type_ahead([*history, Message("user", typed)], passages, tenant)
        recalled = await self._recall([*history, Message("user", asked.question)], tenant)
        guess = self._guesses.take(tenant, recalled.history_key, asked.question)
        prompt = self._assemble(recalled, passages, guess, tenant)
        reply = self._template.encode(asked.reply)
        self._cache.compute(prompt.token_ids + reply, tenant)
        self._commit(recalled, prompt, Message("assistant", asked.reply), reply)
        compacted = compacted or prompt.compaction is not None
        return Served(place, turn, prompt.token_ids, reply, ahead, compacted)

    async def _type_ahead(
        self, messages: Sequence[Message], passages: Sequence[Passage], tenant: str
    ) -> tuple[list[int], bool]:
        """What is prefilled for a question that is not whole yet, and whether older parts were shed for it."""
        recalled = await self._recall(messages, tenant)
        conversation = recalled.conversation
        guess = self._guesses.typed(
            tenant, recalled.history_key, conversation.question, is_first=not conversation.history
        )
        prompt = self._assemble(recalled, passages, guess, tenant, typing=True)
        guess.settle(prompt, inf)
        ahead, compacted = prompt.token_ids[: prompt.ahead_tokens], prompt.compaction is not None
        if not ahead or self._cache.to_compute(ahead, tenant) < BLOCK_TOKENS:
            return [], compacted
        self._cache.compute(ahead, tenant)
        return ahead, compacted

    async def _recall(self, messages: Sequence[Message], tenant: str) -> Recalled:
        return await self._ledger.recall(read_conversation(messages), tenant, _SCOPE)

    def _assemble(
        self,
        recalled: Recalled,
        passages: Sequence[Passage],
        guess: Guess | None,
        tenant: str,
        *,
        typing: bool = False,
    ) -> Prompt:
        wanted = Wanted(
            passages=passages,
            max_tokens=self._max_tokens,
            max_model_len=_MAX_MODEL_LEN,
            arranged=self._arranged(recalled, passages),
            guess=guess,
            typing=typing,
        )
        return self._assembler.assemble(
            recalled, wanted, lambda token_ids: self._cache.to_compute(token_ids, tenant)
        )

    def _arranged(self, recalled: Recalled, passages: Sequence[Passage]) -> Sequence[Passage]:
        if recalled.conversation.history or self._variant.order == "relevance":
            return passages
        keys, scores = [passage.key for passage in passages], [passage.score for passage in passages]
        return [passages[position] for position in self._order.arrange(recalled.root, keys, scores)]

    def _commit(self, recalled: Recalled, prompt: Prompt, said: Message, reply: Sequence[int]) -> None:
        self._ledger.commit(recalled, prompt.entries, [(said, Entry(pack(reply)))])
        if not recalled.conversation.history:
            keys = [passage.key for passage in prompt.entries[0].passages]
            self._order.served(recalled.root, keys)

    def _passage(self, passage: given.Passage) -> Passage:
        return Passage(
            chunk_id=passage.id,
            document_id=passage.id,
            filename="",
            title="",
            heading_path=(),
            text=passage.text,
            n_tokens=0,
            score=passage.score,
            key=self._keys.setdefault(passage.id, len(self._keys) + 1),
        )


def replay(
    variant: Variant,
    serving: Alone,
    conversations: Sequence[given.Conversation],
    template: ChatTemplate,
    *,
    shared: bool,
) -> list[Served]:
    """In the order of serving. `shared`: one tenant has all conversations; else each has a tenant of its own."""
    places = [(place, turn) for place, told in enumerate(conversations) for turn in range(len(told.turns))]
    if serving == "online":
        places.sort(key=lambda at: at[1])

    async def served() -> list[Served]:
        gateway = Gateway(template, variant)
        return [
            await gateway.turn(place, conversations[place], turn, "" if shared else str(place))
            for place, turn in places
        ]

    return asyncio.run(served())


def _typed(question: str) -> str:
    """Without its last word, which is still being typed; empty where that is all."""
    words = question.rsplit(None, 1)
    return words[0] if len(words) > 1 else ""
