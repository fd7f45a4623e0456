"""Prompt tokens that an engine with a prefix cache computes, and those that it finds there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from bench.contextpilot.request import Served
from server.engine.prefix_cache import PrefixCache

BLOCK_TOKENS = 32
_UNBOUNDED = 1 << 60


class Tokens(msgspec.Struct):
    """Summed over turns."""

    n_turns: int = 0
    prompt: int = 0
    cached: int = 0
    ahead: int = 0
    """Computed before the turn was asked: nobody waited for them."""
    n_compacted: int = 0
    longest_prompt: int = 0

    @property
    def computed(self) -> int:
        return self.prompt - self.cached

    @property
    def cached_share(self) -> float:
        return self.cached / self.prompt if self.prompt else 0.0


class Account(msgspec.Struct, frozen=True):
    first: Tokens
    """Of first turns."""
    later: Tokens


class EngineCache:
    """An engine's prefix cache that nothing leaves."""

    def __init__(self) -> None:
        self._cache = PrefixCache(_UNBOUNDED, BLOCK_TOKENS)

    def to_compute(self, prompt: Sequence[int], salt: str) -> int:
        return len(prompt) - self._cache.match(self._cache.chain(prompt, salt), len(prompt))

    def compute(self, token_ids: Sequence[int], salt: str) -> None:
        self._cache.hold(self._cache.chain(token_ids, salt))


def account(served: Iterable[Served], shared: bool) -> Account:
    """One request after another, each finding all that was computed before, replies included.

    `shared`: one cache for all; else each conversation has its own.
    """
    cache = EngineCache()
    told = Account(Tokens(), Tokens())
    for request in served:
        salt = "" if shared else str(request.conversation)
        tokens = told.later if request.turn else told.first
        if request.ahead:
            tokens.ahead += cache.to_compute(request.ahead, salt)
            cache.compute(request.ahead, salt)
        n_prompt = len(request.prompt)
        tokens.n_turns += 1
        tokens.prompt += n_prompt
        tokens.cached += n_prompt - cache.to_compute(request.prompt, salt)
        tokens.n_compacted += request.compacted
        tokens.longest_prompt = max(tokens.longest_prompt, n_prompt)
        cache.compute(request.prompt + request.reply, salt)
    return told
