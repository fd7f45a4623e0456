"""A permit for each turn: a place among the running turns, and room for the prefill that it will cost.

Refusals come at the door, before the body is read, and cost nothing; whoever is let in waits in a bounded line.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Literal

from server.errors import Busy
from server.guard.line import FairLine
from server.sections.admission import AdmissionSettings

Tier = Literal["priority", "default", "flex"]
_ORDER: dict[Tier, int] = {"priority": -10, "default": 0, "flex": 10}
_SMOOTHING = 0.1


class Permit:
    """Held by a turn from its admission to its end."""

    def __init__(self, prefill: FairLine, tenant: str, tier: Tier) -> None:
        self._prefill = prefill
        self._tenant = tenant
        self._order = engine_priority(tier)
        self._held_tokens = 0

    async def take_prefill(self, tokens: int) -> None:
        """Wait until the engine has room for so many more tokens of prefill."""
        await self._prefill.take(tokens, self._tenant, self._order)
        self._held_tokens = tokens

    def give_prefill_back(self) -> None:
        """The prefill is over, or will not be. Idempotent."""
        tokens, self._held_tokens = self._held_tokens, 0
        if tokens:
            self._prefill.give_back(tokens)


class Admission:
    def __init__(self, settings: AdmissionSettings, n_tenants: int) -> None:
        self._settings = settings
        self._turns = FairLine(settings.max_running_turns)
        self._prefill = FairLine(settings.max_prefill_tokens)
        share = settings.queue_share_per_key if n_tenants > 1 else 1.0
        self._max_queued_of_one = max(1, round(settings.max_queued_turns * share))
        self._mean_turn_s = 0.0

    @property
    def running_turns(self) -> int:
        return self._turns.taken

    @property
    def queued_turns(self) -> int:
        return self._turns.waiting

    @property
    def prefill_tokens(self) -> int:
        """Tokens that the engine has been given to prefill and has not finished."""
        return self._prefill.taken

    def leaves_room(self, running_share: float) -> bool:
        """Whether the engine may be given work that nobody waits for: no turn waits, none is at its prefill."""
        return (
            not self._turns.waiting
            and not self._prefill.taken
            and not self._prefill.waiting
            and self.running_turns <= running_share * self._settings.max_running_turns
        )

    def refuse_when_full(self, tenant: str) -> None:
        """Raises `Busy`."""
        if self._turns.is_free():
            return
        settings, queued = self._settings, self._turns.waiting
        if queued >= settings.max_queued_turns:
            raise self._busy(f"{self.running_turns} turns are running and {queued} wait; try again later")
        if self._turns.waiting_of(tenant) >= self._max_queued_of_one:
            raise self._busy(f"{self._max_queued_of_one} turns of this API key wait already; try again later")

    @asynccontextmanager
    async def permit(self, tenant: str, tier: Tier) -> AsyncGenerator[Permit, None]:
        """Raises `Busy` when the line is full."""
        self.refuse_when_full(tenant)
        await self._turns.take(1, tenant, engine_priority(tier))
        started_at = time.monotonic()
        permit = Permit(self._prefill, tenant, tier)
        try:
            yield permit
        finally:
            permit.give_prefill_back()
            self._turns.give_back(1)
            self._mean_turn_s += _SMOOTHING * (time.monotonic() - started_at - self._mean_turn_s)

    def _busy(self, message: str) -> Busy:
        """Told to come back when about half of those who wait now will have been served."""
        wait_s = self._mean_turn_s * self._turns.waiting / (2 * self._settings.max_running_turns)
        return Busy(message, retry_after_s=max(self._settings.retry_after_s, wait_s))


PREWARM_PRIORITY = 20
"""After all turns."""


def engine_priority(tier: Tier) -> int:
    """The engine's number for a tier; lower runs first."""
    return _ORDER[tier]
