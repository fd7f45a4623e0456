"""What the engine is given for one turn, and what the ledger keeps of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from retrieval.types import Passage
from server.context.entry import Entry, Injected
from server.context.fence import fence_of
from server.errors import ContextTooLong
from server.sections.prompt import PromptSettings

DEFAULT_LAYOUT = PromptSettings()

Compaction = Literal["full", "cold", "typing", "worth"]
"""Why older parts left the prompt: it was full; its beginning was not in the cache anyway; the user was still typing;
or it pays off."""


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage in the prompt and the number by which the prompt calls it."""

    number: int
    passage: Passage


@dataclass(frozen=True, slots=True)
class Prompt:
    token_ids: list[int]
    citations: tuple[Citation, ...]
    """What this turn's search found, best first."""
    max_tokens: int
    """Room for the answer: what was asked for, or what the context leaves."""
    usual: Usual | None = None
    """None where the prompt was rebuilt."""
    entries: tuple[Entry, ...] = ()
    """One for each message, for the ledger; none where the prompt was rebuilt without it."""
    injected: tuple[tuple[Injected, Passage], ...] = ()
    """The passages that are new to it, in its order."""
    asked_at: int = 0
    """Which of the entries is the question's."""
    history_tokens: int = 0
    """So many tokens stand before anything of the question."""
    passages_end: int = 0
    """So many with the passages that are new."""
    ahead_tokens: int = 0
    """So many can be computed before the question is whole."""
    compaction: Compaction | None = None


@dataclass(frozen=True, slots=True)
class Usual:
    """The same turn in the usual layout: passages in the system message, the history without any."""

    prompt_tokens: int
    computed_tokens: int
    """Those that it would have shared with no earlier prompt."""


def room_for_prompt(max_model_len: int, max_tokens: int) -> int:
    """What the answer leaves: as much as was asked for is kept free for it, but at most a quarter of the context."""
    return max_model_len - min(max_tokens, max_model_len // 4)


def too_long(tokens: str, max_model_len: int, budget: int) -> ContextTooLong:
    return ContextTooLong(
        f"the messages come to {tokens} tokens; this model's context of {max_model_len} "
        f"leaves {budget} for a prompt. Shorten the question or the system message",
        param="messages",
    )


def passage_line(number: int, passage: Passage, layout: PromptSettings = DEFAULT_LAYOUT) -> str:
    """A passage's lines, fenced against the headers of this layout."""
    fence = fence_of(layout)
    path = " > ".join(filter(None, map(fence.heading, passage.heading_path)))
    text = fence.text(passage.text)
    return f"[{number}] {path}: {text}" if path else f"[{number}] {text}"


def numbered(passages: Sequence[Passage]) -> tuple[Citation, ...]:
    return tuple(Citation(number, passage) for number, passage in enumerate(passages, start=1))
