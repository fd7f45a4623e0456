"""A line in front of something that is counted out: fair between keys, by tier, first come first served in each."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class _Place:
    tenant: str
    tier: int
    cost: int
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class FairLine:
    """`capacity` units; whoever takes some waits until they are free and its turn has come.

    A lower tier goes first. Within a tier the keys take turns, so that one that sends much delays itself
    alone. A taker whose cost exceeds the capacity goes when nothing else is out.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._tiers: dict[int, OrderedDict[str, deque[_Place]]] = {}
        self._waiting_of: dict[str, int] = {}
        self.taken = 0

    @property
    def waiting(self) -> int:
        return sum(self._waiting_of.values())

    def waiting_of(self, tenant: str) -> int:
        return self._waiting_of.get(tenant, 0)

    def is_free(self, cost: int = 1) -> bool:
        return not self._waiting_of and self._fits(cost)

    async def take(self, cost: int, tenant: str, tier: int) -> None:
        """Returns with `cost` units taken; cancelled while it waits, it leaves the line and takes nothing."""
        if self.is_free(cost):
            self.taken += cost
            return
        place = _Place(tenant, tier, cost)
        self._tiers.setdefault(tier, OrderedDict()).setdefault(tenant, deque()).append(place)
        self._waiting_of[tenant] = self.waiting_of(tenant) + 1
        try:
            await place.turn
        except asyncio.CancelledError:
            if place.turn.cancelled():
                self._remove(place)
                self._let_in()
            else:
                self.give_back(cost)
            raise

    def give_back(self, cost: int) -> None:
        self.taken -= cost
        self._let_in()

    def _fits(self, cost: int) -> bool:
        return self.taken + cost <= self._capacity or self.taken == 0

    def _let_in(self) -> None:
        while (place := self._first()) is not None:
            if place.turn.cancelled():  # its task has not run yet
                self._remove(place)
                continue
            if not self._fits(place.cost):
                return
            self._remove(place)
            keys = self._tiers.get(place.tier)
            if keys is not None and place.tenant in keys:
                keys.move_to_end(place.tenant)
            self.taken += place.cost
            place.turn.set_result(None)

    def _first(self) -> _Place | None:
        if not self._tiers:
            return None
        keys = self._tiers[min(self._tiers)]
        return next(iter(keys.values()))[0]

    def _remove(self, place: _Place) -> None:
        """Idempotent."""
        keys = self._tiers.get(place.tier, OrderedDict())
        if place not in keys.get(place.tenant, ()):
            return
        keys[place.tenant].remove(place)
        if not keys[place.tenant]:
            del keys[place.tenant]
        if not keys:
            del self._tiers[place.tier]
        self._waiting_of[place.tenant] -= 1
        if not self._waiting_of[place.tenant]:
            del self._waiting_of[place.tenant]
