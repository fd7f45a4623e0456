"""What a turn asks of its prompt."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from retrieval.types import Passage
from server.context.guess import Guess


@dataclass(frozen=True, slots=True)
class Wanted:
    passages: Sequence[Passage]
    """What its search returned, best first."""
    max_tokens: int
    max_model_len: int
    arranged: Sequence[Passage] = ()
    """The same in the order in which they are to stand; empty: best first."""
    tools: Sequence[dict[str, Any]] = ()
    gone: Set[int] = frozenset()
    """Keys of earlier turns' passages that were deleted or changed since."""
    guess: Guess | None = None
    nothing_found: bool = False
    """The documents were searched and hold nothing, and no earlier passage stands in the prompt: the model is told so."""
    typing: bool = False
    """The question is not whole yet: the prompt will be prefilled as far as its passages."""
