"""The FAISS index: exact inner products over a flat array, owned by one thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from retrieval.types import ChunkKeys, Vectors

T = TypeVar("T")


class FaissIndex:
    """A `VectorIndex` over `IndexFlatIP`.

    Every FAISS call runs on the one owner thread, in the order in which it was made: FAISS allows no write
    beside a read, and on GPUs no two reads (https://github.com/facebookresearch/faiss/wiki/Threads-and-asynchronous-calls).
    A cancelled caller leaves its call to finish unseen. After `close()` the methods raise `RuntimeError`.
    """

    def __init__(self, dim: int) -> None:
        import faiss

        self._faiss = faiss
        self._dim = dim
        self._index = self._empty()
        # FAISS spreads over OpenMP's threads what only pays off for many queries at once: one query took
        # 1.5 ms with one thread and 5.7 ms with two on two cores that an engine kept busy (10,000 vectors).
        # The setting belongs to the thread that makes it, so it binds no one else.
        self._owner = ThreadPoolExecutor(
            max_workers=1,
            thread_name_prefix="firstword-index",
            initializer=faiss.omp_set_num_threads,
            initargs=(1,),
        )

    async def replace(self, keys: ChunkKeys, vectors: Vectors) -> None:
        """`keys` is `(n,)` int64, `vectors` `(n, dim)` float32; both are copied before this returns.

        Raises `ValueError` for other shapes.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self._dim or keys.shape != (len(vectors),):
            raise ValueError(
                f"keys {keys.shape} and vectors {vectors.shape}: expected (n,) and (n, {self._dim}); "
                "embed the chunks with this index's model"
            )
        await self._run(lambda: self._replace(keys, vectors))

    async def search(self, query: Vectors, top_k: int) -> list[tuple[int, float]]:
        """Exact; equal scores are ordered by key. Raises `ValueError` for a query not of `(1, dim)`."""
        if query.shape != (1, self._dim):
            raise ValueError(
                f"query {query.shape}: expected (1, {self._dim}); embed one text with this model"
            )
        return await self._run(lambda: self._search(query, top_k))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def close(self) -> None:
        self._owner.shutdown(wait=True, cancel_futures=True)

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._owner, call)

    def _empty(self) -> Any:
        return self._faiss.IndexIDMap2(self._faiss.IndexFlatIP(self._dim))

    def _replace(self, keys: ChunkKeys, vectors: Vectors) -> None:
        index = self._empty()
        index.add_with_ids(
            np.ascontiguousarray(vectors, dtype=np.float32), np.ascontiguousarray(keys, dtype=np.int64)
        )
        self._index = index

    def _search(self, query: Vectors, top_k: int) -> list[tuple[int, float]]:
        index = self._index
        n = int(index.ntotal)
        if top_k <= 0 or n == 0:
            return []
        query = np.ascontiguousarray(query, dtype=np.float32)
        # FAISS cuts equal scores at random, so one more is asked for, until the cut falls between two scores.
        n_asked = min(top_k + 1, n)
        while True:
            scores, keys = index.search(query, n_asked)
            if n_asked == n or scores[0, -1] != scores[0, top_k - 1]:
                break
            n_asked = min(2 * n_asked, n)
        hits = [(int(key), float(score)) for key, score in zip(keys[0], scores[0], strict=True) if key != -1]
        hits.sort(key=lambda hit: (-hit[1], hit[0]))
        return hits[:top_k]
