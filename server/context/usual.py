"""What the usual layout would have computed for a turn: the yardstick of the accounting.

Passages stand in its system message, so that a turn shares with the one before it no more than the passages that
lead both lists, and with other conversations the system message. Told by counting, since nobody computes it; how
near that comes to the layout really served is in the handbook's page on the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

from server.context.entry import Retrieved
from server.context.prompt import Usual


def usual_layout(
    opening_tokens: int,
    now: Sequence[Retrieved],
    before: Sequence[Retrieved] | None,
    said_tokens: int,
    asked_tokens: int,
    block_size: int,
) -> Usual:
    """`now` and `before`: what this turn's search returned, and the previous turn's; None on a first turn.

    `said_tokens`: of the history without passages; `asked_tokens`: of the question and what follows it.
    """
    passages_tokens = sum(passage.n_tokens for passage in now)
    prompt_tokens = opening_tokens + passages_tokens + said_tokens + asked_tokens
    shared = opening_tokens
    if before is not None:
        for mine, earlier in zip(now, before, strict=False):
            if mine.chunk_id != earlier.chunk_id:
                break
            shared += mine.n_tokens
        else:
            if len(now) == len(before):
                shared += said_tokens
    cached = min(shared, prompt_tokens - 1) // block_size * block_size
    return Usual(prompt_tokens, prompt_tokens - cached)
