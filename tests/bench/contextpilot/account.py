"""Prompt tokens that an engine with a prefix cache computes, and those that it finds there."""

from __future__ import annotations

from collections.abc import Iterable

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
    longest_prompt: int = 0

    @property
    def computed(self) -> int:
        return self.prompt - self.cached

    @property
    def cached_share(self) -> float:
        return self.cached / self.prompt if self.prompt else 0.0

    def add(self, n_prompt: int, n_cached: int) -> None:
        self.n_turns += 1
        self.prompt += n_prompt
        self.cached += n_cached
        self.longest_prompt = max(self.longest_prompt, n_prompt)


class Account(msgspec.Struct, frozen=True):
    first: Tokens
    """Of first turns."""
    later: Tokens


def account(served: Iterable[Served], shared: bool) -> Account:
    """One request after another, each finding all that was computed before, replies included.

    `shared`: one cache for all; else each conversation has its own.
    """
    cache = PrefixCache(_UNBOUNDED, BLOCK_TOKENS)
    told = Account(Tokens(), Tokens())
    for request in served:
        salt = "" if shared else str(request.conversation)
        blocks = cache.chain(request.prompt + request.reply, salt)
        n_cached = cache.match(blocks, len(request.prompt))
        cache.hold(blocks)
        (told.later if request.turn else told.first).add(len(request.prompt), n_cached)
    return told
