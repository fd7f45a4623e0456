"""The question as an entry: which passages stand ahead of it, in what order, and which are only pointed to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retrieval.types import Passage
from server.context.entry import Entry, Injected, Retrieved, by_key, n_tokens, pack, unpack
from server.context.prompt import Citation, passage_line
from server.context.template import ChatTemplate
from server.sections.prompt import PromptSettings

IN_VAIN_COST = 1.0
"""Of a prefilled token that turned out not to be wanted and stays, against one that is computed again."""
TYPING_IN_VAIN_COST = 3.0
"""While nobody waits yet."""

Prefilled = Sequence[tuple[Injected, Passage | None]]
"""Passages that were prefilled in this order; where the passage is not told, it stays only if it is wanted."""


@dataclass(frozen=True, slots=True)
class Question:
    entry: Entry
    citations: tuple[Citation, ...]
    """Those that the search found, best first; then those that a guess left in the prompt."""
    injected: tuple[tuple[Injected, Passage], ...]


class Questions:
    def __init__(self, template: ChatTemplate, settings: PromptSettings) -> None:
        self._template = template
        self._settings = settings

    def make(
        self,
        text: str,
        wanted: Sequence[Passage],
        history: Sequence[Entry],
        prefilled: Prefilled,
        in_vain_cost: float,
        arranged: Sequence[Passage],
        note: str = "",
    ) -> Question:
        """`wanted` is best first; `arranged` holds the same in the order in which they are to stand.

        A `note` follows the question, so that what was prefilled of it while it was typed stays.
        """
        present = by_key(history)
        new = [passage for passage in wanted if passage.key not in present]
        last = max((entry.numbered_to for entry in history), default=0)
        injected = keep_prefilled(prefilled, new, last, in_vain_cost)
        ready = {key for there, _ in injected for key in there.keys}
        missing = {passage.key for passage in new} - ready
        for passage in arranged:
            if passage.key not in missing:
                continue
            number = last + len(injected) + 1
            line = self._template.encode(passage_line(number, passage, self._settings) + "\n")
            injected.append(
                (Injected(number, passage.key, passage.chunk_id, pack(line), passage.also), passage)
            )
        here = {key: there for there, _ in injected for key in there.keys}
        pointed = tuple(
            dict.fromkeys(present[passage.key].number for passage in wanted if passage.key in present)
        )
        entry = Entry(
            content=pack(
                self._template.encode(
                    self._worded(text + (f"\n{note}" if note else ""), grounded=bool(injected or pointed))
                )
            ),
            passages=tuple(there for there, _ in injected),
            pointed=pointed,
            numbered_to=last + len(injected),
            retrieved=tuple(
                Retrieved(passage.chunk_id, n_tokens((present | here)[passage.key].tokens))
                for passage in wanted
            ),
        )
        return Question(entry, cite(wanted, present | here, injected), tuple(injected))

    def settled_tokens(self, entry: Entry, text: str) -> int:
        """How many tokens of the entry's content stay as they are when `text`, the question so far, is typed on."""
        said = text[: len(text) - len(text.split()[-1])].rstrip()
        grounded = bool(entry.passages or entry.pointed)
        begun = self._template.encode(f"\n{self._settings.question_header}{said}" if grounded else said)
        pairs = zip(begun, unpack(entry.content), strict=False)
        return next((at for at, (mine, its) in enumerate(pairs) if mine != its), len(begun))

    def _worded(self, text: str, *, grounded: bool) -> str:
        layout = self._settings
        return f"\n{layout.question_header}{text}{layout.question_footer}" if grounded else text


def keep_prefilled(
    prefilled: Prefilled, new: Sequence[Passage], last_number: int, in_vain_cost: float = IN_VAIN_COST
) -> list[tuple[Injected, Passage]]:
    """The leading part of what is prefilled that is worth keeping: all that is still wanted in it need not be computed."""
    wanted = {passage.key: passage for passage in new}
    gain, best_gain, best = 0.0, 0.0, 0
    for position, (there, passage) in enumerate(prefilled):
        if there.number != last_number + position + 1:
            break
        tokens = n_tokens(there.tokens)
        if not wanted.keys().isdisjoint(there.keys):
            gain += tokens
        elif passage is None:
            break
        else:
            gain -= in_vain_cost * tokens
        if gain > best_gain:
            best_gain, best = gain, position + 1
    found = [(there, _as_prefilled(there, passage, wanted)) for there, passage in prefilled[:best]]
    return [(there, passage) for there, passage in found if passage is not None]


def _as_prefilled(there: Injected, passage: Passage | None, wanted: dict[int, Passage]) -> Passage | None:
    """As the search found it now; of merged chunks, whose text is all in the prompt, as they were merged."""
    found = next((wanted[key] for key in there.keys if key in wanted), None)
    if found is None or (passage is not None and passage.also and not found.also):
        return passage
    return found


def cite(
    wanted: Sequence[Passage],
    there: dict[int, Injected],
    injected: Sequence[tuple[Injected, Passage]],
) -> tuple[Citation, ...]:
    asked = {passage.key for passage in wanted}
    found = [Citation(there[passage.key].number, passage) for passage in wanted if passage.key in there]
    found = list({citation.number: citation for citation in reversed(found)}.values())[::-1]
    left = [Citation(place.number, passage) for place, passage in injected if asked.isdisjoint(place.keys)]
    return (*found, *left)
