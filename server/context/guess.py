"""What was prefilled ahead of a message, kept until the message comes.

A conversation that has not begun has no history to be known by: there a guess is known by the text itself, which
each call repeats and goes on with.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from retrieval.types import Passage
from server.context.entry import Entry, Injected

_SAME_TEXT_SHARE = 0.6
"""Of the shorter of two texts: who shares this much from the beginning is the same person typing on."""


@dataclass(eq=False, slots=True)
class Guess:
    tenant: str
    history_key: bytes
    text: str
    is_first: bool
    """Of a conversation that has not begun: its history's key says nothing about whose it is."""
    history: tuple[Entry, ...] | None = None
    """The history's entries as prefilled; None until something was."""
    passages: tuple[tuple[Injected, Passage], ...] = ()
    """In the order in which they were prefilled."""
    task: asyncio.Task[None] | None = None
    running_tokens: int = 0
    """Prompt tokens that the engine has been given for it and has not finished."""
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


class Guesses:
    """Bounded by tenant; what nobody goes on with is given up after `ttl_s`."""

    def __init__(self, max_per_tenant: int, ttl_s: float) -> None:
        self._max_per_tenant = max_per_tenant
        self._ttl_s = ttl_s
        self._of: dict[str, list[Guess]] = {}

    @property
    def running_tokens(self) -> int:
        """Of all guesses."""
        return sum(guess.running_tokens for guesses in self._of.values() for guess in guesses)

    def typed(self, tenant: str, history_key: bytes, text: str, *, is_first: bool) -> Guess:
        """The guess that `text` goes on with, or a new one. Whatever ran for it is superseded."""
        guess = self._find(tenant, history_key, text)
        guesses = self._of.setdefault(tenant, [])
        if guess is None:
            guess = Guess(tenant, history_key, text, is_first)
            while len(guesses) >= self._max_per_tenant:
                self._give_up(guesses.pop(0))
        else:
            guesses.remove(guess)
            self._give_up(guess)
            guess.text, guess.touched_at = text, time.monotonic()
        guesses.append(guess)
        return guess

    def take(self, tenant: str, history_key: bytes, text: str) -> Guess | None:
        """The message has come: its guess, which is over with it."""
        guess = self._find(tenant, history_key, text)
        if guess is not None:
            self._of[tenant].remove(guess)
            self._give_up(guess)
        return guess

    def make_way(self) -> None:
        """A turn needs the engine. What was computed so far stays in the prefix cache."""
        for guesses in self._of.values():
            for guess in guesses:
                self._give_up(guess)

    async def close(self) -> None:
        """Give all up, and wait until nothing of it runs."""
        tasks = [guess.task for guesses in self._of.values() for guess in guesses if guess.task is not None]
        self._of.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _find(self, tenant: str, history_key: bytes, text: str) -> Guess | None:
        self._forget_old(tenant)
        candidates = [guess for guess in self._of.get(tenant, ()) if guess.is_of(history_key, text)]
        return max(candidates, key=lambda guess: guess.shares(text), default=None)

    def _forget_old(self, tenant: str) -> None:
        oldest = time.monotonic() - self._ttl_s
        guesses = self._of.get(tenant, [])
        for guess in [guess for guess in guesses if guess.touched_at < oldest]:
            guesses.remove(guess)
            self._give_up(guess)

    @staticmethod
    def _give_up(guess: Guess) -> None:
        if guess.task is not None:
            guess.task.cancel()
            guess.task = None
