"""What is asked: conversations, read from a file.

| suffix | a line is |
| --- | --- |
| `.txt` | one question: a conversation of one turn |
| `.jsonl`, `.ndjson` | `{"question": "..."}`: a conversation of one turn |
| | `{"id": "...", "turns": [{"user": "...", "agent": "..."}, ...]}`: `id` and `agent` (the reference reply) may be absent |
| | `{"messages": [{"role": "...", "content": "..."}, ...]}`: system messages open the conversation, every user message is a turn |

A reference reply is never sent: the history holds what the model under test really answered. Blank lines are skipped,
other keys are ignored. A line that cannot be used is an error, never left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from loadtest.errors import WorkloadError

EXPECTED = (
    '{"question": "..."}, {"id": "...", "turns": [{"user": "..."}, ...]} '
    'or {"messages": [{"role": "user", "content": "..."}, ...]}'
)

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_BOM = b"\xef\xbb\xbf"


class Message(msgspec.Struct, frozen=True):
    """One message of a chat request."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str


class UserTurn(msgspec.Struct, frozen=True):
    """What the user says, and the data set's own reply to it, which is never sent."""

    user: _Text
    agent: str | None = None


class Conversation(msgspec.Struct, frozen=True):
    """Turns that depend on each other; `preamble` stands before the first of them."""

    conversation_id: str
    turns: tuple[UserTurn, ...]
    preamble: tuple[Message, ...] = ()


class _QuestionLine(msgspec.Struct):
    question: _Text
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


def read_workload(path: Path) -> list[Conversation]:
    """All conversations of a file, in order. Raises `WorkloadError` naming the file, the line and what was expected."""
    suffix = path.suffix.lower()
    if suffix not in (".txt", ".jsonl", ".ndjson"):
        raise WorkloadError(
            f"{path}: unknown kind of workload {suffix or '(no suffix)'!r}. Use .txt with one question per line, or .jsonl."
        )
    try:
        lines = path.read_bytes().removeprefix(_BOM).split(b"\n")
    except OSError as error:
        raise WorkloadError(f"{path}: {error.strerror or error}. Name a file that can be read.") from error
    parse = _parse_question if suffix == ".txt" else _parse_json
    conversations = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            conversations.append(parse(line, f"line-{number}"))
        except (ValueError, RecursionError) as error:
            expected = "one question per line, in UTF-8" if suffix == ".txt" else EXPECTED
            raise WorkloadError(f"{path}:{number}: {error}. Expected {expected}.") from error
    if not conversations:
        raise WorkloadError(f"{path}: no turns in it. Give it at least one question.")
    return conversations


def _parse_question(line: bytes, default_id: str) -> Conversation:
    return Conversation(default_id, (UserTurn(line.decode().strip()),))


def _parse_json(line: bytes, default_id: str) -> Conversation:
    """Raises `ValueError`, of which msgspec's and Unicode's errors are kinds."""
    fields = msgspec.json.decode(line)
    if not isinstance(fields, dict):
        raise ValueError(f"a {type(fields).__name__}, not an object")
    kinds = [key for key in _LINE_TYPES if key in fields]
    if len(kinds) != 1:
        raise ValueError(f"it has {' and '.join(map(repr, kinds)) or 'none of the keys'}")
    parsed = msgspec.convert(fields, _LINE_TYPES[kinds[0]])
    conversation_id = default_id if parsed.id is None else str(parsed.id)
    if isinstance(parsed, _QuestionLine):
        return Conversation(conversation_id, (UserTurn(parsed.question),))
    if isinstance(parsed, _TurnsLine):
        return Conversation(conversation_id, parsed.turns)
    return _from_messages(conversation_id, parsed.messages)


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
