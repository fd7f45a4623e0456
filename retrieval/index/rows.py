"""The rows of an index: vectors, keys and document numbers by position, and exact scans over them.

A position is never moved or rewritten while its table lives: rows are appended, and taken away by a tombstone.
So whatever was derived from the first n positions (FAISS structures, a snapshot being written) stays right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.types import ChunkKeys, DocumentNumbers, Rows, Vectors

Positions = NDArray[np.int64]
Bits = NDArray[np.uint8]
"""One bit for each position, the lowest first: FAISS's `IDSelectorBitmap`."""

_COPIED_AT_ONCE = 4_096
_SPARE_ROWS = 4_096


class RowTable:
    """Grows at its end. One thread writes; others may read the first `n` rows as they were when they looked."""

    def __init__(self, dim: int, capacity: int = 0) -> None:
        import faiss

        self._faiss = faiss
        self.dim = dim
        self.n = 0
        self.n_dead = 0
        # Memory that was reserved and never touched costs none.
        capacity = 2 * capacity + _SPARE_ROWS
        self.vectors: Vectors = np.empty((capacity, dim), dtype=np.float32)
        self.keys: ChunkKeys = np.empty(capacity, dtype=np.int64)
        self.documents: DocumentNumbers = np.empty(capacity, dtype=np.int64)
        self.alive = np.zeros(capacity, dtype=np.bool_)
        # Keys ascend with few exceptions, so the array itself finds them: a dict would take 100 bytes a row.
        self._n_ascending = 0
        self._strays: dict[int, int] = {}

    @classmethod
    def of(cls, dim: int, parts: Sequence[Rows]) -> RowTable:
        """A copy, in key order; of equal keys the last counts."""
        n = sum(len(part.keys) for part in parts)
        table = cls(dim, n)
        keys = np.concatenate([part.keys for part in parts]) if parts else np.empty(0, dtype=np.int64)
        if n == 0 or np.all(keys[1:] > keys[:-1]):
            for part in parts:
                table.append(part.keys, part.documents, part.vectors)
            return table
        order = np.argsort(keys, kind="stable")
        vectors = np.concatenate([part.vectors for part in parts])
        documents = np.concatenate([part.documents for part in parts])
        for first in range(0, n, _COPIED_AT_ONCE):
            rows = order[first : first + _COPIED_AT_ONCE]
            table.append(keys[rows], documents[rows], vectors[rows])
        return table

    def without_dead(self, n: int, alive: NDArray[np.bool_]) -> RowTable:
        """A copy of those of the first `n` rows that `alive` marks."""
        rows = np.flatnonzero(alive[:n])
        order = rows if not self._strays else rows[np.argsort(self.keys[rows], kind="stable")]
        table = RowTable(self.dim, len(order))
        for first in range(0, len(order), _COPIED_AT_ONCE):
            at = order[first : first + _COPIED_AT_ONCE]
            table.append(self.keys[at], self.documents[at], self.vectors[at])
        return table

    def filled(self, n: int) -> RowTable:
        """Take over the first `n` rows, which the caller wrote into the arrays of this new table."""
        self.n = n
        self.n_dead = n - int(np.count_nonzero(self.alive[:n]))
        keys = self.keys[:n]
        falls = np.flatnonzero(keys[1:] <= keys[:-1])
        self._n_ascending = int(falls[0]) + 1 if len(falls) else n
        for at in range(self._n_ascending, n):
            if self.alive[at]:
                self._strays[int(keys[at])] = at
        return self

    @property
    def n_alive(self) -> int:
        return self.n - self.n_dead

    def find(self, keys: Sequence[int] | ChunkKeys) -> Positions:
        """The position of each key, -1 where it is not alive."""
        wanted = np.asarray(keys, dtype=np.int64)
        found = np.full(len(wanted), -1, dtype=np.int64)
        if self._n_ascending and len(wanted):
            at = np.searchsorted(self.keys[: self._n_ascending], wanted)
            at[at == self._n_ascending] = 0
            found = np.where(self.keys[at] == wanted, at, -1)
        if self._strays:
            for row, key in enumerate(wanted.tolist()):
                found[row] = self._strays.get(key, found[row])
        found[~self.alive[found]] = -1
        return found

    def append(self, keys: ChunkKeys, documents: DocumentNumbers, vectors: Vectors) -> Positions:
        """Copies the rows to the end; rows that had the same keys are buried. Returns where these were."""
        n = len(keys)
        if n == 0:
            return np.empty(0, dtype=np.int64)
        self._reserve(n)
        first, last = self.n, self.n + n
        ascending = bool(np.all(keys[1:] > keys[:-1]))
        ascending &= first == self._n_ascending and (first == 0 or int(keys[0]) > int(self.keys[first - 1]))
        old = np.empty(0, dtype=np.int64) if ascending else self.find(keys)
        old = np.unique(old[old >= 0])
        self.bury(old)
        self.vectors[first:last] = vectors
        self.keys[first:last] = keys
        self.documents[first:last] = documents
        self.alive[first:last] = True
        self.n = last
        if ascending:
            self._n_ascending = last
        else:
            self._add_strays(keys.tolist(), first)
        return old

    def _add_strays(self, keys: list[int], first: int) -> None:
        places = dict(zip(keys, range(first, first + len(keys)), strict=True))
        self._strays |= places
        if len(places) < len(keys):
            kept = set(places.values())
            self.bury(np.array([at for at in range(first, self.n) if at not in kept], dtype=np.int64))

    def bury(self, positions: Positions) -> None:
        """`positions` are alive and different."""
        self.alive[positions] = False
        self.n_dead += len(positions)

    def _reserve(self, n: int) -> None:
        if self.n + n <= len(self.keys):
            return
        capacity = 2 * (self.n + n) + _SPARE_ROWS
        for name in ("vectors", "keys", "documents", "alive"):
            old = getattr(self, name)
            grown = (
                np.zeros(capacity, np.bool_)
                if name == "alive"
                else np.empty((capacity, *old.shape[1:]), old.dtype)
            )
            grown[: self.n] = old[: self.n]
            setattr(self, name, grown)

    def products(self, queries: Vectors, positions: Positions) -> Vectors:
        """The inner products of each of n queries with its own positions, (n, k); -inf for position -1.

        The one routine that all scores come from: the same two vectors give the same bits wherever they lie.
        """
        swig = self._faiss.swig_ptr
        scores = np.empty(positions.shape, dtype=np.float32)
        self._faiss.fvec_inner_products_by_idx(
            swig(scores), swig(queries), swig(self.vectors), swig(positions), self.dim, *positions.shape
        )
        scores[positions < 0] = -np.inf
        return scores

    def nearest(self, query: Vectors, top_k: int, first: int, last: int, selector: Any) -> Positions:
        """Exact: positions of `[first, last)` that hold the `top_k` highest scores, and all that tie with the last.

        `selector` is over positions from `first` on, or None; `query` is (1, dim).
        """
        n = last - first
        if n <= 0 or top_k <= 0:
            return np.empty(0, dtype=np.int64)
        swig = self._faiss.swig_ptr
        vectors = self.vectors[first:last]
        # FAISS cuts equal scores at random; one more shows whether the cut fell between two of them.
        k = min(top_k + 1, n)
        scores, found = np.empty((1, k), dtype=np.float32), np.empty((1, k), dtype=np.int64)
        self._faiss.knn_inner_product(
            swig(query), swig(vectors), self.dim, 1, n, k, swig(scores), swig(found), selector
        )
        if k <= top_k or found[0, -1] < 0 or scores[0, -1] != scores[0, top_k - 1]:
            return found[0, :top_k][found[0, :top_k] >= 0] + first
        ties = self._faiss.RangeSearchResult(1)
        below = float(np.nextafter(scores[0, top_k - 1], np.float32(-np.inf)))
        self._faiss.range_search_inner_product(
            swig(query), swig(vectors), self.dim, 1, n, below, ties, selector
        )
        n_found = int(self._faiss.rev_swig_ptr(ties.lims, 2)[1])
        tied: Positions = self._faiss.rev_swig_ptr(ties.labels, n_found) + first
        return tied

    def best(self, scores: Vectors, positions: Positions, top_k: int) -> list[tuple[int, float]]:
        """(key, score) of the `top_k` highest scores, equal ones by key. Positions of -1 are passed over."""
        if len(scores) > top_k > 0:
            least = np.partition(scores, len(scores) - top_k)[len(scores) - top_k]
            kept = scores >= least
            scores, positions = scores[kept], positions[kept]
        hits = [
            (key, score)
            for key, score, at in zip(
                self.keys[positions].tolist(), scores.tolist(), positions.tolist(), strict=True
            )
            if at >= 0
        ]
        hits.sort(key=lambda hit: (-hit[1], hit[0]))
        return hits[:top_k]
