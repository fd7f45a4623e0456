"""Conversation and passages become the prompt's token ids, within the context budget.

The layout: system, earlier turns, then the user's turn with the passages ahead of the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from retrieval.types import Passage
from server.context.ledger import Conversation
from server.context.template import ChatTemplate, Message
from server.errors import ContextTooLong
from server.settings import PromptSettings


@dataclass(frozen=True, slots=True)
class Prompt:
    token_ids: list[int]
    passages: tuple[Passage, ...]
    """Those that are in the prompt, best first."""
    max_tokens: int
    """Room for the answer: what was asked for, or what the context leaves."""


class Assembler:
    def __init__(self, template: ChatTemplate, settings: PromptSettings) -> None:
        self._template = template
        self._settings = settings

    def assemble(
        self,
        conversation: Conversation,
        passages: Sequence[Passage],
        max_tokens: int,
        max_model_len: int,
        tools: Sequence[dict[str, Any]] = (),
    ) -> Prompt:
        """Fit the prompt into the context: the oldest turns go first, then the last passages.

        Raises `ContextTooLong` when system message and question alone do not fit.
        """
        budget = max_model_len - min(max_tokens, max_model_len // 4)
        at_least = self._template.least_tokens(conversation.question + (conversation.system or ""))
        if at_least > budget:
            raise _too_long(f"at least {at_least}", max_model_len, budget)
        history = self._recent(conversation.history)
        kept = list(passages)
        while True:
            token_ids = self._render(conversation, history, kept, tools)
            if len(token_ids) <= budget:
                room = max_model_len - len(token_ids)
                return Prompt(token_ids, tuple(kept), min(max_tokens, room))
            if history:
                history = _without_oldest_turn(history)
            elif kept:
                kept.pop()
            else:
                raise _too_long(str(len(token_ids)), max_model_len, budget)

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
                return _without_oldest_turn(history[first:])
        return list(history)

    def _render(
        self,
        conversation: Conversation,
        history: Sequence[Message],
        passages: Sequence[Passage],
        tools: Sequence[dict[str, Any]],
    ) -> list[int]:
        return self._template.render(
            [
                Message("system", conversation.system or self._settings.system),
                *history,
                Message("user", self._user_turn(conversation.question, passages)),
                *conversation.tail,
            ],
            tools,
        )

    def _user_turn(self, question: str, passages: Sequence[Passage]) -> str:
        if not passages:
            return question
        layout = self._settings
        numbered = (f"[{number}] {_text(passage)}" for number, passage in enumerate(passages, start=1))
        return "\n".join(
            [
                layout.passages_header,
                *numbered,
                "",
                layout.question_header + question + layout.question_footer,
            ]
        )


def _too_long(tokens: str, max_model_len: int, budget: int) -> ContextTooLong:
    return ContextTooLong(
        f"the messages come to {tokens} tokens; this model's context of {max_model_len} "
        f"leaves {budget} for a prompt. Shorten the question or the system message",
        param="messages",
    )


def _text(passage: Passage) -> str:
    path = " > ".join(passage.heading_path)
    return f"{path}: {passage.text}" if path else passage.text


def _without_oldest_turn(history: Sequence[Message]) -> list[Message]:
    """Drop up to the next user message, so that what is left begins with one."""
    rest = list(history[1:])
    while rest and rest[0].role != "user":
        rest.pop(0)
    return rest
