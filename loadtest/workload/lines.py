"""A workload of lines: one question, or one conversation, on each.

| kind | a line is |
| --- | --- |
| `questions` | one question: a conversation of one turn |
| `conversations` | `{"question": "..."}`: a conversation of one turn |
| | `{"id": "...", "turns": [{"user": "...", "agent": "...", "max_tokens": 64, "think_s": 2.5}, ...]}`: only `user` is needed |
| | `{"messages": [{"role": "...", "content": "..."}, ...]}`: system messages open the conversation, every user message is a turn |

A reference reply (`agent`, or an assistant message) is never sent: the history holds what the model under test really
answered. Other keys are ignored. A line that cannot be used is an error, never left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec

from loadtest.workload.conversation import Conversation, Message, Text, UserTurn

EXPECTED_QUESTION = "one question per line, in UTF-8"
EXPECTED_LINE = (
    '{"question": "..."}, {"id": "...", "turns": [{"user": "..."}, ...]} '
    'or {"messages": [{"role": "user", "content": "..."}, ...]}'
)


class _QuestionLine(msgspec.Struct):
    question: Text
    id: str | int | None = None


class _TurnsLine(msgspec.Struct):
    turns: Annotated[tuple[UserTurn, ...], msgspec.Meta(min_length=1)]
    id: str | int | None = None


class _MessagesLine(msgspec.Struct):
    messages: Annotated[tuple[Message, ...], msgspec.Meta(min_length=1)]
    id: str | int | None = None


_LINE_TYPES: dict[str, type[_QuestionLine | _TurnsLine | _MessagesLine]] = {
    "question": _QuestionLine,
    "turns": _TurnsLine,
    "messages": _MessagesLine,
}


def numbered_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that hold anything, each with its number, counted from 1."""
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            yield number, line


def decode_object(line: bytes) -> dict[str, object]:
    """Raises `ValueError`, of which msgspec's and Unicode's errors are kinds."""
    fields = msgspec.json.decode(line)
    if not isinstance(fields, dict):
        raise ValueError(f"a {type(fields).__name__}, not an object")
    return fields


def parse_question(line: bytes, default_id: str) -> Conversation | None:
    """None for a line of white space that only Unicode knows."""
    question = line.decode().strip()
    return Conversation(default_id, (UserTurn(question),)) if question else None


def parse_conversation(line: bytes, default_id: str) -> Conversation:
    """Raises `ValueError`."""
    fields = decode_object(line)
    kinds = [key for key in _LINE_TYPES if key in fields]
    if len(kinds) != 1:
        raise ValueError(f"it has {' and '.join(map(repr, kinds)) or 'none of the keys'}")
    parsed = msgspec.convert(fields, _LINE_TYPES[kinds[0]])
    conversation_id = default_id if parsed.id is None else str(parsed.id)
    if isinstance(parsed, _QuestionLine):
        return Conversation(conversation_id, (UserTurn(parsed.question),))
    if isinstance(parsed, _TurnsLine):
        _check_turns(parsed.turns)
        return Conversation(conversation_id, parsed.turns)
    return _from_messages(conversation_id, parsed.messages)


def _check_turns(turns: tuple[UserTurn, ...]) -> None:
    for number, turn in enumerate(turns):
        if turn.max_tokens is not None and turn.max_tokens < 1:
            raise ValueError(f"`max_tokens` is {turn.max_tokens}, not at least 1 - at `$.turns[{number}]`")
        if turn.think_s is not None and turn.think_s < 0:
            raise ValueError(f"`think_s` is {turn.think_s:g}, not at least 0 - at `$.turns[{number}]`")


def _from_messages(conversation_id: str, messages: tuple[Message, ...]) -> Conversation:
    """Every user message is a turn; an assistant's is the reference reply to the turn before it."""
    preamble: list[Message] = []
    turns: list[UserTurn] = []
    for message in messages:
        if message.role in ("system", "developer"):
            if turns:
                raise ValueError(f"a {message.role} message after the first user message")
            preamble.append(message)
        elif message.role == "user":
            if not message.content:
                raise ValueError("a user message is empty")
            turns.append(UserTurn(message.content))
        elif not turns:
            raise ValueError("an assistant message before the first user message")
        else:
            turns[-1] = UserTurn(turns[-1].user, message.content)
    if not turns:
        raise ValueError("no user message, so no turn")
    return Conversation(conversation_id, tuple(turns), tuple(preamble))
