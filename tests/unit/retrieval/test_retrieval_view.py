"""How a retriever starts, follows a long way behind, and changes to another model's vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest
from serving_made import (
    DIM,
    EMBEDDER,
    found,
    open_store,
    put,
    retriever_of,
    serving_of,
    texts,
)

from retrieval.embed.hashing import HashingEmbedder
from retrieval.errors import EmbedderMismatch
from retrieval.index.faiss_index import FaissIndex
from retrieval.search import retriever as search
from retrieval.search.retriever import Retriever, SearchOptions
from retrieval.search.serving import Serving
from retrieval.store.sqlite_store import SqliteStore
from retrieval.types import Embedder, Rows, Scope, Vectors

pytestmark = pytest.mark.anyio
NEW = HashingEmbedder(2 * DIM)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = open_store(tmp_path / "store.db")
    yield store
    store.close()


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each index was built from that was not read from its snapshot."""
    built: list[int] = []
    replace = FaissIndex.replace

    async def counted(self: FaissIndex, rows: Sequence[Rows]) -> None:
        built.append(sum(len(part.keys) for part in rows))
        await replace(self, rows)

    monkeypatch.setattr(FaissIndex, "replace", counted)
    return built


async def test_a_start_reads_the_snapshot_and_what_changed_since(
    store: SqliteStore, tmp_path: Path, replaced: list[int]
) -> None:
    snapshot = tmp_path / "vectors.snapshot"
    gone = put(store, "a", "words of a", "more words of a")
    put(store, "b", "words of b")
    async with retriever_of(store, snapshot=snapshot) as retriever:
        assert len(await texts(retriever, "words")) == 3
    assert snapshot.exists()
    store.delete(gone)
    put(store, "b", "other words of b")
    put(store, "c", "words of c")
    async with retriever_of(store, snapshot=snapshot) as retriever:
        assert set(await texts(retriever, "words")) == {"other words of b", "words of c"}
    async with retriever_of(store, snapshot=snapshot) as retriever:
        assert set(await texts(retriever, "words")) == {"other words of b", "words of c"}
    assert replaced == [3]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


@pytest.mark.parametrize("damage", [cut, flipped, lambda data: b""])
async def test_a_damaged_snapshot_costs_time_and_nothing_else(
    store: SqliteStore,
    tmp_path: Path,
    replaced: list[int],
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
) -> None:
    snapshot = tmp_path / "vectors.snapshot"
    put(store, "a", "words of a", "more words of a")
    async with retriever_of(store, snapshot=snapshot):
        pass
    snapshot.write_bytes(damage(snapshot.read_bytes()))
    async with retriever_of(store, snapshot=snapshot) as retriever:
        assert len(await texts(retriever, "words")) == 2
    assert replaced == [2, 2]
    assert "vectors.snapshot" in caplog.text
    async with retriever_of(store, snapshot=snapshot) as retriever:
        assert len(await texts(retriever, "words")) == 2
    assert replaced == [2, 2], "it was written anew"


async def test_another_stores_snapshot_is_not_taken(
    store: SqliteStore, tmp_path: Path, replaced: list[int]
) -> None:
    snapshot = tmp_path / "vectors.snapshot"
    other = open_store(tmp_path / "other.db")
    put(other, "a", "words of the other")
    async with retriever_of(other, snapshot=snapshot):
        pass
    other.close()
    put(store, "a", "words of this")
    async with retriever_of(store, snapshot=snapshot) as retriever:
        assert await texts(retriever, "words") == ["words of this"]
    assert replaced == [1, 1]


async def test_a_snapshot_that_cannot_be_written_stops_nobody(
    store: SqliteStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(store, "a", "words")
    async with retriever_of(store, snapshot=tmp_path / "none" / "vectors.snapshot") as retriever:
        assert await texts(retriever, "words") == ["words"]
    assert "is not kept" in caplog.text


async def test_a_snapshot_holds_its_version_and_nothing_newer(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what came after it and went before the next start, the store does not tell."""
    snapshot = tmp_path / "vectors.snapshot"
    put(store, "a", "words of a")
    async with retriever_of(store, snapshot=snapshot) as retriever:
        view, let = retriever.view, asyncio.Event()
        change = view.lexical.change

        async def held(*changes: Any) -> None:
            await let.wait()
            await change(*changes)

        monkeypatch.setattr(view.lexical, "change", held)
        put(store, "a", "other words of a")
        query = asyncio.create_task(texts(retriever, "words"))
        async with asyncio.timeout(30):
            while (
                len(await view.vectors.search(EMBEDDER.embed(["other"]), 9)) == 0
                or not view._changing.locked()
            ):
                await asyncio.sleep(0.001)
        saving = asyncio.create_task(view.save(at_least=0))
        await asyncio.sleep(0.02)
        let.set()
        assert await saving
        assert await query == ["other words of a"]
        index = FaissIndex(DIM)
        assert await index.load(snapshot, store.identity()) == view.version == store.version()
        index.close()


async def test_a_view_too_far_behind_is_built_anew(
    store: SqliteStore, tmp_path: Path, replaced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a", "words of a")
    async with retriever_of(store, snapshot=tmp_path / "vectors.snapshot") as retriever:
        put(store, "b", "words of b")
        changes = store.changes
        monkeypatch.setattr(store, "changes", lambda since: None)
        assert len(await texts(retriever, "words")) == 2
        monkeypatch.setattr(store, "changes", changes)
        put(store, "c", "words of c")
        assert len(await texts(retriever, "words")) == 3
    assert replaced == [1, 2]


def reindex(store: SqliteStore, embedder: Embedder) -> None:
    assert store.next_vectors.begin(embedder.identity, embedder.dim)
    keys, waiting = store.next_vectors.next_missing(10_000)
    store.next_vectors.put(embedder.identity, keys, embedder.embed(waiting))
    assert store.next_vectors.finish(embedder.identity, embedder.dim)


class Held(HashingEmbedder):
    """Its first query waits until it is let."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.asked = asyncio.Event()
        self.let = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.loop.call_soon_threadsafe(self.asked.set)
        asyncio.run_coroutine_threadsafe(self.let.wait(), self.loop).result(30)
        return super().embed(texts)


def opener(
    store: SqliteStore, models: dict[int, Embedder], opened: list[str]
) -> Callable[[Executor], Serving]:
    """Serves with the model that the store is bound to."""

    def open_serving(reading: Executor) -> Serving:
        held = store.embedder()
        assert held is not None
        opened.append(held[0])
        return serving_of(store, models[held[1]], reading)

    return open_serving


async def test_a_reindex_swaps_the_model_and_no_search_fails(store: SqliteStore) -> None:
    for n in range(40):
        put(store, str(n), f"words of document number {n}")
    opened: list[str] = []
    retriever = Retriever(store, opener(store, {DIM: EMBEDDER, 2 * DIM: NEW}, opened), SearchOptions())
    await retriever.load()
    try:
        reindex(store, NEW)
        ended = asyncio.Event()

        async def searches() -> int:
            n = 0
            while not ended.is_set():
                (best,) = await found(retriever, f"document number {n % 40}", top_k=1)
                assert best.text == f"words of document number {n % 40}"
                n += 1
            return n

        at_once = [asyncio.create_task(searches()) for _ in range(8)]
        async with asyncio.timeout(30):
            while retriever._open.embedder.dim != NEW.dim:
                await asyncio.sleep(0.001)
            for _ in range(20):
                await found(retriever, "document")
        ended.set()
        assert all(n > 0 for n in await asyncio.gather(*at_once))
        assert opened == [EMBEDDER.identity, NEW.identity]
        store.claim_embedder(NEW.identity, NEW.dim)
        put(store, "later", "what came later", embedder=NEW)
        assert await texts(retriever, "what came later", top_k=1) == ["what came later"]
    finally:
        await retriever.close()


async def test_a_search_that_began_with_the_old_model_ends_with_it(store: SqliteStore) -> None:
    put(store, "a", "some words")
    old, opened = Held(DIM), list[str]()
    retriever = Retriever(store, opener(store, {DIM: old, 2 * DIM: NEW}, opened), SearchOptions())
    await retriever.load()
    try:
        slow = asyncio.create_task(texts(retriever, "some words"))
        await old.asked.wait()
        reindex(store, NEW)
        waits = asyncio.create_task(texts(retriever, "some words"))
        async with asyncio.timeout(30):
            while retriever._open.embedder.dim != NEW.dim:
                await asyncio.sleep(0.001)
        assert await texts(retriever, "some words") == ["some words"]
        assert not slow.done()
        old.let.set()
        assert await slow == await waits == ["some words"]
    finally:
        old.let.set()
        await retriever.close()


async def test_what_is_deleted_while_a_reindex_is_swapped_in_is_not_found(store: SqliteStore) -> None:
    gone = put(store, "a", "some words")
    put(store, "b", "some other words")
    models: dict[int, Embedder] = {DIM: EMBEDDER}
    retriever = Retriever(store, opener(store, models, []), SearchOptions())
    await retriever.load()
    try:
        reindex(store, NEW)
        store.delete(gone)
        models[2 * DIM] = NEW
        for _ in range(5):
            assert await texts(retriever, "words") == ["some other words"]
    finally:
        await retriever.close()


async def test_a_model_that_cannot_be_had_leaves_the_old_one_serving(
    store: SqliteStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a", "some words")
    monkeypatch.setattr(search, "_SWAP_AGAIN_S", 0.0)
    models: dict[int, Embedder] = {DIM: EMBEDDER, 2 * DIM: NEW}
    served: list[str] = []
    known = opener(store, models, served)

    def open_serving(reading: Executor) -> Serving:
        if len(served) == 1:
            served.append("refused")
            raise EmbedderMismatch("the store holds vectors of another model; restart the server with it")
        return known(reading)

    retriever = Retriever(store, open_serving, SearchOptions())
    await retriever.load()
    try:
        reindex(store, NEW)
        async with asyncio.timeout(30):
            while "old index goes on" not in caplog.text or retriever._open.embedder.dim != NEW.dim:
                assert await texts(retriever, "words", Scope()) == ["some words"]
                await asyncio.sleep(0)
    finally:
        await retriever.close()


class Renamed(HashingEmbedder):
    """Of the same dimensions: nothing but the identity tells it apart."""

    @property
    def identity(self) -> str:
        return "renamed"


async def test_a_reindex_that_ends_while_the_index_is_built_is_seen(store: SqliteStore) -> None:
    """Else the vectors were the new model's, and the queries' the old one's."""
    models: dict[str, Embedder] = {EMBEDDER.identity: EMBEDDER, "renamed": Renamed(DIM)}
    put(store, "a", "some words")
    opened: list[str] = []

    def open_serving(reading: Executor) -> Serving:
        held = store.embedder()
        assert held is not None
        opened.append(held[0])
        if len(opened) == 1:
            reindex(store, models["renamed"])
        return serving_of(store, models[held[0]], reading)

    retriever = Retriever(store, open_serving, SearchOptions())
    try:
        await retriever.load()
        assert opened == [EMBEDDER.identity, "renamed"]
        assert retriever._open.embedder.identity == "renamed"
    finally:
        await retriever.close()
