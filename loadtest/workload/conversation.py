"""What is asked: conversations whose turns depend on each other. Every source of workloads makes these."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Text = Annotated[str, msgspec.Meta(min_length=1)]


class Message(msgspec.Struct, frozen=True):
    """One message of a chat request."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str


class UserTurn(msgspec.Struct, frozen=True):
    """What the user says, and the data set's own reply to it, which is never sent."""

    user: Text
    agent: str | None = None
    max_tokens: int | None = None
    """The length of the reply to ask for, where the workload says so; it wins over the run's `--max-tokens`."""
    think_s: float | None = None
    """Pause between the reply before and this turn, where the workload says so; it wins over the run's `--think`."""


class Conversation(msgspec.Struct, frozen=True):
    """Turns that depend on each other; `preamble` stands before the first of them."""

    conversation_id: str
    turns: tuple[UserTurn, ...]
    preamble: tuple[Message, ...] = ()
    due_s: float | None = None
    """When a trace says that it began: seconds after the trace's own beginning."""
