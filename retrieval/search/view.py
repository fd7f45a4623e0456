"""What searches read: the catalog and both indexes, as the store was at one version."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from retrieval.embed.queries import QueryEmbedder
from retrieval.errors import EmbedderMismatch, SnapshotDamaged
from retrieval.index.faiss_index import FaissIndex
from retrieval.search.catalog import Catalog
from retrieval.types import Changes, DocumentStore, Entry, LexicalIndex, Rows

log = logging.getLogger(__name__)

T = TypeVar("T")

_BATCH_ROWS = 8_192
_SAVE_AFTER_CHANGES = 20_000
"""Chunks that came or went since the snapshot file was written; fewer are read from the store again in no time."""


class View:
    """Follows a store. One task at a time changes it; searches run meanwhile, and see each index before or after."""

    def __init__(
        self,
        store: DocumentStore,
        vectors: FaissIndex,
        lexical: LexicalIndex | None,
        reading: Executor,
        snapshot_path: Path | None,
    ) -> None:
        self.vectors = vectors
        self.lexical = lexical
        self.catalog = Catalog()
        self.version = -1
        self._store = store
        self._reading = reading
        self._snapshot_path = snapshot_path
        self._unsaved = 0
        self._changing = asyncio.Lock()

    async def build(self, embedder: QueryEmbedder | None = None) -> None:
        """From the store; the vector index from its snapshot file and what changed since, where there is one.

        Raises `StoreUnusable`; `EmbedderMismatch` when the store's vectors are not those of the embedder that is named.
        """
        await self._require_model(embedder)
        identity = await self._read(self._store.identity)
        # Of a view that serves already, searches would see the older state meanwhile.
        saved_version = await self._load(identity) if self.version < 0 else None
        with ExitStack() as stack:
            snapshot = await self._read(lambda: stack.enter_context(self._store.snapshot()))
            entries = await self._read(snapshot.entries)
            changes = None
            if saved_version is not None:
                since = saved_version
                changes = await self._read(lambda: snapshot.changes(since))
            rows = await self._read(lambda: [*snapshot.rows(_BATCH_ROWS)])
            version = snapshot.version
        # A reindex may have ended since: vectors of two models are never compared.
        await self._require_model(embedder)
        if changes is not None:
            await self.vectors.change(changes.gone_keys, changes.added)
            self._unsaved = len(changes.gone_keys) + len(changes.added.keys)
        else:
            await self.vectors.replace(rows)
            self._unsaved = len(self.vectors)
        if self.lexical is not None:
            await self.lexical.replace(entries, rows)
        self.catalog = Catalog(entries)
        self.version = version

    async def apply(self, changes: Changes) -> None:
        """When this has returned, every search that begins sees the changes."""
        async with self._changing:
            self.catalog.apply(changes)
            following = [self.vectors.change(changes.gone_keys, changes.added)]
            if self.lexical is not None:
                entries = self._entries_of(changes.added)
                following.append(self.lexical.change(changes.gone_keys, entries, changes.added))
            await asyncio.gather(*following)
            self._unsaved += len(changes.gone_keys) + len(changes.added.keys)
            self.version = changes.version

    @property
    def wants_saving(self) -> bool:
        return self._snapshot_path is not None and self._unsaved >= _SAVE_AFTER_CHANGES

    async def save(self, *, at_least: int = _SAVE_AFTER_CHANGES) -> bool:
        """Write the snapshot file when so much has changed; what goes wrong costs the next start some time, no more."""
        if self._snapshot_path is None or self._unsaved < at_least:
            return False
        identity = await self._read(self._store.identity)
        async with self._changing:
            unsaved, version = self._unsaved, self.version
            saving = asyncio.ensure_future(self.vectors.save(self._snapshot_path, identity, version))
            # Its first step captures the index. Of a chunk that it held beyond this version, and that went
            # before the next start, the store's changes would not tell.
            await asyncio.sleep(0)
        try:
            await saving
        except OSError as error:
            log.warning("the index is not kept in %s: %s", self._snapshot_path, error.strerror or error)
            return False
        self._unsaved -= unsaved
        return True

    def close(self) -> None:
        self.vectors.close()
        if self.lexical is not None:
            self.lexical.close()

    async def _load(self, identity: str) -> int | None:
        path = self._snapshot_path
        if path is None:
            return None
        try:
            return await self.vectors.load(path, identity)
        except SnapshotDamaged as error:
            log.warning("%s; the index is built from the store", error)
            return None

    async def _require_model(self, embedder: QueryEmbedder | None) -> None:
        if embedder is None:
            return
        held = await self._read(self._store.embedder)
        if held is not None and held != (embedder.identity, embedder.dim):
            raise EmbedderMismatch(
                f"the store holds vectors of {held[0]}, not of {embedder.identity}; serve it with that model"
            )

    def _entries_of(self, rows: Rows) -> list[Entry]:
        found = (self.catalog.entry(number) for number in {*rows.documents.tolist()})
        return [entry for entry in found if entry is not None]

    async def _read(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reading, call)
