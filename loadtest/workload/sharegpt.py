"""ShareGPT-style entries: what people really asked a chat model, as dumps and fine-tuning sets hold it.

`{"id": "...", "conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}`; the list may also
be called `conversation` or `messages`, and its members may have `role` and `content`.

Consecutive messages of one side are one message, a blank line between them. The assistant's messages before the first
human one are dropped. An entry without a usable human message is skipped, with the reason: real dumps have thousands.
An entry of another shape is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from loadtest.workload.conversation import Conversation, Message, UserTurn

EXPECTED_ENTRY = (
    '{"id": "...", "conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}'
)

_Side = Literal["system", "user", "assistant"]
_SIDES: dict[str, _Side] = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
}


class _Said(msgspec.Struct, rename={"sender": "from"}):
    sender: str | None = None
    value: str | None = None
    role: str | None = None
    content: str | None = None


class _Entry(msgspec.Struct):
    id: str | int | None = None
    conversation_id: str | int | None = None
    conversations: tuple[_Said, ...] | None = None
    conversation: tuple[_Said, ...] | None = None
    messages: tuple[_Said, ...] | None = None


class Unusable(Exception):
    """The entry is well formed, but no conversation can be held from it; the message says why."""


_decode = msgspec.json.Decoder(_Entry).decode


def parse_entry(raw: bytes, default_id: str) -> tuple[Conversation, bool]:
    """The conversation, and whether an opening of the assistant's was dropped. Raises `ValueError`, or `Unusable`."""
    entry = _decode(raw)
    lists = [said for said in (entry.conversations, entry.conversation, entry.messages) if said is not None]
    if len(lists) != 1:
        raise ValueError(f"it has {len(lists) or 'none'} of 'conversations', 'conversation' and 'messages'")
    joined = _join(lists[0])
    first_user = next((index for index, (side, _) in enumerate(joined) if side == "user"), None)
    if first_user is None:
        raise Unusable("no human message")
    preamble = tuple(
        Message("system", text) for side, text in joined[:first_user] if side == "system" and text
    )
    opened = any(side == "assistant" for side, _ in joined[:first_user])
    conversation_id = next(
        (str(found) for found in (entry.id, entry.conversation_id) if found is not None), default_id
    )
    return Conversation(conversation_id, _turns(joined[first_user:]), preamble), opened


def _join(messages: Sequence[_Said]) -> list[tuple[_Side, str]]:
    joined: list[tuple[_Side, str]] = []
    for message in messages:
        sender = message.sender if message.sender is not None else message.role
        if sender is None:
            raise ValueError("a message without 'from' and without 'role'")
        side = _SIDES.get(sender.lower())
        if side is None:
            raise Unusable(f"a message from {sender[:40]!r}")
        text = (message.value if message.value is not None else message.content) or ""
        if joined and joined[-1][0] == side:
            text = "\n\n".join(part for part in (joined.pop()[1], text) if part)
        joined.append((side, text))
    return joined


def _turns(joined: Sequence[tuple[_Side, str]]) -> tuple[UserTurn, ...]:
    """Sides alternate in `joined`, which begins with the user."""
    turns: list[UserTurn] = []
    for side, text in joined:
        if side == "system":
            raise Unusable("a system message after the first human message")
        if side == "assistant":
            turns[-1] = UserTurn(turns[-1].user, text)
        elif text.strip():
            turns.append(UserTurn(text))
        else:
            raise Unusable("a human message is empty")
    return tuple(turns)
