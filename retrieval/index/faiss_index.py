"""The FAISS index: searched and changed by one thread, merged by another, beside a snapshot on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from retrieval.index.kind import IndexChoice, Kind, Structure, kind_for
from retrieval.index.merge import LEAST_ROWS, Merge
from retrieval.index.owner import Owner
from retrieval.index.rows import Positions, RowTable
from retrieval.index.saved import captured, loaded_index
from retrieval.index.selection import Allowed, Selections
from retrieval.index.snapshot import write_snapshot
from retrieval.types import Rows, Selection, Vectors

# A fiftieth of the rows is scanned as fast as a structure finds candidates among them, and exactly.
_SCANNED_SHARE = 50
_LONGEST_WAIT_S = 3.0

Hits = list[list[tuple[int, float]]]
Search = tuple[Vectors, int, Selection | None]


class FaissIndex:
    """A `VectorIndex`: a structure over the first rows (none while they are few), a scan of the rest, tombstones.

    Every call to a structure runs on the one owner thread, in the order in which the calls were made: FAISS allows
    no write beside a read, and on GPUs no two reads
    (https://github.com/facebookresearch/faiss/wiki/Threads-and-asynchronous-calls). Searches of one selection that
    wait together are made together. A merge builds the next structure on a thread of low priority; until the owner
    takes it over, what changed is scanned. Scores are exact inner products in float32 whatever the kind; "flat"
    finds exactly what NumPy finds.

    A cancelled search is left out, a cancelled change is made all the same. After `close()` the methods raise
    `RuntimeError`, and a merge that is under way ends unseen.
    Raises `IndexUnavailable` for a choice that this machine cannot serve.
    """

    def __init__(self, dim: int, choice: IndexChoice | None = None) -> None:
        import faiss

        self._dim = dim
        self._choice = choice or IndexChoice()
        kind_for(self._choice, 0)
        self._take(RowTable(dim), None)
        # FAISS spreads over OpenMP's threads what only pays off for many queries at once: one query took
        # 1.5 ms with one thread and 5.7 ms with two on two cores that an engine kept busy (10,000 vectors).
        # The setting belongs to the thread that makes it, so it binds no one else.
        self._owner = Owner("firstword-index", partial(faiss.omp_set_num_threads, 1))

    async def replace(self, rows: Sequence[Rows]) -> None:
        """The rows are copied before this returns. It undoes changes that are made while it runs.

        Raises `ValueError` for arrays of other shapes.
        """
        for part in rows:
            self._check(part)
        table = await asyncio.to_thread(RowTable.of, self._dim, rows)
        await self._owner.call(lambda: self._take(table, None))

    async def change(self, gone: Sequence[int], added: Rows) -> None:
        """A key that is there already gets the new row. `added` is copied before this returns."""
        self._check(added)
        await self._owner.call(lambda: self._change(gone, added))

    async def search(self, queries: Vectors, top_k: int, selection: Selection | None = None) -> Hits:
        """Never fewer hits than the selection holds. Raises `ValueError` for queries not of `(n, dim)`."""
        if queries.ndim != 2 or queries.shape[1] != self._dim:
            raise ValueError(
                f"queries {queries.shape}: expected (n, {self._dim}); embed the texts with this model"
            )
        found: Hits = await self._owner.call_together(
            self._search, (queries, top_k, selection), (top_k, id(selection))
        )
        return found

    async def scores(self, query: Vectors, keys: Sequence[int]) -> list[float]:
        if query.shape != (1, self._dim):
            raise ValueError(
                f"query {query.shape}: expected (1, {self._dim}); embed one text with this model"
            )
        return await self._owner.call(lambda: self._scores(query, keys))

    async def save(self, path: Path, store_identity: str, version: int) -> None:
        """Write all rows of this moment; `version` is the store's version that they were brought up to.

        What is captured holds at least that version's changes: it is taken after every call made before this one.
        Dead rows keep their place, as zeros. Searches go on. Raises `OSError`; the old snapshot stays then.
        """
        facts = {"store": store_identity, "version": version, "choice": self._choice.describe(self._dim)}
        contents = await self._owner.call(lambda: captured(self._table, self._structure, facts))
        await asyncio.to_thread(write_snapshot, path, contents)

    async def load(self, path: Path, store_identity: str) -> int | None:
        """Replace the content by a snapshot's; the store's changes since the version returned are still to be made.

        None, and nothing happens, when there is no snapshot, or one of another store, dimension or choice.
        Raises `SnapshotDamaged`.
        """
        loaded = await asyncio.to_thread(loaded_index, path, store_identity, self._dim, self._choice)
        if loaded is None:
            return None
        version, table, structure = loaded
        await self._owner.call(lambda: self._take(table, structure))
        return version

    async def settled(self) -> None:
        """Returns when no merge is under way: for tests and measurements."""
        while await self._owner.call(lambda: self._merge is not None):  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    @property
    def kind(self) -> Kind:
        """Of the structure that serves."""
        return self._structure.kind if self._structure else "flat"

    def __len__(self) -> int:
        return self._table.n_alive

    def close(self) -> None:
        merge = self._merge
        self._owner.close()
        if merge is not None:
            # A thread that comes back from C++ while the interpreter ends would take it down.
            merge.wait(_LONGEST_WAIT_S)

    def _check(self, rows: Rows) -> None:
        keys, vectors = rows.keys, rows.vectors
        n = len(keys)
        if vectors.shape != (n, self._dim) or keys.shape != (n,) or rows.documents.shape != (n,):
            raise ValueError(
                f"keys {keys.shape}, documents {rows.documents.shape} and vectors {vectors.shape}: expected "
                f"(n,), (n,) and (n, {self._dim}); embed the chunks with this index's model"
            )

    # From here on, on the owner's thread.

    def _take(self, table: RowTable, structure: Structure | None) -> None:
        self._table = table
        self._structure = structure
        self._selections = Selections(table)
        self._merge: Merge | None = None
        self._retry_above = -1
        if table.n:
            self._consider_merge()

    def _change(self, gone: Sequence[int], added: Rows) -> None:
        table = self._table
        positions = np.unique(table.find(gone))
        positions = positions[positions >= 0]
        table.bury(positions)
        replaced = table.append(added.keys, added.documents, added.vectors)
        for buried in (positions, replaced):
            if len(buried):
                self._take_away(buried)
        self._consider_merge()

    def _take_away(self, buried: Positions) -> None:
        self._selections.take_away(buried)
        if self._merge is not None:
            self._merge.buried.append(buried[buried < self._merge.n])

    def _consider_merge(self) -> None:
        table, structure = self._table, self._structure
        if self._merge is not None or table.n <= self._retry_above:
            return
        kind = kind_for(self._choice, table.n_alive)
        least = self._choice.merge_above
        compact = table.n_dead > max(least, table.n_alive // 4)
        n_scanned = table.n - (structure.n if structure else 0)
        wanted = kind != "flat" and table.n_alive >= LEAST_ROWS
        grown = wanted and (structure is None or n_scanned > min(max(least, table.n // 64), 8 * least))
        if compact or grown:
            self._merge = Merge(table, table.n, table.alive[: table.n].copy(), structure, kind, compact)
            self._merge.start(self._choice, lambda merge: self._owner.post(partial(self._adopt, merge)))

    def _adopt(self, merge: Merge) -> None:
        if merge is not self._merge:
            return
        self._merge = None
        if merge.failed:
            self._retry_above = self._table.n + self._table.n // 4
            return
        if merge.compact:
            self._take(merge.caught_up(), merge.new_structure)
        else:
            self._structure = merge.new_structure
            self._consider_merge()

    def _search(self, searches: Sequence[Search]) -> list[Hits]:
        _, top_k, selection = searches[0]
        queries = (
            np.concatenate([queries for queries, _, _ in searches]) if len(searches) > 1 else searches[0][0]
        )
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        hits = self._nearest(queries, top_k, self._selections.allowed(selection))
        answers, first = [], 0
        for own, _, _ in searches:
            answers.append(hits[first : first + len(own)])
            first += len(own)
        return answers

    def _nearest(self, queries: Vectors, top_k: int, allowed: Allowed) -> Hits:
        table, structure = self._table, self._structure
        if top_k <= 0 or allowed.n == 0:
            return [[] for _ in queries]
        n_head = structure.n if structure else 0
        if allowed.n <= max(self._choice.scanned_below, n_head // _SCANNED_SHARE) or top_k >= allowed.n:
            return self._scanned(queries, top_k, allowed)
        proposed = np.empty((len(queries), 0), dtype=np.int64)
        if structure is not None and (n_allowed := allowed.count(0, n_head)):
            only = None if n_allowed == n_head else allowed
            proposed = structure.candidates(queries, top_k, only, n_allowed / n_head)
            if np.any(np.count_nonzero(proposed >= 0, axis=1) < min(top_k, n_allowed)):
                return self._scanned(queries, top_k, allowed)
        n_tail = allowed.count(n_head, table.n)
        hits = []
        for at in range(len(queries)):
            query, positions = queries[at : at + 1], proposed[at]
            if n_tail:
                selector = None if n_tail == table.n - n_head else allowed.selector(n_head)
                near = table.nearest(query, top_k, n_head, table.n, selector)
                positions = np.concatenate((positions, near))
            hits.append(table.best(table.products(query, positions[None])[0], positions, top_k))
        return hits

    def _scanned(self, queries: Vectors, top_k: int, allowed: Allowed) -> Hits:
        """Exact over the allowed rows alone."""
        table, positions = self._table, allowed.positions()
        hits = []
        for at in range(len(queries)):
            scores = table.products(queries[at : at + 1], positions[None])[0]
            hits.append(table.best(scores, positions, top_k))
        return hits

    def _scores(self, query: Vectors, keys: Sequence[int]) -> list[float]:
        positions = self._table.find(keys)
        query = np.ascontiguousarray(query, dtype=np.float32)
        scores = self._table.products(query, positions[None])[0]
        scores[positions < 0] = np.nan
        return [float(score) for score in scores]
