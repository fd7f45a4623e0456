"""A request as an engine gets it, in words and in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import field

from bench.contextpilot.conversation import Conversation
from server.context.template import ChatTemplate, Message

Serving = Literal["one by one", "online", "batch"]
"""`one by one`: each conversation to its end. Else by rounds, everyone's first turn, everyone's second...: `online` as
they come, `batch` in the order that a contestant finds best for the round."""


class Request(msgspec.Struct, frozen=True):
    conversation: int
    turn: int
    """Counted from 0."""
    messages: tuple[Message, ...]


class Served(msgspec.Struct, frozen=True):
    """A request in tokens, with the reply that the engine computed after it."""

    conversation: int
    turn: int
    prompt: list[int]
    reply: list[int]
    ahead: list[int] = field(default_factory=list)
    """What was prefilled before it was asked."""
    compacted: bool = False
    """Older parts were shed from the prompt."""


def in_tokens(
    requests: Sequence[Request], conversations: Sequence[Conversation], template: ChatTemplate
) -> list[Served]:
    return [
        Served(
            request.conversation,
            request.turn,
            template.render(request.messages),
            template.encode(conversations[request.conversation].turns[request.turn].reply),
        )
        for request in requests
    ]


def by_rounds(served: Sequence[Served]) -> list[Served]:
    """Requests that stand one conversation after another, as they come `online`."""
    return sorted(served, key=lambda request: request.turn)
