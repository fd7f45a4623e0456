"""Ledger + new passages + question → token ids, within the context budget.

A prompt only grows: what was in it stays where it is, passages that are new to it stand ahead of the question, and
those that it holds already are pointed to by their numbers. It sheds what is old when it must, or when that is
cheap (`compact.py`); passages that were deleted or changed leave it at once.
"""

from __future__ import annotations

from server.context.compact import shed_passages
from server.context.draft import Draft, Drafter
from server.context.entry import Entry, by_key, n_tokens
from server.context.foreign import Foreign
from server.context.growth import ExpectedPrefill, Growth, Means
from server.context.joints import Joints
from server.context.ledger import Recalled
from server.context.prompt import Prompt, Usual, room_for_prompt, too_long
from server.context.question import Questions, cite
from server.context.rebuild import Rebuild
from server.context.template import ChatTemplate
from server.context.usual import usual_layout
from server.context.wanted import Wanted
from server.settings import Settings


class Assembler:
    def __init__(self, template: ChatTemplate, joints: Joints, settings: Settings) -> None:
        context = settings.context
        self._template = template
        self._means = Means(
            drafter=Drafter(template, joints, settings.prompt),
            foreign=Foreign(template, joints, settings.prompt.max_history_tokens),
            questions=Questions(template, settings.prompt),
            prompt=settings.prompt,
            context=context,
        )
        self._rebuild = Rebuild(template, settings.prompt, "system" if context.layout == "system" else "user")
        self._block_size = settings.engine.block_size
        self.grows = context.layout == "append" and joints.kind != "plain"
        """Whether prompts are append-only here; otherwise they are rebuilt on each turn."""

    def assemble(self, recalled: Recalled, wanted: Wanted, expected_prefill: ExpectedPrefill) -> Prompt:
        """Raises `ContextTooLong` when system message and question alone do not fit."""
        conversation = recalled.conversation
        room = room_for_prompt(wanted.max_model_len, wanted.max_tokens)
        budget = min(room, self._means.context.max_prompt_tokens or room)
        at_least = self._template.least_tokens(conversation.question + (conversation.system or ""))
        if at_least > budget:
            raise too_long(f"at least {at_least}", wanted.max_model_len, budget)
        prompt = self._grow(recalled, wanted, budget, expected_prefill) if self.grows else None
        return prompt or self._rebuild.assemble(
            conversation,
            wanted.passages,
            wanted.max_tokens,
            wanted.max_model_len,
            wanted.tools,
            self._means.prompt.nothing_found if wanted.nothing_found else "",
        )

    def history(self, recalled: Recalled, wanted: Wanted) -> list[int]:
        """The prompt as far as it does not depend on what the search will find; empty when all of it might."""
        conversation = recalled.conversation
        if not (self.grows and conversation.history):
            return []
        roles = [message.role for message in conversation.history]
        history = Growth(self._means, recalled, wanted).history()
        if history is None or history != shed_passages(history, roles, ()):
            return []
        draft = self._means.drafter.draft(
            [*history, Entry(b"")],
            [*roles, "user"],
            conversation.asked_at,
            conversation.system or self._means.prompt.system,
            wanted.tools,
        )
        return draft.token_ids[: draft.history_tokens] if draft else []

    def _grow(
        self, recalled: Recalled, wanted: Wanted, budget: int, expected_prefill: ExpectedPrefill
    ) -> Prompt | None:
        """None when the template has no stable rendering of these messages."""
        growth = Growth(self._means, recalled, wanted)
        history = growth.history()
        grown = growth.append(history) if history is not None else None
        if history is None or grown is None:
            return None
        compaction = wanted.guess.compaction if wanted.guess is not None else None
        if len(grown.draft.token_ids) > budget:
            compaction, grown = "full", growth.fit(history, grown, budget)
        elif shed := growth.cheaper(history, grown, expected_prefill):
            compaction, grown = shed
        draft, question = grown.draft, grown.question
        return Prompt(
            token_ids=draft.token_ids,
            citations=question.citations if question else cite(wanted.passages, by_key(draft.entries), ()),
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
        return draft.content_at + self._means.questions.settled_tokens(asked, recalled.conversation.question)

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
