"""What a conversation holds, read from the messages that the client sent back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retrieval.types import Query
from server.context.template import Message
from server.errors import InvalidParameter

_LONGEST_QUERY_CHARACTERS = 4_000
"""More than embedders read, which take in some hundred tokens; what was said last counts."""
_MOST_MESSAGES = 8


@dataclass(frozen=True, slots=True)
class Conversation:
    system: str | None
    """The client's own system message, if it sent one."""
    history: tuple[Message, ...]
    """User and assistant messages before the question, oldest first."""
    question: str
    tail: tuple[Message, ...] = ()
    """What came of the question so far: the assistant's tool calls and the tools' answers."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """All but the system message, oldest first."""
        return (*self.history, Message("user", self.question), *self.tail)

    @property
    def asked_at(self) -> int:
        """Where the question stands among the messages."""
        return len(self.history)

    @property
    def turn(self) -> int:
        """Which turn this is, counted from 1."""
        return 1 + sum(message.role == "user" for message in self.history)

    @property
    def query(self) -> Query:
        """What the user said, for the search: follow-up questions rarely name their subject."""
        asked = [message.content for message in self.history if message.role == "user"]
        replies = [message.content for message in self.history if message.role == "assistant"]
        return Query(
            self.question[-_LONGEST_QUERY_CHARACTERS:],
            tuple(text[-_LONGEST_QUERY_CHARACTERS:] for text in asked[-_MOST_MESSAGES:]),
            replies[-1][:_LONGEST_QUERY_CHARACTERS] if replies else "",
        )


def read_conversation(messages: Sequence[Message]) -> Conversation:
    """Raises `InvalidParameter` unless the last message is the user's and not blank, or a tool's."""
    last = len(messages) - 1
    if messages[last].role not in ("user", "tool"):
        raise InvalidParameter(
            f"the last message must have the role 'user' or 'tool', not {messages[last].role!r}",
            param=f"messages[{last}].role",
        )
    asked = next((at for at in range(last, -1, -1) if messages[at].role == "user"), None)
    if asked is None:
        raise InvalidParameter("there is no message with the role 'user'", param="messages")
    if not messages[asked].content.strip():
        raise InvalidParameter("the user's last message is blank", param=f"messages[{asked}].content")
    system = [message.content for message in messages if message.role == "system"]
    return Conversation(
        system="\n\n".join(system) or None,
        history=_said(messages[:asked]),
        question=messages[asked].content,
        tail=_said(messages[asked + 1 :]),
    )


def _said(messages: Sequence[Message]) -> tuple[Message, ...]:
    return tuple(
        message
        for message in messages
        if message.role != "system"
        and (message.content.strip() or message.tool_calls or message.tool_call_id)
    )
