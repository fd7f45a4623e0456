"""Ledger + new passages + question → token ids, within the context budget.

A prompt only grows: what was in it stays where it is, passages that are new to it stand ahead of the question, and
those that it holds already are pointed to by their numbers. It sheds what is old when it must, or when that is
cheap (`compact.py`); passages that were deleted or changed leave it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import msgspec

from retrieval.types import Passage
from server.context.compact import pays_off, shed_passages, shed_turns
from server.context.draft import Draft, Drafter
from server.context.entry import Entry, Injected, n_tokens, pack
from server.context.foreign import Foreign
from server.context.guess import Guess
from server.context.joints import Joints
from server.context.ledger import Recalled
from server.context.prompt import Compaction, Prompt, Usual, room_for_prompt, too_long
from server.context.question import (
    IN_VAIN_COST,
    TYPING_IN_VAIN_COST,
    Prefilled,
    Question,
    Questions,
    cite,
)
from server.context.rebuild import Rebuild
from server.context.template import ChatTemplate, Role
from server.context.usual import usual_layout
from server.settings import Settings

_EXPECTED_REPLY_TOKENS = 100
_LEAST_SHED_SHARE = 0.1
"""Of a prompt: to shed less than this is never worth a new prefill."""

ExpectedPrefill = Callable[[Sequence[int]], int]
"""How many of these prompt tokens the engine would have to compute."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a turn asks of its prompt."""

    passages: Sequence[Passage]
    """What its search returned, best first."""
    max_tokens: int
    max_model_len: int
    arranged: Sequence[Passage] = ()
    """The same in the order in which they are to stand; empty: best first."""
    tools: Sequence[dict[str, Any]] = ()
    gone: Collection[int] = frozenset()
    """Keys of earlier turns' passages that were deleted or changed since."""
    guess: Guess | None = None
    typing: bool = False
    """The question is not whole yet: the prompt will be prefilled as far as its passages."""


@dataclass(frozen=True, slots=True)
class _Grown:
    question: Question | None
    """None where the question was asked before, and tools are answering it."""
    draft: Draft


class Assembler:
    def __init__(self, template: ChatTemplate, joints: Joints, settings: Settings) -> None:
        self._template = template
        self._drafter = Drafter(template, joints, settings.prompt)
        self._foreign = Foreign(template, joints, settings.prompt.max_history_tokens)
        self._questions = Questions(template, settings.prompt)
        self._rebuild = Rebuild(
            template, settings.prompt, "system" if settings.context.layout == "system" else "user"
        )
        self._prompt = settings.prompt
        self._context = settings.context
        self._block_size = settings.engine.block_size
        self.grows = settings.context.layout == "append" and joints.kind != "plain"
        """Whether prompts are append-only here; otherwise they are rebuilt on each turn."""

    def assemble(self, recalled: Recalled, wanted: Wanted, expected_prefill: ExpectedPrefill) -> Prompt:
        """Raises `ContextTooLong` when system message and question alone do not fit."""
        conversation = recalled.conversation
        budget = self._budget(wanted)
        at_least = self._template.least_tokens(conversation.question + (conversation.system or ""))
        if at_least > budget:
            raise too_long(f"at least {at_least}", wanted.max_model_len, budget)
        if self.grows and (history := self._history(recalled, wanted)) is not None:
            prompt = self._grow(recalled, wanted, history, budget, expected_prefill)
            if prompt is not None:
                return prompt
        return self._rebuild.assemble(
            conversation, wanted.passages, wanted.max_tokens, wanted.max_model_len, wanted.tools
        )

    def history(self, recalled: Recalled, wanted: Wanted) -> list[int]:
        """The prompt as far as it does not depend on what the search will find; empty when all of it might."""
        history = self._history(recalled, wanted) if self.grows and recalled.conversation.history else None
        if not history or history != shed_passages(history, _roles(recalled), ()):
            return []
        conversation = recalled.conversation
        draft = self._drafter.draft(
            [*history, Entry(b"")],
            [*_roles(recalled)[: len(history)], "user"],
            conversation.asked_at,
            conversation.system or self._prompt.system,
            wanted.tools,
        )
        return draft.token_ids[: draft.history_tokens] if draft else []

    def _budget(self, wanted: Wanted) -> int:
        room = room_for_prompt(wanted.max_model_len, wanted.max_tokens)
        return min(room, self._context.max_prompt_tokens or room)

    def _history(self, recalled: Recalled, wanted: Wanted) -> list[Entry] | None:
        """One entry for each message ahead of the question: as the ledger or a guess has it, or made anew."""
        asked_at = recalled.conversation.asked_at
        known = recalled.entries[:asked_at]
        if wanted.guess is not None and wanted.guess.history is not None:
            known = wanted.guess.history
        if all(entry.dropped for entry in known):
            known = ()  # there may be room for it again
        rest = self._foreign.entries(
            recalled.conversation.history[len(known) :], after_dropped=bool(known) and known[-1].dropped
        )
        return None if rest is None else [*without(known, wanted.gone), *rest]

    def _grow(
        self,
        recalled: Recalled,
        wanted: Wanted,
        history: Sequence[Entry],
        budget: int,
        expected_prefill: ExpectedPrefill,
    ) -> Prompt | None:
        """None when the template has no stable rendering of these messages."""
        grown = self._append(recalled, wanted, history)
        if grown is None:
            return None
        compaction = wanted.guess.compaction if wanted.guess is not None else None
        if len(grown.draft.token_ids) > budget:
            compaction = "full"
            grown = self._fit(recalled, wanted, history, grown, budget)
        elif shed := self._cheaper(recalled, wanted, history, grown, expected_prefill):
            compaction, grown = shed
        draft, question = grown.draft, grown.question
        return Prompt(
            token_ids=draft.token_ids,
            citations=question.citations if question else cite(wanted.passages, _present(draft.entries), ()),
            max_tokens=min(wanted.max_tokens, wanted.max_model_len - len(draft.token_ids)),
            usual=self._usual(recalled, draft),
            entries=draft.entries,
            injected=question.injected if question else (),
            asked_at=recalled.conversation.asked_at,
            history_tokens=draft.history_tokens,
            passages_end=draft.passages_end,
            ahead_tokens=self._ahead_tokens(recalled, wanted, draft),
            compaction=compaction,
        )

    def _ahead_tokens(self, recalled: Recalled, wanted: Wanted, draft: Draft) -> int:
        """While the question is typed its words stand too, but for the last."""
        if not wanted.typing:
            return draft.content_at
        asked = draft.entries[recalled.conversation.asked_at]
        return draft.content_at + self._questions.settled_tokens(asked, recalled.conversation.question)

    def _append(
        self,
        recalled: Recalled,
        wanted: Wanted,
        history: Sequence[Entry],
        passages: Sequence[Passage] | None = None,
        *,
        bare: bool = False,
    ) -> _Grown | None:
        """`bare`: without the passages of a question that was asked before, too."""
        conversation = recalled.conversation
        asked_at = conversation.asked_at
        known = recalled.entries[asked_at] if len(recalled.entries) > asked_at else None
        question: Question | None = None
        if known is not None and conversation.tail and not known.dropped:
            last = max((entry.numbered_to for entry in history), default=0)
            (entry,) = without([known], wanted.gone, last)
            entry = msgspec.structs.replace(entry, passages=()) if bare else entry
        else:
            question = self._questions.make(
                conversation.question,
                wanted.passages if passages is None else passages,
                history,
                self._prefilled(wanted, known),
                TYPING_IN_VAIN_COST if wanted.typing else IN_VAIN_COST,
                wanted.arranged or wanted.passages,
            )
            entry = question.entry
            if known is not None and not history:
                entry = msgspec.structs.replace(entry, opening=known.opening)
        tail = self._tail(recalled)
        if tail is None:
            return None
        entries = [*history, entry, *tail]
        roles = _roles(recalled)
        draft = self._drafter.draft(
            entries, roles, asked_at, conversation.system or self._prompt.system, wanted.tools
        )
        return None if draft is None else _Grown(question, draft)

    def _tail(self, recalled: Recalled) -> list[Entry] | None:
        """What came of the question so far: the model's tool calls and their answers."""
        asked_at, tail = recalled.conversation.asked_at, recalled.conversation.tail
        # A later turn may have dropped what this one is about.
        entries = list(takewhile(lambda entry: not entry.dropped, recalled.entries[asked_at + 1 :]))
        for message in tail[len(entries) :]:
            content = self._foreign.content(message)
            if content is None:
                return None
            entries.append(Entry(pack(content)))
        return entries

    def _prefilled(self, wanted: Wanted, known: Entry | None) -> Prefilled:
        """A guess, or what stood ahead of the same question when it was asked before."""
        if wanted.guess is not None and wanted.guess.passages:
            ready: list[tuple[Injected, Passage | None]] = []
            for there, passage in wanted.guess.passages:
                if there.key in wanted.gone:
                    break
                ready.append((there, passage))
            return ready
        if known is None:
            return ()
        found = {passage.key: passage for passage in wanted.passages}
        return [(there, found.get(there.key)) for there in known.passages]

    def _fit(
        self, recalled: Recalled, wanted: Wanted, history: Sequence[Entry], grown: _Grown, budget: int
    ) -> _Grown:
        """Compact the history, and leave passages out when even without it they are too many."""
        roles = _roles(recalled)
        keys = {passage.key for passage in wanted.passages}
        target = int(budget * self._context.compact_to)
        passages = list(wanted.passages)
        left = shed_passages(history, roles, keys, len(grown.draft.token_ids) - target)
        bare = False
        while True:
            again = self._append(recalled, wanted, left, passages, bare=bare)
            if again is None:  # the template renders no such conversation: begin it with the question
                left = shed_turns(left, roles, 2**31)
                again = self._append(recalled, wanted, left, passages, bare=bare)
            size = budget + 1 if again is None else len(again.draft.token_ids)
            if again is not None and size <= budget:
                return again
            if not all(entry.dropped for entry in left):
                left = shed_turns(left, roles, size - target)
            elif passages:
                passages.pop()
            elif not bare:
                bare = True
            else:
                raise too_long(str(size), wanted.max_model_len, budget)

    def _cheaper(
        self,
        recalled: Recalled,
        wanted: Wanted,
        history: Sequence[Entry],
        grown: _Grown,
        expected_prefill: ExpectedPrefill,
    ) -> tuple[Compaction, _Grown] | None:
        """The prompt without the passages that are out of use, if that costs less in the long run."""
        roles = _roles(recalled)
        keys = {passage.key for passage in wanted.passages}
        left = shed_passages(history, roles, keys)
        if left == list(history):
            return None
        tokens = len(grown.draft.token_ids)
        shorter = self._append(recalled, wanted, left)
        if shorter is None or tokens - len(shorter.draft.token_ids) < _LEAST_SHED_SHARE * tokens:
            return None
        to_compute = expected_prefill(grown.draft.token_ids)
        cold = to_compute > tokens // 2
        if not pays_off(
            appended=(to_compute, tokens),
            compacted=(expected_prefill(shorter.draft.token_ids), len(shorter.draft.token_ids)),
            tokens_a_turn=tokens - grown.draft.history_tokens + _EXPECTED_REPLY_TOKENS,
            attention_cost=self._context.attention_cost,
            typing=wanted.typing,
        ):
            return None
        return ("cold" if cold else "typing" if wanted.typing else "worth"), shorter

    def _usual(self, recalled: Recalled, draft: Draft) -> Usual:
        asked_at = recalled.conversation.asked_at
        history = draft.entries[:asked_at]
        passages = sum(n_tokens(passage.tokens) for entry in history for passage in entry.passages)
        asked = [
            entry
            for entry, message in zip(history, recalled.conversation.history, strict=True)
            if message.role == "user"
        ]
        return usual_layout(
            opening_tokens=draft.opening_tokens,
            now=draft.entries[asked_at].retrieved,
            before=asked[-1].retrieved if asked else None,
            said_tokens=draft.history_tokens - draft.opening_tokens - passages,
            asked_tokens=len(draft.token_ids) - draft.passages_end,
            block_size=self._block_size,
        )


def _roles(recalled: Recalled) -> list[Role]:
    return [message.role for message in recalled.conversation.messages]


def _present(entries: Sequence[Entry]) -> dict[int, Injected]:
    return {passage.key: passage for entry in entries for passage in entry.passages}


def without(entries: Sequence[Entry], gone: Collection[int], last_number: int = 0) -> list[Entry]:
    """The entries without the passages that are gone, or whose number an earlier one has by now.

    For a question that was asked again, and found other passages, stands in the place of what it was before.
    """
    left = []
    for entry in entries:
        kept = tuple(
            passage for passage in entry.passages if passage.key not in gone and passage.number > last_number
        )
        last_number = max(last_number, entry.numbered_to)
        left.append(msgspec.structs.replace(entry, passages=kept))
    return left
