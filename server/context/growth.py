"""How one turn's prompt grows out of its ledger, and what it sheds when it grows too long or too dear."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from itertools import takewhile

import msgspec

from retrieval.types import Passage
from server.context.compact import pays_off, shed_passages, shed_turns
from server.context.draft import Draft, Drafter
from server.context.entry import Entry, Injected, pack
from server.context.foreign import Foreign
from server.context.ledger import Recalled
from server.context.prompt import Compaction, too_long
from server.context.question import IN_VAIN_COST, TYPING_IN_VAIN_COST, Prefilled, Question, Questions
from server.context.wanted import Wanted
from server.sections.context import ContextSettings
from server.sections.prompt import PromptSettings

_EXPECTED_REPLY_TOKENS = 100
_LEAST_SHED_SHARE = 0.1
"""Of a prompt: to shed less than this is never worth a new prefill."""

ExpectedPrefill = Callable[[Sequence[int]], int]
"""How many of these prompt tokens the engine would have to compute."""


@dataclass(frozen=True, slots=True)
class Means:
    """What every turn's prompt is made with."""

    drafter: Drafter
    foreign: Foreign
    questions: Questions
    prompt: PromptSettings
    context: ContextSettings


@dataclass(frozen=True, slots=True)
class Grown:
    question: Question | None
    """None where the question was asked before, and tools are answering it."""
    draft: Draft


class Growth:
    def __init__(self, means: Means, recalled: Recalled, wanted: Wanted) -> None:
        self._means = means
        self._recalled = recalled
        self._wanted = wanted
        self._roles = [message.role for message in recalled.conversation.messages]

    def history(self) -> list[Entry] | None:
        """One entry for each message ahead of the question: as the ledger or a guess has it, or made anew."""
        asked_at = self._recalled.conversation.asked_at
        known = self._recalled.entries[:asked_at]
        if self._wanted.guess is not None and self._wanted.guess.history is not None:
            known = self._wanted.guess.history
        rest = self._means.foreign.entries(
            self._recalled.conversation.history[len(known) :], after_dropped=bool(known) and known[-1].dropped
        )
        return None if rest is None else [*without(known, self._wanted.gone), *rest]

    def append(
        self,
        history: Sequence[Entry],
        passages: Sequence[Passage] | None = None,
        *,
        bare: bool = False,
    ) -> Grown | None:
        """`bare`: without the passages of a question that was asked before, too."""
        conversation = self._recalled.conversation
        asked_at = conversation.asked_at
        known = self._recalled.entries[asked_at] if len(self._recalled.entries) > asked_at else None
        question: Question | None = None
        if known is not None and conversation.tail and not known.dropped:
            last = max((entry.numbered_to for entry in history), default=0)
            (entry,) = without([known], self._wanted.gone, last)
            entry = msgspec.structs.replace(entry, passages=()) if bare else entry
        else:
            question = self._means.questions.make(
                conversation.question,
                self._wanted.passages if passages is None else passages,
                history,
                self._prefilled(known),
                TYPING_IN_VAIN_COST if self._wanted.typing else IN_VAIN_COST,
                self._wanted.arranged or self._wanted.passages,
                self._means.prompt.nothing_found if self._wanted.nothing_found else "",
            )
            entry = question.entry
            if known is not None and not history:
                entry = msgspec.structs.replace(entry, opening=known.opening)
        tail = self._tail()
        if tail is None:
            return None
        entries = [*history, entry, *tail]
        draft = self._means.drafter.draft(
            entries,
            self._roles,
            asked_at,
            conversation.system or self._means.prompt.system,
            self._wanted.tools,
        )
        return None if draft is None else Grown(question, draft)

    def _tail(self) -> list[Entry] | None:
        """What came of the question so far: the model's tool calls and their answers."""
        asked_at, tail = self._recalled.conversation.asked_at, self._recalled.conversation.tail
        # A later turn may have dropped what this one is about.
        entries = list(takewhile(lambda entry: not entry.dropped, self._recalled.entries[asked_at + 1 :]))
        for message in tail[len(entries) :]:
            content = self._means.foreign.content(message)
            if content is None:
                return None
            entries.append(Entry(pack(content)))
        return entries

    def _prefilled(self, known: Entry | None) -> Prefilled:
        """A guess, or what stood ahead of the same question when it was asked before."""
        if self._wanted.guess is not None and self._wanted.guess.passages:
            ready: list[tuple[Injected, Passage | None]] = []
            for there, passage in self._wanted.guess.passages:
                if not self._wanted.gone.isdisjoint(there.keys):
                    break
                ready.append((there, passage))
            return ready
        if known is None:
            return ()
        found = {passage.key: passage for passage in self._wanted.passages}
        return [
            (there, next((found[key] for key in there.keys if key in found), None))
            for there in takewhile(lambda there: self._wanted.gone.isdisjoint(there.keys), known.passages)
        ]

    def fit(self, history: Sequence[Entry], grown: Grown, budget: int) -> Grown:
        """Compact the history, and leave passages out when even without it they are too many."""
        keys = {passage.key for passage in self._wanted.passages}
        target = int(budget * self._means.context.compact_to)
        passages = list(self._wanted.passages)
        left = shed_passages(history, self._roles, keys, len(grown.draft.token_ids) - target)
        bare = False
        while True:
            again = self.append(left, passages, bare=bare)
            if again is None:  # the template renders no such conversation: begin it with the question
                left = shed_turns(left, self._roles, 2**31)
                again = self.append(left, passages, bare=bare)
            size = budget + 1 if again is None else len(again.draft.token_ids)
            if again is not None and size <= budget:
                return again
            if not all(entry.dropped for entry in left):
                left = shed_turns(left, self._roles, size - target)
            elif passages:
                passages.pop()
            elif not bare:
                bare = True
            else:
                raise too_long(str(size), self._wanted.max_model_len, budget)

    def cheaper(
        self, history: Sequence[Entry], grown: Grown, expected_prefill: ExpectedPrefill
    ) -> tuple[Compaction, Grown] | None:
        """The prompt without the passages that are out of use, if that costs less in the long run."""
        keys = {passage.key for passage in self._wanted.passages}
        left = shed_passages(history, self._roles, keys)
        if left == list(history):
            return None
        tokens = len(grown.draft.token_ids)
        shorter = self.append(left)
        if shorter is None or tokens - len(shorter.draft.token_ids) < _LEAST_SHED_SHARE * tokens:
            return None
        to_compute = expected_prefill(grown.draft.token_ids)
        cold = to_compute > tokens // 2
        if not pays_off(
            appended=(to_compute, tokens),
            compacted=(expected_prefill(shorter.draft.token_ids), len(shorter.draft.token_ids)),
            tokens_a_turn=tokens - grown.draft.history_tokens + _EXPECTED_REPLY_TOKENS,
            attention_cost=self._means.context.attention_cost,
            typing=self._wanted.typing,
        ):
            return None
        return ("cold" if cold else "typing" if self._wanted.typing else "worth"), shorter


def without(entries: Sequence[Entry], gone: Set[int], last_number: int = 0) -> list[Entry]:
    """The entries without the passages that are gone, or whose number an earlier one has by now.

    For a question that was asked again, and found other passages, stands in the place of what it was before.
    """
    left = []
    for entry in entries:
        kept = tuple(
            passage
            for passage in entry.passages
            if gone.isdisjoint(passage.keys) and passage.number > last_number
        )
        last_number = max(last_number, entry.numbered_to)
        left.append(msgspec.structs.replace(entry, passages=kept))
    return left
