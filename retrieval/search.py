"""From a query to passages: embed, search, read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from retrieval.types import DocumentStore, Embedder, Passage, SearchTiming, VectorIndex

T = TypeVar("T")


class Retriever:
    """Finds passages in the store as it is when a query starts, whoever changed it last.

    The index is a view of the store: before each search its version is compared with the store's, and it is
    built anew where they differ. Nothing here blocks the event loop: embedding has one thread of its own,
    the store's reads have two. `close()` stops these and leaves the store, the index and the embedder to
    whoever made them.
    """

    def __init__(self, store: DocumentStore, index: VectorIndex, embedder: Embedder) -> None:
        self._store = store
        self._index = index
        self._embedder = embedder
        self._indexed_version = -1
        self._present_at = -1
        self._present: set[int] = set()
        self._refreshing = asyncio.Lock()
        self._embedding = ThreadPoolExecutor(max_workers=1, thread_name_prefix="firstword-embed")
        self._reading = ThreadPoolExecutor(max_workers=2, thread_name_prefix="firstword-store")

    async def load(self) -> None:
        """Build the index for the first time. Raises `EmbedderMismatch`, `StoreUnusable`."""
        await self._refresh()

    async def retrieve(
        self, query: str, top_k: int, min_score: float | None = None
    ) -> tuple[list[Passage], SearchTiming]:
        """At most `top_k` passages, best first, none below `min_score`.

        The timing's phases are consecutive: `search_ms` holds the refresh, the search and the reading of
        the passages. Raises `EmbedderMismatch`, `StoreUnusable`. May be cancelled at any point.
        """
        started = time.monotonic()
        vector = await self._in(self._embedding, lambda: self._embedder.embed([query]))
        embedded = time.monotonic()
        await self._refresh()
        hits = await self._index.search(vector, top_k)
        if min_score is not None:
            hits = [hit for hit in hits if hit[1] >= min_score]
        passages = await self._in(self._reading, lambda: self._store.passages(hits))
        finished = time.monotonic()
        timing = SearchTiming(
            embed_ms=(embedded - started) * 1000, search_ms=(finished - embedded) * 1000, rerank_ms=0.0
        )
        return passages, timing

    async def gone(self, keys: Collection[int]) -> frozenset[int]:
        """Those of the chunk keys whose text was deleted or changed. Raises `StoreUnusable`."""
        if not keys:
            return frozenset()
        version = await self._in(self._reading, self._store.version)
        if version != self._present_at:
            self._present_at, self._present = version, set()
        unsure = [key for key in keys if key not in self._present]
        if not unsure:
            return frozenset()
        present = await self._in(self._reading, lambda: self._store.present(unsure))
        if self._present_at == version:
            self._present |= present
        return frozenset(unsure) - present

    def close(self) -> None:
        self._embedding.shutdown(wait=True, cancel_futures=True)
        self._reading.shutdown(wait=True, cancel_futures=True)

    async def _refresh(self) -> None:
        if await self._in(self._reading, self._store.version) == self._indexed_version:
            return
        async with self._refreshing:
            # Asked again, and before the vectors are read: whoever waited may find the work done, and a
            # change that lands in between costs a refresh too many, never one too few.
            version = await self._in(self._reading, self._store.version)
            if version == self._indexed_version:
                return
            embedder = self._embedder
            await self._in(self._reading, lambda: self._store.claim_embedder(embedder.identity, embedder.dim))
            keys, vectors = await self._in(self._reading, self._store.chunk_vectors)
            await self._index.replace(keys, vectors)
            self._indexed_version = version

    async def _in(self, threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, call)
