"""A request as an engine gets it, and the order in which requests are served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

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


def places(conversations: Sequence[Conversation], serving: Serving) -> Iterator[tuple[int, int]]:
    """Conversation and turn, in the order of serving; a `batch` has no order of its own here."""
    if serving == "one by one":
        for place, conversation in enumerate(conversations):
            for turn in range(len(conversation.turns)):
                yield place, turn
        return
    for turn in range(max((len(conversation.turns) for conversation in conversations), default=0)):
        for place, conversation in enumerate(conversations):
            if turn < len(conversation.turns):
                yield place, turn


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
