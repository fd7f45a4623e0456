"""A model of the engine's prefix cache: which prompt tokens need no computing.

As in vLLM: whole blocks are cached, the last prompt token is always computed, a block is shared only under the
same salt and after the same tokens, and blocks that nobody uses are evicted least recently used first.
"""

from __future__ import annotations

import itertools
from collections import Counter, OrderedDict
from collections.abc import Sequence


class PrefixCache:
    """Hash-chained blocks with reference counts; unreferenced blocks stay until their room is needed."""

    def __init__(self, n_blocks: int, block_size: int) -> None:
        self.n_blocks = n_blocks
        self.block_size = block_size
        self._references: Counter[int] = Counter()
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def blocks_in_use(self) -> int:
        return len(self._references)

    def match(self, chain: Sequence[int], n_prompt_tokens: int) -> int:
        """Tokens at the start of the prompt that need no computing."""
        n_whole = (n_prompt_tokens - 1) // self.block_size
        known = itertools.takewhile(lambda key: key in self._references or key in self._idle, chain[:n_whole])
        return sum(1 for _ in known) * self.block_size

    def chain(self, token_ids: Sequence[int], salt: str) -> list[int]:
        """One key for each whole block, made of its tokens and all before them."""
        keys: list[int] = []
        parent = hash(salt)
        for start in range(0, len(token_ids) - self.block_size + 1, self.block_size):
            parent = hash((parent, tuple(token_ids[start : start + self.block_size])))
            keys.append(parent)
        return keys

    def hold(self, chain: Sequence[int]) -> None:
        for key in chain:
            self._idle.pop(key, None)
            self._references[key] += 1
        self._evict()

    def release(self, chain: Sequence[int]) -> None:
        # Last block first: an evicted parent would make its children useless.
        for key in reversed(chain):
            self._references[key] -= 1
            if not self._references[key]:
                del self._references[key]
                self._idle[key] = None
        self._evict()

    def _evict(self) -> None:
        while self._idle and len(self._references) + len(self._idle) > self.n_blocks:
            self._idle.popitem(last=False)
