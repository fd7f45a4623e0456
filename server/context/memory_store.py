"""Ledgers in this process's memory, and over a restart in a file."""

from __future__ import annotations

import logging
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from server.context.snapshot import OtherFingerprint, SnapshotRefused, read_snapshot, write_snapshot

log = logging.getLogger(__name__)

_ENTRY_BYTES = 192
"""What an entry costs beside its key and its value: measured 75 to 180, the most in a store that has forgotten many."""


class MemoryStore:
    """The least recently used entries are forgotten when all together hold more than `max_bytes`.

    A key is never used without those of the messages before it, and they count as used after it: so what is
    forgotten first is always some conversation's last message, and messages that conversations share outlive them.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        """Keys, values and what it takes to hold them."""
        self.hits = 0
        """Messages that were asked for and known."""
        self.misses = 0
        self.evictions = 0
        self.up = True
        self.errors = 0
        self._values: OrderedDict[bytes, bytes] = OrderedDict()

    @property
    def n_entries(self) -> int:
        return len(self._values)

    async def get(self, keys: Sequence[bytes]) -> list[bytes]:
        found: list[bytes] = []
        for key in keys:
            value = self._values.get(key)
            if value is None:
                break
            found.append(value)
        self._use(keys[: len(found)])
        self.hits += len(found)
        self.misses += len(keys) - len(found)
        return found

    async def put(self, values: Mapping[bytes, bytes], after: Sequence[bytes] = ()) -> None:
        """What nobody could find is not kept: what follows a message that was forgotten meanwhile, or one whose value
        is larger than the whole store.
        """
        findable = all(key in values or key in self._values for key in after)
        for key, value in values.items():
            self._forget(key)
            findable = findable and _size(key, value) <= self.max_bytes
            if findable:
                self._keep(key, value)
        self._use([*after, *values])
        self._shrink()

    async def close(self) -> None:
        """Nothing is open."""

    def save(self, path: Path, fingerprint: bytes) -> None:
        """Write all to `path`, whole or not at all; a failure is logged.

        `fingerprint` stands for what the entries depend on: `load` takes them only with the same one.
        """
        try:
            write_snapshot(path, fingerprint, list(self._values.items()))
        except OSError as error:
            log.warning(
                "the ledgers are not kept over the restart, %s cannot be written: %s; "
                "make room there and check its permissions",
                path,
                error.strerror or error,
            )

    def load(self, path: Path, fingerprint: bytes) -> None:
        """Hold what `path` holds, as far as it fits, in the order in which it was used.

        A file that is of no use is logged and left alone: conversations then go on as after a cold start.
        """
        loaded = MemoryStore(self.max_bytes)
        try:
            for key, value in read_snapshot(path, fingerprint):
                if _size(key, value) <= self.max_bytes:
                    loaded._forget(key)
                    loaded._keep(key, value)
                    loaded._shrink()
        except FileNotFoundError:
            return
        except OtherFingerprint as refused:
            log.info("the ledgers in %s are not read: %s", path, refused)
            return
        except (SnapshotRefused, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            log.warning(
                "the ledgers in %s are not read: %s; remove that file or make it readable, "
                "the next shutdown writes it anew",
                path,
                reason or error,
            )
            return
        self._values, self.n_bytes = loaded._values, loaded.n_bytes

    def _use(self, keys: Sequence[bytes]) -> None:
        for key in reversed(keys):
            if key in self._values:
                self._values.move_to_end(key)

    def _keep(self, key: bytes, value: bytes) -> None:
        self._values[key] = value
        self.n_bytes += _size(key, value)

    def _forget(self, key: bytes) -> None:
        value = self._values.pop(key, None)
        if value is not None:
            self.n_bytes -= _size(key, value)

    def _shrink(self) -> None:
        while self.n_bytes > self.max_bytes:
            key, value = self._values.popitem(last=False)
            self.n_bytes -= _size(key, value)
            self.evictions += 1


def _size(key: bytes, value: bytes) -> int:
    return sys.getsizeof(key) + sys.getsizeof(value) + _ENTRY_BYTES
