"""The prompt as others build it: anew on each turn, passages of earlier turns not in it.

For templates whose prompts cannot grow, and to compare with: `system` is the usual layout, `user` the other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from retrieval.types import Passage
from server.context.conversation import Conversation
from server.context.prompt import Prompt, numbered, passage_line, room_for_prompt, too_long
from server.context.template import ChatTemplate, Message
from server.sections.prompt import PromptSettings


class Rebuild:
    def __init__(
        self, template: ChatTemplate, settings: PromptSettings, passages_in: Literal["system", "user"]
    ) -> None:
        self._template = template
        self._settings = settings
        self._passages_in = passages_in

    def assemble(
        self,
        conversation: Conversation,
        passages: Sequence[Passage],
        max_tokens: int,
        max_model_len: int,
        tools: Sequence[dict[str, Any]] = (),
        note: str = "",
    ) -> Prompt:
        """Fit the prompt into the context: the oldest turns go first, then the last passages.

        Raises `ContextTooLong` when system message and question alone do not fit.
        """
        budget = room_for_prompt(max_model_len, max_tokens)
        at_least = self._template.least_tokens(conversation.question + (conversation.system or ""))
        if at_least > budget:
            raise too_long(f"at least {at_least}", max_model_len, budget)
        history = self._recent(conversation.history)
        kept = list(passages)
        while True:
            token_ids = self._render(conversation, history, kept, tools, note)
            if len(token_ids) <= budget:
                room = max_model_len - len(token_ids)
                return Prompt(token_ids, numbered(kept), min(max_tokens, room))
            if history:
                history = without_oldest_turn(history)
            elif kept:
                kept.pop()
            else:
                raise too_long(str(len(token_ids)), max_model_len, budget)

    def _recent(self, history: Sequence[Message]) -> list[Message]:
        """The latest turns that fit `max_history_tokens`, whole turns only."""
        room = self._settings.max_history_tokens
        for first in reversed(range(len(history))):
            text = history[first].content
            if self._template.least_tokens(text) > room:
                room = -1
            else:
                room -= self._template.count_tokens(text)
            if room < 0:
                return without_oldest_turn(history[first:])
        return list(history)

    def _render(
        self,
        conversation: Conversation,
        history: Sequence[Message],
        passages: Sequence[Passage],
        tools: Sequence[dict[str, Any]],
        note: str,
    ) -> list[int]:
        layout = self._settings
        system, question = conversation.system or layout.system, conversation.question
        if passages:
            lines = [passage_line(number, passage, layout) for number, passage in enumerate(passages, 1)]
            shown = "\n".join([layout.passages_header, *lines])
            if self._passages_in == "system":
                system = f"{system}\n\n{shown}"
            else:
                question = f"{shown}\n\n{layout.question_header}{question}{layout.question_footer}"
        if note:
            question = f"{question}\n{note}"
        return self._template.render(
            [Message("system", system), *history, Message("user", question), *conversation.tail], tools
        )


def without_oldest_turn(history: Sequence[Message]) -> list[Message]:
    """Drop up to the next user message, so that what is left begins with one."""
    rest = list(history[1:])
    while rest and rest[0].role != "user":
        rest.pop(0)
    return rest
