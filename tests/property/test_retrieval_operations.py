"""Random operations over several tenants' stores: what is found is what is there, and nobody else's.

`RETRIEVAL_SIZE=full` runs 10,000 operations; some hundred are part of the suite.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from retrieval.embed.hashing import HashingEmbedder
from retrieval.embed.queries import QueryEmbedder
from retrieval.filters import Comparison
from retrieval.index.faiss_index import FaissIndex
from retrieval.lexical.tantivy_index import TantivyIndex
from retrieval.search.retriever import Retriever, SearchOptions
from retrieval.search.serving import Serving
from retrieval.search.view import View
from retrieval.store.sqlite_store import SqliteStore, document_id_for
from retrieval.types import Chunk, Document, Passage, Query, Scope

pytestmark = pytest.mark.anyio
FULL = os.environ.get("RETRIEVAL_SIZE") == "full"
OPERATIONS = 10_000 if FULL else 250
EMBEDDER = HashingEmbedder(64)
TENANTS = ("ada", "bob", "cyd")
CANDIDATES = 200
MOST_DOCUMENTS = 16
WORDS = [f"word{n}" for n in range(30)]


@dataclass
class Held:
    texts: list[str]
    year: int


@dataclass
class Model:
    """The documents of each vector store, by source."""

    owner: dict[str, str] = field(default_factory=dict)
    documents: dict[str, dict[str, Held]] = field(default_factory=dict)

    def of(self, scope: Scope) -> dict[tuple[str, str], str]:
        """(document id, text) of all that may be found, to the store that it is in."""
        return {
            (document_id_for(source, store_id), text): store_id
            for store_id in scope.store_ids
            for source, held in self.documents.get(store_id, {}).items()
            if scope.filter is None or scope.filter.matches({"year": held.year})
            for text in held.texts
        }


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.db")
    store.claim_embedder(EMBEDDER.identity, EMBEDDER.dim)
    yield store
    store.close()


class Talk:
    """One random history."""

    def __init__(self, store: SqliteStore, retriever: Retriever, seed: int) -> None:
        self.random = random.Random(seed)
        self.store = store
        self.retriever = retriever
        self.model = Model()
        self.n_made = 0
        self.foreign = 0
        self.seen = 0
        for tenant in TENANTS * 2:
            self.create(tenant)

    def create(self, tenant: str) -> None:
        store_id = self.store.files.create_store(tenant, "a store").store_id
        self.model.owner[store_id] = tenant
        self.model.documents[store_id] = {}

    def put(self) -> str:
        """A new document, or other text in place of an old one's; some of its chunks may stay."""
        store_id = self.random.choice(list(self.model.documents))
        held = self.model.documents[store_id]
        source = f"source {self.random.randrange(MOST_DOCUMENTS)}"
        texts = []
        before = held[source].texts if source in held else []
        for _ in range(self.random.randint(1, 3)):
            if before and self.random.random() < 0.3:
                text = before[0]
            else:
                self.n_made += 1
                # The sources are called alike and tell of the same things, so that stores find each other's best.
                text = f"{' '.join(self.random.sample(WORDS, 4))} unique{self.n_made}"
            if text not in texts:
                texts.append(text)
        held[source] = Held(texts, self.random.randint(2000, 2003))
        document = Document(
            document_id=document_id_for(source, store_id),
            source=source,
            filename=source,
            title="",
            content_sha256="",
            size_bytes=1,
            n_chunks=len(texts),
            ingested_at=0.0,
            store_id=store_id,
            attributes={"year": held[source].year},
        )
        chunks = [Chunk(at, (), text, 5) for at, text in enumerate(texts)]
        self.store.put(document, chunks, EMBEDDER.embed(texts))
        return texts[-1]

    def modify(self) -> None:
        store_id = self.random.choice(list(self.model.documents))
        for source, held in self.model.documents[store_id].items():
            held.year = self.random.randint(2000, 2003)
            assert self.store.modify(document_id_for(source, store_id), {"year": held.year})
            return

    def delete(self) -> None:
        store_id = self.random.choice(list(self.model.documents))
        if held := self.model.documents[store_id]:
            source = self.random.choice(list(held))
            del held[source]
            assert self.store.delete(document_id_for(source, store_id))

    def delete_store(self) -> None:
        store_id = self.random.choice(list(self.model.documents))
        tenant = self.model.owner.pop(store_id)
        del self.model.documents[store_id]
        self.store.files.delete_store(tenant, store_id)
        self.create(tenant)

    def scope(self) -> Scope:
        """Of one tenant's stores."""
        tenant = self.random.choice(TENANTS)
        own = [store_id for store_id, owner in self.model.owner.items() if owner == tenant]
        chosen = self.random.sample(own, self.random.randint(1, len(own)))
        year = self.random.randint(2000, 2003)
        return Scope(tuple(chosen), self.random.choice([None, Comparison("gte", "year", year)]))

    def question(self) -> str:
        return " ".join(self.random.sample(WORDS, 3))

    async def search(self, scope: Scope, question: str) -> list[Passage]:
        found, _ = await self.retriever.search(Query(question), scope, top_k=CANDIDATES)
        self.seen += len(found)
        self.foreign += sum(passage.store_id not in scope.store_ids for passage in found)
        return found

    async def check(self, scope: Scope, question: str) -> None:
        """All that may be found is (there are fewer than are looked at), and nothing else."""
        expected = self.model.of(scope)
        found = await self.search(scope, question)
        assert {(one.document_id, one.text): one.store_id for one in found} == expected
        assert len(found) == len(expected)

    async def step(self) -> None:
        change = self.random.choices(
            [self.put, self.modify, self.delete, self.delete_store], weights=[60, 12, 25, 3]
        )[0]
        # Some searches are under way while the change is made.
        under_way = [asyncio.create_task(self.search(self.scope(), self.question())) for _ in range(2)]
        await asyncio.sleep(0)
        change()
        await asyncio.gather(
            self.check(self.scope(), self.question()), self.check(self.scope(), self.question()), *under_way
        )


@pytest.mark.timeout(900 if FULL else 120)
async def test_no_foreign_chunk_and_no_deleted_one_is_ever_found(store: SqliteStore) -> None:
    def open_serving(reading: Executor) -> Serving:
        view = View(store, FaissIndex(EMBEDDER.dim), TantivyIndex(), reading, None)
        return Serving(QueryEmbedder(EMBEDDER), view)

    retriever = Retriever(store, open_serving, SearchOptions(candidates=CANDIDATES))
    await retriever.load()
    try:
        talk = Talk(store, retriever, seed=6)
        for _ in range(OPERATIONS // 5):  # a change and four searches
            await talk.step()
    finally:
        await retriever.close()
    print(f"{OPERATIONS} operations, {talk.seen} passages found, {talk.foreign} foreign")
    assert talk.foreign == 0
    assert talk.seen > OPERATIONS // 2
