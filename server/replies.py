"""What was replied in one turn, as the ledger keeps it: the engine's own tokens under the text the client was given."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from server.context.entry import Entry, pack
from server.context.template import ChatTemplate, Message, ToolCall
from server.engine.protocol import Delta, FinishReason

_LONGEST_STOP_TOKENS = 128
"""Stop strings are not longer, as a rule; what is beyond it is tokenised anew."""


@dataclass(slots=True)
class Reply:
    token_ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    calls: dict[int, list[str]] = field(default_factory=dict)
    """Name and arguments of each tool call."""
    has_reasoning: bool = False
    finish_reason: FinishReason | None = None

    def add(self, generated: Delta, told: Delta) -> None:
        """`generated` is the engine's delta, `told` what the client is told of it."""
        self.token_ids += generated.token_ids
        if told.text:
            self.texts.append(told.text)
        elif told.refusal:
            self.texts.append(told.refusal)
        if told.reasoning:
            self.has_reasoning = True
        for piece in told.tool_calls:
            call = self.calls.setdefault(piece.index, ["", ""])
            call[0] += piece.name or ""
            call[1] += piece.arguments
        if told.finish_reason is not None:
            self.finish_reason = told.finish_reason

    def message(self) -> Message:
        """As a client sends it back."""
        calls = tuple(ToolCall("", name, arguments) for name, arguments in self.calls.values())
        return Message("assistant", "".join(self.texts), calls)

    def entry(self, template: ChatTemplate, ends: Collection[int], stop: Sequence[str]) -> Entry:
        """`ends`: tokens that end a reply and belong to the template; `stop`: the request's stop strings.

        Reasoning is not shown to later turns, so a reply that had some is tokenised anew.
        """
        if self.has_reasoning:
            return Entry(pack(template.encode("".join(self.texts))))
        token_ids = self.token_ids
        if self.finish_reason != "length":
            while token_ids and token_ids[-1] in ends:
                token_ids = token_ids[:-1]
            if stop and not self.calls:
                token_ids = _up_to(token_ids, "".join(self.texts), template)
        return Entry(pack(token_ids))


def _up_to(token_ids: list[int], text: str, template: ChatTemplate) -> list[int]:
    """The tokens without those of a stop string, which the client was not given."""
    for n_kept in range(len(token_ids), max(0, len(token_ids) - _LONGEST_STOP_TOKENS) - 1, -1):
        kept = template.decode(token_ids[:n_kept])
        if text.startswith(kept):
            return token_ids[:n_kept] + template.encode(text[len(kept) :])
    return template.encode(text)
