"""What was asked, said and found so far, and whether each prompt holds what therefore stands in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count, takewhile

from property.context_reference import (
    Held,
    Line,
    Shelf,
    Writer,
    lines,
    standing,
)
from server.context.assemble import Assembler
from server.context.entry import Entry, unpack
from server.context.joints import Joints
from server.context.ledger import Recalled
from server.context.prompt import Prompt
from server.context.template import ChatTemplate, Message
from server.context.wanted import Wanted
from server.errors import ContextTooLong
from server.settings import Settings


class Judge(Assembler):
    """The assembler, each of its prompts held against the reference."""

    def __init__(self, template: ChatTemplate, joints: Joints, settings: Settings, model: Model) -> None:
        super().__init__(template, joints, settings)
        self._model = model
        self._settings = settings

    def assemble(
        self, recalled: Recalled, wanted: Wanted, expected_prefill: Callable[[Sequence[int]], int]
    ) -> Prompt:
        ahead = self.history(recalled, wanted)
        try:
            prompt = super().assemble(recalled, wanted, expected_prefill)
        except ContextTooLong:
            self._model.check_too_long(recalled, wanted, self._settings)
            raise
        if prompt.compaction is None:
            assert prompt.token_ids[: len(ahead)] == ahead
        self._model.check(recalled, wanted, prompt, self._settings)
        return prompt


class Model:
    """What was asked, said and found so far, and what therefore stands in a prompt."""

    def __init__(self, writer: Writer, shelf: Shelf) -> None:
        self.writer = writer
        self.shelf = shelf
        self.root: Line = ()
        """Of the conversation whose turn it is."""
        self.held: dict[Line, tuple[int, Held]] = {}
        """With its version: a number for each time that any was written."""
        self.found: dict[Line, set[int]] = {}
        """Keys of what searches returned for a question, or ahead of it for what was typed after this line."""
        self.after: dict[Line, tuple[list[int], list[int]]] = {}
        """Prompt and reply up to this line, and the versions of all in it."""
        self.versions = count()
        self.typed: dict[tuple[Entry, ...], list[tuple[int, Held]]] = {}
        self.said: list[Held] = []
        """Of the last prompt."""
        self.forgets = False
        self.n_prompts = 0
        self.n_grown = 0

    def check_too_long(self, recalled: Recalled, wanted: Wanted, settings: Settings) -> None:
        conversation = recalled.conversation
        tail, asked_at = self._tail(recalled), conversation.asked_at
        content = self.writer.question(conversation.question, grounded=False)
        if tail and len(recalled.entries) > asked_at and not recalled.entries[asked_at].dropped:
            content = self.held[lines(self.root, conversation.messages)[asked_at]][1].content
        question = Held("user", content)
        least = self.writer.prompt(conversation.system, wanted.tools, [question, *tail])
        assert len(least) > _budget(wanted, settings), "system message, question and what came of it fit"

    def check(self, recalled: Recalled, wanted: Wanted, prompt: Prompt, settings: Settings) -> None:
        self.n_prompts += 1
        conversation, asked_at = recalled.conversation, recalled.conversation.asked_at
        places = lines(self.root, conversation.messages)
        before_question = places[asked_at - 1] if asked_at else self.root
        noted = before_question if wanted.typing else places[asked_at]
        self.found.setdefault(noted, set()).update(passage.key for passage in wanted.passages)
        assert prompt.entries, "the starter model's prompts grow"
        assert len(prompt.entries) == len(places)
        self._check_recalled(recalled, places)
        observed = [
            _observed(entry, said.role)
            for entry, said in zip(prompt.entries, conversation.messages, strict=True)
        ]

        due = self._due(recalled, wanted, settings, places)
        history = self._shed(due[:asked_at], observed[:asked_at], prompt, wanted)
        if asked_at < len(recalled.entries) and conversation.tail and not due[asked_at].dropped:
            question = due[asked_at]
            if prompt.compaction == "full" and not observed[asked_at].passages:
                assert all(held.dropped for held in history) or not question.passages
                question = replace(question, passages=())
        else:
            question = self._question(conversation.question, wanted, history, observed[asked_at], prompt)
        self.said = [*history, question, *due[asked_at + 1 :]]
        written = self.writer.prompt(conversation.system, wanted.tools, self.said)
        assert prompt.token_ids == written, (
            f"{self.writer.text(prompt.token_ids)}\n--- and not\n{self.writer.text(written)}"
        )
        self._check_passages(places, prompt)
        self._check_sizes(wanted, prompt, settings)
        self._check_prefix(recalled, wanted, prompt, places)
        if wanted.typing:
            self.typed[prompt.entries[:asked_at]] = [(0, held) for held in history]

    def _check_recalled(self, recalled: Recalled, places: Sequence[Line]) -> None:
        """Each is what was last committed under its line; without eviction all is found."""
        known = next((n for n, place in enumerate(places) if place not in self.held), len(places))
        assert len(recalled.entries) <= known
        assert self.forgets or len(recalled.entries) == known
        for entry, place in zip(recalled.entries, places, strict=False):
            assert _observed(entry, self.held[place][1].role) == self.held[place][1]

    def _due(
        self, recalled: Recalled, wanted: Wanted, settings: Settings, places: Sequence[Line]
    ) -> list[Held]:
        """All messages as nothing but deletions has changed them; the question is a placeholder unless it is kept."""
        conversation, asked_at = recalled.conversation, recalled.conversation.asked_at
        known = [self.held[place][1] for place in places[: len(recalled.entries)]]
        history, later = known[:asked_at], known[asked_at:]
        if wanted.guess is not None and wanted.guess.history is not None:
            history = [held for _, held in self.typed[wanted.guess.history]]
        history += self.writer.foreign_history(
            history, conversation.history[len(history) :], settings.prompt.max_history_tokens
        )
        question = later[0] if later else Held("user")
        return standing([*history, question, *self._tail(recalled)], self.shelf)

    def _tail(self, recalled: Recalled) -> list[Held]:
        conversation = recalled.conversation
        after = conversation.asked_at + 1
        places = lines(self.root, conversation.messages)
        known = [self.held[place][1] for place in places[after : len(recalled.entries)]]
        known = list(takewhile(lambda held: not held.dropped, known))
        return known + [self.writer.foreign(message) for message in conversation.tail[len(known) :]]

    def _shed(
        self, due: Sequence[Held], observed: Sequence[Held], prompt: Prompt, wanted: Wanted
    ) -> list[Held]:
        """What is due, less what a compaction may shed and did."""
        if prompt.compaction is None:
            assert list(observed) == list(due)
            return list(due)
        there = [n for n, held in enumerate(due) if not held.dropped]
        dropped = [n for n in there if observed[n].dropped]
        assert there[: len(dropped)] == dropped, "older turns go first"
        assert dropped in ([], there) or due[there[len(dropped)]].role == "user", "turns go whole"
        assert prompt.compaction == "full" or not dropped
        keys = {passage.key for passage in wanted.passages}
        left = []
        for mine, its in zip(due, observed, strict=True):
            if its.dropped:
                left.append(Held(mine.role, numbered_to=mine.numbered_to, dropped=True))
                continue
            assert not mine.dropped
            shed = [there for there in mine.passages if there not in its.passages]
            assert not {key for _, key in shed} & keys, "what is wanted was shed"
            assert [there for there in mine.passages if there not in shed] == list(its.passages)
            left.append(replace(mine, passages=its.passages))
        return left

    def _question(
        self, text: str, wanted: Wanted, history: Sequence[Held], observed: Held, prompt: Prompt
    ) -> Held:
        """As observed, if it is what it may be."""
        present = {key: number for held in history for number, key in held.passages}
        asked = [passage.key for passage in wanted.passages]
        stands = [key for _, key in observed.passages]
        if prompt.compaction == "full":
            n_kept = next(
                (n for n, key in enumerate(asked) if key not in present and key not in stands), None
            )
            if n_kept is not None:  # only the worst are left out, and only when there is no history left
                assert all(held.dropped for held in history)
                asked = asked[:n_kept]
        assert {key for key in asked if key not in present} <= set(stands)
        assert not set(stands) & set(present)
        last = max((held.numbered_to for held in history), default=0)
        assert [number for number, _ in observed.passages] == list(range(last + 1, last + 1 + len(stands)))
        pointed = tuple(present[key] for key in asked if key in present)
        cited = [(citation.number, citation.passage.key) for citation in prompt.citations]
        number_of = present | {key: number for number, key in observed.passages}
        assert cited[: len(asked)] == [(number_of[key], key) for key in asked]
        assert sorted(cited[len(asked) :]) == [there for there in observed.passages if there[1] not in asked]
        assert [(there.number, passage.key) for there, passage in prompt.injected] == list(observed.passages)
        content = self.writer.question(text, grounded=bool(stands or pointed))
        return Held("user", content, observed.passages, pointed, last + len(stands))

    def _check_passages(self, places: Sequence[Line], prompt: Prompt) -> None:
        """Each was found by this conversation, is as the document is now, and has a number of its own."""
        found = set(self.found.get(self.root, ()))
        numbers: list[int] = []
        for place, held in zip(places, self.said, strict=True):
            found |= self.found.get(place, set())
            for number, key in held.passages:
                assert key in self.shelf.texts
                assert key in found, "a passage that this conversation never found"
                numbers.append(number)
        assert len(set(numbers)) == len(numbers), f"numbers twice in a prompt: {numbers}"

    def _check_sizes(self, wanted: Wanted, prompt: Prompt, settings: Settings) -> None:
        size = len(prompt.token_ids)
        assert size <= _budget(wanted, settings)
        assert 1 <= prompt.max_tokens <= wanted.max_tokens
        assert size + prompt.max_tokens <= wanted.max_model_len
        assert 0 < prompt.history_tokens <= prompt.ahead_tokens <= size
        assert prompt.usual is not None
        assert 0 < prompt.usual.computed_tokens <= prompt.usual.prompt_tokens

    def _check_prefix(
        self, recalled: Recalled, wanted: Wanted, prompt: Prompt, places: Sequence[Line]
    ) -> None:
        """It begins with the turn before, unless something that we know of stands against it."""
        roles = [message.role for message in recalled.conversation.messages]
        replied = next((n for n in reversed(range(len(roles))) if roles[n] == "assistant"), None)
        if replied is None or (before := self.after.get(places[replied])) is None:
            return
        token_ids, versions = before
        if len(recalled.entries) <= replied or prompt.compaction is not None:
            return
        held = [self.held[place] for place in places[: replied + 1]]
        shed_while_typing = (
            wanted.guess is not None
            and wanted.guess.history is not None
            and [here for _, here in self.typed[wanted.guess.history]]
            != [here for _, here in held[: recalled.conversation.asked_at]]
        )
        known = [here for _, here in held]
        if shed_while_typing or versions != [version for version, _ in held]:
            return
        if standing(known, self.shelf) == known:
            assert prompt.token_ids[: len(token_ids)] == token_ids
            self.n_grown += 1

    def commit(
        self, messages: Sequence[Message], prompt: Prompt, replies: Sequence[tuple[Message, Held]]
    ) -> None:
        places = lines(self.root, messages)
        for place, held in zip(places, self.said, strict=True):
            if place not in self.held or self.held[place][1] != held:
                self.held[place] = (next(self.versions), held)
        versions = [self.held[place][0] for place in places]
        for message, held in replies:
            (place,) = lines(places[-1], [message])
            if place not in self.held or self.held[place][1] != held:
                self.held[place] = (next(self.versions), held)
            self.after[place] = (
                [*prompt.token_ids, *held.content],
                [*versions, self.held[place][0]],
            )


def _observed(entry: Entry, role: str) -> Held:
    passages = tuple((there.number, there.key) for there in entry.passages)
    return Held(role, tuple(unpack(entry.content)), passages, entry.pointed, entry.numbered_to, entry.dropped)


def _budget(wanted: Wanted, settings: Settings) -> int:
    room = wanted.max_model_len - min(wanted.max_tokens, wanted.max_model_len // 4)
    return min(room, settings.context.max_prompt_tokens or room)
