"""Thousands of random operations on an index of several stores, each search held against NumPy."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
import pytest

from retrieval.index.faiss_index import FaissIndex
from retrieval.index.kind import IndexChoice
from retrieval.types import Rows, Selection

pytestmark = pytest.mark.anyio
DIM = 12
N_STORES = 4
PQ_FROM, IVF_FROM = 200, 400
N_OPERATIONS = 10_000 if os.environ.get("INDEX_SIZE") == "full" else 1_500
LEAST = {"candidates": 10_000, "probed_share": 1.0, "scanned_below": 8, "merge_above": 32}
"""Every row a candidate, so that all kinds are exact, and merges all the time."""


@dataclass
class Model:
    """What an index should hold. Documents 0, 4, 8, ... are store 0's, and so on."""

    keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    documents: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    vectors: np.ndarray = field(default_factory=lambda: np.empty((0, DIM), np.float32))

    document_of: dict[int, int] = field(default_factory=dict)

    def change(self, gone: np.ndarray, added: Rows) -> None:
        for key in gone.tolist():
            self.document_of.pop(key, None)
        self.document_of |= zip(added.keys.tolist(), added.documents.tolist(), strict=True)
        kept = ~np.isin(self.keys, np.concatenate((gone, added.keys)))
        self.keys = np.concatenate((self.keys[kept], added.keys))
        self.documents = np.concatenate((self.documents[kept], added.documents))
        self.vectors = np.concatenate((self.vectors[kept], added.vectors))

    def search(self, query: np.ndarray, top_k: int, selection: Selection | None) -> list[tuple[int, float]]:
        keys, vectors = self.keys, self.vectors
        if selection is not None:
            known = self.documents < len(selection.documents)
            known[known] = selection.documents[self.documents[known]]
            keys, vectors = keys[known], vectors[known]
        scores = vectors @ query
        order = np.lexsort((keys, -scores))[:top_k]
        return [(int(keys[at]), float(scores[at])) for at in order]


class Operations:
    def __init__(self, seed: int, index: FaissIndex) -> None:
        self.rng = np.random.default_rng(seed)
        self.index = index
        self.model = Model()
        self.next_key = 0
        self.n_documents = N_STORES
        self.selections: list[Selection] = []
        self.n_foreign = self.n_deleted = self.n_searches = 0
        self.kinds: set[str] = set()
        self.grows = True

    async def one(self) -> None:
        # In turns more comes than goes, then the other way, so that merges build and compact.
        draw = self.rng.random()
        if draw < (0.26 if self.growing() else 0.05):
            await self.add()
        elif draw < 0.3:
            await self.remove()
        elif draw < 0.35:
            await self.update()
        elif draw < 0.45:
            self.select()
        else:
            await self.search()

    def growing(self) -> bool:
        self.grows = len(self.model.keys) < (600 if self.grows else 100)
        return self.grows

    def rows(self, keys: np.ndarray, document: int) -> Rows:
        """Components are small integers: scores are exact and many are equal."""
        vectors = self.rng.integers(-2, 3, size=(len(keys), DIM)).astype(np.float32)
        return Rows(keys, np.full(len(keys), document, np.int64), vectors, ())

    async def add(self) -> None:
        n = int(self.rng.integers(1, 12))
        before = len(self.model.keys)
        added = self.rows(np.arange(self.next_key, self.next_key + n), self.n_documents)
        self.next_key += n
        self.n_documents += int(self.rng.integers(1, 4))
        await self.change(np.empty(0, np.int64), added)
        if any(before < size <= len(self.model.keys) for size in (PQ_FROM + 100, IVF_FROM + 100)):
            # On a busy machine a merge may take longer than the index is of one kind.
            await self.index.settled()
            await self.search()

    async def remove(self) -> None:
        if len(self.model.keys):
            document = self.rng.choice(self.model.documents)
            gone = self.model.keys[self.model.documents == document]
            await self.change(np.append(gone, 10**9), self.rows(np.empty(0, np.int64), 0))

    async def update(self) -> None:
        """A document gets new chunks; one of its old ones may be written again under its key."""
        if len(self.model.keys):
            document = int(self.rng.choice(self.model.documents))
            old = self.model.keys[self.model.documents == document]
            new = np.arange(self.next_key, self.next_key + len(old))
            self.next_key += len(old)
            if self.rng.random() < 0.1:
                new = np.append(new, old[:1])
            await self.change(old, self.rows(new, document))

    async def change(self, gone: np.ndarray, added: Rows) -> None:
        self.model.change(gone, added)
        await self.index.change(gone.tolist(), added)
        assert len(self.index) == len(self.model.keys)

    def select(self) -> None:
        """Some stores, or some documents of them. Older selections go on being used."""
        stores = self.rng.permutation(N_STORES)[: self.rng.integers(1, N_STORES + 1)]
        documents = np.isin(np.arange(self.n_documents) % N_STORES, stores)
        every = bool(self.rng.random() < 0.5)
        if not every:
            documents &= self.rng.random(self.n_documents) < self.rng.random()
        names = tuple(str(store) for store in stores)
        self.selections = [*self.selections[-5:], Selection(names, documents, every)]

    async def search(self) -> None:
        queries = self.rng.integers(-2, 3, size=(int(self.rng.integers(1, 4)), DIM)).astype(np.float32)
        top_k = int(self.rng.choice([1, 5, 20, 2_000], p=[0.4, 0.3, 0.27, 0.03]))
        n = len(self.selections)
        selection = self.selections[self.rng.integers(n)] if n and self.rng.random() < 0.8 else None
        found = await self.index.search(queries, top_k, selection)
        self.n_searches += 1
        self.kinds.add(self.index.kind)
        for query, hits in zip(queries, found, strict=True):
            for key, _ in hits:
                document = self.model.document_of.get(key)
                self.n_deleted += document is None
                if document is not None and selection is not None:
                    self.n_foreign += str(document % N_STORES) not in selection.store_ids
            assert hits == self.model.search(query, top_k, selection)


@pytest.mark.parametrize("seed", [1, 2])
async def test_random_operations_find_what_numpy_finds(seed: int):
    choice = (
        IndexChoice("flat", **LEAST)
        if seed == 1
        else IndexChoice(device="cpu", flat_below=PQ_FROM, ivf_above=IVF_FROM, **LEAST)
    )
    index = FaissIndex(DIM, choice)
    operations = Operations(seed, index)
    try:
        for _ in range(N_OPERATIONS):
            await operations.one()
    finally:
        index.close()
    assert operations.n_foreign == operations.n_deleted == 0
    assert operations.n_searches > N_OPERATIONS // 3
    assert operations.kinds == ({"flat"} if seed == 1 else {"flat", "pq", "ivf"})
