"""Messages that no ledger knows as entries: as they stand, without passages. The same messages give the same entries."""

from __future__ import annotations

from collections.abc import Sequence

from server.context.entry import Entry, pack
from server.context.joints import Joints
from server.context.template import ChatTemplate, Message


class Foreign:
    def __init__(self, template: ChatTemplate, joints: Joints, max_tokens: int) -> None:
        self._template = template
        self._joints = joints
        self._max_tokens = max_tokens

    def entries(self, messages: Sequence[Message], *, after_dropped: bool = False) -> list[Entry] | None:
        """The latest turns that fit `max_tokens`, whole turns only; the others are dropped.

        `after_dropped`: so was the message before them, and with it goes what is left of its turn.
        None when a message holds tool calls that the template does not let us write.
        """
        made: list[Entry] = []
        room = self._max_tokens
        for message in reversed(messages):
            if self._template.least_tokens(message.content) > room:
                break
            token_ids = self.content(message)
            if token_ids is None:
                return None
            room -= len(token_ids)
            if room < 0:
                break
            made.append(Entry(pack(token_ids)))
        made.reverse()
        n_dropped = len(messages) - len(made)
        while (n_dropped or after_dropped) and made and messages[n_dropped].role != "user":
            n_dropped += 1
            del made[0]
        return [Entry(b"", dropped=True)] * n_dropped + made

    def content(self, message: Message) -> list[int] | None:
        token_ids = self._template.encode(message.content)
        if not message.tool_calls:
            return token_ids
        calls = self._joints.calls(message)
        return None if calls is None else token_ids + calls
