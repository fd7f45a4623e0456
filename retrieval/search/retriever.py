"""From a query to passages: follow the store, embed, search both indexes, fuse, rerank, read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

from retrieval.errors import EmbedderMismatch, RetrievalError
from retrieval.search.fuse import LEXICAL_WEIGHT, weighted_sum
from retrieval.search.query import QueryForm, QueryPlan, plan, query_vector
from retrieval.search.serving import Serving
from retrieval.search.view import View
from retrieval.types import (
    DocumentStore,
    Passage,
    Query,
    Reranker,
    Scope,
    SearchTiming,
    Selection,
    Vectors,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

Mode = Literal["hybrid", "dense", "lexical"]

_LEXICAL_WEIGHT: dict[Mode, float] = {"dense": 0.0, "hybrid": LEXICAL_WEIGHT, "lexical": 1.0}
_SPARE = 4
"""Hits read beyond those that are wanted, in place of texts that are there twice."""
_SWAP_AGAIN_S = 10.0


@dataclass(frozen=True, slots=True)
class SearchOptions:
    mode: Mode = "hybrid"
    query: QueryForm = "weighted"
    candidates: int = 50
    """Chunks from each index."""
    rerank_candidates: int = 20
    rerank_budget_ms: float = 100.0


class Retriever:
    """Finds passages in the store as it is when a query starts, whoever changed it last.

    Nothing here blocks the event loop: embedding, each index and the store's reads have threads of their own.
    `open_serving` makes what belongs to the store's present embedding model; after a reindex it is called again, and
    searches go on with the old until the new is built. `close()` leaves the store to whoever made it.
    """

    def __init__(
        self,
        store: DocumentStore,
        open_serving: Callable[[ThreadPoolExecutor], Serving],
        options: SearchOptions,
        reranker: Reranker | None = None,
    ) -> None:
        self._store = store
        self._open_serving = open_serving
        self._options = options
        self._reranker = reranker
        self._serving: Serving | None = None
        self._present_at = -1
        self._present: set[int] = set()
        self._following = asyncio.Lock()
        self._swapping: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[bool] | None = None
        self._reading = ThreadPoolExecutor(max_workers=2, thread_name_prefix="firstword-store")
        self._reranking = ThreadPoolExecutor(max_workers=1, thread_name_prefix="firstword-rerank")

    @property
    def view(self) -> View:
        return self._open.view

    async def load(self) -> None:
        """Build the indexes for the first time. Raises `EmbedderMissing`, `EmbedderMismatch`, `StoreUnusable`."""
        self._serving = await self._fresh()

    async def search(
        self,
        query: Query,
        scope: Scope,
        top_k: int,
        min_score: float | None = None,
        *,
        ranker: str | None = None,
    ) -> tuple[list[Passage], SearchTiming]:
        """At most `top_k` passages, best first, none below `min_score`, no text twice.

        The timing's phases are consecutive: `search_ms` is all but the embedding and the reranking. May be cancelled
        at any point. `ranker` "none" leaves the reranker out. Raises `EmbedderMismatch`, `StoreUnusable`.
        """
        options = self._options
        reranker = self._reranker if ranker != "none" else None
        started = time.monotonic()
        await self.follow()
        serving = self._open
        with serving.in_use():
            planned = plan(query, options.query)
            selection = serving.view.catalog.select(scope)
            # Words are looked up while the query is embedded.
            looking_up = asyncio.ensure_future(_lexical(planned, selection, serving, options))
            try:
                embedding_began = time.monotonic()
                vector = await _embed(planned, serving)
                embed_ms = (time.monotonic() - embedding_began) * 1000
                dense = await _dense(vector, selection, serving, options)
                lexical = await looking_up
            finally:
                looking_up.cancel()
            hits = await _fused(dense, lexical, vector, serving, options)
        n_read = max(top_k, options.rerank_candidates if reranker is not None else 0)
        passages = await self._passages(hits, n_read, min_score)
        rerank_ms = 0.0
        if reranker is not None:
            passages, rerank_ms = await self._rerank(reranker, query, passages, options)
        total_ms = (time.monotonic() - started) * 1000
        return passages[:top_k], SearchTiming(embed_ms, total_ms - embed_ms - rerank_ms, rerank_ms)

    async def gone(self, keys: Collection[int]) -> frozenset[int]:
        """Those of the chunk keys whose text was deleted or changed. Raises `StoreUnusable`."""
        if not keys:
            return frozenset()
        version = await self._read(self._store.version)
        if version != self._present_at:
            self._present_at, self._present = version, set()
        unsure = [key for key in keys if key not in self._present]
        if not unsure:
            return frozenset()
        present = await self._read(lambda: self._store.present(unsure))
        if self._present_at == version:
            self._present |= present
        return frozenset(unsure) - present

    async def close(self) -> None:
        """Saves what changed of the index, and stops every thread."""
        for task in (self._swapping, self._saving):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))
        if self._serving is not None:
            await self._serving.view.save(at_least=1)
            await asyncio.to_thread(self._serving.close)
        for threads in (self._reading, self._reranking):
            threads.shutdown(wait=True, cancel_futures=True)

    @property
    def _open(self) -> Serving:
        if self._serving is None:
            raise RuntimeError("load() comes first")
        return self._serving

    async def _fresh(self) -> Serving:
        while True:
            serving = await self._read(lambda: self._open_serving(self._reading))
            try:
                await serving.view.build(serving.embedder)
            except EmbedderMismatch:  # a reindex ended since it was opened
                await asyncio.to_thread(serving.close)
            except BaseException:
                await asyncio.to_thread(serving.close)
                raise
            else:
                return serving

    async def follow(self) -> None:
        """Bring the view to where the store is now; a search that begins after a change was committed sees it."""
        version = await self._read(self._store.version)
        if version == self._open.view.version:
            return
        async with self._following:
            # Whoever waited may find the work done.
            while (serving := self._open).view.version < version:
                since = serving.view.version
                changes = await self._read(partial(self._store.changes, since))
                if serving is not self._open:
                    continue
                if changes is not None:
                    await serving.view.apply(changes)
                    self._save_behind(serving.view)
                    return
                try:
                    await serving.view.build(serving.embedder)
                except EmbedderMismatch:
                    if serving is self._open:
                        self._swap_behind()
                        return

    def _swap_behind(self) -> None:
        """Searches go on with the old model's vectors; what is deleted meanwhile is not in the store to be read."""
        if self._swapping is None or self._swapping.done():
            self._swapping = asyncio.create_task(self._swap(), name="swap-index")

    async def _swap(self) -> None:
        try:
            fresh = await self._fresh()
        except RetrievalError as error:
            log.error("the reindexed documents cannot be served, the old index goes on: %s", error)
            await asyncio.sleep(_SWAP_AGAIN_S)
            return
        old, self._serving = self._open, fresh
        log.info("serving vectors of %s", fresh.embedder.identity)
        try:
            await old.unused()
            if self._saving is not None:
                await asyncio.wait((self._saving,))
        finally:
            await asyncio.to_thread(old.close)

    def _save_behind(self, view: View) -> None:
        if view.wants_saving and (self._saving is None or self._saving.done()):
            self._saving = asyncio.create_task(view.save(), name="save-index")

    async def _passages(self, hits: Hits, n_wanted: int, min_score: float | None) -> list[Passage]:
        if min_score is not None:
            hits = [hit for hit in hits if hit.score >= min_score]
        read: list[Passage] = []
        seen: set[str] = set()
        # A text that was ingested twice is told once.
        while hits and len(read) < n_wanted:
            some, hits = hits[: n_wanted + _SPARE], hits[n_wanted + _SPARE :]
            by_key = {hit.key: hit for hit in some}
            scored = [(hit.key, hit.score) for hit in some]
            for passage in await self._read(partial(self._store.passages, scored)):
                if passage.text not in seen:
                    seen.add(passage.text)
                    hit = by_key[passage.key]
                    read.append(replace(passage, dense=hit.dense, lexical=hit.lexical))
        return read[:n_wanted]

    async def _rerank(
        self, reranker: Reranker, query: Query, passages: list[Passage], options: SearchOptions
    ) -> tuple[list[Passage], float]:
        """Those that it had time for come first, as it orders them."""
        began = time.monotonic()
        texts = [passage.text for passage in passages]
        loop = asyncio.get_running_loop()
        scores = await loop.run_in_executor(
            self._reranking, lambda: reranker.rerank(query.question, texts, options.rerank_budget_ms)
        )
        judged = [(score, at) for at, score in enumerate(scores) if score is not None]
        judged.sort(key=lambda pair: (-pair[0], pair[1]))
        order = [at for _, at in judged] + [at for at, score in enumerate(scores) if score is None]
        return [passages[at] for at in order], (time.monotonic() - began) * 1000

    async def _read(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reading, call)


@dataclass(frozen=True, slots=True)
class Hit:
    key: int
    score: float
    dense: float | None
    lexical: float | None


Hits = Sequence[Hit]
Scored = Sequence[tuple[int, float]]


async def _embed(planned: QueryPlan, serving: Serving) -> Vectors:
    """(1, dim), normalised: the texts' vectors, each times its weight. Those of earlier turns are still known."""
    vectors = await serving.embedder.embed_all([text for text, _ in planned.dense])
    return query_vector(vectors, [weight for _, weight in planned.dense])


async def _dense(vector: Vectors, selection: Selection, serving: Serving, options: SearchOptions) -> Scored:
    if options.mode == "lexical":
        return ()
    (hits,) = await serving.view.vectors.search(vector, options.candidates, selection)
    return hits


async def _lexical(
    planned: QueryPlan, selection: Selection, serving: Serving, options: SearchOptions
) -> Scored:
    lexical = serving.view.lexical
    if lexical is None or options.mode == "dense":
        return ()
    return await lexical.search(planned.lexical, options.candidates, selection)


async def _fused(
    dense: Scored, lexical: Scored, vector: Vectors, serving: Serving, options: SearchOptions
) -> Hits:
    """Best first. Every candidate has its cosine, whichever index found it."""
    cosines = dict(dense)
    unscored = [key for key, _ in lexical if key not in cosines]
    if unscored:
        found = await serving.view.vectors.scores(vector, unscored)
        # nan: not in the vector index yet, or not any more.
        cosines |= {key: cosine for key, cosine in zip(unscored, found, strict=True) if cosine == cosine}
    words = dict(lexical)
    ranked = weighted_sum(cosines, words, _LEXICAL_WEIGHT[options.mode])
    return [Hit(key, score, cosines[key], words.get(key)) for key, score in ranked]
