"""What a source of conversations gives: the conversations, and what it had to leave out."""

from __future__ import annotations

import msgspec

from loadtest.workload.conversation import Conversation


class Skipped(msgspec.Struct, frozen=True):
    """An entry that cannot be held as a conversation, as dumps of real chats have them."""

    place: str
    """`entry 17 (line 204)`, counted from 1."""
    reason: str


class Workload(msgspec.Struct, frozen=True):
    """At least one conversation, each of at least one turn."""

    conversations: tuple[Conversation, ...]
    skipped: tuple[Skipped, ...] = ()
    dropped_openings: int = 0
    """Conversations whose first messages were the assistant's: these messages were dropped, the rest was kept."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the figures should know of the workload, a sentence each; mostly none."""
        remarks = []
        if self.skipped:
            first = self.skipped[0]
            remarks.append(
                f"{len(self.skipped)} of {len(self.skipped) + len(self.conversations)} entries were skipped; "
                f"the first is {first.place}: {first.reason}."
            )
        if self.dropped_openings:
            remarks.append(
                f"{self.dropped_openings} conversations opened with the assistant; these messages were dropped."
            )
        return tuple(remarks)
