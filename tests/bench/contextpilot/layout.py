"""Plain layouts of a turn's prompt. None drops a turn: all hold the whole conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.contextpilot.conversation import Conversation, Passage, Turn
from bench.contextpilot.request import Request
from server.context.template import Message
from server.sections.prompt import PromptSettings

Layout = Callable[[Conversation, int], tuple[Message, ...]]
"""A conversation's messages up to the question of a turn, counted from 0."""

_WORDS = PromptSettings()


def system_message(conversation: Conversation, turn: int) -> tuple[Message, ...]:
    """The turn's passages in the system message: the usual layout."""
    asked = conversation.turns[turn]
    system = f"{_WORDS.system}\n\n{_passages(asked.passages)}"
    return (Message("system", system), *as_said(conversation.turns[:turn]), Message("user", asked.question))


def last_user_message(conversation: Conversation, turn: int) -> tuple[Message, ...]:
    """The turn's passages ahead of its question; earlier turns without theirs."""
    return (
        Message("system", _WORDS.system),
        *as_said(conversation.turns[:turn]),
        Message("user", _user_turn(conversation.turns[turn], conversation.turns[turn].passages)),
    )


def append_only(conversation: Conversation, turn: int) -> tuple[Message, ...]:
    """Ahead of each question the passages that no turn before had; earlier turns as they were sent."""
    messages = [Message("system", _WORDS.system)]
    had: set[str] = set()
    for place, told in enumerate(conversation.turns[: turn + 1]):
        new = [passage for passage in told.passages if passage.id not in had]
        had.update(passage.id for passage in new)
        messages.append(Message("user", _user_turn(told, new)))
        if place < turn:
            messages.append(Message("assistant", told.reply))
    return tuple(messages)


LAYOUTS: dict[str, Layout] = {
    "passages in the system message": system_message,
    "passages in the last user message": last_user_message,
    "append-only": append_only,
}


def requests_of(layout: Layout, conversations: Sequence[Conversation]) -> list[Request]:
    """One conversation after another."""
    return [
        Request(place, turn, layout(conversation, turn))
        for place, conversation in enumerate(conversations)
        for turn in range(len(conversation.turns))
    ]


def as_said(turns: Sequence[Turn]) -> list[Message]:
    return [
        message
        for turn in turns
        for message in (Message("user", turn.question), Message("assistant", turn.reply))
    ]


def _user_turn(turn: Turn, passages: Sequence[Passage]) -> str:
    if not passages:
        return turn.question
    question = _WORDS.question_header + turn.question + _WORDS.question_footer
    return f"{_passages(passages)}\n\n{question}"


def _passages(passages: Sequence[Passage]) -> str:
    numbered = (f"[{number}] {passage.text}" for number, passage in enumerate(passages, start=1))
    return "\n".join([_WORDS.passages_header, *numbered])
