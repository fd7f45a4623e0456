"""What searches need of one embedding model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from retrieval.embed.queries import QueryEmbedder
from retrieval.search.view import View


@dataclass(slots=True)
class Serving:
    """What belongs to one embedding model."""

    embedder: QueryEmbedder
    view: View
    _n_searches: int = 0
    _unused: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """By one search: whoever replaces this closes it afterwards."""
        self._n_searches += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._n_searches -= 1
            if self._n_searches == 0:
                self._unused.set()

    async def unused(self) -> None:
        """Returns when the searches that began with it have ended."""
        if self._n_searches:
            await self._unused.wait()

    def close(self) -> None:
        self.embedder.close()
        self.view.close()
