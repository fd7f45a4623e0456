"""Where ledgers are kept: bytes under keys that only whoever knows a conversation's messages can make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class LedgerStore(Protocol):
    """Bounded; what was not used for the longest time is forgotten. Implementations pass
    `tests/contract/test_ledger_store.py`. None of the methods raises: a store that is down knows nothing and says so
    in its figures.
    """

    @property
    def n_entries(self) -> int:
        """In this process's memory, as are the next two."""
        ...

    @property
    def n_bytes(self) -> int: ...

    @property
    def evictions(self) -> int: ...

    @property
    def up(self) -> bool:
        """False while a store elsewhere does not answer."""
        ...

    @property
    def errors(self) -> int:
        """Requests to it that failed."""
        ...

    async def get(self, keys: Sequence[bytes]) -> list[bytes]:
        """The values of the leading keys that are known: the list ends before the first key that is not.

        The keys are a conversation's, first message first, and count as used, the last of them longest ago: so a
        conversation is forgotten from its end.
        """
        ...

    async def put(self, values: Mapping[bytes, bytes], after: Sequence[bytes] = ()) -> None:
        """Insert or replace, first message first.

        They count as used just now, as with `get`, and so do the keys of the messages before them, `after`: without
        them those would be forgotten first, and what follows could not be found.
        """
        ...

    async def close(self) -> None: ...
