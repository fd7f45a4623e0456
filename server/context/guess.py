"""What is prefilled ahead of a message, kept until the message comes.

A conversation that has not begun has no history to be known by: there a guess is known by the text itself, which
each call repeats and goes on with.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import Any

from retrieval.types import Passage
from server.context.entry import Entry, Injected, n_tokens
from server.context.prompt import Compaction, Prompt

_SAME_TEXT_SHARE = 0.6
"""Of the shorter of two texts: who shares this much from the beginning is the same person typing on."""
_SMOOTHING = 0.3


@dataclass(frozen=True, slots=True)
class Computing:
    """A prefill under way."""

    prompt: Prompt
    token_ids: list[int]
    to_compute: int
    begun_at: float = field(default_factory=time.monotonic)

    def serves_s(self, other: Computing, tokens_per_s: float) -> float:
        """For how long from now what this computes is a part of what `other` is to compute."""
        pairs = enumerate(zip(self.token_ids, other.token_ids, strict=False))
        shorter = min(len(self.token_ids), len(other.token_ids))
        shared = next((at for at, (mine, its) in pairs if mine != its), shorter)
        if shared == shorter:
            return math.inf
        left = shared - self.computed_tokens(tokens_per_s)
        return max(0.0, left / tokens_per_s) if tokens_per_s else 0.0

    def computed_tokens(self, tokens_per_s: float) -> float:
        """How far it has come by now, counted from the prompt's beginning."""
        done = min(self.to_compute, tokens_per_s * (time.monotonic() - self.begun_at))
        return len(self.token_ids) - self.to_compute + done


@dataclass(eq=False, slots=True)
class Guess:
    tenant: str
    history_key: bytes
    text: str
    is_first: bool
    """Of a conversation that has not begun: its history's key says nothing about whose it is."""
    history: tuple[Entry, ...] | None = None
    """The history's entries as prefilled; None where that is not more than the ledger knows."""
    compaction: Compaction | None = None
    """Why that history is shorter than the ledger's, if it is."""
    passages: tuple[tuple[Injected, Passage | None], ...] = ()
    """In the order in which they are prefilled; without the passage where that has not got so far."""
    task: asyncio.Task[None] | None = None
    computing: Computing | None = None
    asked: Any = None
    """What whoever follows it was asked last."""
    typed_on: asyncio.Event = field(default_factory=asyncio.Event)
    touched_at: float = field(default_factory=time.monotonic)

    def is_of(self, history_key: bytes, text: str) -> bool:
        """Whether `text` may be what this guess's text has become."""
        if history_key != self.history_key:
            return False
        if not self.is_first:
            return True
        shorter = min(len(self.text), len(text))
        return self.shares(text) >= max(1, _SAME_TEXT_SHARE * shorter)

    def shares(self, text: str) -> int:
        """How many characters the texts have in common before they part."""
        pairs = enumerate(zip(self.text, text, strict=False))
        return next((at for at, (mine, other) in pairs if mine != other), min(len(self.text), len(text)))

    def settle(self, prompt: Prompt, computed_tokens: float) -> None:
        """So much of `prompt` is in the cache now."""
        self.history = prompt.entries[: prompt.asked_at] if computed_tokens >= prompt.history_tokens else None
        self.compaction = prompt.compaction if self.history is not None else None
        end = prompt.passages_end - sum(n_tokens(there.tokens) for there, _ in prompt.injected)
        settled: list[tuple[Injected, Passage | None]] = []
        for there, passage in prompt.injected:
            end += n_tokens(there.tokens)
            settled.append((there, passage if computed_tokens >= end else None))
        self.passages = tuple(settled)


class Guesses:
    """Bounded by tenant; what nobody goes on with is given up after `ttl_s`."""

    def __init__(self, max_per_tenant: int, ttl_s: float) -> None:
        self._max_per_tenant = max_per_tenant
        self._ttl_s = ttl_s
        self._of: dict[str, list[Guess]] = {}
        self.tokens_per_s = 0.0
        """How fast the engine prefills ahead, as it did lately."""

    @property
    def running_tokens(self) -> int:
        """Prompt tokens that the engine has been given for guesses and has not finished."""
        all_of_them = (guess for guesses in self._of.values() for guess in guesses)
        return sum(guess.computing.to_compute for guess in all_of_them if guess.computing is not None)

    def typed(self, tenant: str, history_key: bytes, text: str, *, is_first: bool) -> Guess:
        """The guess that `text` goes on with, or a new one."""
        guess = self._find(tenant, history_key, text)
        guesses = self._of.setdefault(tenant, [])
        if guess is None:
            guess = Guess(tenant, history_key, text, is_first)
            while len(guesses) >= self._max_per_tenant:
                self.stop(guesses.pop(0))
        else:
            guesses.remove(guess)
            guess.text, guess.touched_at = text, time.monotonic()
            guess.typed_on.set()
        guesses.append(guess)
        return guess

    def take(self, tenant: str, history_key: bytes, text: str) -> Guess | None:
        """The message has come: its guess, which is the caller's to stop when the engine is needed."""
        guess = self._find(tenant, history_key, text)
        if guess is not None:
            self._of[tenant].remove(guess)
        return guess

    def make_way(self) -> None:
        """A turn needs the engine. What was computed so far stays in the prefix cache."""
        for guesses in self._of.values():
            for guess in guesses:
                self.stop(guess)

    def end(self, guess: Guess) -> None:
        """Its prefill is through."""
        if (computing := guess.computing) is None:
            return
        guess.computing = None
        guess.settle(computing.prompt, math.inf)
        rate = computing.to_compute / max(1e-3, time.monotonic() - computing.begun_at)
        self.tokens_per_s += (_SMOOTHING if self.tokens_per_s else 1.0) * (rate - self.tokens_per_s)

    def look(self, guess: Guess) -> None:
        """How far its prefill has come is noted; it goes on."""
        if (computing := guess.computing) is not None:
            guess.settle(computing.prompt, computing.computed_tokens(self.tokens_per_s))

    def break_off(self, guess: Guess) -> None:
        """Its prefill is given up where it stands."""
        self.look(guess)
        guess.computing = None

    def stop(self, guess: Guess) -> None:
        self.break_off(guess)
        if guess.task is not None:
            guess.task.cancel()
            guess.task = None

    async def close(self) -> None:
        """Give all up, and wait until nothing of it runs."""
        tasks = [guess.task for guesses in self._of.values() for guess in guesses if guess.task is not None]
        self._of.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _find(self, tenant: str, history_key: bytes, text: str) -> Guess | None:
        self.forget_old(tenant)
        candidates = [guess for guess in self._of.get(tenant, ()) if guess.is_of(history_key, text)]
        return max(candidates, key=lambda guess: guess.shares(text), default=None)

    def forget_old(self, tenant: str) -> None:
        """Give up what was not typed on for `ttl_s`."""
        oldest = time.monotonic() - self._ttl_s
        guesses = self._of.get(tenant, [])
        for guess in [guess for guess in guesses if guess.touched_at < oldest]:
            guesses.remove(guess)
            self.stop(guess)
