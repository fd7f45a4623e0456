"""The lexical index: BM25 over tantivy indexes in memory, one for each vector store.

https://github.com/quickwit-oss/tantivy-py. Divergences:
- BM25's constants are tantivy's (k1 1.2, b 0.75).
- Chunks that were taken out count in a store's statistics until tantivy merges the segment they were in.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.lexical.part import Part, Search, documents_query
from retrieval.lexical.text import analyzer, query_terms
from retrieval.types import Entry, Rows, Selection

T = TypeVar("T")

_OPEN_WRITERS = 2
_KEPT_SELECTIONS = 8
_FEW_DOCUMENTS = 256
"""Above them a set of documents costs more to hand to tantivy than a longer list of hits to look through."""
_LONG_LIST = 4_096
"""From so many hits on, it is the other way round."""


@dataclass(frozen=True, slots=True)
class _View:
    """What searches see: replaced as a whole."""

    searchers: Mapping[str, tuple[Any, Any]]
    """By store: a part's schema and searcher."""
    n_chunks: int


class TantivyIndex:
    """A `LexicalIndex`. Writes have one thread, searches another, so that neither an ingest nor a merge makes a
    search wait; tantivy lets go of the GIL in both. A cancelled caller leaves its call to finish unseen.
    After `close()` the methods raise `RuntimeError`.
    """

    def __init__(self, language: str = "english") -> None:
        """`language` decides on stop words and stems; empty: none of either, for text of any language."""
        import tantivy

        self._tantivy = tantivy
        self._language = language
        self._analyzer = analyzer(language)
        self._parts: dict[str, Part] = {}
        self._sizes: dict[str, int] = {}
        self._writing: OrderedDict[str, None] = OrderedDict()
        self._homes = _Homes()
        self._view = _View({}, 0)
        self._selected: OrderedDict[Selection, list[int]] = OrderedDict()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="firstword-lexical-write")
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="firstword-lexical")

    async def replace(self, entries: Sequence[Entry], rows: Sequence[Rows]) -> None:
        await self._run(self._writer, lambda: self._replace(entries, rows))

    async def change(self, gone: Sequence[int], entries: Sequence[Entry], added: Rows) -> None:
        await self._run(self._writer, lambda: self._change(gone, entries, (added,)))

    async def search(
        self, parts: Sequence[tuple[str, float]], top_k: int, selection: Selection
    ) -> list[tuple[int, float]]:
        """`parts` are texts and their weights; a word in several parts weighs their sum. Any text is taken
        for words, none for query syntax; of long ones the beginning counts. The scores say how much of the
        query a chunk holds: about 1 for a chunk with all of its words, more where they are frequent in it."""
        return await self._run(self._reader, lambda: self._search(parts, top_k, selection))

    def __len__(self) -> int:
        return self._view.n_chunks

    def close(self) -> None:
        self._writer.shutdown(wait=True, cancel_futures=True)
        self._reader.shutdown(wait=True, cancel_futures=True)
        for part in self._parts.values():
            part.rest()

    async def _run(self, thread: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, call)

    def _replace(self, entries: Sequence[Entry], rows: Sequence[Rows]) -> None:
        for store_id in self._writing:
            self._parts[store_id].rest()
        self._parts, self._sizes, self._homes = {}, {}, _Homes()
        self._writing.clear()
        # The view still holds the old searchers, and with them the old content.
        self._change((), entries, rows)

    def _change(self, gone: Sequence[int], entries: Sequence[Entry], added: Sequence[Rows]) -> None:
        store_of = {entry.number: entry.store_id for entry in entries}
        leaving: dict[str, list[int]] = defaultdict(list)
        for key in gone:
            if (store_id := self._homes.leave(key)) is not None:
                leaving[store_id].append(key)
        coming: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for rows in added:
            for key, document, text in zip(
                rows.keys.tolist(), rows.documents.tolist(), rows.texts, strict=True
            ):
                coming[store_of[document]].append((key, document, text))
        for store_id, chunks in coming.items():
            for key, _, _ in chunks:
                # A key that is there already is written over.
                if (home := self._homes.leave(key)) is not None:
                    leaving[home].append(key)
            self._homes.enter(store_id, (key for key, _, _ in chunks))
        for store_id in {**leaving, **coming}:
            self._write(store_id, leaving.get(store_id, ()), coming.get(store_id, ()))
        self._publish()

    def _write(self, store_id: str, gone: Sequence[int], added: Sequence[tuple[int, int, str]]) -> None:
        if not gone and not added:
            return
        self._sizes[store_id] = self._sizes.get(store_id, 0) + len(added) - len(gone)
        if self._sizes[store_id] == 0:
            self._writing.pop(store_id, None)
            self._parts.pop(store_id).rest()
            del self._sizes[store_id]
            return
        if store_id not in self._parts:
            self._parts[store_id] = Part(self._language)
        self._writing[store_id] = None
        self._writing.move_to_end(store_id)
        self._parts[store_id].write(gone, added)
        while len(self._writing) > _OPEN_WRITERS:
            idle, _ = self._writing.popitem(last=False)
            self._parts[idle].rest()

    def _publish(self) -> None:
        searchers = {store_id: (part.schema, part.searcher()) for store_id, part in self._parts.items()}
        self._view = _View(searchers, sum(self._sizes.values()))

    def _search(
        self, parts: Sequence[tuple[str, float]], top_k: int, selection: Selection
    ) -> list[tuple[int, float]]:
        terms = query_terms(self._analyzer, parts)
        if top_k <= 0 or not terms:
            return []
        view, found = self._view, []
        for store_id in dict.fromkeys(selection.store_ids):
            if store_id in view.searchers:
                schema, searcher = view.searchers[store_id]
                search = Search(self._tantivy, schema, searcher, terms)
                found += self._best(search, schema, int(searcher.num_docs), top_k, selection)
        return sorted(found, key=lambda hit: (-hit[1], hit[0]))[:top_k]

    def _best(
        self, search: Search, schema: Any, n_chunks: int, top_k: int, selection: Selection
    ) -> list[tuple[int, float]]:
        """The best `top_k` of one store and those that equal the last of them, in no order.

        Few documents are a condition of tantivy's search. Of many, the list is lengthened until it holds enough
        of them: the same result, since a store's statistics do not depend on what is selected.
        """
        documents = None if selection.every_document else self._documents(selection)
        if documents is not None and not documents:
            return []
        n = top_k + 1
        if documents is not None and len(documents) > _FEW_DOCUMENTS:
            # As many as it takes where the selected are spread evenly, and half as many again.
            n += 3 * top_k * (len(selection.documents) - len(documents)) // (2 * len(documents))
        n = min(n, n_chunks)
        while True:
            if documents is not None and (len(documents) <= _FEW_DOCUMENTS or n > _LONG_LIST):
                hits = search.best_among(documents_query(self._tantivy, schema, documents), n)
                kept = [(key, score) for key, _, score in hits]
            else:
                hits = search.best(n)
                kept = [
                    (key, score)
                    for key, document, score in hits
                    if documents is None or _selects(selection, document)
                ]
            if len(hits) < n or n == n_chunks:
                return kept
            if len(kept) >= top_k and hits[-1][2] < kept[top_k - 1][1]:
                return kept
            n = min(4 * n, n_chunks)

    def _documents(self, selection: Selection) -> list[int]:
        if selection in self._selected:
            self._selected.move_to_end(selection)
            return self._selected[selection]
        documents: list[int] = np.flatnonzero(selection.documents).tolist()
        self._selected[selection] = documents
        if len(self._selected) > _KEPT_SELECTIONS:
            self._selected.popitem(last=False)
        return documents


class _Homes:
    """Which store each chunk is in, by its key: four bytes for every key since the smallest."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._homes: NDArray[np.int32] = np.full(0, -1, dtype=np.int32)
        self._stores: dict[str, int] = {}
        self._names: list[str] = []

    def enter(self, store_id: str, keys: Iterable[int]) -> None:
        store = self._stores.setdefault(store_id, len(self._names))
        if store == len(self._names):
            self._names.append(store_id)
        entering = np.fromiter(keys, dtype=np.int64)
        if not len(entering):
            return
        self._make_room(int(entering.min()), int(entering.max()))
        self._homes[entering - (self._first or 0)] = store

    def leave(self, key: int) -> str | None:
        """The store that it was in; None if it was in none."""
        at = key - (self._first or 0)
        if not 0 <= at < len(self._homes) or self._homes[at] < 0:
            return None
        store, self._homes[at] = int(self._homes[at]), -1
        return self._names[store]

    def _make_room(self, low: int, high: int) -> None:
        first = low if self._first is None else min(self._first, low)
        before = 0 if self._first is None else self._first - first
        n = before + len(self._homes)
        if before or high - first >= n:
            n = max(high - first + 1, n + n // 2)
            homes = np.full(n, -1, dtype=np.int32)
            homes[before : before + len(self._homes)] = self._homes
            self._homes = homes
        self._first = first


def _selects(selection: Selection, document: int) -> bool:
    return document < len(selection.documents) and bool(selection.documents[document])
