from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import retrieval
from retrieval.embed import HashingEmbedder
from retrieval.errors import EmbedderMismatch
from retrieval.index import FaissIndex
from retrieval.search import Retriever
from retrieval.store import SqliteStore, document_id_for
from retrieval.types import Chunk, ChunkKeys, Document, Vectors

pytestmark = pytest.mark.anyio
EMBEDDER = HashingEmbedder(64)


def put(store: SqliteStore, source: str, *texts: str) -> None:
    chunks = [Chunk(ordinal, (), text, len(text.split())) for ordinal, text in enumerate(texts)]
    document = Document(document_id_for(source), source, source, source, "", 1, len(chunks), 0.0)
    store.put(document, chunks, EMBEDDER.embed(texts))


class CountingIndex(FaissIndex):
    n_replaced = 0

    async def replace(self, keys: ChunkKeys, vectors: Vectors) -> None:
        self.n_replaced += 1
        await super().replace(keys, vectors)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.db")
    store.claim_embedder(EMBEDDER.identity, EMBEDDER.dim)
    yield store
    store.close()


@pytest.fixture
def index() -> Iterator[CountingIndex]:
    index = CountingIndex(EMBEDDER.dim)
    yield index
    index.close()


@pytest.fixture
def retriever(store: SqliteStore, index: CountingIndex) -> Iterator[Retriever]:
    retriever = Retriever(store, index, EMBEDDER)
    yield retriever
    retriever.close()


async def texts(
    retriever: Retriever, query: str, top_k: int = 3, min_score: float | None = None
) -> list[str]:
    passages, _ = await retriever.retrieve(query, top_k, min_score)
    assert [passage.score for passage in passages] == sorted((p.score for p in passages), reverse=True)
    return [passage.text for passage in passages]


async def test_an_empty_store_gives_no_passages(retriever: Retriever):
    await retriever.load()
    assert await texts(retriever, "anything") == []


async def test_the_best_passage_comes_first_and_weak_ones_are_left_out(
    store: SqliteStore, retriever: Retriever
):
    put(store, "a", "returns within 45 days", "open at nine", "returns are free")
    await retriever.load()
    assert (await texts(retriever, "returns within 45 days"))[:2] == [
        "returns within 45 days",
        "returns are free",
    ]
    assert await texts(retriever, "returns within 45 days", min_score=0.99) == ["returns within 45 days"]
    assert await texts(retriever, "returns within 45 days", top_k=1) == ["returns within 45 days"]
    assert len(await texts(retriever, "returns", top_k=99)) == 3


async def test_a_change_is_honoured_by_the_next_query(store: SqliteStore, retriever: Retriever):
    await retriever.load()
    for n in range(20):
        put(store, "a", f"edition number {n}")
        assert await texts(retriever, "edition number") == [f"edition number {n}"]
    store.delete(document_id_for("a"))
    assert await texts(retriever, "edition number") == []


async def test_a_change_by_another_process_is_honoured_by_the_next_query(
    tmp_path: Path, store: SqliteStore, retriever: Retriever
):
    put(store, "a", "old words")
    await retriever.load()
    script = """
import sys
from retrieval.embed import HashingEmbedder
from retrieval.store import SqliteStore, document_id_for
from retrieval.types import Chunk, Document
store, embedder = SqliteStore(sys.argv[1]), HashingEmbedder(64)
store.claim_embedder(embedder.identity, embedder.dim)
document = Document(document_id_for("b"), "b", "b", "b", "", 1, 1, 0.0)
store.put(document, [Chunk(0, (), "new words", 2)], embedder.embed(["new words"]))
store.delete(document_id_for("a"))
"""
    arguments = [sys.executable, "-c", script, str(tmp_path / "store.db")]
    subprocess.run(arguments, cwd=Path(retrieval.__file__).parents[1], check=True)
    assert await texts(retriever, "words") == ["new words"]


async def test_queries_that_come_together_share_one_refresh(
    store: SqliteStore, index: CountingIndex, retriever: Retriever
):
    await retriever.load()
    before = index.n_replaced
    put(store, "a", "some words")
    found = await asyncio.gather(*(texts(retriever, "some words") for _ in range(20)))
    assert found == [["some words"]] * 20
    assert index.n_replaced == before + 1
    await texts(retriever, "some words")
    assert index.n_replaced == before + 1


async def test_a_cancelled_query_leaves_the_next_one_whole(store: SqliteStore, retriever: Retriever):
    put(store, "a", *(f"word {n}" for n in range(200)))
    for _ in range(30):
        put(store, "b", "the newest")
        query = asyncio.create_task(retriever.retrieve("the newest", 1))
        await asyncio.sleep(0.0005)
        query.cancel()
        await asyncio.gather(query, return_exceptions=True)
        assert await texts(retriever, "the newest", top_k=1) == ["the newest"]


class SlowEmbedder(HashingEmbedder):
    def embed(self, texts: Sequence[str]) -> Vectors:
        time.sleep(0.2)
        assert threading.current_thread() is not threading.main_thread()
        return super().embed(texts)


async def test_the_event_loop_is_never_blocked_and_phases_add_up(store: SqliteStore, index: CountingIndex):
    put(store, "a", "some words")
    retriever = Retriever(store, index, SlowEmbedder(64))
    query = asyncio.create_task(retriever.retrieve("some words", 3))
    started = time.monotonic()
    longest_ms = 0.0
    while not query.done():
        before = time.monotonic()
        await asyncio.sleep(0.001)
        longest_ms = max(longest_ms, (time.monotonic() - before) * 1000)
    took_ms = (time.monotonic() - started) * 1000
    _, timing = query.result()
    retriever.close()
    assert longest_ms < 150
    assert timing.embed_ms >= 200
    assert timing.search_ms > 0
    assert timing.rerank_ms == 0
    assert timing.embed_ms + timing.search_ms <= took_ms


async def test_vectors_of_another_model_are_refused(store: SqliteStore):
    put(store, "a", "some words")
    index = FaissIndex(32)
    retriever = Retriever(store, index, HashingEmbedder(32))
    with pytest.raises(EmbedderMismatch):
        await retriever.load()
    with pytest.raises(EmbedderMismatch):
        await retriever.retrieve("some words", 3)
    retriever.close()
    index.close()


async def test_close_leaves_no_thread_and_keeps_the_parts(store: SqliteStore, index: CountingIndex):
    before = set(threading.enumerate())
    retriever = Retriever(store, index, EMBEDDER)
    await retriever.retrieve("words", 1)
    retriever.close()
    left = set(threading.enumerate()) - before
    assert {thread.name.rsplit("_", 1)[0] for thread in left} == {"firstword-index"}
    assert store.documents() == []
