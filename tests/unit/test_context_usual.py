"""Cases counted by hand: an opening of 100 tokens, blocks of 16."""

from __future__ import annotations

import pytest

from server.context.entry import Retrieved
from server.context.prompt import Usual
from server.context.usual import usual_layout

A, B, C = Retrieved("a", 50), Retrieved("b", 30), Retrieved("c", 20)


@pytest.mark.parametrize(
    ("now", "before", "prompt_tokens", "cached_tokens"),
    [
        # A first turn shares the opening: 100 // 16 blocks.
        ([A, B], None, 100 + 80 + 60 + 10, 96),
        # The same passages in the same order: opening, passages and history, 240 // 16 blocks.
        ([A, B], [A, B], 250, 240),
        # The leading one alone: 150 // 16 blocks.
        ([A, C], [A, B], 240, 144),
        ([A, B, C], [A, B], 270, 176),
        ([A], [A, B], 220, 144),
        ([B, A], [A, B], 250, 96),
        ([], [A], 170, 96),
        # Without passages in either, all but the question is shared.
        ([], [], 170, 160),
    ],
)
def test_a_turn_shares_what_leads_both_lists(
    now: list[Retrieved], before: list[Retrieved] | None, prompt_tokens: int, cached_tokens: int
) -> None:
    usual = usual_layout(100, now, before, said_tokens=60, asked_tokens=10, block_size=16)
    assert usual == Usual(prompt_tokens, prompt_tokens - cached_tokens)


def test_the_last_token_is_always_computed() -> None:
    assert usual_layout(64, [], [], 0, 0, block_size=16).computed_tokens == 16


def test_a_changed_chunk_counts_as_it_is_now() -> None:
    changed = Retrieved("a", 40)
    assert usual_layout(100, [changed], [A], 0, 10, block_size=1) == Usual(150, 10)
